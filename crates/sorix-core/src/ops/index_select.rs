//! Chosen places of an axis, as an embedding does.

use crate::autograd::{Function, Gradients, record};
use crate::dtype::{Scalar, dispatch};
use crate::error::{Call, ErrorKind, Result};
use crate::ops::elementwise::{for_each_chunk, threads_for};
use crate::ops::in_order::InOrder;
use crate::shape::{checked_numel, resolve_axis};
use crate::storage::Buffer;
use crate::tensor::Tensor;

impl Tensor {
    /// The places of an axis that `indices` names, in that order and as often as it does; a negative
    /// axis counts from the last.
    ///
    /// Backward adds the gradients of a place up in the type the dtype computes in and rounds once.
    ///
    /// # Errors
    ///
    /// If the axis is out of range, or an index is out of range for the axis.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]).requires_grad(true);
    /// let y = x.index_select(0, &[2, 0, 2])?;
    /// assert_eq!(y.to_vec::<f64>()?, [5.0, 6.0, 1.0, 2.0, 5.0, 6.0]);
    /// y.sum()?.backward()?;
    /// assert_eq!(x.grad().unwrap().to_vec::<f64>()?, [1.0, 1.0, 0.0, 0.0, 2.0, 2.0]);
    ///
    /// let error = x.index_select(0, &[3]).unwrap_err();
    /// assert_eq!(error.to_string(), "index_select(float64[3, 2]): index 3 is out of range for axis 0 of length 3");
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn index_select(&self, axis: isize, indices: &[usize]) -> Result<Self> {
        let call = Call::on("index_select", self);
        let axis = resolve_axis(call, axis, self.shape())?;
        let length = self.shape()[axis];
        if let Some(&index) = indices.iter().find(|&&index| index >= length) {
            return Err(call.error(ErrorKind::Index {
                axis,
                index,
                length,
            }));
        }
        let mut shape = self.shape().to_vec();
        shape[axis] = indices.len();
        let output = dispatch!(self.dtype(), T => {
            let snapshot = self.read();
            let elements = InOrder::<T>::new(&snapshot);
            Tensor::filled(call, &shape, |out: &mut [T]| {
                select(&elements, length, indices, out, inner(&shape, axis));
            })
        })?;
        Ok(record(output, &[self], || IndexSelectBackward {
            shape: self.shape().into(),
            axis,
            indices: indices.into(),
        }))
    }
}

#[derive(Debug)]
struct IndexSelectBackward {
    /// Of the input.
    shape: Box<[usize]>,
    axis: usize,
    indices: Box<[usize]>,
}

impl Function for IndexSelectBackward {
    fn name(&self) -> &'static str {
        "IndexSelectBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let call = Call::on(self.name(), &grad);
        let grad = grad.contiguous()?;
        let gradient = dispatch!(grad.dtype(), T => {
            type Acc = <T as Scalar>::Acc;
            let numel = checked_numel(call, &self.shape, Acc::DTYPE)?;
            let mut buffer = Buffer::zeroed(call, numel * size_of::<Acc>())?;
            let (length, inner) = (self.shape[self.axis], inner(&self.shape, self.axis));
            add_to_places(
                &mut buffer.as_mut_slice::<Acc>()[..numel],
                grad.read().contiguous::<T>(),
                [length, inner],
                &self.indices,
            );
            Tensor::from_buffer(buffer, &self.shape, Acc::DTYPE)
        });
        Ok(vec![Some(gradient)])
    }
}

/// The elements of a row-major tensor for each place of an axis.
fn inner(shape: &[usize], axis: usize) -> usize {
    shape[axis + 1..].iter().product()
}

/// Writes the chosen ones of `length` places, of `inner` elements each, of every stretch of
/// `elements`.
fn select<T: Scalar>(
    elements: &InOrder<'_, T>,
    length: usize,
    indices: &[usize],
    out: &mut [T],
    inner: usize,
) {
    let bytes = 2 * size_of_val(out);
    for_each_chunk(out, inner.max(1), bytes, |k, out| {
        let (stretch, place) = (k / indices.len(), indices[k % indices.len()]);
        elements.copy_to((stretch * length + place) * inner, out);
    });
}

/// Adds the `grads` of every stretch of `sums`, which has `length` places of `inner` elements each, to
/// the places that `indices` says.
fn add_to_places<T: Scalar>(
    sums: &mut [T::Acc],
    grads: &[T],
    [length, inner]: [usize; 2],
    indices: &[usize],
) {
    // A place may come several times, so one thread adds all that comes to it: that of its stretch,
    // or where there is but one of these, that of its part of the places.
    let bytes = size_of_val(grads);
    let places = if sums.len() == length * inner {
        length.div_ceil(threads_for(bytes))
    } else {
        length
    };
    let parts = length.div_ceil(places.max(1)).max(1);
    for_each_chunk(sums, (places * inner).max(1), bytes, |k, sums| {
        let (stretch, first) = (k / parts, k % parts * places);
        for (i, index) in indices.iter().enumerate() {
            let place = index.wrapping_sub(first);
            if place < places {
                let sums = &mut sums[place * inner..][..inner];
                let grads = &grads[(stretch * indices.len() + i) * inner..][..inner];
                sums.iter_mut()
                    .zip(grads)
                    .for_each(|(sum, &grad)| *sum = *sum + grad.to_acc());
            }
        }
    });
}
