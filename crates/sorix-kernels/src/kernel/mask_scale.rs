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
    Elements, Write, apply_word, apply_word_to_part, unaligned_head, with_elements,
};
use crate::kernel::tile::Meanwhile;
use crate::mask::{BitSlice, WORD};
use crate::simd::{Fence, Kernel, Lanes, Simd};
use crate::stream::BLOCK;

impl<T: Element, S: Simd + Lanes<T>> Kernel<S> for MaskScale<'_, T> {
    #[inline(always)]
    fn run(self, simd: S) {
        let (mask, scale, streaming) = (self.mask(), self.scale(), self.is_streaming());
        let fence = streaming.then(|| Fence::after(simd));
        with_elements!(self.into_buffers(), &fence, |write, elements| {
            MaskScaling::new(simd, write, scale, mask, elements).finish();
        });
    }
}

/// A mask that is being applied to elements, of which there are as many.
pub(super) struct MaskScaling<'m, W, T: Element, S: Lanes<T>, E: Elements<T>> {
    simd: S,
    write: W,
    scale: T::Scale,
    scales: S::Scale,
    /// The words that the mask of the groups lies in, and the bit of the first of them where it
    /// begins.
    words: &'m [u64],
    start: usize,
    groups: E::Groups,
    /// What does not fill a group, and its mask.
    rest: E,
    rest_bits: u64,
}

impl<'m, W: Write<T, S>, T: Element, S: Lanes<T>, E: Elements<T>> MaskScaling<'m, W, T, S, E> {
    /// Applies the mask to the elements before the first aligned one.
    #[inline(always)]
    pub(super) fn new(
        simd: S,
        write: W,
        scale: T::Scale,
        mask: BitSlice<'m>,
        mut elements: E,
    ) -> Self {
        // Not worth it for a few: they are done before alignment would show.
        let align = W::ALIGNED || mask.len() >= BLOCK;
        let head = if align {
            unaligned_head(elements.y())
        } else {
            0
        };
        let (head_mask, mask) = mask.split_at(head);
        if head > 0 {
            apply_word_to_part(scale, head_mask.word(0), elements.take(head));
        }
        let whole = mask.len() / WORD;
        let (words, start) = mask.words_and_start();
        Self {
            simd,
            write,
            scale,
            scales: simd.splat_scale(scale),
            words,
            start,
            groups: elements.take(whole * WORD).groups(),
            rest_bits: if mask.len() > whole * WORD {
                mask.word(whole)
            } else {
                0
            },
            rest: elements,
        }
    }

    /// Applies what is left.
    #[inline(always)]
    pub(super) fn finish(self) {
        let (words, start) = (self.words, self.start);
        if start == 0 {
            for (&word, group) in words.iter().zip(self.groups) {
                apply_word(self.simd, self.write, self.scales, word, group);
            }
        } else {
            let pairs = words.iter().zip(words.get(1..).unwrap_or_default());
            for ((low, high), group) in pairs.zip(self.groups) {
                let word = low >> start | high << (WORD - start);
                apply_word(self.simd, self.write, self.scales, word, group);
            }
        }
        apply_word_to_part(self.scale, self.rest_bits, self.rest);
    }
}

impl<W: Write<T, S>, T: Element, S: Lanes<T>, E: Elements<T>> Meanwhile
    for MaskScaling<'_, W, T, S, E>
{
    /// Applies one word.
    #[inline(always)]
    fn step(&mut self) {
        if let Some(group) = self.groups.next()
            && let Some((&low, later)) = self.words.split_first()
        {
            self.words = later;
            let word = match later.first() {
                Some(high) if self.start > 0 => low >> self.start | high << (WORD - self.start),
                _ => low,
            };
            apply_word(self.simd, self.write, self.scales, word, group);
        }
    }
}
