//! The functions of one number, each as a formula of [`Floats`]: what [`Function`] names and documents.
//!
//! For vectors: `simd.function(Exp, x)`, `x` being wide; for one element: `simd.function_of_one(Exp, x)`.
//! Both give the same bits. [`UseFormula`] is for code that is handed a [`Function`].

use core::f64::consts::FRAC_1_SQRT_2;

use crate::function::Function;
use crate::simd::{Floats, Formula};

/// Code that is written once for every formula, so that no loop asks which it is.
pub(crate) trait UseFormula {
    /// The code. Mark the implementation `#[inline(always)]`.
    fn with(self, formula: impl Formula);
}

impl Function {
    /// Hands the formula to `code`.
    #[inline(always)]
    pub(crate) fn formula(self, code: impl UseFormula) {
        match self {
            Self::Exp => code.with(Exp),
            Self::Tanh => code.with(Tanh),
            Self::Sigmoid => code.with(Sigmoid),
            Self::Erf => code.with(Erf),
            Self::Silu => code.with(Silu),
            Self::Gelu => code.with(Gelu),
            Self::GeluTanh => code.with(GeluTanh),
            Self::Relu => code.with(Relu),
            Self::ReluDerivative => code.with(ReluDerivative),
            Self::TanhDerivative => code.with(TanhDerivative),
            Self::SigmoidDerivative => code.with(SigmoidDerivative),
            Self::SiluDerivative => code.with(SiluDerivative),
            Self::GeluDerivative => code.with(GeluDerivative),
            Self::GeluTanhDerivative => code.with(GeluTanhDerivative),
        }
    }
}

/// Defines the type of a function from its two formulas.
macro_rules! formulas {
    ($(
        $(#[$doc:meta])*
        $name:ident, f32: |$floats:ident, $x:ident| $vector:expr, f64: |$y:ident| $number:expr;
    )*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name;

        impl Formula for $name {
            #[inline(always)]
            fn f32<F: Floats>(self, $floats: F, $x: F::Vector) -> F::Vector {
                $vector
            }

            fn f64(self, $y: f64) -> f64 {
                $number
            }
        }
    )*};
}

