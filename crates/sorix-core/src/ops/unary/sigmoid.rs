//! The logistic function.

use super::{Cost, Saved, Unary, apply};
use crate::dtype::Real;
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
        apply(self, Sigmoid)
    }
}

#[derive(Debug)]
struct Sigmoid;

impl Unary for Sigmoid {
    const OP: &'static str = "sigmoid";
    const BACKWARD: &'static str = "SigmoidBackward";
    const SAVED: Saved = Saved::Input;
    const COST: Cost = Cost::Function;
    const GRADIENT_COST: Cost = Cost::Function;

    fn value<A: Real>(&self, x: A) -> A {
        // Where exp overflows, the quotient is the 0 that it should be.
        (A::one() + (-x).exp()).recip()
    }

    fn gradient<A: Real>(&self, x: A, grad: A) -> A {
        // y (1 - y), without the difference, in which a y near 1 cancels.
        let small = (-x.abs()).exp();
        let whole = A::one() + small;
        grad * (small / (whole * whole))
    }
}
