//! Several axes made one.

use crate::error::{Call, ErrorKind, Result};
use crate::shape::resolve_axis;
use crate::tensor::Tensor;

impl Tensor {
    /// The axes from `start` to `end`, both included, made one, as in PyTorch: a view if the
    /// strides allow it, else a copy. A negative axis counts from the last. A tensor without axes
    /// gets one.
    ///
    /// # Errors
    ///
    /// If an axis is out of range, or `end` comes before `start`.
    ///
    /// ```
    /// use sorix_core::{DType, Tensor};
    /// let x = Tensor::zeros([2, 3, 4, 5], DType::F32)?;
    /// assert_eq!(x.flatten(1, -1)?.shape(), [2, 60]);
    /// assert_eq!(x.flatten(1, 2)?.shape(), [2, 12, 5]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn flatten(&self, start: isize, end: isize) -> Result<Self> {
        let call = Call::on("flatten", self);
        // A tensor without axes is taken for one of shape [1].
        let shape = if self.ndim() == 0 { &[1] } else { self.shape() };
        let first = resolve_axis(call, start, shape)?;
        let last = resolve_axis(call, end, shape)?;
        if first > last {
            return Err(call.error(ErrorKind::Axes {
                expected: "a first and a last axis, in order",
                axes: vec![start, end],
            }));
        }
        let length = shape[first..=last].iter().product();
        let flat = [&shape[..first], &[length], &shape[last + 1..]].concat();
        self.reshape_checked(call, &flat)
    }
}
