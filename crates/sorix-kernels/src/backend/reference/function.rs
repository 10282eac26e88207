//! The functions of one number as plain arithmetic, one number at a time.
//!
//! Written for itself, and not by way of the kernels' formulas: what the two have in common is the method,
//! the coefficients, and the order of operations. No operation may be fused with another.

use core::f32::consts::LOG2_E;
use core::f64::consts::SQRT_2;

use crate::function::Function;

/// The function in f32.
pub(crate) fn value_f32(function: Function, x: f32) -> f32 {
    if x.is_nan() && function != Function::ReluDerivative {
        return x;
    }
    match function {
        Function::Relu => {
            if x > 0.0 {
                x
            } else {
                0.0
            }
        }
        Function::ReluDerivative => f32::from(u8::from(x > 0.0 || x.is_nan())),
        Function::Exp => exp(x),
        Function::Tanh => tanh(x.abs()).copysign(x),
        Function::Sigmoid => {
            let t = exp(x.min(88.0));
            let y = t / (1.0 + t);
            if x < -1.0 { t - t * y } else { y }
        }
        Function::Erf => erf(x.abs()).copysign(x),
        Function::Silu => {
            let x = x.max(-110.0);
            times_logistic(x, x)
        }
        Function::Gelu => {
            let (a, quotient, e, n) = normal_tail(x);
            let lower = times_power(a * quotient * (1.0 + e), n);
            if x > 0.0 {
                x - lower
            } else if x == 0.0 {
                x
            } else {
                -0.0 - lower
            }
        }
        Function::GeluTanh => {
            let x = x.max(-12.0);
            times_logistic(x, tanh_argument_twice(x.min(12.0)))
        }
        Function::TanhDerivative => {
            let (e, n) = expm1_parts(-(2.0 * x.abs()).min(110.0));
            let w = times_power(1.0 + e, n);
            times_power(4.0 * (1.0 + e), n) / ((1.0 + w) * (1.0 + w))
        }
        Function::SigmoidDerivative => {
            let (e, n) = expm1_parts(-x.abs().min(110.0));
            let w = times_power(1.0 + e, n);
            w / ((1.0 + w) * (1.0 + w))
        }
        Function::SiluDerivative => {
            let x = x.clamp(-110.0, 88.0);
            let t = exp(x);
            0.0 + t / (1.0 + t) * (1.0 + x / (1.0 + t))
        }
        Function::GeluDerivative => {
            let (a, quotient, e, n) = normal_tail(x);
            let lower = times_power((quotient - a * 0.398_942_3) * (1.0 + e), n);
            if x < 0.0 { 0.0 + lower } else { 1.0 - lower }
        }
        Function::GeluTanhDerivative => {
            let x = x.clamp(-12.0, 12.0);
            let slope = 1.595_769_2 + 3.0 * 0.071_354_814 * (x * x);
            let t = exp(tanh_argument_twice(x).min(88.0));
            0.0 + t / (1.0 + t) * (1.0 + x * slope / (1.0 + t))
        }
    }
}

/// The function in f64, by `libm`.
pub(crate) fn value_f64(function: Function, x: f64) -> f64 {
    if x.is_nan() && function != Function::ReluDerivative {
        return x;
    }
    match function {
        Function::Relu => {
            if x > 0.0 {
                x
            } else {
                0.0
            }
        }
        Function::ReluDerivative => f64::from(u8::from(x > 0.0 || x.is_nan())),
        Function::Exp => libm::exp(x),
        Function::Tanh => libm::tanh(x),
        Function::Sigmoid => times_logistic_f64(1.0, x),
        Function::Erf => libm::erf(x),
        Function::Silu => times_logistic_f64(x.max(-800.0), x),
        Function::Gelu => x.max(-100.0) * normal_cdf(x),
        Function::GeluTanh => times_logistic_f64(x.max(-100.0), tanh_argument_twice_f64(x)),
        Function::TanhDerivative => {
            let w = libm::exp(-2.0 * x.abs());
            4.0 * w / ((1.0 + w) * (1.0 + w))
        }
        Function::SigmoidDerivative => {
            let w = libm::exp(-x.abs());
            w / ((1.0 + w) * (1.0 + w))
        }
        Function::SiluDerivative => {
            let x = x.clamp(-800.0, 700.0);
            0.0 + times_logistic_f64(1.0, x) * (1.0 + x * times_logistic_f64(1.0, -x))
        }
        Function::GeluDerivative => {
            let flat = x.clamp(-100.0, 100.0);
            normal_cdf(x) + flat * (0.398_942_280_401_432_7 * libm::exp(-0.5 * flat * flat))
        }
        Function::GeluTanhDerivative => {
            let x = x.clamp(-100.0, 100.0);
            let v = tanh_argument_twice_f64(x);
            let slope = TWICE_SLOPE + 3.0 * (TWICE_SLOPE * 0.044715) * x * x;
            0.0 + times_logistic_f64(1.0, v) * (1.0 + x * times_logistic_f64(1.0, -v) * slope)
        }
    }
}

