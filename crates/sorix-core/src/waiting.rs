//! Waits of the user's own, for rayon.

/// Runs `f`, which gives work to a rayon pool and waits for it: by `rayon::join`, a parallel iterator,
/// `scope`, `yield_now` or `install`.
///
/// A thread of a pool that waits does not sleep: it runs whatever task of its pool it finds. Within this,
/// such a task does not see the scopes that are open around the call (`no_grad`, `batch_invariant`, a Monte
/// Carlo scope, a checkpoint's tape); and the operations of this crate in it count the wait, so that at most
/// two tasks wait on one stack. `f` itself does not see the scopes either: what it gives to the pool opens its
/// own. Without rayon at work it is a plain call of `f`.
///
/// ```
/// use sorix_core::autograd::{is_grad_enabled, no_grad};
/// use sorix_core::{tensor, waiting};
///
/// let w = tensor([2.0]).requires_grad(true);
/// let negative = || no_grad(|| w.neg());
/// let (a, b) = no_grad(|| waiting(|| rayon::join(negative, negative)));
/// assert!(!a?.needs_grad() && !b?.needs_grad());
/// assert!(no_grad(|| waiting(is_grad_enabled)));
/// # Ok::<(), sorix_core::Error>(())
/// ```
pub fn waiting<R>(f: impl FnOnce() -> R) -> R {
    sorix_kernels::internal::parallel::waiting(f)
}
