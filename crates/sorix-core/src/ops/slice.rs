//! A part of an axis.

use core::ops::{Bound, RangeBounds};

use crate::autograd::{Function, Gradients, record};
use crate::error::{Call, ErrorKind, Result};
use crate::ops::elementwise;
use crate::shape::{Layout, resolve_axis};
use crate::tensor::Tensor;

impl Tensor {
    /// A view of the elements of an axis whose index is in `range`; a negative axis counts from the
    /// last.
    ///
    /// # Errors
    ///
    /// If the axis is out of range; if `range` reaches beyond it or ends before it starts.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    /// assert_eq!(x.slice(1, 1..)?.to_vec::<f64>()?, [2.0, 3.0, 5.0, 6.0]);
    /// assert!(x.slice(0, ..1)?.same_storage(&x));
    ///
    /// let error = x.slice(1, 2..4).unwrap_err();
    /// assert_eq!(error.to_string(), "slice(float64[2, 3]): 2..4 is not a range within axis 1 of length 3");
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn slice(&self, axis: isize, range: impl RangeBounds<usize>) -> Result<Self> {
        let call = Call::on("slice", self);
        self.slice_resolved(call, resolve_axis(call, axis, self.shape())?, range, 1)
    }

    /// A view of every `step`th of the elements that [`slice`](Tensor::slice) gives, from the first.
    ///
    /// # Errors
    ///
    /// As there, and if `step` is 0.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0]).slice_step(0, 1.., 2)?;
    /// assert_eq!(x.to_vec::<f64>()?, [1.0, 3.0, 5.0]);
    /// assert_eq!(x.strides(), [2]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn slice_step(
        &self,
        axis: isize,
        range: impl RangeBounds<usize>,
        step: usize,
    ) -> Result<Self> {
        let call = Call::on("slice_step", self);
        if step == 0 {
            return Err(call.error(ErrorKind::ZeroStep));
        }
        self.slice_resolved(call, resolve_axis(call, axis, self.shape())?, range, step)
    }

    /// [`slice_step`](Tensor::slice_step) along an axis in range, with a step of at least 1.
    pub(super) fn slice_resolved(
        &self,
        call: Call<'_>,
        axis: usize,
        range: impl RangeBounds<usize>,
        step: usize,
    ) -> Result<Self> {
        let length = self.shape()[axis];
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => length,
        };
        if start > end || end > length {
            return Err(call.error(ErrorKind::Range {
                axis,
                start,
                end,
                length,
            }));
        }
        let count = (end - start).div_ceil(step);
        let output = self.with_layout(self.layout().clone().sliced(axis, start, step, count));
        Ok(record(output, &[self], || SliceBackward {
            shape: self.shape().into(),
            within: Layout::contiguous(self.shape()).sliced(axis, start, step, count),
        }))
    }
}

#[derive(Debug)]
struct SliceBackward {
    /// Of the input.
    shape: Box<[usize]>,
    /// Where the slice lies in a row-major tensor of that shape.
    within: Layout,
}

impl Function for SliceBackward {
    fn name(&self) -> &'static str {
        "SliceBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let gradient = elementwise::scatter(
            Call::on(self.name(), &grad),
            &self.shape,
            &self.within,
            &grad,
        )?;
        Ok(vec![Some(gradient)])
    }
}
