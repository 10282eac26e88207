//! [`MaskRegion`]: the part of a mask that belongs to a part of a tensor.

use core::iter;
use core::ops::Range;

use crate::error::{Error, LengthError, ShardError};
use crate::key::{MaskKey, MaskWindow};

/// A part of a mask: a [`MaskWindow`], or what cutting a tensor along an inner axis leaves of one, runs
/// of elements at equal distances.
///
/// Every function that makes a mask takes a region, a window or a [`MaskKey`], which is the window
/// from element 0.
///
/// # Equality
///
/// Two regions are equal if they are the same elements of the same mask and ask for the same number of
/// them, however the tensor was cut. A window asks for no number: it has as many elements as the buffers
/// it is used with, so no shard equals it. All empty shards of a key are equal.
///
/// ```
/// use sorix_kernels::{MaskKey, MaskRegion};
/// let key = MaskKey::new(42, 7);
/// let whole = key.shard(&[6], 0, 0..6)?;
/// assert_eq!(whole, key.shard(&[2, 3], 1, 0..3)?);
/// assert_eq!(whole.as_window(), Some(key.window(0)));
/// // Six elements, against as many as there are.
/// assert_ne!(whole, MaskRegion::from(key));
/// # Ok::<(), sorix_kernels::ShardError>(())
/// ```
///
/// # Workers
///
/// *Cut tensors.* If a tensor is cut along an axis among W workers, each asks for its
/// [shard](MaskKey::shard) of the one key, and the parts together are the mask that one machine would
/// have made. The cost to a worker grows with its part, in whole [tiles](crate::stream::TILE) of 16,384
/// elements: it makes each tile that holds any of its elements, once.
///
/// *The same tensor on all.* If every worker has the whole tensor, as in those regions of tensor
/// parallelism that are not cut, all use the same key, and get the same mask.
///
/// *Different tensors.* If the workers' tensors are not parts of one, each worker needs keys of its own:
/// a seed or an offset that no other has. Distinct keys give unrelated masks.
///
/// *Small masks.* A mask that [covers](crate::Broadcast) a tensor is cut as the tensor is: by the shape
/// of the mask, if the mask has the axis. Along an axis of which the mask has length 1, all workers share
/// its bits and use the key itself.
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
pub struct MaskRegion(Part);

/// Which elements a region has. A value for each set of elements and no two, so that the derived
/// equality is that of regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// Elements one after another: as many as the buffers have, or as many as `len` says. An empty
    /// shard begins at element 0.
    Window {
        window: MaskWindow,
        len: Option<usize>,
    },
    /// Two runs or more, with elements between them.
    Strided(Strided),
}

/// Runs of elements at equal distances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Strided {
    pub(crate) key: MaskKey,
    /// Index in the whole mask of the first element of the first run.
    first: u64,
    /// Elements in a run; not 0.
    run: u64,
    /// From the start of a run to the start of the next; more than `run`.
    stride: u64,
    /// Elements of all runs.
    len: usize,
}

impl MaskKey {
    /// The part of this mask for indices `range` of axis `axis`, where the mask is that of a whole tensor of
    /// shape `shape`.
    ///
    /// # Errors
    ///
    /// [`ShardError`] if the shape has no such axis, if the range is not inside the axis, or if the shape
    /// has more than 2^64 elements.
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
            return Some(MaskRegion(Part::Window {
                window: self.window(0),
                len: Some(0),
            }));
        }
        // No product of lengths that are not 0 is more than that of all of them.
        let product = |lengths: &[usize]| lengths.iter().map(|&len| len as u128).product::<u128>();
        let (outer, inner) = (product(&shape[..axis]), product(&shape[axis + 1..]));
        let run = range.len() as u128 * inner;
        let first = u64::try_from(range.start as u128 * inner).ok()?;
        let len = usize::try_from(outer * run).ok()?;
        // A single run, or runs with nothing between them.
        if outer == 1 || range.len() == along {
            return Some(MaskRegion(Part::Window {
                window: self.window(first),
                len: Some(len),
            }));
        }
        Some(MaskRegion(Part::Strided(Strided {
            key: self,
            first,
            run: u64::try_from(run).ok()?,
            stride: u64::try_from(along as u128 * inner).ok()?,
            len,
        })))
    }
}

impl MaskRegion {
    /// The key of the mask.
    #[must_use]
    pub fn key(&self) -> MaskKey {
        match self.0 {
            Part::Window { window, .. } => window.key,
            Part::Strided(strided) => strided.key,
        }
    }

    /// The number of elements of a shard; `None` of a window, which has as many as the buffers it is
    /// used with.
    #[must_use]
    pub fn len(&self) -> Option<usize> {
        match self.0 {
            Part::Window { len, .. } => len,
            Part::Strided(strided) => Some(strided.len),
        }
    }

    /// Whether the region is known to have no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Index in the whole mask of element `i` of the region.
    #[must_use]
    pub fn index(&self, i: usize) -> u64 {
        match self.0 {
            Part::Window { window, .. } => window.first.wrapping_add(i as u64),
            Part::Strided(strided) => strided.index(i),
        }
    }

    /// The same elements as a window, if they follow one another; the length, if there is one, is lost.
    #[must_use]
    pub fn as_window(&self) -> Option<MaskWindow> {
        match self.0 {
            Part::Window { window, .. } => Some(window),
            Part::Strided(_) => None,
        }
    }

    pub(crate) fn part(&self) -> Part {
        self.0
    }

    /// Elements `range` of the region as runs: the index in the whole mask of the first element of
    /// each, and how many follow one another from there on.
    ///
    /// For your own random numbers, to be cut as masks are.
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
        let (part, Range { mut start, end }) = (self.0, range);
        iter::from_fn(move || {
            let left = end.checked_sub(start).filter(|&left| left > 0)?;
            let (first, len) = match part {
                Part::Window { window, .. } => (window.first.wrapping_add(start as u64), left),
                Part::Strided(strided) => {
                    let (first, run) = strided.run_at(start);
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

    /// Checks that the region has `len` elements, or may have as many, none of them beyond element
    /// 2^64 - 1. Every function that takes a region does.
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
        if let Some(expected) = self.len() {
            LengthError::check("shard", expected, len)?;
        }
        match self.0 {
            Part::Window { window, .. } => Ok(window.check_len(len)?),
            // The whole mask, and so each run, ends at or before element 2^64 - 1.
            Part::Strided(_) => Ok(()),
        }
    }
}

impl Strided {
    /// Index in the whole mask of element `i`.
    pub(crate) fn index(&self, i: usize) -> u64 {
        self.run_at(i).0
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
}

impl From<MaskWindow> for MaskRegion {
    fn from(window: MaskWindow) -> Self {
        Self(Part::Window { window, len: None })
    }
}

impl From<MaskKey> for MaskRegion {
    fn from(key: MaskKey) -> Self {
        MaskWindow::from(key).into()
    }
}
