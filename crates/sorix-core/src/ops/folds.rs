//! Folds of elements that lie side by side: their sum, their largest, their smallest.
//!
//! A sum is taken in f64, by ndarray over pieces of 1024 that are widened first. So sums of f16, bf16 and
//! f32 lose nothing on the way, and none of their partial sums overflows; one accumulator of f32 stands
//! still at 2^24, and made the variance of 2^26 numbers of variance 1 a quarter. Extremes are found in
//! sixteen lanes, which the compiler makes vectors of; with one, each step waits for the one before.
//!
//! A long fold runs on several threads, in parts that its length alone determines.

use core::ops::Range;

use ndarray::{ArrayView1, ArrayViewMut1};
use sorix_kernels::Element;
use sorix_kernels::internal::parallel;

use crate::dtype::{DType, Real, Scalar};
use crate::ops::elementwise::for_each_chunk;

/// What is widened and summed at a time.
const PIECE: usize = 1024;

/// What one thread folds: some 10 microseconds.
const PART: usize = 64 * PIECE;

/// What elements of f64 are multiplied with where a partial sum of them overflows: with it, none does
/// for as many as there can be.
pub(super) const SMALLER: f64 = 1.0 / (1u128 << 64) as f64;

/// The sum of the elements divided by `divisor`, infinite only if that is: where partial sums of f64
/// overflow, it is taken of smaller numbers. 0 without elements.
pub(super) fn quotient<T: Scalar>(elements: &[T], divisor: f64) -> f64 {
    let of = |factor: f64| sum_times(elements, factor) / divisor;
    in_range::<T>(of(1.0), || of(SMALLER))
}

/// `value`, or if it went out of range on the way, what comes of elements that are [`SMALLER`].
///
/// f64 has room for every partial sum of narrower types.
pub(super) fn in_range<T: Scalar>(value: f64, of_smaller: impl FnOnce() -> f64) -> f64 {
    if T::DTYPE != DType::F64 || value.is_finite() {
        value
    } else {
        of_smaller() / SMALLER
    }
}

/// The sum of the elements times `factor`; 0 without any.
pub(super) fn sum_times<T: Scalar>(elements: &[T], factor: f64) -> f64 {
    sum_of_pieces(elements, |piece, values| {
        let mut scratch = [T::Acc::ZERO; PIECE];
        let piece = T::widen(&elements[piece], &mut scratch);
        let pairs = values.iter_mut().zip(piece);
        pairs.for_each(|(value, &x)| *value = x.to_f64() * factor);
    })
}

/// The sum of `f` of the elements.
pub(super) fn sum_of<A: Real>(elements: &[A], f: impl Fn(A) -> f64 + Sync) -> f64 {
    sum_of_pieces(elements, |piece, values| {
        let piece = &elements[piece];
        values
            .iter_mut()
            .zip(piece)
            .for_each(|(value, &x)| *value = f(x));
    })
}

/// The sum of what `f` puts in the place of the elements, of which it is given a piece at a time.
pub(super) fn sum_of_rewritten<A: Real>(elements: &[A], f: impl Fn(&mut [A]) + Sync) -> f64 {
    sum_of_pieces(elements, |piece, values| {
        let mut scratch = [A::zero(); PIECE];
        let scratch = &mut scratch[..piece.len()];
        scratch.copy_from_slice(&elements[piece]);
        f(scratch);
        let pairs = values.iter_mut().zip(scratch);
        pairs.for_each(|(value, &mut x)| *value = Scalar::to_f64(x));
    })
}

/// The sum of `f` of the pairs of elements of two rows of one length.
pub(super) fn sum_of_pairs<A: Real>(xs: &[A], ys: &[A], f: impl Fn(A, A) -> f64 + Sync) -> f64 {
    sum_of_pieces(xs, |piece, values| {
        let pairs = xs[piece.clone()].iter().zip(&ys[piece]);
        values
            .iter_mut()
            .zip(pairs)
            .for_each(|(value, (&x, &y))| *value = f(x, y));
    })
}

/// The sum of what `fill` makes of the pieces: a value for each element.
fn sum_of_pieces<T: Scalar>(elements: &[T], fill: impl Fn(Range<usize>, &mut [f64]) + Sync) -> f64 {
    let of_part = |part: Range<usize>| {
        let mut values = [0.0; PIECE];
        let pieces = part.clone().step_by(PIECE);
        pieces.fold(0.0, |total, from| {
            let piece = from..(from + PIECE).min(part.end);
            let values = &mut values[..piece.len()];
            fill(piece, values);
            total + ArrayView1::from(&*values).sum()
        })
    };
    in_parts(elements, of_part, 0.0, |total, part| total + part)
}

/// Adds the elements of a row, times `factor`, to the sums at their places.
pub(super) fn add_to<T: Scalar>(sums: &mut [f64], row: &[T], factor: f64) {
    for (sums, row) in sums.chunks_mut(PIECE).zip(row.chunks(PIECE)) {
        let mut scratch = [T::Acc::ZERO; PIECE];
        let row = ArrayView1::from(T::widen(row, &mut scratch));
        let mut sums = ArrayViewMut1::from(sums);
        sums.zip_mut_with(&row, |sum, x| *sum += x.to_f64() * factor);
    }
}

/// The sum of a piece of a row of at most some hundred elements, in sixteen lanes of their own type.
pub(super) fn sum_in_lanes<A: Real>(elements: &[A]) -> A {
    in_lanes(elements, A::zero(), |sum, x| sum + x)
}

/// The largest element, NaN if there is one; -infinity without any.
pub(super) fn largest<A: Real>(elements: &[A]) -> A {
    extreme(elements, A::neg_infinity(), |x, max| x > max)
}

/// The smallest element, NaN if there is one; infinity without any.
pub(super) fn smallest<A: Real>(elements: &[A]) -> A {
    extreme(elements, A::infinity(), |x, min| x < min)
}

fn extreme<A: Real>(elements: &[A], start: A, beats: impl Fn(A, A) -> bool + Sync) -> A {
    // Nothing beats a NaN.
    let better = |best: A, x: A| {
        if beats(x, best) || x.is_nan() {
            x
        } else {
            best
        }
    };
    let of_part = |part: Range<usize>| in_lanes(&elements[part], start, better);
    in_parts(elements, of_part, start, better)
}

fn in_lanes<A: Real>(elements: &[A], start: A, better: impl Fn(A, A) -> A) -> A {
    const LANES: usize = 16;

    let mut lanes = [start; LANES];
    let (groups, rest) = elements.as_chunks::<LANES>();
    for group in groups.iter().map(|group| &group[..]).chain([rest]) {
        for (lane, &x) in lanes.iter_mut().zip(group) {
            *lane = better(*lane, x);
        }
    }
    lanes.into_iter().fold(start, better)
}

/// Joins what `of_part` makes of the parts of the elements, in their order, on several threads if
/// that pays.
fn in_parts<T, R: Copy + Send>(
    elements: &[T],
    of_part: impl Fn(Range<usize>) -> R + Sync,
    start: R,
    join: impl Fn(R, R) -> R,
) -> R {
    let count = elements.len();
    let part = |k: usize| of_part(k * PART..((k + 1) * PART).min(count));
    let parts = count.div_ceil(PART);
    if !parallel::threads_pay(size_of_val(elements)) {
        return (0..parts).map(part).fold(start, join);
    }
    let mut results = vec![start; parts];
    for_each_chunk(&mut results, 1, size_of_val(elements), |k, result| {
        result[0] = part(k);
    });
    results.into_iter().fold(start, join)
}
