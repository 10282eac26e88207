//! The hyperbolic tangent.

use sorix_kernels::Function;

use super::mapped::{Mapped, apply};
use crate::error::Result;
use crate::tensor::Tensor;

impl Tensor {
    /// The hyperbolic tangent of each element.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([0.0, 100.0]).tanh()?.to_vec::<f64>()?, [0.0, 1.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn tanh(&self) -> Result<Self> {
        apply(self, &TANH)
    }
}

static TANH: Mapped = Mapped {
    op: "tanh",
    backward: "TanhBackward",
    function: Function::Tanh,
    derivative: Function::TanhDerivative,
};
