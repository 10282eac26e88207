//! [`BitSlice`]: a view of a mask, and its elements one by one.

use core::fmt;
use core::ops::{Bound, RangeBounds};

use crate::error::LengthError;
use crate::mask::{BitMask, WORD, low_bits};

/// A borrowed run of mask bits, beginning at any bit.
#[derive(Clone, Copy)]
pub struct BitSlice<'a> {
    // Invariant: `start < 64` and `start + len <= 64 * words.len()`.
    words: &'a [u64],
    start: usize,
    len: usize,
}

impl<'a> BitSlice<'a> {
    /// The number of elements.
    #[must_use]
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Whether element `i` is kept; `None` beyond the end.
    #[must_use]
    pub fn get(self, i: usize) -> Option<bool> {
        (i < self.len).then(|| {
            let bit = self.start + i;
            self.words[bit / WORD] >> (bit % WORD) & 1 == 1
        })
    }

    /// The elements in order, `true` = keep.
    pub fn iter(self) -> Bits<'a> {
        Bits {
            bits: self,
            next: 0,
        }
    }

    /// How many elements are kept.
    #[must_use]
    pub fn count_kept(self) -> usize {
        (0..self.len.div_ceil(WORD))
            .map(|i| self.word(i).count_ones() as usize)
            .sum()
    }

    /// Elements `64 i` to `64 i + 63` of this slice in one word, zero beyond the end: what a kernel
    /// reads, wherever in a word the slice begins.
    ///
    /// # Panics
    ///
    /// When `64 i` is not below `len`.
    #[must_use]
    #[inline]
    pub fn word(self, i: usize) -> u64 {
        assert!(
            i < self.len.div_ceil(WORD),
            "word {i} of {} mask bits",
            self.len
        );
        let low = self.words[i] >> self.start;
        let word = if self.start == 0 {
            low
        } else {
            // A word further on may not exist, and is then not needed.
            low | self
                .words
                .get(i + 1)
                .map_or(0, |&high| high << (WORD - self.start))
        };
        let left = self.len - i * WORD;
        if left < WORD {
            word & low_bits(left)
        } else {
            word
        }
    }

    /// The first `mid` elements and the rest.
    ///
    /// # Panics
    ///
    /// When `mid > len`.
    #[must_use]
    #[inline]
    pub fn split_at(self, mid: usize) -> (Self, Self) {
        assert!(
            mid <= self.len,
            "cannot split {} mask bits at {mid}",
            self.len
        );
        let bit = self.start + mid;
        let head = Self { len: mid, ..self };
        let tail = Self {
            words: &self.words[bit / WORD..],
            start: bit % WORD,
            len: self.len - mid,
        };
        (head, tail)
    }

    /// A part of this slice; see [`BitMask::slice`].
    ///
    /// # Errors
    ///
    /// [`LengthError`] if the range ends beyond the slice or before it begins.
    pub fn slice(self, range: impl RangeBounds<usize>) -> Result<Self, LengthError> {
        let begin = match range.start_bound() {
            Bound::Included(&i) => i,
            Bound::Excluded(&i) => i.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&i) => i.saturating_add(1),
            Bound::Excluded(&i) => i,
            Bound::Unbounded => self.len,
        };
        if end > self.len {
            let what = "mask (end of the range at most)";
            return Err(LengthError {
                what,
                expected: self.len,
                got: end,
            });
        }
        if begin > end {
            let what = "mask (begin of the range at most)";
            return Err(LengthError {
                what,
                expected: end,
                got: begin,
            });
        }
        Ok(self.split_at(end).0.split_at(begin).1)
    }

    /// Elements `start` to `start + len - 1` of the mask over `words`.
    ///
    /// # Panics
    ///
    /// When the words have fewer bits.
    #[inline(always)]
    pub(crate) fn of_words(words: &'a [u64], start: usize, len: usize) -> Self {
        let words = &words[start / WORD..];
        let start = start % WORD;
        assert!(
            start + len <= words.len() * WORD,
            "{len} mask bits from bit {start}"
        );
        Self { words, start, len }
    }

    /// The words that the slice lies in, and the bit of the first of them where it begins.
    #[inline(always)]
    pub(crate) fn words_and_start(self) -> (&'a [u64], usize) {
        (self.words, self.start)
    }

    pub(super) fn fmt_as(self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.count_kept();
        f.debug_struct(name)
            .field("len", &self.len)
            .field("kept", &kept)
            .finish_non_exhaustive()
    }
}

impl<'a> From<&'a BitMask> for BitSlice<'a> {
    fn from(mask: &'a BitMask) -> Self {
        mask.as_slice()
    }
}

impl PartialEq for BitSlice<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && (0..self.len.div_ceil(WORD)).all(|i| self.word(i) == other.word(i))
    }
}

impl Eq for BitSlice<'_> {}

impl fmt::Debug for BitSlice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_as("BitSlice", f)
    }
}

/// The elements of a mask in order: what [`BitMask::iter`] returns.
#[derive(Clone, Debug)]
#[must_use = "an iterator does nothing unless it is asked for elements"]
pub struct Bits<'a> {
    bits: BitSlice<'a>,
    next: usize,
}

impl Iterator for Bits<'_> {
    type Item = bool;

    fn next(&mut self) -> Option<bool> {
        let keep = self.bits.get(self.next)?;
        self.next += 1;
        Some(keep)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.bits.len() - self.next;
        (left, Some(left))
    }

    fn nth(&mut self, n: usize) -> Option<bool> {
        self.next = self.next.saturating_add(n).min(self.bits.len());
        self.next()
    }
}

impl ExactSizeIterator for Bits<'_> {}
impl core::iter::FusedIterator for Bits<'_> {}
