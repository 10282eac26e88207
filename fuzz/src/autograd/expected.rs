//! The same operations, by the [model](crate::model).

use sorix::kernels::DropRate;
use sorix::{BitMask, MaskKey};

use super::apply::{EPSILON, affine, eighths, halves, mask, row_indices, small};
use super::program::{
    AddNorm, Axes, Axis, Binary, Op, Other, Over, Reduction, Shape, Smooth, Unary,
};
use crate::inputs::Rate;
use crate::kernels::keep_bits;
use crate::model::{Array, Dual, rows};

impl Op {
    /// What should come out; `None` where the operation has to be an error.
    pub(super) fn expected(&self, x: &Array, y: &Array, key: MaskKey) -> Option<Array> {
        match self {
            Self::Binary(op) => x.zip(y, binary(*op)),
            &Self::Scalar(op, number) => {
                let number = Dual::constant(eighths(number));
                Some(x.map(|x| binary(op)(x, number)))
            }
            Self::Unary(op) => Some(x.map(unary(*op))),
            &Self::Clamp(min, max) => {
                (min <= max).then(|| x.map(|x| x.clamp(eighths(min), eighths(max))))
            }
            &Self::Powf(exponent) => Some(x.map(|x| x.powf(halves(exponent)))),
            Self::Reduce(op, over) => reduce(*op, over, x),
            Self::Softmax(Axis(axis)) => x.along(&[*axis], rows::softmax),
            Self::LogSoftmax(Axis(axis)) => x.along(&[*axis], rows::log_softmax),
            Self::Argmax(Axis(axis)) => x.reduce(&[*axis], false, rows::first_largest),
            Self::Standardize(Axes(axes)) => x.along(axes, |row| rows::standardize(row, EPSILON)),
            Self::Reshape(Shape(shape)) => x.reshape(shape),
            Self::Permute(Axes(axes)) => x.permute(axes),
            Self::Transpose(Axis(first), Axis(second)) => x.transpose(*first, *second),
            Self::Expand(Shape(shape)) => x.expand(shape),
            Self::Slice(Axis(axis), range) => {
                let [begin, end, step] = small(range);
                x.slice(*axis, begin, end, step)
            }
            Self::IndexSelect(Axis(axis), indices, count) => {
                x.select(*axis, &small(indices)[..usize::from(count % 4)])
            }
            Self::GatherLast(indices, longer) => {
                x.gather_last(&row_indices(indices, *longer, &x.shape))
            }
            Self::Concat(Axis(axis)) => x.concat(y, *axis),
            Self::Stack(Axis(axis)) => x.stack(y, *axis),
            Self::Squeeze(Axis(axis)) => x.squeeze(*axis),
            Self::SqueezeAll => x.squeeze_all(),
            Self::Unsqueeze(Axis(axis)) => x.unsqueeze(*axis),
            Self::Flatten(Axis(start), Axis(end)) => x.flatten(*start, *end),
            Self::Matmul => x.matmul(y),
            &Self::Dropout(Rate(rate), _) => {
                let bits = bits(rate, key, &x.shape);
                x.covered(&x.shape, &bits, inverted(rate), Dual::default())
            }
            Self::DropoutBroadcast(Rate(rate), _, cover) => {
                let shape = cover.mask_shape(&x.shape);
                let bits = bits(*rate, key, &shape);
                x.covered(&shape, &bits, inverted(*rate), Dual::default())
            }
            Self::DropoutAffine(Rate(rate), _, cover, numbers) => {
                let (shape, affine) = (cover.mask_shape(&x.shape), affine(*numbers));
                let [scale, shift, dropped] =
                    [affine.scale, affine.shift, affine.dropped].map(Dual::constant);
                let bits = bits(*rate, key, &shape);
                x.covered(&shape, &bits, |x| x * scale + shift, dropped)
            }
            Self::ApplyMask(cover, pattern, longer, scale) => {
                let shape = cover.mask_shape(&x.shape);
                let scale = Dual::constant(eighths(*scale));
                let bits = mask(*pattern, *longer, &shape);
                x.covered(&shape, &bits, |x| x * scale, Dual::default())
            }
            &Self::DropoutAdd(Rate(rate), _) => {
                let bits = bits(rate, key, &x.shape);
                let dropped = x.covered(&x.shape, &bits, inverted(rate), Dual::default())?;
                sum_of_equals(y, &dropped)
            }
            Self::DropoutAddBroadcast(Rate(rate), _, cover) => {
                let shape = cover.mask_shape(&x.shape);
                let bits = bits(*rate, key, &shape);
                let dropped = x.covered(&shape, &bits, inverted(*rate), Dual::default())?;
                sum_of_equals(y, &dropped)
            }
            &Self::BiasDropoutAdd(Rate(rate), _) => {
                let sum = with_bias(x, y)?;
                let bits = bits(rate, key, &x.shape);
                let dropped = sum.covered(&x.shape, &bits, inverted(rate), Dual::default())?;
                sum_of_equals(x, &dropped)
            }
            &Self::ReluDropout(Rate(rate), _, biased) => {
                let sum = if biased { &with_bias(x, y)? } else { x };
                let bits = bits(rate, key, &x.shape);
                let scale = inverted(rate);
                sum.covered(&x.shape, &bits, |x| scale(x.relu()), Dual::default())
            }
            &Self::ActDropout(Rate(rate), _, smooth, biased) => {
                let sum = if biased { &with_bias(x, y)? } else { x };
                let bits = bits(rate, key, &x.shape);
                let (activation, scale) = (smooth.dual(), inverted(rate));
                sum.covered(&x.shape, &bits, |x| scale(activation(x)), Dual::default())
            }
            &Self::SwigluDropout(Rate(rate), _) => {
                let product = of_equals(x, y, |gate, up| silu(gate) * up)?;
                let bits = bits(rate, key, &x.shape);
                product.covered(&x.shape, &bits, inverted(rate), Dual::default())
            }
            &Self::DropoutAddNorm(Rate(rate), _, ref norm) => {
                let bits = bits(rate, key, &x.shape);
                add_norm(x, y, norm, |x| {
                    x.covered(&x.shape, &bits, inverted(rate), Dual::default())
                })
            }
        }
    }

