//! Sums over all elements or over axes, of runs in memory by ndarray.
//!
//! A sum of all elements is that of [`folds`](super::folds); it is the same for a view and its contiguous
//! copy. A sum over axes is taken in the order in which the elements lie in memory: of rows whose
//! elements lie side by side as of all elements; of rows that lie side by side, in blocks of 64, whose
//! sums are added up in the same way. So the error of a sum grows with the logarithm of its length. The
//! result is rounded once. What repeats in memory is counted, not added up.
//!
//! Long sums run on several threads, in parts that the shape alone determines: the number of threads
//! does not show in a result.
//!
//! ndarray's own sum over an axis of an array whose axes are known at run time took fourteen times as
//! long where rows are short, and adds all rows into one accumulator, which lost up to a thousandth over
//! a million rows.

use crate::dtype::{DType, Scalar, dispatch};
use crate::error::{Call, Result};
use crate::ops::elementwise::{self, Cost, for_each_chunk};
use crate::ops::folds;
use crate::tensor::Tensor;

/// The sum over `axes`, which are distinct and in range, divided by `divisor`; of `shape`, which is that
/// of `x` without these axes or with them at length 1.
pub(crate) fn reduce(
    call: Call<'_>,
    x: &Tensor,
    axes: &[usize],
    shape: &[usize],
    divisor: f64,
) -> Result<Tensor> {
    if axes.is_empty() {
        return elementwise::copy(call, x)?.reshape(shape);
    }
    dispatch!(x.dtype(), T => reduce_to::<T, T>(call, x, axes, shape, divisor))
}

/// The sum over `axes` as [`reduce`] has it, in the type that the dtype computes in.
pub(crate) fn sum_widened(
    call: Call<'_>,
    x: &Tensor,
    axes: &[usize],
    shape: &[usize],
) -> Result<Tensor> {
    dispatch!(x.dtype(), T => reduce_to::<T, <T as Scalar>::Acc>(call, x, axes, shape, 1.0))
}

/// [`reduce`] over at least one axis, rounded to `U`.
fn reduce_to<T: Scalar, U: Scalar>(
    call: Call<'_>,
    x: &Tensor,
    axes: &[usize],
    shape: &[usize],
    divisor: f64,
) -> Result<Tensor> {
    if axes.len() == x.ndim() {
        let quotient = sum_all::<T>(call, x, divisor)?;
        Tensor::filled(call, shape, |out: &mut [U]| out.fill(U::nearest(quotient)))
    } else {
        sum_over::<T, U>(call, x, axes, divisor)?.reshape(shape)
    }
}

fn sum_all<T: Scalar>(call: Call<'_>, x: &Tensor, divisor: f64) -> Result<f64> {
    let x = if x.is_contiguous() {
        x.clone()
    } else {
        elementwise::copy(call, x)?
    };
    Ok(folds::quotient(x.read().contiguous::<T>(), divisor))
}

/// The sum over some of the axes, not none and not all, without them.
fn sum_over<T: Scalar, U: Scalar>(
    call: Call<'_>,
    x: &Tensor,
    axes: &[usize],
    divisor: f64,
) -> Result<Tensor> {
    let kept: Vec<usize> = (0..x.ndim()).filter(|axis| !axes.contains(axis)).collect();
    let shape: Vec<usize> = kept.iter().map(|&axis| x.shape()[axis]).collect();
    if x.numel() == 0 {
        let zero = U::nearest(0.0 / divisor);
        return Tensor::filled(call, &shape, |out: &mut [U]| out.fill(zero));
    }

    // Each element once, and how often a sum has it.
    let (mut once, mut times) = (x.detach(), 1.0);
    for axis in 0..x.ndim() {
        if x.strides()[axis] == 0 && x.shape()[axis] > 1 {
            once = once.slice(axis as isize, ..1)?;
            if axes.contains(&axis) {
                times *= x.shape()[axis] as f64;
            }
        }
    }
    // In the order of memory.
    let mut order: Vec<usize> = (0..x.ndim()).collect();
    order.sort_by_key(|&axis| core::cmp::Reverse(once.strides()[axis]));
    let signed: Vec<isize> = order.iter().map(|&axis| axis as isize).collect();
    let mut dense = once.permute(&signed)?;
    if !dense.is_contiguous() {
        dense = elementwise::copy(call, &dense)?;
    }

    let runs = runs(dense.shape(), |k| axes.contains(&order[k]));
    let sums = sum_runs::<T>(call, &dense, &runs, 1.0)?;
    let finish = |sum: f64| sum * times / divisor;
    let sums = if T::DTYPE == DType::F64 && !all_finite(&sums, finish) {
        let smaller = sum_runs::<T>(call, &dense, &runs, folds::SMALLER)?;
        elementwise::zip::<f64>(call, &sums, &smaller, Cost::Move, |sum, smaller| {
            folds::in_range::<T>(finish(sum), || finish(smaller))
        })?
    } else if T::DTYPE == DType::F64 && times == 1.0 && divisor == 1.0 {
        sums
    } else {
        elementwise::convert(call, &sums, |sum: f64| U::nearest(finish(sum)))?
    };

    // Back to the order of the axes, and to their lengths where elements repeat.
    order.retain(|axis| kept.contains(axis));
    let lengths: Vec<usize> = order.iter().map(|&axis| once.shape()[axis]).collect();
    let back = kept.iter().map(|axis| {
        let place = order.iter().position(|other| other == axis);
        place.map_or(0, |place| place as isize)
    });
    let sums = sums.reshape(lengths)?;
    sums.permute(&back.collect::<Vec<_>>())?
        .broadcast_to(call, &shape)?
        .contiguous()
}

