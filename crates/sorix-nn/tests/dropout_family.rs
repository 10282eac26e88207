//! Every form of dropout: what it drops against the reference's mask, gradients, statistics, corner
//! cases. A form is a row of the table; the tests go through the rows.

use std::sync::Arc;

use sorix_core::{BitMask, DType, DropRate, MaskKey, SaveMask, Tensor};
use sorix_kernels::Engine;
use sorix_kernels::reference::Reference;
use sorix_nn::dropout::{DropoutLayer, Form};
use sorix_nn::{
    AlphaDropout, BroadcastDropout, DropBlock2d, DropPath, Dropout, Dropout1d, Dropout2d,
    Dropout3d, FeatureAlphaDropout, GaussianDropout, Generator, GeneratorState, LockedDropout,
    Module, Shard,
};

const DTYPES: [DType; 4] = [DType::F16, DType::BF16, DType::F32, DType::F64];
const SAVES: [SaveMask; 2] = [SaveMask::Bits, SaveMask::Replay];
const KEY: MaskKey = MaskKey {
    seed: 42,
    offset: 7,
};

/// A layer of any form.
trait Layer: Module {
    fn sharded(&self, x: &Tensor, shard: &Shard) -> sorix_nn::Result<Tensor>;
}

impl<F: Form> Layer for DropoutLayer<F> {
    fn sharded(&self, x: &Tensor, shard: &Shard) -> sorix_nn::Result<Tensor> {
        self.forward_sharded(x, shard)
    }
}

/// A layer at some p, with its mask kept in some way, that takes its keys from some generator.
type Make = fn(f64, SaveMask, Arc<Generator>) -> Box<dyn Layer>;

/// What decides about the elements of an input.
enum Mask {
    /// The bits of this shape, repeated.
    Small(&'static [usize]),
    /// Squares around bits.
    Squares,
    /// Noise, and no mask.
    Noise,
}

use Mask::{Noise, Small, Squares};

/// One form of dropout.
struct Row {
    name: &'static str,
    make: Make,
    shape: &'static [usize],
    mask: Mask,
    /// What becomes of an element that is kept, and what is put in the place of the others.
    kept: fn(x: f64, p: f64) -> f64,
    dropped: fn(p: f64) -> f64,
}

fn boxed<F: Form + 'static>(
    layer: sorix_nn::Result<DropoutLayer<F>>,
    save: SaveMask,
    generator: Arc<Generator>,
) -> Box<dyn Layer> {
    Box::new(layer.unwrap().save_mask(save).generator(generator))
}

fn inverted(x: f64, p: f64) -> f64 {
    x * (1.0 / (1.0 - p))
}

fn zero(_: f64) -> f64 {
    0.0
}

/// -λα of SELU, from the two published constants.
const ALPHA: f64 = -1.050_700_987_355_480_5 * 1.673_263_242_354_377_2;

fn alpha_scale(p: f64) -> f64 {
    // As Klambauer et al. write it, with q = 1 - p.
    let q = 1.0 - p;
    (q + ALPHA * ALPHA * q * (1.0 - q)).powf(-0.5)
}

fn alpha_shift(p: f64) -> f64 {
    -alpha_scale(p) * (p * ALPHA)
}

fn alpha_kept(x: f64, p: f64) -> f64 {
    alpha_scale(p) * x + alpha_shift(p)
}

fn alpha_dropped(p: f64) -> f64 {
    alpha_scale(p) * ALPHA + alpha_shift(p)
}

macro_rules! rows {
    ($($name:literal, $layer:expr, $shape:expr, $mask:expr, $kept:expr, $dropped:expr;)*) => {
        [$(Row {
            name: $name,
            make: |p, save, generator| boxed($layer(p), save, generator),
            shape: &$shape,
            mask: $mask,
            kept: $kept,
            dropped: $dropped,
        }),*]
    };
}

