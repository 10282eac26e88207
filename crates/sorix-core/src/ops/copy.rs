//! Memory of one's own.

use crate::autograd::{Function, Gradients, record};
use crate::error::{Call, Result};
use crate::ops::elementwise;
use crate::tensor::Tensor;

impl Tensor {
    /// The same elements row-major in memory of their own, which a write to this tensor does not reach:
    /// NumPy's `copy`, PyTorch's `clone`. (`clone` here is another handle to the same tensor.) The
    /// gradient passes through.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([1.0, 2.0]);
    /// let (handle, copy) = (x.clone(), x.copy()?);
    /// x.assign(&tensor([3.0, 4.0]))?;
    /// assert_eq!(handle.to_vec::<f64>()?, [3.0, 4.0]);
    /// assert_eq!(copy.to_vec::<f64>()?, [1.0, 2.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn copy(&self) -> Result<Self> {
        let output = elementwise::copy(Call::on("copy", self), self)?;
        Ok(record(output, &[self], || CopyBackward))
    }
}

#[derive(Debug)]
struct CopyBackward;

impl Function for CopyBackward {
    fn name(&self) -> &'static str {
        "CopyBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        Ok(vec![Some(grad)])
    }
}
