//! Chosen places of an axis, as an embedding does.

use ndarray::{ArrayViewMutD, Axis, Zip};

use crate::autograd::{Function, Gradients, record};
use crate::dtype::{Scalar, dispatch};
use crate::error::{Call, ErrorKind, Result};
use crate::ops::elementwise::for_each;
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
                let bytes = 2 * size_of_val(out);
                let mut out = row_major(out, &shape);
                let zip = Zip::from(out.axis_iter_mut(Axis(axis))).and(indices);
                for_each!(zip, bytes, |mut out, &index| {
                    out.assign(&places.index_axis(Axis(axis), index));
                });
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
            let sums = row_major::<Acc>(&mut buffer.as_mut_slice()[..numel], &self.shape);
            let snapshot = grad.read();
            let grads = snapshot.view::<T>();
            // A part of the places at a time, as a place may come several times.
            let add_to = |first: usize, mut sums: ArrayViewMutD<'_, Acc>| {
                let places = first..first + sums.len_of(axis);
                for (grad, index) in grads.axis_iter(axis).zip(&self.indices) {
                    if places.contains(index) {
                        Zip::from(sums.index_axis_mut(axis, index - first))
                            .and(grad)
                            .for_each(|sum, &grad| *sum += grad.to_acc());
                    }
                }
            };
            for_each_part(sums, axis, grads.len() * size_of::<T>(), add_to);
            Tensor::from_buffer(buffer, &self.shape, Acc::DTYPE).to_dtype(T::DTYPE)?
        });
        Ok(vec![Some(gradient)])
    }
}

/// Runs `f` on parts of an axis, each with the place at which it begins; as many as there are threads,
/// where `bytes` to move are enough for them.
fn for_each_part<A: Send + Sync>(
    out: ArrayViewMutD<'_, A>,
    axis: Axis,
    bytes: usize,
    f: impl Fn(usize, ArrayViewMutD<'_, A>) + Sync,
) {
    #[cfg(feature = "parallel")]
    if sorix_kernels::parallel::threads_pay(bytes) {
        use ndarray::parallel::prelude::*;

        let mut out = out;
        let places = out
            .len_of(axis)
            .div_ceil(rayon::current_num_threads())
            .max(1);
        let parts = out
            .axis_chunks_iter_mut(axis, places)
            .into_par_iter()
            .enumerate();
        return sorix_kernels::parallel::waiting(|| {
            parts.for_each(|(k, part)| f(k * places, part));
        });
    }
    let _ = (axis, bytes);
    f(0, out);
}
