//! Functions of every element: their errors, their corners, and how they are called.

use core::f64::consts::{FRAC_1_SQRT_2, PI};

use half::{bf16, f16};
use sorix_kernels::function::{self, Function};
use sorix_kernels::{Buffers, Element};

use crate::common;

/// The function in f64, to far more digits than f32 has, wherever f32 is not 0.
fn truth(function: Function, x: f64) -> f64 {
    let logistic = |v: f64| {
        let power = libm::exp(-v.abs());
        if v < 0.0 {
            power / (1.0 + power)
        } else {
            1.0 / (1.0 + power)
        }
    };
    let cdf = |x: f64| 0.5 * libm::erfc(-x * FRAC_1_SQRT_2);
    let inner = |x: f64| 2.0 * (2.0 / PI).sqrt() * (x + 0.044715 * x * x * x);
    // Beyond, all of them are flat.
    let near = x.clamp(-200.0, 200.0);
    let logistic_slope = |v: f64| logistic(v) * logistic(-v);
    match function {
        Function::Exp => libm::exp(x),
        Function::Tanh => libm::tanh(x),
        Function::Sigmoid => logistic(x),
        Function::Erf => libm::erf(x),
        Function::Silu => x.max(-200.0) * logistic(x),
        Function::Gelu => x.max(-200.0) * cdf(x),
        Function::GeluTanh => x.max(-200.0) * logistic(inner(near)),
        Function::Relu => x.max(0.0),
        Function::ReluDerivative => f64::from(u8::from(x > 0.0)),
        Function::TanhDerivative => 4.0 * logistic_slope(2.0 * x),
        Function::SigmoidDerivative => logistic_slope(x),
        Function::SiluDerivative => logistic(near) * (1.0 + near * logistic(-near)),
        Function::GeluDerivative => {
            cdf(near) + near * libm::exp(-0.5 * near * near) / (2.0 * PI).sqrt()
        }
        Function::GeluTanhDerivative => {
            let (v, slope) = (
                inner(near),
                2.0 * (2.0 / PI).sqrt() * (1.0 + 3.0 * 0.044715 * near * near),
            );
            logistic(v) + near * logistic_slope(v) * slope
        }
        other => panic!("{other} has no truth here"),
    }
}

/// The distance of `got` from the truth in units of the last place of f32, which is 2^-149 where they are
/// subnormal.
fn ulps(got: f32, truth: f64) -> f64 {
    // Half way from the largest f32 to the next number there would be.
    if truth.abs() >= 3.402_823_567_797_336_6e38 || got.is_infinite() {
        let right = f64::from(got) == truth.signum() * f64::INFINITY;
        return if right { 0.0 } else { f64::INFINITY };
    }
    let exponent = ((truth.to_bits() >> 52 & 0x7FF) as i32 - 1023).max(-126);
    (f64::from(got) - truth).abs() / libm::ldexp(1.0, exponent - 23)
}

fn of<T: Element>(function: Function, x: &[T]) -> Vec<T> {
    let mut y = vec![T::ZERO; x.len()];
    function::map(function, x, &mut y).unwrap();
    y
}

/// Numbers of every sign and exponent: `few` of each, and `many` where the functions are not flat.
fn samples(few: u32, many: u32) -> Vec<f32> {
    let mut x = Vec::new();
    for upper in 0..512_u32 {
        let exponent = upper % 256;
        let count = if (118..=134).contains(&exponent) {
            many
        } else {
            few
        };
        for i in 0..count {
            let mantissa = (i * ((1 << 23) / count) + upper * 7919 % 997) % (1 << 23);
            x.push(f32::from_bits(upper << 23 | mantissa));
        }
    }
    x
}

/// The bounds that `Function` documents, rounded up: in units of the last place, or else absolute.
const BOUNDS: [(Function, f64, f64); 14] = [
    (Function::Exp, 1.0, 0.0),
    (Function::Tanh, 2.0, 0.0),
    (Function::Sigmoid, 2.0, 0.0),
    (Function::Erf, 2.0, 0.0),
    (Function::Silu, 3.0, 0.0),
    (Function::Gelu, 7.0, 0.0),
    (Function::GeluTanh, 3.0, 3e-7),
    (Function::Relu, 0.0, 0.0),
    (Function::ReluDerivative, 0.0, 0.0),
    (Function::TanhDerivative, 4.5, 0.0),
    (Function::SigmoidDerivative, 4.5, 0.0),
    (Function::SiluDerivative, 0.0, 3e-7),
    (Function::GeluDerivative, 0.0, 3e-7),
    (Function::GeluTanhDerivative, 0.0, 3e-7),
];

