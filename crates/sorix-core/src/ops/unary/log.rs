//! The natural logarithm.

use super::{Cost, Saved, Unary, apply};
use crate::dtype::Real;
use crate::error::Result;
use crate::tensor::Tensor;

impl Tensor {
    /// The natural logarithm of each element; NaN for negative ones.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([1.0, 0.0]).log()?.to_vec::<f64>()?, [0.0, f64::NEG_INFINITY]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn log(&self) -> Result<Self> {
        apply(self, Log)
    }
}

#[derive(Debug)]
struct Log;

impl Unary for Log {
    const OP: &'static str = "log";
    const BACKWARD: &'static str = "LogBackward";
    const SAVED: Saved = Saved::Input;
    const COST: Cost = Cost::Function;
    const GRADIENT_COST: Cost = Cost::Move;

    fn value<A: Real>(&self, x: A) -> A {
        x.ln()
    }

    fn gradient<A: Real>(&self, x: A, grad: A) -> A {
        grad / x
    }
}
