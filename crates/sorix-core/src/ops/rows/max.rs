//! The largest element.

use crate::dtype::Real;
use crate::error::Result;
use crate::ops::folds::largest;
use crate::ops::rows::reduction::{Reduction, keepdim, of_all, over};
use crate::ops::rows::share;
use crate::tensor::Tensor;

impl Tensor {
    /// The largest element of all elements, a tensor without axes.
    ///
    /// An element that is NaN makes it NaN. Elements that are equally large share the gradient in equal
    /// parts.
    ///
    /// # Errors
    ///
    /// Where there is no element, and where the memory cannot be had.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([[1.0, 5.0], [4.0, 2.0]]).max()?.item::<f64>()?, 5.0);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn max(&self) -> Result<Self> {
        of_all("max", self, Max)
    }

    /// The largest element over some axes, which the result does not have; a negative axis counts from the last.
    /// Otherwise as [`max`](Tensor::max).
    ///
    /// # Errors
    ///
    /// Where an axis is out of range or repeated; where there is no element to choose.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 5.0, 3.0], [4.0, 2.0, 6.0]]);
    /// assert_eq!(x.max_axes(&[0])?.to_vec::<f64>()?, [4.0, 5.0, 6.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn max_axes(&self, axes: &[isize]) -> Result<Self> {
        over("max_axes", self, axes, Max)
    }

    /// The same as [`max_axes`](Tensor::max_axes) with those axes kept at length 1, so that the
    /// result broadcasts with the tensor.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 5.0, 3.0], [4.0, 2.0, 6.0]]);
    /// assert_eq!(x.max_axes_keepdim(&[1])?.shape(), [2, 1]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn max_axes_keepdim(&self, axes: &[isize]) -> Result<Self> {
        keepdim("max_axes_keepdim", self, axes, Max)
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

    fn gradient<A: Real>(&self, row: &mut [A], value: A, grad: A) {
        share(row, value, grad);
    }
}
