//! [`MaskKey`]: the name of a mask; [`MaskWindow`]: a part of one.

use crate::error::WindowError;

/// The name of one mask: together with p it decides, for every element index below 2^64, whether
/// the element is kept.
///
/// `seed` names a run or a layer, `offset` counts the calls within it. The mask format does not treat the
/// two differently: distinct pairs give unrelated masks.
///
/// ```
/// use sorix_kernels::{BitMask, DropRate, MaskKey, dropout};
///
/// let rate = DropRate::new(0.5)?;
/// let key = MaskKey { seed: 42, offset: 7 };
/// let mut mask = BitMask::new(8);
/// dropout::fill_mask(rate, key, &mut mask)?;
///
/// // A shard makes its own part of the same mask.
/// let mut shard = BitMask::new(3);
/// dropout::fill_mask(rate, key.window(5), &mut shard)?;
/// assert!(shard.iter().eq(mask.iter().skip(5)));
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MaskKey {
    /// Names a run, a layer, a stream of masks.
    pub seed: u64,
    /// Counts the masks of that stream.
    pub offset: u64,
}

impl MaskKey {
    /// The key of mask number `offset` of the stream `seed`.
    #[must_use]
    pub fn new(seed: u64, offset: u64) -> Self {
        Self { seed, offset }
    }

    /// The part of this mask that begins at element `first`; its length is that of the buffers it
    /// is used with.
    #[must_use]
    pub fn window(self, first: u64) -> MaskWindow {
        MaskWindow { key: self, first }
    }
}

/// A part of the mask named by `key`, from element `first` on.
///
/// Every function that takes a window also takes a [`MaskKey`], which is the window from element 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MaskWindow {
    /// The mask.
    pub key: MaskKey,
    /// Index in the whole mask of the window's element 0.
    pub first: u64,
}

impl MaskWindow {
    /// The window that begins `by` elements further on.
    ///
    /// # Errors
    ///
    /// [`WindowError`] if that is beyond the last index, 2^64 - 1.
    pub fn advance(self, by: usize) -> Result<Self, WindowError> {
        let first = self.first.checked_add(by as u64);
        let first = first.ok_or(WindowError {
            first: self.first,
            len: by,
        })?;
        Ok(Self { first, ..self })
    }

    /// Checks that `len` elements from `first` have indices of 64 bits.
    pub(crate) fn check_len(self, len: usize) -> Result<(), WindowError> {
        match (len as u64)
            .checked_sub(1)
            .map(|last| self.first.checked_add(last))
        {
            Some(None) => Err(WindowError {
                first: self.first,
                len,
            }),
            None | Some(Some(_)) => Ok(()),
        }
    }
}

impl From<MaskKey> for MaskWindow {
    fn from(key: MaskKey) -> Self {
        key.window(0)
    }
}
