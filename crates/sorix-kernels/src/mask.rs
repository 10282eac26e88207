//! [`BitMask`]: one bit per element, and borrowed views of it.
//!
//! Element *i* is bit `i % 64` of word `i / 64`; 1 keeps, 0 drops; the unused bits of the last word
//! are zero, so equal masks have equal words. As little-endian bytes this is the layout of Arrow
//! bitmaps, of ONNX Runtime's 32-bit and of libxsmm's 16-bit mask words.

mod blocks;
mod slice;
mod slice_mut;

use core::fmt;
use core::ops::RangeBounds;

pub use slice::{BitSlice, Bits};
pub use slice_mut::BitSliceMut;

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
    /// If allocation fails, as `Vec` does; [`BitMask::try_new`] returns an error instead.
    #[must_use]
    pub fn new(len: usize) -> Self {
        Self {
            words: vec![0; len.div_ceil(WORD)],
            len,
        }
    }

    /// A mask of `len` elements, all dropped, or an error if allocation fails.
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
        BitSlice::of_words(&self.words, 0, self.len)
    }

    /// A part of the mask as a borrowed view; `range` counts elements and need not begin at a word.
    ///
    /// # Errors
    ///
    /// [`LengthError`] if the range ends beyond the mask or before it begins.
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
        BitSliceMut::of_words(&mut self.words, self.len)
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
