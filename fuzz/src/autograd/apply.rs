//! The operations, by sorix.

use sorix::kernels::Affine;
use sorix::{Activation, BitMask, DType, MaskKey, NormOptions, Tensor, TensorResult as Result};

use super::program::{
    AddNorm, Axes, Axis, Binary, Op, Other, Over, Reduction, Shape, Smooth, Unary,
};
use crate::inputs::{Rarely, Rate};

/// Of a standardized row.
pub(super) const EPSILON: f64 = 0.01;

impl Op {
    /// What sorix makes of `x`, or of `x` and `y`, where the operation takes two.
    pub(super) fn apply(&self, x: &Tensor, y: &Tensor, key: MaskKey) -> Result<Tensor> {
        match self {
            Self::Binary(op) => match op {
                Binary::Add => x.add(y),
                Binary::Sub => x.sub(y),
                Binary::Mul => x.mul(y),
                Binary::Div => x.div(y),
            },
            &Self::Scalar(op, number) => match (op, eighths(number)) {
                (Binary::Add, number) => x.add_scalar(number),
                (Binary::Sub, number) => x.add_scalar(-number),
                (Binary::Mul, number) => x.mul_scalar(number),
                (Binary::Div, number) => x.div_scalar(number),
            },
            Self::Unary(op) => unary(*op, x),
            &Self::Clamp(min, max) => x.clamp(eighths(min), eighths(max)),
            &Self::Powf(exponent) => x.powf(halves(exponent)),
            Self::Reduce(op, over) => reduce(*op, over, x),
            Self::Softmax(Axis(axis)) => x.softmax(*axis),
            Self::LogSoftmax(Axis(axis)) => x.log_softmax(*axis),
            Self::Argmax(Axis(axis)) => argmax(*axis, x),
            Self::Standardize(Axes(axes)) => x.standardize(axes, EPSILON),
            Self::Reshape(Shape(shape)) => x.reshape(shape),
            Self::Permute(Axes(axes)) => x.permute(axes),
            Self::Transpose(Axis(first), Axis(second)) => x.transpose(*first, *second),
            Self::Expand(Shape(shape)) => x.expand(shape),
            Self::Slice(Axis(axis), range) => {
                let [begin, end, step] = small(range);
                x.slice_step(*axis, begin..end, step)
            }
            Self::IndexSelect(Axis(axis), indices, count) => {
                x.index_select(*axis, &small(indices)[..usize::from(count % 4)])
            }
            Self::GatherLast(indices, longer) => {
                x.gather_last(&row_indices(indices, *longer, x.shape()))
            }
            Self::Concat(Axis(axis)) => Tensor::concat(&[x, y], *axis),
            Self::Stack(Axis(axis)) => Tensor::stack(&[x, y], *axis),
            Self::Squeeze(Axis(axis)) => x.squeeze(*axis),
            Self::SqueezeAll => x.squeeze_all(),
            Self::Unsqueeze(Axis(axis)) => x.unsqueeze(*axis),
            Self::Flatten(Axis(start), Axis(end)) => x.flatten(*start, *end),
            Self::Matmul => x.matmul(y),
            &Self::Dropout(Rate(rate), save) => x.dropout(rate, key, save.into()),
            Self::DropoutBroadcast(Rate(rate), save, cover) => {
                x.dropout_broadcast(*rate, key, &cover.mask_shape(x.shape()), (*save).into())
            }
            Self::DropoutAffine(Rate(rate), save, cover, numbers) => {
                let (shape, affine) = (cover.mask_shape(x.shape()), affine(*numbers));
                x.dropout_affine(*rate, key, &shape, affine, (*save).into())
            }
            Self::ApplyMask(cover, bits, longer, scale) => {
                let shape = cover.mask_shape(x.shape());
                x.apply_mask(mask(*bits, *longer, &shape), &shape, eighths(*scale))
            }
            &Self::DropoutAdd(Rate(rate), save) => x.dropout_add(y, rate, key, save.into()),
            Self::DropoutAddBroadcast(Rate(rate), save, cover) => {
                let shape = cover.mask_shape(x.shape());
                x.dropout_add_broadcast(y, *rate, key, &shape, (*save).into())
            }
            &Self::BiasDropoutAdd(Rate(rate), save) => {
                x.bias_dropout_add(y, x, rate, key, save.into())
            }
            &Self::ReluDropout(Rate(rate), save, biased) => {
                let bias = biased.then_some(y);
                x.act_dropout(Activation::Relu, bias, rate, key, save.into())
            }
            &Self::ActDropout(Rate(rate), save, smooth, biased) => {
                let activation = match smooth {
                    Smooth::Gelu => Activation::Gelu,
                    Smooth::GeluTanh => Activation::GeluTanh,
                    Smooth::Silu => Activation::Silu,
                };
                x.act_dropout(activation, biased.then_some(y), rate, key, save.into())
            }
            &Self::SwigluDropout(Rate(rate), save) => x.swiglu_dropout(y, rate, key, save.into()),
            &Self::DropoutAddNorm(
                Rate(rate),
                save,
                AddNorm {
                    rms,
                    other,
                    prenorm,
                },
            ) => {
                let norm = match rms {
                    true => NormOptions::rms(EPSILON),
                    false => NormOptions::layer(EPSILON),
                };
                let (residual, norm) = match other {
                    Other::Residual => (y, norm),
                    Other::Weight => (x, norm.weight(y)),
                    Other::Shift => (x, norm.shift(y)),
                    Other::Bias => (x, norm.bias(y)),
                };
                let (z, sum) = x.dropout_add_norm(residual, norm, rate, key, save.into())?;
                if prenorm { z.add(&sum) } else { Ok(z) }
            }
        }
    }
}

