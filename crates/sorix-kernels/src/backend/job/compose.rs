//! Forward and replay as a mask made and a mask applied.
//!
//! A chunk of a few tiles at a time: its bits, which stay in the level 1 cache, and then its
//! elements in one run. It is for backends that bring the two and nothing else; those over an
//! instruction set do both at the same time, see `kernel/dropout.rs`.

use super::{Apply, Dropout, FillMask, Update, inside};
use crate::element::Element;
use crate::mask::{BitSliceMut, WORD};
use crate::stream::TILE;

/// Elements in a chunk. Their bits are 8 KiB.
pub(super) const CHUNK: usize = 64 * 1024;

/// Up to here a call is small.
const FEW: usize = 4096;

const _: () = assert!(CHUNK.is_multiple_of(TILE), "no tile is made twice");

impl<T: Element> Dropout<'_, T> {
    /// Does the job with the kernels for its two halves: `fill` makes the bits, `apply` applies
    /// them, a chunk of a few tiles at a time.
    ///
    /// It is what a [`Backend`](crate::backend::Backend) does that brings these two and nothing else.
    pub fn compose(self, mut fill: impl FnMut(FillMask<'_>), mut apply: impl FnMut(Apply<'_, T>)) {
        let Self {
            window,
            rule,
            update,
            out,
        } = self;
        let next = |at, left| chunk_len(inside(window, at).first, left);
        in_chunks(update, out, next, |at, mut out, update| {
            fill(FillMask {
                window: inside(window, at),
                rule,
                out: out.reborrow(),
            });
            apply_chunk(out, update, &mut apply);
        });
    }
}

/// Applies the bits of a chunk, of which those stay that the pass leaves.
pub(super) fn apply_chunk<T: Element>(
    out: BitSliceMut<'_>,
    update: Update<'_, T>,
    apply: &mut impl FnMut(Apply<'_, T>),
) {
    if !update.pass().decides() {
        let (mask, out) = (out.as_slice(), None);
        return apply(Apply { mask, update, out });
    }
    let mut words = [0; CHUNK / WORD];
    let mut made = BitSliceMut::of_words(&mut words, out.len());
    made.write(0, out.as_slice());
    let (mask, out) = (made.as_slice(), Some(out));
    apply(Apply { mask, update, out });
}

/// Calls `chunk` for one chunk of the elements after the other, with its place among them and a place
/// for its bits: in `out` if there is one, else on the stack. `next` says how long the chunk at a
/// place is, given how many elements are left: at most [`CHUNK`], and whole words or all.
pub(super) fn in_chunks<T: Element>(
    mut update: Update<'_, T>,
    mut out: Option<BitSliceMut<'_>>,
    next: impl Fn(usize, usize) -> usize,
    mut chunk: impl FnMut(usize, BitSliceMut<'_>, Update<'_, T>),
) {
    // A small call need not write 8 KiB of zeros before it begins.
    let (mut few, mut many) = ([0; FEW / WORD], None);
    let words: &mut [u64] = if update.len() <= FEW {
        &mut few
    } else {
        many.insert([0; CHUNK / WORD])
    };
    let mut at = 0;
    while !update.is_empty() {
        let len = next(at, update.len());
        let (now, later) = update.split_at(len);
        match out.take() {
            Some(all) => {
                let (bits, rest) = all.split_at(len);
                chunk(at, bits, now);
                out = Some(rest);
            }
            None => chunk(at, BitSliceMut::of_words(words, len), now),
        }
        (update, at) = (later, at + len);
    }
}

/// The length of the next chunk of a window that begins at element `first` and has `len` left: to
/// the end of a tile, so that no tile is made twice; or, if that is not at a word of the
/// window's own mask, to the last word before it.
fn chunk_len(first: u64, len: usize) -> usize {
    let to_end_of_tile = CHUNK - (first % TILE as u64) as usize;
    if len <= to_end_of_tile {
        len
    } else {
        to_end_of_tile / WORD * WORD
    }
}
