//! The elements that a kernel handles: read here and written there, or rewritten in place.
//!
//! Kernels are generic over the two, and see groups of 64 elements: what one word of a mask
//! decides.

use core::iter::Zip;
use core::ops::Range;
use core::slice;

use crate::element::Element;
use crate::simd::{ALIGN, Fence, GROUP, Lanes, Streaming};

/// The input and the output of 64 elements, which may be the same memory.
pub(super) trait Group<T> {
    /// What is read.
    fn x(&self) -> &[T; GROUP];
    /// What is written.
    fn y(&mut self) -> &mut [T; GROUP];
}

/// What is left of the elements of a call.
pub(super) trait Elements<T>: Sized {
    /// Groups of 64, in order.
    type Groups<'g>: Iterator<Item: Group<T>>
    where
        Self: 'g;

    /// The output.
    fn y(&self) -> &[T];
    /// Takes the first `n`, at most all.
    fn take(&mut self, n: usize) -> Self;
    /// The whole groups `range`; elements that do not fill one are left out.
    fn groups(&mut self, range: Range<usize>) -> Self::Groups<'_>;
    /// Replaces each by `f(its index, itself)`.
    fn update(self, f: impl FnMut(usize, T) -> T);
}

/// Elements that are read from `x` and written to `y`, which is as long.
pub(super) struct OutOfPlace<'a, T> {
    pub(super) x: &'a [T],
    pub(super) y: &'a mut [T],
}

/// Elements that are rewritten.
pub(super) struct InPlace<'a, T> {
    pub(super) y: &'a mut [T],
}

impl<T> Group<T> for (&[T; GROUP], &mut [T; GROUP]) {
    #[inline(always)]
    fn x(&self) -> &[T; GROUP] {
        self.0
    }

    #[inline(always)]
    fn y(&mut self) -> &mut [T; GROUP] {
        self.1
    }
}

impl<T> Group<T> for &mut [T; GROUP] {
    #[inline(always)]
    fn x(&self) -> &[T; GROUP] {
        self
    }

    #[inline(always)]
    fn y(&mut self) -> &mut [T; GROUP] {
        self
    }
}

impl<T: Element> Elements<T> for OutOfPlace<'_, T> {
    type Groups<'g>
        = Zip<slice::Iter<'g, [T; GROUP]>, slice::IterMut<'g, [T; GROUP]>>
    where
        Self: 'g;

    #[inline(always)]
    fn y(&self) -> &[T] {
        self.y
    }

    #[inline(always)]
    fn take(&mut self, n: usize) -> Self {
        let n = n.min(self.y.len());
        let (x, later_x) = self.x.split_at(n);
        let (y, later_y) = core::mem::take(&mut self.y).split_at_mut(n);
        (self.x, self.y) = (later_x, later_y);
        Self { x, y }
    }

    #[inline(always)]
    fn groups(&mut self, range: Range<usize>) -> Self::Groups<'_> {
        let x = &self.x.as_chunks().0[range.clone()];
        x.iter().zip(&mut self.y.as_chunks_mut().0[range])
    }

    #[inline(always)]
    fn update(self, mut f: impl FnMut(usize, T) -> T) {
        for (i, (y, &x)) in self.y.iter_mut().zip(self.x).enumerate() {
            *y = f(i, x);
        }
    }
}

impl<T: Element> Elements<T> for InPlace<'_, T> {
    type Groups<'g>
        = slice::IterMut<'g, [T; GROUP]>
    where
        Self: 'g;

    #[inline(always)]
    fn y(&self) -> &[T] {
        self.y
    }

    #[inline(always)]
    fn take(&mut self, n: usize) -> Self {
        let n = n.min(self.y.len());
        let (y, later) = core::mem::take(&mut self.y).split_at_mut(n);
        self.y = later;
        Self { y }
    }

    #[inline(always)]
    fn groups(&mut self, range: Range<usize>) -> Self::Groups<'_> {
        self.y.as_chunks_mut().0[range].iter_mut()
    }

    #[inline(always)]
    fn update(self, mut f: impl FnMut(usize, T) -> T) {
        for (i, y) in self.y.iter_mut().enumerate() {
            *y = f(i, *y);
        }
    }
}

/// How many elements come before the first one of `y` that a cache line begins with.
#[inline(always)]
pub(super) fn unaligned_head<T>(y: &[T]) -> usize {
    (y.as_ptr().addr().wrapping_neg() % ALIGN / size_of::<T>()).min(y.len())
}

/// How vectors reach the output.
pub(super) trait Write<T: Element, S: Lanes<T>>: Copy {
    /// Whether it goes around the cache: groups have to begin with a cache line then.
    const STREAMED: bool;

    /// Says that groups after `y` will be written.
    fn announce(self, simd: S, y: &mut [T; GROUP]);

    /// Writes a vector.
    fn write(self, simd: S, x: S::Stored, y: &mut [T; GROUP], at: usize);
}

/// By way of the cache.
#[derive(Clone, Copy)]
pub(super) struct Cached;

impl<T: Element, S: Lanes<T>> Write<T, S> for Cached {
    const STREAMED: bool = false;

    #[inline(always)]
    fn announce(self, simd: S, y: &mut [T; GROUP]) {
        simd.prefetch_write(y);
    }

    #[inline(always)]
    fn write(self, simd: S, x: S::Stored, y: &mut [T; GROUP], at: usize) {
        simd.store(x, y, at);
    }
}

/// Around the cache.
#[derive(Clone, Copy)]
pub(super) struct Streamed<'f, S: Streaming>(pub(super) &'f Fence<S>);

impl<T: Element, S: Lanes<T>> Write<T, S> for Streamed<'_, S> {
    const STREAMED: bool = true;

    #[inline(always)]
    fn announce(self, _: S, _: &mut [T; GROUP]) {}

    #[inline(always)]
    fn write(self, simd: S, x: S::Stored, y: &mut [T; GROUP], at: usize) {
        simd.stream(x, y, at, self.0);
    }
}

/// Evaluates `$body` with the elements of `$buffers` and how to write them, streamed where there is
/// a fence; both are types, so that no loop asks.
macro_rules! with_elements {
    ($buffers:expr, $fence:expr, |$write:ident, $elements:ident| $body:expr) => {
        match ($buffers.into_slices(), $fence) {
            ((Some(x), y), None) => {
                let $write = $crate::kernel::elements::Cached;
                let $elements = $crate::kernel::elements::OutOfPlace { x, y };
                $body
            }
            ((Some(x), y), Some(fence)) => {
                let $write = $crate::kernel::elements::Streamed(fence);
                let $elements = $crate::kernel::elements::OutOfPlace { x, y };
                $body
            }
            // A line that was just read is in the cache: going around it would pay nothing.
            ((None, y), _) => {
                let $write = $crate::kernel::elements::Cached;
                let $elements = $crate::kernel::elements::InPlace { y };
                $body
            }
        }
    };
}
pub(super) use with_elements;
