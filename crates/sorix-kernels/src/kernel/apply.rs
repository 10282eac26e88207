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
use crate::mask::{BitSlice, BitSliceMut, WORD, low_bits};
use crate::simd::{Fence, GROUP, Kernel, Lanes, Simd};
use crate::stream::{BLOCK, LANES, TILE};

/// How many blocks of a mask are made before the elements of a block are read: a load that follows
/// the store of its word too closely waits for the stores of the output that are between.
const BLOCKS_BEFORE: usize = 4;

/// Streaming stores go to this many pages of memory in turn, a group to each. In the memory of a
/// Granite Rapids a pass then takes 0.6 to 0.9 copies, where page after page takes 0.7 to 1.2.
const PAGES: usize = 4;

/// How many words are moved at a time: those of a tile, which are also a multiple of the groups of [`PAGES`] pages.
const MOVED: usize = TILE / WORD;

/// Words for the groups that come next, and what is left of them, once they are needed.
pub(super) type Moved = Option<[u64; MOVED]>;

/// Bytes in a page.
const PAGE: usize = 4096;

impl<T: Element, S: Simd + Lanes<T>> Kernel<S> for Apply<'_, T> {
    #[inline(always)]
    fn run(self, simd: S) {
        let mask = self.mask();
        let (update, out) = self.into_parts();
        let (pass, beside) = (update.pass(), update.beside());
        let compute = ApplyBits {
            simd,
            mask,
            update,
            out,
        };
        pass.compute(simd, beside, compute);
    }
}

struct ApplyBits<'a, T: Element, S> {
    simd: S,
    mask: BitSlice<'a>,
    update: Update<'a, T>,
    out: Option<BitSliceMut<'a>>,
}

impl<T: Element, S: Lanes<T>> Compute<T, S> for ApplyBits<'_, T, S> {
    #[inline(always)]
    fn with<A: Arithmetic<T, S>>(self, arithmetic: A, beside: A::Beside) {
        let Self {
            simd,
            mask,
            update,
            out,
        } = self;
        let fence = update.is_streaming().then(|| Fence::after(simd));
        if A::DECIDES
            && let Some(mut out) = out
        {
            out.write(0, mask);
            with_elements!(update.into_buffers(), &fence, |write, elements| {
                Applying::new(simd, write, arithmetic, elements, beside, 0, &mut None)
                    .all(Decided(out.words_mut()));
            });
            return;
        }
        let (words, start) = mask.words_and_start();
        with_elements!(update.into_buffers(), &fence, |write, elements| {
            Applying::new(simd, write, arithmetic, elements, beside, start, &mut None).all(words);
        });
    }
}

/// The words of a mask, for a pass.
pub(super) trait Words {
    /// Whether bits are left of them.
    const ARE_LEFT: bool;
    /// To read.
    fn words(&self) -> &[u64];
    /// To leave bits of; none, if they [are not](Self::ARE_LEFT).
    fn words_mut(&mut self) -> &mut [u64];
    /// Of the `n` bits from bit `at` on, at most 64 and at least 1, leaves those that `bits` has.
    fn leave(&mut self, at: usize, n: usize, bits: u64);
}

/// Words whose bits stay as they are.
impl Words for &[u64] {
    const ARE_LEFT: bool = false;

    #[inline(always)]
    fn words(&self) -> &[u64] {
        self
    }

    #[inline(always)]
    fn words_mut(&mut self) -> &mut [u64] {
        &mut []
    }

    #[inline(always)]
    fn leave(&mut self, _: usize, _: usize, _: u64) {}
}

/// Words of which the bits are left that a pass [decides](Arithmetic::DECIDES) to leave.
struct Decided<'a>(&'a mut [u64]);

impl Words for Decided<'_> {
    const ARE_LEFT: bool = true;

    #[inline(always)]
    fn words(&self) -> &[u64] {
        self.0
    }

    #[inline(always)]
    fn words_mut(&mut self) -> &mut [u64] {
        self.0
    }

    #[inline(always)]
    fn leave(&mut self, at: usize, n: usize, bits: u64) {
        let (first, shift) = (at / WORD, at % WORD);
        let gone = !bits & low_bits(n);
        self.0[first] &= !(gone << shift);
        if shift + n > WORD {
            self.0[first + 1] &= !(gone >> (WORD - shift));
        }
    }
}

/// A pass over elements, on its way. The bits are given to each call, since they may be in the
/// making.
pub(super) struct Applying<'m, W, A, T: Element, S: Lanes<T>, E: Elements<T>>
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
    /// Not in here, since its address is handed on: all else stays in registers.
    moved: &'m mut Moved,
    element: core::marker::PhantomData<T>,
}

