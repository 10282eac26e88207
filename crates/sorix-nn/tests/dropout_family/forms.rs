//! The table of forms, and what the tests of all of them need.

use std::sync::Arc;

use sorix_core::{BitMask, DType, DropRate, MaskKey, SaveMask, Tensor};
use sorix_kernels::Engine;
use sorix_kernels::backend::reference::Reference;
use sorix_nn::dropout::{DropoutLayer, Form};
use sorix_nn::{
    AlphaDropout, BroadcastDropout, DropBlock2d, DropPath, Dropout, Dropout1d, Dropout2d,
    Dropout3d, FeatureAlphaDropout, GaussianDropout, Generator, GeneratorState, LockedDropout,
    Module, Shard,
};

pub(crate) const DTYPES: [DType; 4] = [DType::F16, DType::BF16, DType::F32, DType::F64];
pub(crate) const SAVES: [SaveMask; 2] = [SaveMask::Bits, SaveMask::Replay];
pub(crate) const KEY: MaskKey = MaskKey {
    seed: 42,
    offset: 7,
};

/// A layer of any form.
pub(crate) trait Layer: Module {
    fn sharded(&self, x: &Tensor, shard: &Shard) -> sorix_nn::Result<Tensor>;
}

impl<F: Form> Layer for DropoutLayer<F> {
    fn sharded(&self, x: &Tensor, shard: &Shard) -> sorix_nn::Result<Tensor> {
        self.forward_sharded(x, shard)
    }
}

/// A layer at some p, with its mask kept in some way, that takes its keys from some generator.
pub(crate) type Make = fn(f64, SaveMask, Arc<Generator>) -> Box<dyn Layer>;

/// What decides about the elements of an input.
pub(crate) enum Mask {
    /// The bits of this shape, repeated.
    Small(&'static [usize]),
    /// Squares around bits.
    Squares,
    /// Noise, and no mask.
    Noise,
}

use Mask::{Noise, Small, Squares};

/// One form of dropout.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) make: Make,
    pub(crate) shape: &'static [usize],
    pub(crate) mask: Mask,
    /// What becomes of an element that is kept, and what is put in the place of the others.
    pub(crate) kept: fn(x: f64, p: f64) -> f64,
    pub(crate) dropped: fn(p: f64) -> f64,
}

pub(crate) fn boxed<F: Form + 'static>(
    layer: sorix_nn::Result<DropoutLayer<F>>,
    save: SaveMask,
    generator: Arc<Generator>,
) -> Box<dyn Layer> {
    Box::new(layer.unwrap().save_mask(save).generator(generator))
}

pub(crate) fn inverted(x: f64, p: f64) -> f64 {
    x * (1.0 / (1.0 - p))
}

pub(crate) fn zero(_: f64) -> f64 {
    0.0
}

/// -λα of SELU, from the two published constants.
pub(crate) const ALPHA: f64 = -1.050_700_987_355_480_5 * 1.673_263_242_354_377_2;

pub(crate) fn alpha_scale(p: f64) -> f64 {
    // As Klambauer et al. write it, with q = 1 - p.
    let q = 1.0 - p;
    (q + ALPHA * ALPHA * q * (1.0 - q)).powf(-0.5)
}

pub(crate) fn alpha_shift(p: f64) -> f64 {
    -alpha_scale(p) * (p * ALPHA)
}

pub(crate) fn alpha_kept(x: f64, p: f64) -> f64 {
    alpha_scale(p) * x + alpha_shift(p)
}

pub(crate) fn alpha_dropped(p: f64) -> f64 {
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

pub(crate) fn rows() -> impl IntoIterator<Item = Row> {
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
        "drop_block2d", |p| DropBlock2d::with_block_size(p, 2), [2, 3, 5, 4], Squares, inverted, zero;
        "drop_block2d unbatched", |p| DropBlock2d::with_block_size(p, 3), [3, 5, 9], Squares, inverted, zero;
        "gaussian_dropout", GaussianDropout::new, [3, 50], Noise, inverted, zero;
    ]
}

impl Row {
    /// The layer, in training, whose next call draws by `KEY`.
    pub(crate) fn layer(&self, p: f64, save: SaveMask) -> Box<dyn Layer> {
        let MaskKey { seed, offset } = KEY;
        let generator = Generator::from_state(GeneratorState { seed, offset });
        (self.make)(p, save, Arc::new(generator))
    }

    pub(crate) fn forward(&self, p: f64, save: SaveMask, x: &Tensor) -> Tensor {
        self.layer(p, save).forward(x).unwrap()
    }
}

pub(crate) fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().to_vec().unwrap()
}

pub(crate) fn bits(x: &Tensor) -> Vec<u64> {
    values(x).into_iter().map(f64::to_bits).collect()
}

/// Numbers in [-2, 2), none of them zero, another sequence for each salt.
pub(crate) fn random(shape: &[usize], salt: u64) -> Tensor {
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
pub(crate) fn reference_mask(p: f64, mask_shape: &[usize], shape: &[usize]) -> Vec<bool> {
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
pub(crate) fn run(layer: &dyn Module, x: &Tensor, dy: &Tensor) -> (Tensor, Tensor) {
    let x = x.requires_grad(true);
    let y = layer.forward(&x).unwrap();
    y.backward_with(dy).unwrap();
    (y.detach(), x.grad().unwrap())
}

pub(crate) fn assert_close(got: &[f64], expected: &[f64], case: &str) {
    assert_eq!(got.len(), expected.len(), "{case}");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let tolerance = 1e-14 * (1.0 + expected.abs());
        assert!(
            (got - expected).abs() <= tolerance,
            "{case}, element {i}: {got}, expected {expected}"
        );
    }
}