formulas! {
    /// [`Function::Exp`].
    Exp,
        f32: |f, x| exp(f, x),
        f64: |x| libm::exp(x);
    /// [`Function::Tanh`].
    Tanh,
        f32: |f, x| tanh(f, x),
        f64: |x| libm::tanh(x);
    /// [`Function::Sigmoid`].
    Sigmoid,
        f32: |f, x| sigmoid(f, x),
        f64: |x| gate(1.0, x);
    /// [`Function::Erf`].
    Erf,
        f32: |f, x| erf(f, x),
        f64: |x| libm::erf(x);
    /// [`Function::Silu`].
    Silu,
        f32: |f, x| {
            let x = f.greater(f.splat(-110.0), x);
            Logistic::new(f, x).gated(f, x, x)
        },
        f64: |x| gate(at_least(x, -800.0), x);
    /// [`Function::Gelu`].
    Gelu,
        f32: |f, x| {
            // -0.0, so that the limit at minus infinity has the sign that it is approached with.
            let upper = f.greater(f.splat(-0.0), x);
            f.minus(upper, Tail::new(f, x).times_magnitude(f))
        },
        f64: |x| at_least(x, -100.0) * normal_cdf(x);
    /// [`Function::GeluTanh`].
    GeluTanh,
        f32: |f, x| {
            let x = f.greater(f.splat(-GELU_TANH_FLAT), x);
            let inner = gelu_tanh_inner(f, f.lesser(f.splat(GELU_TANH_FLAT), x));
            Logistic::new(f, inner).gated(f, x, inner)
        },
        f64: |x| gate(at_least(x, -100.0), gelu_tanh_inner_f64(x).0);
    /// [`Function::Relu`].
    Relu,
        f32: |f, x| {
            // Added to zero, as -0.0 is not greater than it.
            let zero = f.splat(0.0);
            f.plus(zero, f.greater(zero, x))
        },
        f64: |x| if x <= 0.0 { 0.0 } else { x };
    /// [`Function::ReluDerivative`].
    ReluDerivative,
        f32: |f, x| {
            // Less than the least number there is above 0; NaN is not.
            let least = f.splat(f32::from_bits(1));
            f.select_less(x, least, f.splat(0.0), f.splat(1.0))
        },
        f64: |x| if x <= 0.0 { 0.0 } else { 1.0 };
    /// [`Function::TanhDerivative`].
    TanhDerivative,
        f32: |f, x| {
            let Logistic { reduced, n, power } = Logistic::new(f, f.plus(x, x));
            let one_more = f.plus(f.splat(1.0), power);
            let four = f.times(f.splat(4.0), f.plus(f.splat(1.0), reduced));
            f.over(f.times_power(four, n), f.times(one_more, one_more))
        },
        f64: |x| {
            let power = libm::exp(-2.0 * x.abs());
            4.0 * power / ((1.0 + power) * (1.0 + power))
        };
    /// [`Function::SigmoidDerivative`].
    SigmoidDerivative,
        f32: |f, x| {
            let power = Logistic::new(f, x).power;
            let one_more = f.plus(f.splat(1.0), power);
            f.over(power, f.times(one_more, one_more))
        },
        f64: |x| {
            let power = libm::exp(-x.abs());
            power / ((1.0 + power) * (1.0 + power))
        };
    /// [`Function::SiluDerivative`]: `s (1 + x (1 - s))`, with s the logistic function.
    SiluDerivative,
        f32: |f, x| {
            let x = f.greater(f.splat(-110.0), f.lesser(f.splat(88.0), x));
            let power = exp(f, x);
            let one_more = f.plus(f.splat(1.0), power);
            let slope = f.plus(f.splat(1.0), f.over(x, one_more));
            f.plus(f.splat(0.0), f.times(f.over(power, one_more), slope))
        },
        f64: |x| {
            let x = at_least(at_most(x, 700.0), -800.0);
            0.0 + gate(1.0, x) * (1.0 + x * gate(1.0, -x))
        };
    /// [`Function::GeluDerivative`]: `Φ(x) + x φ(x)`, with φ the density of the normal distribution.
    GeluDerivative,
        f32: |f, x| {
            let tail = Tail::new(f, x);
            // Of -|x|; that of |x| is one less it.
            let lower = f.minus(
                tail.quotient,
                f.times(tail.magnitude, f.splat(FRAC_1_SQRT_TAU)),
            );
            let (zero, lower) = (f.splat(0.0), tail.times_density(f, lower));
            // Added to zero, so that the limit is not -0.0.
            f.select_less(x, zero, f.plus(zero, lower), f.minus(f.splat(1.0), lower))
        },
        f64: |x| {
            let flat = at_least(at_most(x, 100.0), -100.0);
            let density = 0.398_942_280_401_432_7 * libm::exp(-0.5 * flat * flat);
            normal_cdf(x) + flat * density
        };
    /// [`Function::GeluTanhDerivative`]: `s (1 + x (1 - s) v')`, with s the logistic function of v, which is
    /// twice the argument of tanh.
    GeluTanhDerivative,
        f32: |f, x| {
            let flat = f.splat(GELU_TANH_FLAT);
            let x = f.greater(f.splat(-GELU_TANH_FLAT), f.lesser(flat, x));
            let inner = gelu_tanh_inner(f, x);
            let inner_slope = f.plus(
                f.splat(GELU_TANH_SLOPE),
                f.times(f.splat(3.0 * GELU_TANH_CUBIC), f.times(x, x)),
            );
            let power = exp(f, f.lesser(f.splat(88.0), inner));
            let one_more = f.plus(f.splat(1.0), power);
            let slope = f.over(f.times(x, inner_slope), one_more);
            let slope = f.times(f.over(power, one_more), f.plus(f.splat(1.0), slope));
            f.plus(f.splat(0.0), slope)
        },
        f64: |x| {
            let x = at_least(at_most(x, 100.0), -100.0);
            let (inner, inner_slope) = gelu_tanh_inner_f64(x);
            0.0 + gate(1.0, inner) * (1.0 + x * gate(1.0, -inner) * inner_slope)
        };
}

