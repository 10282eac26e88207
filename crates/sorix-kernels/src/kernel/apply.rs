//! The loop over elements: a pass, by bits of a mask, whatever the pass is.
//!
//! One word of the mask decides a group of 64 elements. The arithmetic happens in every lane
//! and the dropped lanes are replaced after it, so a NaN or an infinity in them is gone.
//!
//! If the output is not aligned to a cache line, the elements before the first aligned one go
//! first, so that every vector after them is aligned: streaming stores require it and ordinary ones
//! are faster for it. The mask is then read at a shift.

use core::ops::Range;

use crate::element::Element;
use crate::job::{Apply, Update};
use crate::kernel::arithmetic::{Arithmetic, Compute, ReadBeside};
use crate::kernel::elements::{Elements, Group, Write, unaligned_head, with_elements};
use crate::kernel::tile::Meanwhile;
use crate::mask::{BitSlice, WORD};
use crate::simd::{Fence, GROUP, Kernel, Lanes, Simd};
use crate::stream::{BLOCK, LANES};

/// How many blocks of a mask are made before the elements of a block are read: a load that follows
/// the store of its word too closely waits for the stores of the output that are between.
const BLOCKS_BEFORE: usize = 4;

/// Streaming stores go to this many pages of memory in turn, a group to each. In the memory of a
/// Granite Rapids a pass then takes 0.6 to 0.9 copies, where page after page takes 0.7 to 1.2.
const PAGES: usize = 4;

/// Bytes in a page.
const PAGE: usize = 4096;

impl<T: Element, S: Simd + Lanes<T>> Kernel<S> for Apply<'_, T> {
    #[inline(always)]
    fn run(self, simd: S) {
        let mask = self.mask();
        let update = self.into_update();
        let (pass, beside) = (update.pass(), update.beside());
        pass.compute(simd, beside, ApplyBits { simd, mask, update });
    }
}

struct ApplyBits<'a, T: Element, S> {
    simd: S,
    mask: BitSlice<'a>,
    update: Update<'a, T>,
}

impl<T: Element, S: Lanes<T>> Compute<T, S> for ApplyBits<'_, T, S> {
    #[inline(always)]
    fn with<A: Arithmetic<T, S>>(self, arithmetic: A, beside: A::Beside) {
        let Self { simd, mask, update } = self;
        let fence = update.is_streaming().then(|| Fence::after(simd));
        let (words, start) = mask.words_and_start();
        with_elements!(update.into_buffers(), &fence, |write, elements| {
            Applying::new(simd, write, arithmetic, elements, beside, start).finish(words);
        });
    }
}

/// A pass over elements, on its way. The bits are given to each call, since they may be in the
/// making.
pub(super) struct Applying<W, A, T: Element, S: Lanes<T>, E: Elements<T>>
where
    A: Arithmetic<T, S>,
{
    simd: S,
    write: W,
    arithmetic: A,
    /// Elements before the first aligned one, to be done before all others.
    head: (E, A::Beside),
    /// Elements in whole groups, and those that do not fill one.
    groups: (E, A::Beside),
    rest: (E, A::Beside),
    /// How many whole groups there are, and how many of them are done.
    count: usize,
    done: usize,
    /// The bit of the words at which the mask of the head begins, and that of the groups.
    start: usize,
    groups_start: usize,
    element: core::marker::PhantomData<T>,
}

