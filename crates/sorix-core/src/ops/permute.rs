//! Another order of the axes.

use crate::autograd::{Function, Gradients, record};
use crate::error::{Call, ErrorKind, Result};
use crate::shape::{resolve_axes, resolve_axis};
use crate::tensor::Tensor;

impl Tensor {
    /// A view with the axes in another order: axis `k` of the result is axis `axes[k]` of this
    /// tensor; a negative axis counts from the last.
    ///
    /// # Errors
    ///
    /// If `axes` is not a permutation of the tensor's axes.
    ///
    /// ```
    /// use sorix_core::{DType, Tensor};
    /// let x = Tensor::zeros([2, 3, 4], DType::F32)?;
    /// assert_eq!(x.permute(&[2, 0, 1])?.shape(), [4, 2, 3]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn permute(&self, axes: &[isize]) -> Result<Self> {
        let call = Call::on("permute", self);
        let resolved = resolve_axes(call, axes, self.shape())?;
        if resolved.len() != self.ndim() {
            let (expected, axes) = ("a permutation of all axes", axes.to_vec());
            return Err(call.error(ErrorKind::Axes { expected, axes }));
        }
        Ok(self.permute_resolved(resolved))
    }

    /// A view with two axes swapped; a negative axis counts from the last.
    ///
    /// # Errors
    ///
    /// If an axis is out of range.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 2.0], [3.0, 4.0]]).transpose(0, 1)?;
    /// assert_eq!(x.to_vec::<f64>()?, [1.0, 3.0, 2.0, 4.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn transpose(&self, first: isize, second: isize) -> Result<Self> {
        let resolve = |axis| resolve_axis(Call::on("transpose", self), axis, self.shape());
        let (first, second) = (resolve(first)?, resolve(second)?);
        let mut axes: Vec<usize> = (0..self.ndim()).collect();
        axes.swap(first, second);
        Ok(self.permute_resolved(axes))
    }

    fn permute_resolved(&self, axes: Vec<usize>) -> Self {
        let output = self.with_layout(self.layout().permuted(&axes));
        record(output, &[self], || PermuteBackward { axes })
    }
}

#[derive(Debug)]
struct PermuteBackward {
    axes: Vec<usize>,
}

impl Function for PermuteBackward {
    fn name(&self) -> &'static str {
        "PermuteBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let mut inverse = vec![0; self.axes.len()];
        self.axes
            .iter()
            .enumerate()
            .for_each(|(k, &axis)| inverse[axis] = k);
        Ok(vec![Some(grad.permute_resolved(inverse))])
    }
}