fn rows() -> impl IntoIterator<Item = Row> {
    rows![
        "dropout", Dropout::new, [3, 50], Small(&[3, 50]), inverted, zero;
        "dropout1d", Dropout1d::new, [4, 6, 5], Small(&[4, 6, 1]), inverted, zero;
        "dropout1d unbatched", Dropout1d::new, [6, 5], Small(&[6, 1]), inverted, zero;
        "dropout1d channels last", |p| Dropout1d::new(p).map(DropoutLayer::channels_last),
            [4, 5, 6], Small(&[4, 1, 6]), inverted, zero;
        "dropout2d", Dropout2d::new, [4, 6, 3, 2], Small(&[4, 6, 1, 1]), inverted, zero;
        "dropout2d unbatched", Dropout2d::new, [16, 3, 2], Small(&[16, 1, 1]), inverted, zero;
        "dropout2d channels last", |p| Dropout2d::new(p).map(DropoutLayer::channels_last),
            [4, 3, 2, 6], Small(&[4, 1, 1, 6]), inverted, zero;
        "dropout2d unbatched, channels last", |p| Dropout2d::new(p).map(DropoutLayer::channels_last),
            [3, 2, 16], Small(&[1, 1, 16]), inverted, zero;
        "dropout3d", Dropout3d::new, [3, 6, 2, 1, 3], Small(&[3, 6, 1, 1, 1]), inverted, zero;
        "dropout3d unbatched", Dropout3d::new, [16, 2, 1, 3], Small(&[16, 1, 1, 1]), inverted, zero;
        "dropout3d channels last", |p| Dropout3d::new(p).map(DropoutLayer::channels_last),
            [3, 2, 1, 3, 6], Small(&[3, 1, 1, 1, 6]), inverted, zero;
        "noise_shape", |p| BroadcastDropout::noise_shape(p, [None, Some(1), Some(2), None]),
            [4, 3, 2, 5], Small(&[4, 1, 2, 5]), inverted, zero;
        "shared_along", |p| BroadcastDropout::shared_along(p, [1, -1]),
            [9, 3, 2, 5], Small(&[9, 1, 2, 1]), inverted, zero;
        "locked_dropout", LockedDropout::new, [3, 5, 8], Small(&[3, 1, 8]), inverted, zero;
        "locked_dropout over axis 0", |p| LockedDropout::new(p).map(|layer| layer.time_axis(0)),
            [5, 3, 8], Small(&[1, 3, 8]), inverted, zero;
        "drop_path", DropPath::new, [20, 2, 3], Small(&[20, 1, 1]), inverted, zero;
        "drop_path per batch", |p| DropPath::new(p).map(DropoutLayer::per_batch),
            [20, 2, 3], Small(&[1, 1, 1]), inverted, zero;
        "drop_path unscaled", |p| DropPath::new(p).map(|layer| layer.scale_by_keep(false)),
            [20, 2, 3], Small(&[20, 1, 1]), |x, _| x, zero;
        "alpha_dropout", AlphaDropout::new, [3, 50], Small(&[3, 50]), alpha_kept, alpha_dropped;
        "feature_alpha_dropout", FeatureAlphaDropout::new,
            [4, 6, 3, 2], Small(&[4, 6, 1, 1]), alpha_kept, alpha_dropped;
        "drop_block2d", |p| DropBlock2d::new(p, 2), [2, 3, 5, 4], Squares, inverted, zero;
        "drop_block2d unbatched", |p| DropBlock2d::new(p, 3), [3, 5, 9], Squares, inverted, zero;
        "gaussian_dropout", GaussianDropout::new, [3, 50], Noise, inverted, zero;
    ]
}

impl Row {
    /// The layer, in training, whose next call draws by `KEY`.
    fn layer(&self, p: f64, save: SaveMask) -> Box<dyn Layer> {
        let MaskKey { seed, offset } = KEY;
        let generator = Generator::from_state(GeneratorState { seed, offset });
        (self.make)(p, save, Arc::new(generator))
    }

    fn forward(&self, p: f64, save: SaveMask, x: &Tensor) -> Tensor {
        self.layer(p, save).forward(x).unwrap()
    }
}

fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().to_vec().unwrap()
}

