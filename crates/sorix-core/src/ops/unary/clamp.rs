//! Values kept within bounds.

use super::{Cost, Saved, Unary, apply};
use crate::dtype::Real;
use crate::error::{Call, ErrorKind, Result};
use crate::tensor::Tensor;

impl Tensor {
    /// Each element if it lies in `min..=max`, else the bound next to it; NaN stays NaN. The
    /// bounds are rounded to the type the dtype computes in; an infinite one does not bound.
    ///
    /// The derivative is 1 within the bounds and at them, 0 outside and at NaN, as in PyTorch.
    ///
    /// # Errors
    ///
    /// If `min` is greater than `max`, or one of them is NaN (PyTorch gives `max` everywhere, or
    /// NaN everywhere).
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([-2.0, 0.5, 3.0]);
    /// assert_eq!(x.clamp(-1.0, 1.0)?.to_vec::<f64>()?, [-1.0, 0.5, 1.0]);
    /// assert_eq!(x.clamp(0.0, f64::INFINITY)?.to_vec::<f64>()?, [0.0, 0.5, 3.0]);
    /// let error = x.clamp(1.0, -1.0).unwrap_err();
    /// assert_eq!(error.to_string(), "clamp(float64[3]): expected min <= max, got 1.0 and -1.0");
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn clamp(&self, min: f64, max: f64) -> Result<Self> {
        if min <= max {
            apply(self, Clamp { min, max })
        } else {
            Err(Call::on(Clamp::OP, self).error(ErrorKind::Bounds {
                expected: "min <= max",
                low: min,
                high: max,
            }))
        }
    }
}

#[derive(Debug)]
struct Clamp {
    min: f64,
    max: f64,
}

impl Unary for Clamp {
    const OP: &'static str = "clamp";
    const BACKWARD: &'static str = "ClampBackward";
    const SAVED: Saved = Saved::Input;
    const COST: Cost = Cost::Move;
    const GRADIENT_COST: Cost = Cost::Move;

    fn value<A: Real>(&self, x: A) -> A {
        let (min, max) = (A::nearest(self.min), A::nearest(self.max));
        if x < min {
            min
        } else if x > max {
            max
        } else {
            x
        }
    }

    fn gradient<A: Real>(&self, x: A, grad: A) -> A {
        if x >= A::nearest(self.min) && x <= A::nearest(self.max) {
            grad
        } else {
            A::zero()
        }
    }
}
