//! Whether operations record themselves, per thread.

use core::cell::Cell;
use core::marker::PhantomData;

thread_local! {
    static ENABLED: Cell<bool> = const { Cell::new(true) };
}

/// Whether operations on this thread record themselves; `true` when a thread starts.
///
/// ```
/// use sorix_core::autograd::{is_grad_enabled, no_grad};
/// assert!(is_grad_enabled());
/// no_grad(|| assert!(!is_grad_enabled()));
/// ```
#[must_use]
pub fn is_grad_enabled() -> bool {
    ENABLED.get()
}

/// Runs `f` without recording any operation of this thread.
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

/// Restores, when dropped, whether operations record themselves; from [`no_grad_guard`].
#[derive(Debug)]
pub struct GradModeGuard {
    previous: bool,
    // The mode is the thread's, so the guard has to stay there.
    not_send: PhantomData<*const ()>,
}

impl GradModeGuard {
    fn set(enabled: bool) -> Self {
        Self {
            previous: ENABLED.replace(enabled),
            not_send: PhantomData,
        }
    }
}

impl Drop for GradModeGuard {
    fn drop(&mut self) {
        ENABLED.set(self.previous);
    }
}
