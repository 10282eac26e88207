//! The mean of the elements.

use crate::autograd::{Function, Gradients, record};
use crate::dtype::{Scalar, dispatch};
use crate::error::{Call, Result};
use crate::ops::elementwise::{self, Cost};
use crate::ops::sum::Reduced;
use crate::ops::sums::reduce;
use crate::shape::resolve_axes;
use crate::tensor::Tensor;

impl Tensor {
    /// The mean of all elements, a tensor without axes; NaN for an empty one.
    ///
    /// The sum is divided before it is rounded to the dtype, so it does not overflow f16.
    ///
    /// # Errors
    ///
    /// Where the memory cannot be had.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([[1.0, 2.0], [3.0, 4.0]]).mean()?.item::<f64>()?, 2.5);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn mean(&self) -> Result<Self> {
        let axes: Vec<usize> = (0..self.ndim()).collect();
        self.mean_resolved(Call::on("mean", self), &axes, false)
    }

    /// The means over some axes, which the result does not have; a negative axis counts from the
    /// last.
    ///
    /// # Errors
    ///
    /// Where an axis is out of range or repeated.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    /// assert_eq!(x.mean_axes(&[0])?.to_vec::<f64>()?, [2.5, 3.5, 4.5]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn mean_axes(&self, axes: &[isize]) -> Result<Self> {
        let call = Call::on("mean_axes", self);
        self.mean_resolved(call, &resolve_axes(call, axes, self.shape())?, false)
    }

    /// The same as [`mean_axes`](Tensor::mean_axes) with those axes kept at length 1, so that the
    /// result broadcasts with the tensor.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    /// let centred = x.sub(&x.mean_axes_keepdim(&[1])?)?;
    /// assert_eq!(centred.to_vec::<f64>()?, [-1.0, 0.0, 1.0, -1.0, 0.0, 1.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn mean_axes_keepdim(&self, axes: &[isize]) -> Result<Self> {
        let call = Call::on("mean_axes_keepdim", self);
        self.mean_resolved(call, &resolve_axes(call, axes, self.shape())?, true)
    }

    fn mean_resolved(&self, call: Call<'_>, axes: &[usize], keepdim: bool) -> Result<Self> {
        let count = axes
            .iter()
            .map(|&axis| self.shape()[axis])
            .product::<usize>() as f64;
        let output = reduce(call, self, axes, keepdim, count)?;
        Ok(record(output, &[self], || MeanBackward {
            input: Reduced::new(self, axes),
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