fn bits(x: &Tensor) -> Vec<u64> {
    values(x).into_iter().map(f64::to_bits).collect()
}

/// Numbers in [-2, 2), none of them zero, another sequence for each salt.
fn random(shape: &[usize], salt: u64) -> Tensor {
    let mut state = salt.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 12) as f64 / 2f64.powi(50) - 2.0
    };
    let numbers: Vec<f64> = (0..shape.iter().product()).map(|_| next()).collect();
    Tensor::from_slice(&numbers, shape).unwrap()
}

/// The mask of a form in the shape of its input, made by the reference and repeated by `expand`.
fn reference_mask(p: f64, mask_shape: &[usize], shape: &[usize]) -> Vec<bool> {
    let mut mask = BitMask::new(mask_shape.iter().product());
    Engine::new(&Reference)
        .fill_mask(DropRate::new(p).unwrap(), KEY, &mut mask)
        .unwrap();
    let ones: Vec<f64> = mask.iter().map(|keep| f64::from(u8::from(keep))).collect();
    let small = Tensor::from_slice(&ones, mask_shape).unwrap();
    values(&small.expand(shape).unwrap())
        .into_iter()
        .map(|one| one == 1.0)
        .collect()
}

/// Output and input gradient for the output gradient `dy`.
fn run(layer: &dyn Module, x: &Tensor, dy: &Tensor) -> (Tensor, Tensor) {
    let x = x.requires_grad(true);
    let y = layer.forward(&x).unwrap();
    y.backward_with(dy).unwrap();
    (y.detach(), x.grad().unwrap())
}

fn assert_close(got: &[f64], expected: &[f64], case: &str) {
    assert_eq!(got.len(), expected.len(), "{case}");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let tolerance = 1e-14 * (1.0 + expected.abs());
        assert!(
            (got - expected).abs() <= tolerance,
            "{case}, element {i}: {got}, expected {expected}"
        );
    }
}

#[test]
fn values_and_gradients_are_those_of_the_reference_mask() {
    for row in rows() {
        let Small(mask_shape) = row.mask else {
            continue;
        };
        for p in [0.1, 0.5, 0.8] {
            let keep = reference_mask(p, mask_shape, row.shape);
            let (x, dy) = (random(row.shape, 1), random(row.shape, 2));
            // What the gradient is multiplied by is the slope of a straight line.
            let slope = (row.kept)(1.0, p) - (row.kept)(0.0, p);
            let masked = |x: &Tensor, kept: &dyn Fn(f64) -> f64, dropped: f64| -> Vec<f64> {
                let pairs = values(x).into_iter().zip(&keep);
                pairs
                    .map(|(x, &keep)| if keep { kept(x) } else { dropped })
                    .collect()
            };
            for save in SAVES {
                let case = format!("{} at {p}, {save:?}", row.name);
                let (y, dx) = run(&*row.layer(p, save), &x, &dy);
                let expected = masked(&x, &|x| (row.kept)(x, p), (row.dropped)(p));
                assert_close(&values(&y), &expected, &case);
                assert_close(&values(&dx), &masked(&dy, &|dy| dy * slope, 0.0), &case);
                assert_eq!((y.shape(), dx.shape()), (row.shape, row.shape), "{case}");
            }
        }
    }
}

#[test]
fn gradients_against_finite_differences() {
    const STEP: f64 = 1e-6;
    for row in rows() {
        for (p, save) in [(0.3, SaveMask::Bits), (0.6, SaveMask::Replay)] {
            let (x, weights) = (random(row.shape, 3), random(row.shape, 4));
            let (_, dx) = run(&*row.layer(p, save), &x, &weights);
            let elements = values(&x);
            let loss = |i: usize, step: f64| -> f64 {
                let mut moved = elements.clone();
                moved[i] += step;
                let x = Tensor::from_slice(&moved, row.shape).unwrap();
                let y = row.forward(p, save, &x).mul(&weights).unwrap();
                y.sum().unwrap().item().unwrap()
            };
            for (i, gradient) in values(&dx).into_iter().enumerate().step_by(7) {
                let expected = (loss(i, STEP) - loss(i, -STEP)) / (2.0 * STEP);
                assert!(
                    (gradient - expected).abs() < 1e-7 * (1.0 + expected.abs()),
                    "{} at {p}, {save:?}, element {i}: {gradient}, differences {expected}",
                    row.name
                );
            }
        }
    }
}

