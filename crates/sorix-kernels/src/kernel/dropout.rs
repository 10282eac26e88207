//! Make the bits of a window and apply them.
//!
//! A tile or two at a time: the bits, which stay in the level 1 cache, and then the elements in one
//! run. Each of the two is a loop of its own, as fast as it is alone.
//!
//! Tried and found slower, on Zen 5 (ratios to a copy, f32 in the level 2 cache, p = 0.1 and 0.5;
//! as it is: 1.65 and 1.2): one block of bits, then its 512 elements (1.6 and 1.3; beyond the
//! caches 1.0 and more, against 0.85); the elements of one block between the steps of the generator
//! for the next, in the hope that one would hide in the other's waiting (1.4 to 2.0, and 2.0: the
//! loads of the words, or of anything else on the stack, wait for the stores of the output between
//! them; 1.2 in the level 3 cache, but 1.0 beyond). Long uninterrupted runs of loads and stores are
//! what the memory system wants.

use core::num::NonZeroU64;

use crate::element::Element;
use crate::job::Dropout;
use crate::kernel::elements::{Elements, with_elements};
use crate::kernel::fill_mask::fill;
use crate::kernel::mask_scale::mask_scale;
use crate::kernel::tile::{TileWords, parts};
use crate::key::MaskWindow;
use crate::mask::BitSliceMut;
use crate::simd::{Kernel, Lanes, Simd};

impl<T: Element, S: Simd + Lanes<T>> Kernel<S> for Dropout<'_, T> {
    #[inline(always)]
    fn run(self, simd: S) {
        let streaming = self.is_streaming();
        let (window, threshold, scale) = (self.window(), self.threshold(), self.scale());
        let (buffers, out) = self.into_parts();
        with_elements!(buffers, streaming, |const STREAM, elements| {
            dropout::<STREAM, T, S>(simd, window, threshold, scale, elements, out);
        });
        if streaming {
            simd.fence();
        }
    }
}

#[inline(always)]
fn dropout<const STREAM: bool, T: Element, S: Simd + Lanes<T>>(
    simd: S,
    window: MaskWindow,
    threshold: NonZeroU64,
    scale: T::Scale,
    mut elements: impl Elements<T>,
    mut out: Option<BitSliceMut<'_>>,
) {
    let TileWords(scratch) = &mut TileWords::new();
    for part in parts::<S>(window.first, elements.y().len()) {
        let now = elements.take(part.len());
        match out.as_mut().and_then(|out| part.own_words(out)) {
            Some(words) => {
                fill(simd, window.key, threshold, &part, words);
                mask_scale::<STREAM, T, S>(simd, scale, part.bits(words), now);
            }
            None => {
                fill(simd, window.key, threshold, &part, scratch);
                mask_scale::<STREAM, T, S>(simd, scale, part.bits(scratch), now);
                if let Some(out) = &mut out {
                    out.write(part.at, part.bits(scratch));
                }
            }
        }
    }
}
