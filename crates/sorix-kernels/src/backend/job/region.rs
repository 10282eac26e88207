//! The bits of a region whose runs are apart, and the elements that they decide.
//!
//! Backends make windows. A few tiles at a time are made as one, and the runs that fall into them
//! are cut out and put together: a tile is made once for all of its runs. Tiles between distant runs
//! are not made.

use super::compose::{CHUNK, apply_chunk, in_chunks};
use super::{Apply, FillMask, Update};
use crate::element::Element;
use crate::keep::KeepRule;
use crate::mask::{BitSlice, BitSliceMut, WORD};
use crate::region::Strided;
use crate::stream::TILE;

/// Write the bits of a part of a region.
#[derive(Debug)]
pub(crate) struct FillRegion<'a> {
    pub(super) region: Strided,
    /// The region's element that `out` begins with.
    pub(super) first: usize,
    pub(super) rule: &'a KeepRule,
    pub(super) out: BitSliceMut<'a>,
}

impl<'a> FillRegion<'a> {
    /// The job for the elements of a region from `first` on, whose number was checked.
    pub(crate) fn new(
        region: Strided,
        first: usize,
        rule: &'a KeepRule,
        out: BitSliceMut<'a>,
    ) -> Self {
        Self {
            region,
            first,
            rule,
            out,
        }
    }

    /// Does the job by means of `fill`, which makes windows.
    pub(crate) fn compose(self, mut fill: impl FnMut(FillMask<'_>)) {
        let Self {
            region,
            first,
            rule,
            mut out,
        } = self;
        let len = out.len();
        if len == 0 {
            return;
        }
        let last = region.index(first + len - 1);
        let (mut index, mut run) = region.run_at(first);
        let mut words = [0; CHUNK / WORD];
        // What is made: so many bits, from this one of the whole mask on.
        let (mut made, mut made_len) = (0, 0);
        let mut at = 0;
        while at < len {
            let mut within = index.wrapping_sub(made);
            if within >= made_len {
                made = index / TILE as u64 * TILE as u64;
                within = index - made;
                // If the next run is near, some run falls into every tile.
                let end = if region.gap() < TILE as u64 {
                    last
                } else {
                    last.min(index.saturating_add(run - 1))
                };
                made_len = (end - made).saturating_add(1).min(CHUNK as u64);
                fill(FillMask {
                    window: region.key.window(made),
                    rule,
                    out: BitSliceMut::of_words(&mut words, made_len as usize),
                });
            }
            let n = run.min(made_len - within).min((len - at) as u64);
            let bits = BitSlice::of_words(&words, within as usize, n as usize);
            out.write(at, bits);
            (at, index, run) = (at + n as usize, index.wrapping_add(n), run - n);
            if run == 0 {
                (index, run) = (index.wrapping_add(region.gap()), region.run());
            }
        }
    }
}

/// Make the bits of a part of a region and apply them: [`Dropout`](super::Dropout) for runs that are
/// apart.
#[derive(Debug)]
pub(crate) struct DropoutRegion<'a, T: Element> {
    pub(super) region: Strided,
    /// The region's element that the buffers begin with.
    pub(super) first: usize,
    pub(super) rule: &'a KeepRule,
    pub(super) update: Update<'a, T>,
    pub(super) out: Option<BitSliceMut<'a>>,
}

impl<'a, T: Element> DropoutRegion<'a, T> {
    /// The job for a whole region, whose length was checked.
    pub(crate) fn new(
        region: Strided,
        rule: &'a KeepRule,
        update: Update<'a, T>,
        out: Option<BitSliceMut<'a>>,
    ) -> Self {
        Self {
            region,
            first: 0,
            rule,
            update,
            out,
        }
    }

    /// Does the job: `fill` makes the bits of windows, `apply` applies bits.
    pub(crate) fn compose(
        self,
        mut fill: impl FnMut(FillMask<'_>),
        mut apply: impl FnMut(Apply<'_, T>),
    ) {
        let Self {
            region,
            first,
            rule,
            update,
            out,
        } = self;
        let next = |_, left: usize| left.min(CHUNK);
        in_chunks(update, out, next, |at, mut out, update| {
            let bits = FillRegion {
                region,
                first: first + at,
                rule,
                out: out.reborrow(),
            };
            bits.compose(&mut fill);
            apply_chunk(out, update, &mut apply);
        });
    }
}
