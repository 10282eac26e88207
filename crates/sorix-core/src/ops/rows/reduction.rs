//! What the reductions of rows have in common: their shapes, and a backward that looks at each row.

use core::fmt::Debug;

use crate::autograd::{Function, Gradients, SavedTensor, record};
use crate::dtype::dispatch;
use crate::error::{Error, Result};
use crate::ops::rows::{Real, Rows, widened};
use crate::shape::resolve_axes;
use crate::tensor::Tensor;

/// A number from a row.
pub(super) trait Reduction: Debug + Send + Sync + 'static {
    /// The name of its backward.
    const BACKWARD: &'static str;

    /// Whether an empty row has a value.
    const OF_EMPTY: bool;

    /// The number.
    fn value<A: Real>(&self, row: &[A]) -> A;

    /// Puts the gradient of the row in its place, from the value and that of the value. The value is
    /// computed anew: in half precision the output is a rounded one, too far off near 1000 for its
    /// distance from the row to mean anything.
    fn gradient<A: Real>(&self, row: &mut [A], value: A, grad: A);
}

/// The reduction of all elements, without axes.
pub(super) fn of_all<R: Reduction>(op: &'static str, x: &Tensor, reduction: R) -> Result<Tensor> {
    reduce(op, x, (0..x.ndim()).collect(), &[], reduction)
}

/// The reduction over some axes, which the result does not have.
pub(super) fn over<R: Reduction>(
    op: &'static str,
    x: &Tensor,
    axes: &[isize],
    reduction: R,
) -> Result<Tensor> {
    let axes = resolve_axes(op, axes, x.shape())?;
    let left = |&axis: &usize| !axes.contains(&axis);
    let shape: Vec<usize> = (0..x.ndim())
        .filter(left)
        .map(|axis| x.shape()[axis])
        .collect();
    reduce(op, x, axes, &shape, reduction)
}

/// The reduction over some axes, which the result has at length 1.
pub(super) fn keepdim<R: Reduction>(
    op: &'static str,
    x: &Tensor,
    axes: &[isize],
    reduction: R,
) -> Result<Tensor> {
    let axes = resolve_axes(op, axes, x.shape())?;
    let mut shape = x.shape().to_vec();
    axes.iter().for_each(|&axis| shape[axis] = 1);
    reduce(op, x, axes, &shape, reduction)
}

fn reduce<R: Reduction>(
    op: &'static str,
    x: &Tensor,
    axes: Vec<usize>,
    shape: &[usize],
    reduction: R,
) -> Result<Tensor> {
    let rows = Rows::new(x, &axes)?;
    if rows.length == 0 && !R::OF_EMPTY {
        let shape = x.shape().to_vec();
        return Err(Error::EmptyReduction { op, shape, axes });
    }
    let output =
        dispatch!(x.dtype(), T => rows.reduce::<T>(op, shape, |row| reduction.value(row)))?;
    Ok(record(output, &[x], || ReductionBackward {
        reduction,
        axes,
        input: SavedTensor::new(x),
    }))
}

#[derive(Debug)]
struct ReductionBackward<R> {
    reduction: R,
    axes: Vec<usize>,
    input: SavedTensor,
}

impl<R: Reduction> Function for ReductionBackward<R> {
    fn name(&self) -> &'static str {
        R::BACKWARD
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let rows = Rows::new(self.input.get(self)?, &self.axes)?;
        let gradient = dispatch!(grad.dtype(), T => {
            let grads = widened::<T>(&grad)?;
            rows.map::<T>(self.name(), |number, row| {
                let value = self.reduction.value(row);
                self.reduction.gradient(row, value, grads[number]);
            })
        })?;
        Ok(vec![Some(gradient)])
    }
}
