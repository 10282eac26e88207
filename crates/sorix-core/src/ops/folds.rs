//! Folds of elements that lie side by side: their sum, their largest, their smallest.
//!
//! A fold with one accumulator has each step wait for the one before. These have sixteen, which the
//! compiler makes vectors of. A sum is taken in the type that is computed in over pieces of 1024, and
//! over the pieces in f64, so that its error does not grow with the length: one accumulator of f32
//! stands still at 2^24, and made the variance of 2^26 numbers of variance 1 a quarter.
//!
//! A long fold runs on several threads, in parts that its length alone determines.

use core::ops::Range;

use sorix_kernels::Element;
#[cfg(feature = "parallel")]
use sorix_kernels::parallel;

use crate::dtype::{Real, Scalar};

const LANES: usize = 16;

/// What is summed in the type that is computed in.
const PIECE: usize = 1024;

/// What one thread folds: some 10 microseconds.
const PART: usize = 64 * PIECE;

/// The sum of `f` of the elements; 0 without any.
pub(super) fn sum_of<T: Scalar>(elements: &[T], f: impl Fn(T::Acc) -> T::Acc + Sync) -> f64 {
    let sum_part = |part: Range<usize>| {
        let mut scratch = [T::Acc::ZERO; PIECE];
        let pieces = elements[part].chunks(PIECE);
        pieces.fold(0.0, |sum, piece| {
            let piece = T::widen(piece, &mut scratch);
            sum + sum_piece(piece, piece, |x, _| f(x)).to_f64()
        })
    };
    in_parts(elements, sum_part, 0.0, |sum, part| sum + part)
}

/// The sum of `f` of the pairs of elements of two rows of one length.
pub(super) fn sum_of_pairs<A: Real>(xs: &[A], ys: &[A], f: impl Fn(A, A) -> A + Sync) -> f64 {
    let sum_part = |part: Range<usize>| {
        let pieces = xs[part.clone()].chunks(PIECE).zip(ys[part].chunks(PIECE));
        pieces.fold(0.0, |sum, (xs, ys)| {
            sum + Scalar::to_f64(sum_piece(xs, ys, &f))
        })
    };
    in_parts(xs, sum_part, 0.0, |sum, part| sum + part)
}

/// The largest element, NaN where there is one; -infinity without any.
pub(super) fn largest<A: Real>(elements: &[A]) -> A {
    extreme(elements, A::neg_infinity(), |x, max| x > max)
}

/// The smallest element, NaN where there is one; infinity without any.
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
    let of_part = |part: Range<usize>| {
        let part = &elements[part];
        fold_pairs(part, part, start, |best, x, _| better(best, x), better)
    };
    in_parts(elements, of_part, start, better)
}

fn sum_piece<A: Real>(xs: &[A], ys: &[A], f: impl Fn(A, A) -> A) -> A {
    let add = |sum, x, y| sum + f(x, y);
    fold_pairs(xs, ys, A::zero(), add, |a, b| a + b)
}

/// Folds pairs of elements of two runs of one length by [`LANES`] accumulators, and `join`s these.
fn fold_pairs<A: Real>(
    xs: &[A],
    ys: &[A],
    start: A,
    step: impl Fn(A, A, A) -> A,
    join: impl Fn(A, A) -> A,
) -> A {
    let mut lanes = [start; LANES];
    let (x_groups, x_rest) = xs.as_chunks::<LANES>();
    let (y_groups, y_rest) = ys.as_chunks::<LANES>();
    for (xs, ys) in x_groups.iter().zip(y_groups) {
        for ((lane, &x), &y) in lanes.iter_mut().zip(xs).zip(ys) {
            *lane = step(*lane, x, y);
        }
    }
    for ((lane, &x), &y) in lanes.iter_mut().zip(x_rest).zip(y_rest) {
        *lane = step(*lane, x, y);
    }
    // By halves, which wait for each other four times and not sixteen.
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for k in 0..width {
            lanes[k] = join(lanes[k], lanes[k + width]);
        }
    }
    lanes[0]
}

/// Joins what `of_part` makes of the parts of the elements, in their order, on several threads where
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
