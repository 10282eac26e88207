//! [`Workspaces`]: rows shared out to threads, each with memory to work in.

use core::marker::PhantomData;

use crate::dtype::Scalar;
use crate::error::{Call, Result};
use crate::storage::Buffer;

/// Consecutive rows are worked on in one workspace by one thread.
///
/// Each row is computed alone, so neither the number of workspaces nor of threads shows in a result.
pub(super) struct Workspaces<A> {
    memory: Buffer,
    /// Elements of a workspace.
    room: usize,
    /// Rows that are worked on in each; the last one may have fewer.
    rows: usize,
    arithmetic: PhantomData<A>,
}

/// What is done with a row; see [`Workspaces::for_each`].
type OfRow<'f, U, A> = dyn Fn(usize, &mut [U], &mut [A]) + Sync + 'f;

impl<A: Scalar> Workspaces<A> {
    /// With room for so many elements each, for so many rows of so many bytes.
    pub(super) fn new(call: Call<'_>, room: usize, rows: usize, bytes: usize) -> Result<Self> {
        let count = count(rows.saturating_mul(bytes)).clamp(1, rows.max(1));
        let elements = room.saturating_mul(count);
        Ok(Self {
            memory: Buffer::for_overwrite(call, elements.saturating_mul(A::DTYPE.size()))?,
            room,
            rows: rows.div_ceil(count).max(1),
            arithmetic: PhantomData,
        })
    }

    /// `f` of each row's number, of the `width` elements of `out` that are the row's, and of the
    /// workspace, in which `f` finds anything.
    pub(super) fn for_each<U: Send>(
        &mut self,
        out: &mut [U],
        width: usize,
        f: impl Fn(usize, &mut [U], &mut [A]) + Sync,
    ) {
        self.share_out(out, width.max(1), &f);
    }

    /// [`for_each`](Self::for_each) through a pointer, so that what shares out is compiled once for a type.
    fn share_out<U: Send>(&mut self, out: &mut [U], width: usize, f: &OfRow<'_, U, A>) {
        let room = self.room;
        let memory = self.memory.as_mut_slice();
        let work = |first: usize, out: &mut [U], memory: &mut [A]| {
            for (i, out) in out.chunks_mut(width).enumerate() {
                f(first + i, out, memory);
            }
        };
        #[cfg(feature = "parallel")]
        if out.len() / width > self.rows {
            use rayon::prelude::*;
            use sorix_kernels::internal::parallel;

            // Not `chunks_mut`, which makes nothing of no room.
            let mut rest = memory;
            let memories: Vec<_> = (0..(out.len() / width).div_ceil(self.rows))
                .map(|_| rest.split_off_mut(..room).expect("as many were made"))
                .collect();
            let parts = out.par_chunks_mut(self.rows * width).zip(memories);
            let parts = parts.enumerate();
            return parallel::waiting(|| {
                parts.for_each(|(k, (out, memory))| work(k * self.rows, out, memory));
            });
        }
        debug_assert!(out.len() / width <= self.rows);
        work(0, out, &mut memory[..room]);
    }
}

/// How many workspaces pay for rows of so many bytes in all.
fn count(bytes: usize) -> usize {
    #[cfg(feature = "parallel")]
    {
        use sorix_kernels::internal::parallel;

        /// What a row costs, compared with moving it to and from memory: it is looked at several
        /// times, and often goes through an exponential.
        const COST: usize = 8;
        /// More than one, so that a thread that was late does not keep the others waiting.
        const PER_THREAD: usize = 4;

        if parallel::threads_pay(bytes.saturating_mul(COST)) {
            return PER_THREAD * rayon::current_num_threads();
        }
    }
    let _ = bytes;
    1
}