impl<W, A, T, S, E> Applying<W, A, T, S, E>
where
    W: Write<T, S>,
    A: Arithmetic<T, S>,
    T: Element,
    S: Lanes<T>,
    E: Elements<T>,
{
    /// A pass over `elements`, the bits of which begin at bit `start` of the words that will be
    /// given.
    #[inline(always)]
    pub(super) fn new(
        simd: S,
        write: W,
        arithmetic: A,
        mut elements: E,
        mut beside: A::Beside,
        start: usize,
    ) -> Self {
        let len = elements.y().len();
        // Not worth it for a few: they are done before alignment would show.
        let head = if W::STREAMED || len >= BLOCK {
            unaligned_head(elements.y())
        } else {
            0
        };
        let count = (len - head) / GROUP;
        let mut take = |n| (elements.take(n), beside.take(n));
        let (head_elements, groups, rest) = (take(head), take(count * GROUP), take(len));
        Self {
            simd,
            write,
            arithmetic,
            head: head_elements,
            groups,
            rest,
            count,
            done: 0,
            start,
            groups_start: start + head,
            element: core::marker::PhantomData,
        }
    }

    /// Less than a group, element by element: a vector put together from less would wait for its
    /// parts to reach memory.
    #[inline(always)]
    fn part(arithmetic: A, (elements, beside): (E, A::Beside), words: &[u64], start: usize) {
        if elements.y().is_empty() {
            return;
        }
        let bits = BitSlice::of_words(words, start, elements.y().len()).word(0);
        elements.update(|i, x| arithmetic.element(x, beside.get(i), bits >> i & 1 == 1));
    }

    /// The elements before the first aligned one, once.
    #[inline(always)]
    fn head(&mut self, words: &[u64]) {
        let (elements, beside) = &mut self.head;
        let n = elements.y().len();
        if n > 0 {
            let head = (elements.take(n), beside.take(n));
            Self::part(self.arithmetic, head, words, self.start);
        }
    }

    /// Groups that are streamed together: those of [`PAGES`] pages.
    const SIDE_BY_SIDE: usize = PAGES * PAGE / (GROUP * size_of::<T>());

    /// The next `n` whole groups, of which there must be as many.
    #[inline(always)]
    fn groups(&mut self, words: &[u64], n: usize) {
        let end = self.done + n;
        if W::STREAMED {
            let in_page = Self::SIDE_BY_SIDE / PAGES;
            while end - self.done >= Self::SIDE_BY_SIDE {
                for place in 0..in_page {
                    for page in 0..PAGES {
                        let group = self.done + page * in_page + place;
                        self.run(words, group..group + 1);
                    }
                }
                self.done += Self::SIDE_BY_SIDE;
            }
        }
        self.run(words, self.done..end);
        self.done = end;
    }

    /// Whole groups, in order.
    #[inline(always)]
    fn run(&mut self, words: &[u64], range: Range<usize>) {
        let (first, shift) = (self.groups_start / WORD, self.groups_start % WORD);
        let words = &words[first + range.start..];
        let (elements, beside) = &mut self.groups;
        let groups = elements.groups(range.clone()).zip(beside.groups(range));
        if shift == 0 {
            for (&word, (group, beside)) in words.iter().zip(groups) {
                apply_word(self.simd, self.write, self.arithmetic, word, group, beside);
            }
        } else {
            let pairs = words.iter().zip(words.get(1..).unwrap_or_default());
            for ((low, high), (group, beside)) in pairs.zip(groups) {
                let word = low >> shift | high << (WORD - shift);
                apply_word(self.simd, self.write, self.arithmetic, word, group, beside);
            }
        }
    }

    /// What is left, by words that are all there.
    #[inline(always)]
    pub(super) fn finish(mut self, words: &[u64]) {
        self.head(words);
        self.groups(words, self.count - self.done);
        let start = self.groups_start + self.count * GROUP;
        Self::part(self.arithmetic, self.rest, words, start);
    }
}

impl<W, A, T, S, E> Meanwhile for Applying<W, A, T, S, E>
where
    W: Write<T, S>,
    A: Arithmetic<T, S>,
    T: Element,
    S: Lanes<T>,
    E: Elements<T>,
{
    #[inline(always)]
    fn step(&mut self, blocks: &[[u64; LANES]], made: usize) {
        let words = blocks.as_flattened();
        // The last of a group's bits may be in the word after its first.
        let ready = (made * LANES)
            .saturating_sub(BLOCKS_BEFORE * LANES + self.groups_start.div_ceil(WORD))
            .min(self.count);
        let mut n = ready.saturating_sub(self.done);
        if W::STREAMED {
            n -= n % Self::SIDE_BY_SIDE;
        }
        if n > 0 {
            self.head(words);
            self.groups(words, n);
        }
    }
}

