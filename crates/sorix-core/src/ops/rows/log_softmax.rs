//! The logarithm of the softmax.

use core::f64::consts::LN_2;

use crate::autograd::{Function, Gradients, SavedTensor, record};
use crate::dtype::{Real, Scalar, dispatch};
use crate::error::{Call, Result};
use crate::ops::folds::{largest, sum_of_rewritten, sum_times};
use crate::ops::rows::Rows;
use crate::ops::rows::exponentials::Exponentials;
use crate::ops::rows::softmax::Probabilities;
use crate::shape::resolve_axis;
use crate::tensor::Tensor;

impl Tensor {
    /// `x - log(sum(exp(x)))` along an axis, the logarithm of the [`softmax`](Tensor::softmax); a
    /// negative axis counts from the last.
    ///
    /// The largest element is subtracted first, so that nothing overflows. f16 and bf16 are computed
    /// in f32 and rounded once; their gradient is made from the input, not from a rounded output.
    ///
    /// A row that is -infinity throughout, whose softmax is 0, is -infinity throughout here too, with
    /// the gradient 0 (PyTorch and JAX have NaN).
    ///
    /// # Errors
    ///
    /// If the axis is out of range.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let y = tensor([[0.0, 0.0], [0.0, 1000.0]]).log_softmax(1)?;
    /// assert_eq!(y.to_vec::<f64>()?, [-2.0_f64.ln(), -2.0_f64.ln(), -1000.0, 0.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn log_softmax(&self, axis: isize) -> Result<Self> {
        let call = Call::on("log_softmax", self);
        let axis = resolve_axis(call, axis, self.shape())?;
        let input = SavedTensor::new(self);
        let rows = Rows::new(call, self, &[axis])?;
        let exp = Exponentials::new(call)?;
        let output =
            dispatch!(self.dtype(), T => rows.map::<T>(call, |_, row, _| log_softmax(row, exp)))?;
        let saved = Probabilities::of(input, &output);
        Ok(record(output, &[self], || LogSoftmaxBackward {
            axis,
            saved,
            exp,
        }))
    }
}

fn log_softmax<A: Real>(row: &mut [A], exp: Exponentials) {
    let max = largest(row);
    if max == A::neg_infinity() {
        return;
    }
    row.iter_mut().for_each(|x| *x = *x - max);
    let log = A::nearest(sum_of_rewritten(row, |piece| exp.of(piece)).ln());
    row.iter_mut().for_each(|x| *x = *x - log);
}

/// `dy - exp(y) sum(dy)` in place of `y`; zeros if nothing in `y` is greater than -infinity.
///
/// What is all but certain, of which there is one at most, has `exp(y)` near 1, which would be rounded to 1:
/// its gradient is computed as `(dy - sum(dy)) - (exp(y) - 1) sum(dy)`.
fn gradient<A: Real>(y: &mut [A], grad: &[A], exp: Exponentials) {
    let largest = largest(y);
    if largest == A::neg_infinity() {
        return y.fill(A::zero());
    }
    let sum = sum_times(grad, 1.0);
    let log = Scalar::to_f64(largest);
    let likely = y.iter().position(|&y| y == largest && log > -LN_2);
    exp.of(y);
    y.iter_mut().zip(grad).for_each(|(y, &grad)| {
        *y = A::nearest(Scalar::to_f64(grad) - Scalar::to_f64(*y) * sum);
    });
    if let Some(i) = likely {
        let others = Scalar::to_f64(grad[i]) - sum;
        y[i] = A::nearest(others - libm::expm1(log) * sum);
    }
}

#[derive(Debug)]
struct LogSoftmaxBackward {
    axis: usize,
    saved: Probabilities,
    exp: Exponentials,
}

impl Function for LogSoftmaxBackward {
    fn name(&self) -> &'static str {
        "LogSoftmaxBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let gradient = dispatch!(grad.dtype(), T => {
            let forward = |row: &mut [_]| log_softmax(row, self.exp);
            let backward = |y: &mut [_], grad: &[_]| gradient(y, grad, self.exp);
            self.saved.gradient::<T>(self, self.axis, &grad, forward, backward)
        })?;
        Ok(vec![Some(gradient)])
    }
}
