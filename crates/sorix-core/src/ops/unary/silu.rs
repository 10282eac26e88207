//! The sigmoid linear unit.

use sorix_kernels::Function;

use super::mapped::{Mapped, apply};
use crate::error::Result;
use crate::tensor::Tensor;

impl Tensor {
    /// `x / (1 + e^-x)` of each element, also called swish. At minus infinity it is the limit, -0.0, where PyTorch
    /// has NaN.
    ///
    /// Source: Ramachandran, Zoph and Le, *Searching for activation functions*, 2017.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let y = tensor([-1.0, 0.0, 1.0]).silu()?.to_vec::<f64>()?;
    /// assert_eq!(y[1], 0.0);
    /// assert!((y[2] - 0.731058578630005).abs() < 1e-15);
    /// assert!((y[0] + 0.268941421369995).abs() < 1e-15);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn silu(&self) -> Result<Self> {
        apply(self, &SILU)
    }
}

static SILU: Mapped = Mapped {
    op: "silu",
    backward: "SiluBackward",
    function: Function::Silu,
    derivative: Function::SiluDerivative,
};
