//! Multiplication.

use crate::autograd::{Function, Gradients, record};
use crate::dtype::{Scalar, dispatch};
use crate::error::{Call, Result};
use crate::ops::elementwise::{self, Cost};
use crate::ops::factor::{self, Factor};
use crate::tensor::Tensor;

impl Tensor {
    /// The product with another tensor, elementwise; shapes broadcast as NumPy's.
    ///
    /// # Errors
    ///
    /// If dtypes differ, or shapes do not broadcast.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0], [2.0]]).mul(&tensor([10.0, 20.0]))?;
    /// assert_eq!(x.to_vec::<f64>()?, [10.0, 20.0, 20.0, 40.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn mul(&self, other: &Self) -> Result<Self> {
        let call = Call::on_two("mul", self, other);
        let dtype = self.common_dtype(call, other)?;
        let backward = MulBackward {
            left: Factor::of(self, other),
            right: Factor::of(other, self),
        };
        let output = dispatch!(dtype, T => elementwise::zip::<T>(call, self, other, Cost::Move, |x, y| x * y))?;
        Ok(record(output, &[self, other], || backward))
    }

    /// The product with a number, which is rounded to the type the dtype computes in.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([1.0, 2.0]).mul_scalar(0.5)?.to_vec::<f64>()?, [0.5, 1.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn mul_scalar(&self, number: f64) -> Result<Self> {
        let call = Call::on("mul_scalar", self);
        let output = dispatch!(self.dtype(), T => {
            let number = <T as Scalar>::Acc::nearest(number);
            elementwise::map::<T>(call, self, Cost::Move, |x| x * number)
        })?;
        Ok(record(output, &[self], || MulScalarBackward { number }))
    }
}

#[derive(Debug)]
struct MulBackward {
    left: Option<Factor>,
    right: Option<Factor>,
}

impl Function for MulBackward {
    fn name(&self) -> &'static str {
        "MulBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let gradient = |input: &Option<Factor>| match input {
            Some(Factor { shape, other }) => {
                let operands = [&grad, &other.get(self)?];
                factor::of_two(self.name(), shape, operands, |grad, other| grad * other).map(Some)
            }
            None => Ok(None),
        };
        Ok(vec![gradient(&self.left)?, gradient(&self.right)?])
    }
}

#[derive(Debug)]
struct MulScalarBackward {
    number: f64,
}

impl Function for MulScalarBackward {
    fn name(&self) -> &'static str {
        "MulScalarBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        Ok(vec![Some(grad.mul_scalar(self.number)?)])
    }
}
