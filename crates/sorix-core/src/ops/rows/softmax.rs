//! The softmax.

use crate::autograd::{Function, Gradients, SavedTensor, record};
use crate::dtype::{Real, Scalar, dispatch};
use crate::error::{Call, Result};
use crate::ops::folds::{largest, sum_of_pairs, sum_times};
use crate::ops::rows::Rows;
use crate::ops::rows::exponentials::Exponentials;
use crate::shape::resolve_axis;
use crate::tensor::Tensor;

impl Tensor {
    /// `exp(x) / sum(exp(x))` along an axis; a negative one counts from the last.
    ///
    /// The largest element is subtracted first, so that nothing overflows. f16 and bf16 are computed
    /// in f32 and rounded once; their gradient is made from the input, not from a rounded output.
    ///
    /// The softmax of a row that is -infinity throughout is 0 throughout, with the gradient 0: that of
    /// a query in attention which every key is masked for. PyTorch and JAX have NaN there, which one
    /// such row spreads to every parameter.
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
    ///
    /// let masked = tensor([[f64::NEG_INFINITY; 2], [f64::NEG_INFINITY, 7.0]]).softmax(-1)?;
    /// assert_eq!(masked.to_vec::<f64>()?, [0.0, 0.0, 0.0, 1.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn softmax(&self, axis: isize) -> Result<Self> {
        let call = Call::on("softmax", self);
        let axis = resolve_axis(call, axis, self.shape())?;
        let input = SavedTensor::new(self);
        let rows = Rows::new(call, self, &[axis])?;
        let exp = Exponentials::new(call)?;
        let output =
            dispatch!(self.dtype(), T => rows.map::<T>(call, |_, row, _| softmax(row, exp)))?;
        let saved = Probabilities::of(input, &output);
        Ok(record(output, &[self], || SoftmaxBackward {
            axis,
            saved,
            exp,
        }))
    }
}

/// The softmax of a row in its place: zeros if nothing in it is greater than -infinity.
pub(in crate::ops) fn softmax<A: Real>(row: &mut [A], exp: Exponentials) {
    let max = largest(row);
    if max == A::neg_infinity() {
        return row.fill(A::zero());
    }
    row.iter_mut().for_each(|x| *x = *x - max);
    exp.of(row);
    let sum = A::nearest(sum_times(row, 1.0));
    row.iter_mut().for_each(|x| *x = *x / sum);
}

/// `y (dy - sum(dy y))` in place of `y`.
///
/// Where `y` is more than 1/2, `dy` and the sum may agree in almost all digits, and `y` itself is rounded to 1. The
/// `y` add up to 1, so what is in parentheses is there the sum of `y (dy of that element - dy)` over the others.
pub(in crate::ops) fn gradient<A: Real>(y: &mut [A], grad: &[A]) {
    let wide = |x: A| Scalar::to_f64(x);
    let likely = y.iter().position(|&y| wide(y) > 0.5);
    let of_likely = likely.map(|i| {
        let own = wide(grad[i]);
        let others = sum_of_pairs(y, grad, |y, grad| wide(y) * (own - wide(grad)));
        (i, A::nearest(wide(y[i]) * others))
    });
    let product = sum_of_pairs(y, grad, |y, grad| wide(y) * wide(grad));
    y.iter_mut()
        .zip(grad)
        .for_each(|(y, &grad)| *y = A::nearest(wide(*y) * (wide(grad) - product)));
    if let Some((i, gradient)) = of_likely {
        y[i] = gradient;
    }
}

/// What the gradients of a softmax and of its logarithm are made from: the output if it is of the type
/// that is computed in, else the input, which nothing rounded.
#[derive(Debug)]
pub(super) enum Probabilities {
    Input(SavedTensor),
    Output(SavedTensor),
}

impl Probabilities {
    pub(super) fn of(input: SavedTensor, output: &Tensor) -> Self {
        if output.dtype() == output.dtype().arithmetic() {
            Self::Output(SavedTensor::new(output))
        } else {
            Self::Input(input)
        }
    }

    /// The gradient of the input from that of the output, by `f`, which puts it in the place of a row of
    /// the output; `forward` makes that of a row of the input.
    pub(super) fn gradient<T: Scalar>(
        &self,
        function: &impl Function,
        axis: usize,
        grad: &Tensor,
        forward: impl Fn(&mut [T::Acc]) + Sync,
        f: impl Fn(&mut [T::Acc], &[T::Acc]) + Sync,
    ) -> Result<Tensor> {
        let call = Call::on(function.name(), grad);
        let grads = Rows::new(call, grad, &[axis])?;
        let (saved, is_output) = match self {
            Self::Input(saved) => (saved, false),
            Self::Output(saved) => (saved, true),
        };
        let rows = Rows::new(call, &saved.get(function)?, &[axis])?;
        rows.map_with::<T>(call, &grads, |row, grad| {
            if !is_output {
                forward(row);
            }
            f(row, grad);
        })
    }
}

#[derive(Debug)]
struct SoftmaxBackward {
    axis: usize,
    saved: Probabilities,
    exp: Exponentials,
}

impl Function for SoftmaxBackward {
    fn name(&self) -> &'static str {
        "SoftmaxBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let gradient = dispatch!(grad.dtype(), T => {
            let forward = |row: &mut [_]| softmax(row, self.exp);
            self.saved.gradient::<T>(self, self.axis, &grad, forward, gradient)
        })?;
        Ok(vec![Some(gradient)])
    }
}