/// Whether a function may be `y` of NaN.
fn of_nan(function: Function, y: f64) -> bool {
    match function {
        Function::ReluDerivative => y == 1.0,
        _ => y.is_nan(),
    }
}

fn check_bounds(x: &[f32]) {
    for (function, units, absolute) in BOUNDS {
        for (&x, y) in x.iter().zip(of(function, x)) {
            if x.is_nan() {
                assert!(of_nan(function, y.into()), "{function}({x}) is {y}");
                continue;
            }
            let truth = truth(function, x.into());
            let off = ulps(y, truth);
            let near = off <= units || (f64::from(y) - truth).abs() <= absolute;
            assert!(near, "{function}({x:e}) is {y:e}, not {truth:e}: {off} ulp");
        }
    }
}

#[test]
fn errors_are_within_their_bounds_over_all_exponents() {
    assert!(
        BOUNDS
            .iter()
            .map(|&(function, ..)| function)
            .eq(Function::ALL.iter().copied())
    );
    check_bounds(&samples(64, 4096));
}

/// Half a minute for each function if optimised.
#[test]
#[ignore = "goes through all numbers there are: run it optimised, alone"]
fn errors_are_within_their_bounds_for_every_number() {
    for upper in 0..=u16::MAX {
        let all = (0..=u16::MAX).map(|lower| u32::from(upper) << 16 | u32::from(lower));
        check_bounds(&all.map(f32::from_bits).collect::<Vec<_>>());
    }
}

#[test]
fn zeros_infinities_and_nan() {
    const INF: f32 = f32::INFINITY;
    // Of 0.0, -0.0, infinity, minus infinity.
    let rows: [(Function, [f32; 4]); 14] = [
        (Function::Exp, [1.0, 1.0, INF, 0.0]),
        (Function::Tanh, [0.0, -0.0, 1.0, -1.0]),
        (Function::Sigmoid, [0.5, 0.5, 1.0, 0.0]),
        (Function::Erf, [0.0, -0.0, 1.0, -1.0]),
        (Function::Silu, [0.0, -0.0, INF, -0.0]),
        (Function::Gelu, [0.0, -0.0, INF, -0.0]),
        (Function::GeluTanh, [0.0, -0.0, INF, -0.0]),
        (Function::Relu, [0.0, 0.0, INF, 0.0]),
        (Function::ReluDerivative, [0.0, 0.0, 1.0, 0.0]),
        (Function::TanhDerivative, [1.0, 1.0, 0.0, 0.0]),
        (Function::SigmoidDerivative, [0.25, 0.25, 0.0, 0.0]),
        (Function::SiluDerivative, [0.5, 0.5, 1.0, 0.0]),
        (Function::GeluDerivative, [0.5, 0.5, 1.0, 0.0]),
        (Function::GeluTanhDerivative, [0.5, 0.5, 1.0, 0.0]),
    ];
    assert_eq!(rows.len(), Function::ALL.len());
    for (function, want) in rows {
        let got = of(function, &[0.0, -0.0, INF, -INF, f32::NAN, -f32::NAN]);
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&got[..4]), bits(&want), "{function}: {got:?}");
        let nan = got[4..].iter().all(|&y| of_nan(function, y.into()));
        assert!(nan, "{function}: {got:?}");

        let got = of(
            function,
            &[0.0, -0.0, f64::INFINITY, -f64::INFINITY, f64::NAN],
        );
        assert_eq!(got[..4], want.map(f64::from), "{function} in f64");
        assert!(of_nan(function, got[4]), "{function} in f64: {got:?}");
    }
}

/// The last number on this side of each edge and the first on the other.
#[test]
fn edges_of_exp() {
    let largest = 88.722_83_f32;
    assert_eq!(
        of(Function::Exp, &[largest, largest.next_up()]),
        [3.402_798_5e38, f32::INFINITY]
    );
    // ln(2^-150) = -103.9721: from half of the smallest number on, it is not 0.
    let least = -103.972_08_f32;
    assert_eq!(
        of(Function::Exp, &[least, least.next_down()]),
        [f32::from_bits(1), 0.0]
    );
    // The smallest normal number is e^-87.3365.
    let y = of(Function::Exp, &[-87.336_54_f32, -87.336_55]);
    assert!(y[0].is_normal() && y[1].is_subnormal(), "{y:?}");
}

