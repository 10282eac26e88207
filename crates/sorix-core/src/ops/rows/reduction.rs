//! What the reductions of rows have in common: their shapes, and a backward that looks at each row.

use core::fmt::Debug;

use crate::autograd::{Function, Gradients, SavedTensor, record};
use crate::dtype::{Real, dispatch};
use crate::error::{Call, ErrorKind, Result};
use crate::ops::rows::{Rows, widened};
use crate::shape::{reduced, resolve_axes};
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
    let axes = (0..x.ndim()).collect();
    reduce(Call::on(op, x), x, axes, false, reduction)
}

/// The reduction over some axes, which the result does not have.
pub(super) fn over<R: Reduction>(
    op: &'static str,
    x: &Tensor,
    axes: &[isize],
    reduction: R,
) -> Result<Tensor> {
    let call = Call::on(op, x);
    let axes = resolve_axes(call, axes, x.shape())?;
    reduce(call, x, axes, false, reduction)
}

/// The reduction over some axes, which the result has at length 1.
pub(super) fn keepdim<R: Reduction>(
    op: &'static str,
    x: &Tensor,
    axes: &[isize],
    reduction: R,
) -> Result<Tensor> {
    let call = Call::on(op, x);
    let axes = resolve_axes(call, axes, x.shape())?;
    reduce(call, x, axes, true, reduction)
}

fn reduce<R: Reduction>(
    call: Call<'_>,
    x: &Tensor,
    axes: Vec<usize>,
    keepdim: bool,
    reduction: R,
) -> Result<Tensor> {
    let input = SavedTensor::new(x);
    let rows = Rows::new(call, x, &axes)?;
    if rows.length == 0 && !R::OF_EMPTY {
        return Err(call.error(ErrorKind::EmptyReduction { axes }));
    }
    let shape = reduced(x.shape(), &axes, keepdim);
    let output =
        dispatch!(x.dtype(), T => rows.reduce::<T>(call, &shape, |row| reduction.value(row)))?;
    Ok(record(output, &[x], || ReductionBackward {
        reduction,
        axes,
        input,
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
        let call = Call::on(self.name(), &grad);
        let rows = Rows::new(call, &self.input.get(self)?, &self.axes)?;
        let gradient = dispatch!(grad.dtype(), T => {
            let grads = widened::<T>(&grad)?;
            rows.map::<T>(call, |number, row, _| {
                let value = self.reduction.value(row);
                self.reduction.gradient(row, value, grads[number]);
            })
        })?;
        Ok(vec![Some(gradient)])
    }
}
