//! Every dropout module on any shape, in either mode: an error or a result, never a panic, and a
//! result that has the shape, the zeros and the gradient it should.

use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use sorix::nn::dropout::{DropoutLayer, Form};
use sorix::nn::{
    AlphaDropout, BroadcastDropout, DropBlock2d, DropPath, Dropout, Dropout1d, Dropout2d,
    Dropout3d, FeatureAlphaDropout, GELUDropout, GaussianDropout, LockedDropout, Mode, Module,
    ReLUDropout, Result, Shard, SiLUDropout, SwiGLUDropout,
};
use sorix::{DType, Generator, Tensor};

use crate::inputs::{Rate, bounded};

#[derive(Arbitrary, Debug)]
struct Case {
    layer: Layer,
    rate: Rate,
    shape: Shape,
    dtype: u8,
    transposed: bool,
    eval: bool,
    seed: u8,
    part: Part,
}

/// An axis, and two places where it is cut.
#[derive(Arbitrary, Debug)]
struct Part {
    axis: u8,
    cuts: [u8; 2],
}

#[derive(Arbitrary, Debug)]
enum Layer {
    Dropout,
    Dropout1d(bool),
    Dropout2d(bool),
    Dropout3d(bool),
    Alpha,
    FeatureAlpha,
    Gaussian,
    DropBlock(u8),
    DropPath,
    Locked(i8),
    Broadcast(Vec<Option<u8>>),
    SharedAlong(Vec<i8>),
    Relu,
    Gelu(bool),
    Silu,
    Swiglu,
}

/// Up to six axes of up to five elements.
#[derive(Debug)]
struct Shape(Vec<usize>);

impl<'a> Arbitrary<'a> for Shape {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        bounded(u, 6, |u| u.int_in_range(0..=5)).map(Self)
    }
}

/// A layer that a worker with a part of the tensor can use, too.
trait Dropping: Module {
    fn forward_part(&self, x: &Tensor, shard: &Shard) -> Result<Tensor>;
    fn forward_residual(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor>;
}

impl<F: Form> Dropping for DropoutLayer<F> {
    fn forward_part(&self, x: &Tensor, shard: &Shard) -> Result<Tensor> {
        self.forward_sharded(x, shard)
    }

