//! The softmax.

use crate::autograd::{Function, Gradients, SavedTensor, record};
use crate::dtype::{Real, dispatch};
use crate::error::{Call, Result};
use crate::ops::folds::{largest, sum, sum_of_pairs};
use crate::ops::rows::Rows;
use crate::shape::resolve_axis;
use crate::tensor::Tensor;

impl Tensor {
    /// `exp(x) / sum(exp(x))` along an axis; a negative one counts from the last.
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
    /// let y = tensor([[0.0, 3.0_f64.ln()], [1000.0, 1000.0]]).softmax(-1)?;
    /// let expected = [0.25, 0.75, 0.5, 0.5];
    /// assert!(y.to_vec::<f64>()?.iter().zip(expected).all(|(y, e)| (y - e).abs() < 1e-15));
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn softmax(&self, axis: isize) -> Result<Self> {
        let call = Call::on("softmax", self);
        let axis = resolve_axis(call, axis, self.shape())?;
        let rows = Rows::new(call, self, &[axis])?;
        let output = dispatch!(self.dtype(), T => rows.map::<T>(call, |_, row, _| softmax(row)))?;
        let saved = SavedTensor::new(&output);
        Ok(record(output, &[self], || SoftmaxBackward {
            axis,
            output: saved,
        }))
    }
}

fn softmax<A: Real>(row: &mut [A]) {
    let max = largest(row);
    row.iter_mut().for_each(|x| *x = (*x - max).exp());
    let sum = A::nearest(sum(row));
    row.iter_mut().for_each(|x| *x = *x / sum);
}

/// `y (dy - sum(dy y))` in place of `dy`.
fn softmax_gradient<A: Real>(grad: &mut [A], y: &[A]) {
    let product = A::nearest(sum_of_pairs(grad, y, |grad, y| grad * y));
    grad.iter_mut()
        .zip(y)
        .for_each(|(grad, &y)| *grad = y * (*grad - product));
}

#[derive(Debug)]
struct SoftmaxBackward {
    axis: usize,
    output: SavedTensor,
}

impl Function for SoftmaxBackward {
    fn name(&self) -> &'static str {
        "SoftmaxBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let call = Call::on(self.name(), &grad);
        let outputs = Rows::new(call, &self.output.get(self)?, &[self.axis])?;
        let grads = Rows::new(call, &grad, &[self.axis])?;
        let gradient = dispatch!(grad.dtype(), T => {
            grads.map_with::<T>(call, &outputs, softmax_gradient)
        })?;
        Ok(vec![Some(gradient)])
    }
}
