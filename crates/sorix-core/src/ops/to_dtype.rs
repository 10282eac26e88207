//! Conversion to another dtype.

use crate::autograd::{Function, Gradients, record};
use crate::bytes::converted;
use crate::dtype::{DType, dispatch};
use crate::error::{Call, Result};
use crate::ops::elementwise;
use crate::tensor::Tensor;

impl Tensor {
    /// The elements rounded to the nearest of another dtype, ties to even; what is too large
    /// becomes infinite. The tensor itself if it has that dtype.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::{DType, tensor};
    /// let x = tensor([0.1, 1e6]).to_dtype(DType::F16)?;
    /// assert_eq!(x.to_dtype(DType::F64)?.to_vec::<f64>()?, [0.0999755859375, f64::INFINITY]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        let from = self.dtype();
        if from == dtype {
            return Ok(self.clone());
        }
        let call = Call::on("to_dtype", self);
        let output = dispatch!(from, T => if dtype == from.arithmetic() {
            elementwise::widen::<T>(call, self)
        } else {
            dispatch!(dtype, U => elementwise::convert(call, self, converted::<T, U>))
        })?;
        Ok(record(output, &[self], || ToDTypeBackward { from }))
    }
}

#[derive(Debug)]
struct ToDTypeBackward {
    from: DType,
}

impl Function for ToDTypeBackward {
    fn name(&self) -> &'static str {
        "ToDTypeBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        // In the type that the input's dtype computes in it is rounded later, with what it meets.
        if grad.dtype() == self.from.arithmetic() {
            Ok(vec![Some(grad)])
        } else {
            Ok(vec![Some(grad.to_dtype(self.from)?)])
        }
    }
}