#[test]
fn bits_and_replay_are_equal_bit_for_bit() {
    for row in rows() {
        for dtype in DTYPES {
            for p in [0.2, 0.5, 1.0] {
                let (x, dy) = (random(row.shape, 5), random(row.shape, 6));
                let (x, dy) = (x.to_dtype(dtype).unwrap(), dy.to_dtype(dtype).unwrap());
                let run = |save| {
                    let (y, dx) = run(&*row.layer(p, save), &x, &dy);
                    assert_eq!((y.dtype(), dx.dtype()), (dtype, dtype));
                    (bits(&y), bits(&dx))
                };
                let case = format!("{} in {dtype} at {p}", row.name);
                assert_eq!(run(SaveMask::Bits), run(SaveMask::Replay), "{case}");
            }
        }
    }
}

#[test]
fn a_view_is_treated_as_its_copy() {
    for row in rows() {
        let mut shape = row.shape.to_vec();
        let last = shape.len() - 1;
        shape.swap(0, last);
        let view = random(&shape, 7).transpose(0, -1).unwrap();
        let copy = Tensor::from_slice(&values(&view), row.shape).unwrap();
        assert!(!view.is_contiguous() && copy.is_contiguous());
        let y = row.forward(0.5, SaveMask::Bits, &view);
        let expected = row.forward(0.5, SaveMask::Bits, &copy);
        assert_eq!(bits(&y), bits(&expected), "{}", row.name);
    }
}

#[test]
fn every_call_in_training_takes_one_key_and_none_in_eval() {
    for row in rows() {
        for p in [0.0, 1e-10, 0.5, 1.0] {
            let generator = Arc::new(Generator::new(5));
            let mut layer = (row.make)(p, SaveMask::Bits, Arc::clone(&generator));
            let mut empty = row.shape.to_vec();
            empty[0] = 0;
            for (calls, shape) in (1..).zip([row.shape, &empty, row.shape]) {
                let x = Tensor::ones(shape, DType::F32).unwrap().requires_grad(true);
                let y = layer.forward(&x).unwrap();
                assert_eq!(y.shape(), shape, "{}", row.name);
                y.sum().unwrap().backward().unwrap();
                assert_eq!(x.grad().unwrap().shape(), shape, "{}", row.name);
                assert_eq!(generator.state().offset, calls, "{} at {p}", row.name);
            }
            layer.eval();
            for dtype in DTYPES {
                let x = random(row.shape, 1).to_dtype(dtype).unwrap();
                let x = x.requires_grad(true);
                let y = layer.forward(&x).unwrap();
                assert!(y.same_storage(&x) && y.is_leaf(), "{}", row.name);
            }
            assert_eq!(generator.state().offset, 3, "{} at {p}", row.name);
        }
    }
}

#[test]
fn p_0_is_the_tensor_itself_and_p_1_all_zero() {
    for row in rows() {
        for save in SAVES {
            let x = random(row.shape, 8).requires_grad(true);
            let y = row.forward(0.0, save, &x);
            assert!(y.same_storage(&x), "{}", row.name);
            y.sum().unwrap().backward().unwrap();
            assert!(values(&x.grad().unwrap()).iter().all(|&dx| dx == 1.0));

            let special = Tensor::full(row.shape, f64::NAN, DType::F32).unwrap();
            let (y, dx) = run(&*row.layer(1.0, save), &special, &special);
            for zeros in [y, dx] {
                assert!(bits(&zeros).iter().all(|&y| y == 0), "{}", row.name);
            }
        }
    }
}

