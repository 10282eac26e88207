//! [`MaskRegion`]: the part of a mask that belongs to a part of a tensor.

use core::iter;
use core::ops::Range;

use crate::error::{Error, LengthError, ShardError};
use crate::key::{MaskKey, MaskWindow};

/// A part of a mask: a [`MaskWindow`], or what a tensor's cut along an inner axis leaves of one, runs
/// of elements at equal distances.
///
/// Every function that makes a mask takes a region, a window or a [`MaskKey`], which is the window
/// from element 0.
///
/// # Workers
///
/// *Cut tensors.* Where W workers each hold a part of a tensor that is cut along an axis, each asks
/// for its [shard](MaskKey::shard) of the one key, and the parts together are what one machine would
/// have made. That costs a worker what its part costs, in whole tiles of 8,192 elements: a tile is
/// made once, however many of its runs fall into it, by each worker that needs any of it.
///
/// *The same tensor on all.* Where every worker has the whole tensor, as in the regions of tensor
/// parallelism that are not cut, all use the same key, and get the same mask.
///
/// *Different tensors.* Where workers have tensors of their own that are no parts of one, each needs
/// keys of its own: a seed or an offset that no other has. Distinct keys give unrelated masks.
///
/// *Small masks.* A mask that [covers](crate::Broadcast) a tensor is cut as the tensor is, by the
/// shape of the mask, along an axis that both have. Along an axis where the mask is 1 all workers
/// share its bits, and use the key itself.
///
/// ```
/// use sorix_kernels::{BitMask, DropRate, MaskKey, dropout};
///
/// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(42, 7));
/// let mut whole = BitMask::new(2 * 6);
/// dropout::fill_mask(rate, key, &mut whole)?;
///
/// // A [2, 6] tensor of which this worker has columns 4 and 5.
/// let shard = key.shard(&[2, 6], 1, 4..6)?;
/// let mut mask = BitMask::new(2 * 2);
/// dropout::fill_mask(rate, shard, &mut mask)?;
/// assert!(mask.iter().eq([4, 5, 10, 11].map(|i| whole.get(i).unwrap())));
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MaskRegion {
    pub(crate) key: MaskKey,
    /// Index in the whole mask of the region's element 0.
    first: u64,
    /// Elements, one after another, in a run; not 0.
    run: u64,
    /// From the start of a run to the start of the next; the same as `run` in a window.
    stride: u64,
    /// How many elements the region has; a window has as many as the buffers it is used with.
    len: Option<usize>,
}

impl MaskKey {
    /// The part of this mask that belongs to indices `range` of axis `axis` of a tensor of shape
    /// `shape`, the whole tensor that the mask is for.
    ///
    /// # Errors
    ///
    /// [`ShardError`] where the shape has no such axis, the axis no such range, or the shape more
    /// than 2^64 elements.
    ///
    /// ```
    /// use sorix_kernels::MaskKey;
    /// let shard = MaskKey::new(42, 7).shard(&[2, 3, 4], 1, 1..3)?;
    /// assert_eq!(shard.len(), Some(2 * 2 * 4));
    /// assert_eq!((0..16).map(|i| shard.index(i)).collect::<Vec<_>>(), [
    ///     4, 5, 6, 7, 8, 9, 10, 11,
    ///     16, 17, 18, 19, 20, 21, 22, 23,
    /// ]);
    /// # Ok::<(), sorix_kernels::ShardError>(())
    /// ```
    pub fn shard(
        self,
        shape: &[usize],
        axis: usize,
        range: Range<usize>,
    ) -> Result<MaskRegion, ShardError> {
        self.cut(shape, axis, range.clone())
            .ok_or_else(|| ShardError {
                shape: shape.to_vec(),
                axis,
                range,
            })
    }

    fn cut(self, shape: &[usize], axis: usize, range: Range<usize>) -> Option<MaskRegion> {
        let along = *shape.get(axis)?;
        let all = shape
            .iter()
            .try_fold(1_u128, |all, &len| all.checked_mul(len as u128))?;
        if range.start > range.end || range.end > along || all > 1 << 64 {
            return None;
        }
        if range.is_empty() || all == 0 {
            let len = Some(0);
            return Some(MaskRegion { len, ..self.into() });
        }
        // No product of lengths that are not 0 is more than that of all of them.
        let product = |lengths: &[usize]| lengths.iter().map(|&len| len as u128).product::<u128>();
        let (outer, inner) = (product(&shape[..axis]), product(&shape[axis + 1..]));
        let run = range.len() as u128 * inner;
        // A single run is a window.
        let stride = if outer == 1 {
            run
        } else {
            along as u128 * inner
        };
        Some(MaskRegion {
            key: self,
            first: u64::try_from(range.start as u128 * inner).ok()?,
            run: u64::try_from(run).ok()?,
            stride: u64::try_from(stride).ok()?,
            len: Some(usize::try_from(outer * run).ok()?),
        })
    }
}

