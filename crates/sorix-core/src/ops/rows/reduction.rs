//! What the reductions of rows have in common: their shapes, and a backward that looks at each row.

use core::fmt::Debug;

use crate::autograd::{Function, Gradients, SavedTensor, record};
use crate::axes::Axes;
use crate::dtype::{Real, dispatch};
use crate::error::{Call, ErrorKind, Result};
use crate::ops::rows::{Rows, widened};
use crate::tensor::Tensor;

/// A number from a row.
pub(super) trait Reduction: Debug + Send + Sync + 'static {
    /// The name of its backward.
    const BACKWARD: &'static str;

    /// Whether an empty row has a value.
    const OF_EMPTY: bool;

    /// The number.
    fn value<A: Real>(&self, row: &[A]) -> A;

    /// Puts the gradient of the row in its place, from that of the value. The value is computed anew:
    /// in half precision the output is a rounded one, too far off near 1000 for its distance from the
    /// row to mean anything.
    fn gradient<A: Real>(&self, row: &mut [A], grad: A);
}

/// The reduction over `axes` of `x`, an operand of `call`.
pub(super) fn reduce<R: Reduction>(
    call: Call<'_>,
    x: &Tensor,
    axes: impl Into<Axes>,
    reduction: R,
) -> Result<Tensor> {
    let axes = axes.into();
    let resolved = axes.resolve(call, x.shape())?;
    let input = SavedTensor::new(x);
    let rows = Rows::new(call, x, &resolved)?;
    if rows.length == 0 && !R::OF_EMPTY {
        let axes = resolved;
        return Err(call.error(ErrorKind::EmptyReduction { axes }));
    }
    let shape = axes.reduced(x.shape(), &resolved);
    let output =
        dispatch!(x.dtype(), T => rows.reduce::<T>(call, &shape, |row| reduction.value(row)))?;
    Ok(record(output, &[x], || ReductionBackward {
        reduction,
        axes: resolved,
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
                self.reduction.gradient(row, grads[number]);
            })
        })?;
        Ok(vec![Some(gradient)])
    }
}
