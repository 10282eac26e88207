//! Axes of length 1, taken away and put in.

use crate::error::{Call, ErrorKind, Result};
use crate::shape::{resolve_axis, resolve_new_axis};
use crate::tensor::Tensor;

impl Tensor {
    /// A view without one axis, of length 1; a negative axis counts from the last.
    ///
    /// # Errors
    ///
    /// If the axis is out of range, or of another length (there PyTorch returns the tensor).
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0], [2.0]]);
    /// assert_eq!(x.squeeze(-1)?.shape(), [2]);
    /// let error = x.squeeze(0).unwrap_err();
    /// assert_eq!(error.to_string(), "squeeze(float64[2, 1]): expected an axis of length 1, got [0]");
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn squeeze(&self, axis: isize) -> Result<Self> {
        let call = Call::on("squeeze", self);
        let resolved = resolve_axis(call, axis, self.shape())?;
        let mut shape = self.shape().to_vec();
        if shape.remove(resolved) != 1 {
            return Err(call.error(ErrorKind::Axes {
                expected: "an axis of length 1",
                axes: vec![axis],
            }));
        }
        self.reshape_checked(call, &shape)
    }

    /// A view without any of the axes of length 1.
    ///
    /// # Errors
    ///
    /// None: there is always such a view. It returns a [`Result`] as every operation does.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([[[1.0], [2.0]]]).squeeze_all()?.shape(), [2]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn squeeze_all(&self) -> Result<Self> {
        let mut shape = self.shape().to_vec();
        shape.retain(|&length| length != 1);
        self.reshape_checked(Call::on("squeeze_all", self), &shape)
    }

    /// A view with one more axis, of length 1, which becomes axis number `axis`; a negative one
    /// counts from the last axis of the result.
    ///
    /// # Errors
    ///
    /// If the result has no such axis.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([1.0, 2.0]);
    /// assert_eq!(x.unsqueeze(0)?.shape(), [1, 2]);
    /// assert_eq!(x.unsqueeze(-1)?.shape(), [2, 1]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn unsqueeze(&self, axis: isize) -> Result<Self> {
        let call = Call::on("unsqueeze", self);
        let axis = resolve_new_axis(call, axis, self.shape())?;
        self.unsqueeze_resolved(call, axis)
    }

    pub(super) fn unsqueeze_resolved(&self, call: Call<'_>, axis: usize) -> Result<Self> {
        let mut shape = self.shape().to_vec();
        shape.insert(axis, 1);
        self.reshape_checked(call, &shape)
    }
}
