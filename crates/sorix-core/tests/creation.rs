//! Counting and random numbers.

mod common;

use common::{DTYPES, values};
use sorix_core::{DType, Error, MaskKey, Tensor};

const KEY: MaskKey = MaskKey {
    seed: 0x0123_4567_89ab_cdef,
    offset: 7,
};

const UNIFORM: [f64; 5] = [
    0.7442417901987789,
    0.11187135144842231,
    0.2070759702848095,
    0.3289344549925701,
    0.9143155138441426,
];

const NORMAL: [f64; 5] = [
    2.8150960824552578,
    0.18222684907280248,
    -1.0484532640123754,
    0.16737613216369912,
    1.4835835750703168,
];

#[test]
fn arange_counts_as_numpy() {
    type Row = (f64, f64, f64, &'static [f64]);
    let rows: [Row; 6] = [
        (0.0, 3.0, 1.0, &[0.0, 1.0, 2.0]),
        (1.0, 2.25, 0.5, &[1.0, 1.5, 2.0]),
        (2.0, -2.5, -1.5, &[2.0, 0.5, -1.0]),
        (5.0, 5.0, 1.0, &[]),
        (5.0, 5.0, -1.0, &[]),
        (0.0, 1.0, 1e300, &[0.0]),
    ];
    for (start, end, step, expected) in rows {
        for dtype in DTYPES {
            let x = Tensor::arange(start, end, step, dtype).unwrap();
            assert_eq!((values(&x), x.dtype()), (expected.to_vec(), dtype));
        }
    }
    // Each number is rounded once; a running sum would be at 99.9999….
    let x = Tensor::arange(0.0, 200.0, 0.1, DType::F64).unwrap();
    assert_eq!((x.numel(), values(&x)[1000]), (2000, 100.0));
}

#[test]
fn arange_refuses_steps_that_lead_nowhere() {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let rows = [
        (0.0, 1.0, 0.0, "arange: steps of 0 do not lead from 0 to 1"),
        (1.0, 1.0, 0.0, "arange: steps of 0 do not lead from 1 to 1"),
        (
            0.0,
            1.0,
            -0.5,
            "arange: steps of -0.5 do not lead from 0 to 1",
        ),
        (
            0.0,
            inf,
            1.0,
            "arange: steps of 1 do not lead from 0 to inf",
        ),
        (
            0.0,
            1.0,
            inf,
            "arange: steps of inf do not lead from 0 to 1",
        ),
        (
            nan,
            1.0,
            1.0,
            "arange: steps of 1 do not lead from NaN to 1",
        ),
        (
            0.0,
            1.0,
            nan,
            "arange: steps of NaN do not lead from 0 to 1",
        ),
    ];
    for (start, end, step, message) in rows {
        let error = Tensor::arange(start, end, step, DType::F32).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    let error = Tensor::arange(0.0, 1e300, 1e-300, DType::F32).unwrap_err();
    assert!(matches!(error, Error::TooLarge { op: "arange", .. }));
}

/// By the Python page of the mask format's Philox, and Python's math module.
#[test]
fn fixed_values() {
    let uniform = Tensor::uniform([5], 0.0, 1.0, DType::F64, KEY).unwrap();
    assert_eq!(values(&uniform), UNIFORM);
    let scaled = Tensor::uniform([5], -2.0, 6.0, DType::F64, KEY).unwrap();
    assert_eq!(values(&scaled), UNIFORM.map(|u| -2.0 + 8.0 * u));
    let normal = Tensor::randn([5], DType::F64, KEY).unwrap();
    for (got, expected) in values(&normal).into_iter().zip(NORMAL) {
        assert!(
            (got - expected).abs() <= 4e-16 * expected.abs(),
            "{got}, not {expected}"
        );
    }
}

#[test]
fn numbers_depend_on_key_and_index_alone() {
    let whole = Tensor::randn([6, 7], DType::F64, KEY).unwrap();
    let front = Tensor::randn([11], DType::F64, KEY).unwrap();
    assert_eq!(values(&whole)[..11], values(&front));
    for dtype in DTYPES {
        let rounded = Tensor::randn([6, 7], dtype, KEY).unwrap();
        assert_eq!(values(&rounded), values(&whole.to_dtype(dtype).unwrap()));
        let uniform = |dtype| Tensor::uniform([9], 0.0, 1.0, dtype, KEY).unwrap();
        let expected = values(&uniform(DType::F64).to_dtype(dtype).unwrap());
        assert_eq!(values(&uniform(dtype)), expected);
    }
    for other in [
        MaskKey { seed: 1, ..KEY },
        MaskKey { offset: 8, ..KEY },
        // The two words are not interchangeable.
        MaskKey::new(KEY.offset, KEY.seed),
    ] {
        let other = Tensor::randn([6, 7], DType::F64, other).unwrap();
        assert_ne!(values(&other), values(&whole));
    }
    assert_eq!(
        Tensor::randn([0, 3], DType::F32, KEY).unwrap().shape(),
        [0, 3]
    );
}

/// Moments and the share below quantiles, each within 5 standard deviations.
#[test]
fn statistics() {
    const COUNT: usize = 30_000;
    let mean_of =
        |x: &[f64], f: &dyn Fn(f64) -> f64| x.iter().map(|&x| f(x)).sum::<f64>() / COUNT as f64;
    let check = |name: &str, got: f64, expected: f64, deviation: f64| {
        let bound = 5.0 * deviation / (COUNT as f64).sqrt();
        assert!(
            (got - expected).abs() < bound,
            "{name}: {got}, not {expected}"
        );
    };
    for seed in 0..2 {
        let key = MaskKey::new(seed, 1);
        let x = values(&Tensor::randn([COUNT], DType::F64, key).unwrap());
        for (power, moment) in [(1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)] {
            let deviation =
                [0.0, 1.0, 2.0_f64.sqrt(), 15.0_f64.sqrt(), 96.0_f64.sqrt()][power as usize];
            check(
                "normal moment",
                mean_of(&x, &|x| x.powi(power)),
                moment,
                deviation,
            );
        }
        let below = |z: f64| mean_of(&x, &|x| f64::from(u8::from(x < z)));
        for (z, p) in [
            (-2.326347874040841, 0.01),
            (-0.6744897501960817, 0.25),
            (1.6448536269514722, 0.95),
        ] {
            check("normal quantile", below(z), p, (p * (1.0 - p)).sqrt());
        }
        // Neighbours, of one pair and of two.
        let lag =
            |lag: usize| x.iter().zip(&x[lag..]).map(|(x, y)| x * y).sum::<f64>() / COUNT as f64;
        (1..4).for_each(|k| check("normal lag", lag(k), 0.0, 1.0));

        let x = values(&Tensor::uniform([COUNT], 0.0, 1.0, DType::F64, key).unwrap());
        check(
            "uniform mean",
            mean_of(&x, &|x| x),
            0.5,
            (1.0_f64 / 12.0).sqrt(),
        );
        check(
            "uniform square",
            mean_of(&x, &|x| x * x),
            1.0 / 3.0,
            (4.0_f64 / 45.0).sqrt(),
        );
        let lag = x
            .iter()
            .zip(&x[1..])
            .map(|(x, y)| (x - 0.5) * (y - 0.5))
            .sum::<f64>();
        check("uniform lag", lag / COUNT as f64, 0.0, 1.0 / 12.0);
    }
}

#[test]
fn uniform_refuses_bounds_without_numbers_between() {
    let rows = [
        (
            1.0,
            0.5,
            "uniform: expected finite low <= high, got 1 and 0.5",
        ),
        (
            f64::NAN,
            0.0,
            "uniform: expected finite low <= high, got NaN and 0",
        ),
        (
            0.0,
            f64::INFINITY,
            "uniform: expected finite low <= high, got 0 and inf",
        ),
        (
            f64::INFINITY,
            f64::INFINITY,
            "uniform: expected finite low <= high, got inf and inf",
        ),
    ];
    for (low, high, message) in rows {
        let error = Tensor::uniform([2], low, high, DType::F32, KEY).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    // The width overflows.
    assert!(Tensor::uniform([2], f64::MIN, f64::MAX, DType::F64, KEY).is_err());
    assert_eq!(
        values(&Tensor::uniform([2], 3.0, 3.0, DType::F32, KEY).unwrap()),
        [3.0; 2]
    );
    let error = Tensor::randn([usize::MAX], DType::F32, KEY).unwrap_err();
    assert!(matches!(error, Error::TooLarge { op: "randn", .. }));
}
