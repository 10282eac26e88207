//! A power with one exponent for all elements.

use super::{Cost, Saved, Unary, apply};
use crate::dtype::{Real, Scalar};
use crate::error::Result;
use crate::tensor::Tensor;

impl Tensor {
    /// Each element to the power of a number, which is rounded to the type the dtype computes in;
    /// NaN for negative elements and an exponent that is not whole.
    ///
    /// With the exponent 0 the value is 1 and the derivative 0 everywhere, at NaN too, as in PyTorch.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([2.0, -3.0]).powf(2.0)?.to_vec::<f64>()?, [4.0, 9.0]);
    /// assert_eq!(tensor([4.0]).powf(-0.5)?.to_vec::<f64>()?, [0.5]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn powf(&self, exponent: f64) -> Result<Self> {
        apply(self, Powf { exponent })
    }
}

#[derive(Debug)]
struct Powf {
    exponent: f64,
}

impl Unary for Powf {
    const OP: &'static str = "powf";
    const BACKWARD: &'static str = "PowfBackward";
    const SAVED: Saved = Saved::Input;
    const COST: Cost = Cost::Function;
    const GRADIENT_COST: Cost = Cost::Function;

    fn value<A: Real>(&self, x: A) -> A {
        x.powf(A::nearest(self.exponent))
    }

    fn gradient<A: Real>(&self, x: A, grad: A) -> A {
        // Rounded as for the value, so that both are of one function.
        let exponent = A::nearest(self.exponent);
        if exponent == A::zero() {
            // Not 0 times what may be infinite.
            A::zero()
        } else {
            // In f64, which has room for the power if that of f32 would be infinite and the product is not.
            let [x, grad, exponent] = [x, grad, exponent].map(Scalar::to_f64);
            A::nearest(grad * (exponent * x.powf(exponent - 1.0)))
        }
    }
}
