//! The jobs over rows: a residual plus dropout, normalised, and the gradient of the normalisation.
//!
//! They are cut at whole rows.

#[cfg(feature = "parallel")]
use super::inside;
use crate::element::Element;
use crate::error::{Error, LengthError};
use crate::keep::KeepRule;
use crate::key::MaskWindow;
use crate::mask::{BitSlice, BitSliceMut};
use crate::norm::{AddNorm, Norm, RowMoments};

/// Where the bits come from by which rows are dropped from. Unlike for other jobs, they may all be the
/// same.
#[derive(Debug)]
#[non_exhaustive]
pub enum RowMask<'a> {
    /// All elements are kept.
    Kept,
    /// All are dropped, and x is not to be looked at.
    Dropped,
    /// They are there.
    Bits(BitSlice<'a>),
    /// They are to be made.
    Made {
        /// Which part of which mask.
        window: MaskWindow,
        /// Which elements are kept.
        rule: &'a KeepRule,
        /// Where they go, too, if anywhere.
        out: Option<BitSliceMut<'a>>,
    },
}

/// Add dropout of x to a residual, and normalise the rows of the sum.
///
/// With `t` of the type computed in, and each step rounded to it: `t = x`, or `x + bias`; the sum is `t *
/// scale + residual` where kept, and the residual elsewhere. What becomes of its rows [`Norm`] says;
/// products and sums with weight and shift are rounded to the type computed in, each, and the last to the
/// element type.
#[derive(Debug)]
pub struct DropoutAddNorm<'a, T: Element> {
    // Invariant: the mask has as many elements as the rows together.
    scale: T::Scale,
    mask: RowMask<'a>,
    rows: AddNorm<'a, T>,
}

impl<'a, T: Element> DropoutAddNorm<'a, T> {
    /// `rows`, dropped from by `mask`; what is kept is multiplied by `scale`.
    ///
    /// # Errors
    ///
    /// [`LengthError`] unless the mask has as many elements as the rows have together,
    /// [`WindowError`](crate::WindowError) if a window reaches beyond element 2^64 - 1.
    pub fn new(scale: T::Scale, mask: RowMask<'a>, rows: AddNorm<'a, T>) -> Result<Self, Error> {
        match &mask {
            RowMask::Kept | RowMask::Dropped => {}
            RowMask::Bits(bits) => LengthError::check("mask", rows.len(), bits.len())?,
            RowMask::Made { window, out, .. } => {
                if let Some(out) = out {
                    LengthError::check("mask", rows.len(), out.len())?;
                }
                window.check_len(rows.len())?;
            }
        }
        Ok(Self { scale, mask, rows })
    }

    /// What a kept element is multiplied by.
    #[must_use]
    pub fn scale(&self) -> T::Scale {
        self.scale
    }

    /// What is to be done.
    #[must_use]
    pub fn rows(&self) -> &AddNorm<'a, T> {
        &self.rows
    }

    /// The bits, and what is to be done, to do it.
    #[must_use]
    pub fn into_parts(self) -> (RowMask<'a>, AddNorm<'a, T>) {
        (self.mask, self.rows)
    }

    /// Where to cut the first of `parts` parts off: at a row that begins at a word of the mask.
    #[cfg(feature = "parallel")]
    pub(super) fn cut(&self, parts: usize) -> Option<usize> {
        let len = self.rows.norm.len();
        let rows = self.rows.moments.len();
        let aligned = 64 >> len.trailing_zeros().min(6);
        let first = (rows / parts / aligned).max(1) * aligned;
        (first < rows).then_some(first * len)
    }

    /// The first rows, of `mid` elements, and the rest; `mid` is one of those where it is to be
    /// [cut](Self::cut).
    #[cfg(feature = "parallel")]
    pub(super) fn split_at(self, mid: usize) -> (Self, Self) {
        let (head, tail) = match self.mask {
            RowMask::Kept => (RowMask::Kept, RowMask::Kept),
            RowMask::Dropped => (RowMask::Dropped, RowMask::Dropped),
            RowMask::Bits(bits) => {
                let (head, tail) = bits.split_at(mid);
                (RowMask::Bits(head), RowMask::Bits(tail))
            }
            RowMask::Made { window, rule, out } => {
                let (head, tail) = out.map(|out| out.split_at(mid)).unzip();
                let made = |window, out| RowMask::Made { window, rule, out };
                (made(window, head), made(inside(window, mid), tail))
            }
        };
        let (head_rows, tail_rows) = self.rows.split_at(mid);
        let scale = self.scale;
        let half = |mask, rows| Self { scale, mask, rows };
        (half(head, head_rows), half(tail, tail_rows))
    }
}

