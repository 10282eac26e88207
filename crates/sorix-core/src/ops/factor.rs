//! What a product keeps for the gradient of one of its factors.

use crate::autograd::SavedTensor;
use crate::tensor::Tensor;

/// The shape of the factor, and the other one, which its gradient is made of.
#[derive(Debug)]
pub(super) struct Factor {
    pub(super) shape: Box<[usize]>,
    pub(super) other: SavedTensor,
}

impl Factor {
    /// `None` if the factor gets no gradient. To be asked for before the product is computed, as
    /// [`SavedTensor::new`] is.
    pub(super) fn of(factor: &Tensor, other: &Tensor) -> Option<Self> {
        factor.shape_if_needed().map(|shape| Self {
            shape,
            other: SavedTensor::new(other),
        })
    }
}
