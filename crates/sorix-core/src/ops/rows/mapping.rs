//! What `standardize` and `normalize` have in common: they map rows to rows, with an epsilon that keeps a
//! divisor from 0, and backward looks at the rows of the input again.

use core::fmt::Debug;
use core::marker::PhantomData;

use crate::autograd::{Function, Gradients, SavedTensor, record};
use crate::dtype::{Real, dispatch};
use crate::error::{Call, ErrorKind, Result};
use crate::ops::rows::Rows;
use crate::shape::resolve_axes;
use crate::tensor::Tensor;

/// A row from a row.
pub(super) trait Mapping: Debug + Send + Sync + 'static {
    /// The name of its backward.
    const BACKWARD: &'static str;

    /// Puts the row that `x` is mapped to in its place.
    fn value<A: Real>(x: &mut [A], epsilon: f64);

    /// Puts the gradient of `x` in its place, from that of the row that it is mapped to.
    fn gradient<A: Real>(x: &mut [A], grad: &[A], epsilon: f64);
}

/// The rows over `axes` of `x`, an operand of `call`, as they are mapped.
pub(super) fn map<M: Mapping>(
    call: Call<'_>,
    x: &Tensor,
    axes: &[isize],
    epsilon: f64,
) -> Result<Tensor> {
    let axes = resolve_axes(call, axes, x.shape())?;
    if !(epsilon >= 0.0 && epsilon.is_finite()) {
        return Err(call.error(ErrorKind::Epsilon { epsilon }));
    }
    let input = SavedTensor::new(x);
    let rows = Rows::new(call, x, &axes)?;
    let output =
        dispatch!(x.dtype(), T => rows.map::<T>(call, |_, row, _| M::value(row, epsilon)))?;
    Ok(record(output, &[x], || MappingBackward {
        mapping: PhantomData::<M>,
        axes,
        epsilon,
        input,
    }))
}

#[derive(Debug)]
struct MappingBackward<M> {
    mapping: PhantomData<M>,
    axes: Vec<usize>,
    epsilon: f64,
    input: SavedTensor,
}

impl<M: Mapping> Function for MappingBackward<M> {
    fn name(&self) -> &'static str {
        M::BACKWARD
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let call = Call::on(self.name(), &grad);
        let inputs = Rows::new(call, &self.input.get(self)?, &self.axes)?;
        let grads = Rows::new(call, &grad, &self.axes)?;
        let gradient = dispatch!(grad.dtype(), T => {
            inputs.map_with::<T>(call, &grads, |x, grad| M::gradient(x, grad, self.epsilon))
        })?;
        Ok(vec![Some(gradient)])
    }
}
