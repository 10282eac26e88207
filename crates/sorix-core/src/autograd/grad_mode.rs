//! Whether operations record themselves, per thread.
//!
//! A task that a thread of a rayon pool takes up while an operation of this crate waits for others does
//! not see the mode of the task that waits: the modes are [`Scopes`].

use core::cell::RefCell;

use crate::autograd::scopes::{ScopeGuard, Scopes};

thread_local! {
    static ENABLED: RefCell<Scopes<bool>> = const { RefCell::new(Scopes::new()) };
}

/// Whether operations on this thread record themselves; `true` when a thread starts, and when a task
/// of a rayon pool does.
///
/// ```
/// use sorix_core::autograd::{is_grad_enabled, no_grad};
/// assert!(is_grad_enabled());
/// no_grad(|| assert!(!is_grad_enabled()));
/// ```
#[must_use]
pub fn is_grad_enabled() -> bool {
    ENABLED.with_borrow_mut(|modes| modes.of_task().next().copied().unwrap_or(true))
}

/// Runs `f` without recording any operation of this thread.
///
/// What `f` itself gives to other threads, by `rayon::join` or a parallel iterator, has to call this
/// there; and what rayon runs on this thread while `f` waits for them is not recorded either. The
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
