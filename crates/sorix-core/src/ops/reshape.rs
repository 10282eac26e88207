//! Another shape for the same elements.

use crate::autograd::{Function, Gradients, record};
use crate::error::{Call, ErrorKind, Result};
use crate::ops::elementwise;
use crate::shape::{Layout, checked_numel};
use crate::tensor::Tensor;

impl Tensor {
    /// The same elements in row-major order under another shape: a view if the strides allow it,
    /// as those of a [contiguous](Tensor::is_contiguous) tensor do, else a copy.
    ///
    /// # Errors
    ///
    /// If the shape has more or fewer elements.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    /// assert_eq!(x.reshape([2, 3])?.sum_over(1)?.to_vec::<f64>()?, [6.0, 15.0]);
    /// assert!(x.reshape([4, 2]).is_err());
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn reshape(&self, shape: impl AsRef<[usize]>) -> Result<Self> {
        let (call, shape) = (Call::on("reshape", self), shape.as_ref());
        let (expected, got) = (checked_numel(call, shape, self.dtype())?, self.numel());
        if expected != got {
            return Err(call.error(ErrorKind::Length {
                shape: shape.to_vec(),
                expected,
                got,
            }));
        }
        self.reshape_checked(call, shape)
    }

    /// [`reshape`](Tensor::reshape) to a shape of as many elements.
    pub(super) fn reshape_checked(&self, call: Call<'_>, shape: &[usize]) -> Result<Self> {
        let output = match self.layout().reshaped(shape) {
            Some(layout) => self.with_layout(layout),
            None => elementwise::copy(call, self)?.with_layout(Layout::contiguous(shape)),
        };
        Ok(record(output, &[self], || ReshapeBackward {
            shape: self.shape().into(),
        }))
    }
}

#[derive(Debug)]
struct ReshapeBackward {
    shape: Box<[usize]>,
}

impl Function for ReshapeBackward {
    fn name(&self) -> &'static str {
        "ReshapeBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        Ok(vec![Some(grad.reshape(&self.shape)?)])
    }
}
