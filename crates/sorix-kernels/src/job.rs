//! What a backend is asked to do: one type per kernel, whose lengths were checked when it was made.
//!
//! A job never has a corner case in it. p = 0 and p = 1 need no random bits and are settled before
//! a backend is called, so a threshold is a plain integer in (0, 2^64).

mod broadcast;
mod compose;
mod region;
#[cfg(feature = "parallel")]
mod split;

use core::num::NonZeroU64;

use crate::affine::Affine;
use crate::buffers::Buffers;
use crate::element::Element;
use crate::error::{Error, LengthError, WindowError};
use crate::key::MaskWindow;
use crate::mask::{BitSlice, BitSliceMut};

pub(crate) use broadcast::{Covered, MaskBroadcast};
pub(crate) use region::{DropoutRegion, FillRegion};
#[cfg(feature = "parallel")]
pub(crate) use split::Split;

/// Write the bits of a window of a mask.
#[derive(Debug)]
pub struct FillMask<'a> {
    window: MaskWindow,
    threshold: NonZeroU64,
    out: BitSliceMut<'a>,
}

impl<'a> FillMask<'a> {
    /// The bits of `window`, as many as `out` has elements, where an element is kept if its random
    /// integer is below `threshold`.
    ///
    /// # Errors
    ///
    /// [`WindowError`] where the window reaches beyond element 2^64 - 1.
    pub fn new(
        window: MaskWindow,
        threshold: NonZeroU64,
        out: BitSliceMut<'a>,
    ) -> Result<Self, WindowError> {
        window.check_len(out.len())?;
        Ok(Self {
            window,
            threshold,
            out,
        })
    }

    /// Which part of which mask.
    #[must_use]
    pub fn window(&self) -> MaskWindow {
        self.window
    }

    /// Keep where the random integer is below this.
    #[must_use]
    pub fn threshold(&self) -> NonZeroU64 {
        self.threshold
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Where the bits go: the window's first element is bit 0.
    #[must_use]
    pub fn into_out(self) -> BitSliceMut<'a> {
        self.out
    }
}

/// Multiply the elements that a mask keeps and zero the others.
#[derive(Debug)]
pub struct MaskScale<'a, T: Element> {
    mask: BitSlice<'a>,
    scale: T::Scale,
    buffers: Buffers<'a, T>,
    streaming: bool,
}

impl<'a, T: Element> MaskScale<'a, T> {
    /// `output = input * scale` where `mask` keeps, `+0.0` elsewhere.
    ///
    /// # Errors
    ///
    /// [`LengthError`] unless the mask has as many elements as the buffers.
    pub fn new(
        mask: BitSlice<'a>,
        scale: T::Scale,
        buffers: Buffers<'a, T>,
    ) -> Result<Self, LengthError> {
        LengthError::check("mask", buffers.len(), mask.len())?;
        Ok(Self::of(mask, scale, buffers))
    }

    /// The same for a mask and buffers that are known to be of one length.
    pub(crate) fn of(mask: BitSlice<'a>, scale: T::Scale, buffers: Buffers<'a, T>) -> Self {
        Self {
            mask,
            scale,
            buffers,
            streaming: false,
        }
    }

    /// Says that the whole output is larger than the last-level cache, so that stores that go
    /// around the cache pay. A backend may ignore it.
    #[must_use]
    pub fn streaming(self, streaming: bool) -> Self {
        Self { streaming, ..self }
    }

    /// Whether stores that go around the cache are expected to pay.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        self.streaming
    }

    /// The mask.
    #[must_use]
    pub fn mask(&self) -> BitSlice<'a> {
        self.mask
    }

    /// What kept elements are multiplied by.
    #[must_use]
    pub fn scale(&self) -> T::Scale {
        self.scale
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffers.len()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    /// Input and output.
    #[must_use]
    pub fn into_buffers(self) -> Buffers<'a, T> {
        self.buffers
    }
}

/// Map the elements that a mask keeps and put a constant in the place of the others.
#[derive(Debug)]
pub struct MaskAffine<'a, T: Element> {
    mask: BitSlice<'a>,
    scale: T::Scale,
    shift: T::Scale,
    dropped: T,
    buffers: Buffers<'a, T>,
}

