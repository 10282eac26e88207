//! Chosen places of an axis, as an embedding does.

use ndarray::{Axis, Zip};

use crate::autograd::{Function, Gradients, record};
use crate::dtype::{Scalar, dispatch};
use crate::error::{Call, ErrorKind, Result};
use crate::shape::{checked_numel, resolve_axis, row_major};
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
    /// Where the axis is out of range, or an index is out of range for the axis.
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
            let places = snapshot.view::<T>();
            Tensor::filled(call, &shape, |out: &mut [T]| {
                let mut out = row_major(out, &shape);
                for (mut out, &index) in out.axis_iter_mut(Axis(axis)).zip(indices) {
                    out.assign(&places.index_axis(Axis(axis), index));
                }
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
        let axis = Axis(self.axis);
        let gradient = dispatch!(grad.dtype(), T => {
            type Acc = <T as Scalar>::Acc;
            let numel = checked_numel(Call::on(self.name(), &grad), &self.shape, Acc::DTYPE)?;
            let mut buffer = Buffer::zeroed(Call::on(self.name(), &grad), numel * size_of::<Acc>())?;
            let mut sums = row_major::<Acc>(&mut buffer.as_mut_slice()[..numel], &self.shape);
            let snapshot = grad.read();
            for (grad, &index) in snapshot.view::<T>().axis_iter(axis).zip(&self.indices) {
                Zip::from(sums.index_axis_mut(axis, index))
                    .and(grad)
                    .for_each(|sum, &grad| *sum += grad.to_acc());
            }
            Tensor::from_buffer(buffer, &self.shape, Acc::DTYPE).to_dtype(T::DTYPE)?
        });
        Ok(vec![Some(gradient)])
    }
}
