//! Division.

use crate::autograd::{Function, Gradients, SavedTensor, record};
use crate::dtype::{Scalar, dispatch};
use crate::error::{Call, Result};
use crate::ops::elementwise::{self, Cost};
use crate::ops::factor::{self, Factor};
use crate::tensor::Tensor;

impl Tensor {
    /// The quotient with another tensor, elementwise; shapes broadcast as NumPy's. What is divided by
    /// 0 becomes infinite or NaN, as with numbers.
    ///
    /// # Errors
    ///
    /// If dtypes differ, or shapes do not broadcast.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0], [2.0]]).div(&tensor([4.0, 0.0]))?;
    /// assert_eq!(x.to_vec::<f64>()?, [0.25, f64::INFINITY, 0.5, f64::INFINITY]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn div(&self, other: &Self) -> Result<Self> {
        let call = Call::on_two("div", self, other);
        let dtype = self.common_dtype(call, other)?;
        let backward = DivBackward {
            dividend: self.shape_if_needed(),
            divisor: Factor::of(other, self),
            by: SavedTensor::new(other),
        };
        let output = dispatch!(dtype, T => elementwise::zip::<T>(call, self, other, Cost::Move, |x, y| x / y))?;
        Ok(record(output, &[self, other], || backward))
    }

    /// The quotient with a number, which is rounded to the type the dtype computes in.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([1.0, 3.0]).div_scalar(4.0)?.to_vec::<f64>()?, [0.25, 0.75]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn div_scalar(&self, number: f64) -> Result<Self> {
        let call = Call::on("div_scalar", self);
        let output = dispatch!(self.dtype(), T => {
            let number = <T as Scalar>::Acc::nearest(number);
            elementwise::map::<T>(call, self, Cost::Move, |x| x / number)
        })?;
        Ok(record(output, &[self], || DivScalarBackward { number }))
    }

    /// A number, rounded to the type the dtype computes in, divided by each element: `1.0 / &x`.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([2.0, -8.0]).rdiv_scalar(1.0)?.to_vec::<f64>()?, [0.5, -0.125]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn rdiv_scalar(&self, number: f64) -> Result<Self> {
        let call = Call::on("rdiv_scalar", self);
        let input = SavedTensor::new(self);
        let output = dispatch!(self.dtype(), T => {
            let number = <T as Scalar>::Acc::nearest(number);
            elementwise::map::<T>(call, self, Cost::Move, |x| number / x)
        })?;
        Ok(record(output, &[self], || RdivScalarBackward {
            number,
            input,
        }))
    }
}

#[derive(Debug)]
struct RdivScalarBackward {
    number: f64,
    input: SavedTensor,
}

impl Function for RdivScalarBackward {
    fn name(&self) -> &'static str {
        "RdivScalarBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let input = self.input.get(self)?;
        let number =
            dispatch!(grad.dtype(), T => <T as Scalar>::Acc::nearest(self.number).to_f64());
        let gradient = |grad: f64, x| -grad * (number / x / x);
        let operands = [&grad, &input];
        let gradient = factor::of_two(self.name(), input.shape(), operands, gradient)?;
        Ok(vec![Some(gradient)])
    }
}

#[derive(Debug)]
struct DivBackward {
    /// The shape of the dividend, if it gets a gradient.
    dividend: Option<Box<[usize]>>,
    /// The dividend, if the divisor gets a gradient.
    divisor: Option<Factor>,
    /// What was divided by.
    by: SavedTensor,
}

impl Function for DivBackward {
    fn name(&self) -> &'static str {
        "DivBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let by = &self.by.get(self)?;
        let dividend = match &self.dividend {
            Some(shape) => {
                let gradient = |grad, by| grad / by;
                Some(factor::of_two(self.name(), shape, [&grad, by], gradient)?)
            }
            None => None,
        };
        let divisor = match &self.divisor {
            Some(Factor { shape, other }) => {
                let operands = [&grad, &other.get(self)?, by];
                // Not x / y², which overflows sooner; and of an x that is 0, as what was dropped is,
                // not an infinite dy / y times 0.
                let gradient = |grad: f64, x, y| -grad * (x / y / y);
                Some(factor::of_three(self.name(), shape, operands, gradient)?)
            }
            None => None,
        };
        Ok(vec![dividend, divisor])
    }
}

#[derive(Debug)]
struct DivScalarBackward {
    number: f64,
}

impl Function for DivScalarBackward {
    fn name(&self) -> &'static str {
        "DivScalarBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        Ok(vec![Some(grad.div_scalar(self.number)?)])
    }
}
