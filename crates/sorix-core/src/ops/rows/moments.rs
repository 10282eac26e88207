//! [`Moments`]: the mean of a row, and how far its elements lie from it.

use crate::dtype::{DType, Real, Scalar};
use crate::ops::folds::{largest, sum_of};

/// The mean and the squared distances from it, in f64.
///
/// Rows of f32, and of what is computed in f32, are exact in f64, and neither their sums nor their
/// squares leave its range. Those of f64 may: then they are taken of the elements in another unit, a
/// power of two, in which the largest is about 1. The mean is kept as its distance from the first
/// element: rounded as a number of its own, it would be off by as much as the elements are apart if they
/// have many digits in common, and equal elements would not be at a distance of 0 from it.
///
/// Source: Chan, Golub and LeVeque, *Algorithms for computing the sample variance*, The American
/// Statistician 37 (1983): the two-pass algorithm on shifted data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moments {
    /// One divided by the unit.
    per_unit: f64,
    /// The first element, in units.
    first: f64,
    /// How far the mean is from it.
    mean: f64,
    /// The sum of the squared distances, in square units.
    squares: f64,
    count: usize,
}

impl Moments {
    /// Of a row to whose variance `epsilon` is to be added.
    pub(super) fn of<A: Real>(row: &[A], epsilon: f64) -> Self {
        let moments = Self::in_units(row, 1.0);
        // Where squares of what is not 0 are no more, or have lost digits.
        const SMALL: f64 = 1e-280;
        if A::DTYPE != DType::F64 || (moments.squares.is_finite() && moments.squares > SMALL) {
            return moments;
        }
        // Of equal elements there is nothing to square, and in their unit epsilon might be nothing.
        if row.iter().all(|&x| moments.distance(x) == 0.0) {
            return moments;
        }
        let size = Scalar::to_f64(largest_size(row)).max(epsilon.abs().sqrt());
        if size > 0.0 && size.is_finite() {
            Self::in_units(row, per_unit(size))
        } else {
            moments
        }
    }

    fn in_units<A: Real>(row: &[A], per_unit: f64) -> Self {
        let count = row.len();
        let first = row.first().map_or(0.0, |&x| Scalar::to_f64(x) * per_unit);
        let mut moments = Self {
            per_unit,
            first,
            mean: 0.0,
            squares: 0.0,
            count,
        };
        moments.mean = sum_of(row, |x| moments.distance(x)) / count as f64;
        moments.squares = sum_of(row, |x| moments.distance(x).powi(2));
        moments
    }

    /// How far an element of the row is from the mean, in units.
    pub(super) fn distance<A: Real>(&self, x: A) -> f64 {
        (Scalar::to_f64(x) * self.per_unit - self.first) - self.mean
    }

    /// One divided by the unit.
    pub(super) fn per_unit(&self) -> f64 {
        self.per_unit
    }

    /// A number of units.
    pub(super) fn units(&self, number: f64) -> f64 {
        number / self.per_unit
    }

    /// The number of elements less `correction`, at least 0.
    pub(super) fn degrees(&self, correction: usize) -> f64 {
        self.count.saturating_sub(correction) as f64
    }

    /// The sum of the squared distances by [`degrees`](Self::degrees), in square units.
    pub(super) fn variance(&self, correction: usize) -> f64 {
        self.squares / self.degrees(correction)
    }

    /// What [`distance`](Self::distance)s are multiplied with to have the variance 1, but for
    /// `epsilon`, which is added to it; 0 if there is no distance and no `epsilon`.
    pub(super) fn scale(&self, epsilon: f64) -> f64 {
        let epsilon = epsilon * self.per_unit * self.per_unit;
        match self.variance(0) + epsilon {
            0.0 => 0.0,
            variance => variance.sqrt().recip(),
        }
    }
}

/// The largest absolute value; NaN if there is one, 0 without elements.
pub(super) fn largest_size<A: Real>(row: &[A]) -> A {
    largest(row).max(-crate::ops::folds::smallest(row))
}

/// The power of two that brings a positive, finite number to between 1/2 and 2, or as near to that as
/// one can be.
pub(super) fn per_unit(size: f64) -> f64 {
    let exponent = size.log2().floor().clamp(-1021.0, 1022.0);
    (-exponent).exp2()
}
