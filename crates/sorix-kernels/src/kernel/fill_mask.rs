//! The bits of a window of a mask.

use crate::job::FillMask;
use crate::kernel::tile::{TileBits, TileWords, parts};
use crate::mask::{BitSlice, WORD};
use crate::simd::{Kernel, Simd};
use crate::stream::BLOCK;

impl<S: Simd> Kernel<S> for FillMask<'_> {
    #[inline(always)]
    fn run(self, simd: S) {
        let (window, threshold, len) = (self.window(), self.threshold(), self.len());
        let mut out = self.into_out();
        let TileWords(scratch) = &mut TileWords::new();
        for part in parts(window.first, len) {
            let mut bits = TileBits::new(simd, window.key, part.tile);
            // Whole blocks go where they belong, where that is at a word.
            let direct = if part.at.is_multiple_of(WORD) {
                part.whole_blocks()
            } else {
                0
            };
            let words = out
                .words_mut()
                .get_mut(part.at / WORD..)
                .unwrap_or_default();
            for block in words.as_chunks_mut().0.iter_mut().take(direct) {
                simd.store_words(bits.block(threshold, &mut ()), block);
            }
            let blocks = part.end.div_ceil(BLOCK);
            if direct < blocks {
                for block in &mut scratch[direct..blocks] {
                    simd.store_words(bits.block(threshold, &mut ()), block);
                }
                let begin = part.begin.max(direct * BLOCK);
                let rest = BitSlice::of_words(scratch.as_flattened(), begin, part.end - begin);
                out.write(part.at + begin - part.begin, rest);
            }
        }
    }
}
