//! The Gaussian error linear unit: exact, and the approximation by tanh.

use sorix_kernels::Function;

use super::mapped::{Mapped, apply};
use crate::error::Result;
use crate::tensor::Tensor;

impl Tensor {
    /// `x Φ(x)` of each element, with Φ the cumulative distribution function of the standard normal
    /// distribution. At minus infinity it is the limit, -0.0, where PyTorch has NaN.
    ///
    /// Source: Hendrycks and Gimpel, *Gaussian error linear units (GELUs)*, 2016.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let y = tensor([-1.0, 0.0, 1.0]).gelu()?.to_vec::<f64>()?;
    /// assert_eq!(y[1], 0.0);
    /// assert!((y[2] - 0.841344746068543).abs() < 1e-15);
    /// assert!((y[0] + 0.158655253931457).abs() < 1e-15);
    /// assert_eq!(tensor([f64::NEG_INFINITY]).gelu()?.item::<f64>()?, 0.0);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn gelu(&self) -> Result<Self> {
        apply(self, &GELU)
    }

    /// The approximation of [`gelu`](Tensor::gelu) that several published models were trained with:
    /// `x / 2 (1 + tanh(sqrt(2 / π) (x + 0.044715 x³)))`. At minus infinity it is the limit, as there.
    ///
    /// Source: as there, section 2.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let y = tensor([1.0]).gelu_tanh()?.item::<f64>()?;
    /// assert!((y - 0.841191990608276).abs() < 1e-15);
    /// assert_eq!(tensor([f64::NEG_INFINITY]).gelu_tanh()?.item::<f64>()?, 0.0);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn gelu_tanh(&self) -> Result<Self> {
        apply(self, &GELU_TANH)
    }
}

static GELU: Mapped = Mapped {
    op: "gelu",
    backward: "GeluBackward",
    function: Function::Gelu,
    derivative: Function::GeluDerivative,
};

static GELU_TANH: Mapped = Mapped {
    op: "gelu_tanh",
    backward: "GeluTanhBackward",
    function: Function::GeluTanh,
    derivative: Function::GeluTanhDerivative,
};
