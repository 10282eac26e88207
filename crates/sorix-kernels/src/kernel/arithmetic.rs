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

    /// Whether it drops some of the elements that the mask keeps: [`Pass::decides`](crate::Pass::decides).
    const DECIDES: bool = false;

    /// [`vector`](Self::vector), and those of its bits that are left of `bits`; no others.
    #[inline(always)]
    fn vector_and_bits(
        self,
        simd: S,
        x: S::Stored,
        beside: <Self::Beside as ReadBeside<T, S>>::Vector,
        bits: u64,
        at: usize,
    ) -> (S::Stored, u64) {
        (self.vector(simd, x, beside, bits, at), 0)
    }

    /// [`element`](Self::element), and whether its bit is left.
    #[inline(always)]
    fn element_and_bit(
        self,
        x: T,
        beside: <Self::Beside as ReadBeside<T, S>>::Element,
        keep: bool,
    ) -> (T, bool) {
        (self.element(x, beside, keep), keep)
    }
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
    /// Whether there is a row in it.
    const HAS_ROW: bool = false;

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
#[derive(Clone, Copy)]
pub(crate) struct Row<'a, T> {
    /// Not empty, if the input is not.
    row: &'a [T],
    seam: &'a Seam<T>,
    /// The index in the row of what stands beside the first element.
    at: usize,
}

/// The end of a row and its beginning after it: groups that go beyond the end lie in it as others lie in the
/// row, so that each is read where it is.
pub(crate) struct Seam<T> {
    elements: [T; 2 * GROUP],
    /// The index in the row of the first of them.
    from: usize,
}

impl<T: Element> Seam<T> {
    #[inline(always)]
    pub(crate) fn new(row: &[T]) -> Self {
        let from = row.len().saturating_sub(GROUP);
        let mut elements = [T::ZERO; 2 * GROUP];
        for (element, &x) in elements
            .iter_mut()
            .zip(row[from..].iter().chain(row.iter().cycle()))
        {
            *element = x;
        }
        Self { elements, from }
    }
}

impl<'a, T: Element> Row<'a, T> {
    /// The row from element `at` on, with its seam.
    #[inline(always)]
    pub(crate) fn new(row: &'a [T], at: usize, seam: &'a Seam<T>) -> Self {
        Self { row, seam, at }
    }

    /// The group that begins with element `at` of the row.
    #[inline(always)]
    pub(super) fn group(self, at: usize) -> &'a [T; GROUP] {
        let (elements, from): (&[T], _) = if at + GROUP <= self.row.len() {
            (self.row, at)
        } else {
            (&self.seam.elements, at - self.seam.from)
        };
        elements[from..]
            .first_chunk()
            .expect("a group from inside the row is in the row or in its seam")
    }
}

impl<'a, T: Element, S: Lanes<T>> ReadBeside<T, S> for Row<'a, T> {
    type Group = &'a [T; GROUP];
    type Vector = S::Stored;
    type Element = T;
    const HAS_ROW: bool = true;

    #[inline(always)]
    fn take(&mut self, n: usize) -> Self {
        let now = *self;
        self.at = (self.at + n) % self.row.len().max(1);
        now
    }

    #[inline(always)]
    fn groups(&self, range: Range<usize>) -> impl Iterator<Item = Self::Group> {
        let (row, len) = (*self, self.row.len().max(1));
        let mut at = (row.at + range.start * GROUP) % len;
        // Divided once, and not for each group.
        let step = GROUP % len;
        range.map(move |_| {
            let group = row.group(at);
            at += step;
            if at >= len {
                at -= len;
            }
            group
        })
    }

    #[inline(always)]
    fn load(simd: S, group: Self::Group, at: usize) -> S::Stored {
        simd.load(group, at)
    }

    #[inline(always)]
    fn get(&self, i: usize) -> T {
        self.row[(self.at + i) % self.row.len()]
    }
}

/// Two inputs.
impl<T: Element, S: Lanes<T>, A: ReadBeside<T, S>, B: ReadBeside<T, S>> ReadBeside<T, S>
    for (A, B)
{
    type Group = (A::Group, B::Group);
    type Vector = (A::Vector, B::Vector);
    type Element = (A::Element, B::Element);
    const HAS_ROW: bool = A::HAS_ROW || B::HAS_ROW;

    #[inline(always)]
    fn take(&mut self, n: usize) -> Self {
        (self.0.take(n), self.1.take(n))
    }

    #[inline(always)]
    fn groups(&self, range: Range<usize>) -> impl Iterator<Item = Self::Group> {
        self.0.groups(range.clone()).zip(self.1.groups(range))
    }

    #[inline(always)]
    fn load(simd: S, group: Self::Group, at: usize) -> Self::Vector {
        (A::load(simd, group.0, at), B::load(simd, group.1, at))
    }

    #[inline(always)]
    fn get(&self, i: usize) -> Self::Element {
        (self.0.get(i), self.1.get(i))
    }
}

/// A row that is added to an input in the type computed in, or none.
pub(crate) trait Bias<T: Element, S: Lanes<T>>: ReadBeside<T, S> {
    /// A vector and its bias, in the type computed in.
    fn biased(simd: S, x: S::Stored, bias: Self::Vector) -> S::Wide;
    /// An element and its bias.
    fn biased_element(x: T, bias: Self::Element) -> T::Scale;
}

impl<T: Element, S: Lanes<T>> Bias<T, S> for () {
    #[inline(always)]
    fn biased(simd: S, x: S::Stored, (): ()) -> S::Wide {
        simd.widen(x)
    }

    #[inline(always)]
    fn biased_element(x: T, (): ()) -> T::Scale {
        x.widened()
    }
}

impl<T: Element, S: Lanes<T>> Bias<T, S> for Row<'_, T> {
    #[inline(always)]
    fn biased(simd: S, x: S::Stored, bias: S::Stored) -> S::Wide {
        simd.plus(simd.widen(x), simd.widen(bias))
    }

    #[inline(always)]
    fn biased_element(x: T, bias: T) -> T::Scale {
        x.widened() + bias.widened()
    }
}

/// Elements beside the input, with a bias or without, in the type computed in.
pub(crate) trait Biased<T: Element, S: Lanes<T>>: ReadBeside<T, S> {
    /// Of a vector.
    fn sum(simd: S, beside: Self::Vector) -> S::Wide;
    /// Of an element.
    fn sum_of_element(beside: Self::Element) -> T::Scale;
}

impl<T: Element, S: Lanes<T>> Biased<T, S> for &[T] {
    #[inline(always)]
    fn sum(simd: S, x: S::Stored) -> S::Wide {
        simd.widen(x)
    }

    #[inline(always)]
    fn sum_of_element(x: T) -> T::Scale {
        x.widened()
    }
}

impl<'a, T: Element, S: Lanes<T>> Biased<T, S> for (&'a [T], Row<'a, T>) {
    #[inline(always)]
    fn sum(simd: S, (x, bias): (S::Stored, S::Stored)) -> S::Wide {
        Row::biased(simd, x, bias)
    }

    #[inline(always)]
    fn sum_of_element((x, bias): (T, T)) -> T::Scale {
        <Row<'_, T> as Bias<T, S>>::biased_element(x, bias)
    }
}
