//! [`Shard`]: which part of a tensor a worker has.

use core::cell::RefCell;
use core::ops::Range;

use sorix_core::autograd::Scopes;
use sorix_core::{ErrorKind, MaskKey, MaskRegion, Tensor};

use crate::dropout::Form;
use crate::error::{Error, Result};

/// Which part of a tensor a worker has: some indices of one axis, and all of the others.
///
/// For [`Module::forward_sharded`](crate::Module::forward_sharded).
///
/// ```
/// use sorix_nn::Shard;
/// let shard = Shard::new([2, 9, 4], 1, 3..6)?;
/// assert_eq!(shard.part(), [2, 3, 4]);
/// assert!(Shard::new([2, 9, 4], 1, 3..10).is_err());
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shard {
    shape: Vec<usize>,
    axis: usize,
    range: Range<usize>,
}

impl Shard {
    /// Indices `range` of axis `axis` of a tensor of shape `shape`.
    ///
    /// # Errors
    ///
    /// If the shape has no such axis, or the axis no such range.
    pub fn new(shape: impl Into<Vec<usize>>, axis: usize, range: Range<usize>) -> Result<Self> {
        let shape = shape.into();
        // Any key will do to see whether it can be cut so.
        MaskKey::default()
            .shard(&shape, axis, range.clone())
            .map_err(kernel_error)?;
        Ok(Self { shape, axis, range })
    }

    /// The shape of the whole tensor.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The shape of the part.
    #[must_use]
    pub fn part(&self) -> Vec<usize> {
        let mut part = self.shape.clone();
        part[self.axis] = self.range.len();
        part
    }

    /// The shard whose part has the shape `part`, cut along the same axis from a tensor that is as long
    /// there.
    fn with_part(&self, layer: &'static str, part: &[usize]) -> Result<Self> {
        let (axis, length) = (self.axis, self.range.len());
        if part.get(axis) != Some(&length) {
            let expected = format!("a part of length {length} along axis {axis}, as the input's");
            return Err(Error::shape(layer, expected, part));
        }
        let mut shape = part.to_vec();
        shape[axis] = self.shape[axis];
        Self::new(shape, axis, self.range.clone())
    }

    /// Runs `f`, a forward of this part.
    pub(crate) fn within<R>(&self, f: impl FnOnce() -> R) -> R {
        let _scope = Scopes::open(&CURRENT, self.clone());
        f()
    }

    pub(crate) fn check(&self, x: &Tensor) -> Result<()> {
        let part = self.part();
        if x.shape() == part {
            return Ok(());
        }
        let expected = format!("a part of shape {part:?}");
        Err(Error::shape("forward_sharded", expected, x.shape()))
    }

    /// That the mask of a form for the whole tensor can be cut as the tensor is.
    pub(crate) fn check_mask(&self, form: &impl Form, mask_shape: &[usize]) -> Result<()> {
        let (axis, whole) = (self.axis, self.shape[self.axis]);
        match mask_shape.get(axis) {
            Some(&length) if length == 1 || length == whole => Ok(()),
            _ => Err(Error::shape(
                "forward_sharded",
                format!(
                    "a mask of {} with a length of 1 or {whole} along axis {axis}",
                    form.layer()
                ),
                mask_shape,
            )),
        }
    }

    /// The part of a [checked](Self::check_mask) mask that belongs to this part of the tensor, and
    /// its shape.
    pub(crate) fn part_of(
        &self,
        key: MaskKey,
        mut mask_shape: Vec<usize>,
    ) -> Result<(MaskRegion, Vec<usize>)> {
        if mask_shape[self.axis] == 1 {
            // All parts share the decisions along this axis.
            return Ok((key.into(), mask_shape));
        }
        let region = key
            .shard(&mask_shape, self.axis, self.range.clone())
            .map_err(kernel_error)?;
        mask_shape[self.axis] = self.range.len();
        Ok((region, mask_shape))
    }
}

fn kernel_error(error: sorix_core::ShardError) -> Error {
    let kind = ErrorKind::Kernel(error.into());
    sorix_core::Error::new("shard", &[], kind).into()
}

thread_local! {
    /// The part that a forward of this thread is of.
    static CURRENT: RefCell<Scopes<Shard>> = const { RefCell::new(Scopes::new()) };
}

fn current() -> Option<Shard> {
    CURRENT.with_borrow_mut(|shards| shards.of_task().next().cloned())
}

/// The shard of which a tensor of this shape is the part, within a forward of a part.
pub(crate) fn shard_of(layer: &'static str, shape: &[usize]) -> Result<Option<Shard>> {
    let shard = current();
    shard.map(|shard| shard.with_part(layer, shape)).transpose()
}

/// That a tensor of this shape is not a part along an axis of which the layer needs all.
pub(crate) fn check_whole(
    layer: &'static str,
    shape: &[usize],
    is_looked_at: impl Fn(usize) -> bool,
) -> Result<()> {
    match current() {
        Some(shard) if is_looked_at(shard.axis) => {
            let expected = format!("a tensor that is not cut along axis {}", shard.axis);
            Err(Error::shape(layer, expected, shape))
        }
        _ => Ok(()),
    }
}
