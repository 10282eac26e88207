//! The bits of a window of a mask.

use core::num::NonZeroU64;

use crate::job::FillMask;
use crate::kernel::tile::{Meanwhile, Nothing, Part, TileBits, TileWords, parts};
use crate::key::MaskKey;
use crate::simd::{Kernel, Simd};
use crate::stream::{BLOCK, LANES, TILE};

impl<S: Simd> Kernel<S> for FillMask<'_> {
    #[inline(always)]
    fn run(self, simd: S) {
        let (window, threshold, len) = (self.window(), self.threshold(), self.len());
        let mut out = self.into_out();
        let TileWords(scratch) = &mut TileWords::new();
        for part in parts::<S>(window.first, len) {
            match part.own_words(&mut out) {
                Some(words) => fill(
                    simd,
                    window.key,
                    threshold,
                    &part,
                    words,
                    None,
                    &mut Nothing,
                ),
                None => {
                    fill(
                        simd,
                        window.key,
                        threshold,
                        &part,
                        scratch,
                        None,
                        &mut Nothing,
                    );
                    out.write(part.at, part.bits(scratch));
                }
            }
        }
    }
}

/// Makes the blocks of a part, from the start of its tile on, with steps of `meanwhile` in between.
/// They go to `words`, and to `copy` where there is one.
#[inline(always)]
pub(super) fn fill<S: Simd>(
    simd: S,
    key: MaskKey,
    threshold: NonZeroU64,
    part: &Part,
    words: &mut [[u64; LANES]],
    copy: Option<&mut [[u64; LANES]]>,
    meanwhile: &mut impl Meanwhile,
) {
    match part.end / TILE {
        2 => fill_tiles::<S, 2>(simd, key, threshold, part, words, copy, meanwhile),
        _ => fill_tiles::<S, 1>(simd, key, threshold, part, words, copy, meanwhile),
    }
}

/// [`fill`] for a part of `N` tiles, of which only a single one may be partial.
#[inline(always)]
fn fill_tiles<S: Simd, const N: usize>(
    simd: S,
    key: MaskKey,
    threshold: NonZeroU64,
    part: &Part,
    words: &mut [[u64; LANES]],
    mut copy: Option<&mut [[u64; LANES]]>,
    meanwhile: &mut impl Meanwhile,
) {
    let mut bits = TileBits::<S, N>::new(simd, key, part.tile);
    for block in 0..(part.end / N).div_ceil(BLOCK) {
        for (n, made) in bits.blocks(threshold, meanwhile).into_iter().enumerate() {
            let at = n * (TILE / BLOCK) + block;
            simd.store_words(made, &mut words[at]);
            if let Some(copy) = &mut copy {
                simd.store_words(made, &mut copy[at]);
            }
        }
    }
}
