//! Repetition without a copy.

use crate::autograd::{Function, Gradients, record};
use crate::dtype::DType;
use crate::error::{Call, ErrorKind, Result};
use crate::shape::checked_numel;
use crate::tensor::Tensor;

impl Tensor {
    /// A view of a shape that this one broadcasts to: repeated along axes of length 1 and along new
    /// leading axes, where the stride is 0.
    ///
    /// # Errors
    ///
    /// If this tensor does not broadcast to `shape`.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0], [2.0]]).expand([2, 3])?;
    /// assert_eq!(x.to_vec::<f64>()?, [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
    /// assert_eq!(x.strides(), [1, 0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn expand(&self, shape: impl AsRef<[usize]>) -> Result<Self> {
        let output = self.broadcast_to(Call::on("expand", self), shape.as_ref())?;
        Ok(record(output, &[self], || ExpandBackward {
            shape: self.shape().into(),
        }))
    }

    /// [`expand`](Tensor::expand) for another operation, apart from the graph.
    pub(crate) fn broadcast_to(&self, call: Call<'_>, shape: &[usize]) -> Result<Self> {
        checked_numel(call, shape, self.dtype())?;
        match self.layout().expanded(shape) {
            Some(layout) => Ok(self.with_layout(layout)),
            None => {
                let (left, right) = (self.shape().to_vec(), shape.to_vec());
                Err(call.error(ErrorKind::Broadcast { left, right }))
            }
        }
    }

    /// The dtype of both operands of an operation.
    pub(super) fn common_dtype(&self, call: Call<'_>, other: &Self) -> Result<DType> {
        if self.dtype() == other.dtype() {
            Ok(self.dtype())
        } else {
            Err(call.error(ErrorKind::MixedDTypes))
        }
    }
}

#[derive(Debug)]
struct ExpandBackward {
    shape: Box<[usize]>,
}

impl Function for ExpandBackward {
    fn name(&self) -> &'static str {
        "ExpandBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        Ok(vec![Some(grad.sum_to(self.name(), &self.shape)?)])
    }
}
