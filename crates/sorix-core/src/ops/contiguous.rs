//! A row-major copy if one is needed.

use crate::autograd::{Function, Gradients, record};
use crate::error::{Call, Result};
use crate::ops::elementwise;
use crate::tensor::Tensor;

impl Tensor {
    /// The tensor with its elements in row-major order in memory: itself if they are, else a
    /// copy.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 2.0], [3.0, 4.0]]);
    /// assert!(x.contiguous()?.same_storage(&x));
    /// let t = x.transpose(0, 1)?.contiguous()?;
    /// assert_eq!((t.strides(), t.to_vec::<f64>()?), (&[2, 1][..], vec![1.0, 3.0, 2.0, 4.0]));
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn contiguous(&self) -> Result<Self> {
        if self.is_contiguous() {
            return Ok(self.clone());
        }
        Ok(record(
            elementwise::copy(Call::on("contiguous", self), self)?,
            &[self],
            || ContiguousBackward,
        ))
    }
}

#[derive(Debug)]
struct ContiguousBackward;

impl Function for ContiguousBackward {
    fn name(&self) -> &'static str {
        "ContiguousBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        Ok(vec![Some(grad)])
    }
}
