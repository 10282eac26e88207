//! Addition.

use crate::autograd::{Function, Gradients, record};
use crate::dtype::{Scalar, dispatch};
use crate::error::{Call, Result};
use crate::ops::elementwise::{self, Cost};
use crate::tensor::Tensor;

impl Tensor {
    /// The sum with another tensor, elementwise; shapes broadcast as NumPy's.
    ///
    /// # Errors
    ///
    /// If dtypes differ, or shapes do not broadcast.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 2.0], [3.0, 4.0]]).add(&tensor([10.0, 20.0]))?;
    /// assert_eq!(x.to_vec::<f64>()?, [11.0, 22.0, 13.0, 24.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn add(&self, other: &Self) -> Result<Self> {
        let call = Call::on_two("add", self, other);
        let dtype = self.common_dtype(call, other)?;
        let output = dispatch!(dtype, T => elementwise::zip::<T>(call, self, other, Cost::Move, |x, y| x + y))?;
        Ok(record(output, &[self, other], || AddBackward {
            left: self.shape_if_needed(),
            right: other.shape_if_needed(),
        }))
    }

    /// The sum with a number, which is rounded to the type the dtype computes in.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([1.0, 2.0]).add_scalar(0.5)?.to_vec::<f64>()?, [1.5, 2.5]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn add_scalar(&self, number: f64) -> Result<Self> {
        let call = Call::on("add_scalar", self);
        let output = dispatch!(self.dtype(), T => {
            let number = <T as Scalar>::Acc::nearest(number);
            elementwise::map::<T>(call, self, Cost::Move, |x| x + number)
        })?;
        Ok(record(output, &[self], || AddScalarBackward))
    }

    /// The shape, if this tensor will get a gradient.
    pub(super) fn shape_if_needed(&self) -> Option<Box<[usize]>> {
        self.needs_grad().then(|| self.shape().into())
    }
}

#[derive(Debug)]
struct AddBackward {
    left: Option<Box<[usize]>>,
    right: Option<Box<[usize]>>,
}

impl Function for AddBackward {
    fn name(&self) -> &'static str {
        "AddBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let to = |shape: &Option<Box<[usize]>>| {
            shape
                .as_ref()
                .map(|shape| grad.clone().sum_to(self.name(), shape))
                .transpose()
        };
        Ok(vec![to(&self.left)?, to(&self.right)?])
    }
}

#[derive(Debug)]
struct AddScalarBackward;

impl Function for AddScalarBackward {
    fn name(&self) -> &'static str {
        "AddScalarBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        Ok(vec![Some(grad)])
    }
}
