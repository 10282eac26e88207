//! Dual numbers, and functions of one.

use core::f64::consts::PI;
use core::ops::{Add, Div, Mul, Neg, Sub};

/// A value and its derivative in the direction that the leaves are moved in.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Dual {
    pub(crate) value: f64,
    pub(crate) tangent: f64,
}

impl Dual {
    pub(crate) fn constant(value: f64) -> Self {
        Self {
            value,
            tangent: 0.0,
        }
    }

    /// A function of the value, from what it gives and its derivative there.
    fn chain(self, value: f64, derivative: f64) -> Self {
        Self {
            value,
            tangent: derivative * self.tangent,
        }
    }

    pub(crate) fn is_moderate(self, most: f64) -> bool {
        self.value.abs() <= most && self.tangent.abs() <= most
    }
}

/// Functions of one number.
impl Dual {
    pub(crate) fn abs(self) -> Self {
        let sign = match self.value {
            0.0 => 0.0,
            x => x.signum(),
        };
        self.chain(self.value.abs(), sign)
    }

    pub(crate) fn clamp(self, min: f64, max: f64) -> Self {
        let within = (min..=max).contains(&self.value);
        self.chain(self.value.clamp(min, max), f64::from(within))
    }

    pub(crate) fn exp(self) -> Self {
        self.chain(self.value.exp(), self.value.exp())
    }

    pub(crate) fn gelu(self) -> Self {
        let x = self.value;
        let cdf = normal_cdf(x);
        self.chain(x * cdf, cdf + x * normal_pdf(x))
    }

    pub(crate) fn gelu_tanh(self) -> Self {
        let [half, one, slope, cubic] = [0.5, 1.0, (2.0 / PI).sqrt(), 0.044715].map(Self::constant);
        half * self * (one + (slope * (self + cubic * self * self * self)).tanh())
    }

    pub(crate) fn ln(self) -> Self {
        self.chain(self.value.ln(), 1.0 / self.value)
            .unless(self.is_tiny())
    }

    pub(crate) fn powf(self, exponent: f64) -> Self {
        if exponent == 0.0 {
            return Self::constant(1.0);
        }
        let derivative = exponent * self.value.powf(exponent - 1.0);
        self.chain(self.value.powf(exponent), derivative)
            .unless(exponent < 1.0 && self.is_tiny())
    }

    pub(crate) fn relu(self) -> Self {
        self.chain(self.value.max(0.0), f64::from(self.value > 0.0))
    }

    pub(crate) fn sigmoid(self) -> Self {
        let y = 1.0 / (1.0 + (-self.value).exp());
        self.chain(y, y * (1.0 - y))
    }

    pub(crate) fn sqrt(self) -> Self {
        let y = self.value.sqrt();
        self.chain(y, 0.5 / y).unless(self.is_tiny())
    }

    pub(crate) fn tanh(self) -> Self {
        let y = self.value.tanh();
        self.chain(y, 1.0 - y * y)
    }

    /// Whether rounding before may have decided what it is.
    fn is_tiny(self) -> bool {
        self.value.abs() < 1e-6
    }

    /// Without a derivative at a place where it goes to infinity, as rounding would be magnified.
    pub(crate) fn unless(self, singular: bool) -> Self {
        Self {
            tangent: if singular { f64::NAN } else { self.tangent },
            ..self
        }
    }
}

fn normal_pdf(x: f64) -> f64 {
    (-0.5 * x * x).exp() / (2.0 * PI).sqrt()
}

/// By the series `1/2 + φ(x) (x + x³/3 + x⁵/(3·5) + …)`.
fn normal_cdf(x: f64) -> f64 {
    if x.abs() > 8.0 {
        return f64::from(x > 0.0);
    }
    let (mut term, mut sum) = (x, 0.0);
    for odd in (3..).step_by(2) {
        sum += term;
        if term.abs() < 1e-20 {
            break;
        }
        term *= x * x / f64::from(odd);
    }
    0.5 + normal_pdf(x) * sum
}

impl Add for Dual {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            value: self.value + other.value,
            tangent: self.tangent + other.tangent,
        }
    }
}

impl Sub for Dual {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Neg for Dual {
    type Output = Self;

    fn neg(self) -> Self {
        self.chain(-self.value, -1.0)
    }
}

impl Mul for Dual {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        Self {
            value: self.value * other.value,
            tangent: self.tangent * other.value + self.value * other.tangent,
        }
    }
}

impl Div for Dual {
    type Output = Self;

    fn div(self, other: Self) -> Self {
        let value = self.value / other.value;
        let tangent = (self.tangent - value * other.tangent) / other.value;
        Self { value, tangent }.unless(other.is_tiny())
    }
}
