//! The hyperbolic tangent.

use super::{Cost, Saved, Unary, apply};
use crate::dtype::Real;
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
        apply(self, Tanh)
    }
}

#[derive(Debug)]
struct Tanh;

impl Unary for Tanh {
    const OP: &'static str = "tanh";
    const BACKWARD: &'static str = "TanhBackward";
    const SAVED: Saved = Saved::Input;
    const COST: Cost = Cost::Function;
    const GRADIENT_COST: Cost = Cost::Function;

    fn value<A: Real>(&self, x: A) -> A {
        x.tanh()
    }

    fn gradient<A: Real>(&self, x: A, grad: A) -> A {
        // 1 - y², without the difference, in which a y near 1 cancels.
        let small = (A::nearest(-2.0) * x.abs()).exp();
        let whole = A::one() + small;
        grad * (A::nearest(4.0) * small / (whole * whole))
    }
}
