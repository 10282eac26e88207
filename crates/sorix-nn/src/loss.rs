//! Losses: how far a network's output is from what it should be, as one number or one for each
//! example.
//!
//! A loss has the dtype of the network's output. f16 and bf16 are computed with in f32, and the loss and
//! its gradient are rounded once.

use sorix_core::{DType, ErrorKind, Tensor};

use crate::error::{Error, Result};

/// How the losses of the examples become one number, or that they do not.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::Reduction;
/// use sorix_nn::loss::mse_loss;
///
/// let (prediction, target) = (tensor([1.0, 2.0, 3.0]), tensor([1.0, 4.0, 4.0]));
/// // With your own weights.
/// let each = mse_loss(&prediction, &target, Reduction::None)?;
/// assert_eq!(each.to_vec::<f64>()?, [0.0, 4.0, 1.0]);
/// assert_eq!(each.mul(&tensor([1.0, 0.5, 0.0]))?.sum()?.item::<f64>()?, 2.0);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reduction {
    /// Their mean; NaN without examples.
    #[default]
    Mean,
    /// Their sum.
    Sum,
    /// Not at all: a tensor of them.
    None,
}

impl Reduction {
    /// The result of losses in `dtype`, from those in the dtype that it is computed in.
    fn apply(self, losses: Tensor, dtype: DType) -> Result<Tensor> {
        let reduced = match self {
            Self::Mean => losses.mean()?,
            Self::Sum => losses.sum()?,
            Self::None => losses,
        };
        Ok(reduced.to_dtype(dtype)?)
    }
}

/// The tensor in the dtype that its own is computed in: a loss of f16 or bf16 and its gradient are
/// rounded once, and not between the operations that they are made of.
fn widen(x: &Tensor) -> Result<Tensor> {
    Ok(x.to_dtype(x.dtype().arithmetic())?)
}

/// The squares of the differences, over all elements; without a [reduction](Reduction::None), of the
/// shape of the two.
///
/// # Errors
///
/// If shapes or dtypes differ. The two do not broadcast, because a column against a row would give a
/// number too.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::Reduction;
/// use sorix_nn::loss::mse_loss;
///
/// let (prediction, target) = (tensor([1.0, 2.0]), tensor([1.0, 4.0]));
/// assert_eq!(mse_loss(&prediction, &target, Reduction::Mean)?.item::<f64>()?, 2.0);
/// assert_eq!(mse_loss(&prediction, &target, Reduction::Sum)?.item::<f64>()?, 4.0);
///
/// let column = tensor([[1.0], [2.0]]);
/// let error = mse_loss(&column, &target, Reduction::Mean).unwrap_err();
/// assert_eq!(error.to_string(), "mse_loss: expected a target of shape [2, 1], got shape [2]");
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn mse_loss(prediction: &Tensor, target: &Tensor, reduction: Reduction) -> Result<Tensor> {
    if prediction.shape() != target.shape() {
        return Err(Error::shape(
            "mse_loss",
            format!("a target of shape {:?}", prediction.shape()),
            target.shape(),
        ));
    }
    let dtype = prediction.dtype();
    if target.dtype() != dtype {
        let kind = ErrorKind::MixedDTypes;
        return Err(sorix_core::Error::new("mse_loss", &[prediction, target], kind).into());
    }
    let difference = widen(prediction)?.sub(&widen(target)?)?;
    reduction.apply(difference.mul(&difference)?, dtype)
}

/// `-log softmax(logits)` at the class of each example: the cross entropy between the classes given
/// and those predicted.
///
/// `logits` is of shape `[examples, classes]`: the output of the last linear layer as it is.
/// `classes` has a class for each example. Without a [reduction](Reduction::None) the losses are of shape
/// `[examples]`.
///
/// Source: Goodfellow, Bengio and Courville, *Deep Learning*, MIT Press 2016, sections 5.5 and 6.2.2.3.
///
/// # Errors
///
/// If `logits` does not have two axes, if the number of classes given is not that of the examples, or if
/// one is out of range.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::Reduction;
/// use sorix_nn::loss::cross_entropy;
///
/// let logits = tensor([[0.0, 0.0], [1000.0, 0.0]]);
/// let loss = cross_entropy(&logits, &[1, 0], Reduction::Sum)?.item::<f64>()?;
/// assert!((loss - 2f64.ln()).abs() < 1e-15);
///
/// let error = cross_entropy(&logits, &[0, 2], Reduction::Mean).unwrap_err();
/// assert_eq!(error.to_string(), "cross_entropy: expected whole numbers in 0..2, got 2");
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn cross_entropy(logits: &Tensor, classes: &[usize], reduction: Reduction) -> Result<Tensor> {
    let layer = "cross_entropy";
    let &[examples, count] = logits.shape() else {
        return Err(Error::shape(
            layer,
            "logits of shape [examples, classes]",
            logits.shape(),
        ));
    };
    if classes.len() != examples {
        return Err(Error::shape(
            layer,
            format!("a class for each of {examples} examples"),
            &[classes.len()],
        ));
    }
    if let Some(&class) = classes.iter().find(|&&class| class >= count) {
        return Err(Error::Index {
            layer,
            count,
            got: class.to_string(),
        });
    }
    let losses = widen(logits)?.log_softmax(1)?.gather_last(classes)?.neg()?;
    reduction.apply(losses, logits.dtype())
}
