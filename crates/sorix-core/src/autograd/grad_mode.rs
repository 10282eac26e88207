//! Whether operations record themselves, per thread and for the whole process.
//!
//! A task that a thread of a rayon pool takes up while an operation of this crate waits for others does
//! not see the mode of the task that waits: the modes are [`Scopes`].

use core::cell::RefCell;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::autograd::scopes::{ScopeGuard, Scopes};

thread_local! {
    static ENABLED: RefCell<Scopes<bool>> = const { RefCell::new(Scopes::new()) };
}

/// The [`NoGradEverywhere`]s that there are. Relaxed: the count says nothing of other memory, and whoever
/// starts a thread or a task makes what it has written visible there.
static EVERYWHERE: AtomicUsize = AtomicUsize::new(0);

/// Whether operations on this thread record themselves; `true` when a thread starts, and when a task
/// of a rayon pool does, unless [`no_grad_everywhere`] holds.
///
/// ```
/// use sorix_core::autograd::{is_grad_enabled, no_grad};
/// assert!(is_grad_enabled());
/// no_grad(|| assert!(!is_grad_enabled()));
/// ```
#[must_use]
pub fn is_grad_enabled() -> bool {
    let of_task = ENABLED.with_borrow_mut(|modes| modes.of_task().next().copied());
    of_task.unwrap_or_else(|| EVERYWHERE.load(Ordering::Relaxed) == 0)
}

/// Runs `f` without recording any operation **of this thread**, as PyTorch's `no_grad` does.
///
/// It does not reach the tasks that `f` gives to other threads, by `rayon::join` or a parallel iterator:
/// rayon tells nobody which task started which. They call this themselves; or the process uses
/// [`no_grad_everywhere`], or a model whose parameters are [frozen](crate::Tensor::freeze), which hold on
/// every thread. What rayon runs on this thread while `f` waits for such tasks is not recorded either. The
/// waits inside this crate's operations are safe: tasks that run in between do not see the mode.
///
/// ```
/// use sorix_core::autograd::no_grad;
/// use sorix_core::tensor;
/// let x = tensor([1.0]).requires_grad(true);
/// let y = no_grad(|| x.neg())?;
/// assert!(!y.needs_grad());
/// # Ok::<(), sorix_core::Error>(())
/// ```
pub fn no_grad<R>(f: impl FnOnce() -> R) -> R {
    let _guard = no_grad_guard();
    f()
}

/// No operation of any thread is recorded from now on, until the guard is dropped: for a process, or a
/// part of its life, that uses models and does not train. It holds in tasks of rayon too, whoever
/// started them.
///
/// It holds for whoever else works in the process meanwhile: a `backward` there finds nothing recorded,
/// and says so. [`enable_grad`] records within it, on its thread. Guards may be dropped in any order and on
/// any thread; the last one ends it.
///
/// ```standalone_crate
/// use rayon::prelude::*;
/// use sorix_core::autograd::{enable_grad, no_grad_everywhere};
/// use sorix_core::tensor;
///
/// let w = tensor([2.0]).requires_grad(true);
/// let guard = no_grad_everywhere();
/// let recorded = (0..100).into_par_iter().filter(|_| w.neg().unwrap().needs_grad());
/// assert_eq!(recorded.count(), 0);
/// assert!(enable_grad(|| w.neg())?.needs_grad());
/// drop(guard);
/// assert!(w.neg()?.needs_grad());
/// # Ok::<(), sorix_core::Error>(())
/// ```
#[must_use = "recording resumes when the guard is dropped"]
pub fn no_grad_everywhere() -> NoGradEverywhere {
    EVERYWHERE.fetch_add(1, Ordering::Relaxed);
    NoGradEverywhere(())
}

/// Ends, when dropped, what [`no_grad_everywhere`] began.
#[derive(Debug)]
pub struct NoGradEverywhere(());

impl Drop for NoGradEverywhere {
    fn drop(&mut self) {
        EVERYWHERE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs `f` with recording, also within [`no_grad`].
///
/// ```
/// use sorix_core::autograd::{enable_grad, no_grad};
/// use sorix_core::tensor;
/// let x = tensor([1.0]).requires_grad(true);
/// let y = no_grad(|| enable_grad(|| x.neg()))?;
/// assert!(y.needs_grad());
/// # Ok::<(), sorix_core::Error>(())
/// ```
pub fn enable_grad<R>(f: impl FnOnce() -> R) -> R {
    let _guard = GradModeGuard::set(true);
    f()
}

/// [`no_grad`] for the rest of a scope.
///
/// Guards may be dropped in any order: operations are recorded again when the last one goes.
///
/// ```
/// use sorix_core::autograd::{is_grad_enabled, no_grad_guard};
/// {
///     let _guard = no_grad_guard();
///     assert!(!is_grad_enabled());
/// }
/// assert!(is_grad_enabled());
/// ```
#[must_use = "recording resumes when the guard is dropped"]
pub fn no_grad_guard() -> GradModeGuard {
    GradModeGuard::set(false)
}

/// Ends, when dropped, what it says of whether operations record themselves; from [`no_grad_guard`].
#[derive(Debug)]
pub struct GradModeGuard {
    _scope: ScopeGuard<bool>,
}

impl GradModeGuard {
    fn set(enabled: bool) -> Self {
        Self {
            _scope: Scopes::open(&ENABLED, enabled),
        }
    }
}
