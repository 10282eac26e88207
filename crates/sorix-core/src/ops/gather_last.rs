//! One element of each row, chosen by its index.

use ndarray::Axis;

use crate::autograd::{Function, Gradients, record};
use crate::dtype::dispatch;
use crate::error::{Call, ErrorKind, Result};
use crate::shape::{checked_numel, resolve_axis};
use crate::storage::Buffer;
use crate::tensor::Tensor;

impl Tensor {
    /// From each row along the last axis the element that the row's index names, as a cross entropy
    /// picks the probability of each sample's class. The result does not have the last axis.
    ///
    /// # Errors
    ///
    /// If the tensor has no axes, if there is not one index for each row, or if an index is out of
    /// range for the last axis.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).requires_grad(true);
    /// let y = x.gather_last(&[2, 0])?;
    /// assert_eq!(y.to_vec::<f64>()?, [3.0, 4.0]);
    /// y.sum()?.backward()?;
    /// assert_eq!(x.grad().unwrap().to_vec::<f64>()?, [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
    ///
    /// let error = x.gather_last(&[2, 3]).unwrap_err();
    /// assert_eq!(error.to_string(), "gather_last(float64[2, 3]): index 3 is out of range for axis 1 of length 3");
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn gather_last(&self, indices: &[usize]) -> Result<Self> {
        let call = Call::on("gather_last", self);
        let axis = resolve_axis(call, -1, self.shape())?;
        let (shape, length) = (&self.shape()[..axis], self.shape()[axis]);
        let expected = checked_numel(call, shape, self.dtype())?;
        if indices.len() != expected {
            return Err(call.error(ErrorKind::Length {
                shape: shape.to_vec(),
                expected,
                got: indices.len(),
            }));
        }
        if let Some(&index) = indices.iter().find(|&&index| index >= length) {
            return Err(call.error(ErrorKind::Index {
                axis,
                index,
                length,
            }));
        }
        let output = dispatch!(self.dtype(), T => {
            let snapshot = self.read();
            Tensor::filled(call, shape, |out: &mut [T]| {
                let view = snapshot.view::<T>();
                let rows = view.lanes(Axis(axis)).into_iter();
                for ((out, row), &index) in out.iter_mut().zip(rows).zip(indices) {
                    *out = row[index];
                }
            })
        })?;
        Ok(record(output, &[self], || GatherLastBackward {
            shape: self.shape().into(),
            indices: indices.into(),
        }))
    }
}

#[derive(Debug)]
struct GatherLastBackward {
    /// Of the input.
    shape: Box<[usize]>,
    indices: Box<[usize]>,
}

impl Function for GatherLastBackward {
    fn name(&self) -> &'static str {
        "GatherLastBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let (call, dtype) = (Call::on(self.name(), &grad), grad.dtype());
        let bytes = checked_numel(call, &self.shape, dtype)? * dtype.size();
        let mut zeros = Buffer::zeroed(call, bytes)?;
        let length = self.shape[self.shape.len() - 1];
        let grad = grad.contiguous()?;
        dispatch!(dtype, T => {
            let snapshot = grad.read();
            let gradient = zeros.as_mut_slice::<T>();
            let chosen = snapshot.contiguous::<T>().iter().zip(&self.indices);
            for (row, (&grad, &index)) in chosen.enumerate() {
                gradient[row * length + index] = grad;
            }
        });
        Ok(vec![Some(Tensor::from_buffer(zeros, &self.shape, dtype))])
    }
}
