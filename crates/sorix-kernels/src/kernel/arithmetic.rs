//! [`Arithmetic`]: what the loop over elements asks of a pass.
//!
//! A pass says what becomes of one vector and of one element; [`apply`](super::apply) has the loop.
//! What a pass reads beside the input, if anything, is a type, so that no loop asks.

use core::iter;
use core::ops::Range;

use crate::element::Element;
use crate::simd::{GROUP, Lanes};

/// What becomes of elements that a mask keeps or drops.
pub(crate) trait Arithmetic<T: Element, S: Lanes<T>>: Copy {
    /// What is read beside the input.
    type Beside: ReadBeside<T, S>;

    /// Of the vector `x`, of which bit `at + i` of `bits` keeps lane `i`.
    fn vector(
        self,
        simd: S,
        x: S::Stored,
        beside: <Self::Beside as ReadBeside<T, S>>::Vector,
        bits: u64,
        at: usize,
    ) -> S::Stored;

    /// Of one element.
    fn element(self, x: T, beside: <Self::Beside as ReadBeside<T, S>>::Element, keep: bool) -> T;
}

/// Code that is written once for every [`Arithmetic`]. A trait and not a closure for the reason that
/// [`Kernel`](crate::simd::Kernel) gives.
pub(crate) trait Compute<T: Element, S: Lanes<T>> {
    /// The code. Mark the implementation `#[inline(always)]`.
    fn with<A: Arithmetic<T, S>>(self, arithmetic: A, beside: A::Beside);
}

/// A second input, in step with the first.
pub(crate) trait ReadBeside<T: Element, S: Lanes<T>>: Sized {
    /// What stands beside a group.
    type Group: Copy;
    /// What stands beside a vector.
    type Vector;
    /// What stands beside an element.
    type Element;

    /// Takes what stands beside the first `n` elements.
    fn take(&mut self, n: usize) -> Self;
    /// What stands beside the whole groups `range`, one after the other.
    fn groups(&self, range: Range<usize>) -> impl Iterator<Item = Self::Group>;
    /// What stands beside the vector at `at` of a group.
    fn load(simd: S, group: Self::Group, at: usize) -> Self::Vector;
    /// What stands beside element `i`.
    fn get(&self, i: usize) -> Self::Element;
}

/// Nothing.
impl<T: Element, S: Lanes<T>> ReadBeside<T, S> for () {
    type Group = ();
    type Vector = ();
    type Element = ();

    #[inline(always)]
    fn take(&mut self, _: usize) -> Self {}

    #[inline(always)]
    fn groups(&self, range: Range<usize>) -> impl Iterator<Item = ()> {
        iter::repeat_n((), range.len())
    }

    #[inline(always)]
    fn load(_: S, (): (), _: usize) -> Self::Vector {}

    #[inline(always)]
    fn get(&self, _: usize) -> Self::Element {}
}

/// As many elements as the input has.
impl<'a, T: Element, S: Lanes<T>> ReadBeside<T, S> for &'a [T] {
    type Group = &'a [T; GROUP];
    type Vector = S::Stored;
    type Element = T;

    #[inline(always)]
    fn take(&mut self, n: usize) -> Self {
        let (now, later) = self.split_at(n.min(self.len()));
        *self = later;
        now
    }

    #[inline(always)]
    fn groups(&self, range: Range<usize>) -> impl Iterator<Item = Self::Group> {
        self.as_chunks().0[range].iter()
    }

    #[inline(always)]
    fn load(simd: S, group: Self::Group, at: usize) -> S::Stored {
        simd.load(group, at)
    }

    #[inline(always)]
    fn get(&self, i: usize) -> T {
        self[i]
    }
}

/// A row that repeats.
#[cfg_attr(
    not(test),
    expect(
        dead_code,
        reason = "no pass reads a row yet; the tests of the loop do"
    )
)]
#[derive(Clone, Copy)]
pub(crate) struct Row<'a, T> {
    /// Not empty, if the input is not.
    pub(crate) row: &'a [T],
    /// The index in the row of what stands beside the first element.
    pub(crate) at: usize,
}

impl<T: Element, S: Lanes<T>> ReadBeside<T, S> for Row<'_, T> {
    type Group = [T; GROUP];
    type Vector = S::Stored;
    type Element = T;

    #[inline(always)]
    fn take(&mut self, n: usize) -> Self {
        let now = *self;
        self.at = (self.at + n) % self.row.len().max(1);
        now
    }

    #[inline(always)]
    fn groups(&self, range: Range<usize>) -> impl Iterator<Item = Self::Group> {
        let Self { row, at } = *self;
        range.map(move |group| {
            let at = (at + group * GROUP) % row.len();
            match row[at..].first_chunk() {
                Some(whole) => *whole,
                // The group goes beyond the end of the row, which begins again.
                None => core::array::from_fn(|i| row[(at + i) % row.len()]),
            }
        })
    }

    #[inline(always)]
    fn load(simd: S, group: Self::Group, at: usize) -> S::Stored {
        simd.load(&group, at)
    }

    #[inline(always)]
    fn get(&self, i: usize) -> T {
        self.row[(self.at + i) % self.row.len()]
    }
}
