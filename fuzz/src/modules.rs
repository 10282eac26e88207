//! Every dropout module on any shape, in either mode: an error or a result, never a panic, and a
//! result that has the shape, the zeros and the gradient it should.

use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use sorix::nn::dropout::{DropoutLayer, Form};
use sorix::nn::{
    AlphaDropout, BroadcastDropout, DropBlock2d, DropPath, Dropout, Dropout1d, Dropout2d,
    Dropout3d, DropoutAddNorm, FeatureAlphaDropout, GELUDropout, GaussianDropout, LayerNorm,
    LockedDropout, Mode, Module, ReLUDropout, Result, Shard, SiLUDropout, SwiGLUDropout,
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
    /// Over how many of the last axes, and whether the residual has the dtype computed in.
    AddNorm {
        rms: bool,
        axes: u8,
        wide: bool,
    },
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
    if let Layer::AddNorm { rms, axes, wide } = case.layer {
        return add_norm(&case, rms, usize::from(axes % 3), wide);
    }
    let generator = Arc::new(Generator::new(case.seed.into()));
    let Ok(mut layer) = layer(&case, &generator) else {
        return;
    };
    if case.eval {
        layer.set_mode(Mode::Eval);
    }
    let (leaf, x) = input(&case);
    let dtype = x.dtype();

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

/// A leaf, and the input made of it.
fn input(case: &Case) -> (Tensor, Tensor) {
    let Shape(shape) = &case.shape;
    let dtype = [DType::F16, DType::BF16, DType::F32, DType::F64][usize::from(case.dtype % 4)];
    let leaf = Tensor::full(shape, 0.5, dtype)
        .expect("at most some thousand elements")
        .requires_grad(true);
    let x = match (case.transposed, shape.len()) {
        (true, 2..) => leaf.transpose(0, -1).expect("there are two axes"),
        _ => leaf.clone(),
    };
    (leaf, x)
}

fn bits(x: &Tensor) -> Vec<u64> {
    let wide = x.to_dtype(DType::F64).and_then(|x| x.to_vec::<f64>());
    wide.expect("a small tensor")
        .into_iter()
        .map(f64::to_bits)
        .collect()
}

/// The layer that has two inputs and two outputs. Its numbers are those of other targets; here its sum is
/// that of a dropout by itself.
fn add_norm(case: &Case, rms: bool, axes: usize, wide: bool) {
    let (leaf, x) = input(case);
    let dtype = x.dtype();
    let computed_in = if dtype == DType::F64 {
        dtype
    } else {
        DType::F32
    };
    let Some(first) = x.ndim().checked_sub(axes) else {
        return;
    };
    let row = &x.shape()[first..];
    let generator = Arc::new(Generator::new(case.seed.into()));
    let dropout = || {
        let mut dropout = Dropout::new(case.rate.0.p()).expect("a rate");
        if case.eval {
            dropout.set_mode(Mode::Eval);
        }
        dropout.generator(Arc::new(Generator::new(case.seed.into())))
    };
    let made = if rms {
        DropoutAddNorm::rms(row, dtype, dropout().generator(Arc::clone(&generator)))
    } else {
        let dropout = dropout().generator(Arc::clone(&generator));
        LayerNorm::with_dtype(row, dtype).map(|norm| DropoutAddNorm::new(norm, dropout))
    };
    assert_eq!(made.is_ok(), axes > 0, "{case:?}: {made:?}");
    let Ok(layer) = made else { return };

    let longer = [x.shape(), &[2]].concat();
    let wrong = Tensor::zeros(longer, dtype).expect("at most some thousand elements");
    assert!(layer.add(&x, &wrong).is_err(), "{case:?}");
    assert_eq!(generator.state().offset, 0, "{case:?}: no key for an error");
    let residual = Tensor::full(x.shape(), 0.25, if wide { computed_in } else { dtype });
    let residual = residual.expect("as large as the input").requires_grad(true);
    let (z, sum) = layer.add(&x, &residual).expect("all fits");
    assert_eq!((z.shape(), z.dtype()), (x.shape(), dtype), "{case:?}: z");
    assert_eq!(
        (sum.shape(), sum.dtype()),
        (x.shape(), computed_in),
        "{case:?}: the sum"
    );
    let taken = generator.state().offset;
    assert_eq!(taken, u64::from(!case.eval), "{case:?}: keys taken");
    let [x_wide, residual_wide] =
        [&x, &residual].map(|tensor| tensor.to_dtype(computed_in).expect("a small tensor"));
    let apart = dropout().forward_add(&x_wide, &residual_wide);
    assert_eq!(
        bits(&sum),
        bits(&apart.expect("as above")),
        "{case:?}: the sum"
    );

    let both = z.to_dtype(computed_in).and_then(|z| z.add(&sum));
    let total = both.and_then(|both| both.sum());
    total.expect("a sum").backward().expect("once");
    for leaf in [&leaf, &residual] {
        let gradient = leaf.grad().expect("it needs one");
        assert_eq!(
            (gradient.shape(), gradient.dtype()),
            (leaf.shape(), leaf.dtype()),
            "{case:?}"
        );
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
        Layer::AddNorm { .. } => unreachable!("it has a check of its own"),
    })
}
