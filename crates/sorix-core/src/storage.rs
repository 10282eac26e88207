//! [`Storage`]: the memory of a tensor, shared by its views, 64-byte aligned and recycled; or a `Vec`
//! that somebody else made, taken over as it is.
//!
//! Reading takes a snapshot, a counted reference to the buffer, and holds no lock while it is used.
//! Writing in place happens in the buffer itself if no snapshot of it is out, else in a copy that then
//! replaces it. So no reader ever sees half a write, an operation may have the
//! same tensor as source and target, and no two locks are ever held together.

use core::any::Any;
use core::fmt::Debug;
use core::mem;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytemuck::{Pod, Zeroable};

use crate::error::{Call, ErrorKind, Result};
use crate::pool::{self, LINE, Line};

/// Memory for elements.
#[derive(Debug)]
pub(crate) struct Buffer(Memory);

#[derive(Debug)]
enum Memory {
    /// A number of 64-byte lines, returned to the [pool] when dropped.
    Lines(Vec<Line>),
    /// A `Vec` of elements that was given to a tensor.
    Given(Box<dyn Elements>),
}

/// A `Vec` of elements of any type.
trait Elements: Debug + Send + Sync {
    fn bytes(&self) -> &[u8];
    fn bytes_mut(&mut self) -> &mut [u8];
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

impl<T: Pod + Debug + Send + Sync> Elements for Vec<T> {
    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(self)
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(self)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl Buffer {
    /// At least `bytes` bytes, for an operation that will write every element of its output: the
    /// content is what the last owner left.
    ///
    /// Builds with debug assertions fill it with NaNs instead, so that a test of an operation that
    /// leaves elements out does not depend on luck.
    pub(crate) fn for_overwrite(call: Call<'_>, bytes: usize) -> Result<Self> {
        let (mut buffer, _) = Self::take(call, bytes)?;
        if cfg!(debug_assertions) {
            buffer.as_mut_slice::<u8>().fill(0xFF);
        }
        Ok(buffer)
    }

    /// At least `bytes` bytes, all zero.
    pub(crate) fn zeroed(call: Call<'_>, bytes: usize) -> Result<Self> {
        let (mut buffer, recycled) = Self::take(call, bytes)?;
        if recycled {
            buffer.as_mut_slice().fill(Line::zeroed());
        }
        Ok(buffer)
    }

    /// A recycled buffer (and `true`), or a new one, all zero (and `false`).
    fn take(call: Call<'_>, bytes: usize) -> Result<(Self, bool)> {
        let failed = |_| call.error(ErrorKind::Allocation { bytes });
        let count = pool::size_class(bytes.div_ceil(LINE)).unwrap_or(usize::MAX);
        if let Some(lines) = pool::take(count) {
            return Ok((Self(Memory::Lines(lines)), true));
        }
        let mut lines = Vec::new();
        lines.try_reserve_exact(count).map_err(failed)?;
        lines.resize(count, Line::zeroed());
        Ok((Self(Memory::Lines(lines)), false))
    }

    /// A copy in a buffer of its own.
    fn try_clone(&self, call: Call<'_>) -> Result<Self> {
        let bytes: &[u8] = self.as_slice();
        let (mut copy, _) = Self::take(call, bytes.len())?;
        copy.as_mut_slice()[..bytes.len()].copy_from_slice(bytes);
        Ok(copy)
    }

    /// The memory of `elements`, as it is.
    pub(crate) fn of<T: Pod + Debug + Send + Sync>(elements: Vec<T>) -> Self {
        Self(Memory::Given(Box::new(elements)))
    }

    /// The `Vec` that the buffer was [made of](Self::of); otherwise the buffer as it was.
    pub(crate) fn try_into_vec<T: Pod>(mut self) -> Result<Vec<T>, Self> {
        let given = match mem::replace(&mut self.0, Memory::Lines(Vec::new())) {
            Memory::Given(elements) => elements,
            lines @ Memory::Lines(_) => return Err(Self(lines)),
        };
        let elements = given.into_any().downcast();
        Ok(*elements.expect("a tensor's elements are of its dtype"))
    }

    /// The whole buffer; a tensor may use a part.
    pub(crate) fn as_slice<T: Pod>(&self) -> &[T] {
        match &self.0 {
            Memory::Lines(lines) => bytemuck::cast_slice(lines),
            Memory::Given(elements) => bytemuck::cast_slice(elements.bytes()),
        }
    }

    /// The whole buffer; a tensor may use a part.
    pub(crate) fn as_mut_slice<T: Pod>(&mut self) -> &mut [T] {
        match &mut self.0 {
            Memory::Lines(lines) => bytemuck::cast_slice_mut(lines),
            Memory::Given(elements) => bytemuck::cast_slice_mut(elements.bytes_mut()),
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Memory::Lines(lines) = &mut self.0 {
            pool::give(mem::take(lines));
        }
    }
}

/// A buffer that can be replaced or written, and the count of times that it was.
#[derive(Debug)]
pub(crate) struct Storage {
    buffer: RwLock<Arc<Buffer>>,
    version: AtomicU64,
}

impl Storage {
    pub(crate) fn new(buffer: Buffer) -> Self {
        Self::of(Arc::new(buffer))
    }

    /// A storage that begins with what another one's [`snapshot`](Self::snapshot) saw.
    pub(crate) fn of(buffer: Arc<Buffer>) -> Self {
        Self {
            buffer: RwLock::new(buffer),
            version: AtomicU64::new(0),
        }
    }

    /// The content as it is now; later writes do not reach it.
    pub(crate) fn snapshot(&self) -> Arc<Buffer> {
        // A writer that panicked has at worst written part of its elements.
        Arc::clone(&self.buffer.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes in place, and counts it, also if `write` panics.
    ///
    /// `write` runs under the storage's lock: what it reads has to be a snapshot taken before.
    pub(crate) fn write(&self, call: Call<'_>, write: impl FnOnce(&mut Buffer)) -> Result<()> {
        let mut buffer = self.buffer.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::get_mut(&mut buffer).is_none() {
            *buffer = Arc::new(buffer.try_clone(call)?);
        }
        // Nobody takes a snapshot before the lock is free, so whoever has one of this write finds it
        // counted.
        self.version.fetch_add(1, Ordering::Release);
        write(Arc::get_mut(&mut buffer).expect("it was made unshared above"));
        Ok(())
    }

    /// Puts `new` in the place of the buffer and counts that as a write; `false`, with nothing changed, if
    /// it is no longer the one that the snapshot `before` saw.
    #[cfg(feature = "parallel")]
    pub(crate) fn replace(&self, before: &Arc<Buffer>, new: Buffer) -> bool {
        let mut buffer = self.buffer.write().unwrap_or_else(PoisonError::into_inner);
        // Who wrote meanwhile has left the buffer of the snapshot to it, and made another.
        if !Arc::ptr_eq(&buffer, before) {
            return false;
        }
        self.version.fetch_add(1, Ordering::Release);
        let old = core::mem::replace(&mut *buffer, Arc::new(new));
        drop(buffer);
        drop(old);
        true
    }

    /// The buffer, if neither a snapshot nor another owner of the storage has it.
    pub(crate) fn unshared_mut(&mut self) -> Option<&mut Buffer> {
        let buffer = self.buffer.get_mut();
        Arc::get_mut(buffer.unwrap_or_else(PoisonError::into_inner))
    }

    /// How often it was written.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The buffer itself, if nobody else has it.
    pub(crate) fn try_into_buffer(self) -> Result<Buffer, Self> {
        let version = self.version;
        let buffer = self
            .buffer
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::try_unwrap(buffer).map_err(|shared| Self {
            buffer: RwLock::new(shared),
            version,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    fn test() -> Call<'static> {
        Call::making("test", &[], DType::F64)
    }

    #[test]
    fn lines_are_aligned_and_sizes_rounded_up() {
        for bytes in [0, 1, 64, 65, 5000, 1 << 20] {
            let buffer = Buffer::zeroed(test(), bytes).unwrap();
            assert!(size_of_val(buffer.as_slice::<u8>()) >= bytes);
            assert_eq!(buffer.as_slice::<u8>().as_ptr().addr() % 64, 0);
            assert!(buffer.as_slice::<u8>().iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn a_zeroed_buffer_is_zero_also_when_recycled() {
        // A size of its own, so that no other test takes or returns it.
        let bytes = (7 << 20) + (7 << 17);
        let mut buffer = Buffer::zeroed(test(), bytes).unwrap();
        buffer.as_mut_slice::<u8>().fill(7);
        drop(buffer);
        let (recycled, was_recycled) = Buffer::take(test(), bytes).unwrap();
        assert!(was_recycled && recycled.as_slice::<u8>()[0] == 7);
        drop(recycled);
        assert!(
            Buffer::zeroed(test(), bytes)
                .unwrap()
                .as_slice::<u8>()
                .iter()
                .all(|&b| b == 0)
        );
    }

    #[test]
    fn absurd_sizes_are_errors() {
        for bytes in [usize::MAX, isize::MAX as usize, 1 << 60] {
            let error = Buffer::zeroed(test(), bytes).unwrap_err();
            assert_eq!(error.kind(), &ErrorKind::Allocation { bytes });
        }
    }

    #[test]
    fn a_write_reaches_later_snapshots_only() {
        let storage = Storage::new(Buffer::zeroed(test(), 64).unwrap());
        let before = storage.snapshot();
        storage
            .write(test(), |buffer| buffer.as_mut_slice::<u8>()[3] = 9)
            .unwrap();
        assert_eq!(before.as_slice::<u8>()[3], 0);
        assert_eq!(storage.snapshot().as_slice::<u8>()[3], 9);
        assert_eq!(storage.version(), 1);

        drop(before);
        let address = storage.snapshot().as_slice::<u8>().as_ptr();
        storage
            .write(test(), |buffer| buffer.as_mut_slice::<u8>()[3] = 8)
            .unwrap();
        assert_eq!(
            storage.snapshot().as_slice::<u8>().as_ptr(),
            address,
            "written in place"
        );
    }
}
