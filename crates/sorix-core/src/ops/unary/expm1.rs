//! The exponential less one.

use super::{Cost, Saved, Unary, apply};
use crate::dtype::Real;
use crate::error::Result;
use crate::tensor::Tensor;

impl Tensor {
    /// `exp(x) - 1` of each element, exact near 0.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([0.0, 1e-20]).expm1()?.to_vec::<f64>()?, [0.0, 1e-20]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn expm1(&self) -> Result<Self> {
        apply(self, Expm1)
    }
}

#[derive(Debug)]
struct Expm1;

impl Unary for Expm1 {
    const OP: &'static str = "expm1";
    const BACKWARD: &'static str = "Expm1Backward";
    const SAVED: Saved = Saved::Input;
    const COST: Cost = Cost::Function;
    const GRADIENT_COST: Cost = Cost::Function;

    fn value<A: Real>(&self, x: A) -> A {
        x.exp_m1()
    }

    fn gradient<A: Real>(&self, x: A, grad: A) -> A {
        grad * x.exp()
    }
}
