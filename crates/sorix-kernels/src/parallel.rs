//! Threads: a large job is cut at tiles, or at rows, and its parts are done by this thread and the rayon pool.
//!
//! What is computed does not depend on where the cuts are, so neither the number of threads nor
//! their schedule shows in a result.
//!
//! # For crates on top
//!
//! They share out a loop if [`threads_pay`] says so, and within [`waiting`].
//!
//! A thread of a rayon pool that waits for others does not sleep: it runs whatever task of its pool it
//! finds. What a thread-local variable says of the work at hand, such as whether it is recorded, must
//! not reach such a task. So the calls of [`waiting`] that a thread is in are counted, and [`waits`] tells
//! its tasks apart: sorix-core's scopes go by it.

use core::cell::Cell;

#[cfg(feature = "parallel")]
use crate::threads;
#[cfg(feature = "parallel")]
pub use crate::threads::{ThreadsError, threads};

#[cfg(feature = "parallel")]
pub(crate) use crate::job::Split;
#[cfg(feature = "parallel")]
use crate::stream::TILE;

/// Without threads nothing is cut, and any job will do.
#[cfg(not(feature = "parallel"))]
pub(crate) trait Split {}

#[cfg(not(feature = "parallel"))]
impl<J> Split for J {}

/// Does `job` by calling `kernel` on it whole or in parts.
///
/// `bytes` is the memory that the job reads and writes; below a threshold no thread is woken.
#[cfg(feature = "parallel")]
pub(crate) fn run<J: Split>(job: J, bytes: usize, kernel: &(impl Fn(J) + Sync)) {
    if !threads_pay(bytes) {
        return kernel(job);
    }
    let parts = (bytes / MIN_BYTES_OF_PART).min(PARTS_PER_THREAD * rayon::current_num_threads());
    // Not `join`: called from outside the pool, that would put this thread to sleep and all of the
    // pool to work, one thread more than there are cores to change places with.
    let share_out = || {
        rayon::in_place_scope(|scope| {
            let mut rest = job;
            for parts in (2..=parts).rev() {
                let Some(mid) = rest.cut(parts) else {
                    break;
                };
                let (part, more) = rest.split_at(mid);
                scope.spawn(move |_| kernel(part));
                rest = more;
            }
            kernel(rest);
        });
    };
    waiting(share_out);
}

#[cfg(not(feature = "parallel"))]
pub(crate) fn run<J: Split>(job: J, _bytes: usize, kernel: &(impl Fn(J) + Sync)) {
    kernel(job);
}

/// Whether a job that reads and writes so many bytes, at the speed of a memory copy, is long enough
/// to share out to the threads of the current rayon pool: from 2 MiB on when called from a thread of
/// the pool. A call from outside has to wake its threads first, which takes another time on every machine:
/// the first such call of 2 MiB measures it, in less than a millisecond, and a job is shared out if that
/// saves at least four times as much. Never without the feature `parallel`, and never where one
/// [may not wait](may_wait). For a job that does more than a copy, give the bytes that a copy would move in
/// the same time.
///
/// ```
/// assert!(!sorix_kernels::internal::parallel::threads_pay(1000));
/// ```
#[must_use]
pub fn threads_pay(bytes: usize) -> bool {
    #[cfg(feature = "parallel")]
    {
        // The threads are asked for last: that starts them, which a small job has no use for.
        bytes >= MIN_BYTES
            && may_wait()
            && (rayon::current_thread_index().is_some() || pays_to_wake(bytes))
    }
    #[cfg(not(feature = "parallel"))]
    {
        let _ = bytes;
        false
    }
}

/// Whether work may be given to the current rayon pool and waited for; never without the feature
/// `parallel`. It may not
///
/// * if the pool has one thread, or if its threads could not be started;
/// * in a process made by `fork` after a pool was used here, unless on a thread of a pool that this
///   process has made: the threads of the others stayed with the parent;
/// * on a thread on which two tasks wait already, one above the other. A thread of a pool that waits
///   runs other tasks on the same stack, which then wait in turn: the stack would overflow, and the task
///   that waited first would go on last.
///
/// ```
/// use sorix_kernels::internal::parallel::{may_wait, waiting};
/// let deep = || waiting(|| waiting(may_wait));
/// assert!(!deep());
/// ```
#[must_use]
pub fn may_wait() -> bool {
    #[cfg(feature = "parallel")]
    {
        WAITS.get() < MAX_WAITS && threads::are_there() && rayon::current_num_threads() > 1
    }
    #[cfg(not(feature = "parallel"))]
    {
        false
    }
}

