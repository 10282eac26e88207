//! Adding up the gradients that arrive at a leaf, in their own memory.

use crate::dtype::{Scalar, dispatch};
use crate::error::{Call, Result};
use crate::ops::elementwise;
use crate::tensor::Tensor;

impl Tensor {
    /// The tensor row-major in memory that nothing else uses: its own if it is the only user, else a
    /// copy.
    pub(crate) fn into_unshared(self, op: &'static str) -> Result<Self> {
        let (shape, dtype) = (self.shape().to_vec(), self.dtype());
        match self.try_into_buffer() {
            Ok(buffer) => Ok(Self::from_buffer(buffer, &shape, dtype)),
            Err(shared) => elementwise::copy(Call::on(op, &shared), &shared),
        }
    }

    /// `self += addend`; same shape and dtype.
    pub(crate) fn add_in_place(&self, addend: &Self) -> Result<()> {
        let call = Call::on_two("add_in_place", self, addend);
        dispatch!(self.dtype(), T => {
            elementwise::update(call, self, addend, |x: T, addend: T| {
                T::from_acc(x.to_acc() + addend.to_acc())
            })
        })
    }
}