impl MaskRegion {
    /// The key of the mask.
    #[must_use]
    pub fn key(&self) -> MaskKey {
        self.key
    }

    /// The number of elements, where the region says it; a window has as many as the buffers it is
    /// used with.
    #[must_use]
    pub fn len(&self) -> Option<usize> {
        self.len
    }

    /// Whether the region is known to have no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == Some(0)
    }

    /// Index in the whole mask of element `i` of the region.
    #[must_use]
    pub fn index(&self, i: usize) -> u64 {
        self.run_at(i).0
    }

    /// The same region as a window, where it is one.
    #[must_use]
    pub fn as_window(&self) -> Option<MaskWindow> {
        (self.run == self.stride).then(|| self.key.window(self.first))
    }

    /// Elements `range` of the region as runs: the index in the whole mask of the first element of
    /// each, and how many follow one another from there on.
    ///
    /// For random numbers of one's own that are cut as masks are.
    ///
    /// ```
    /// use sorix_kernels::MaskKey;
    /// let key = MaskKey::new(42, 7);
    /// // Columns 4 and 5 of a [3, 6] tensor, without the first of its elements.
    /// let columns = key.shard(&[3, 6], 1, 4..6)?;
    /// assert_eq!(columns.runs(1..6).collect::<Vec<_>>(), [(5, 1), (10, 2), (16, 2)]);
    /// assert!(key.shard(&[3, 6], 0, 1..3)?.runs(0..12).eq([(6, 12)]));
    /// # Ok::<(), sorix_kernels::ShardError>(())
    /// ```
    pub fn runs(&self, range: Range<usize>) -> impl Iterator<Item = (u64, usize)> + use<> {
        let (region, Range { mut start, end }) = (*self, range);
        iter::from_fn(move || {
            let left = end.checked_sub(start).filter(|&left| left > 0)?;
            let (first, len) = match region.as_window() {
                Some(window) => (window.first.wrapping_add(start as u64), left),
                None => {
                    let (first, run) = region.run_at(start);
                    (
                        first,
                        usize::try_from(run).map_or(left, |run| run.min(left)),
                    )
                }
            };
            start += len;
            Some((first, len))
        })
    }

    /// Index in the whole mask of element `i`, and how many elements its run has from there on.
    pub(crate) fn run_at(&self, i: usize) -> (u64, u64) {
        let (run, place) = (i as u64 / self.run, i as u64 % self.run);
        let first = self.first.wrapping_add(run.wrapping_mul(self.stride));
        (first.wrapping_add(place), self.run - place)
    }

    /// Elements in a run.
    pub(crate) fn run(&self) -> u64 {
        self.run
    }

    /// Elements between two runs.
    pub(crate) fn gap(&self) -> u64 {
        self.stride - self.run
    }

    /// Checks that `len` elements are what the region has, and have indices of 64 bits, as every
    /// function does that takes a region.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] or [`Error::Window`].
    ///
    /// ```
    /// use sorix_kernels::MaskKey;
    /// let key = MaskKey::new(42, 7);
    /// assert!(key.shard(&[3, 6], 1, 4..6)?.check_len(6).is_ok());
    /// assert!(key.shard(&[3, 6], 1, 4..6)?.check_len(5).is_err());
    /// # Ok::<(), sorix_kernels::ShardError>(())
    /// ```
    pub fn check_len(&self, len: usize) -> Result<(), Error> {
        if let Some(expected) = self.len {
            LengthError::check("shard", expected, len)?;
        }
        match self.as_window() {
            Some(window) => Ok(window.check_len(len)?),
            None => Ok(()),
        }
    }
}

impl From<MaskWindow> for MaskRegion {
    fn from(window: MaskWindow) -> Self {
        Self {
            key: window.key,
            first: window.first,
            run: 1,
            stride: 1,
            len: None,
        }
    }
}

impl From<MaskKey> for MaskRegion {
    fn from(key: MaskKey) -> Self {
        MaskWindow::from(key).into()
    }
}
