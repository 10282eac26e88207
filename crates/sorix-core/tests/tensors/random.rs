//! Tensors of random numbers: which ones, that parts are those of the whole, and their distribution.

use crate::common::{DTYPES, values};
use sorix_core::{BitMask, DType, DropRate, ErrorKind, MaskKey, MaskRegion, Result, Tensor};
use sorix_kernels::dropout::fill_mask;

const KEY: MaskKey = MaskKey {
    seed: 0x0123_4567_89ab_cdef,
    offset: 7,
};

type Make = fn(&[usize], DType, MaskRegion) -> Result<Tensor>;

const DISTRIBUTIONS: [(&str, Make); 2] = [
    ("normal", |shape, dtype, at| {
        Tensor::normal(shape, 0.5, 2.0, dtype, at)
    }),
    ("uniform", |shape, dtype, at| {
        Tensor::uniform(shape, -2.0, 6.0, dtype, at)
    }),
];

fn randn(count: usize, at: impl Into<MaskRegion>) -> Vec<f64> {
    values(&Tensor::randn([count], DType::F64, at).unwrap())
}

/// By the Python page of the mask format's Philox and xoshiro256++, and Python's math module, whose
/// roundings add up over the layers.
#[test]
fn fixed_values() {
    let expected = [
        0.7442417901987789,
        0.11187135144842231,
        0.2070759702848095,
        0.3289344549925701,
        0.9143155138441426,
    ];
    let uniform = Tensor::uniform([5], 0.0, 1.0, DType::F64, KEY).unwrap();
    assert_eq!(values(&uniform), expected);
    let scaled = Tensor::uniform([5], -2.0, 6.0, DType::F64, KEY).unwrap();
    assert_eq!(values(&scaled), expected.map(|u| -2.0 + 8.0 * u));

    let expected: [(u64, &[f64]); 11] = [
        (
            0,
            &[
                -0.8830653324938128,
                -0.5409408563003677,
                0.19148271026128125,
                -0.19856032610304325,
                0.2945506287724097,
            ],
        ),
        // Beside the layer above: under the curve,
        (157, &[-1.0539778456608242]),
        (425, &[-1.6922519504611544]),
        (823, &[-0.04162443221948989]),
        // and above it, so that others took their place.
        (403, &[-0.016826253013732452]),
        (1145, &[-0.30484860170989325]),
        (2015, &[-1.0397883419316556]),
        // In the tail.
        (7877, &[4.181542142610366]),
        (16858, &[-4.449033058563477]),
        (33555, &[4.043836503692874]),
        // The last tile there is.
        (
            u64::MAX - 1023,
            &[0.4114315532700117, -0.6831081527127085, -0.716073861353624],
        ),
    ];
    for (first, expected) in expected {
        let got = randn(expected.len(), KEY.window(first));
        for (got, expected) in got.into_iter().zip(expected) {
            assert!(
                (got - expected).abs() <= 1e-12 * expected.abs(),
                "{first}: {got}, not {expected}"
            );
        }
    }
}

#[test]
fn numbers_depend_on_key_and_index_alone() {
    for (name, make) in DISTRIBUTIONS {
        let whole = make(&[6, 7], DType::F64, KEY.into()).unwrap();
        let front = make(&[11], DType::F64, KEY.into()).unwrap();
        assert_eq!(values(&whole)[..11], values(&front), "{name}");
        for dtype in DTYPES {
            let rounded = make(&[6, 7], dtype, KEY.into()).unwrap();
            let expected = whole.to_dtype(dtype).unwrap();
            assert_eq!(values(&rounded), values(&expected), "{name} {dtype}");
        }
        for other in [
            MaskKey { seed: 1, ..KEY },
            MaskKey { offset: 8, ..KEY },
            // The two words are not interchangeable.
            MaskKey::new(KEY.offset, KEY.seed),
        ] {
            let other = make(&[6, 7], DType::F64, other.into()).unwrap();
            assert_ne!(values(&other), values(&whole), "{name}");
        }
        for (shape, count) in [(&[][..], 1), (&[0, 3], 0), (&[3, 0], 0)] {
            let x = make(shape, DType::F32, KEY.into()).unwrap();
            assert_eq!((x.shape(), x.numel()), (shape, count), "{name}");
        }
    }
    let normal = Tensor::normal([5], 0.5, 2.0, DType::F64, KEY).unwrap();
    let scaled: Vec<f64> = randn(5, KEY).iter().map(|z| 0.5 + 2.0 * z).collect();
    assert_eq!(values(&normal), scaled);
}

