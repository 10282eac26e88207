//! The elements that a kernel handles: read here and written there, or rewritten in place.
//!
//! Kernels are generic over the two, and see groups of 64 elements: what one word of a mask
//! decides.

use core::iter::Zip;
use core::slice;

use crate::element::Element;
use crate::simd::{ALIGN, GROUP, Lanes};

/// The input and the output of 64 elements, which may be the same memory.
pub(super) trait Group<T> {
    /// What is read.
    fn x(&self) -> &[T; GROUP];
    /// What is written.
    fn y(&mut self) -> &mut [T; GROUP];
}

/// What is left of the elements of a call.
pub(super) trait Elements<T>: Sized {
    /// The groups of 64, in order.
    type Groups: Iterator<Item: Group<T>>;

    /// The output.
    fn y(&self) -> &[T];
    /// Takes the first `n`, at most all.
    fn take(&mut self, n: usize) -> Self;
    /// The whole groups; elements that do not fill one are left out.
    fn groups(self) -> Self::Groups;
    /// Replaces each by `f(its index, itself)`.
    fn update(self, f: impl Fn(usize, T) -> T);
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

impl<'a, T: Element> Elements<T> for OutOfPlace<'a, T> {
    type Groups = Zip<slice::Iter<'a, [T; GROUP]>, slice::IterMut<'a, [T; GROUP]>>;

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
    fn groups(self) -> Self::Groups {
        self.x.as_chunks().0.iter().zip(self.y.as_chunks_mut().0)
    }

    #[inline(always)]
    fn update(self, f: impl Fn(usize, T) -> T) {
        for (i, (y, &x)) in self.y.iter_mut().zip(self.x).enumerate() {
            *y = f(i, x);
        }
    }
}

impl<'a, T: Element> Elements<T> for InPlace<'a, T> {
    type Groups = slice::IterMut<'a, [T; GROUP]>;

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
    fn groups(self) -> Self::Groups {
        self.y.as_chunks_mut().0.iter_mut()
    }

    #[inline(always)]
    fn update(self, f: impl Fn(usize, T) -> T) {
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

/// Evaluates `$body` with the elements of `$buffers`, and whether to go around the cache as a
/// constant, so that no loop asks.
macro_rules! with_elements {
    ($buffers:expr, $streaming:expr, |const $stream:ident, $elements:ident| $body:expr) => {
        match ($buffers.into_slices(), $streaming) {
            ((Some(x), y), false) => {
                const $stream: bool = false;
                let $elements = $crate::kernel::elements::OutOfPlace { x, y };
                $body
            }
            ((Some(x), y), true) => {
                const $stream: bool = true;
                let $elements = $crate::kernel::elements::OutOfPlace { x, y };
                $body
            }
            // A line that was just read is in the cache: going around it would pay nothing.
            ((None, y), _) => {
                const $stream: bool = false;
                let $elements = $crate::kernel::elements::InPlace { y };
                $body
            }
        }
    };
}
pub(super) use with_elements;

/// Applies one word of a mask to a group.
#[inline(always)]
pub(super) fn apply_word<const STREAM: bool, T: Element, S: Lanes<T>>(
    simd: S,
    scale: S::Scale,
    bits: u64,
    mut group: impl Group<T>,
) {
    for at in (0..GROUP).step_by(S::LANES) {
        let y = simd.keep(simd.times(simd.load(group.x(), at), scale), bits, at);
        if STREAM {
            simd.stream(y, group.y(), at);
        } else {
            simd.store(y, group.y(), at);
        }
    }
}

/// Applies one word of a mask to less than a group, element by element: a vector put together from
/// less would wait for its parts to reach memory.
#[inline(always)]
pub(super) fn apply_word_to_part<T: Element>(
    scale: T::Scale,
    bits: u64,
    elements: impl Elements<T>,
) {
    elements.update(|i, x| {
        if bits >> i & 1 == 1 {
            x.times(scale)
        } else {
            T::ZERO
        }
    });
}
