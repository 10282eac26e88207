//! The gradients of the operands of products and quotients.
//!
//! Such a gradient is itself a product, of the gradient that came and of what was saved, and if the
//! operand was broadcast, a sum of products. It is made in the type that the dtype computes in, and
//! rounded by backward, with what it meets: in f16 a product of 300 and 300 is infinite, and the sum of two
//! with opposite signs would be NaN.

use crate::autograd::SavedTensor;
use crate::dtype::{DType, Scalar, dispatch};
use crate::error::{Call, Result};
use crate::ops::elementwise::{self, Cost};
use crate::tensor::Tensor;

/// The shape of the factor, and the other one, which its gradient is made of.
#[derive(Debug)]
pub(super) struct Factor {
    pub(super) shape: Box<[usize]>,
    pub(super) other: SavedTensor,
}

impl Factor {
    /// `None` if the factor gets no gradient. To be asked for before the product is computed, as
    /// [`SavedTensor::new`] is.
    pub(super) fn of(factor: &Tensor, other: &Tensor) -> Option<Self> {
        factor.shape_if_needed().map(|shape| Self {
            shape,
            other: SavedTensor::new(other),
        })
    }
}

/// The gradient of an operand of `shape`: `f` of the gradient of the output and of the element of
/// `other`, summed over what was repeated.
pub(super) fn of_two(
    op: &'static str,
    shape: &[usize],
    [grad, other]: [&Tensor; 2],
    f: impl Fn(f64, f64) -> f64 + Send + Sync,
) -> Result<Tensor> {
    let call = Call::on_two(op, grad, other);
    dispatch!(grad.dtype(), T => {
        let f = |grad: T, other: T| f(grad.to_f64(), other.to_f64());
        summed::<T>(op, grad, shape, |dtype| dispatch!(dtype, U => {
            elementwise::zip_convert(call, grad, other, Cost::Move, |x, y| U::nearest(f(x, y)))
        }))
    })
}

/// [`of_two`] with the elements of two others.
pub(super) fn of_three(
    op: &'static str,
    shape: &[usize],
    [grad, other, third]: [&Tensor; 3],
    f: impl Fn(f64, f64, f64) -> f64 + Send + Sync,
) -> Result<Tensor> {
    let call = Call::on_two(op, grad, other);
    dispatch!(grad.dtype(), T => {
        let f = |grad: T, other: T, third: T| f(grad.to_f64(), other.to_f64(), third.to_f64());
        summed::<T>(op, grad, shape, |dtype| dispatch!(dtype, U => {
            let tensors = [grad, other, third];
            elementwise::zip_three(call, tensors, Cost::Move, |x, y, z| U::nearest(f(x, y, z)))
        }))
    })
}

/// The sum over what was repeated of terms that `terms` makes in the dtype it is told, in the type that
/// `T` computes in.
///
/// Terms of f32 that are infinite, though their sum may not be, are made in f64 again.
fn summed<T: Scalar>(
    op: &'static str,
    grad: &Tensor,
    shape: &[usize],
    terms: impl Fn(DType) -> Result<Tensor>,
) -> Result<Tensor> {
    let wide = T::Acc::DTYPE;
    if grad.shape() == shape {
        return terms(wide);
    }
    let sum = terms(wide)?.sum_to(op, shape)?;
    if wide == DType::F32 && !sum.to_vec::<f32>()?.iter().all(|sum| sum.is_finite()) {
        terms(DType::F64)?.sum_to(op, shape)?.to_dtype(wide)
    } else {
        Ok(sum)
    }
}
