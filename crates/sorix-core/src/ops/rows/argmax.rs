//! Where the largest element is.

use num_traits::Float;

use crate::dtype::{Scalar, dispatch};
use crate::error::{Error, Result};
use crate::ops::rows::{Rows, largest};
use crate::shape::resolve_axis;
use crate::tensor::Tensor;

impl Tensor {
    /// The index of the largest element along an axis, of the first where several are equal, for
    /// each place of the other axes in row-major order; a negative axis counts from the last. An
    /// element that is NaN counts as the largest.
    ///
    /// # Errors
    ///
    /// Where the axis is out of range or has length 0.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 5.0, 3.0], [4.0, 2.0, 6.0]]);
    /// assert_eq!(x.argmax(-1)?, [1, 2]);
    /// assert_eq!(x.argmax(0)?, [1, 0, 1]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn argmax(&self, axis: isize) -> Result<Vec<usize>> {
        let op = "argmax";
        let axis = resolve_axis(op, axis, self.shape())?;
        let rows = Rows::new(self, &[axis])?;
        if rows.length == 0 {
            let (shape, axes) = (self.shape().to_vec(), vec![axis]);
            return Err(Error::EmptyReduction { op, shape, axes });
        }
        Ok(dispatch!(self.dtype(), T => {
            let snapshot = rows.elements.read();
            let rows = snapshot.contiguous::<T>().chunks_exact(rows.length);
            rows.map(first_largest).collect()
        }))
    }
}

fn first_largest<T: Scalar>(row: &[T]) -> usize {
    let row: Vec<T::Acc> = row.iter().map(|x| x.to_acc()).collect();
    let max = largest(&row);
    // NaN is the largest where there is one, and nothing is equal to it.
    row.iter()
        .position(|&x| x == max || x.is_nan())
        .unwrap_or(0)
}
