//! The exponential.

use sorix_kernels::Function;

use super::mapped::{Mapped, apply};
use crate::error::Result;
use crate::tensor::Tensor;

impl Tensor {
    /// e to the power of each element.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([0.0, f64::NEG_INFINITY]).exp()?.to_vec::<f64>()?, [1.0, 0.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn exp(&self) -> Result<Self> {
        apply(self, &EXP)
    }
}

static EXP: Mapped = Mapped {
    op: "exp",
    backward: "ExpBackward",
    function: Function::Exp,
    derivative: Function::Exp,
};
