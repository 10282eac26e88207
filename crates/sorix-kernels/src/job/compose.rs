//! Forward and replay as a mask made and a mask applied.
//!
//! A chunk of a few tiles at a time: its bits, which stay in the level 1 cache, and then its
//! elements in one run. Each of the two is a loop of its own, as fast as it is alone.
//!
//! Tried and found slower, on Zen 5 (ratios to a copy, f32 in the level 2 cache, p = 0.1 and 0.5;
//! as it is: 1.65 and 1.2): one block of bits, then its 512 elements (1.6 and 1.3; beyond the
//! caches 1.0 and more, against 0.85); the elements of one block between the steps of the generator
//! for the next, in the hope that one would hide in the other's waiting (1.4 to 2.0, and 2.0: loads
//! of words stored so shortly before wait for the stores of the output between; 1.2 in the level 3
//! cache, but 1.0 beyond). Long uninterrupted runs of loads and stores are what the memory system
//! wants.

use super::{Dropout, FillMask, MaskScale, inside};
use crate::buffers::Buffers;
use crate::element::Element;
use crate::mask::{BitSliceMut, WORD};
use crate::stream::TILE;

/// Elements in a chunk. Their bits are 8 KiB.
pub(super) const CHUNK: usize = 8 * TILE;

impl<T: Element> Dropout<'_, T> {
    /// Does the job with the kernels for its two halves: `fill` makes the bits, `scale` applies
    /// them, a chunk of a few tiles at a time.
    ///
    /// It is what a [`Backend`](crate::Backend) does that brings `fill_mask` and `mask_scale` and
    /// nothing else.
    pub fn compose(
        self,
        mut fill: impl FnMut(FillMask<'_>),
        mut scale: impl FnMut(MaskScale<'_, T>),
    ) {
        let Self {
            window,
            threshold,
            scale: factor,
            buffers,
            out,
            streaming,
        } = self;
        let next = |at, left| chunk_len(inside(window, at).first, left);
        in_chunks(buffers, out, next, |at, mut out, buffers| {
            fill(FillMask {
                window: inside(window, at),
                threshold,
                out: out.reborrow(),
            });
            scale(MaskScale {
                mask: out.as_slice(),
                scale: factor,
                buffers,
                streaming,
            });
        });
    }
}

/// Calls `chunk` for one part of the elements after the other, with its place among them and a place
/// for its bits: in `out` where there is one, else on the stack. `next` says how long the part at a
/// place is, given how many elements are left: at most [`CHUNK`], and whole words or all.
pub(super) fn in_chunks<T: Element>(
    mut buffers: Buffers<'_, T>,
    mut out: Option<BitSliceMut<'_>>,
    next: impl Fn(usize, usize) -> usize,
    mut chunk: impl FnMut(usize, BitSliceMut<'_>, Buffers<'_, T>),
) {
    let mut words = [0; CHUNK / WORD];
    let mut at = 0;
    while !buffers.is_empty() {
        let len = next(at, buffers.len());
        let (now, later) = buffers.split_at(len);
        match out.take() {
            Some(all) => {
                let (bits, rest) = all.split_at(len);
                chunk(at, bits, now);
                out = Some(rest);
            }
            None => chunk(at, BitSliceMut::of_words(&mut words, len), now),
        }
        (buffers, at) = (later, at + len);
    }
}

/// The length of the next chunk of a window that begins at element `first` and has `len` left: to
/// the end of a tile, so that no tile is made twice; or, where that is not at a word of the
/// window's own mask, to the last word before it.
fn chunk_len(first: u64, len: usize) -> usize {
    let to_end_of_tile = CHUNK - (first % TILE as u64) as usize;
    if len <= to_end_of_tile {
        len
    } else {
        to_end_of_tile / WORD * WORD
    }
}
