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

use ndarray::{ArrayView2, ArrayViewMut1, Axis, Slice};

use crate::dtype::{Real, Scalar, dispatch};
use crate::error::{Call, Result};
use crate::ops::elementwise::{self, for_each_chunk};
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
    dispatch!(x.dtype(), T => {
        if axes.len() == x.ndim() {
            let sum = sum_all::<T>(call, x)?;
            Tensor::filled(call, shape, |out: &mut [T]| out.fill(T::nearest(sum / divisor)))
        } else {
            sum_over::<T>(call, x, axes, divisor)?.reshape(shape)
        }
    })
}

fn sum_all<T: Scalar>(call: Call<'_>, x: &Tensor) -> Result<f64> {
    let x = if x.is_contiguous() {
        x.clone()
    } else {
        elementwise::copy(call, x)?
    };
    Ok(folds::sum(x.read().contiguous::<T>()))
}

/// The sum over some of the axes, not none and not all, without them.
fn sum_over<T: Scalar>(call: Call<'_>, x: &Tensor, axes: &[usize], divisor: f64) -> Result<Tensor> {
    let kept: Vec<usize> = (0..x.ndim()).filter(|axis| !axes.contains(axis)).collect();
    let shape: Vec<usize> = kept.iter().map(|&axis| x.shape()[axis]).collect();
    if x.numel() == 0 {
        let zero = T::nearest(0.0 / divisor);
        return Tensor::filled(call, &shape, |out: &mut [T]| out.fill(zero));
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

    let mut runs = runs(dense.shape(), |k| axes.contains(&order[k]));
    let mut sums = elementwise::widen::<T>(call, &dense)?;
    while let Some(last) = runs.iter().rposition(|run| run.is_summed) {
        let length = |runs: &[Run]| runs.iter().map(|run| run.length).product();
        let (outer, inner) = (length(&runs[..last]), length(&runs[last + 1..]));
        let lengths = [outer, runs.remove(last).length, inner];
        sums = sum_middle::<T::Acc>(call, &sums, lengths)?;
    }
    let sums = if times == 1.0 && divisor == 1.0 && T::DTYPE == T::Acc::DTYPE {
        sums
    } else {
        elementwise::convert(call, &sums, |sum: T::Acc| {
            T::nearest(sum.to_f64() * times / divisor)
        })?
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

/// The sums over the middle one of three axes of these lengths, none of them 0, in which the elements
/// of `x` lie.
fn sum_middle<A: Real>(
    call: Call<'_>,
    x: &Tensor,
    [outer, count, inner]: [usize; 3],
) -> Result<Tensor> {
    /// Rows that one accumulator for each of their elements adds up.
    const BLOCK: usize = 64;
    /// Of longer rows, the elements that one thread adds up. Shorter parts are slower where one is not
    /// followed by the next in memory: with 512 the sum over the rows of 4096 x 4096 f32 took 9.6 ms
    /// instead of 2.3.
    const WIDTH: usize = 8192;

    let snapshot = x.read();
    let x = snapshot.contiguous::<A>();
    let bytes = size_of_val(x);
    if inner == 1 {
        return Tensor::filled(call, &[outer], |out: &mut [A]| {
            for_each_chunk(out, 1, bytes, |row, out| {
                out[0] = A::nearest(folds::sum(&x[row * count..][..count]));
            });
        });
    }
    let blocks = count.div_ceil(BLOCK);
    let sums = Tensor::filled(call, &[outer, blocks, inner], |out: &mut [A]| {
        for_each_chunk(out, inner, bytes, |k, out| {
            let (outer, block) = (k / blocks, k % blocks);
            let rows = BLOCK.min(count - block * BLOCK);
            let from = (outer * count + block * BLOCK) * inner;
            let elements = &x[from..][..rows * inner];
            let rows = ArrayView2::from_shape([rows, inner], elements);
            let rows = rows.expect("as many as the shape has");
            for_each_chunk(out, WIDTH, size_of_val(elements), |part, out| {
                let columns = part * WIDTH..part * WIDTH + out.len();
                let columns = rows.slice_axis(Axis(1), Slice::from(columns));
                ArrayViewMut1::from(out).assign(&columns.sum_axis(Axis(0)));
            });
        });
    })?;
    if blocks == 1 {
        Ok(sums)
    } else {
        sum_middle::<A>(call, &sums, [outer, blocks, inner])
    }
}
