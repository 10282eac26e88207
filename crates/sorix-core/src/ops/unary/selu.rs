//! The self-normalising exponential linear unit, which alpha dropout is made for.

use super::{Cost, Saved, Unary, apply};
use crate::dtype::Real;
use crate::error::Result;
use crate::tensor::Tensor;

impl Tensor {
    /// `λ x` of elements greater than 0, else `λ α (exp(x) - 1)`, with α = 1.6732632423543772 and
    /// λ = 1.0507009873554805. At 0 the derivative is the one from below, `λ α`, as in PyTorch.
    ///
    /// Source: Klambauer, Unterthiner, Mayr and Hochreiter, *Self-normalizing neural networks*, NeurIPS
    /// 2017.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let y = tensor([2.0, 0.0, f64::NEG_INFINITY]).selu()?.to_vec::<f64>()?;
    /// assert_eq!(y[..2], [2.0 * 1.0507009873554805, 0.0]);
    /// assert!((y[2] + 1.7580993408473766).abs() < 1e-15);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn selu(&self) -> Result<Self> {
        apply(self, Selu)
    }
}

#[derive(Debug)]
struct Selu;

impl Selu {
    const ALPHA: f64 = 1.673_263_242_354_377_2;
    const SCALE: f64 = 1.050_700_987_355_480_5;
}

impl Unary for Selu {
    const OP: &'static str = "selu";
    const BACKWARD: &'static str = "SeluBackward";
    const SAVED: Saved = Saved::Input;
    const COST: Cost = Cost::Function;
    const GRADIENT_COST: Cost = Cost::Function;

    fn value<A: Real>(&self, x: A) -> A {
        let scale = A::nearest(Self::SCALE);
        if x > A::zero() {
            scale * x
        } else {
            scale * A::nearest(Self::ALPHA) * x.exp_m1()
        }
    }

    fn gradient<A: Real>(&self, x: A, grad: A) -> A {
        let scale = A::nearest(Self::SCALE);
        if x > A::zero() {
            grad * scale
        } else {
            grad * (scale * A::nearest(Self::ALPHA) * x.exp())
        }
    }
}