/// Neighbouring axes, all of which are summed over, or none.
#[derive(Clone, Copy)]
struct Run {
    length: usize,
    is_summed: bool,
}

fn runs(shape: &[usize], is_summed: impl Fn(usize) -> bool) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (k, &length) in shape.iter().enumerate() {
        let is_summed = is_summed(k);
        match runs.last_mut() {
            Some(run) if run.is_summed == is_summed => run.length *= length,
            _ => runs.push(Run { length, is_summed }),
        }
    }
    runs
}

/// Whether `finish` of every element of a contiguous tensor of f64 is finite.
fn all_finite(x: &Tensor, finish: impl Fn(f64) -> f64) -> bool {
    let snapshot = x.read();
    let mut elements = snapshot.contiguous::<f64>().iter();
    elements.all(|&x| finish(x).is_finite())
}

/// The sums, in f64, over the runs that are summed, of elements times `factor`.
fn sum_runs<T: Scalar>(call: Call<'_>, x: &Tensor, runs: &[Run], factor: f64) -> Result<Tensor> {
    let mut runs = runs.to_vec();
    let next = |runs: &mut Vec<Run>| {
        let last = runs.iter().rposition(|run| run.is_summed)?;
        let length = |runs: &[Run]| runs.iter().map(|run| run.length).product();
        let (outer, inner) = (length(&runs[..last]), length(&runs[last + 1..]));
        Some([outer, runs.remove(last).length, inner])
    };
    let Some(lengths) = next(&mut runs) else {
        return elementwise::convert(call, x, |x: T| x.to_f64() * factor);
    };
    let mut sums = sum_middle::<T>(call, x, lengths, factor)?;
    while let Some(lengths) = next(&mut runs) {
        sums = sum_middle::<f64>(call, &sums, lengths, 1.0)?;
    }
    Ok(sums)
}

/// The sums, in f64, over the middle one of three axes of these lengths, none of them 0, in which the
/// elements of `x` lie, times `factor`.
fn sum_middle<T: Scalar>(
    call: Call<'_>,
    x: &Tensor,
    [outer, count, inner]: [usize; 3],
    factor: f64,
) -> Result<Tensor> {
    /// Rows that one accumulator for each of their elements adds up.
    const BLOCK: usize = 64;
    /// Of longer rows, the elements that one thread adds up: their accumulators fit the first cache.
    /// Much shorter parts are slower where one is not followed by the next in memory: with 512 the sum
    /// over the rows of 4096 x 4096 f32 took four times as long.
    const WIDTH: usize = 4096;

    let snapshot = x.read();
    let x = snapshot.contiguous::<T>();
    let bytes = size_of_val(x);
    if inner == 1 {
        return Tensor::filled(call, &[outer], |out: &mut [f64]| {
            for_each_chunk(out, 1, bytes, |row, out| {
                out[0] = folds::sum_times(&x[row * count..][..count], factor);
            });
        });
    }
    let blocks = count.div_ceil(BLOCK);
    let sums = Tensor::filled(call, &[outer, blocks, inner], |out: &mut [f64]| {
        for_each_chunk(out, inner, bytes, |k, out| {
            let (outer, block) = (k / blocks, k % blocks);
            let rows = BLOCK.min(count - block * BLOCK);
            let from = (outer * count + block * BLOCK) * inner;
            let elements = &x[from..][..rows * inner];
            for_each_chunk(out, WIDTH, size_of_val(elements), |part, out| {
                out.fill(0.0);
                for row in elements.chunks(inner) {
                    folds::add_to(out, &row[part * WIDTH..][..out.len()], factor);
                }
            });
        });
    })?;
    if blocks == 1 {
        Ok(sums)
    } else {
        sum_middle::<f64>(call, &sums, [outer, blocks, inner], 1.0)
    }
}