/// The whole number nearest to `x`, ties to even, which must be below 2^22 in magnitude: beside so large a
/// number, nothing behind the point is left.
#[inline(always)]
fn round<F: Floats>(f: F, x: F::Vector) -> F::Vector {
    let large = f.splat(12_582_912.0);
    f.minus(f.plus(x, large), large)
}

/// `c[0] + c[1] x + c[2] x² + ...`
#[inline(always)]
fn polynomial<F: Floats, const N: usize>(f: F, x: F::Vector, c: [f32; N]) -> F::Vector {
    let mut sum = f.splat(c[N - 1]);
    for &c in c[..N - 1].iter().rev() {
        sum = f.plus(f.times(sum, x), f.splat(c));
    }
    sum
}

/// ln(2) in two parts: the first has so few digits that its product with a whole number below 2^9 is exact.
const LN_2: [f32; 2] = [0.693_145_75, 1.428_606_8e-6];
const LOG2_E: f32 = core::f32::consts::LOG2_E;

/// `(e^r - 1, n)` with `e^x = 2^n e^r` and |r| ≤ ln(2)/2, for |x| up to 150: within 2^-28 of e^r, but for
/// rounding.
#[inline(always)]
fn reduce<F: Floats>(f: F, x: F::Vector) -> (F::Vector, F::Vector) {
    let n = round(f, f.times(x, f.splat(LOG2_E)));
    (expm1_reduced(f, x, n, None), n)
}

/// `e^r - 1`, with `r = x - n ln(2) - more`. The coefficients of a constant and of r are 1.
#[inline(always)]
fn expm1_reduced<F: Floats>(
    f: F,
    x: F::Vector,
    n: F::Vector,
    more: Option<F::Vector>,
) -> F::Vector {
    const C: [f32; 5] = [
        0.499_999_94,
        0.166_665_21,
        0.041_668_296,
        0.008_368_716,
        0.001_381_835_9,
    ];
    // The difference of the upper parts is exact. What is taken from it comes to it together with the rest
    // of the series, so that r is not rounded where it counts.
    let upper = f.minus(x, f.times(n, f.splat(LN_2[0])));
    let mut lower = f.times(n, f.splat(LN_2[1]));
    if let Some(more) = more {
        lower = f.plus(lower, more);
    }
    let r = f.minus(upper, lower);
    let rest = f.times(f.times(r, r), polynomial(f, r, C));
    f.plus(upper, f.minus(rest, lower))
}

#[inline(always)]
fn exp<F: Floats>(f: F, x: F::Vector) -> F::Vector {
    // Beyond, it is infinite and zero. NaN is the second operand, which stays.
    let x = f.greater(f.splat(-104.0), f.lesser(f.splat(89.0), x));
    let (reduced, n) = reduce(f, x);
    f.times_power(f.plus(f.splat(1.0), reduced), n)
}

/// From m = e^(2|x|) - 1, which is small where x is: `m / (m + 2)`. Where all of m's error is the result's, it is
/// instead |x| and what the quotient differs from it by.
#[inline(always)]
fn tanh<F: Floats>(f: F, x: F::Vector) -> F::Vector {
    let zero = f.splat(0.0);
    let magnitude = f.lesser(f.splat(10.0), f.magnitude(x));
    let twice = f.plus(magnitude, magnitude);
    let (reduced, n) = reduce(f, twice);
    let power = f.power(n);
    let m = f.plus(f.times(power, reduced), f.minus(power, f.splat(1.0)));
    let border = f.splat(0.6);
    let difference = f.minus(f.minus(m, twice), f.times(magnitude, m));
    let dividend = f.select_less(magnitude, border, difference, m);
    let base = f.select_less(magnitude, border, magnitude, zero);
    let y = f.plus(base, f.over(dividend, f.plus(m, f.splat(2.0))));
    f.with_sign(y, x)
}

