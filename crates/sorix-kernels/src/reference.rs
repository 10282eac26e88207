//! The oracle: every kernel in its most obvious form, against which all backends are tested.
//!
//! One bit at a time, one element at a time, straight from the scalar definition of the mask in
//! [`stream`](crate::stream). Nothing here shares code with the SIMD kernels.

use core::num::NonZeroU64;

use half::{bf16, f16};

use crate::backend::Backend;
use crate::element::Element;
use crate::job::{Dropout, FillMask, MaskAffine, MaskScale};
use crate::key::MaskWindow;
use crate::stream::{BLOCK, Law, TILE, TileStream};

/// The backend named `"reference"`: correct, always there, and slow.
///
/// ```
/// use sorix_kernels::{Backend, reference::Reference};
/// assert_eq!(Reference.name(), "reference");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

impl Backend for Reference {
    fn name(&self) -> &'static str {
        "reference"
    }

    fn dropout_f32(&self, job: Dropout<'_, f32>) {
        dropout(job);
    }

    fn dropout_f64(&self, job: Dropout<'_, f64>) {
        dropout(job);
    }

    fn dropout_bf16(&self, job: Dropout<'_, bf16>) {
        dropout(job);
    }

    fn dropout_f16(&self, job: Dropout<'_, f16>) {
        dropout(job);
    }
}

/// Writes the bits of a window of a mask.
pub fn fill_mask(job: FillMask<'_>) {
    let keep = keep_bits(job.window(), job.threshold());
    let mut out = job.into_out();
    let len = out.len();
    let words = out.words_mut();
    words.fill(0);
    for (i, keep) in (0..len).zip(keep) {
        words[i / 64] |= u64::from(keep) << (i % 64);
    }
}

/// Applies a mask.
pub fn mask_scale<T: Element>(job: MaskScale<'_, T>) {
    let (mask, scale) = (job.mask(), job.scale());
    let mut keep = mask.iter();
    job.into_buffers()
        .update(|_, x| apply(keep.next() == Some(true), x, scale));
}

/// Applies a mask and an affine map.
pub fn mask_affine<T: Element>(job: MaskAffine<'_, T>) {
    let (mask, scale, shift, dropped) = (job.mask(), job.scale(), job.shift(), job.dropped());
    let mut keep = mask.iter();
    job.into_buffers().update(|_, x| {
        if keep.next() == Some(true) {
            x.times_plus(scale, shift)
        } else {
            dropped
        }
    });
}

/// Makes a mask and applies it.
pub fn dropout<T: Element>(job: Dropout<'_, T>) {
    let (window, threshold, scale) = (job.window(), job.threshold(), job.scale());
    let (buffers, mut out) = job.into_parts();
    if let Some(out) = &mut out {
        out.words_mut().fill(0);
    }
    let mut keep = keep_bits(window, threshold);
    buffers.update(|i, x| {
        let keep = keep.next() == Some(true);
        if let Some(out) = &mut out {
            out.words_mut()[i / 64] |= u64::from(keep) << (i % 64);
        }
        apply(keep, x, scale)
    });
}

/// A dropped element is selected, not multiplied: NaN and infinity do not leak.
fn apply<T: Element>(keep: bool, x: T, scale: T::Scale) -> T {
    if keep { x.times(scale) } else { T::ZERO }
}

/// The keep bits of the elements from `window.first` on, without end.
fn keep_bits(window: MaskWindow, threshold: NonZeroU64) -> impl Iterator<Item = bool> {
    let first_tile = window.first / TILE as u64;
    let law = Law::new(threshold);
    let bits = (first_tile..).flat_map(move |tile| {
        let mut stream = TileStream::new(window.key, tile);
        let law = law.clone();
        (0..TILE / BLOCK).flat_map(move |_| {
            let words = stream.block(&law);
            (0..BLOCK).map(move |i| words[i / 64] >> (i % 64) & 1 == 1)
        })
    });
    bits.skip((window.first % TILE as u64) as usize)
}
