//! What an optimiser does to a parameter: one pass over it, its gradient and its state.

use num_traits::Float;

use crate::autograd::is_grad_enabled;
use crate::dtype::{Scalar, dispatch};
use crate::error::{Call, ErrorKind, Result};
use crate::ops::elementwise;
use crate::tensor::Tensor;

/// How one element of a parameter changes, for [`Tensor::update`]: an optimiser's formula.
///
/// `N` is the number of values that are kept per element from one step to the next.
///
/// ```
/// use sorix_core::autograd::no_grad;
/// use sorix_core::num_traits::Float;
/// use sorix_core::{Scalar, UpdateRule, tensor};
///
/// /// A step against the sign of the gradient.
/// struct SignDescent {
///     learning_rate: f64,
/// }
///
/// impl UpdateRule<0> for SignDescent {
///     fn apply<A: Scalar + Float>(&self, parameter: A, gradient: A, _: [A; 0]) -> (A, [A; 0]) {
///         (parameter - gradient.signum() * A::nearest(self.learning_rate), [])
///     }
/// }
///
/// let w = tensor([1.0, 2.0]).requires_grad(true);
/// let rule = SignDescent { learning_rate: 0.5 };
/// no_grad(|| w.update(&tensor([-7.0, 0.1]), &mut [], &rule))?;
/// assert_eq!(w.to_vec::<f64>()?, [1.5, 1.5]);
/// # Ok::<(), sorix_core::Error>(())
/// ```
pub trait UpdateRule<const N: usize>: Sync {
    /// The new element, and what to keep, from the element, its gradient and what was kept.
    ///
    /// `A` is f64 for a parameter of f64, and f32 for the others.
    ///
    /// It must not use a tensor. It runs while the parameter is locked for writing, so **reading the
    /// parameter here deadlocks**. (To run it unlocked would take a copy of the parameter, and the pass
    /// is there to move each byte once.) Compute a number that depends on tensors, such as a norm,
    /// before, and keep it in the rule.
    ///
    /// If it panics, elements that it was called for may have changed, each with its state. That counts
    /// as a write: a backward that needs the parameter as it was returns an error.
    fn apply<A: Scalar + Float>(&self, parameter: A, gradient: A, state: [A; N]) -> (A, [A; N]);
}

impl Tensor {
    /// Changes every element by a rule, from the same element of `gradient` and of `state`, which
    /// changes too; in place and in one pass over the memory.
    ///
    /// `gradient` has the shape and dtype of this tensor. `state` has its shape, and the dtype of
    /// [its arithmetic](crate::DType::arithmetic): f16 and bf16 are widened, computed with, and rounded
    /// once, while their state stays f32. A handle to a former state keeps its values.
    ///
    /// # Errors
    ///
    /// If shapes or dtypes are others; if this tensor requires a gradient and [operations are
    /// recorded](crate::autograd::is_grad_enabled), as this one would not be; if this tensor is
    /// expanded; if allocation fails.
    ///
    /// For an example see [`UpdateRule`].
    pub fn update<const N: usize>(
        &self,
        gradient: &Self,
        state: &mut [Self; N],
        rule: &impl UpdateRule<N>,
    ) -> Result<()> {
        let call = Call::on_two("update", self, gradient);
        if is_grad_enabled() && self.needs_grad() {
            return Err(call.error(ErrorKind::WriteNeedsNoGrad));
        }
        if self.is_expanded() {
            let strides = self.strides().to_vec();
            return Err(call.error(ErrorKind::WriteToExpanded { strides }));
        }
        call.expect(gradient, self.shape(), self.dtype())?;
        for state in &*state {
            call.expect(state, self.shape(), self.dtype().arithmetic())?;
        }
        if !self.is_contiguous() {
            // The state changes where the elements have, which the last step may refuse.
            let (copy, mut next) = (elementwise::copy(call, self)?, state.clone());
            copy.update(gradient, &mut next, rule)?;
            self.assign(&copy)?;
            *state = next;
            return Ok(());
        }
        let gradient = gradient.contiguous()?;
        dispatch!(self.dtype(), T => self.update_elements::<T, N>(call, &gradient, state, rule))
    }

    fn update_elements<T: Scalar, const N: usize>(
        &self,
        call: Call<'_>,
        gradient: &Self,
        state: &mut [Self; N],
        rule: &impl UpdateRule<N>,
    ) -> Result<()> {
        for state in &mut *state {
            if state.unshared_mut::<T::Acc>().is_none() {
                *state = elementwise::copy(call, state)?;
            }
        }
        let state = state.each_mut().map(|state| {
            state
                .unshared_mut::<T::Acc>()
                .expect("it was made unshared above")
        });
        let gradient = gradient.read();
        let (from, numel) = (self.layout().offset(), self.numel());
        self.storage().write(call, |buffer| {
            let parameter = &mut buffer.as_mut_slice::<T>()[from..from + numel];
            apply(parameter, gradient.contiguous(), state, rule);
        })
    }
}

/// The rule at each element; all are of one length.
fn apply<T: Scalar, const N: usize>(
    parameter: &mut [T],
    gradient: &[T],
    state: [&mut [T::Acc]; N],
    rule: &impl UpdateRule<N>,
) {
    let numel = parameter.len();
    let gradient = &gradient[..numel];
    let state = state.map(|state| &mut state[..numel]);
    for i in 0..numel {
        let kept = core::array::from_fn(|k| state[k][i]);
        let (element, kept) = rule.apply(parameter[i].to_acc(), gradient[i].to_acc(), kept);
        parameter[i] = T::from_acc(element);
        for k in 0..N {
            state[k][i] = kept[k];
        }
    }
}
