//! The logistic function.

use sorix_kernels::Function;

use super::mapped::{Mapped, apply};
use crate::error::Result;
use crate::tensor::Tensor;

impl Tensor {
    /// `1 / (1 + exp(-x))` of each element.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([0.0, -1000.0, 1000.0]).sigmoid()?.to_vec::<f64>()?, [0.5, 0.0, 1.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn sigmoid(&self) -> Result<Self> {
        apply(self, &SIGMOID)
    }
}

static SIGMOID: Mapped = Mapped {
    op: "sigmoid",
    backward: "SigmoidBackward",
    function: Function::Sigmoid,
    derivative: Function::SigmoidDerivative,
};
