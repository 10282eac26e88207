//! [`SavedTensor`]: a tensor kept for backward, and the proof that it is still the same.

use crate::autograd::Function;
use crate::error::{Call, ErrorKind, Result};
use crate::tensor::Tensor;

/// A tensor that a [`Function`] keeps for its backward.
///
/// It is apart from the graph, so that it keeps no other node alive, and it notices when the
/// elements were overwritten.
///
/// ```
/// use sorix_core::autograd::no_grad;
/// use sorix_core::tensor;
///
/// let x = tensor([2.0]).requires_grad(true);
/// let y = x.mul(&x)?;
/// no_grad(|| x.assign(&tensor([5.0])))?;
/// assert_eq!(
///     y.backward().unwrap_err().to_string(),
///     "MulBackward(float64[1]): a tensor it saved for backward was written since \
///      (at version 0 then, 1 now), as by an optimiser's step after forward"
/// );
/// # Ok::<(), sorix_core::Error>(())
/// ```
#[derive(Debug)]
pub struct SavedTensor {
    tensor: Tensor,
    version: u64,
}

impl SavedTensor {
    /// Keeps `tensor` as it is now. An operation asks for it before it reads the elements, so that a
    /// write by another thread meanwhile counts as one afterwards.
    #[must_use]
    pub fn new(tensor: &Tensor) -> Self {
        Self {
            tensor: tensor.detach(),
            version: tensor.storage().version(),
        }
    }

    /// The tensor as it was kept, for the backward of `function`: a write that comes later, by another
    /// thread, does not reach it.
    ///
    /// # Errors
    ///
    /// If it was written since it was kept.
    pub fn get(&self, function: &impl Function) -> Result<Tensor> {
        self.get_for(function.name())
    }

    /// The tensor, for the backward of the function of this name.
    pub(super) fn get_for(&self, function: &'static str) -> Result<Tensor> {
        // In this order: whatever write the snapshot has in it is counted by then.
        let snapshot = self.tensor.snapshot();
        let (saved, current) = (self.version, self.tensor.storage().version());
        if saved == current {
            Ok(snapshot)
        } else {
            Err(Call::on(function, &self.tensor)
                .error(ErrorKind::SavedTensorWritten { saved, current }))
        }
    }
}