/// [`may_wait`] for threads of this pool, which may be another one than the current.
#[cfg(feature = "parallel")]
#[must_use]
pub fn may_wait_for(pool: &rayon::ThreadPool) -> bool {
    WAITS.get() < MAX_WAITS && threads::is_of_this_process(pool.current_thread_index().is_some())
}

/// Tasks that wait on one stack, at most. A sample of Monte Carlo dropout and an operation in it are two
/// of one request, and so are a stack of products and one of them.
#[cfg(feature = "parallel")]
const MAX_WAITS: usize = 2;

thread_local! {
    /// How many calls of [`waiting`] this thread is in.
    static WAITS: Cell<usize> = const { Cell::new(0) };
}

/// Runs `f`, which gives work to a rayon pool and waits for it, so that other tasks may run on this
/// thread meanwhile. They, and `f`, see one more of [`waits`].
///
/// ```
/// use sorix_kernels::internal::parallel::{waiting, waits};
/// assert_eq!(waits(), 0);
/// assert_eq!(waiting(|| waiting(waits)), 2);
/// assert_eq!(waits(), 0);
/// ```
pub fn waiting<R>(f: impl FnOnce() -> R) -> R {
    /// Also where `f` panics.
    struct Waited(usize);
    impl Drop for Waited {
        fn drop(&mut self) {
            WAITS.set(self.0);
        }
    }
    let waits = WAITS.get();
    let _waited = Waited(waits);
    WAITS.set(waits + 1);
    f()
}

/// How many calls of [`waiting`] this thread is in. Two tasks of a thread, of which one runs while the
/// other waits, have different numbers.
#[must_use]
pub fn waits() -> usize {
    WAITS.get()
}

/// Whether a job of so many bytes, called from outside the pool, is worth waking its threads for.
///
/// One thread takes `bytes` at the speed of a copy; `n` threads take the n-th part of that, and the time to
/// wake them. What is saved has to be a multiple of what is paid, since a thread that was woken may have to
/// wait for a core, for which the caller then waits, too: it cannot take back what it has given away.
#[cfg(feature = "parallel")]
fn pays_to_wake(bytes: usize) -> bool {
    let one = bytes as f64 / COPY_BYTES_PER_SECOND;
    let saved = one - one / rayon::current_num_threads() as f64;
    saved >= SAVED_AT_LEAST * threads::seconds_to_wake()
}

/// What a core copies, reading and writing: 8 to 20 on the servers seen, where the copy is beyond the
/// level 2 cache.
#[cfg(feature = "parallel")]
const COPY_BYTES_PER_SECOND: f64 = 1e10;

/// How many times the time to wake the threads has to be saved.
#[cfg(feature = "parallel")]
const SAVED_AT_LEAST: f64 = 4.0;

/// Bytes read and written from which on a job is cut.
///
/// Measured on two Zen 5 cores with calls back to back: from 2 MiB on (20 microseconds of one
/// thread) two threads took 1.6 to 1.9 times less, as long as the other one was awake; at 512 KiB
/// they took as long as one.
#[cfg(feature = "parallel")]
const MIN_BYTES: usize = 2 << 20;

/// Bytes read and written by a part, at least.
#[cfg(feature = "parallel")]
const MIN_BYTES_OF_PART: usize = 512 << 10;

/// More than one, so that a thread that was late or was interrupted does not keep the others
/// waiting for all of its share.
#[cfg(feature = "parallel")]
const PARTS_PER_THREAD: usize = 4;

/// Where to cut the first of `parts` equal parts off a job that begins at element `first` of its
/// mask: at a tile, so that no tile is made twice; or, where the job does not begin at a word of the
/// mask, at the last whole word of its own before a tile. `None` where there is no tile to cut at.
#[cfg(feature = "parallel")]
pub(crate) fn cut(first: u64, len: usize, parts: usize) -> Option<usize> {
    let wanted = len / parts;
    // How far the wanted cut is beyond the start of its tile.
    let beyond = ((first % TILE as u64) as usize + wanted) % TILE;
    let mid = wanted.checked_sub(beyond)? / 64 * 64;
    (0 < mid && mid < len).then_some(mid)
}