    /// Whether the result needs a gradient where the operands do or do not.
    pub(super) fn needs_grad(&self, x: bool, y: bool) -> bool {
        match self {
            Self::Unary(Unary::Detach) | Self::Argmax(_) => false,
            Self::Binary(_) | Self::Concat(_) | Self::Stack(_) | Self::Matmul => x || y,
            Self::DropoutAdd(..)
            | Self::DropoutAddBroadcast(..)
            | Self::BiasDropoutAdd(..)
            | Self::ReluDropout(_, _, true)
            | Self::ActDropout(_, _, _, true)
            | Self::SwigluDropout(..)
            | Self::DropoutAddNorm(..) => x || y,
            _ => x,
        }
    }
}

impl Smooth {
    fn dual(self) -> fn(Dual) -> Dual {
        match self {
            Self::Gelu => Dual::gelu,
            Self::GeluTanh => Dual::gelu_tanh,
            Self::Silu => silu,
        }
    }
}

fn silu(x: Dual) -> Dual {
    x * x.sigmoid()
}

fn binary(op: Binary) -> fn(Dual, Dual) -> Dual {
    match op {
        Binary::Add => |x, y| x + y,
        Binary::Sub => |x, y| x - y,
        Binary::Mul => |x, y| x * y,
        Binary::Div => |x, y| x / y,
    }
}

fn unary(op: Unary) -> fn(Dual) -> Dual {
    match op {
        Unary::Neg => |x| -x,
        Unary::Abs => Dual::abs,
        Unary::Exp => Dual::exp,
        Unary::Gelu => Dual::gelu,
        Unary::GeluTanh => Dual::gelu_tanh,
        Unary::Log => Dual::ln,
        Unary::Relu => Dual::relu,
        Unary::Sigmoid => Dual::sigmoid,
        Unary::Sqrt => Dual::sqrt,
        Unary::Tanh => Dual::tanh,
        Unary::Contiguous | Unary::ToDType => |x| x,
        Unary::Detach => |x| Dual::constant(x.value),
    }
}

fn reduce(op: Reduction, over: &Over, x: &Array) -> Option<Array> {
    let (axes, keepdim) = match over {
        Over::All => (&x.axes(), false),
        Over::Axes(Axes(axes)) => (axes, false),
        Over::Keepdim(Axes(axes)) => (axes, true),
    };
    x.reduce(axes, keepdim, |row| match op {
        Reduction::Sum => Some(rows::sum(row)),
        Reduction::Mean => Some(rows::mean(row)),
        Reduction::Max => rows::largest(row),
        Reduction::Min => rows::smallest(row),
        Reduction::LogSumExp => Some(rows::logsumexp(row)),
        Reduction::Var(correction) => Some(rows::variance(row, correction.into())),
        Reduction::Std(correction) => Some(rows::deviation(row, correction.into())),
    })
}

/// The sum of two of one shape.
fn sum_of_equals(x: &Array, y: &Array) -> Option<Array> {
    of_equals(x, y, binary(Binary::Add))
}

/// Two of one shape, element by element.
fn of_equals(x: &Array, y: &Array, f: fn(Dual, Dual) -> Dual) -> Option<Array> {
    let zipped = (x.shape == y.shape).then(|| x.zip(y, f));
    zipped.flatten()
}

/// The sum with a bias as long as the last axis.
fn with_bias(x: &Array, bias: &Array) -> Option<Array> {
    with_row(x, bias, Binary::Add)
}

/// Each row along the last axis with one that is as long.
fn with_row(x: &Array, row: &Array, op: Binary) -> Option<Array> {
    let last = &x.shape[x.shape.len().saturating_sub(1)..];
    let both = (row.shape == last).then(|| x.zip(row, binary(op)));
    both.flatten()
}

/// The rows of a residual plus dropout, normalised along the last axis.
fn add_norm(
    x: &Array,
    y: &Array,
    norm: &AddNorm,
    dropped: impl Fn(&Array) -> Option<Array>,
) -> Option<Array> {
    let sum = match norm.other {
        Other::Residual => sum_of_equals(y, &dropped(x)?)?,
        Other::Bias => sum_of_equals(x, &dropped(&with_bias(x, y)?)?)?,
        Other::Weight | Other::Shift => sum_of_equals(x, &dropped(x)?)?,
    };
    let z = sum.along(&[-1], |row| match norm.rms {
        true => rows::by_mean_square(row, EPSILON),
        false => rows::standardize(row, EPSILON),
    })?;
    let z = match norm.other {
        Other::Weight => with_row(&z, y, Binary::Mul)?,
        Other::Shift => with_row(&z, y, Binary::Add)?,
        Other::Residual | Other::Bias => z,
    };
    if norm.prenorm {
        sum_of_equals(&z, &sum)
    } else {
        Some(z)
    }
}

/// The mask that a key makes of this shape.
fn bits(rate: DropRate, key: MaskKey, shape: &[usize]) -> BitMask {
    keep_bits(rate, key.into(), shape.iter().product())
}

/// What inverted dropout makes of what it keeps.
fn inverted(rate: DropRate) -> impl Fn(Dual) -> Dual {
    let scale = Dual::constant(rate.scale());
    move |x| x * scale
}
