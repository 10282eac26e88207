//! A smooth rectifier.

use super::{Cost, Saved, Unary, apply};
use crate::dtype::Real;
use crate::error::Result;
use crate::tensor::Tensor;

impl Tensor {
    /// `log(1 + exp(x))` of each element, PyTorch's with `beta` 1. It is exact in both tails and does not
    /// overflow, so it has no `threshold`.
    ///
    /// Source: Glorot, Bordes and Bengio, *Deep sparse rectifier neural networks*, AISTATS 2011.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let y = tensor([0.0, 1000.0, -40.0]).softplus()?.to_vec::<f64>()?;
    /// assert_eq!(y, [2.0_f64.ln(), 1000.0, (-40.0_f64).exp()]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn softplus(&self) -> Result<Self> {
        apply(self, Softplus)
    }
}

#[derive(Debug)]
struct Softplus;

impl Unary for Softplus {
    const OP: &'static str = "softplus";
    const BACKWARD: &'static str = "SoftplusBackward";
    const SAVED: Saved = Saved::Input;
    const COST: Cost = Cost::Function;
    const GRADIENT_COST: Cost = Cost::Function;

    fn value<A: Real>(&self, x: A) -> A {
        x.max(A::zero()) + (-x.abs()).exp().ln_1p()
    }

    fn gradient<A: Real>(&self, x: A, grad: A) -> A {
        grad * (A::one() + (-x).exp()).recip()
    }
}
