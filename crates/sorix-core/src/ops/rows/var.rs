//! The variance.

use crate::dtype::Real;
use crate::error::Result;
use crate::ops::rows::reduction::{Reduction, keepdim, of_all, over};
use crate::ops::rows::{centre, degrees, variance};
use crate::tensor::Tensor;

impl Tensor {
    /// The variance of all elements, a tensor without axes.
    ///
    /// It is the sum of the squared distances from the mean, by the number of elements less
    /// `correction`: 0 for the spread of these elements, 1 for an unbiased estimate of the variance
    /// that they were drawn from. NaN or infinite where that number is not positive.
    ///
    /// # Errors
    ///
    /// Where the memory cannot be had.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([1.0, 3.0]).var(1)?.item::<f64>()?, 2.0);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn var(&self, correction: usize) -> Result<Self> {
        of_all("var", self, Var { correction })
    }

    /// The variance over some axes, which the result does not have; a negative axis counts from the last.
    /// Otherwise as [`var`](Tensor::var).
    ///
    /// # Errors
    ///
    /// Where an axis is out of range or repeated.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 5.0, 3.0], [4.0, 2.0, 6.0]]);
    /// assert_eq!(x.var_axes(&[0], 0)?.to_vec::<f64>()?, [2.25, 2.25, 2.25]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn var_axes(&self, axes: &[isize], correction: usize) -> Result<Self> {
        over("var_axes", self, axes, Var { correction })
    }

    /// The same as [`var_axes`](Tensor::var_axes) with those axes kept at length 1, so that the
    /// result broadcasts with the tensor.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 5.0, 3.0], [4.0, 2.0, 6.0]]);
    /// assert_eq!(x.var_axes_keepdim(&[1], 1)?.shape(), [2, 1]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn var_axes_keepdim(&self, axes: &[isize], correction: usize) -> Result<Self> {
        keepdim("var_axes_keepdim", self, axes, Var { correction })
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
        variance(row, self.correction)
    }

    fn gradient<A: Real>(&self, row: &mut [A], _value: A, grad: A) {
        let factor = grad * A::nearest(2.0) / degrees(row, self.correction);
        centre(row);
        row.iter_mut().for_each(|x| *x = *x * factor);
    }
}
