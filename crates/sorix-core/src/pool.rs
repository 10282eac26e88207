//! The free list that tensors take their memory from and return it to.
//!
//! # Why
//!
//! Memory fresh from the operating system is not there yet: the first write to each page of 4 KiB
//! traps into the kernel, which finds a page and clears it. A buffer of 4 MiB is 1024 such traps,
//! and together they cost more than the dropout that fills the buffer. An allocator gives large
//! blocks back to the system as soon as they are freed, so a training loop that makes the same
//! tensors at every step would pay at every step. (Huge pages would make the traps fewer, not the
//! clearing, and whether a process gets any is for the machine's administrator to say.)
//!
//! So a buffer that is no longer used goes to a list, and the next tensor of that size takes it from
//! there, its pages in place and often still in cache: the last one in is the first one out.
//!
//! # How much
//!
//! Sizes are rounded up to eight steps per power of two (at most 12.5 % more), so that batches of
//! almost the same length share buffers. Buffers below 4 KiB are left to the allocator, which is as
//! fast for those. A buffer serves only tensors of its size, so if sizes change from one part of a
//! program to the next the pool raises the process's peak, by up to its limit: 1 GiB unless
//! [`set_limit`] says otherwise, enough for the activations of the networks one trains on a CPU.
//! What would exceed the limit pushes out the buffers that have lain unused the longest.
//! [`clear`] gives everything back.
//!
//! # What a buffer holds
//!
//! A recycled buffer holds what its last owner wrote. It is handed out only to operations that
//! write every element before anyone can read one.
//!
//! ```
//! use sorix_core::{DType, Tensor, pool};
//!
//! let x = Tensor::zeros([1024, 1024], DType::F32)?;
//! drop(x);
//! assert!(pool::stats().held_bytes >= 4 << 20);
//!
//! let before = pool::stats().hits;
//! let y = Tensor::ones([1024, 1024], DType::F32)?;
//! assert_eq!(pool::stats().hits, before + 1);
//! # Ok::<(), sorix_core::Error>(())
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytemuck::{Pod, Zeroable};

/// 64 bytes at an address divisible by 64: a cache line, and the width of the widest vector.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; LINE]);

pub(crate) const LINE: usize = 64;

/// Smaller buffers are not held.
const MIN_HELD_LINES: usize = 4096 / LINE;

const DEFAULT_LIMIT: usize = 1 << 30;

/// What the pool holds and how often it could help; see [`stats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Bytes of the buffers held, free for the next tensor.
    pub held_bytes: usize,
    /// The number of those buffers.
    pub held_buffers: usize,
    /// The most bytes that the pool will hold.
    pub limit_bytes: usize,
    /// How many tensors got a recycled buffer, since the process began.
    pub hits: u64,
    /// How many tensors of at least 4 KiB had to allocate.
    pub misses: u64,
}

/// What the pool holds and how often it could help.
///
/// ```
/// let stats = sorix_core::pool::stats();
/// assert!(stats.held_bytes <= stats.limit_bytes);
/// ```
#[must_use]
pub fn stats() -> Stats {
    lock().stats
}

/// Frees every buffer that the pool holds. Tensors in use are not touched.
///
/// ```
/// use sorix_core::pool;
/// pool::clear();
/// assert_eq!(pool::stats().held_bytes, 0);
/// ```
pub fn clear() {
    // Evicted buffers are dropped after the lock: unmapping takes time.
    drop(lock().evict_to(0));
}

/// Sets the most bytes that the pool will hold, and frees what it holds beyond that. 0 turns
/// recycling off; the default is 1 GiB.
///
/// ```
/// use sorix_core::pool;
/// pool::set_limit(64 << 20);
/// assert_eq!(pool::stats().limit_bytes, 64 << 20);
/// ```
pub fn set_limit(bytes: usize) {
    let mut pool = lock();
    pool.stats.limit_bytes = bytes;
    let evicted = pool.evict_to(bytes);
    drop(pool);
    drop(evicted);
}

/// A number of lines, at least `lines`, of which the pool may hold a buffer; `None` on overflow.
pub(crate) fn size_class(lines: usize) -> Option<usize> {
    const STEPS_PER_DOUBLING: usize = 8;
    if lines < MIN_HELD_LINES {
        return Some(lines);
    }
    let step = (1 << lines.ilog2()) / STEPS_PER_DOUBLING;
    lines.checked_next_multiple_of(step)
}

/// A buffer of exactly `lines` lines with whatever its last owner left in it, or `None` if
/// there is none and the caller has to allocate.
pub(crate) fn take(lines: usize) -> Option<Vec<Line>> {
    if lines < MIN_HELD_LINES {
        None
    } else {
        lock().take(lines)
    }
}

/// Puts a buffer where [`take`] finds it.
pub(crate) fn give(buffer: Vec<Line>) {
    if buffer.len() < MIN_HELD_LINES {
        return;
    }
    let evicted = lock().give(buffer);
    drop(evicted);
}

static POOL: Mutex<Pool> = Mutex::new(Pool::new(DEFAULT_LIMIT));