#[test]
fn what_is_bounded_stays_within_and_what_is_odd_is_odd() {
    let x = samples(16, 1024);
    let minus: Vec<f32> = x.iter().map(|x| -x).collect();
    for function in [Function::Tanh, Function::Erf] {
        for (y, z) in of(function, &x).into_iter().zip(of(function, &minus)) {
            assert!(y.is_nan() || y.abs() <= 1.0, "{function}: {y}");
            assert!(y.is_nan() || y.to_bits() == (-z).to_bits());
        }
    }
    for y in of(Function::Sigmoid, &x) {
        assert!(y.is_nan() || (0.0..=1.0).contains(&y), "{y}");
    }
}

/// Every 16-bit number there is.
#[test]
fn elements_of_16_bits_are_computed_in_f32_and_rounded_once() {
    fn check<T: Element<Scale = f32>>(from_bits: fn(u16) -> T) {
        let x: Vec<T> = (0..=u16::MAX).map(from_bits).collect();
        let wide: Vec<f32> = x.iter().map(|x| x.widened()).collect();
        let factors: Vec<T> = x.iter().rev().copied().collect();
        for &function in Function::ALL {
            let values = of(function, &wide);
            let want = values.iter().map(|&y| T::narrow(y));
            let mut products = x.clone();
            function::map_times(function, &x, &factors, &mut products).unwrap();
            let want_products = values.iter().zip(&factors).map(|(&y, f)| f.times(y));
            let got = of(function, &x).into_iter().chain(products);
            for (got, want) in got.zip(want.chain(want_products)) {
                let (got, want): (f32, f32) = (got.widened(), want.widened());
                let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
                assert!(same, "{function}: {got}, not {want}");
            }
        }
    }
    check(bf16::from_bits);
    check(f16::from_bits);
}

#[test]
fn f64_has_the_digits_of_f64() {
    for (function, units, _) in BOUNDS {
        for i in -1000..1000 {
            let x = f64::from(i) / 128.0;
            let (got, truth) = (f64::value(function, x), truth(function, x));
            let allowed = 1e-14 * truth.abs() + if units > 0.0 { 0.0 } else { 1e-15 };
            assert!(
                (got - truth).abs() <= allowed,
                "{function}({x}): {got}, {truth}"
            );
        }
    }
}

#[test]
fn in_place_out_of_place_and_with_factors() {
    let x: Vec<f32> = (0..1000).map(|i| i as f32 / 50.0 - 10.0).collect();
    let factors: Vec<f32> = (0..1000).map(|i| i as f32 - 500.0).collect();
    common::for_each_backend(|engine| {
        for &function in Function::ALL {
            let mut y = vec![f32::NAN; 1000];
            engine.map(function, Buffers::new(&x, &mut y).unwrap());
            let mut z = x.clone();
            engine.map(function, Buffers::in_place(&mut z));
            assert_eq!(y, z, "{function}");

            z.copy_from_slice(&x);
            let buffers = Buffers::in_place(&mut z).with_elements(&factors).unwrap();
            engine.map(function, buffers);
            let want: Vec<f32> = y.iter().zip(&factors).map(|(y, f)| y * f).collect();
            assert_eq!(z, want, "{function}");

            let row: Vec<f32> = (0..37).map(|i| i as f32 / 16.0 - 1.0).collect();
            let sums: Vec<f32> = (0..x.len()).map(|i| x[i] + row[i % 37]).collect();
            engine.map(function, Buffers::new(&sums, &mut y).unwrap());
            let buffers = Buffers::new(&x, &mut z).unwrap();
            engine.map(function, buffers.with_row(&row).unwrap());
            assert_eq!(z, y, "{function} with a row");
        }
    });
}

#[test]
fn lengths_that_differ_are_errors_and_nothing_is_written() {
    let mut y = [7.0_f32; 3];
    let error = function::map(Function::Exp, &[1.0; 2], &mut y).unwrap_err();
    assert_eq!(error.to_string(), "length of output: expected 2, got 3");
    let error = function::map_times(Function::Exp, &[1.0; 3], &[1.0; 4], &mut y).unwrap_err();
    assert_eq!(
        error.to_string(),
        "length of second input: expected 3, got 4"
    );
    assert_eq!(y, [7.0; 3]);
}

#[cfg(feature = "parallel")]
#[test]
fn threads_do_not_show() {
    let x: Vec<f32> = (0..300_000).map(|i| i as f32 / 1e4 - 15.0).collect();
    common::for_each_backend(|engine| {
        common::one_two_and_seven_threads_agree(engine, "gelu", |engine| {
            let mut y = vec![0.0; x.len()];
            let buffers = Buffers::new(&x, &mut y).unwrap();
            engine.map(Function::Gelu, buffers);
            y
        });
    });
}
