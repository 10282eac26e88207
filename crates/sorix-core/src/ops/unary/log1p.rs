//! The natural logarithm of one more.

use super::{Cost, Saved, Unary, apply};
use crate::dtype::Real;
use crate::error::Result;
use crate::tensor::Tensor;

impl Tensor {
    /// `log(1 + x)` of each element, exact near 0; -infinity at -1, NaN below.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([0.0, 1e-20]).log1p()?.to_vec::<f64>()?, [0.0, 1e-20]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn log1p(&self) -> Result<Self> {
        apply(self, Log1p)
    }
}

#[derive(Debug)]
struct Log1p;

impl Unary for Log1p {
    const OP: &'static str = "log1p";
    const BACKWARD: &'static str = "Log1pBackward";
    const SAVED: Saved = Saved::Input;
    const COST: Cost = Cost::Function;
    const GRADIENT_COST: Cost = Cost::Move;

    fn value<A: Real>(&self, x: A) -> A {
        x.ln_1p()
    }

    fn gradient<A: Real>(&self, x: A, grad: A) -> A {
        grad / (A::one() + x)
    }
}
