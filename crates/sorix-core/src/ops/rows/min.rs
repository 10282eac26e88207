//! The smallest element.

use crate::dtype::Real;
use crate::error::Result;
use crate::ops::folds::smallest;
use crate::ops::rows::reduction::{Reduction, keepdim, of_all, over};
use crate::ops::rows::share;
use crate::tensor::Tensor;

impl Tensor {
    /// The smallest element of all elements, a tensor without axes.
    ///
    /// An element that is NaN makes it NaN. Elements that are equally small share the gradient in equal
    /// parts.
    ///
    /// # Errors
    ///
    /// Where there is no element, and where the memory cannot be had.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([[1.0, 5.0], [4.0, 2.0]]).min()?.item::<f64>()?, 1.0);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn min(&self) -> Result<Self> {
        of_all("min", self, Min)
    }

    /// The smallest element over some axes, which the result does not have; a negative axis counts from the last.
    /// Otherwise as [`min`](Tensor::min).
    ///
    /// # Errors
    ///
    /// Where an axis is out of range or repeated; where there is no element to choose.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 5.0, 3.0], [4.0, 2.0, 6.0]]);
    /// assert_eq!(x.min_axes(&[0])?.to_vec::<f64>()?, [1.0, 2.0, 3.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn min_axes(&self, axes: &[isize]) -> Result<Self> {
        over("min_axes", self, axes, Min)
    }

    /// The same as [`min_axes`](Tensor::min_axes) with those axes kept at length 1, so that the
    /// result broadcasts with the tensor.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 5.0, 3.0], [4.0, 2.0, 6.0]]);
    /// assert_eq!(x.min_axes_keepdim(&[1])?.shape(), [2, 1]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn min_axes_keepdim(&self, axes: &[isize]) -> Result<Self> {
        keepdim("min_axes_keepdim", self, axes, Min)
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

    fn gradient<A: Real>(&self, row: &mut [A], value: A, grad: A) {
        share(row, value, grad);
    }
}
