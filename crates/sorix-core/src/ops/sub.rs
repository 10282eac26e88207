//! Subtraction.

use crate::autograd::{Function, Gradients, record};
use crate::dtype::{Scalar, dispatch};
use crate::error::{Call, Result};
use crate::ops::elementwise::{self, Cost};
use crate::tensor::Tensor;

impl Tensor {
    /// The difference to another tensor, elementwise; shapes broadcast as NumPy's.
    ///
    /// # Errors
    ///
    /// If dtypes differ, or shapes do not broadcast.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([5.0, 7.0]).sub(&tensor([1.0, 2.0]))?;
    /// assert_eq!(x.to_vec::<f64>()?, [4.0, 5.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn sub(&self, other: &Self) -> Result<Self> {
        let call = Call::on_two("sub", self, other);
        let dtype = self.common_dtype(call, other)?;
        let output = dispatch!(dtype, T => elementwise::zip::<T>(call, self, other, Cost::Move, |x, y| x - y))?;
        Ok(record(output, &[self, other], || SubBackward {
            left: self.shape_if_needed(),
            right: other.shape_if_needed(),
        }))
    }

    /// A number, rounded to the type the dtype computes in, less each element: `1.0 - &x`.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([1.0, 2.5]).rsub_scalar(2.0)?.to_vec::<f64>()?, [1.0, -0.5]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn rsub_scalar(&self, number: f64) -> Result<Self> {
        let call = Call::on("rsub_scalar", self);
        let output = dispatch!(self.dtype(), T => {
            let number = <T as Scalar>::Acc::nearest(number);
            elementwise::map::<T>(call, self, Cost::Move, |x| number - x)
        })?;
        Ok(record(output, &[self], || RsubScalarBackward))
    }
}

#[derive(Debug)]
struct RsubScalarBackward;

impl Function for RsubScalarBackward {
    fn name(&self) -> &'static str {
        "RsubScalarBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        Ok(vec![Some(grad.neg()?)])
    }
}

#[derive(Debug)]
struct SubBackward {
    left: Option<Box<[usize]>>,
    right: Option<Box<[usize]>>,
}

impl Function for SubBackward {
    fn name(&self) -> &'static str {
        "SubBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let right = match &self.right {
            Some(shape) => Some(grad.neg()?.sum_to(self.name(), shape)?),
            None => None,
        };
        let left = match &self.left {
            Some(shape) => Some(grad.sum_to(self.name(), shape)?),
            None => None,
        };
        Ok(vec![left, right])
    }
}
