//! The Gaussian error linear unit: exact, and the approximation by tanh.

use core::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use super::{Cost, Saved, Unary, apply};
use crate::dtype::Real;
use crate::dtype::Scalar;
use crate::error::Result;
use crate::tensor::Tensor;

impl Tensor {
    /// `x Φ(x)` of each element, with Φ the cumulative distribution function of the standard normal
    /// distribution. At minus infinity it is the limit, -0.0, where PyTorch has NaN.
    ///
    /// Source: Hendrycks and Gimpel, *Gaussian error linear units (GELUs)*, 2016.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let y = tensor([-1.0, 0.0, 1.0]).gelu()?.to_vec::<f64>()?;
    /// assert_eq!(y[1], 0.0);
    /// assert!((y[2] - 0.841344746068543).abs() < 1e-15);
    /// assert!((y[0] + 0.158655253931457).abs() < 1e-15);
    /// assert_eq!(tensor([f64::NEG_INFINITY]).gelu()?.item::<f64>()?, 0.0);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn gelu(&self) -> Result<Self> {
        apply(self, Gelu)
    }

    /// The approximation of [`gelu`](Tensor::gelu) that several published models were trained with:
    /// `x / 2 (1 + tanh(sqrt(2 / π) (x + 0.044715 x³)))`. At minus infinity it is the limit, as there.
    ///
    /// Source: as there, section 2.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let y = tensor([1.0]).gelu_tanh()?.item::<f64>()?;
    /// assert!((y - 0.841191990608276).abs() < 1e-15);
    /// assert_eq!(tensor([f64::NEG_INFINITY]).gelu_tanh()?.item::<f64>()?, 0.0);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn gelu_tanh(&self) -> Result<Self> {
        apply(self, GeluTanh)
    }
}

#[derive(Debug)]
struct Gelu;

/// Φ: by the complementary error function, which does not cancel in the lower tail.
fn normal_cdf<A: Real>(x: A) -> A {
    A::nearest(0.5 * libm::erfc(-Scalar::to_f64(x) * FRAC_1_SQRT_2))
}

/// The density of the standard normal distribution.
fn normal_pdf<A: Real>(x: A) -> A {
    let peak = A::nearest(0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2);
    peak * (A::nearest(-0.5) * x * x).exp()
}

/// Where both functions, and their derivatives, are those of `relu` in every type, so that what goes
/// on growing with x is not multiplied with a 0 when it has become infinite.
const FLAT: f64 = 100.0;

/// `x` no lower than where the functions are flat.
fn above<A: Real>(x: A) -> A {
    x.max(A::nearest(-FLAT))
}

/// `x` between the places from which on the derivatives are flat.
fn between<A: Real>(x: A) -> A {
    above(x).min(A::nearest(FLAT))
}

impl Unary for Gelu {
    const OP: &'static str = "gelu";
    const BACKWARD: &'static str = "GeluBackward";
    const SAVED: Saved = Saved::Input;
    const COST: Cost = Cost::Function;
    const GRADIENT_COST: Cost = Cost::Function;

    fn value<A: Real>(&self, x: A) -> A {
        above(x) * normal_cdf(x)
    }

    fn gradient<A: Real>(&self, x: A, grad: A) -> A {
        grad * (normal_cdf(x) + between(x) * normal_pdf(x))
    }
}

#[derive(Debug)]
struct GeluTanh;

impl GeluTanh {
    const CUBIC: f64 = 0.044715;

    /// `sqrt(2 / π)`.
    const SLOPE: f64 = FRAC_2_SQRT_PI * FRAC_1_SQRT_2;

    fn tanh<A: Real>(x: A) -> A {
        (A::nearest(Self::SLOPE) * (x + A::nearest(Self::CUBIC) * x * x * x)).tanh()
    }
}

impl Unary for GeluTanh {
    const OP: &'static str = "gelu_tanh";
    const BACKWARD: &'static str = "GeluTanhBackward";
    const SAVED: Saved = Saved::Input;
    const COST: Cost = Cost::Function;
    const GRADIENT_COST: Cost = Cost::Function;

    fn value<A: Real>(&self, x: A) -> A {
        A::nearest(0.5) * above(x) * (A::one() + Self::tanh(x))
    }

    fn gradient<A: Real>(&self, x: A, grad: A) -> A {
        let (half, tanh, x) = (A::nearest(0.5), Self::tanh(x), between(x));
        let inner = A::nearest(Self::SLOPE) * (A::one() + A::nearest(3.0 * Self::CUBIC) * x * x);
        grad * half * (A::one() + tanh + x * (A::one() - tanh * tanh) * inner)
    }
}
