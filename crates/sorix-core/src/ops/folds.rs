//! Folds of elements that lie side by side: their sum, their largest, their smallest.
//!
//! A sum is taken in the type that is computed in over pieces of 1024, by ndarray, and over the pieces
//! in f64, so that its error does not grow with the length: one accumulator of f32 stands still at
//! 2^24, and made the variance of 2^26 numbers of variance 1 a quarter. Extremes are found in sixteen
//! lanes, which the compiler makes vectors of; with one, each step waits for the one before.
//!
//! A long fold runs on several threads, in parts that its length alone determines.

use core::ops::Range;

use ndarray::ArrayView1;
use sorix_kernels::Element;
#[cfg(feature = "parallel")]
use sorix_kernels::internal::parallel;

use crate::dtype::{Real, Scalar};

/// What is summed in the type that is computed in.
const PIECE: usize = 1024;

/// What one thread folds: some 10 microseconds.
const PART: usize = 64 * PIECE;

/// The sum of the elements; 0 without any.
pub(super) fn sum<T: Scalar>(elements: &[T]) -> f64 {
    sum_of_pieces(elements, |piece, scratch| {
        ArrayView1::from(T::widen(&elements[piece], scratch)).sum()
    })
}

/// The sum of `f` of the elements.
pub(super) fn sum_of<A: Real>(elements: &[A], f: impl Fn(A) -> A + Sync) -> f64 {
    sum_of_pairs(elements, elements, |x, _| f(x))
}

/// The sum of `f` of the pairs of elements of two rows of one length.
pub(super) fn sum_of_pairs<A: Real>(xs: &[A], ys: &[A], f: impl Fn(A, A) -> A + Sync) -> f64 {
    sum_of_pieces(xs, |piece, scratch| {
        let pairs = xs[piece.clone()].iter().zip(&ys[piece]);
        let values = &mut scratch[..pairs.len()];
        values
            .iter_mut()
            .zip(pairs)
            .for_each(|(value, (&x, &y))| *value = f(x, y));
        ArrayView1::from(&*values).sum()
    })
}

/// The sum of what `sum` makes of the pieces, with room for the values of one.
fn sum_of_pieces<T: Scalar>(
    elements: &[T],
    sum: impl Fn(Range<usize>, &mut [T::Acc]) -> T::Acc + Sync,
) -> f64 {
    let of_part = |part: Range<usize>| {
        let mut scratch = [T::Acc::ZERO; PIECE];
        let pieces = part.clone().step_by(PIECE);
        pieces.fold(0.0, |total, from| {
            let piece = from..(from + PIECE).min(part.end);
            total + sum(piece, &mut scratch).to_f64()
        })
    };
    in_parts(elements, of_part, 0.0, |total, part| total + part)
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
fn in_parts<T, R: Send>(
    elements: &[T],
    of_part: impl Fn(Range<usize>) -> R + Sync,
    start: R,
    join: impl Fn(R, R) -> R,
) -> R {
    let count = elements.len();
    let part = |k: usize| of_part(k * PART..((k + 1) * PART).min(count));
    let parts = 0..count.div_ceil(PART);
    #[cfg(feature = "parallel")]
    if parallel::threads_pay(size_of_val(elements)) {
        use rayon::prelude::*;

        let parts: Vec<R> = parallel::waiting(|| parts.into_par_iter().map(part).collect());
        return parts.into_iter().fold(start, join);
    }
    parts.map(part).fold(start, join)
}
