//! Mean 0 and variance 1, as layer normalisation needs.

use crate::autograd::{Function, Gradients, SavedTensor, record};
use crate::dtype::{Real, Scalar, dispatch};
use crate::error::{Call, Result};
use crate::ops::folds::{quotient, sum_of_pairs};
use crate::ops::rows::Rows;
use crate::ops::rows::moments::Moments;
use crate::shape::resolve_axes;
use crate::tensor::Tensor;

impl Tensor {
    /// `(x - mean) / sqrt(variance + epsilon)` with the mean and the (biased) variance over some
    /// axes: layer normalisation without its scale and shift. A negative axis counts from the last.
    ///
    /// Mean and variance are computed in f64, whatever the dtype, and no square is out of range: the
    /// result is that of exact numbers, rounded once. Backward computes them again from the input.
    ///
    /// Source: Ba, Kiros and Hinton, *Layer normalization*, arXiv:1607.06450 (2016).
    ///
    /// # Errors
    ///
    /// If an axis is out of range or repeated.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 3.0], [10.0, 30.0]]);
    /// assert_eq!(x.standardize(&[-1], 0.0)?.to_vec::<f64>()?, [-1.0, 1.0, -1.0, 1.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn standardize(&self, axes: &[isize], epsilon: f64) -> Result<Self> {
        let call = Call::on("standardize", self);
        let axes = resolve_axes(call, axes, self.shape())?;
        let input = SavedTensor::new(self);
        let rows = Rows::new(call, self, &axes)?;
        let output = dispatch!(self.dtype(), T => rows.map::<T>(call, |_, row, _| {
            standardize(row, epsilon);
        }))?;
        Ok(record(output, &[self], || StandardizeBackward {
            axes,
            epsilon,
            input,
        }))
    }
}

/// Standardizes a row in place.
fn standardize<A: Real>(row: &mut [A], epsilon: f64) {
    let moments = Moments::of(row, epsilon);
    let scale = moments.scale(epsilon);
    row.iter_mut()
        .for_each(|x| *x = A::nearest(moments.distance(*x) * scale));
}

/// `scale (dy - mean(dy) - y mean(dy y))` in place of `x`, whose standardized row is `y`.
fn gradient<A: Real>(x: &mut [A], grad: &[A], epsilon: f64) {
    let moments = Moments::of(x, epsilon);
    let scale = moments.scale(epsilon);
    let y = |x: A| moments.distance(x) * scale;
    let count = x.len() as f64;
    let of_grad = quotient(grad, count);
    let of_products = sum_of_pairs(x, grad, |x, grad| y(x) * Scalar::to_f64(grad)) / count;
    x.iter_mut().zip(grad).for_each(|(x, &grad)| {
        let gradient = Scalar::to_f64(grad) - of_grad - y(*x) * of_products;
        *x = A::nearest(gradient * scale * moments.per_unit());
    });
}

#[derive(Debug)]
struct StandardizeBackward {
    axes: Vec<usize>,
    epsilon: f64,
    input: SavedTensor,
}

impl Function for StandardizeBackward {
    fn name(&self) -> &'static str {
        "StandardizeBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let call = Call::on(self.name(), &grad);
        let inputs = Rows::new(call, &self.input.get(self)?, &self.axes)?;
        let grads = Rows::new(call, &grad, &self.axes)?;
        let gradient = dispatch!(grad.dtype(), T => {
            inputs.map_with::<T>(call, &grads, |x, grad| gradient(x, grad, self.epsilon))
        })?;
        Ok(vec![Some(gradient)])
    }
}