#[test]
fn nan_and_infinity_do_not_leak_from_dropped_elements() {
    for row in rows() {
        // Which elements are dropped shows in the gradient, also where they do not become zero.
        let ones = Tensor::ones(row.shape, DType::F64).unwrap();
        let (plain, dx) = run(&*row.layer(0.5, SaveMask::Bits), &ones, &ones);
        for special in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for dtype in DTYPES {
                for save in SAVES {
                    let x = Tensor::full(row.shape, special, dtype).unwrap();
                    let plain = plain.to_dtype(dtype).unwrap();
                    let (y, gradient) = run(&*row.layer(0.5, save), &x, &x);
                    let pairs = values(&dx).into_iter().zip(values(&plain));
                    let outputs = values(&y).into_iter().zip(values(&gradient));
                    for ((kept, plain), (y, gradient)) in pairs.zip(outputs) {
                        if kept == 0.0 {
                            let got = (y.to_bits(), gradient.to_bits());
                            assert_eq!(got, (plain.to_bits(), 0), "{} {dtype}", row.name);
                        } else {
                            assert!(!y.is_finite() && !gradient.is_finite(), "{}", row.name);
                        }
                    }
                }
            }
        }
    }
}

/// Monte Carlo scopes reach every form, and two samples differ.
#[test]
fn every_form_takes_part_in_monte_carlo() {
    for row in rows() {
        let generator = Arc::new(Generator::new(5));
        let mut layer = (row.make)(0.5, SaveMask::Bits, Arc::clone(&generator));
        layer.eval();
        let x = random(row.shape, 1);
        let sample = |i| bits(&sorix_nn::monte_carlo(3, i, || layer.forward(&x)).unwrap());
        assert_eq!(sample(0), sample(0), "{}", row.name);
        let other = |i| sample(i) != sample(0);
        assert!((1..20).any(other), "{}", row.name);
        assert_eq!(generator.state().offset, 0);
        assert_eq!(layer.drop_rate().unwrap().p(), 0.5);
        assert_eq!(layer.named_generators().len(), 1, "{}", row.name);
    }
}

/// The same numbers with mean 0 and variance 1.
fn standardised(x: &Tensor) -> Tensor {
    let mean = x.mean().unwrap();
    let centred = x.sub(&mean).unwrap();
    let variance = centred.mul(&centred).unwrap().mean().unwrap();
    let deviation = variance.item::<f64>().unwrap().sqrt();
    centred.mul_scalar(1.0 / deviation).unwrap()
}

/// Mean and variance of the output over many masks, for an input of mean 0 and variance 1.
#[test]
fn statistics() {
    const CALLS: usize = 40;
    const TIMES: usize = 20;
    for row in rows() {
        // A larger input with the same axes, so that there are decisions enough.
        let mut shape = row.shape.to_vec();
        shape[0] *= TIMES;
        let decisions = CALLS
            * match row.mask {
                Small([1, rest @ ..]) => rest.iter().product::<usize>(),
                Small(mask) => mask.iter().product::<usize>() * TIMES,
                Squares => shape.iter().product::<usize>() / 9,
                Noise => shape.iter().product(),
            };
        let x = standardised(&random(&shape, 11));
        for p in [0.2, 0.5] {
            let generator = Arc::new(Generator::new(99));
            let layer = (row.make)(p, SaveMask::Bits, generator);
            let (mut sum, mut squares, mut dropped, mut count) = (0.0, 0.0, 0, 0);
            for _ in 0..CALLS {
                for y in values(&layer.forward(&x).unwrap()) {
                    sum += y;
                    squares += y * y;
                    dropped += usize::from((y - (row.dropped)(p)).abs() < 1e-12);
                    count += 1;
                }
            }
            let case = format!("{} at {p}", row.name);
            let (mean, n) = (sum / count as f64, count as f64);
            let variance = squares / n - mean * mean;
            // Five standard errors, where a decision shared by many elements counts as one; the
            // variance of a square of a kept element is below 5 / (1 - p)^3.
            let bound = |variance: f64| 5.0 * (variance / decisions as f64).sqrt();
            assert!(mean.abs() < bound(1.0 / (1.0 - p)), "{case}: mean {mean}");
            let expected = match row.name {
                // The two that promise it keep the variance; the others spread by the scale.
                name if name.contains("alpha") => 1.0,
                "drop_path unscaled" => 1.0 - p,
                _ => 1.0 / (1.0 - p),
            };
            let spread = bound(5.0 / (1.0 - p).powi(3)) + 0.02;
            let share = dropped as f64 / n;
            match row.mask {
                Small(_) => {
                    let error = (share - p).abs();
                    assert!(error < bound(p * (1.0 - p)), "{case}: dropped {share}");
                }
                // Squares overlap, so that somewhat less is dropped.
                Squares => assert!(0.6 * p < share && share < p, "{case}: dropped {share}"),
                Noise => assert_eq!(share, 0.0, "{case}"),
            }
            if !matches!(row.mask, Squares) {
                let error = (variance - expected).abs();
                assert!(error < spread, "{case}: variance {variance}");
            }
        }
    }
}