/// Applies one word of a mask to a group.
#[inline(always)]
fn apply_word<T: Element, S: Lanes<T>, A: Arithmetic<T, S>>(
    simd: S,
    write: impl Write<T, S>,
    arithmetic: A,
    bits: u64,
    mut group: impl Group<T>,
    beside: <A::Beside as ReadBeside<T, S>>::Group,
) {
    write.announce(simd, group.y());
    for at in (0..GROUP).step_by(S::LANES) {
        let beside = <A::Beside as ReadBeside<T, S>>::load(simd, beside, at);
        let y = arithmetic.vector(simd, simd.load(group.x(), at), beside, bits, at);
        write.write(simd, y, group.y(), at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffers::Buffers;
    use crate::kernel::arithmetic::Row;
    use crate::mask::BitMask;
    use crate::pass::Pass;
    use crate::simd::Portable;

    /// `x + beside` where kept, `beside` elsewhere.
    #[derive(Clone, Copy)]
    struct Plus<B>(core::marker::PhantomData<B>);

    impl<B, S> Arithmetic<f32, S> for Plus<B>
    where
        B: ReadBeside<f32, S, Vector = S::Stored, Element = f32> + Copy,
        S: Lanes<f32>,
    {
        type Beside = B;

        fn vector(
            self,
            simd: S,
            x: S::Stored,
            beside: S::Stored,
            bits: u64,
            at: usize,
        ) -> S::Stored {
            let sum = simd.plus(simd.widen(x), simd.widen(beside));
            simd.select(bits, at, simd.narrow(sum, true), beside)
        }

        fn element(self, x: f32, beside: f32, keep: bool) -> f32 {
            if keep { x + beside } else { beside }
        }
    }

    /// The sums of `len` elements that begin at each of a few alignments, in place or not, beside
    /// `beside`, against one that is made element by element.
    fn check<B>(len: usize, beside: B, get: impl Fn(usize) -> f32)
    where
        B: ReadBeside<f32, Portable, Vector = <Portable as Lanes<f32>>::Stored, Element = f32>
            + Copy,
    {
        let mask: BitMask = (0..len + 5).map(|i| i % 3 != 1).collect();
        let bits = mask.slice(5..).unwrap();
        for begin in [0, 3, 15] {
            let x: Vec<f32> = (0..len).map(|i| i as f32).collect();
            let want: Vec<f32> = (0..len)
                .map(|i| get(i) + if bits.get(i) == Some(true) { x[i] } else { 0.0 })
                .collect();
            for in_place in [false, true] {
                let mut memory = vec![-1.0; begin + len];
                let y = &mut memory[begin..];
                y.copy_from_slice(&x);
                let buffers = if in_place {
                    Buffers::in_place(y)
                } else {
                    Buffers::new(&x, y).unwrap()
                };
                let sum = ApplyBits {
                    simd: Portable,
                    mask: bits,
                    update: Update::new(Pass::Scale { scale: 1.0 }, buffers).unwrap(),
                };
                sum.with(Plus::<B>(core::marker::PhantomData), beside);
                assert_eq!(
                    memory[begin..],
                    want,
                    "{len} from {begin}, in place: {in_place}"
                );
            }
        }
    }

    #[test]
    fn a_second_input_is_read_in_step_with_the_first() {
        let elements: Vec<f32> = (0..1300).map(|i| 0.25 * i as f32).collect();
        for len in [0, 1, 63, 64, 65, 200, 512, 700, 1300] {
            check(len, &elements[..len], |i| elements[i]);
            for row_len in [1, 7, 64, 65, 300] {
                let (row, at) = (&elements[..row_len], row_len / 2);
                check(len, Row { row, at }, |i| row[(at + i) % row_len]);
            }
        }
    }
}
