//! The sum of the elements.

use crate::autograd::{Function, Gradients, record};
use crate::error::{Call, Result};
use crate::ops::sums::reduce;
use crate::shape::{reduced, resolve_axes};
use crate::tensor::Tensor;

impl Tensor {
    /// The sum of all elements, a tensor without axes; 0 for an empty one.
    ///
    /// # Errors
    ///
    /// Where the memory cannot be had.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([[1.0, 2.0], [3.0, 4.0]]).sum()?.item::<f64>()?, 10.0);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn sum(&self) -> Result<Self> {
        let axes: Vec<usize> = (0..self.ndim()).collect();
        self.sum_resolved(Call::on("sum", self), &axes, false)
    }

    /// The sums over some axes, which the result does not have; a negative axis counts from the
    /// last. Over no axes it is the tensor's own elements.
    ///
    /// # Errors
    ///
    /// Where an axis is out of range or repeated.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    /// assert_eq!(x.sum_axes(&[0])?.to_vec::<f64>()?, [5.0, 7.0, 9.0]);
    /// assert_eq!(x.sum_axes(&[-1])?.to_vec::<f64>()?, [6.0, 15.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn sum_axes(&self, axes: &[isize]) -> Result<Self> {
        let call = Call::on("sum_axes", self);
        self.sum_resolved(call, &resolve_axes(call, axes, self.shape())?, false)
    }

    /// The same as [`sum_axes`](Tensor::sum_axes) with the summed axes kept at length 1, so that
    /// the result broadcasts with the tensor.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    /// assert_eq!(x.sum_axes_keepdim(&[1])?.shape(), [2, 1]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn sum_axes_keepdim(&self, axes: &[isize]) -> Result<Self> {
        let call = Call::on("sum_axes_keepdim", self);
        self.sum_resolved(call, &resolve_axes(call, axes, self.shape())?, true)
    }

    fn sum_resolved(&self, call: Call<'_>, axes: &[usize], keepdim: bool) -> Result<Self> {
        let output = reduce(call, self, axes, keepdim, 1.0)?;
        Ok(record(output, &[self], || SumBackward {
            input: Reduced::new(self, axes),
        }))
    }

    /// The gradient of an operand that was broadcast to this gradient's shape: the sum over what
    /// was repeated.
    pub(crate) fn sum_to(self, op: &'static str, shape: &[usize]) -> Result<Self> {
        if self.shape() == shape {
            return Ok(self);
        }
        let leading = self.ndim() - shape.len();
        let repeated = |&axis: &usize| axis < leading || shape[axis - leading] == 1;
        let axes: Vec<usize> = (0..self.ndim()).filter(repeated).collect();
        reduce(Call::on(op, &self), &self, &axes, true, 1.0)?.reshape(shape)
    }
}

/// The shape of a tensor that was reduced, and its shape with the reduced axes at length 1.
#[derive(Debug)]
pub(super) struct Reduced {
    shape: Box<[usize]>,
    kept: Box<[usize]>,
}

impl Reduced {
    pub(super) fn new(input: &Tensor, axes: &[usize]) -> Self {
        Self {
            shape: input.shape().into(),
            kept: reduced(input.shape(), axes, true).into(),
        }
    }

    /// The gradient of the reduction, repeated for each element that went into it.
    pub(super) fn spread(&self, op: &'static str, grad: &Tensor) -> Result<Tensor> {
        grad.reshape(&*self.kept)?
            .broadcast_to(Call::on(op, grad), &self.shape)
    }
}

#[derive(Debug)]
struct SumBackward {
    input: Reduced,
}

impl Function for SumBackward {
    fn name(&self) -> &'static str {
        "SumBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        Ok(vec![Some(self.input.spread(self.name(), &grad)?)])
    }
}
