//! The logarithm of the softmax.

use crate::autograd::{Function, Gradients, SavedTensor, record};
use crate::dtype::{Real, dispatch};
use crate::error::{Call, Result};
use crate::ops::folds::{largest, sum, sum_of};
use crate::ops::rows::Rows;
use crate::shape::resolve_axis;
use crate::tensor::Tensor;

impl Tensor {
    /// `x - log(sum(exp(x)))` along an axis, the logarithm of the [`softmax`](Tensor::softmax); a
    /// negative axis counts from the last.
    ///
    /// The largest element is subtracted first, so that nothing overflows. f16 and bf16 are computed
    /// in f32 and rounded once.
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
        let rows = Rows::new(call, self, &[axis])?;
        let output =
            dispatch!(self.dtype(), T => rows.map::<T>(call, |_, row, _| log_softmax(row)))?;
        let saved = SavedTensor::new(&output);
        Ok(record(output, &[self], || LogSoftmaxBackward {
            axis,
            output: saved,
        }))
    }
}

fn log_softmax<A: Real>(row: &mut [A]) {
    let max = largest(row);
    row.iter_mut().for_each(|x| *x = *x - max);
    let log = A::nearest(sum_of(row, A::exp)).ln();
    row.iter_mut().for_each(|x| *x = *x - log);
}

/// `dy - exp(y) sum(dy)` in place of `dy`.
fn log_softmax_gradient<A: Real>(grad: &mut [A], y: &[A]) {
    let sum = A::nearest(sum(grad));
    grad.iter_mut()
        .zip(y)
        .for_each(|(grad, &y)| *grad = *grad - y.exp() * sum);
}

#[derive(Debug)]
struct LogSoftmaxBackward {
    axis: usize,
    output: SavedTensor,
}

impl Function for LogSoftmaxBackward {
    fn name(&self) -> &'static str {
        "LogSoftmaxBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let call = Call::on(self.name(), &grad);
        let outputs = Rows::new(call, &self.output.get(self)?, &[self.axis])?;
        let grads = Rows::new(call, &grad, &[self.axis])?;
        let gradient = dispatch!(grad.dtype(), T => {
            grads.map_with::<T>(call, &outputs, log_softmax_gradient)
        })?;
        Ok(vec![Some(gradient)])
    }
}