fn unary(op: Unary, x: &Tensor) -> Result<Tensor> {
    match op {
        Unary::Neg => x.neg(),
        Unary::Abs => x.abs(),
        Unary::Exp => x.exp(),
        Unary::Gelu => x.gelu(),
        Unary::GeluTanh => x.gelu_tanh(),
        Unary::Log => x.log(),
        Unary::Relu => x.relu(),
        Unary::Sigmoid => x.sigmoid(),
        Unary::Sqrt => x.sqrt(),
        Unary::Tanh => x.tanh(),
        Unary::Contiguous => x.contiguous(),
        Unary::Detach => Ok(x.detach()),
        Unary::ToDType => x.to_dtype(DType::F64),
    }
}

fn reduce(op: Reduction, over: &Over, x: &Tensor) -> Result<Tensor> {
    let axes = match over {
        Over::All => {
            return match op {
                Reduction::Sum => x.sum(),
                Reduction::Mean => x.mean(),
                Reduction::Max => x.max(),
                Reduction::Min => x.min(),
                Reduction::LogSumExp => x.logsumexp(),
                Reduction::Var(correction) => x.var(correction.into()),
                Reduction::Std(correction) => x.std(correction.into()),
            };
        }
        Over::Axes(Axes(axes)) => sorix::Axes::from(axes.as_slice()),
        Over::Keepdim(Axes(axes)) => sorix::Axes::keepdim(axes.as_slice()),
    };
    match op {
        Reduction::Sum => x.sum_over(axes),
        Reduction::Mean => x.mean_over(axes),
        Reduction::Max => x.max_over(axes),
        Reduction::Min => x.min_over(axes),
        Reduction::LogSumExp => x.logsumexp_over(axes),
        Reduction::Var(correction) => x.var_over(axes, correction.into()),
        Reduction::Std(correction) => x.std_over(axes, correction.into()),
    }
}

/// The indices as a tensor of the shape they stand for.
fn argmax(axis: isize, x: &Tensor) -> Result<Tensor> {
    let indices: Vec<f64> = x.argmax(axis)?.into_iter().map(|i| i as f64).collect();
    let mut shape = x.shape().to_vec();
    shape.remove(axis.rem_euclid(shape.len() as isize) as usize);
    Tensor::from_slice(&indices, shape)
}

pub(super) fn eighths(number: i8) -> f64 {
    f64::from(number) / 8.0
}

/// From -2 to 3.5.
pub(super) fn halves(number: i8) -> f64 {
    f64::from(number.rem_euclid(12) - 4) / 2.0
}

/// From 0 to 5: places of axes of up to four elements, and some beyond.
pub(super) fn small<const N: usize>(numbers: &[u8; N]) -> [usize; N] {
    numbers.map(|n| usize::from(n % 6))
}

/// An index for each row along the last axis, most of them in range; or one more.
pub(super) fn row_indices(
    numbers: &[u8; 4],
    Rarely(longer): Rarely,
    shape: &[usize],
) -> Vec<usize> {
    let Some((&length, others)) = shape.split_last() else {
        return Vec::new();
    };
    let index = |&n: &u8| match n {
        u8::MAX => length,
        n => usize::from(n) % length.max(1),
    };
    let rows = others.iter().product::<usize>() + usize::from(longer);
    numbers.iter().map(index).cycle().take(rows).collect()
}

pub(super) fn affine([scale, shift, dropped]: [i8; 3]) -> Affine {
    Affine {
        scale: eighths(scale),
        shift: eighths(shift),
        dropped: eighths(dropped),
    }
}

/// `bits` over and over, for a mask of this shape; or one more.
pub(super) fn mask(bits: u64, Rarely(longer): Rarely, shape: &[usize]) -> BitMask {
    let len = shape.iter().product::<usize>() + usize::from(longer);
    (0..len).map(|i| bits >> (i % 64) & 1 == 1).collect()
}
