//! Clipping of gradients, between backward and step.

use sorix_core::autograd::no_grad;
use sorix_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::hyperparameter::{at_least_zero, non_negative};

/// Scales all gradients by one factor, so that their Euclidean norm taken together is at most
/// `max_norm`, up to the rounding of their dtype; returns the norm before. Below `max_norm` nothing
/// changes: infinity measures and nothing else. A parameter that is given twice counts once.
///
/// The norm is computed in f64, of the gradients divided by the largest, so that no square leaves its
/// range.
///
/// Source: Pascanu, Mikolov and Bengio, *On the difficulty of training recurrent neural networks*,
/// ICML 2013.
///
/// # Errors
///
/// Where `max_norm` is negative or NaN; where the norm is infinite or NaN, so that no factor would
/// help: the gradients stay as they were, and the step is best left out.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::clip_grad_norm;
///
/// let w = tensor([0.0, 0.0]).requires_grad(true);
/// w.mul(&tensor([3.0, 4.0]))?.sum()?.backward()?;
/// assert_eq!(clip_grad_norm(&[w.clone()], f64::INFINITY)?, 5.0);
/// assert_eq!(clip_grad_norm(&[w.clone()], 2.5)?, 5.0);
/// assert_eq!(w.grad().unwrap().to_vec::<f64>()?, [1.5, 2.0]);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn clip_grad_norm(parameters: &[Tensor], max_norm: f64) -> Result<f64> {
    at_least_zero("clip_grad_norm", "max_norm", max_norm)?;
    let gradients = gradients(parameters);
    let norm = norm(&gradients)?;
    if !norm.is_finite() {
        return Err(Error::GradientNorm { norm });
    }
    if norm > max_norm {
        replace_all(&gradients, |gradient| gradient.mul_scalar(max_norm / norm))?;
    }
    Ok(norm)
}

/// Moves each element of each gradient into `[-max, max]`; NaN stays.
///
/// # Errors
///
/// Where `max` is negative or not finite.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::clip_grad_value;
///
/// let w = tensor([0.0, 0.0, 0.0]).requires_grad(true);
/// w.mul(&tensor([3.0, -0.5, -4.0]))?.sum()?.backward()?;
/// clip_grad_value(&[w.clone()], 1.0)?;
/// assert_eq!(w.grad().unwrap().to_vec::<f64>()?, [1.0, -0.5, -1.0]);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn clip_grad_value(parameters: &[Tensor], max: f64) -> Result<()> {
    non_negative("clip_grad_value", "max", max)?;
    let gradients = gradients(parameters);
    replace_all(&gradients, |gradient| gradient.clamp(-max, max))
}

/// The Euclidean norm of all elements.
fn norm(gradients: &[Tensor]) -> Result<f64> {
    let mut largest = 0.0;
    for gradient in gradients.iter().filter(|gradient| gradient.numel() > 0) {
        let max = gradient.abs()?.max()?.to_dtype(DType::F64)?.item::<f64>()?;
        // NaN stays, which `f64::max` would not let it.
        if max > largest || max.is_nan() {
            largest = max;
        }
    }
    if largest == 0.0 || !largest.is_finite() {
        return Ok(largest);
    }
    let mut sum = 0.0;
    for gradient in gradients {
        let part = gradient.to_dtype(DType::F64)?.div_scalar(largest)?;
        sum += part.mul(&part)?.sum()?.item::<f64>()?;
    }
    Ok(largest * sum.sqrt())
}

/// The gradients that there are, of tied parameters once.
fn gradients(parameters: &[Tensor]) -> Vec<Tensor> {
    let distinct = parameters.iter().enumerate().filter(|(i, parameter)| {
        let mut before = parameters[..*i].iter();
        before.all(|other| !other.is_same(parameter))
    });
    distinct
        .filter_map(|(_, parameter)| parameter.grad())
        .collect()
}

/// Overwrites gradients in place; their new values are all there before the first is written.
fn replace_all(
    gradients: &[Tensor],
    f: impl Fn(&Tensor) -> sorix_core::Result<Tensor>,
) -> Result<()> {
    no_grad(|| {
        let new = gradients.iter().map(f).collect::<Result<Vec<_>, _>>()?;
        for (gradient, new) in gradients.iter().zip(&new) {
            gradient.assign(new)?;
        }
        Ok(())
    })
}
