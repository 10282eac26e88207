//! Clipping of gradients, between backward and step.

use sorix_core::autograd::no_grad;
use sorix_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::hyperparameter::{at_least_zero, non_negative};

/// Scales all gradients by one factor, so that their Euclidean norm taken together is at most
/// `max_norm`, up to the rounding of their dtype; returns the norm before. A norm below `max_norm`
/// changes nothing, so with infinity it is only measured. A parameter that is given twice counts once.
///
/// The norm is computed in f64, of the gradients divided by the largest element, so that no square
/// leaves its range.
///
/// Source: Pascanu, Mikolov and Bengio, *On the difficulty of training recurrent neural networks*,
/// ICML 2013.
///
/// # Errors
///
/// If `max_norm` is negative or NaN. If the norm is infinite or NaN: the error names a parameter whose
/// gradient is, the gradients stay as they were, and the step is best left out.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::clip_grad_norm;
///
/// let w = tensor([0.0, 0.0]).requires_grad(true);
/// w.mul(&tensor([3.0, 4.0]))?.sum()?.backward()?;
/// // As `Module::named_parameters` gives them.
/// let parameters = [("0.weight".to_owned(), w.clone())];
/// assert_eq!(clip_grad_norm(&parameters, f64::INFINITY)?, 5.0);
/// assert_eq!(clip_grad_norm(&parameters, 2.5)?, 5.0);
/// assert_eq!(w.grad().unwrap().to_vec::<f64>()?, [1.5, 2.0]);
///
/// w.mul(&tensor([f64::NAN, 1.0]))?.sum()?.backward()?;
/// assert_eq!(
///     clip_grad_norm(&parameters, 2.5).unwrap_err().to_string(),
///     "clip_grad_norm: the gradient norm is NaN and cannot be clipped: see parameter \"0.weight\""
/// );
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn clip_grad_norm(parameters: &[(String, Tensor)], max_norm: f64) -> Result<f64> {
    at_least_zero("clip_grad_norm", "max_norm", max_norm)?;
    let gradients = gradients(parameters);
    let norm = norm(&gradients)?;
    if norm > max_norm {
        replace_all(&gradients, |gradient| gradient.mul_scalar(max_norm / norm))?;
    }
    Ok(norm)
}

/// Moves each element of each gradient into `[-max, max]`; NaN stays.
///
/// # Errors
///
/// If `max` is negative or not finite.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::clip_grad_value;
///
/// let w = tensor([0.0, 0.0, 0.0]).requires_grad(true);
/// w.mul(&tensor([3.0, -0.5, -4.0]))?.sum()?.backward()?;
/// clip_grad_value(&[("w".to_owned(), w.clone())], 1.0)?;
/// assert_eq!(w.grad().unwrap().to_vec::<f64>()?, [1.0, -0.5, -1.0]);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn clip_grad_value(parameters: &[(String, Tensor)], max: f64) -> Result<()> {
    non_negative("clip_grad_value", "max", max)?;
    let gradients = gradients(parameters);
    replace_all(&gradients, |gradient| gradient.clamp(-max, max))
}

/// A gradient, with the name of its parameter.
type Gradient<'a> = (&'a str, Tensor);

/// The Euclidean norm of all elements, if it is finite.
fn norm(gradients: &[Gradient<'_>]) -> Result<f64> {
    let (mut largest, mut not_finite) = (0.0, None);
    for (name, gradient) in gradients.iter().filter(|(_, it)| it.numel() > 0) {
        let max = gradient.abs()?.max()?.to_dtype(DType::F64)?.item::<f64>()?;
        // NaN stays, which `f64::max` would not let it.
        if max > largest || max.is_nan() {
            largest = max;
        }
        if !max.is_finite() && not_finite.is_none() {
            not_finite = Some(*name);
        }
    }
    let mut norm = largest;
    if largest.is_finite() && largest > 0.0 {
        let mut sum = 0.0;
        for (_, gradient) in gradients {
            let part = gradient.to_dtype(DType::F64)?.div_scalar(largest)?;
            sum += part.mul(&part)?.sum()?.item::<f64>()?;
        }
        norm = largest * sum.sqrt();
    }
    if norm.is_finite() {
        Ok(norm)
    } else {
        Err(Error::GradientNorm {
            norm,
            parameter: not_finite.map(str::to_owned),
        })
    }
}

/// The gradients that there are, of tied parameters once.
fn gradients(parameters: &[(String, Tensor)]) -> Vec<Gradient<'_>> {
    let distinct = parameters.iter().enumerate().filter(|(i, (_, parameter))| {
        let mut before = parameters[..*i].iter();
        before.all(|(_, other)| !other.is_same(parameter))
    });
    distinct
        .filter_map(|(_, (name, parameter))| Some((&**name, parameter.grad()?)))
        .collect()
}

/// Overwrites gradients in place; their new values are all there before the first is written.
fn replace_all(
    gradients: &[Gradient<'_>],
    f: impl Fn(&Tensor) -> sorix_core::Result<Tensor>,
) -> Result<()> {
    no_grad(|| {
        let new = gradients.iter().map(|(_, gradient)| f(gradient));
        let new = new.collect::<Result<Vec<_>, _>>()?;
        for ((_, gradient), new) in gradients.iter().zip(&new) {
            gradient.assign(new)?;
        }
        Ok(())
    })
}