/// W workers with a part each, cut along any axis, have what one machine has; and so do windows.
#[test]
fn parts_joined_are_the_whole() {
    for (name, make) in DISTRIBUTIONS {
        // Several tiles; runs within a tile, across two, and longer than one.
        for shape in [&[3, 40, 50][..], &[2, 3, 1500]] {
            let whole = make(shape, DType::F32, KEY.into()).unwrap();
            for (axis, &len) in shape.iter().enumerate() {
                for workers in [1, 2, 3, 8] {
                    let parts: Vec<Tensor> = (0..workers)
                        .map(|worker| {
                            let range = worker * len / workers..(worker + 1) * len / workers;
                            let mut part = shape.to_vec();
                            part[axis] = range.len();
                            let at = KEY.shard(shape, axis, range).unwrap();
                            make(&part, DType::F32, at).unwrap()
                        })
                        .collect();
                    let parts: Vec<&Tensor> = parts.iter().collect();
                    let joined = Tensor::concat(&parts, axis as isize).unwrap();
                    assert!(
                        values(&joined) == values(&whole),
                        "{name}, {shape:?}, axis {axis}, {workers} workers"
                    );
                }
            }
            let whole = values(&whole);
            for (first, len) in [(1, 1), (1023, 2), (1024, 1024), (777, 3000)] {
                let at = KEY.window(first as u64).into();
                let part = make(&[len], DType::F32, at).unwrap();
                assert!(
                    values(&part) == whole[first..first + len],
                    "{name} at {first}"
                );
            }
        }
    }
}

/// Bounds of five standard deviations, with the chance of one in two millions each.
#[test]
fn moments_tails_and_distance_from_the_normal_distribution() {
    const COUNT: usize = 1_000_000;
    let n = COUNT as f64;
    let mut x = randn(COUNT, MaskKey::new(3, 1));
    assert!(x.iter().all(|x| x.is_finite() && *x != 0.0));
    let check = |name: &str, got: f64, expected: f64, variance: f64| {
        let bound = 5.0 * (variance / n).sqrt();
        assert!(
            (got - expected).abs() < bound,
            "{name}: {got}, not {expected} to {bound}"
        );
    };
    let mean_of = |f: &dyn Fn(f64) -> f64| x.iter().map(|&x| f(x)).sum::<f64>() / n;
    // The variance of x^k is the difference of two moments.
    for (power, moment, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)]
    {
        let name = format!("moment {power}");
        check(&name, mean_of(&|x| x.powi(power)), moment, variance);
    }
    // The tail begins at 4.04.
    for z in [2.0, 3.0, 4.0, 4.1, 4.4] {
        let p = 0.5 * libm::erfc(z / 2.0_f64.sqrt());
        let beyond = |sign: f64| mean_of(&|x| f64::from(u8::from(sign * x > z)));
        check(&format!("above {z}"), beyond(1.0), p, p);
        check(&format!("below -{z}"), beyond(-1.0), p, p);
    }
    // Neighbours, and the same place in the next tile.
    for lag in [1, 2, 3, 8, 1024] {
        let sum: f64 = x.iter().zip(&x[lag..]).map(|(x, y)| x * y).sum();
        check(&format!("lag {lag}"), sum / n, 0.0, 1.0);
        let squares = x.iter().zip(&x[lag..]);
        let sum: f64 = squares.map(|(x, y)| (x * x - 1.0) * (y * y - 1.0)).sum();
        check(&format!("lag {lag} of squares"), sum / n, 0.0, 4.0);
    }
    // Kolmogorov and Smirnov: beyond d with probability 2 exp(-2 n d²).
    x.sort_unstable_by(f64::total_cmp);
    let below = |x: f64| 0.5 * libm::erfc(-x / 2.0_f64.sqrt());
    let steps = x.iter().enumerate();
    let distance = steps.fold(0.0_f64, |most, (i, &x)| {
        let (before, after) = (i as f64 / n, (i + 1) as f64 / n);
        most.max((below(x) - before).abs().max((below(x) - after).abs()))
    });
    let bound = ((2.0_f64 / 1e-6).ln() / (2.0 * n)).sqrt();
    assert!(distance < bound, "{distance}, not below {bound}");
}

