//! The opposite sign.

use crate::autograd::{Function, Gradients, record};
use crate::dtype::dispatch;
use crate::error::{Call, Result};
use crate::ops::elementwise::{self, Cost};
use crate::tensor::Tensor;

impl Tensor {
    /// Each element with the opposite sign.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([1.0, -2.0]).neg()?.to_vec::<f64>()?, [-1.0, 2.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn neg(&self) -> Result<Self> {
        let call = Call::on("neg", self);
        let output =
            dispatch!(self.dtype(), T => elementwise::map::<T>(call, self, Cost::Move, |x| -x))?;
        Ok(record(output, &[self], || NegBackward))
    }
}

#[derive(Debug)]
struct NegBackward;

impl Function for NegBackward {
    fn name(&self) -> &'static str {
        "NegBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        Ok(vec![Some(grad.neg()?)])
    }
}
