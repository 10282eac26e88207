//! Forward and replay: the bits of a mask, and `y = x * scale` where they keep.
//!
//! Making the bits is bound by the generator's instructions and their latency, applying them by the
//! memory system, so the two are done at the same time: while the bits of one part (a tile, or two)
//! are made, those of the part before it are applied, a word of 64 elements for every digit of every
//! tile. What is then left of the part before is applied in one run. The words are read a part
//! after they were written: a load that follows the store of its word too closely waits for the
//! stores of the output that are between.
//!
//! On Zen 4, ratios to a copy, f32, one thread, in the level 2 and the level 3 cache:
//!
//! | | avx512, p = 0.1 | avx512, p = 0.5 | avx2, p = 0.1 | avx2, p = 0.5 |
//! |---|---|---|---|---|
//! | making, then applying (64 Ki elements in turn) | 1.62, 1.55 | 1.13, 1.12 | 1.95, 1.86 | 1.24, 1.22 |
//! | **as it is** | 1.31, 1.22 | 1.13, 1.13 | 1.80, 1.59 | 1.26, 1.26 |
//! | a tile at a time on avx512, too | 1.39, 1.28 | 1.18, 1.17 | | |
//! | half as often, the rest spread over the blocks | 1.39, 1.18 | 1.26, 1.16 | 1.82, 1.63 | 1.27, 1.27 |
//! | the words of the block before, not of the part before | 1.22, 1.21 | 1.20, 1.15 | 1.81, 1.80 | 1.31, 1.29 |
//!
//! Beyond the caches it went from 0.75 to 0.70 (avx512, p = 0.1). A threshold of few digits has few
//! steps, so there the two still come one after the other.

use core::mem;
use core::num::NonZeroU64;

use crate::element::Element;
use crate::job::Dropout;
use crate::kernel::elements::{Elements, Write, with_elements};
use crate::kernel::fill_mask::fill;
use crate::kernel::mask_scale::MaskScaling;
use crate::kernel::tile::{Part, TileWords, parts};
use crate::key::MaskWindow;
use crate::mask::BitSliceMut;
use crate::simd::{Fence, Kernel, Lanes, Simd};

impl<T: Element, S: Simd + Lanes<T>> Kernel<S> for Dropout<'_, T> {
    #[inline(always)]
    fn run(self, simd: S) {
        let (window, threshold, scale) = (self.window(), self.threshold(), self.scale());
        let streaming = self.is_streaming();
        let (buffers, out) = self.into_parts();
        let fence = streaming.then(|| Fence::after(simd));
        with_elements!(buffers, &fence, |write, elements| {
            dropout(simd, write, window, threshold, scale, elements, out);
        });
    }
}

/// The kernel for elements that are read from one place and written to another, or rewritten.
#[inline(always)]
fn dropout<T: Element, S: Simd + Lanes<T>>(
    simd: S,
    write: impl Write<T, S>,
    window: MaskWindow,
    threshold: NonZeroU64,
    scale: T::Scale,
    mut elements: impl Elements<T>,
    mut out: Option<BitSliceMut<'_>>,
) {
    let [mut made, mut made_before] = [&mut TileWords::new(), &mut TileWords::new()];
    let mut before = (Part::EMPTY, elements.take(0));
    for part in parts::<S>(window.first, elements.y().len()) {
        let now = elements.take(part.len());
        let mut applying =
            MaskScaling::new(simd, write, scale, before.0.bits(&made_before.0), before.1);
        // The bits are wanted twice: here for the next turn, and in the mask.
        let own = out.as_mut().and_then(|out| part.own_words(out));
        let is_own = own.is_some();
        fill(
            simd,
            window.key,
            threshold,
            &part,
            &mut made.0,
            own,
            &mut applying,
        );
        applying.finish();
        if let Some(out) = &mut out
            && !is_own
        {
            out.write(part.at, part.bits(&made.0));
        }
        before = (part, now);
        mem::swap(&mut made, &mut made_before);
    }
    let (part, elements) = before;
    MaskScaling::new(simd, write, scale, part.bits(&made_before.0), elements).finish();
}
