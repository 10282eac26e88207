//! Where the largest element is.

use crate::dtype::{Real, Scalar, dispatch};
use crate::error::{Call, ErrorKind, Result};
use crate::ops::folds::largest;
use crate::ops::rows::Rows;
use crate::shape::resolve_axis;
use crate::tensor::Tensor;

impl Tensor {
    /// The index of the largest element along an axis, of the first if several are equal, for
    /// each place of the other axes in row-major order; a negative axis counts from the last. An
    /// element that is NaN counts as the largest.
    ///
    /// # Errors
    ///
    /// If the axis is out of range or has length 0.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 5.0, 3.0], [4.0, 2.0, 6.0]]);
    /// assert_eq!(x.argmax(-1)?, [1, 2]);
    /// assert_eq!(x.argmax(0)?, [1, 0, 1]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn argmax(&self, axis: isize) -> Result<Vec<usize>> {
        let call = Call::on("argmax", self);
        let axis = resolve_axis(call, axis, self.shape())?;
        let rows = Rows::new(call, self, &[axis])?;
        if rows.length == 0 {
            let axes = vec![axis];
            return Err(call.error(ErrorKind::EmptyReduction { axes }));
        }
        let mut indices = Vec::new();
        indices.try_reserve_exact(rows.count).map_err(|_| {
            let bytes = rows.count.saturating_mul(size_of::<usize>());
            call.error(ErrorKind::Allocation { bytes })
        })?;
        indices.resize(rows.count, 0);
        dispatch!(self.dtype(), T => {
            let mut workspaces = rows.workspaces::<T>(call, rows.widened::<T>())?;
            let snapshot = rows.elements.read();
            let elements = snapshot.contiguous::<T>();
            workspaces.for_each(&mut indices, 1, |row, index, scratch| {
                let row = &elements[row * rows.length..][..rows.length];
                index[0] = first_largest(T::widen(row, scratch));
            });
        });
        Ok(indices)
    }
}

fn first_largest<A: Real>(row: &[A]) -> usize {
    let max = largest(row);
    // If there is a NaN, it is the largest, and nothing is equal to it.
    row.iter()
        .position(|&x| x == max || x.is_nan())
        .unwrap_or(0)
}
