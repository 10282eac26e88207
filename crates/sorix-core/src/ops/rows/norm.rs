//! The Euclidean norm, and division by it.

use crate::axes::Axes;
use crate::dtype::{DType, Real, Scalar};
use crate::error::{Call, Result};
use crate::ops::folds::{sum_of, sum_of_pairs};
use crate::ops::rows::mapping::{Mapping, map};
use crate::ops::rows::moments::{largest_size, per_unit};
use crate::ops::rows::reduction::{Reduction, reduce};
use crate::tensor::Tensor;

impl Tensor {
    /// The Euclidean norm of all elements (p = 2), a tensor without axes: the square root of the sum of
    /// their squares; 0 for an empty one. No square is out of range. At 0, where the norm has no
    /// derivative, the gradient is taken as 0, as in PyTorch.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([3e30_f32, -4e30]).norm()?.item::<f32>()?, 5e30);
    ///
    /// let x = tensor([0.0, 0.0]).requires_grad(true);
    /// x.norm()?.backward()?;
    /// assert_eq!(x.grad().unwrap().to_vec::<f64>()?, [0.0, 0.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn norm(&self) -> Result<Self> {
        reduce(Call::on("norm", self), self, .., Norm)
    }

    /// The Euclidean norms over some axes, given as [`Axes`] says; otherwise as [`norm`](Tensor::norm).
    ///
    /// # Errors
    ///
    /// If an axis is out of range or repeated, or allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[3.0, 4.0], [0.0, 0.0], [5.0, 12.0]]);
    /// assert_eq!(x.norm_over(-1)?.to_vec::<f64>()?, [5.0, 0.0, 13.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn norm_over(&self, axes: impl Into<Axes>) -> Result<Self> {
        reduce(Call::on("norm_over", self), self, axes, Norm)
    }

    /// `x / max(norm, epsilon)` with the [`norm`](Tensor::norm) over some axes: vectors of length 1. A
    /// negative axis counts from the last. PyTorch's `normalize`, whose `eps` is 1e-12 unless told
    /// otherwise.
    ///
    /// Zeros stay zeros, if `epsilon` is 0 too, and their gradient is taken as 0: a step in any
    /// direction would make them as long as any other vector. (In PyTorch it is that of the result
    /// divided by `epsilon`.)
    ///
    /// # Errors
    ///
    /// If an axis is out of range or repeated, if `epsilon` is negative or not finite, or if allocation
    /// fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[3.0, 4.0], [0.0, 0.0], [0.0, -0.5]]);
    /// assert_eq!(x.normalize(&[-1], 1e-12)?.to_vec::<f64>()?, [0.6, 0.8, 0.0, 0.0, 0.0, -1.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn normalize(&self, axes: &[isize], epsilon: f64) -> Result<Self> {
        map::<Normalize>(Call::on("normalize", self), self, axes, epsilon)
    }
}

/// The norm of a row, in f64; of f64 that squares take out of range, in another unit.
struct Length {
    /// One divided by the unit.
    per_unit: f64,
    /// In units.
    norm: f64,
}

impl Length {
    fn of<A: Real>(row: &[A]) -> Self {
        let of = |per_unit: f64| Self {
            per_unit,
            norm: sum_of(row, |x| (Scalar::to_f64(x) * per_unit).powi(2)).sqrt(),
        };
        let length = of(1.0);
        if A::DTYPE != DType::F64 || (length.norm.is_finite() && length.norm > 1e-140) {
            return length;
        }
        let size = Scalar::to_f64(largest_size(row));
        if size > 0.0 && size.is_finite() {
            of(per_unit(size))
        } else {
            length
        }
    }

    /// The norm, or `epsilon` if that is greater, in units.
    fn divisor(&self, epsilon: f64) -> f64 {
        let epsilon = epsilon * self.per_unit;
        if self.norm < epsilon {
            epsilon
        } else {
            self.norm
        }
    }

    /// An element divided by the norm, or by `epsilon` if that is greater.
    fn part<A: Real>(&self, x: A, epsilon: f64) -> f64 {
        Scalar::to_f64(x) * self.per_unit / self.divisor(epsilon)
    }
}

#[derive(Debug)]
struct Norm;

impl Reduction for Norm {
    const BACKWARD: &'static str = "NormBackward";
    const OF_EMPTY: bool = true;

    fn value<A: Real>(&self, row: &[A]) -> A {
        let length = Length::of(row);
        A::nearest(length.norm / length.per_unit)
    }

    fn gradient<A: Real>(&self, row: &mut [A], grad: A) {
        let length = Length::of(row);
        if length.norm == 0.0 {
            return row.fill(A::zero());
        }
        row.iter_mut().for_each(|x| {
            *x = A::nearest(length.part(*x, 0.0) * Scalar::to_f64(grad));
        });
    }
}

#[derive(Debug)]
struct Normalize;

impl Mapping for Normalize {
    const BACKWARD: &'static str = "NormalizeBackward";

    fn value<A: Real>(x: &mut [A], epsilon: f64) {
        let length = Length::of(x);
        if length.norm != 0.0 {
            x.iter_mut()
                .for_each(|x| *x = A::nearest(length.part(*x, epsilon)));
        }
    }

    /// `(dy - y sum(dy y)) / norm` in place of `x`, or `dy / epsilon` if the norm is less than that.
    fn gradient<A: Real>(x: &mut [A], grad: &[A], epsilon: f64) {
        let length = Length::of(x);
        if length.norm == 0.0 {
            return x.fill(A::zero());
        }
        let divisor = length.divisor(epsilon);
        let y = |x: A| length.part(x, epsilon);
        let product = if divisor == length.norm {
            sum_of_pairs(x, grad, |x, grad| y(x) * Scalar::to_f64(grad))
        } else {
            0.0
        };
        x.iter_mut().zip(grad).for_each(|(x, &grad)| {
            let across = Scalar::to_f64(grad) - y(*x) * product;
            *x = A::nearest(across / divisor * length.per_unit);
        });
    }
}
