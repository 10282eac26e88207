//! The logarithm of the sum of the exponentials.

use crate::dtype::Real;
use crate::error::Result;
use crate::ops::folds::{largest, sum_of};
use crate::ops::rows::reduction::{Reduction, keepdim, of_all, over};
use crate::tensor::Tensor;

impl Tensor {
    /// `log(sum(exp(x)))` of all elements, a tensor without axes.
    ///
    /// The largest element is subtracted first, so that nothing overflows. -infinity for an empty
    /// tensor.
    ///
    /// # Errors
    ///
    /// Where the memory cannot be had.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([1000.0, 1000.0]).logsumexp()?.item::<f64>()?, 1000.0 + 2.0_f64.ln());
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn logsumexp(&self) -> Result<Self> {
        of_all("logsumexp", self, LogSumExp)
    }

    /// `log(sum(exp(x)))` over some axes, which the result does not have; a negative axis counts from the last.
    /// Otherwise as [`logsumexp`](Tensor::logsumexp).
    ///
    /// # Errors
    ///
    /// Where an axis is out of range or repeated.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 5.0, 3.0], [4.0, 2.0, 6.0]]);
    /// assert_eq!(x.sub(&x)?.logsumexp_axes(&[0])?.to_vec::<f64>()?, [2.0_f64.ln(); 3]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn logsumexp_axes(&self, axes: &[isize]) -> Result<Self> {
        over("logsumexp_axes", self, axes, LogSumExp)
    }

    /// The same as [`logsumexp_axes`](Tensor::logsumexp_axes) with those axes kept at length 1, so that the
    /// result broadcasts with the tensor.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 5.0, 3.0], [4.0, 2.0, 6.0]]);
    /// assert_eq!(x.logsumexp_axes_keepdim(&[1])?.shape(), [2, 1]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn logsumexp_axes_keepdim(&self, axes: &[isize]) -> Result<Self> {
        keepdim("logsumexp_axes_keepdim", self, axes, LogSumExp)
    }
}

#[derive(Debug)]
struct LogSumExp;

impl Reduction for LogSumExp {
    const BACKWARD: &'static str = "LogSumExpBackward";
    const OF_EMPTY: bool = true;

    fn value<A: Real>(&self, row: &[A]) -> A {
        let max = largest(row);
        if max.is_infinite() {
            return max;
        }
        max + A::nearest(sum_of(row, |x| (x - max).exp())).ln()
    }

    fn gradient<A: Real>(&self, row: &mut [A], value: A, grad: A) {
        row.iter_mut().for_each(|x| *x = (*x - value).exp() * grad);
    }
}
