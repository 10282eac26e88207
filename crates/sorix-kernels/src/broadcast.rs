//! [`Broadcast`]: how a small mask covers a larger tensor.

use crate::error::BroadcastError;

/// How a mask of a smaller shape covers a tensor: each axis of the mask is as long as the tensor's, or has
/// length 1, in which case its bits are repeated along the axis.
///
/// Make it once, for any number of calls. Its size does not depend on that of the tensor.
///
/// ```
/// use sorix_kernels::{BitMask, Broadcast, DropRate, dropout};
///
/// // Two samples, three channels, two positions: a bit for each channel of each sample.
/// let channels = Broadcast::new(&[2, 3, 2], &[2, 3, 1])?;
/// assert_eq!((channels.len(), channels.mask_len()), (12, 6));
/// let mask = BitMask::from_bools(&[true, false, true, false, false, true]);
/// let (x, mut y) = ([1.0_f32; 12], [9.0; 12]);
/// dropout::apply_broadcast(DropRate::new(0.5)?, &mask, &channels, &x, &mut y)?;
/// assert_eq!(y, [2., 2., 0., 0., 2., 2., 0., 0., 0., 0., 2., 2.]);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broadcast {
    len: usize,
    mask_len: usize,
    /// Of a tensor with elements: how often the bits of a section are gone through.
    times: usize,
    /// How many bits of the mask, one after another, a section has.
    bits: usize,
    /// How many elements, one after another, share a bit.
    each: usize,
    /// The axes outside of a section, from the innermost: lengths, and how many bits of the mask
    /// further the next index is, 0 where the mask is repeated.
    outer: Vec<(usize, usize)>,
}

/// A part of the elements of which each bit is `bits` further on, or the same.
#[derive(Clone, Copy, Debug)]
struct Axis {
    len: usize,
    repeated: bool,
}

impl Broadcast {
    /// A mask of shape `mask_shape` over a tensor of shape `shape`.
    ///
    /// # Errors
    ///
    /// [`BroadcastError`] unless the shapes have the same rank, and each axis of the mask is 1 or
    /// as long as the tensor's.
    ///
    /// ```
    /// use sorix_kernels::Broadcast;
    /// assert_eq!(
    ///     Broadcast::new(&[4, 3], &[2, 1]).unwrap_err().to_string(),
    ///     "mask shape for a tensor of shape [4, 3]: expected 2 axes, each 1 or the tensor's, got [2, 1]"
    /// );
    /// ```
    pub fn new(shape: &[usize], mask_shape: &[usize]) -> Result<Self, BroadcastError> {
        let fits = |(&len, &mask_len): (&usize, &usize)| mask_len == len || mask_len == 1;
        if shape.len() != mask_shape.len() || !shape.iter().zip(mask_shape).all(fits) {
            return Err(BroadcastError {
                shape: shape.to_vec(),
                mask_shape: mask_shape.to_vec(),
            });
        }
        // Axes that follow each other and are both repeated, or both not, are one. From the
        // innermost.
        let mut axes: Vec<Axis> = Vec::new();
        for (&len, &mask_len) in shape.iter().zip(mask_shape).rev() {
            let repeated = mask_len == 1;
            match axes.last_mut() {
                _ if len == 1 => {}
                Some(axis) if axis.repeated == repeated => axis.len = axis.len.saturating_mul(len),
                _ => axes.push(Axis { len, repeated }),
            }
        }
        let mut axes = axes.into_iter().peekable();
        let mut next = |repeated| {
            axes.next_if(|axis| axis.repeated == repeated)
                .map_or(1, |axis| axis.len)
        };
        let (each, bits, times) = (next(true), next(false), next(true));
        let mut stride = bits;
        let outer = axes
            .map(|axis| {
                if axis.repeated {
                    (axis.len, 0)
                } else {
                    let bits = stride;
                    stride = stride.saturating_mul(axis.len);
                    (axis.len, bits)
                }
            })
            .collect();
        Ok(Self {
            len: product(shape),
            mask_len: product(mask_shape),
            times,
            bits,
            each,
            outer,
        })
    }

    /// A mask with a bit of its own for each of `len` elements.
    #[must_use]
    pub fn full(len: usize) -> Self {
        Self {
            len,
            mask_len: len,
            times: 1,
            bits: len,
            each: 1,
            outer: Vec::new(),
        }
    }

    /// The number of elements of the tensor.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the tensor has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of elements of the mask.
    #[must_use]
    pub fn mask_len(&self) -> usize {
        self.mask_len
    }

    /// Whether each element has a bit of its own.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.times == 1 && self.each == 1 && self.outer.is_empty()
    }

    /// Which bit of the mask decides element `i` of the tensor, both counted in row-major order.
    ///
    /// ```
    /// use sorix_kernels::Broadcast;
    /// let rows = Broadcast::new(&[2, 3], &[2, 1])?;
    /// assert_eq!((0..6).map(|i| rows.bit_of(i)).collect::<Vec<_>>(), [0, 0, 0, 1, 1, 1]);
    /// # Ok::<(), sorix_kernels::BroadcastError>(())
    /// ```
    ///
    /// # Panics
    ///
    /// When the tensor has no such element.
    #[must_use]
    pub fn bit_of(&self, i: usize) -> usize {
        assert!(i < self.len, "element {i} of {}", self.len);
        let (first, within) = self.section_at(i);
        first + within % self.row_len() / self.each
    }

    /// The first bit of the section that element `i` is in, and the place of `i` in it.
    pub(crate) fn section_at(&self, i: usize) -> (usize, usize) {
        let (mut section, within) = (i / self.section_len(), i % self.section_len());
        let mut first = 0;
        for &(len, bits) in &self.outer {
            first += section % len * bits;
            section /= len;
        }
        (first, within)
    }

    /// Elements in a section, for a tensor with elements.
    pub(crate) fn section_len(&self) -> usize {
        self.times.saturating_mul(self.row_len())
    }

    /// Elements of a section that go through its bits once.
    pub(crate) fn row_len(&self) -> usize {
        self.bits.saturating_mul(self.each)
    }

    /// Elements, one after another, that share a bit.
    pub(crate) fn each(&self) -> usize {
        self.each
    }
}

/// The number of elements of a shape; if that is more than `usize` holds, a number that no slice's
/// length is equal to.
fn product(shape: &[usize]) -> usize {
    if shape.contains(&0) {
        return 0;
    }
    shape.iter().fold(1, |len, &axis| len.saturating_mul(axis))
}
