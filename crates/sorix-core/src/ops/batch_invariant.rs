//! Rows that do not depend on how many there are.

use core::cell::RefCell;

use crate::autograd::Scopes;

thread_local! {
    static ON: RefCell<Scopes<()>> = const { RefCell::new(Scopes::new()) };
}

/// Runs `f` with products of matrices whose rows do not depend on the number of rows.
///
/// Within `f` each row of [`matmul`](crate::Tensor::matmul) has the same bits in a batch of any size: a
/// service that collects requests into batches answers a request the same way whoever else is in its
/// batch. The other operations on rows are like that anyway. Without this scope a product chooses
/// its kernel by the number of rows, and batches of 1 and 2 differ from larger ones in their last bits.
///
/// It costs nothing from two rows on. For a single row the kernel for a matrix and a vector is left out:
/// `[1, 256] x [256, 256]` then takes 1.14 times as long, and larger matrices 0.8 to 0.95 times
/// (f32, AVX-512; the guide `docs/serving.md` has the table).
///
/// The scope belongs to the calling thread: what `f` gives to other threads enters it there. Like
/// [`no_grad`](crate::autograd::no_grad), it is out of sight of other tasks that a thread of a rayon pool
/// runs while an operation waits.
///
/// ```
/// use sorix_core::{DType, MaskKey, Tensor, batch_invariant};
///
/// let key = MaskKey { seed: 1, offset: 0 };
/// let weight = Tensor::randn([100, 30], DType::F32, key)?;
/// let batch = Tensor::randn([64, 100], DType::F32, MaskKey { seed: 2, offset: 0 })?;
/// batch_invariant(|| {
///     let together = batch.matmul(&weight)?.slice(0, 7..8)?;
///     let alone = batch.slice(0, 7..8)?.matmul(&weight)?;
///     assert_eq!(alone.to_vec::<f32>()?, together.to_vec::<f32>()?);
///     Ok(())
/// })
/// # .map_err(|error: sorix_core::Error| error)?;
/// # Ok::<(), sorix_core::Error>(())
/// ```
pub fn batch_invariant<R>(f: impl FnOnce() -> R) -> R {
    let _scope = Scopes::open(&ON, ());
    f()
}

/// Whether [`batch_invariant`] is open on this thread.
///
/// ```
/// use sorix_core::{batch_invariant, is_batch_invariant};
/// assert!(!is_batch_invariant());
/// assert!(batch_invariant(is_batch_invariant));
/// ```
#[must_use]
pub fn is_batch_invariant() -> bool {
    ON.with_borrow_mut(|scopes| scopes.of_task().next().is_some())
}
