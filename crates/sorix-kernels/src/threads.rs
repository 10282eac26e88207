//! Whether there are threads to give work to.

use core::cell::Cell;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
use std::panic::catch_unwind;
use std::process;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// Why rayon's global pool has no threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadsError {
    reason: String,
}

impl fmt::Display for ThreadsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot start the threads of rayon's global pool: {}",
            self.reason
        )
    }
}

impl core::error::Error for ThreadsError {}

/// The number of threads of the current rayon pool. Called from outside a pool, that is the global
/// one, which is started if nothing has done so.
///
/// # Errors
///
/// If the threads of the global pool cannot be started. rayon does not try again in this process, and
/// its own functions panic from then on; those of sorix stay on the thread that calls them.
///
/// ```
/// assert!(sorix_kernels::internal::parallel::threads()? >= 1);
/// # Ok::<(), sorix_kernels::internal::parallel::ThreadsError>(())
/// ```
pub fn threads() -> Result<usize, ThreadsError> {
    if rayon::current_thread_index().is_none() {
        start_global()?;
    }
    Ok(rayon::current_num_threads())
}

/// Whether the current pool is one whose threads run, so that it can be waited for.
///
/// After a fork the child has none of its parent's threads, and whoever waited for them would wait for
/// ever. A pool that the child makes itself has its own.
pub(crate) fn are_there() -> bool {
    let of_a_pool = rayon::current_thread_index().is_some();
    is_of_this_process(of_a_pool) && (of_a_pool || start_global().is_ok())
}

/// Whether a pool has threads in this process, as far as can be known from a thread that is of that pool
/// or is not.
pub(crate) fn is_of_this_process(thread_is_of_a_pool: bool) -> bool {
    /// The process that asked first; 0 before.
    static FIRST: AtomicU32 = AtomicU32::new(0);
    thread_local! {
        /// The process in which this thread asked first; 0 before.
        static BEGAN: Cell<u32> = const { Cell::new(0) };
    }
    let this = process::id();
    if BEGAN.get() == 0 {
        BEGAN.set(this);
    }
    let asked = FIRST.compare_exchange(0, this, Ordering::Relaxed, Ordering::Relaxed);
    match asked {
        Err(first) if first != this => thread_is_of_a_pool && BEGAN.get() == this,
        _ => true,
    }
}

/// How long it takes from outside the global pool until one of its threads, which sleep, has done a task
/// that does nothing, in seconds: the longest of three tries, made once in a process.
///
/// Five microseconds where cores idle in user space, 50 to 100 on virtual servers whose idle cores are given to
/// other guests.
pub(crate) fn seconds_to_wake() -> f64 {
    static SECONDS: OnceLock<f64> = OnceLock::new();
    /// Long enough for a thread without work to go to sleep.
    const IDLE: Duration = Duration::from_micros(150);
    let try_once = |_| {
        thread::sleep(IDLE);
        let start = Instant::now();
        rayon::in_place_scope(|scope| scope.spawn(|_| ()));
        start.elapsed().as_secs_f64()
    };
    *SECONDS.get_or_init(|| (0..3).map(try_once).fold(0.0, f64::max))
}

fn start_global() -> Result<(), ThreadsError> {
    // A failure is kept because rayon keeps it: it starts its pool once.
    static STARTED: OnceLock<Result<(), ThreadsError>> = OnceLock::new();
    let started = STARTED.get_or_init(|| {
        let Err(error) = rayon::ThreadPoolBuilder::new().build_global() else {
            return Ok(());
        };
        // Either it cannot be started, or it was tried before, where all that tells how it went is
        // whether this panics.
        let tried = catch_unwind(rayon::current_num_threads);
        tried.map(drop).map_err(|_| ThreadsError {
            reason: error.to_string(),
        })
    });
    started.clone()
}
