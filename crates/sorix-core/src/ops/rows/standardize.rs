//! Mean 0 and variance 1, as layer normalisation needs.

use crate::dtype::{Real, Scalar};
use crate::error::{Call, Result};
use crate::ops::folds::{quotient, sum_of_pairs};
use crate::ops::rows::mapping::{Mapping, map};
use crate::ops::rows::moments::Moments;
use crate::tensor::Tensor;

impl Tensor {
    /// `(x - mean) / sqrt(variance + epsilon)` with the mean and the (biased) variance over some
    /// axes: layer normalisation without its scale and shift. A negative axis counts from the last.
    ///
    /// Mean and variance are computed in f64, whatever the dtype, and no square is out of range: the
    /// result is that of exact numbers, rounded once. Backward computes them again from the input.
    ///
    /// Elements that are all equal become 0. If `epsilon` is 0 too their gradient is taken as 0, as a step in
    /// any direction would make them as far apart as any others.
    ///
    /// Source: Ba, Kiros and Hinton, *Layer normalization*, arXiv:1607.06450 (2016).
    ///
    /// # Errors
    ///
    /// If an axis is out of range or repeated, if `epsilon` is negative or not finite, or if allocation
    /// fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 3.0], [10.0, 30.0]]);
    /// assert_eq!(x.standardize(&[-1], 0.0)?.to_vec::<f64>()?, [-1.0, 1.0, -1.0, 1.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn standardize(&self, axes: &[isize], epsilon: f64) -> Result<Self> {
        map::<Standardize>(Call::on("standardize", self), self, axes, epsilon)
    }
}

#[derive(Debug)]
struct Standardize;

impl Mapping for Standardize {
    const BACKWARD: &'static str = "StandardizeBackward";

    fn value<A: Real>(x: &mut [A], epsilon: f64) {
        let moments = Moments::of(x, epsilon);
        let scale = moments.scale(epsilon);
        x.iter_mut()
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
}
