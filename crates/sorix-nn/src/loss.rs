//! Losses: how far a network's output is from what it should be, as one number.

use sorix_core::Tensor;

use crate::error::{Error, Result};

/// How the losses of the examples become one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// Their mean.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

impl Reduction {
    fn apply(self, losses: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Mean => losses.mean()?,
            Self::Sum => losses.sum()?,
        })
    }
}

/// The squares of the differences, over all elements.
///
/// # Errors
///
/// Where the two are not of one shape: they do not broadcast, because a column against a row would
/// give a number too; where dtypes differ.
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
    let difference = prediction.sub(target)?;
    reduction.apply(&difference.mul(&difference)?)
}
