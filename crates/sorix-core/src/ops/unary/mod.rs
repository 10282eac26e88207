//! Functions of one number, applied to every element: a file for each, all of one shape.
//!
//! A file names its function by a type that implements [`Unary`]: the value, and the gradient from
//! what is saved. [`apply`] and [`UnaryBackward`] do the rest for all of them. Those that the kernels have, which
//! are many times faster, are named by a [`Mapped`](mapped::Mapped) instead.

mod abs;
mod clamp;
mod exp;
mod expm1;
mod gelu;
mod log;
mod log1p;
mod mapped;
mod powf;
mod relu;
mod selu;
mod sigmoid;
mod silu;
mod softplus;
mod sqrt;
mod tanh;

use core::fmt::Debug;

use crate::autograd::{Function, Gradients, SavedTensor, record};
use crate::dtype::{Real, dispatch};
use crate::error::{Call, Result};
use crate::ops::elementwise::{self, Cost};
use crate::tensor::Tensor;

/// A function of one number.
trait Unary: Debug + Send + Sync + 'static {
    /// The operation's name in errors.
    const OP: &'static str;

    /// The name of its backward.
    const BACKWARD: &'static str;

    /// What the gradient is computed from. The output is as good as free where the next operation
    /// saves it too, as its input, but it was rounded: the slope of a function that has come near to a
    /// limit is lost in it.
    const SAVED: Saved;

    /// What the function costs.
    const COST: Cost;

    /// What the gradient costs.
    const GRADIENT_COST: Cost;

    /// The function.
    fn value<A: Real>(&self, x: A) -> A;

    /// The gradient at `saved`, from that of the value.
    fn gradient<A: Real>(&self, saved: A, grad: A) -> A;
}

/// What a [`Unary`] saves for backward.
enum Saved {
    Input,
    Output,
}

fn apply<U: Unary>(x: &Tensor, unary: U) -> Result<Tensor> {
    let input = SavedTensor::new(x);
    let call = Call::on(U::OP, x);
    let output =
        dispatch!(x.dtype(), T => elementwise::map::<T>(call, x, U::COST, |x| unary.value(x)))?;
    let saved = match U::SAVED {
        Saved::Input => input,
        Saved::Output => SavedTensor::new(&output),
    };
    Ok(record(output, &[x], || UnaryBackward { unary, saved }))
}

#[derive(Debug)]
struct UnaryBackward<U> {
    unary: U,
    saved: SavedTensor,
}

impl<U: Unary> Function for UnaryBackward<U> {
    fn name(&self) -> &'static str {
        U::BACKWARD
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let saved = &self.saved.get(self)?;
        let call = Call::on_two(self.name(), saved, &grad);
        let gradient = dispatch!(grad.dtype(), T => {
            elementwise::zip::<T>(call, saved, &grad, U::GRADIENT_COST, |saved, grad| {
                self.unary.gradient(saved, grad)
            })
        })?;
        Ok(vec![Some(gradient)])
    }
}
