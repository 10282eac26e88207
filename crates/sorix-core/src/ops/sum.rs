//! The sum of the elements.

use crate::autograd::{Function, Gradients, record};
use crate::axes::Axes;
use crate::error::{Call, Result};
use crate::ops::sums::{reduce, sum_widened};
use crate::shape::reduced;
use crate::tensor::Tensor;

impl Tensor {
    /// The sum of all elements, a tensor without axes; 0 for an empty one.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([[1.0, 2.0], [3.0, 4.0]]).sum()?.item::<f64>()?, 10.0);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn sum(&self) -> Result<Self> {
        self.sum_of(Call::on("sum", self), &(..).into())
    }

    /// The sums over some axes, given as [`Axes`] says; over none of them, a copy.
    ///
    /// # Errors
    ///
    /// If an axis is out of range or repeated, or allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    /// assert_eq!(x.sum_over(0)?.to_vec::<f64>()?, [5.0, 7.0, 9.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn sum_over(&self, axes: impl Into<Axes>) -> Result<Self> {
        self.sum_of(Call::on("sum_over", self), &axes.into())
    }

    fn sum_of(&self, call: Call<'_>, axes: &Axes) -> Result<Self> {
        let resolved = axes.resolve(call, self.shape())?;
        let shape = axes.reduced(self.shape(), &resolved);
        let output = reduce(call, self, &resolved, &shape, 1.0)?;
        Ok(record(output, &[self], || SumBackward {
            input: Reduced::new(self, &resolved),
        }))
    }

    /// The gradient of an operand that was broadcast to this gradient's shape: the sum over what
    /// was repeated, in the type that the dtype computes in, if anything was.
    pub(crate) fn sum_to(self, op: &'static str, shape: &[usize]) -> Result<Self> {
        if self.shape() == shape {
            return Ok(self);
        }
        let leading = self.ndim() - shape.len();
        let repeated = |&axis: &usize| axis < leading || shape[axis - leading] == 1;
        let axes: Vec<usize> = (0..self.ndim()).filter(repeated).collect();
        let kept = reduced(self.shape(), &axes, true);
        sum_widened(Call::on(op, &self), &self, &axes, &kept)?.reshape(shape)
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