impl<'m, W, A, T, S, E> Applying<'m, W, A, T, S, E>
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
        moved: &'m mut Moved,
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
            moved,
            element: core::marker::PhantomData,
        }
    }

    /// Less than a group, element by element: a vector put together from less would wait for its
    /// parts to reach memory. Not inlined, as it stands in three places of each loop and is short work.
    #[inline(never)]
    fn part(
        arithmetic: A,
        (elements, beside): (E, A::Beside),
        words: &mut impl Words,
        start: usize,
    ) {
        let n = elements.y().len();
        if n == 0 {
            return;
        }
        let bits = BitSlice::of_words(words.words(), start, n).word(0);
        let mut left = bits;
        elements.update(|i, x| {
            let keep = bits >> i & 1 == 1;
            let (y, is_left) = arithmetic.element_and_bit(x, beside.get(i), keep);
            left &= !(u64::from(!is_left) << i);
            y
        });
        if A::DECIDES {
            words.leave(start, n, left);
        }
    }

    /// The elements before the first aligned one, once.
    #[inline(always)]
    fn head(&mut self, words: &mut impl Words) {
        let (elements, beside) = &mut self.head;
        let n = elements.y().len();
        if n > 0 {
            let head = (elements.take(n), beside.take(n));
            Self::part(self.arithmetic, head, words, self.start);
        }
    }

    /// Groups that are streamed together: those of [`PAGES`] pages.
    const SIDE_BY_SIDE: usize = PAGES * PAGE / (GROUP * size_of::<T>());

    /// The next `n` whole groups, of which there must be as many: at most [`MOVED`] unless their words can be
    /// [read where they are](Self::are_in_place). Where stores are streamed and `n` groups are whole pages, say so.
    ///
    /// The loop over groups is made anew for each pass, dtype and backend, so it stands in few places, whatever
    /// the shift of the mask: it reads a word for each group, and words that lie at a shift are moved first.
    #[inline(always)]
    fn groups<M: Words>(&mut self, words: &mut M, n: usize, whole_pages: bool) {
        let at = self.groups_start + self.done * GROUP;
        let are_in_place = self.are_in_place::<M>();
        let (now, left): (&[u64], &mut [u64]) = match (are_in_place, A::DECIDES) {
            (true, false) => (&words.words()[at / WORD..][..n], &mut []),
            (true, true) => (&[], &mut words.words_mut()[at / WORD..][..n]),
            (false, _) => {
                let moved = &mut self.moved.get_or_insert([0; MOVED])[..n];
                move_words(words.words(), at, moved);
                if A::DECIDES {
                    (&[], moved)
                } else {
                    (moved, &mut [])
                }
            }
        };
        let mut run = Run {
            simd: self.simd,
            write: self.write,
            arithmetic: self.arithmetic,
            groups: &mut self.groups,
            begin: self.done,
            words: now,
            left,
        };
        let mut done = 0;
        if W::STREAMED {
            let in_page = Self::SIDE_BY_SIDE / PAGES;
            while n - done >= Self::SIDE_BY_SIDE {
                for place in 0..in_page {
                    for page in 0..PAGES {
                        let group = done + page * in_page + place;
                        run.of(group..group + 1);
                    }
                }
                done += Self::SIDE_BY_SIDE;
            }
        }
        if !(W::STREAMED && whole_pages) {
            run.of(done..n);
        }
        if let (true, false, Some(left)) = (A::DECIDES, are_in_place, &*self.moved) {
            leave_words(words, at, &left[..n]);
        }
        self.done += n;
    }

    /// Whether there is a word for each group, which is left what the pass decides if it does.
    #[inline(always)]
    fn are_in_place<M: Words>(&self) -> bool {
        self.groups_start.is_multiple_of(WORD) && (M::ARE_LEFT || !A::DECIDES)
    }

    /// All of it, by words that are all there.
    #[inline(always)]
    pub(super) fn all<M: Words>(mut self, mut words: M) {
        self.head(&mut words);
        while self.done < self.count {
            let mut n = self.count - self.done;
            if !self.are_in_place::<M>() {
                n = n.min(MOVED);
            }
            self.groups(&mut words, n, false);
        }
        self.rest(words);
    }

    /// What is left of at most [`MOVED`] groups, by words that are all there.
    #[inline(always)]
    pub(super) fn finish(mut self, mut words: impl Words) {
        self.head(&mut words);
        self.groups(&mut words, self.count - self.done, false);
        self.rest(words);
    }

    /// What does not fill a group.
    #[inline(always)]
    fn rest(self, mut words: impl Words) {
        let start = self.groups_start + self.count * GROUP;
        Self::part(self.arithmetic, self.rest, &mut words, start);
    }
}

