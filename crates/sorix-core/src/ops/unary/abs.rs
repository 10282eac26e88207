//! The absolute value.

use super::{Cost, Saved, Unary, apply};
use crate::dtype::Real;
use crate::error::Result;
use crate::tensor::Tensor;

impl Tensor {
    /// The absolute value of each element. The derivative at 0 is 0, as in PyTorch.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([-1.5, 0.0, 2.0]).abs()?.to_vec::<f64>()?, [1.5, 0.0, 2.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn abs(&self) -> Result<Self> {
        apply(self, Abs)
    }
}

#[derive(Debug)]
struct Abs;

impl Unary for Abs {
    const OP: &'static str = "abs";
    const BACKWARD: &'static str = "AbsBackward";
    const SAVED: Saved = Saved::Input;
    const COST: Cost = Cost::Move;
    const GRADIENT_COST: Cost = Cost::Move;

    fn value<A: Real>(&self, x: A) -> A {
        x.abs()
    }

    fn gradient<A: Real>(&self, x: A, grad: A) -> A {
        if x > A::zero() {
            grad
        } else if x < A::zero() {
            -grad
        } else {
            A::zero()
        }
    }
}
