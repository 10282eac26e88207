//! Where work runs: away from the interpreter, on the number of threads that was asked for, and never on
//! threads that a fork has left behind.
//!
//! Results do not depend on any of this.

use core::cell::{Cell, RefCell};
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockWriteGuard};

use pyo3::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use sorix::autograd::no_grad;

use crate::error::{Raised, Result};

/// How many threads were asked for; 0 if nobody has.
static WANTED: AtomicUsize = AtomicUsize::new(0);

/// The size of rayon's pool, once it is needed.
static GLOBAL: OnceLock<usize> = OnceLock::new();

/// A pool of another size than rayon's own.
static OTHER: Mutex<Option<Other>> = Mutex::new(None);

struct Other {
    process: u32,
    threads: usize,
    pool: Arc<ThreadPool>,
}

/// Held for reading while Rust works, and for writing while the process forks: so a child never finds a
/// lock of ours held by a thread that it does not have.
static FORK: RwLock<()> = RwLock::new(());

thread_local! {
    static FORKING: RefCell<Option<RwLockWriteGuard<'static, ()>>> = const { RefCell::new(None) };
    static GRAD: Cell<bool> = const { Cell::new(true) };
    /// In how many scopes of this thread that other threads do not see.
    static SCOPES: Cell<usize> = const { Cell::new(0) };
}

/// Bytes read and written from which on a kernel called from outside a pool is cut: the kernels' own
/// threshold.
const KERNEL_PAYS: usize = 32 << 20;

/// Bytes of an operand of an operation on tensors from which on it is worth to change threads for it.
const OPERATION_PAYS: usize = 64 << 10;

/// Runs an operation on tensors of `bytes` bytes, detached from the interpreter, recorded or not as this
/// thread wants it.
pub(crate) fn operation<R: Send>(py: Python<'_>, bytes: usize, f: impl FnOnce() -> R + Send) -> R {
    let grad = GRAD.get();
    let f = move || if grad { f() } else { no_grad(f) };
    let wanted = WANTED.load(Ordering::Relaxed);
    detached(py, move || {
        // What a scope says is known on this thread alone.
        if wanted == 0 || bytes < OPERATION_PAYS || SCOPES.get() > 0 {
            f()
        } else {
            on(wanted, f)
        }
    })
}

/// Runs a kernel over `bytes` bytes, read and written, detached from the interpreter, on `threads` threads:
/// those of [`set_num_threads`], if it is `None`.
pub(crate) fn kernel<R: Send>(
    py: Python<'_>,
    bytes: usize,
    threads: Option<usize>,
    f: impl FnOnce() -> R + Send,
) -> R {
    if bytes < SHORT {
        // Shorter than letting go of the interpreter and taking it again.
        return f();
    }
    detached(py, move || {
        let wanted = threads.unwrap_or_else(|| WANTED.load(Ordering::Relaxed));
        if wanted == 0 || bytes < KERNEL_PAYS {
            f()
        } else {
            on(wanted, f)
        }
    })
}

/// Bytes that take about a microsecond.
const SHORT: usize = 16 << 10;

fn detached<R: Send>(py: Python<'_>, f: impl FnOnce() -> R + Send) -> R {
    py.detach(|| {
        let _no_fork = FORK.read().unwrap_or_else(PoisonError::into_inner);
        f()
    })
}

/// Runs `f` where `threads` threads are.
fn on<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    if *GLOBAL.get_or_init(|| start_global(threads)) == threads {
        // In a child the kernels know that these threads are not theirs, and do without.
        return f();
    }
    match other(threads) {
        Some(pool) => pool.install(f),
        None => f(),
    }
}

fn start_global(threads: usize) -> usize {
    let started = ThreadPoolBuilder::new().num_threads(threads).build_global();
    match started {
        Ok(()) => threads,
        // It runs already, or cannot be started: the kernels find out which.
        Err(_) => 0,
    }
}

fn other(threads: usize) -> Option<Arc<ThreadPool>> {
    let mut other = OTHER.lock().unwrap_or_else(PoisonError::into_inner);
    let process = process::id();
    if let Some(found) = &*other
        && found.process == process
        && found.threads == threads
    {
        return Some(Arc::clone(&found.pool));
    }
    let pool = ThreadPoolBuilder::new().num_threads(threads).build().ok()?;
    let pool = Arc::new(pool);
    let made = Other {
        process,
        threads,
        pool: Arc::clone(&pool),
    };
    if let Some(left) = other.replace(made)
        && left.process != process
    {
        // Its threads stayed with the parent: there is nobody to tell that they may go.
        core::mem::forget(left);
    }
    Some(pool)
}

/// Sets the number of threads that one call may use.
///
/// Parameters
/// ----------
/// threads : int
///     At least 1.
#[pyfunction]
pub(crate) fn set_num_threads(threads: usize) -> Result<()> {
    /// Beyond this the system gives out before the work does.
    const MOST: usize = 4096;
    if !(1..=MOST).contains(&threads) {
        let text = format!("expected a number of threads from 1 to {MOST}, got {threads}");
        return Err(Raised::value(text));
    }
    WANTED.store(threads, Ordering::Relaxed);
    Ok(())
}

/// The number of threads that one call may use.
#[pyfunction]
pub(crate) fn get_num_threads(py: Python<'_>) -> usize {
    match WANTED.load(Ordering::Relaxed) {
        0 => py.detach(|| {
            let threads = std::env::var("RAYON_NUM_THREADS").ok();
            let threads = threads.and_then(|threads| threads.parse().ok());
            let cores = || std::thread::available_parallelism().map_or(1, usize::from);
            threads.filter(|&threads| threads > 0).unwrap_or_else(cores)
        }),
        wanted => wanted,
    }
}

/// To be called before the process forks.
#[pyfunction]
pub(crate) fn _before_fork(py: Python<'_>) {
    // The guard belongs to this thread, which is the one that forks, and does not go with a closure that
    // may run elsewhere: so it is put where this thread finds it.
    py.detach(|| {
        let guard = FORK.write().unwrap_or_else(PoisonError::into_inner);
        FORKING.set(Some(guard));
    });
}

/// To be called after the process has forked, in parent and child.
#[pyfunction]
pub(crate) fn _after_fork() {
    FORKING.set(None);
}

/// Says whether operations of this thread record themselves, and returns what was said before.
#[pyfunction]
pub(crate) fn _set_grad_enabled(enabled: bool) -> bool {
    GRAD.replace(enabled)
}

/// Whether operations of this thread record themselves.
#[pyfunction]
pub(crate) fn is_grad_enabled() -> bool {
    GRAD.get()
}

/// Runs `f`, which opens a scope of this thread.
pub(crate) fn in_scope<R>(f: impl FnOnce() -> R) -> R {
    struct Left;
    impl Drop for Left {
        fn drop(&mut self) {
            SCOPES.set(SCOPES.get() - 1);
        }
    }
    SCOPES.set(SCOPES.get() + 1);
    let _left = Left;
    f()
}
