//! The standard deviation.

use crate::axes::Axes;
use crate::dtype::{Real, Scalar};
use crate::error::{Call, Result};
use crate::ops::rows::moments::Moments;
use crate::ops::rows::reduction::{Reduction, reduce};
use crate::tensor::Tensor;

impl Tensor {
    /// The standard deviation of all elements, a tensor without axes: the square root of
    /// [`var`](Tensor::var). If it is 0, its gradient is taken as 0.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([1.0, 3.0]).std(0)?.item::<f64>()?, 1.0);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn std(&self, correction: usize) -> Result<Self> {
        reduce(Call::on("std", self), self, .., Std { correction })
    }

    /// The standard deviations over some axes, given as [`Axes`] says; otherwise as
    /// [`std`](Tensor::std).
    ///
    /// # Errors
    ///
    /// If an axis is out of range or repeated, or allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 5.0, 3.0], [4.0, 2.0, 6.0]]);
    /// assert_eq!(x.std_over(0, 0)?.to_vec::<f64>()?, [1.5, 1.5, 1.5]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn std_over(&self, axes: impl Into<Axes>, correction: usize) -> Result<Self> {
        reduce(Call::on("std_over", self), self, axes, Std { correction })
    }
}

#[derive(Debug)]
struct Std {
    correction: usize,
}

impl Reduction for Std {
    const BACKWARD: &'static str = "StdBackward";
    const OF_EMPTY: bool = true;

    fn value<A: Real>(&self, row: &[A]) -> A {
        let moments = Moments::of(row, 0.0);
        A::nearest(moments.units(moments.variance(self.correction).sqrt()))
    }

    fn gradient<A: Real>(&self, row: &mut [A], grad: A) {
        let moments = Moments::of(row, 0.0);
        let std = moments.variance(self.correction).sqrt();
        if std == 0.0 {
            return row.fill(A::zero());
        }
        // Of numbers without a unit, so that none of them is out of range.
        let factor = Scalar::to_f64(grad) / moments.degrees(self.correction);
        row.iter_mut().for_each(|x| {
            *x = A::nearest(moments.distance(*x) / std * factor);
        });
    }
}
