//! The variance.

use crate::axes::Axes;
use crate::dtype::{Real, Scalar};
use crate::error::{Call, Result};
use crate::ops::rows::moments::Moments;
use crate::ops::rows::reduction::{Reduction, reduce};
use crate::tensor::Tensor;

impl Tensor {
    /// The variance of all elements, a tensor without axes.
    ///
    /// It is the sum of the squared distances from the mean, divided by the number of elements less
    /// `correction`: 0 for the variance of these elements, 1 for an unbiased estimate of that of the
    /// distribution that they were drawn from. NaN or infinite if that number is not positive.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([1.0, 3.0]).var(1)?.item::<f64>()?, 2.0);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn var(&self, correction: usize) -> Result<Self> {
        reduce(Call::on("var", self), self, .., Var { correction })
    }

    /// The variances over some axes, given as [`Axes`] says; otherwise as [`var`](Tensor::var).
    ///
    /// # Errors
    ///
    /// If an axis is out of range or repeated, or allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 5.0, 3.0], [4.0, 2.0, 6.0]]);
    /// assert_eq!(x.var_over(0, 0)?.to_vec::<f64>()?, [2.25, 2.25, 2.25]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn var_over(&self, axes: impl Into<Axes>, correction: usize) -> Result<Self> {
        reduce(Call::on("var_over", self), self, axes, Var { correction })
    }
}

#[derive(Debug)]
struct Var {
    correction: usize,
}

impl Reduction for Var {
    const BACKWARD: &'static str = "VarBackward";
    const OF_EMPTY: bool = true;

    fn value<A: Real>(&self, row: &[A]) -> A {
        let moments = Moments::of(row, 0.0);
        let variance = moments.variance(self.correction);
        A::nearest(moments.units(moments.units(variance)))
    }

    fn gradient<A: Real>(&self, row: &mut [A], grad: A) {
        let moments = Moments::of(row, 0.0);
        let factor = 2.0 / moments.degrees(self.correction);
        let grad = Scalar::to_f64(grad);
        row.iter_mut().for_each(|x| {
            *x = A::nearest(moments.units(factor * moments.distance(*x) * grad));
        });
    }
}
