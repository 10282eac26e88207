//! What a backend is asked to do: jobs, whose lengths were checked when they were made.
//!
//! [`FillMask`] makes the bits of a mask, [`Apply`] applies bits, [`Dropout`] makes bits and applies
//! them. A [`Pass`] says what "apply" means, so that a new kernel is a new pass and no
//! new job. [`Map`] has no mask: it makes a function of every element.
//!
//! [`DropoutAddNorm`] and [`NormBackward`] are about rows: what an element becomes depends on those beside
//! it. What else is fused with dropout is a pass.
//!
//! But for the jobs over rows a backend never sees p = 0 or p = 1: they need no random bits and are done before it is called.

mod broadcast;
mod compose;
mod map;
mod norm;
mod region;
#[cfg(feature = "parallel")]
mod split;
mod swiglu;

use crate::buffers::{Beside, Buffers};
use crate::element::Element;
use crate::error::{Error, LengthError, WindowError};
use crate::keep::KeepRule;
use crate::key::MaskWindow;
use crate::mask::{BitSlice, BitSliceMut};
use crate::pass::Pass;

pub(crate) use broadcast::{ApplyBroadcast, Covered};
pub use map::Map;
pub(crate) use map::work as map_work;
pub(crate) use norm::ROWS_OF_BLOCK;
pub use norm::{DropoutAddNorm, NormBackward, RowMask};
pub(crate) use region::{DropoutRegion, FillRegion};
#[cfg(feature = "parallel")]
pub(crate) use split::Split;
pub(crate) use swiglu::SwigluBackward;

/// Write the bits of a window of a mask.
#[derive(Debug)]
pub struct FillMask<'a> {
    window: MaskWindow,
    rule: &'a KeepRule,
    out: BitSliceMut<'a>,
}

impl<'a> FillMask<'a> {
    /// The bits of `window`, as many as `out` has elements, by `rule`.
    ///
    /// # Errors
    ///
    /// [`WindowError`] if the window reaches beyond element 2^64 - 1.
    pub fn new(
        window: MaskWindow,
        rule: &'a KeepRule,
        out: BitSliceMut<'a>,
    ) -> Result<Self, WindowError> {
        window.check_len(out.len())?;
        Ok(Self { window, rule, out })
    }

    /// Which part of which mask.
    #[must_use]
    pub fn window(&self) -> MaskWindow {
        self.window
    }

    /// Which elements are kept.
    #[must_use]
    pub fn rule(&self) -> &'a KeepRule {
        self.rule
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

/// A pass over elements: what is computed, of which inputs, and where it goes.
#[derive(Debug)]
pub struct Update<'a, T: Element> {
    // Invariant: the buffers have what the pass reads.
    pass: Pass<T>,
    buffers: Buffers<'a, T>,
    streaming: bool,
}

impl<'a, T: Element> Update<'a, T> {
    /// `pass` over `buffers`.
    ///
    /// # Errors
    ///
    /// [`LengthError`] if the pass reads elements that the buffers do not have, or the buffers have a
    /// second input that it does not read.
    pub fn new(pass: Pass<T>, buffers: Buffers<'a, T>) -> Result<Self, LengthError> {
        pass.check(&buffers)?;
        Ok(Self {
            pass,
            buffers,
            streaming: false,
        })
    }

    /// Says that the whole output is larger than the cache, so that stores which bypass the cache are
    /// faster. A backend may ignore it.
    #[must_use]
    pub fn streaming(self, streaming: bool) -> Self {
        Self { streaming, ..self }
    }

    /// Whether stores that bypass the cache are expected to be faster.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        self.streaming
    }

    /// What becomes of the elements.
    #[must_use]
    pub fn pass(&self) -> Pass<T> {
        self.pass
    }

    /// What is read beside the input.
    #[must_use]
    pub fn beside(&self) -> Beside<'a, T> {
        self.buffers.beside()
    }

    /// Whether our backends make the bits of the mask between the elements: `kernel/dropout.rs`.
    pub(crate) fn is_interleaved(&self) -> bool {
        let has_own_loop = matches!(self.pass, Pass::Map { .. });
        !has_own_loop && !self.pass.decides() && self.beside().row().is_none()
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

    /// Inputs and output.
    #[must_use]
    pub fn into_buffers(self) -> Buffers<'a, T> {
        self.buffers
    }

    /// How many bytes are read and written; or, if computing takes longer, would be in that time.
    pub(crate) fn bytes(&self) -> usize {
        if let Pass::Map { .. } = self.pass {
            return map_work::<T>(self.len());
        }
        let inputs = 1 + usize::from(self.beside().elements().is_some());
        (inputs + 1) * size_of::<T>() * self.len()
    }

    /// The first `mid` elements and the rest.
    ///
    /// # Panics
    ///
    /// When `mid > len`.
    #[must_use]
    pub fn split_at(self, mid: usize) -> (Self, Self) {
        let (head, tail) = self.buffers.split_at(mid);
        let half = |buffers| Self { buffers, ..self };
        (half(head), half(tail))
    }
}

