//! What an optimiser does to a parameter: one pass over it, its gradient and its state.

use num_traits::Float;

use crate::autograd::is_grad_enabled;
use crate::dtype::{Scalar, dispatch};
use crate::error::{Call, ErrorKind, Result};
use crate::ops::elementwise;
#[cfg(feature = "parallel")]
use crate::storage::Buffer;
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
    /// It must not use a tensor. On one thread it runs while the parameter is locked for writing, so
    /// **reading the parameter here deadlocks**. Compute a number that depends on tensors, such as a norm,
    /// before, and keep it in the rule. It may be called twice for an element, with the same numbers, if
    /// another thread writes to the parameter meanwhile.
    ///
    /// If it panics, elements that it was called for may have changed, each with its state. That counts
    /// as a write: a backward that needs the parameter as it was returns an error.
    fn apply<A: Scalar + Float>(&self, parameter: A, gradient: A, state: [A; N]) -> (A, [A; N]);
}

impl Tensor {
    /// Changes every element by a rule, from the same element of `gradient` and of `state`, which
    /// changes too; in one pass over the memory, on several threads if it is long enough (feature
    /// `parallel`).
    ///
    /// `gradient` has the shape of this tensor, and its dtype or that of
    /// [its arithmetic](crate::DType::arithmetic). `state` has its shape, and the dtype of its arithmetic:
    /// f16 and bf16 are widened, computed with, and rounded once, while their state stays f32. A handle to a
    /// former state keeps its values.
    ///
    /// Several threads write to new memory, which then takes the place of the old: no lock is held while
    /// they work, and so none that a task of the pool could want that runs on this thread meanwhile.
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
        self.update_by(None, gradient, state, rule)
    }

    /// [`update`](Tensor::update) of a tensor of f16 or bf16 by way of `master`, the same numbers in f32: the
    /// rule changes those, and the elements of this tensor are what they round to. So steps that are too
    /// small for 16 bits add up.
    ///
    /// An element that is not what its number in `master` rounds to was written by somebody else; it
    /// counts, and `master` continues from it.
    ///
    /// # Errors
    ///
    /// If `master` has not the shape of this tensor and the dtype of its arithmetic; and as
    /// [`update`](Tensor::update).
    ///
    /// ```
    /// use sorix_core::num_traits::Float;
    /// use sorix_core::{DType, Scalar, UpdateRule, tensor};
    ///
    /// struct Descent;
    /// impl UpdateRule<0> for Descent {
    ///     fn apply<A: Scalar + Float>(&self, w: A, gradient: A, _: [A; 0]) -> (A, [A; 0]) {
    ///         (w - gradient, [])
    ///     }
    /// }
    ///
    /// let w = tensor([1.0]).to_dtype(DType::BF16)?; // the next number below is 1 - 2^-8
    /// let mut master = w.to_dtype(DType::F32)?;
    /// let gradient = tensor([1.0 / 1024.0]).to_dtype(DType::BF16)?;
    /// for _ in 0..8 {
    ///     w.update_master(&mut master, &gradient, &mut [], &Descent)?;
    /// }
    /// assert_eq!(w.to_dtype(DType::F64)?.item::<f64>()?, 1.0 - 8.0 / 1024.0);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn update_master<const N: usize>(
        &self,
        master: &mut Self,
        gradient: &Self,
        state: &mut [Self; N],
        rule: &impl UpdateRule<N>,
    ) -> Result<()> {
        self.update_by(Some(master), gradient, state, rule)
    }

    fn update_by<const N: usize>(
        &self,
        master: Option<&mut Self>,
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
        let (own, wide) = (self.dtype(), self.dtype().arithmetic());
        let of_gradient = if gradient.dtype() == wide { wide } else { own };
        call.expect(gradient, self.shape(), of_gradient)?;
        for kept in state.iter().chain(master.as_deref()) {
            call.expect(kept, self.shape(), wide)?;
        }
        if !self.is_contiguous() {
            // What is kept changes where the elements have, which the last step may refuse.
            let (copy, mut next) = (elementwise::copy(call, self)?, state.clone());
            let mut next_master = master.as_deref().cloned();
            copy.update_by(next_master.as_mut(), gradient, &mut next, rule)?;
            self.assign(&copy)?;
            *state = next;
            if let (Some(master), Some(next)) = (master, next_master) {
                *master = next;
            }
            return Ok(());
        }
        let gradient = gradient.contiguous()?;
        let kept = state.iter_mut().chain(master);
        let mut kept: Vec<&mut Self> = kept.collect();
        dispatch!(own, T => if of_gradient == own {
            self.update_elements::<T, T, N>(call, &gradient, &mut kept, rule)
        } else {
            self.update_elements::<T, <T as Scalar>::Acc, N>(call, &gradient, &mut kept, rule)
        })
    }

    /// Updates a contiguous tensor by a contiguous gradient. `kept` are the N tensors of state and, after
    /// them, the master numbers if there are any.
    fn update_elements<T: Scalar, G: Scalar<Acc = T::Acc>, const N: usize>(
        &self,
        call: Call<'_>,
        gradient: &Self,
        kept: &mut [&mut Self],
        rule: &impl UpdateRule<N>,
    ) -> Result<()> {
        let gradient = gradient.read();
        let gradient = gradient.contiguous::<G>();
        #[cfg(feature = "parallel")]
        if self.update_on_threads::<T, G, N>(call, gradient, kept, rule)? {
            return Ok(());
        }
        for kept in kept.iter_mut() {
            if kept.unshared_mut::<T::Acc>().is_none() {
                **kept = elementwise::copy(call, kept)?;
            }
        }
        let kept = kept.iter_mut().map(|kept| {
            kept.unshared_mut::<T::Acc>()
                .expect("it was made unshared above")
        });
        let kept = kept.collect();
        let (from, numel) = (self.layout().offset(), self.numel());
        self.storage().write(call, |buffer| {
            let parameter = &mut buffer.as_mut_slice::<T>()[from..from + numel];
            apply::<T, G, N>(parameter, gradient, kept, rule);
        })
    }

    /// [`update_elements`](Self::update_elements) in new memory, on the threads of the current pool.
    /// `false`, with nothing changed, if that does not pay or cannot be: the tensor is a small part of its
    /// storage, there is no memory, or somebody wrote to it meanwhile.
    #[cfg(feature = "parallel")]
    fn update_on_threads<T: Scalar, G: Scalar<Acc = T::Acc>, const N: usize>(
        &self,
        call: Call<'_>,
        gradient: &[G],
        kept: &mut [&mut Self],
        rule: &impl UpdateRule<N>,
    ) -> Result<bool> {
        use sorix_kernels::internal::parallel;

        /// Elements of a part: some 50 microseconds of one thread.
        const PART: usize = 1 << 14;
        /// What an element costs, compared with moving what it reads and writes.
        const COST: usize = 2;

        let numel = self.numel();
        let per_element =
            2 * size_of::<T>() + size_of::<G>() + 2 * kept.len() * size_of::<T::Acc>();
        let bytes = numel.saturating_mul(per_element * COST);
        if !parallel::threads_pay(bytes) {
            return Ok(false);
        }
        let before = self.storage().snapshot();
        let elements = before.as_slice::<T>();
        if numel < elements.len() / 2 {
            return Ok(false);
        }
        let memory = |bytes: usize| Buffer::for_overwrite(call, bytes).ok();
        let rooms = kept.iter().map(|_| memory(numel * size_of::<T::Acc>()));
        let (Some(mut room), Some(mut rooms)) = (
            memory(size_of_val(elements)),
            rooms.collect::<Option<Vec<Buffer>>>(),
        ) else {
            return Ok(false);
        };
        let contiguous = kept.iter().map(|kept| kept.contiguous());
        let old: Vec<Self> = contiguous.collect::<Result<_>>()?;
        let old: Vec<_> = old.iter().map(Self::read).collect();

        let from = self.layout().offset();
        let new = &mut room.as_mut_slice::<T>()[..elements.len()];
        let (head, rest) = new.split_at_mut(from);
        let (new, tail) = rest.split_at_mut(numel);
        head.copy_from_slice(&elements[..from]);
        tail.copy_from_slice(&elements[from + numel..]);
        let mut rest: Vec<&mut [T::Acc]> = rooms
            .iter_mut()
            .map(|room| &mut room.as_mut_slice()[..numel])
            .collect();
        let parts = new.chunks_mut(PART).map(|new| {
            let kept = rest.iter_mut().map(|rest| {
                let part = rest.split_off_mut(..new.len());
                part.expect("there is one for each element")
            });
            (kept.collect(), new)
        });
        type Part<'a, T> = (Vec<&'a mut [<T as Scalar>::Acc]>, &'a mut [T]);
        let mut parts: Vec<Part<'_, T>> = parts.collect();
        elementwise::for_each_chunk(&mut parts, 1, bytes, |k, parts| {
            for (kept, new) in parts {
                let at = k * PART;
                new.copy_from_slice(&elements[from + at..][..new.len()]);
                for (kept, old) in kept.iter_mut().zip(&old) {
                    kept.copy_from_slice(&old.contiguous::<T::Acc>()[at..][..kept.len()]);
                }
                apply::<T, G, N>(new, &gradient[at..], core::mem::take(kept), rule);
            }
        });
        if !self.storage().replace(&before, room) {
            return Ok(false);
        }
        for (kept, room) in kept.iter_mut().zip(rooms) {
            **kept = Self::from_buffer(room, self.shape(), T::Acc::DTYPE);
        }
        Ok(true)
    }
}