fn lock() -> MutexGuard<'static, Pool> {
    // No code that can panic runs between two halves of a change.
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Pool {
    // By number of lines; each queue in the order of return, oldest first, never empty.
    free: BTreeMap<usize, VecDeque<Held>>,
    returns: u64,
    stats: Stats,
}

struct Held {
    buffer: Vec<Line>,
    /// How many buffers had been returned before this one: its age.
    returned: u64,
}

impl Pool {
    const fn new(limit_bytes: usize) -> Self {
        let stats = Stats {
            held_bytes: 0,
            held_buffers: 0,
            limit_bytes,
            hits: 0,
            misses: 0,
        };
        Self {
            free: BTreeMap::new(),
            returns: 0,
            stats,
        }
    }

    fn take(&mut self, lines: usize) -> Option<Vec<Line>> {
        let held = self.remove(lines, VecDeque::pop_back);
        *if held.is_some() {
            &mut self.stats.hits
        } else {
            &mut self.stats.misses
        } += 1;
        held
    }

    /// Takes `buffer` in, and returns what has to go for it.
    fn give(&mut self, buffer: Vec<Line>) -> Vec<Vec<Line>> {
        let bytes = buffer.len() * LINE;
        let Some(room_for_others) = self.stats.limit_bytes.checked_sub(bytes) else {
            return vec![buffer];
        };
        let evicted = self.evict_to(room_for_others);
        let held = Held {
            returned: self.returns,
            buffer,
        };
        self.returns += 1;
        self.stats.held_bytes += bytes;
        self.stats.held_buffers += 1;
        self.free
            .entry(held.buffer.len())
            .or_default()
            .push_back(held);
        evicted
    }

    /// Removes the buffers returned longest ago until at most `bytes` are held.
    fn evict_to(&mut self, bytes: usize) -> Vec<Vec<Line>> {
        let mut evicted = Vec::new();
        while self.stats.held_bytes > bytes {
            let age = |queue: &VecDeque<Held>| queue.front().map(|held| held.returned);
            let oldest = self.free.iter().min_by_key(|(_, queue)| age(queue));
            let Some((&lines, _)) = oldest else { break };
            evicted.extend(self.remove(lines, VecDeque::pop_front));
        }
        evicted
    }

    fn remove(
        &mut self,
        lines: usize,
        pop: fn(&mut VecDeque<Held>) -> Option<Held>,
    ) -> Option<Vec<Line>> {
        let queue = self.free.get_mut(&lines)?;
        let held = pop(queue)?;
        if queue.is_empty() {
            self.free.remove(&lines);
        }
        self.stats.held_bytes -= lines * LINE;
        self.stats.held_buffers -= 1;
        Some(held.buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(kib: usize) -> Vec<Line> {
        vec![Line::zeroed(); kib * 1024 / LINE]
    }

    #[test]
    fn size_classes_waste_at_most_an_eighth_and_are_fixed_points() {
        for lines in (0..100_000).chain([usize::MAX >> 7, (usize::MAX >> 7) + 1]) {
            let class = size_class(lines).unwrap();
            assert!(
                class >= lines && class - lines <= lines / 8,
                "{lines} -> {class}"
            );
            assert_eq!(size_class(class), Some(class), "{lines}");
        }
        assert_eq!(size_class(usize::MAX), None);
    }

    #[test]
    fn the_last_one_in_is_the_first_one_out_and_sizes_do_not_mix() {
        let mut pool = Pool::new(1 << 20);
        let [first, second, other] = [buffer(8), buffer(8), buffer(16)];
        let address = second.as_ptr();
        for held in [first, second, other] {
            assert!(pool.give(held).is_empty());
        }
        assert_eq!(
            (pool.stats.held_bytes, pool.stats.held_buffers),
            (32 << 10, 3)
        );
        let taken = pool.take(8 * 1024 / LINE).unwrap();
        assert_eq!(taken.as_ptr(), address);
        assert!(pool.take(12 * 1024 / LINE).is_none());
        assert_eq!((pool.stats.hits, pool.stats.misses), (1, 1));
        assert_eq!(
            (pool.stats.held_bytes, pool.stats.held_buffers),
            (24 << 10, 2)
        );
    }

    #[test]
    fn what_lay_unused_the_longest_goes_first() {
        let mut pool = Pool::new(32 << 10);
        for kib in [8, 16, 4] {
            assert!(pool.give(buffer(kib)).is_empty());
        }
        // 28 KiB are held; 16 more push out the 8 and the 16.
        let evicted = pool.give(buffer(16));
        assert_eq!(
            evicted
                .iter()
                .map(|b| (b.len() * LINE) >> 10)
                .collect::<Vec<_>>(),
            [8, 16]
        );
        assert_eq!(pool.stats.held_bytes, 20 << 10);
        // A buffer that alone exceeds the limit displaces nothing.
        assert_eq!(pool.give(buffer(64)).len(), 1);
        assert_eq!(pool.stats.held_bytes, 20 << 10);
        assert_eq!(pool.evict_to(0).len(), 2);
        assert_eq!((pool.stats.held_bytes, pool.stats.held_buffers), (0, 0));
    }
}