/// Apply a mask that is there.
#[derive(Debug)]
pub struct Apply<'a, T: Element> {
    mask: BitSlice<'a>,
    update: Update<'a, T>,
    // Invariant: as long as the mask.
    out: Option<BitSliceMut<'a>>,
}

impl<'a, T: Element> Apply<'a, T> {
    /// `update` by the bits of `mask`.
    ///
    /// # Errors
    ///
    /// [`LengthError`] unless the mask has as many elements as the buffers.
    pub fn new(mask: BitSlice<'a>, update: Update<'a, T>) -> Result<Self, LengthError> {
        LengthError::check("mask", update.len(), mask.len())?;
        Ok(Self {
            mask,
            update,
            out: None,
        })
    }

    /// Also writes the bits that are left of the mask to `out`, for a pass that
    /// [decides](Pass::decides) that.
    ///
    /// # Errors
    ///
    /// [`LengthError`] unless it has as many elements as the mask.
    pub fn leaving(self, out: BitSliceMut<'a>) -> Result<Self, LengthError> {
        LengthError::check("mask", self.mask.len(), out.len())?;
        Ok(Self {
            out: Some(out),
            ..self
        })
    }

    /// The mask.
    #[must_use]
    pub fn mask(&self) -> BitSlice<'a> {
        self.mask
    }

    /// What is to be done.
    #[must_use]
    pub fn update(&self) -> &Update<'a, T> {
        &self.update
    }

    /// What is to be done, to do it, for a pass that leaves all bits of the mask.
    #[must_use]
    pub fn into_update(self) -> Update<'a, T> {
        self.update
    }

    /// What is to be done, to do it, and where the bits go that are left, if they are wanted.
    #[must_use]
    pub fn into_parts(self) -> (Update<'a, T>, Option<BitSliceMut<'a>>) {
        (self.update, self.out)
    }
}

/// Make the bits of a window of a mask and apply them in the same pass: forward, which also keeps
/// the bits, and replay, which does not. A pass that [decides](Pass::decides) keeps those that it leaves.
#[derive(Debug)]
pub struct Dropout<'a, T: Element> {
    window: MaskWindow,
    rule: &'a KeepRule,
    update: Update<'a, T>,
    out: Option<BitSliceMut<'a>>,
}

impl<'a, T: Element> Dropout<'a, T> {
    /// `update` by the mask of `window`; the bits go to `out` if there is one.
    ///
    /// # Errors
    ///
    /// [`LengthError`] unless `out` has as many elements as the buffers, [`WindowError`] if the
    /// window reaches beyond element 2^64 - 1.
    pub fn new(
        window: MaskWindow,
        rule: &'a KeepRule,
        update: Update<'a, T>,
        out: Option<BitSliceMut<'a>>,
    ) -> Result<Self, Error> {
        if let Some(out) = &out {
            LengthError::check("mask", update.len(), out.len())?;
        }
        window.check_len(update.len())?;
        Ok(Self {
            window,
            rule,
            update,
            out,
        })
    }

    /// Which part of which mask.
    #[must_use]
    pub fn window(&self) -> MaskWindow {
        self.window
    }

    /// Which elements are kept.
    #[must_use]
    pub fn rule(&self) -> &'a KeepRule {
        self.rule
    }

    /// What is to be done.
    #[must_use]
    pub fn update(&self) -> &Update<'a, T> {
        &self.update
    }

    /// What is to be done, to do it, and where the bits go.
    #[must_use]
    pub fn into_parts(self) -> (Update<'a, T>, Option<BitSliceMut<'a>>) {
        (self.update, self.out)
    }
}

/// Keep all elements, or drop all, without a mask; and write the bits that are left.
#[derive(Debug)]
pub(crate) struct Settle<'a, T: Element> {
    pub(crate) kept: bool,
    pub(crate) update: Update<'a, T>,
    pub(crate) out: Option<BitSliceMut<'a>>,
}

/// The window `by` elements into one that was checked to be at least that long.
fn inside(window: MaskWindow, by: usize) -> MaskWindow {
    MaskWindow {
        first: window.first.wrapping_add(by as u64),
        ..window
    }
}
