//! `y = x * scale` where a mask keeps, `+0.0` elsewhere.
//!
//! One word of the mask decides a group of 64 elements. The multiplication happens in every lane
//! and the dropped lanes are cleared after it, so a NaN or an infinity in them is gone.
//!
//! Where the output is not aligned to a cache line, the elements before the first aligned one go
//! first, so that every vector after them is aligned: streaming stores require it and ordinary ones
//! are faster for it. The mask is then read at a shift.

use crate::element::Element;
use crate::job::MaskScale;
use crate::kernel::elements::{
    Elements, apply_word, apply_word_to_part, unaligned_head, with_elements,
};
use crate::mask::{BitSlice, WORD};
use crate::simd::{Fence, Kernel, Lanes, Simd};
use crate::stream::BLOCK;

impl<T: Element, S: Simd + Lanes<T>> Kernel<S> for MaskScale<'_, T> {
    #[inline(always)]
    fn run(self, simd: S) {
        let (mask, scale, streaming) = (self.mask(), self.scale(), self.is_streaming());
        let _fence = streaming.then(|| Fence::after(simd));
        with_elements!(self.into_buffers(), streaming, |const STREAM, elements| {
            mask_scale::<STREAM, T, S>(simd, scale, mask, elements);
        });
    }
}

/// Applies `mask` to `elements`, which are as many; streams only while a [`Fence`] lives.
#[inline(always)]
fn mask_scale<const STREAM: bool, T: Element, S: Simd + Lanes<T>>(
    simd: S,
    scale: T::Scale,
    mask: BitSlice<'_>,
    mut elements: impl Elements<T>,
) {
    // Not worth it for a few: they are done before alignment would show.
    let align = STREAM || mask.len() >= BLOCK;
    let head = if align {
        unaligned_head(elements.y())
    } else {
        0
    };
    let (head_mask, mask) = mask.split_at(head);
    if head > 0 {
        apply_word_to_part(scale, head_mask.word(0), elements.take(head));
    }

    let scales = <S as Lanes<T>>::splat_scale(simd, scale);
    let whole = mask.len() / WORD * WORD;
    let (words, start) = mask.words_and_start();
    let groups = elements.take(whole).groups();
    if start == 0 {
        for (&word, group) in words.iter().zip(groups) {
            apply_word::<STREAM, _, _>(simd, scales, word, group);
        }
    } else {
        let pairs = words.iter().zip(words.get(1..).unwrap_or_default());
        for ((low, high), group) in pairs.zip(groups) {
            let word = low >> start | high << (WORD - start);
            apply_word::<STREAM, _, _>(simd, scales, word, group);
        }
    }

    if whole < mask.len() {
        apply_word_to_part(scale, mask.word(whole / WORD), elements);
    }
}
