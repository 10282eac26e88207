//! Sums over all elements or over axes, by ndarray.
//!
//! A sum of all elements is taken over pieces of 1024 in the arithmetic type and over the pieces in
//! f64, so the error of a sum of f32 does not grow with the length. A sum over axes is taken in the
//! arithmetic type. The result is rounded once; it is the same for a view and its contiguous copy
//! when all elements are summed.

use ndarray::{ArrayView1, Axis, Zip};
use num_traits::Float;
use sorix_kernels::Element;

use crate::dtype::{Scalar, dispatch};
use crate::error::{Call, Result};
use crate::ops::elementwise;
use crate::shape::{reduced, row_major};
use crate::tensor::Tensor;

/// `finish` of the sum over `axes`, which are distinct and in range; they stay with length 1 where
/// `keepdim` says so.
pub(crate) fn reduce(
    call: Call<'_>,
    x: &Tensor,
    axes: &[usize],
    keepdim: bool,
    finish: impl Fn(f64) -> f64,
) -> Result<Tensor> {
    let shape = reduced(x.shape(), axes, keepdim);
    dispatch!(x.dtype(), T => {
        if axes.len() == x.ndim() {
            let sum = sum_all::<T>(call, x)?;
            Tensor::filled(call, &shape, |out: &mut [T]| out.fill(T::nearest(finish(sum))))
        } else {
            sum_over::<T>(call, x, axes, &shape, finish)
        }
    })
}

fn sum_all<T: Scalar>(call: Call<'_>, x: &Tensor) -> Result<f64> {
    const PIECE: usize = 1024;
    let x = if x.is_contiguous() {
        x.clone()
    } else {
        elementwise::copy(call, x)?
    };
    let snapshot = x.read();
    let mut scratch = [T::Acc::ZERO; PIECE];
    let pieces = snapshot.contiguous::<T>().chunks(PIECE);
    Ok(pieces
        .map(|piece| {
            ArrayView1::from(T::widen(piece, &mut scratch))
                .sum()
                .to_f64()
        })
        .sum())
}

fn sum_over<T: Scalar>(
    call: Call<'_>,
    x: &Tensor,
    axes: &[usize],
    shape: &[usize],
    finish: impl Fn(f64) -> f64,
) -> Result<Tensor> {
    let wide = if T::DTYPE == T::Acc::DTYPE {
        x.clone()
    } else {
        elementwise::convert(call, x, T::to_acc)?
    };
    let mut axes = axes.to_vec();
    // From the last, so that those before it keep their numbers.
    axes.sort_unstable_by(|a, b| b.cmp(a));
    // One axis at a time, each into a tensor of its own: ndarray aborts where memory cannot be had,
    // and a tensor that would not fit is refused before ndarray is asked for as much.
    let mut wide = wide;
    while let [axis, _, ..] = *axes {
        axes.remove(0);
        let mut shape = wide.shape().to_vec();
        shape.remove(axis);
        wide = sum_axis::<T::Acc, T::Acc>(call, &wide, Some(axis), &shape, |sum| sum)?;
    }
    sum_axis::<T::Acc, T>(call, &wide, axes.first().copied(), shape, |sum| {
        T::nearest(finish(sum.to_f64()))
    })
}

/// `finish` of the sums of `x` over `axis`, or of its elements where there is none.
fn sum_axis<A: Scalar + Float, T: Scalar>(
    call: Call<'_>,
    x: &Tensor,
    axis: Option<usize>,
    shape: &[usize],
    finish: impl Fn(A) -> T,
) -> Result<Tensor> {
    let snapshot = x.read();
    let view = snapshot.view::<A>();
    Tensor::filled(call, shape, |out: &mut [T]| {
        let sums = match axis {
            None => view.to_owned(),
            Some(axis) => view.sum_axis(Axis(axis)),
        };
        let flat = sums.len();
        Zip::from(row_major(out, &[flat]))
            .and(&sums.flatten().into_dyn())
            .for_each(|out, &sum| *out = finish(sum));
    })
}