/// How many rows are summed up by one accumulator for each of their places.
pub(crate) const ROWS_OF_BLOCK: usize = 64;

/// The gradient of a normalisation.
///
/// Of each row, with `y` the normalised row before weight and shift, `h = weight * dz` and all means as
/// doubles: `(h - mean(h) - y * mean(h * y)) * inverse_deviation`, for RMS without `mean(h)`, and then the
/// second gradient of the sum is added, if there is one. The steps are rounded to the type computed in.
///
/// The gradients of weight and shift are sums over rows of `dz * y` and `dz`: as doubles, in order, of
/// each block of 64 rows by itself.
#[derive(Debug)]
pub struct NormBackward<'a, T: Element> {
    // Invariant: all are rows of the norm's length, as many as there are moments.
    pub(crate) norm: Norm<'a, T::Scale>,
    pub(crate) dz: &'a [T],
    pub(crate) sum: &'a [T::Scale],
    pub(crate) moments: &'a [RowMoments],
    pub(crate) more: Option<&'a [T::Scale]>,
    pub(crate) d_sum: &'a mut [T::Scale],
    pub(crate) columns: Option<&'a mut [f64]>,
}

impl<'a, T: Element> NormBackward<'a, T> {
    /// The normalisation.
    #[must_use]
    pub fn norm(&self) -> Norm<'a, T::Scale> {
        self.norm
    }

    /// The gradient of the normalised rows.
    #[must_use]
    pub fn dz(&self) -> &'a [T] {
        self.dz
    }

    /// What was normalised.
    #[must_use]
    pub fn sum(&self) -> &'a [T::Scale] {
        self.sum
    }

    /// What came of the rows.
    #[must_use]
    pub fn moments(&self) -> &'a [RowMoments] {
        self.moments
    }

    /// What comes to the gradient of the sum from elsewhere.
    #[must_use]
    pub fn more(&self) -> Option<&'a [T::Scale]> {
        self.more
    }

    /// Where the gradient of the sum goes; and where, for each block of 64 rows, the sums go over its rows
    /// of `dz * y`, and after these those of `dz`, if they are wanted. All are 0 now.
    #[must_use]
    #[allow(clippy::type_complexity, reason = "two outputs")]
    pub fn into_outputs(self) -> (&'a mut [T::Scale], Option<&'a mut [f64]>) {
        (self.d_sum, self.columns)
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.dz.len()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.dz.is_empty()
    }

    /// How many bytes are read and written.
    pub(crate) fn bytes(&self) -> usize {
        let more = usize::from(self.more.is_some());
        self.len() * (size_of::<T>() + (2 + more) * size_of::<T::Scale>())
    }

    /// Where to cut the first of `parts` parts off: at a block of rows.
    #[cfg(feature = "parallel")]
    pub(super) fn cut(&self, parts: usize) -> Option<usize> {
        let rows = self.moments.len();
        let first = (rows / parts / ROWS_OF_BLOCK).max(1) * ROWS_OF_BLOCK;
        (first < rows).then_some(first * self.norm.len())
    }

    /// The first blocks of rows, of `mid` elements, and the rest.
    #[cfg(feature = "parallel")]
    pub(super) fn split_at(self, mid: usize) -> (Self, Self) {
        let len = self.norm.len();
        let (dz0, dz1) = self.dz.split_at(mid);
        let (sum0, sum1) = self.sum.split_at(mid);
        let (moments0, moments1) = self.moments.split_at(mid / len);
        let (more0, more1) = self.more.map(|more| more.split_at(mid)).unzip();
        let (d_sum0, d_sum1) = self.d_sum.split_at_mut(mid);
        let columns = self.columns.map(|columns| {
            let blocks = mid / len / ROWS_OF_BLOCK;
            columns.split_at_mut(blocks * 2 * len)
        });
        let (columns0, columns1) = columns.unzip();
        let norm = self.norm;
        let half = |dz, sum, moments, more, d_sum, columns| Self {
            norm,
            dz,
            sum,
            moments,
            more,
            d_sum,
            columns,
        };
        (
            half(dz0, sum0, moments0, more0, d_sum0, columns0),
            half(dz1, sum1, moments1, more1, d_sum1, columns1),
        )
    }
}