#[test]
fn inputs_that_do_not_fit_are_errors_and_take_no_key() {
    let cases: [(&str, Make, &[&[usize]], &str); 12] = [
        (
            "dropout1d",
            |p, s, g| boxed(Dropout1d::new(p), s, g),
            &[&[], &[3], &[2, 3, 4, 5]],
            "Dropout1d: expected (N, C, L) or (C, L)",
        ),
        (
            "dropout1d, last",
            |p, s, g| boxed(Dropout1d::new(p).map(DropoutLayer::channels_last), s, g),
            &[&[3]],
            "Dropout1d: expected (N, L, C) or (L, C)",
        ),
        (
            "dropout2d",
            |p, s, g| boxed(Dropout2d::new(p), s, g),
            &[&[3], &[3, 4], &[1, 2, 3, 4, 5]],
            "Dropout2d: expected (N, C, H, W) or (C, H, W)",
        ),
        (
            "dropout2d, last",
            |p, s, g| boxed(Dropout2d::new(p).map(DropoutLayer::channels_last), s, g),
            &[&[3, 4]],
            "Dropout2d: expected (N, H, W, C) or (H, W, C)",
        ),
        (
            "dropout3d",
            |p, s, g| boxed(Dropout3d::new(p), s, g),
            &[&[3, 4, 5], &[1, 2, 3, 4, 5, 6]],
            "Dropout3d: expected (N, C, D, H, W) or (C, D, H, W)",
        ),
        (
            "dropout3d, last",
            |p, s, g| boxed(Dropout3d::new(p).map(DropoutLayer::channels_last), s, g),
            &[&[3, 4, 5]],
            "Dropout3d: expected (N, D, H, W, C) or (D, H, W, C)",
        ),
        (
            "noise_shape",
            |p, s, g| boxed(BroadcastDropout::noise_shape(p, [None, Some(2)]), s, g),
            &[&[3], &[2, 3], &[2, 2, 2]],
            "BroadcastDropout: expected a shape that [None, 2] covers",
        ),
        (
            "shared_along",
            |p, s, g| boxed(BroadcastDropout::shared_along(p, [0, -3]), s, g),
            &[&[2], &[2, 3]],
            "BroadcastDropout: expected a shape with axis -3",
        ),
        (
            "locked_dropout",
            |p, s, g| boxed(LockedDropout::new(p), s, g),
            &[&[], &[3]],
            "LockedDropout: expected a shape with axis -2 of time",
        ),
        (
            "drop_path",
            |p, s, g| boxed(DropPath::new(p), s, g),
            &[&[]],
            "DropPath: expected (N, …)",
        ),
        (
            "feature_alpha_dropout",
            |p, s, g| boxed(FeatureAlphaDropout::new(p), s, g),
            &[&[], &[3]],
            "FeatureAlphaDropout: expected (N, C, …)",
        ),
        (
            "drop_block2d",
            |p, s, g| boxed(DropBlock2d::new(p, 3), s, g),
            &[&[], &[3, 4], &[1, 2, 3, 4, 5]],
            "DropBlock2d: expected (N, C, H, W) or (C, H, W)",
        ),
    ];
    for (name, make, shapes, message) in cases {
        for &shape in shapes {
            for p in [0.0, 0.5, 1.0] {
                let generator = Arc::new(Generator::new(5));
                let mut layer = make(p, SaveMask::Bits, Arc::clone(&generator));
                let x = Tensor::ones(shape, DType::F32).unwrap();
                let error = layer.forward(&x).unwrap_err();
                let expected = format!("{message}, got shape {shape:?}");
                assert_eq!(error.to_string(), expected, "{name}");
                assert_eq!(generator.state().offset, 0, "{name}");
                layer.eval();
                assert!(layer.forward(&x).unwrap().same_storage(&x), "{name}");
            }
        }
    }
    assert_eq!(
        DropBlock2d::new(0.1, 0).unwrap_err().to_string(),
        "DropBlock2d: expected a block size of at least 1, got 0"
    );
}

