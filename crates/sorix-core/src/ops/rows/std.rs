//! The standard deviation.

use crate::dtype::Real;
use crate::error::Result;
use crate::ops::rows::reduction::{Reduction, keepdim, of_all, over};
use crate::ops::rows::{centre, degrees, variance};
use crate::tensor::Tensor;

impl Tensor {
    /// The standard deviation of all elements, a tensor without axes.
    ///
    /// It is the root of the sum of the squared distances from the mean, by the number of elements less
    /// `correction`: 0 for the spread of these elements, 1 for an unbiased estimate of the variance
    /// that they were drawn from. NaN or infinite where that number is not positive. At 0 the gradient is taken
    /// as 0.
    ///
    /// # Errors
    ///
    /// Where the memory cannot be had.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([1.0, 3.0]).std(0)?.item::<f64>()?, 1.0);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn std(&self, correction: usize) -> Result<Self> {
        of_all("std", self, Std { correction })
    }

    /// The standard deviation over some axes, which the result does not have; a negative axis counts from the last.
    /// Otherwise as [`std`](Tensor::std).
    ///
    /// # Errors
    ///
    /// Where an axis is out of range or repeated.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 5.0, 3.0], [4.0, 2.0, 6.0]]);
    /// assert_eq!(x.std_axes(&[0], 0)?.to_vec::<f64>()?, [1.5, 1.5, 1.5]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn std_axes(&self, axes: &[isize], correction: usize) -> Result<Self> {
        over("std_axes", self, axes, Std { correction })
    }

    /// The same as [`std_axes`](Tensor::std_axes) with those axes kept at length 1, so that the
    /// result broadcasts with the tensor.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 5.0, 3.0], [4.0, 2.0, 6.0]]);
    /// assert_eq!(x.std_axes_keepdim(&[1], 1)?.shape(), [2, 1]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn std_axes_keepdim(&self, axes: &[isize], correction: usize) -> Result<Self> {
        keepdim("std_axes_keepdim", self, axes, Std { correction })
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
        variance(row, self.correction).sqrt()
    }

    fn gradient<A: Real>(&self, row: &mut [A], value: A, grad: A) {
        let factor = if value == A::zero() {
            A::zero()
        } else {
            grad / (value * degrees(row, self.correction))
        };
        centre(row);
        row.iter_mut().for_each(|x| *x = *x * factor);
    }
}
