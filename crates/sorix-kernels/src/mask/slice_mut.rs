//! [`BitSliceMut`]: where a kernel writes a mask.

use crate::error::LengthError;
use crate::mask::{BitSlice, WORD, low_bits};

/// Where a kernel writes a mask: whole words, the first element in bit 0 of the first.
#[derive(Debug)]
pub struct BitSliceMut<'a> {
    // Invariant: `words.len() == len.div_ceil(64)`.
    words: &'a mut [u64],
    len: usize,
}

impl<'a> BitSliceMut<'a> {
    /// A mask of `len` elements over `words`, whose old content is irrelevant.
    ///
    /// # Errors
    ///
    /// [`LengthError`] unless there are `len.div_ceil(64)` words.
    pub fn new(words: &'a mut [u64], len: usize) -> Result<Self, LengthError> {
        LengthError::check("mask words", len.div_ceil(WORD), words.len())?;
        Ok(Self { words, len })
    }

    /// A mask of `len` elements over the first of `words`.
    ///
    /// # Panics
    ///
    /// When there are too few words.
    pub(crate) fn of_words(words: &'a mut [u64], len: usize) -> Self {
        Self {
            words: &mut words[..len.div_ceil(WORD)],
            len,
        }
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The words to write, lowest elements first. Bits beyond the last element may be left set:
    /// the owner of the mask clears them.
    pub fn words_mut(&mut self) -> &mut [u64] {
        self.words
    }

    /// What has been written, as a view.
    #[must_use]
    pub fn as_slice(&self) -> BitSlice<'_> {
        BitSlice::of_words(self.words, 0, self.len)
    }

    /// The same bits for a shorter time.
    #[must_use]
    pub fn reborrow(&mut self) -> BitSliceMut<'_> {
        BitSliceMut {
            words: self.words,
            len: self.len,
        }
    }

    /// The first `mid` elements and the rest.
    ///
    /// # Panics
    ///
    /// When `mid > len`, or `mid` is neither `len` nor a multiple of 64: two parts cannot share a
    /// word.
    #[must_use]
    pub fn split_at(self, mid: usize) -> (Self, Self) {
        let Self { words, len } = self;
        assert!(
            mid <= len && (mid == len || mid.is_multiple_of(WORD)),
            "cannot split {len} mask bits at {mid}"
        );
        let (head, tail) = words.split_at_mut(mid.div_ceil(WORD));
        (
            BitSliceMut {
                words: head,
                len: mid,
            },
            BitSliceMut {
                words: tail,
                len: len - mid,
            },
        )
    }

    /// Keeps every element, or drops every one.
    pub fn fill(&mut self, keep: bool) {
        self.words.fill(if keep { u64::MAX } else { 0 });
        self.clear_surplus();
    }

    /// Writes elements `at` to `at + bits.len() - 1`; elements before `at` are left alone, and what
    /// comes after, in the words that are touched, becomes zero.
    ///
    /// # Panics
    ///
    /// When that is beyond the end.
    pub(crate) fn write(&mut self, at: usize, bits: BitSlice<'_>) {
        assert!(
            at + bits.len() <= self.len,
            "{} mask bits at {at} of {}",
            bits.len(),
            self.len
        );
        let (first, shift) = (at / WORD, at % WORD);
        let (words, start) = bits.words_and_start();
        if shift == 0 && start == 0 {
            let whole = bits.len() / WORD;
            self.words[first..][..whole].copy_from_slice(&words[..whole]);
            if whole * WORD < bits.len() {
                self.words[first + whole] = bits.word(whole);
            }
            return;
        }
        for i in 0..bits.len().div_ceil(WORD) {
            let word = bits.word(i);
            if shift == 0 {
                self.words[first + i] = word;
            } else {
                self.words[first + i] &= low_bits(shift);
                self.words[first + i] |= word << shift;
                // A word further on may not exist, and is then not needed.
                if let Some(next) = self.words.get_mut(first + i + 1) {
                    *next = word >> (WORD - shift);
                }
            }
        }
    }

    /// Zeroes the bits beyond the last element.
    pub(crate) fn clear_surplus(&mut self) {
        if let Some(last) = self.words.last_mut() {
            *last &= low_bits((self.len - 1) % WORD + 1);
        }
    }
}