/// The squares of drop block by a worked example: of a plane of 5 by 6, with squares of 2 by 2.
#[test]
fn drop_block_drops_squares_and_scales_by_what_is_left() {
    let layer = DropBlock2d::new(0.4, 2).unwrap();
    let x = Tensor::ones([50, 5, 6], DType::F64).unwrap();
    let y = layer.forward_with_key(&x, KEY).unwrap();
    let y = values(&y);
    let kept = y.iter().filter(|&&y| y != 0.0).count();
    let scale = 1500.0 / kept as f64;
    assert!(y.iter().all(|&y| y == 0.0 || y == scale));
    assert!((500..1500).contains(&kept), "{kept}");
    for plane in y.chunks(30) {
        let dropped = |row: usize, column: usize| plane[row * 6 + column] == 0.0;
        let square =
            |row: usize, column: usize| (0..4).all(|i| dropped(row + i / 2, column + i % 2));
        for (row, column) in (0..30_usize).map(|i| (i / 6, i % 6)) {
            let covered = (row.saturating_sub(1)..=row.min(3))
                .any(|r| (column.saturating_sub(1)..=column.min(4)).any(|c| square(r, c)));
            assert_eq!(dropped(row, column), covered, "{row} {column}");
        }
    }
    // A square larger than the plane drops all of it or nothing.
    let layer = DropBlock2d::new(0.5, 100).unwrap();
    let x = Tensor::ones([40, 3, 3], DType::F64).unwrap();
    let y = values(&layer.forward_with_key(&x, KEY).unwrap());
    let whole = y.chunks(9).filter(|plane| plane.iter().all(|&y| y == 0.0));
    let whole = whole.count();
    assert!((10..30).contains(&whole), "{whole} of 40 planes");
    assert!(y.chunks(9).all(|plane| plane == [plane[0]; 9]));
}

/// Channels first and last, batched and not, draw the same decisions.
#[test]
fn the_layout_does_not_change_the_decisions() {
    let x = Tensor::ones([3, 7, 4, 5], DType::F64).unwrap();
    let first = Dropout2d::new(0.5).unwrap();
    let last = Dropout2d::new(0.5).unwrap().channels_last();
    let y = first.forward_with_key(&x, KEY).unwrap();
    let z = x.permute(&[0, 2, 3, 1]).unwrap();
    let z = last.forward_with_key(&z, KEY).unwrap();
    assert_eq!(values(&z.permute(&[0, 3, 1, 2]).unwrap()), values(&y));
    let one = Tensor::ones([7, 4, 5], DType::F64).unwrap();
    let one = first.forward_with_key(&one, KEY).unwrap();
    assert_eq!(values(&one), values(&y)[..7 * 20]);
}

#[test]
fn gaussian_dropout_multiplies_by_the_noise_of_its_key() {
    let x = random(&[40, 7], 1);
    let layer = GaussianDropout::new(0.2).unwrap();
    let normal = values(&Tensor::randn([40, 7], DType::F64, KEY).unwrap());
    let expected: Vec<f64> = values(&x)
        .into_iter()
        .zip(normal)
        // The square root of 0.2 / 0.8.
        .map(|(x, normal)| x * (1.0 + 0.5 * normal))
        .collect();
    let y = layer.forward_with_key(&x, KEY).unwrap();
    assert_close(&values(&y), &expected, "gaussian_dropout");
}

