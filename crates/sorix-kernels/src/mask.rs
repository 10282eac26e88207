//! [`BitMask`]: one bit per element, and borrowed views of it.
//!
//! Element *i* is bit `i % 64` of word `i / 64`; 1 keeps, 0 drops; the unused bits of the last word
//! are zero, so equal masks have equal words. As little-endian bytes this is the layout of Arrow
//! bitmaps, of ONNX Runtime's 32-bit and of libxsmm's 16-bit mask words.

use core::fmt;
use core::ops::{Bound, RangeBounds};

use crate::error::{AllocationError, LengthError, MaskError};

/// Bits in a word of a mask.
pub(crate) const WORD: usize = u64::BITS as usize;

/// An owned mask: one bit per element, 1 = keep.
///
/// ```
/// use sorix_kernels::BitMask;
///
/// let mask = BitMask::from_bools(&[true, false, true, true]);
/// assert_eq!(mask.words(), [0b1101]);
/// assert_eq!(mask.count_kept(), 3);
/// assert_eq!(mask.get(1), Some(false));
/// assert_eq!(mask.get(4), None);
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct BitMask {
    // Invariant: `words.len() == len.div_ceil(64)` and the surplus bits of the last word are zero.
    words: Vec<u64>,
    len: usize,
}

impl BitMask {
    /// A mask of `len` elements, all dropped.
    ///
    /// # Panics
    ///
    /// When the memory cannot be had, as `Vec` does; [`BitMask::try_new`] returns an error instead.
    #[must_use]
    pub fn new(len: usize) -> Self {
        Self {
            words: vec![0; len.div_ceil(WORD)],
            len,
        }
    }

    /// A mask of `len` elements, all dropped, or an error where the memory cannot be had.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] with the number of bytes that were asked for.
    ///
    /// ```
    /// use sorix_kernels::BitMask;
    /// assert_eq!(BitMask::try_new(100).unwrap(), BitMask::new(100));
    /// assert!(BitMask::try_new(usize::MAX).is_err());
    /// ```
    pub fn try_new(len: usize) -> Result<Self, AllocationError> {
        let count = len.div_ceil(WORD);
        let mut words = Vec::new();
        words
            .try_reserve_exact(count)
            .map_err(|_| AllocationError {
                bytes: count as u64 * size_of::<u64>() as u64,
            })?;
        words.resize(count, 0);
        Ok(Self { words, len })
    }

    /// A mask with one element per bool, `true` = keep.
    #[must_use]
    pub fn from_bools(keep: &[bool]) -> Self {
        let pack = |bools: &[bool]| {
            bools
                .iter()
                .enumerate()
                .fold(0, |word, (i, &b)| word | u64::from(b) << i)
        };
        Self {
            words: keep.chunks(WORD).map(pack).collect(),
            len: keep.len(),
        }
    }

    /// A mask of `len` elements over words that are already in the layout.
    ///
    /// # Errors
    ///
    /// [`MaskError`] unless there are `len.div_ceil(64)` words and every bit beyond the last
    /// element is zero.
    ///
    /// ```
    /// use sorix_kernels::BitMask;
    /// let mask = BitMask::from_words(vec![0b101], 3)?;
    /// assert_eq!(mask.to_bools(), [true, false, true]);
    /// assert!(BitMask::from_words(vec![0b1101], 3).is_err());
    /// # Ok::<(), sorix_kernels::MaskError>(())
    /// ```
    pub fn from_words(words: Vec<u64>, len: usize) -> Result<Self, MaskError> {
        LengthError::check("mask words", len.div_ceil(WORD), words.len())?;
        if let Some(last) = words.last() {
            let surplus = last & !low_bits(len - (words.len() - 1) * WORD);
            if surplus != 0 {
                let bit = (words.len() - 1) * WORD + surplus.trailing_zeros() as usize;
                return Err(MaskError::SurplusBits { len, bit });
            }
        }
        Ok(Self { words, len })
    }