/// `e^x / (1 + e^x)`. Where the divisor comes near to 1 from above, where numbers are far apart, a step of
/// Newton's method takes its error off again.
#[inline(always)]
fn sigmoid<F: Floats>(f: F, x: F::Vector) -> F::Vector {
    let power = exp(f, f.lesser(f.splat(88.0), x));
    let y = f.over(power, f.plus(f.splat(1.0), power));
    let better = f.minus(power, f.times(power, y));
    f.select_less(x, f.splat(-1.0), better, y)
}

#[inline(always)]
fn erf<F: Floats>(f: F, x: F::Vector) -> F::Vector {
    /// Up to here the first polynomial, which is `erf(x) / x - 1` of x², within 2^-25 of erf.
    const BORDER: f32 = 0.93;
    const NEAR: [f32; 6] = [
        0.128_379_15,
        -0.376_124_9,
        0.112_817_31,
        -0.026_762_966,
        0.004_987_352,
        -0.000_595_957_86,
    ];
    /// `-ln(1 - erf(x)) / x` of x, up to 4, from where on erf is 1.
    const FAR: [f32; 6] = [
        1.128_511_2,
        0.635_728_96,
        0.105_247_93,
        -0.022_881_11,
        0.003_212_214_2,
        -0.000_213_654_77,
    ];
    let magnitude = f.magnitude(x);
    let near = polynomial(f, f.times(magnitude, magnitude), NEAR);
    let near = f.plus(magnitude, f.times(magnitude, near));
    let far = f.lesser(f.splat(4.0), magnitude);
    let logarithm = f.times(far, polynomial(f, far, FAR));
    let (reduced, n) = reduce(f, f.minus(f.splat(0.0), logarithm));
    let one_less = f.times(f.power(n), f.plus(f.splat(1.0), reduced));
    let far = f.minus(f.splat(1.0), one_less);
    let border = f.splat(BORDER);
    f.with_sign(f.select_less(magnitude, border, near, far), x)
}

/// `e^-|v|`: what the logistic function of v is made of.
struct Logistic<V> {
    /// `e^-|v| = 2^n (1 + reduced)`.
    reduced: V,
    n: V,
    power: V,
}

impl<V: Copy> Logistic<V> {
    #[inline(always)]
    fn new<F: Floats<Vector = V>>(f: F, v: V) -> Self {
        let magnitude = f.lesser(f.splat(110.0), f.magnitude(v));
        let (reduced, n) = reduce(f, f.minus(f.splat(0.0), magnitude));
        let power = f.times_power(f.plus(f.splat(1.0), reduced), n);
        Self { reduced, n, power }
    }

    /// `x` times the logistic function of v, of which `x` has the sign. The power of two comes last: where
    /// `e^-|v|` is subnormal, it has not the digits to be multiplied.
    #[inline(always)]
    fn gated<F: Floats<Vector = V>>(&self, f: F, x: V, v: V) -> V {
        let mantissa = f.times(x, f.plus(f.splat(1.0), self.reduced));
        let negative = f.times_power(mantissa, self.n);
        let above = f.select_less(v, f.splat(0.0), negative, x);
        f.over(above, f.plus(f.splat(1.0), self.power))
    }
}

/// From here on e^-|v| is 0, v being twice the argument of tanh in [`GeluTanh`].
const GELU_TANH_FLAT: f32 = 12.0;

