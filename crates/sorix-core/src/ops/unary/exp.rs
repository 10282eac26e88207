//! The exponential.

use super::{Cost, Saved, Unary, apply};
use crate::dtype::Real;
use crate::error::Result;
use crate::tensor::Tensor;

impl Tensor {
    /// e to the power of each element.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([0.0, f64::NEG_INFINITY]).exp()?.to_vec::<f64>()?, [1.0, 0.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn exp(&self) -> Result<Self> {
        apply(self, Exp)
    }
}

#[derive(Debug)]
struct Exp;

impl Unary for Exp {
    const OP: &'static str = "exp";
    const BACKWARD: &'static str = "ExpBackward";
    const SAVED: Saved = Saved::Input;
    const COST: Cost = Cost::Function;
    const GRADIENT_COST: Cost = Cost::Function;

    fn value<A: Real>(&self, x: A) -> A {
        x.exp()
    }

    fn gradient<A: Real>(&self, x: A, grad: A) -> A {
        grad * x.exp()
    }
}