/// Groups on their way, with a word for each.
struct Run<'a, W, A, T: Element, S: Lanes<T>, E>
where
    A: Arithmetic<T, S>,
{
    simd: S,
    write: W,
    arithmetic: A,
    groups: &'a mut (E, A::Beside),
    /// The group to which the first word belongs.
    begin: usize,
    /// The words, for a pass that leaves them as they are.
    words: &'a [u64],
    /// The words, for a pass that [decides](Arithmetic::DECIDES) what is left of them.
    left: &'a mut [u64],
}

impl<W, A, T, S, E> Run<'_, W, A, T, S, E>
where
    W: Write<T, S>,
    A: Arithmetic<T, S>,
    T: Element,
    S: Lanes<T>,
    E: Elements<T>,
{
    /// Applies the words `range`.
    #[inline(always)]
    fn of(&mut self, range: Range<usize>) {
        let (elements, beside) = &mut *self.groups;
        let place = self.begin + range.start..self.begin + range.end;
        let groups = elements.groups(place.clone()).zip(beside.groups(place));
        let (simd, write, arithmetic) = (self.simd, self.write, self.arithmetic);
        if A::DECIDES {
            for (word, (group, beside)) in self.left[range].iter_mut().zip(groups) {
                *word = apply_word(simd, write, arithmetic, *word, group, beside);
            }
        } else {
            for (&word, (group, beside)) in self.words[range].iter().zip(groups) {
                apply_word(simd, write, arithmetic, word, group, beside);
            }
        }
    }
}

impl<W, A, T, S, E> Meanwhile for Applying<'_, W, A, T, S, E>
where
    W: Write<T, S>,
    A: Arithmetic<T, S>,
    T: Element,
    S: Lanes<T>,
    E: Elements<T>,
{
    #[inline(always)]
    fn step(&mut self, blocks: &[[u64; LANES]], made: usize) {
        let words = &mut blocks.as_flattened();
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
            self.groups(words, n, true);
        }
    }
}

/// Moves the words of which bit 0 is bit `at` of `words` and each 64th after it to `to`. Not inlined, as it stands in
/// each loop and is the same for all.
#[inline(never)]
fn move_words(words: &[u64], at: usize, to: &mut [u64]) {
    for (i, to) in to.iter_mut().enumerate() {
        *to = word_at(words, at + i * WORD);
    }
}

/// Leaves the bits `left` of those from bit `at` on.
#[inline(never)]
fn leave_words(words: &mut impl Words, at: usize, left: &[u64]) {
    for (i, &left) in left.iter().enumerate() {
        words.leave(at + i * WORD, WORD, left);
    }
}

/// The word of which bit 0 is bit `at` of `words`. Behind the last word all bits are 0.
#[inline(always)]
pub(super) fn word_at(words: &[u64], at: usize) -> u64 {
    let (first, shift) = (at / WORD, at % WORD);
    let next = words.get(first + 1).copied().unwrap_or_default();
    // In two steps, as a shift by all 64 bits is none.
    words[first] >> shift | next << 1 << (WORD - 1 - shift)
}

/// Applies one word of a mask to a group. Returns the bits that are left of it, if the pass
/// [decides](Arithmetic::DECIDES) that.
#[inline(always)]
fn apply_word<T: Element, S: Lanes<T>, A: Arithmetic<T, S>>(
    simd: S,
    write: impl Write<T, S>,
    arithmetic: A,
    bits: u64,
    mut group: impl Group<T>,
    beside: <A::Beside as ReadBeside<T, S>>::Group,
) -> u64 {
    write.announce(simd, group.y());
    let mut left = 0;
    for at in (0..GROUP).step_by(S::LANES) {
        let beside = <A::Beside as ReadBeside<T, S>>::load(simd, beside, at);
        let x = simd.load(group.x(), at);
        let (y, its_bits) = arithmetic.vector_and_bits(simd, x, beside, bits, at);
        left |= its_bits;
        write.write(simd, y, group.y(), at);
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffers::Buffers;
    use crate::kernel::arithmetic::{Row, Seam};
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
                    out: None,
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
            for row_len in [1, 7, 63, 64, 65, 127, 128, 300] {
                let (row, at) = (&elements[..row_len], row_len / 2);
                let seam = Seam::new(row);
                check(len, Row::new(row, at, &seam), |i| row[(at + i) % row_len]);
            }
        }
    }
}