/// 2^n for n from -126 to 127.
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((127 + n) as u32) << 23)
}

/// `x * 2^n`, the product with half of the power being exact.
fn times_power(x: f32, n: i32) -> f32 {
    x * power_of_two(n / 2) * power_of_two(n - n / 2)
}

/// ln(2) times the whole number, in two parts, the first exact.
fn times_ln_2(n: f32) -> (f32, f32) {
    (n * 0.693_145_75, n * 1.428_606_8e-6)
}

/// `e^r - 1`, of an r in two parts, `upper - lower`.
fn expm1_near_0(upper: f32, lower: f32) -> f32 {
    let r = upper - lower;
    let q = 0.041_668_296 + r * (0.008_368_716 + r * 0.001_381_835_9);
    let q = 0.499_999_94 + r * (0.166_665_21 + r * q);
    upper + ((r * r) * q - lower)
}

/// `(e^r - 1, n)` with `e^x = 2^n e^r`.
fn expm1_parts(x: f32) -> (f32, i32) {
    let n = (x * LOG2_E).round_ties_even();
    let (upper, lower) = times_ln_2(n);
    (expm1_near_0(x - upper, lower), n as i32)
}

fn exp(x: f32) -> f32 {
    let (e, n) = expm1_parts(x.clamp(-104.0, 89.0));
    times_power(1.0 + e, n)
}

/// Of a number that is not negative.
fn tanh(a: f32) -> f32 {
    let a = a.min(10.0);
    let (e, n) = expm1_parts(2.0 * a);
    let m = power_of_two(n) * e + (power_of_two(n) - 1.0);
    if a < 0.6 {
        a + ((m - 2.0 * a) - a * m) / (m + 2.0)
    } else {
        m / (m + 2.0)
    }
}

/// Of a number that is not negative.
fn erf(a: f32) -> f32 {
    if a < 0.93 {
        let s = a * a;
        let p = -0.026_762_966 + s * (0.004_987_352 + s * -0.000_595_957_86);
        let p = 0.128_379_15 + s * (-0.376_124_9 + s * (0.112_817_31 + s * p));
        a + a * p
    } else {
        let t = a.min(4.0);
        let p = -0.022_881_11 + t * (0.003_212_214_2 + t * -0.000_213_654_77);
        let p = 1.128_511_2 + t * (0.635_728_96 + t * (0.105_247_93 + t * p));
        let (e, n) = expm1_parts(-(t * p));
        1.0 - power_of_two(n) * (1.0 + e)
    }
}

/// `x` times the logistic function of `v`.
fn times_logistic(x: f32, v: f32) -> f32 {
    let (e, n) = expm1_parts(-v.abs().min(110.0));
    let w = times_power(1.0 + e, n);
    if v < 0.0 {
        times_power(x * (1.0 + e), n) / (1.0 + w)
    } else {
        x / (1.0 + w)
    }
}

/// `2 sqrt(2 / π) (x + 0.044715 x³)`.
fn tanh_argument_twice(x: f32) -> f32 {
    x * (1.595_769_2 + 0.071_354_814 * (x * x))
}

/// `(a, quotient, e, n)` with a = |x|, `Φ(-a) = quotient e^(-a²/2)` and `e^(-a²/2) = 2^n (1 + e)`.
fn normal_tail(x: f32) -> (f32, f32, f32, i32) {
    let a = x.abs().min(15.0);
    let p = 0.437_884_2 + a * (0.182_930_66 + a * (0.040_530_533 + a * 0.004_101_048_7));
    let q = 0.468_666_8 + a * (0.101_601_57 + a * 0.010_279_681);
    let q = 1.0 + a * (1.673_653_4 + a * (1.201_238_9 + a * q));
    let quotient = (0.5 + a * p) / q;
    // a² in two parts, of which the first is exact.
    let head = f32::from_bits(a.to_bits() >> 12 << 12);
    let rest = (a - head) * (a + head);
    let n = (a * a * (-0.5 * LOG2_E)).round_ties_even();
    let (upper, lower) = times_ln_2(n);
    let e = expm1_near_0(head * head * -0.5 - upper, lower + rest * 0.5);
    (a, quotient, e, n as i32)
}

/// `x` times the logistic function of `v`.
fn times_logistic_f64(x: f64, v: f64) -> f64 {
    if v < 0.0 {
        x * libm::exp(v) / (1.0 + libm::exp(v))
    } else {
        x / (1.0 + libm::exp(-v))
    }
}

fn normal_cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x * (SQRT_2 / 2.0))
}

/// `2 sqrt(2 / π)`.
const TWICE_SLOPE: f64 = 1.595_769_121_605_730_8;

fn tanh_argument_twice_f64(x: f64) -> f64 {
    x * (TWICE_SLOPE + TWICE_SLOPE * 0.044715 * x * x)
}
