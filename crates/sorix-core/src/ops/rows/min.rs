//! The smallest element.

use crate::axes::Axes;
use crate::dtype::Real;
use crate::error::{Call, Result};
use crate::ops::folds::smallest;
use crate::ops::rows::reduction::{Reduction, reduce};
use crate::ops::rows::share;
use crate::tensor::Tensor;

impl Tensor {
    /// The smallest element, as a tensor without axes.
    ///
    /// It is NaN if an element is. Elements that are equally small share the gradient in equal parts.
    ///
    /// # Errors
    ///
    /// If there is no element, or allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([[1.0, 5.0], [4.0, 2.0]]).min()?.item::<f64>()?, 1.0);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn min(&self) -> Result<Self> {
        reduce(Call::on("min", self), self, .., Min)
    }

    /// The smallest elements over some axes, given as [`Axes`] says; otherwise as
    /// [`min`](Tensor::min).
    ///
    /// # Errors
    ///
    /// If an axis is out of range or repeated, there is no element to choose, or allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 5.0, 3.0], [4.0, 2.0, 6.0]]);
    /// assert_eq!(x.min_over(0)?.to_vec::<f64>()?, [1.0, 2.0, 3.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn min_over(&self, axes: impl Into<Axes>) -> Result<Self> {
        reduce(Call::on("min_over", self), self, axes, Min)
    }
}

#[derive(Debug)]
struct Min;

impl Reduction for Min {
    const BACKWARD: &'static str = "MinBackward";
    const OF_EMPTY: bool = false;

    fn value<A: Real>(&self, row: &[A]) -> A {
        smallest(row)
    }

    fn gradient<A: Real>(&self, row: &mut [A], grad: A) {
        share(row, smallest(row), grad);
    }
}