/// W workers with a part each, cut along any axis, do what one machine does with the whole.
#[test]
fn parts_joined_are_the_whole() {
    for row in rows() {
        if !matches!(row.mask, Small(_)) {
            continue;
        }
        let (x, dy) = (random(row.shape, 1), random(row.shape, 2));
        for save in SAVES {
            let whole = run(&*row.layer(0.5, save), &x, &dy);
            for (axis, &len) in row.shape.iter().enumerate() {
                for workers in [1, 2, 3, 8] {
                    let parts: Vec<(Tensor, Tensor)> = (0..workers)
                        .map(|worker| {
                            let range = worker * len / workers..(worker + 1) * len / workers;
                            let shard = Shard::new(row.shape, axis, range.clone()).unwrap();
                            let part = |x: &Tensor| {
                                let part = x.slice(axis as isize, range.clone()).unwrap();
                                part.contiguous().unwrap()
                            };
                            let x = part(&x).requires_grad(true);
                            let y = row.layer(0.5, save).sharded(&x, &shard).unwrap();
                            y.backward_with(&part(&dy)).unwrap();
                            (y.detach(), x.grad().unwrap())
                        })
                        .collect();
                    let joined = |part: fn(&(Tensor, Tensor)) -> &Tensor| {
                        let parts: Vec<&Tensor> = parts.iter().map(part).collect();
                        Tensor::concat(&parts, axis as isize).unwrap()
                    };
                    let case = format!("{}, axis {axis}, {workers} workers", row.name);
                    assert_eq!(bits(&joined(|part| &part.0)), bits(&whole.0), "{case}");
                    assert_eq!(bits(&joined(|part| &part.1)), bits(&whole.1), "{case}");
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_cut_is_an_error_and_takes_no_key() {
    let generator = Arc::new(Generator::new(5));
    let x = Tensor::ones([2, 3, 4], DType::F32).unwrap();
    let shard = Shard::new([2, 6, 4], 1, 3..6).unwrap();

    let mut dropout = Dropout::new(0.5).unwrap().generator(Arc::clone(&generator));
    let wrong = Shard::new([2, 6, 4], 1, 2..6).unwrap();
    let error = dropout.forward_sharded(&x, &wrong).unwrap_err();
    assert_eq!(
        error.to_string(),
        "forward_sharded: expected a part of shape [2, 4, 4], got shape [2, 3, 4]"
    );
    let blocks = DropBlock2d::new(0.5, 2)
        .unwrap()
        .generator(Arc::clone(&generator));
    let noise = GaussianDropout::new(0.5)
        .unwrap()
        .generator(Arc::clone(&generator));
    let whole_only = "this form of dropout draws for whole tensors, and got a part of one";
    for error in [
        blocks.forward_sharded(&x, &shard).unwrap_err(),
        noise.forward_sharded(&x, &shard).unwrap_err(),
        noise.forward_with_key(&x, KEY.window(1)).unwrap_err(),
    ] {
        assert_eq!(error.to_string(), whole_only);
    }
    let flat = Shard::new([6, 4], 0, 3..6).unwrap();
    let part = Tensor::ones([3, 4], DType::F32).unwrap();
    let error = Dropout2d::new(0.5).unwrap().forward_sharded(&part, &flat);
    assert!(error.unwrap_err().to_string().ends_with("got shape [6, 4]"));
    assert_eq!(
        Shard::new([2, 6], 2, 0..1).unwrap_err().to_string(),
        "a shard must be a range of an axis of the whole tensor, of shape [2, 6], with at most 2^64 \
         elements: got 0..1 of axis 2"
    );
    assert_eq!(generator.state().offset, 0);

    dropout.forward_sharded(&x, &shard).unwrap();
    assert_eq!(generator.state().offset, 1);
    dropout.eval();
    assert!(
        dropout
            .forward_sharded(&x, &shard)
            .unwrap()
            .same_storage(&x)
    );
    assert_eq!(generator.state().offset, 1);
}