/// `2 sqrt(2 / π)`, and that times 0.044715.
const GELU_TANH_SLOPE: f32 = 1.595_769_2;
const GELU_TANH_CUBIC: f32 = 0.071_354_814;

/// Twice the argument of tanh.
#[inline(always)]
fn gelu_tanh_inner<F: Floats>(f: F, x: F::Vector) -> F::Vector {
    let cubic = f.times(f.splat(GELU_TANH_CUBIC), f.times(x, x));
    f.times(x, f.plus(f.splat(GELU_TANH_SLOPE), cubic))
}

/// `1 / sqrt(2 π)`.
const FRAC_1_SQRT_TAU: f32 = 0.398_942_3;

/// The normal distribution at -a, with a = |x|: `Φ(-a) = e^(-a²/2) quotient`.
struct Tail<V> {
    /// a, but at most 15: there, all that is made of it is 0.
    magnitude: V,
    quotient: V,
    /// `e^(-a²/2) = 2^n (1 + reduced)`.
    reduced: V,
    n: V,
}

impl<V: Copy> Tail<V> {
    #[inline(always)]
    fn new<F: Floats<Vector = V>>(f: F, x: V) -> Self {
        /// `e^(a²/2) Φ(-a)`: within 2^-25, relatively.
        const P: [f32; 5] = [
            0.5,
            0.437_884_2,
            0.182_930_66,
            0.040_530_533,
            0.004_101_048_7,
        ];
        const Q: [f32; 6] = [
            1.0,
            1.673_653_4,
            1.201_238_9,
            0.468_666_8,
            0.101_601_57,
            0.010_279_681,
        ];
        let a = f.lesser(f.splat(15.0), f.magnitude(x));
        let quotient = f.over(polynomial(f, a, P), polynomial(f, a, Q));
        // An error of a² is one of the power: it is taken in two parts, of which the first is exact.
        let upper = f.upper_half(a);
        let lower_part = f.times(f.minus(a, upper), f.plus(a, upper));
        let upper_part = f.times(upper, upper);
        let n = round(f, f.times(f.times(a, a), f.splat(-0.5 * LOG2_E)));
        let [x, more] = [
            f.times(upper_part, f.splat(-0.5)),
            f.times(lower_part, f.splat(0.5)),
        ];
        Self {
            magnitude: a,
            quotient,
            reduced: expm1_reduced(f, x, n, Some(more)),
            n,
        }
    }

    /// `e^(-a²/2) y`. The power of two comes last, as in [`Logistic::gated`].
    #[inline(always)]
    fn times_density<F: Floats<Vector = V>>(&self, f: F, y: V) -> V {
        f.times_power(f.times(y, f.plus(f.splat(1.0), self.reduced)), self.n)
    }

    /// `a Φ(-a)`.
    #[inline(always)]
    fn times_magnitude<F: Floats<Vector = V>>(&self, f: F) -> V {
        self.times_density(f, f.times(self.magnitude, self.quotient))
    }
}

/// `x`, but at least `least`; NaN stays.
fn at_least(x: f64, least: f64) -> f64 {
    if x < least { least } else { x }
}

/// `x`, but at most `most`; NaN stays.
fn at_most(x: f64, most: f64) -> f64 {
    if x > most { most } else { x }
}

/// `x` times the logistic function of `v`.
fn gate(x: f64, v: f64) -> f64 {
    let power = libm::exp(-v.abs());
    let above = if v < 0.0 { x * power } else { x };
    above / (1.0 + power)
}

/// Φ: by the complementary error function, which does not cancel in the lower tail.
fn normal_cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x * FRAC_1_SQRT_2)
}

/// Twice the argument of tanh, and the derivative of that.
fn gelu_tanh_inner_f64(x: f64) -> (f64, f64) {
    let slope = 1.595_769_121_605_730_8;
    let cubic = slope * 0.044715;
    (x * (slope + cubic * x * x), slope + 3.0 * cubic * x * x)
}