    fn forward_residual(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.forward_add(x, residual)
    }
}

/// The target.
pub fn run(data: &[u8]) {
    crate::with_arbitrary(data, check);
}

fn check(case: Case) {
    let generator = Arc::new(Generator::new(case.seed.into()));
    let Ok(mut layer) = layer(&case, &generator) else {
        return;
    };
    if case.eval {
        layer.set_mode(Mode::Eval);
    }
    let Shape(shape) = &case.shape;
    let dtype = [DType::F16, DType::BF16, DType::F32, DType::F64][usize::from(case.dtype % 4)];
    let leaf = Tensor::full(shape, 0.5, dtype)
        .expect("at most some thousand elements")
        .requires_grad(true);
    let x = match (case.transposed, shape.len()) {
        (true, 2..) => leaf.transpose(0, -1).expect("there are two axes"),
        _ => leaf.clone(),
    };

    let before = generator.state();
    let Ok(y) = layer.forward(&x) else {
        let takes_any = case.eval && !matches!(case.layer, Layer::Swiglu);
        assert!(!takes_any, "{case:?}: eval takes any input");
        assert!(leaf.grad().is_none(), "{case:?}");
        return;
    };
    let shape = match (&case.layer, x.shape()) {
        (Layer::Swiglu, [before @ .., last]) => [before, &[last / 2]].concat(),
        (_, shape) => shape.to_vec(),
    };
    assert_eq!((y.shape(), y.dtype()), (&shape[..], dtype), "{case:?}");
    let taken = generator.state().offset - before.offset;
    assert_eq!(taken, u64::from(!case.eval), "{case:?}: keys taken");
    let activates = matches!(
        case.layer,
        Layer::Relu | Layer::Gelu(_) | Layer::Silu | Layer::Swiglu
    );
    if case.eval && !activates {
        assert!(y.same_storage(&x), "{case:?}");
    }
    y.sum().expect("a sum").backward().expect("once");
    let gradient = leaf.grad().expect("x is the only leaf");
    assert_eq!(gradient.shape(), leaf.shape(), "{case:?}");
    let repeated = || {
        let generator = Arc::new(Generator::from_state(before));
        let mut layer = self::layer(&case, &generator).expect("as before");
        if case.eval {
            layer.set_mode(Mode::Eval);
        }
        layer
    };
    let bits = |x: &Tensor| -> Vec<u64> {
        let wide = x.to_dtype(DType::F64).and_then(|x| x.to_vec::<f64>());
        wide.expect("a small tensor")
            .into_iter()
            .map(f64::to_bits)
            .collect()
    };
    let again = repeated().forward(&x).expect("as before");
    assert_eq!(bits(&again), bits(&y), "{case:?}: the same key again");
    if let Layer::Swiglu = case.layer {
        // Neither a residual nor a part is as long as the input.
        return;
    }
    let sum = repeated().forward_residual(&x, &x).expect("as before");
    assert_eq!((sum.shape(), sum.dtype()), (x.shape(), dtype), "{case:?}");
    // 16 bits are rounded once in one pass, and twice in two operations.
    if matches!(dtype, DType::F32 | DType::F64) {
        let apart = x.add(&y).expect("tensors of one shape");
        assert_eq!(bits(&sum), bits(&apart), "{case:?}: a residual");
    }

    let Some(axis) = usize::from(case.part.axis).checked_rem(x.ndim()) else {
        return;
    };
    let mut cuts = case
        .part
        .cuts
        .map(|cut| usize::from(cut) % (x.shape()[axis] + 1));
    cuts.sort_unstable();
    let part_of = |whole: &Tensor| {
        let part = whole.slice(axis as isize, cuts[0]..cuts[1]);
        part.expect("the cuts are within the axis")
    };
    let shard = Shard::new(x.shape(), axis, cuts[0]..cuts[1]).expect("the axis has the range");
    match repeated().forward_part(&part_of(&x), &shard) {
        Ok(part) => assert_eq!(bits(&part), bits(&part_of(&y)), "{case:?}: a part"),
        Err(error) => assert!(
            matches!(case.layer, Layer::DropBlock(_)),
            "{case:?}: {error}"
        ),
    }
}

fn layer(case: &Case, generator: &Arc<Generator>) -> Result<Box<dyn Dropping>> {
    let (p, generator) = (case.rate.0.p(), Arc::clone(generator));
    Ok(match &case.layer {
        Layer::Dropout => Box::new(Dropout::new(p)?.generator(generator)),
        Layer::Dropout1d(false) => Box::new(Dropout1d::new(p)?.generator(generator)),
        Layer::Dropout1d(true) => Box::new(Dropout1d::new(p)?.channels_last().generator(generator)),
        Layer::Dropout2d(false) => Box::new(Dropout2d::new(p)?.generator(generator)),
        Layer::Dropout2d(true) => Box::new(Dropout2d::new(p)?.channels_last().generator(generator)),
        Layer::Dropout3d(false) => Box::new(Dropout3d::new(p)?.generator(generator)),
        Layer::Dropout3d(true) => Box::new(Dropout3d::new(p)?.channels_last().generator(generator)),
        Layer::Alpha => Box::new(AlphaDropout::new(p)?.generator(generator)),
        Layer::FeatureAlpha => Box::new(FeatureAlphaDropout::new(p)?.generator(generator)),
        Layer::Gaussian => Box::new(GaussianDropout::new(p)?.generator(generator)),
        Layer::DropBlock(size) => {
            Box::new(DropBlock2d::with_block_size(p, usize::from(size % 9))?.generator(generator))
        }
        Layer::DropPath => Box::new(DropPath::new(p)?.generator(generator)),
        Layer::Locked(axis) => Box::new(
            LockedDropout::new(p)?
                .time_axis((*axis).into())
                .generator(generator),
        ),
        Layer::Broadcast(shape) => {
            let shape: Vec<_> = shape.iter().map(|axis| axis.map(usize::from)).collect();
            Box::new(BroadcastDropout::noise_shape(p, shape)?.generator(generator))
        }
        Layer::SharedAlong(axes) => {
            let axes: Vec<isize> = axes.iter().map(|&axis| axis.into()).collect();
            Box::new(BroadcastDropout::shared_along(p, axes)?.generator(generator))
        }
        Layer::Relu => Box::new(ReLUDropout::new(p)?.generator(generator)),
        Layer::Gelu(false) => Box::new(GELUDropout::new(p)?.generator(generator)),
        Layer::Gelu(true) => Box::new(GELUDropout::with_tanh(p)?.generator(generator)),
        Layer::Silu => Box::new(SiLUDropout::new(p)?.generator(generator)),
        Layer::Swiglu => Box::new(SwiGLUDropout::new(p)?.generator(generator)),
    })
}
