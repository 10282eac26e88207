//! [`Scopes`]: what holds within scopes of a thread, the last one before the others.

use core::mem::ManuallyDrop;

use sorix_kernels::internal::parallel::TaskValue;

/// The values of the scopes that are open on a thread, for a thread-local variable.
///
/// Scopes may end in any order. One is out of sight of the other tasks that run on its thread while
/// the task that opened it waits.
pub(super) struct Scopes<T> {
    // Without a destructor, so that the variable is there in those of others. Nothing is leaked when
    // the thread ends: without an open scope there is no memory.
    open: ManuallyDrop<Vec<Scope<T>>>,
}

struct Scope<T> {
    number: u64,
    task: TaskValue<()>,
    value: T,
}

impl<T> Scopes<T> {
    pub(super) const fn new() -> Self {
        Self {
            open: ManuallyDrop::new(Vec::new()),
        }
    }

    /// Opens a scope, which [`close`](Self::close) ends by its number.
    pub(super) fn open(&mut self, value: T) -> u64 {
        let number = self.open.last().map_or(0, |last| last.number + 1);
        self.open.push(Scope {
            number,
            task: TaskValue::new(()),
            value,
        });
        number
    }

    /// Ends a scope; `None` where it has ended.
    pub(super) fn close(&mut self, number: u64) -> Option<T> {
        let at = self.open.iter().rposition(|scope| scope.number == number)?;
        let scope = self.open.remove(at);
        if self.open.is_empty() {
            self.open.shrink_to_fit();
        }
        Some(scope.value)
    }

    /// The values of the task that runs on this thread, the last one first.
    pub(super) fn of_task(&mut self) -> impl Iterator<Item = &mut T> {
        let scopes = self.open.iter_mut().rev();
        let of_task = scopes.filter(|scope| scope.task.get().is_some());
        of_task.map(|scope| &mut scope.value)
    }
}
