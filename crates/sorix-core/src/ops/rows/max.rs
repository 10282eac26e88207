//! The largest element.

use crate::axes::Axes;
use crate::dtype::Real;
use crate::error::{Call, Result};
use crate::ops::folds::largest;
use crate::ops::rows::reduction::{Reduction, reduce};
use crate::ops::rows::share;
use crate::tensor::Tensor;

impl Tensor {
    /// The largest element, as a tensor without axes.
    ///
    /// It is NaN if an element is. Elements that are equally large share the gradient in equal parts.
    ///
    /// # Errors
    ///
    /// If there is no element, or allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([[1.0, 5.0], [4.0, 2.0]]).max()?.item::<f64>()?, 5.0);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn max(&self) -> Result<Self> {
        reduce(Call::on("max", self), self, .., Max)
    }

    /// The largest elements over some axes, given as [`Axes`] says; otherwise as
    /// [`max`](Tensor::max).
    ///
    /// # Errors
    ///
    /// If an axis is out of range or repeated, there is no element to choose, or allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 5.0, 3.0], [4.0, 2.0, 6.0]]);
    /// assert_eq!(x.max_over(0)?.to_vec::<f64>()?, [4.0, 5.0, 6.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn max_over(&self, axes: impl Into<Axes>) -> Result<Self> {
        reduce(Call::on("max_over", self), self, axes, Max)
    }
}

#[derive(Debug)]
struct Max;

impl Reduction for Max {
    const BACKWARD: &'static str = "MaxBackward";
    const OF_EMPTY: bool = false;

    fn value<A: Real>(&self, row: &[A]) -> A {
        largest(row)
    }

    fn gradient<A: Real>(&self, row: &mut [A], grad: A) {
        share(row, largest(row), grad);
    }
}
