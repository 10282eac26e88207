//! The rectifier.

use super::{Cost, Saved, Unary, apply};
use crate::dtype::Real;
use crate::error::Result;
use crate::tensor::Tensor;

impl Tensor {
    /// Each element if it is greater than 0, else `+0.0`; NaN stays NaN. The derivative is 1 if the
    /// element is greater than 0 or NaN, else 0, as in PyTorch.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([-1.0, 0.0, 2.0]).relu()?.to_vec::<f64>()?, [0.0, 0.0, 2.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn relu(&self) -> Result<Self> {
        apply(self, Relu)
    }
}

#[derive(Debug)]
struct Relu;

impl Unary for Relu {
    const OP: &'static str = "relu";
    const BACKWARD: &'static str = "ReluBackward";
    const SAVED: Saved = Saved::Output;
    const COST: Cost = Cost::Move;
    const GRADIENT_COST: Cost = Cost::Move;

    fn value<A: Real>(&self, x: A) -> A {
        if x <= A::zero() { A::zero() } else { x }
    }

    fn gradient<A: Real>(&self, y: A, grad: A) -> A {
        if y <= A::zero() { A::zero() } else { grad }
    }
}