#[test]
fn moments_of_uniform_numbers() {
    const COUNT: usize = 100_000;
    let n = COUNT as f64;
    for seed in 0..2 {
        let key = MaskKey::new(seed, 1);
        let x = values(&Tensor::uniform([COUNT], 0.0, 1.0, DType::F64, key).unwrap());
        let lag = x.iter().zip(&x[1..]).map(|(x, y)| (x - 0.5) * (y - 0.5));
        for (name, got, expected, variance) in [
            ("mean", x.iter().sum::<f64>(), 0.5, 1.0 / 12.0),
            (
                "square",
                x.iter().map(|x| x * x).sum(),
                1.0 / 3.0,
                4.0 / 45.0,
            ),
            ("lag", lag.sum(), 0.0, 1.0 / 144.0),
        ] {
            let bound = 5.0 * f64::sqrt(variance / n);
            assert!((got / n - expected).abs() < bound, "{name}: {}", got / n);
        }
    }
}

/// A key may name a mask and noise in the same step, and keys beside each other both.
#[test]
fn noise_has_nothing_to_do_with_masks_and_other_noise() {
    const COUNT: usize = 50_000;
    let key = MaskKey::new(42, 7);
    let noise = randn(COUNT, key);
    let check = |name: &str, other: &[f64]| {
        // Products of two numbers of variance 1, and of a number with a square.
        for (power, variance) in [(1, 1.0), (2, 2.0)] {
            let mean = if power == 2 { 1.0 } else { 0.0 };
            let products = noise.iter().zip(other);
            let sum: f64 = products.map(|(x, y)| (x.powi(power) - mean) * y).sum();
            let bound = 5.0 * (variance * COUNT as f64).sqrt();
            assert!(sum.abs() < bound, "{name}, power {power}: {sum}");
        }
    };
    for other in [
        MaskKey::new(42, 8),
        MaskKey::new(43, 7),
        MaskKey::new(7, 42),
    ] {
        check("noise", &randn(COUNT, other));
    }
    let sign = |keep: bool| if keep { 1.0 } else { -1.0 };
    // At p = 1/2 the bits of a mask are those that its lanes draw, 64 from a word.
    let mut mask = BitMask::new(64 * COUNT);
    fill_mask(DropRate::new(0.5).unwrap(), key, &mut mask).unwrap();
    let bits: Vec<bool> = mask.iter().collect();
    let first: Vec<f64> = bits[..COUNT].iter().map(|&keep| sign(keep)).collect();
    check("mask", &first);
    for bit in [0, 7, 11, 63] {
        let of_words: Vec<f64> = bits.chunks(64).map(|word| sign(word[bit])).collect();
        check("mask, word by word", &of_words);
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let inf = f64::INFINITY;
    // The difference of the last two is infinite, which is said in a few digits.
    let uniform = [
        (1.0, 0.5, "1.0 and 0.5"),
        (f64::NAN, 0.0, "NaN and 0.0"),
        (0.0, inf, "0.0 and inf"),
        (inf, inf, "inf and inf"),
        (-1e308, 1e308, "-1e308 and 1e308"),
    ];
    for (low, high, got) in uniform {
        let error = Tensor::uniform([2], low, high, DType::F32, KEY).unwrap_err();
        let expected = format!(
            "uniform(float32[2]): expected low <= high with a finite difference, got {got}"
        );
        assert_eq!(error.to_string(), expected);
    }
    for (mean, std) in [
        (0.0, -1.0),
        (f64::NAN, 1.0),
        (0.0, f64::NAN),
        (0.0, inf),
        (inf, 1.0),
    ] {
        let error = Tensor::normal([2], mean, std, DType::F32, KEY).unwrap_err();
        let expected = format!(
            "normal(float32[2]): expected a finite mean and a finite standard deviation >= 0, \
             got {mean:?} and {std:?}"
        );
        assert_eq!(error.to_string(), expected);
    }
    let threes = [
        Tensor::uniform([2], 3.0, 3.0, DType::F32, KEY),
        Tensor::normal([2], 3.0, 0.0, DType::F32, KEY),
    ];
    assert!(threes.into_iter().all(|x| values(&x.unwrap()) == [3.0; 2]));

    let error = Tensor::randn([usize::MAX], DType::F32, KEY).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TooLarge { .. }));
    let shard = KEY.shard(&[4, 6], 1, 1..3).unwrap();
    let error = Tensor::randn([4, 3], DType::F32, shard).unwrap_err();
    assert_eq!(
        error.to_string(),
        "randn(float32[4, 3]): length of shard: expected 8, got 12"
    );
    let last = KEY.window(u64::MAX);
    assert!(Tensor::randn([1], DType::F32, last).is_ok());
    let error = Tensor::uniform([2], 0.0, 1.0, DType::F32, last).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Kernel(_)));
}
