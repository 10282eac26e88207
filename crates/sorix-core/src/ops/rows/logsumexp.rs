//! The logarithm of the sum of the exponentials.

use crate::axes::Axes;
use crate::dtype::Real;
use crate::error::{Call, Result};
use crate::ops::folds::{largest, sum_of_rewritten};
use crate::ops::rows::exponentials::Exponentials;
use crate::ops::rows::reduction::{Reduction, reduce};
use crate::ops::rows::softmax::softmax;
use crate::tensor::Tensor;

impl Tensor {
    /// `log(sum(exp(x)))` of all elements, a tensor without axes; -infinity for an empty one.
    ///
    /// The largest element is subtracted first, so that nothing overflows. Of elements that are all
    /// -infinity, as in a row that is masked as a whole, it is -infinity too, with the gradient 0 for
    /// each of them (PyTorch and JAX have NaN).
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([1000.0, 1000.0]).logsumexp()?.item::<f64>()?, 1000.0 + 2.0_f64.ln());
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn logsumexp(&self) -> Result<Self> {
        let call = Call::on("logsumexp", self);
        reduce(call, self, .., LogSumExp(Exponentials::new(call)?))
    }

    /// `log(sum(exp(x)))` over some axes, given as [`Axes`] says; otherwise as
    /// [`logsumexp`](Tensor::logsumexp).
    ///
    /// # Errors
    ///
    /// If an axis is out of range or repeated, or allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 5.0, 3.0], [4.0, 2.0, 6.0]]);
    /// assert_eq!(x.sub(&x)?.logsumexp_over(0)?.to_vec::<f64>()?, [2.0_f64.ln(); 3]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn logsumexp_over(&self, axes: impl Into<Axes>) -> Result<Self> {
        let call = Call::on("logsumexp_over", self);
        reduce(call, self, axes, LogSumExp(Exponentials::new(call)?))
    }
}

#[derive(Debug)]
struct LogSumExp(Exponentials);

impl Reduction for LogSumExp {
    const BACKWARD: &'static str = "LogSumExpBackward";
    const OF_EMPTY: bool = true;

    fn value<A: Real>(&self, row: &[A]) -> A {
        let max = largest(row);
        if max.is_infinite() {
            return max;
        }
        let sum = sum_of_rewritten(row, |piece| {
            piece.iter_mut().for_each(|x| *x = *x - max);
            self.0.of(piece);
        });
        max + A::nearest(sum.ln())
    }

    /// The softmax times that of the value. Not by way of the value, whose rounding is too coarse for
    /// its distance from the row to be exact.
    fn gradient<A: Real>(&self, row: &mut [A], grad: A) {
        let max = largest(row);
        if max == A::infinity() {
            row.iter_mut().for_each(|x| *x = (*x - max).exp() * grad);
            return;
        }
        softmax(row, self.0);
        if max == A::neg_infinity() {
            return;
        }
        row.iter_mut().for_each(|x| *x = *x * grad);
    }
}