impl<'a, T: Element> MaskAffine<'a, T> {
    /// `output = input * scale + shift` where `mask` keeps, `dropped` elsewhere; see [`Affine`] for
    /// what is rounded when.
    ///
    /// # Errors
    ///
    /// [`LengthError`] unless the mask has as many elements as the buffers.
    pub fn new(
        mask: BitSlice<'a>,
        affine: Affine,
        buffers: Buffers<'a, T>,
    ) -> Result<Self, LengthError> {
        LengthError::check("mask", buffers.len(), mask.len())?;
        Ok(Self::of(mask, affine, buffers))
    }

    /// The same for a mask and buffers that are known to be of one length.
    pub(crate) fn of(mask: BitSlice<'a>, affine: Affine, buffers: Buffers<'a, T>) -> Self {
        Self {
            mask,
            scale: T::factor(affine.scale),
            shift: T::factor(affine.shift),
            dropped: T::narrow(T::factor(affine.dropped)),
            buffers,
        }
    }

    /// The mask.
    #[must_use]
    pub fn mask(&self) -> BitSlice<'a> {
        self.mask
    }

    /// What kept elements are multiplied by.
    #[must_use]
    pub fn scale(&self) -> T::Scale {
        self.scale
    }

    /// What is added to the product.
    #[must_use]
    pub fn shift(&self) -> T::Scale {
        self.shift
    }

    /// What dropped elements become.
    #[must_use]
    pub fn dropped(&self) -> T {
        self.dropped
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffers.len()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    /// Input and output.
    #[must_use]
    pub fn into_buffers(self) -> Buffers<'a, T> {
        self.buffers
    }
}

/// Make the bits of a window of a mask and apply them in the same pass: forward, which also keeps
/// the bits, and replay, which does not.
#[derive(Debug)]
pub struct Dropout<'a, T: Element> {
    window: MaskWindow,
    threshold: NonZeroU64,
    scale: T::Scale,
    buffers: Buffers<'a, T>,
    out: Option<BitSliceMut<'a>>,
    streaming: bool,
}

impl<'a, T: Element> Dropout<'a, T> {
    /// `output = input * scale` where the mask of `window` keeps, `+0.0` elsewhere; the bits go to
    /// `out` where there is one.
    ///
    /// # Errors
    ///
    /// [`LengthError`] unless `out` has as many elements as the buffers, [`WindowError`] where the
    /// window reaches beyond element 2^64 - 1.
    pub fn new(
        window: MaskWindow,
        threshold: NonZeroU64,
        scale: T::Scale,
        buffers: Buffers<'a, T>,
        out: Option<BitSliceMut<'a>>,
    ) -> Result<Self, Error> {
        if let Some(out) = &out {
            LengthError::check("mask", buffers.len(), out.len())?;
        }
        window.check_len(buffers.len())?;
        Ok(Self {
            window,
            threshold,
            scale,
            buffers,
            out,
            streaming: false,
        })
    }

    /// See [`MaskScale::streaming`].
    #[must_use]
    pub fn streaming(self, streaming: bool) -> Self {
        Self { streaming, ..self }
    }

    /// Whether stores that go around the cache are expected to pay.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        self.streaming
    }

    /// Which part of which mask.
    #[must_use]
    pub fn window(&self) -> MaskWindow {
        self.window
    }

    /// Keep where the random integer is below this.
    #[must_use]
    pub fn threshold(&self) -> NonZeroU64 {
        self.threshold
    }

    /// What kept elements are multiplied by.
    #[must_use]
    pub fn scale(&self) -> T::Scale {
        self.scale
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffers.len()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    /// Input and output, and where the bits go.
    #[must_use]
    pub fn into_parts(self) -> (Buffers<'a, T>, Option<BitSliceMut<'a>>) {
        (self.buffers, self.out)
    }
}

/// The window `by` elements into one that was checked to be at least that long.
fn inside(window: MaskWindow, by: usize) -> MaskWindow {
    MaskWindow {
        first: window.first.wrapping_add(by as u64),
        ..window
    }
}
