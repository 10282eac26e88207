//! The square root.

use super::{Cost, Saved, Unary, apply};
use crate::dtype::Real;
use crate::error::Result;
use crate::tensor::Tensor;

impl Tensor {
    /// The square root of each element; NaN for negative ones. The derivative at 0 is infinite.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([4.0, 0.25]).sqrt()?.to_vec::<f64>()?, [2.0, 0.5]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn sqrt(&self) -> Result<Self> {
        apply(self, Sqrt)
    }
}

#[derive(Debug)]
struct Sqrt;

impl Unary for Sqrt {
    const OP: &'static str = "sqrt";
    const BACKWARD: &'static str = "SqrtBackward";
    const SAVED: Saved = Saved::Input;
    const COST: Cost = Cost::Move;
    const GRADIENT_COST: Cost = Cost::Move;

    fn value<A: Real>(&self, x: A) -> A {
        x.sqrt()
    }

    fn gradient<A: Real>(&self, x: A, grad: A) -> A {
        let y = x.sqrt();
        grad / (y + y)
    }
}
