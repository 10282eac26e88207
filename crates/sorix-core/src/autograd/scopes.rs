//! [`Scopes`]: what holds within scopes of a thread, the last one before the others.
//!
//! `no_grad`, `checkpoint` and sorix-nn's Monte Carlo scopes are kept here. They have one problem in
//! common. A thread of a rayon pool that waits for others does not sleep: it runs whatever task of its
//! pool it finds. What a scope says of the task that opened it must not reach such a task. Tasks on one
//! thread are told apart by how many of them wait below, a number that `sorix_kernels::internal::parallel` counts.

use core::cell::RefCell;
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use std::thread::LocalKey;

use sorix_kernels::internal::parallel::waits;

/// The values of the scopes that are open on a thread, for a thread-local variable: how
/// [`no_grad`](crate::autograd::no_grad) and Monte Carlo dropout know that they are on.
///
/// A scope belongs to the task that opened it. Other tasks that run on the thread while that one is
/// [waiting](crate::waiting) for a rayon pool do not see it: they find what they would
/// find on a fresh thread. Scopes may end in any order.
///
/// ```
/// use core::cell::RefCell;
/// use sorix_core::autograd::Scopes;
/// use sorix_core::waiting;
///
/// thread_local! {
///     static QUIET: RefCell<Scopes<bool>> = const { RefCell::new(Scopes::new()) };
/// }
/// let is_quiet = || QUIET.with_borrow_mut(|scopes| scopes.of_task().next() == Some(&mut true));
///
/// let scope = Scopes::open(&QUIET, true);
/// assert!(is_quiet());
/// assert!(!waiting(is_quiet));
/// drop(scope);
/// assert!(!is_quiet());
/// ```
pub struct Scopes<T> {
    // Without a destructor, so that the variable is there in those of others. Nothing is leaked when
    // the thread ends: without an open scope there is no memory.
    open: ManuallyDrop<Vec<Scope<T>>>,
}

struct Scope<T> {
    number: u64,
    /// How many tasks of the thread waited when it was opened.
    waits: usize,
    value: T,
}

impl<T> Scopes<T> {
    /// None, as a thread begins.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            open: ManuallyDrop::new(Vec::new()),
        }
    }

    /// Opens a scope of the task that runs on this thread. It ends when the guard is dropped.
    ///
    /// # Panics
    ///
    /// If `scopes` is borrowed.
    pub fn open(scopes: &'static LocalKey<RefCell<Self>>, value: T) -> ScopeGuard<T> {
        let number = scopes.with_borrow_mut(|scopes| {
            let number = scopes.open.last().map_or(0, |last| last.number + 1);
            scopes.open.push(Scope {
                number,
                waits: waits(),
                value,
            });
            number
        });
        ScopeGuard {
            scopes,
            number,
            not_send: PhantomData,
        }
    }

    /// The values of the scopes of the task that runs on this thread, the last one first.
    pub fn of_task(&mut self) -> impl Iterator<Item = &mut T> {
        let (waits, scopes) = (waits(), self.open.iter_mut().rev());
        let of_task = scopes.filter(move |scope| scope.waits == waits);
        of_task.map(|scope| &mut scope.value)
    }

    /// Ends a scope; `None` if it has ended.
    fn close(&mut self, number: u64) -> Option<T> {
        let at = self.open.iter().rposition(|scope| scope.number == number)?;
        let scope = self.open.remove(at);
        if self.open.is_empty() {
            self.open.shrink_to_fit();
        }
        Some(scope.value)
    }
}

impl<T> Default for Scopes<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for Scopes<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.open.iter().map(|scope| &scope.value);
        f.debug_list().entries(values).finish()
    }
}

/// Ends a scope when dropped, also by a panic; from [`Scopes::open`].
#[must_use = "the scope ends when the guard is dropped"]
pub struct ScopeGuard<T: 'static> {
    scopes: &'static LocalKey<RefCell<Scopes<T>>>,
    number: u64,
    // The scope is the thread's, so the guard has to stay there.
    not_send: PhantomData<*const ()>,
}

impl<T> ScopeGuard<T> {
    /// Ends the scope, and returns its value.
    pub(super) fn end(self) -> Option<T> {
        self.close()
    }

    fn close(&self) -> Option<T> {
        let number = self.number;
        self.scopes.with_borrow_mut(|scopes| scopes.close(number))
    }
}

impl<T> Drop for ScopeGuard<T> {
    fn drop(&mut self) {
        // Not while the scopes are borrowed: the value's destructor may be the caller's.
        let value = self.close();
        drop(value);
    }
}

impl<T> fmt::Debug for ScopeGuard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopeGuard").finish_non_exhaustive()
    }
}