/// The rule at each element of a parameter; the others are at least as long. `kept` are the N states and
/// perhaps the master numbers.
fn apply<T: Scalar, G: Scalar<Acc = T::Acc>, const N: usize>(
    parameter: &mut [T],
    gradient: &[G],
    mut kept: Vec<&mut [T::Acc]>,
    rule: &impl UpdateRule<N>,
) {
    let numel = parameter.len();
    let gradient = &gradient[..numel];
    let master = (kept.len() > N).then(|| kept.pop().expect("it is longer than N"));
    let state: [&mut [T::Acc]; N] = kept.try_into().expect("the caller gives N states");
    let mut state = state.map(|state| &mut state[..numel]);
    let mut step = |i: usize, x: T::Acc| {
        let kept = core::array::from_fn(|k| state[k][i]);
        let (element, kept) = rule.apply(x, gradient[i].to_acc(), kept);
        for k in 0..N {
            state[k][i] = kept[k];
        }
        element
    };
    let Some(master) = master else {
        for (i, parameter) in parameter.iter_mut().enumerate() {
            *parameter = T::from_acc(step(i, parameter.to_acc()));
        }
        return;
    };
    let master = &mut master[..numel];
    for i in 0..numel {
        let rounded = T::from_acc(master[i]);
        let is_own = bytemuck::bytes_of(&rounded) == bytemuck::bytes_of(&parameter[i]);
        let x = if is_own {
            master[i]
        } else {
            parameter[i].to_acc()
        };
        master[i] = step(i, x);
        parameter[i] = T::from_acc(master[i]);
    }
}