    /// A mask of `len` elements from little-endian bytes: element *i* is bit `i % 8` of byte
    /// `i / 8`.
    ///
    /// # Errors
    ///
    /// [`MaskError`] unless there are `len.div_ceil(8)` bytes and every bit beyond the last
    /// element is zero.
    ///
    /// ```
    /// use sorix_kernels::BitMask;
    /// let mask = BitMask::from_bytes(&[0b1000_0001, 0b1], 9)?;
    /// assert_eq!(mask.count_kept(), 3);
    /// assert_eq!(mask.to_bytes(), [0b1000_0001, 0b1]);
    /// # Ok::<(), sorix_kernels::MaskError>(())
    /// ```
    pub fn from_bytes(bytes: &[u8], len: usize) -> Result<Self, MaskError> {
        LengthError::check("mask bytes", len.div_ceil(8), bytes.len())?;
        let word = |chunk: &[u8]| {
            let mut padded = [0; 8];
            padded[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(padded)
        };
        Self::from_words(bytes.chunks(8).map(word).collect(), len)
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the mask has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether element `i` is kept; `None` beyond the end.
    #[must_use]
    pub fn get(&self, i: usize) -> Option<bool> {
        self.as_slice().get(i)
    }

    /// The elements in order, `true` = keep.
    pub fn iter(&self) -> Bits<'_> {
        self.as_slice().iter()
    }

    /// How many elements are kept.
    #[must_use]
    pub fn count_kept(&self) -> usize {
        self.as_slice().count_kept()
    }

    /// The words, lowest elements first.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The words themselves, without a copy.
    #[must_use]
    pub fn into_words(self) -> Vec<u64> {
        self.words
    }

    /// One bool per element, `true` = keep.
    #[must_use]
    pub fn to_bools(&self) -> Vec<bool> {
        self.iter().collect()
    }

    /// `len.div_ceil(8)` little-endian bytes; the inverse of [`BitMask::from_bytes`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self
            .words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        bytes.truncate(self.len.div_ceil(8));
        bytes
    }

    /// Keeps every element, or drops every one.
    ///
    /// ```
    /// use sorix_kernels::BitMask;
    /// let mut mask = BitMask::new(70);
    /// mask.fill(true);
    /// assert_eq!(mask.count_kept(), 70);
    /// ```
    pub fn fill(&mut self, keep: bool) {
        self.as_slice_mut().fill(keep);
    }

    /// Every element as a borrowed view.
    #[must_use]
    pub fn as_slice(&self) -> BitSlice<'_> {
        BitSlice {
            words: &self.words,
            start: 0,
            len: self.len,
        }
    }

    /// A part of the mask as a borrowed view; `range` counts elements and need not begin at a word.
    ///
    /// # Errors
    ///
    /// [`LengthError`] where the range ends beyond the mask or before it begins.
    ///
    /// ```
    /// use sorix_kernels::BitMask;
    /// let mask = BitMask::from_bools(&[true, false, false, true]);
    /// assert!(mask.slice(2..)?.iter().eq([false, true]));
    /// assert!(mask.slice(2..5).is_err());
    /// # Ok::<(), sorix_kernels::LengthError>(())
    /// ```
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Result<BitSlice<'_>, LengthError> {
        self.as_slice().slice(range)
    }

    pub(crate) fn as_slice_mut(&mut self) -> BitSliceMut<'_> {
        BitSliceMut {
            words: &mut self.words,
            len: self.len,
        }
    }
}

impl fmt::Debug for BitMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt_as("BitMask", f)
    }
}

impl<'a> IntoIterator for &'a BitMask {
    type Item = bool;
    type IntoIter = Bits<'a>;

    fn into_iter(self) -> Bits<'a> {
        self.iter()
    }
}

impl FromIterator<bool> for BitMask {
    fn from_iter<I: IntoIterator<Item = bool>>(bools: I) -> Self {
        let mut mask = Self::default();
        for keep in bools {
            if mask.len.is_multiple_of(WORD) {
                mask.words.push(0);
            }
            if let Some(last) = mask.words.last_mut() {
                *last |= u64::from(keep) << (mask.len % WORD);
            }
            mask.len += 1;
        }
        mask
    }
}

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
    #[must_use]
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
    /// [`LengthError`] where the range ends beyond the slice or before it begins.
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

    fn fmt_as(self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
    /// whoever owns the mask clears them.
    pub fn words_mut(&mut self) -> &mut [u64] {
        self.words
    }

    /// What has been written, as a view.
    #[must_use]
    pub fn as_slice(&self) -> BitSlice<'_> {
        BitSlice {
            words: self.words,
            start: 0,
            len: self.len,
        }
    }

    /// The same bits for a shorter time.
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
        if shift == 0 && bits.start == 0 {
            let whole = bits.len() / WORD;
            self.words[first..][..whole].copy_from_slice(&bits.words[..whole]);
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

/// The lowest `n` of 64 bits.
///
/// # Panics
///
/// In debug builds, when `n` is 0 or above 64.
#[inline]
pub(crate) fn low_bits(n: usize) -> u64 {
    debug_assert!((1..=WORD).contains(&n), "{n} bits of a word");
    u64::MAX >> (WORD - n)
}
