//! Writing the elements of another tensor over those of one.

use crate::autograd::is_grad_enabled;
use crate::dtype::dispatch;
use crate::error::{Call, ErrorKind, Result};
use crate::ops::elementwise;
use crate::tensor::Tensor;

impl Tensor {
    /// Overwrites the elements with those of `source`, also for the views of this tensor: what an
    /// optimiser does to a parameter.
    ///
    /// A function that saved the tensor for its backward and finds it written returns an error
    /// then. Tensors that were computed from it keep their elements.
    ///
    /// # Errors
    ///
    /// If shapes or dtypes differ; if one of the two requires a gradient and [operations are
    /// recorded](crate::autograd::is_grad_enabled), as this one would not be; if this tensor is
    /// expanded, so that one element in memory stands for several.
    ///
    /// ```
    /// use sorix_core::autograd::no_grad;
    /// use sorix_core::tensor;
    ///
    /// let w = tensor([1.0, 2.0]).requires_grad(true);
    /// no_grad(|| w.assign(&tensor([3.0, 4.0])))?;
    /// assert_eq!(w.to_vec::<f64>()?, [3.0, 4.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn assign(&self, source: &Self) -> Result<()> {
        let call = Call::on_two("assign", self, source);
        if is_grad_enabled() && (self.needs_grad() || source.needs_grad()) {
            return Err(call.error(ErrorKind::WriteNeedsNoGrad));
        }
        call.expect(source, self.shape(), self.dtype())?;
        dispatch!(self.dtype(), T => {
            elementwise::update(call, self, source, |_, source: T| source)
        })
    }
}
