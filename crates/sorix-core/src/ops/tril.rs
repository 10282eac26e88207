//! The lower triangle of matrices.

use crate::autograd::{Function, Gradients, record};
use crate::dtype::{Scalar, dispatch};
use crate::error::{Call, Result};
use crate::ops::elementwise::for_each_chunk;
use crate::shape::resolve_axis;
use crate::tensor::Tensor;

impl Tensor {
    /// The matrices in the last two axes with `+0.0` above a diagonal: the main one for 0, one above it
    /// for 1, one below for -1. Of ones it is a causal mask; see [`masked_fill`](Tensor::masked_fill).
    ///
    /// # Errors
    ///
    /// If the tensor has fewer than two axes, or allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    /// assert_eq!(x.tril(0)?.to_vec::<f64>()?, [1.0, 0.0, 0.0, 4.0, 5.0, 0.0]);
    /// assert_eq!(x.tril(1)?.to_vec::<f64>()?, [1.0, 2.0, 0.0, 4.0, 5.0, 6.0]);
    /// assert_eq!(x.tril(-1)?.to_vec::<f64>()?, [0.0, 0.0, 0.0, 4.0, 0.0, 0.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn tril(&self, diagonal: isize) -> Result<Self> {
        let call = Call::on("tril", self);
        let rows = self.shape()[resolve_axis(call, -2, self.shape())?];
        let columns = self.shape()[self.ndim() - 1];
        let input = self.detach().contiguous()?;
        let output = dispatch!(self.dtype(), T => {
            let snapshot = input.read();
            let elements = snapshot.contiguous::<T>();
            Tensor::filled(call, self.shape(), |out: &mut [T]| {
                let bytes = 2 * size_of_val(out);
                for_each_chunk(out, columns.max(1), bytes, |k, out| {
                    let row = (k % rows) as isize;
                    let kept = row.saturating_add(diagonal).saturating_add(1).max(0) as usize;
                    let (kept, zeros) = out.split_at_mut(kept.min(columns));
                    kept.copy_from_slice(&elements[k * columns..][..kept.len()]);
                    zeros.fill(T::nearest(0.0));
                });
            })
        })?;
        Ok(record(output, &[self], || TrilBackward { diagonal }))
    }
}

#[derive(Debug)]
struct TrilBackward {
    diagonal: isize,
}

impl Function for TrilBackward {
    fn name(&self) -> &'static str {
        "TrilBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        Ok(vec![Some(grad.tril(self.diagonal)?)])
    }
}
