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
    const SAVED: Saved = Saved::Output;
    const COST: Cost = Cost::Function;
    const GRADIENT_COST: Cost = Cost::Move;

    fn value<A: Real>(&self, x: A) -> A {
        x.tanh()
    }

    fn gradient<A: Real>(&self, y: A, grad: A) -> A {
        grad * (A::one() - y * y)
    }
}
