//! The mean of the elements.

use crate::autograd::{Function, Gradients, record};
use crate::axes::Axes;
use crate::dtype::{Scalar, dispatch};
use crate::error::{Call, Result};
use crate::ops::elementwise::{self, Cost};
use crate::ops::sum::Reduced;
use crate::ops::sums::reduce;
use crate::tensor::Tensor;

impl Tensor {
    /// The mean of all elements, a tensor without axes; NaN for an empty one.
    ///
    /// The sum is divided before it is rounded to the dtype, so it does not overflow f16.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([[1.0, 2.0], [3.0, 4.0]]).mean()?.item::<f64>()?, 2.5);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn mean(&self) -> Result<Self> {
        self.mean_of(Call::on("mean", self), &(..).into())
    }

    /// The means over some axes, given as [`Axes`] says; otherwise as [`mean`](Tensor::mean).
    ///
    /// # Errors
    ///
    /// If an axis is out of range or repeated, or allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    /// assert_eq!(x.mean_over(0)?.to_vec::<f64>()?, [2.5, 3.5, 4.5]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn mean_over(&self, axes: impl Into<Axes>) -> Result<Self> {
        self.mean_of(Call::on("mean_over", self), &axes.into())
    }

    fn mean_of(&self, call: Call<'_>, axes: &Axes) -> Result<Self> {
        let resolved = axes.resolve(call, self.shape())?;
        let shape = axes.reduced(self.shape(), &resolved);
        let lengths = resolved.iter().map(|&axis| self.shape()[axis]);
        let count = lengths.product::<usize>() as f64;
        let output = reduce(call, self, &resolved, &shape, count)?;
        Ok(record(output, &[self], || MeanBackward {
            input: Reduced::new(self, &resolved),
            count,
        }))
    }
}

#[derive(Debug)]
struct MeanBackward {
    input: Reduced,
    count: f64,
}

impl Function for MeanBackward {
    fn name(&self) -> &'static str {
        "MeanBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let grad = dispatch!(grad.dtype(), T => {
            let count = <T as Scalar>::Acc::nearest(self.count);
            elementwise::map::<T>(Call::on(self.name(), &grad), &grad, Cost::Move, |grad| grad / count)
        })?;
        Ok(vec![Some(self.input.spread(self.name(), &grad)?)])
    }
}
