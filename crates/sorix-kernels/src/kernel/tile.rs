//! The random bits of a tile: mask format v1 with the eight lanes side by side.
//!
//! The scalar definition is [`stream`](crate::stream); this computes the same numbers. A general p
//! costs about nine draws of 512 bits for each block of 512 elements:
//!
//! * The threshold T is compared with 512 random numbers at once, one digit of each at a time, most
//!   significant first. One draw supplies a digit of all 512. Two bit vectors say what is known:
//!   `below`, the numbers that are smaller than T for certain, and `equal`, those that agree with T
//!   so far. A digit 1 of T moves the equal ones that drew 0 to `below`; a digit 0 discards the
//!   equal ones that drew 1. Nothing is compared bit by bit in a loop over elements: a digit costs
//!   two instructions for 512 elements.
//! * Each digit halves the undecided. After eight, two of 512 are left on average, and going on
//!   like this would spend 512 bits on them for each further digit. They are settled one per lane
//!   instead: the 64 bits that the lane draws next *are* the further digits of its lowest undecided
//!   element, and one comparison of 64-bit integers decides it. Four times in five one such draw
//!   settles the block.
//!
//! The number of digits balances the two. Instructions of the AVX-512 form per block, predicted
//! from the probabilities, with a mispredicted branch put at 30 instructions:
//!
//! | digits at once, then by lanes | draws | instructions | of it mispredictions |
//! |---|---|---|---|
//! | 7, at least two rounds | 9.1 | 119 | 3 |
//! | **8, at least one round** | 9.2 | 120 | 6 |
//! | 9, at least one round | 10.1 | 126 | 2 |
//! | all, checking for the end after 12 | 12.2 | 151 | 4 |

use core::num::NonZeroU64;

use crate::key::MaskKey;
use crate::simd::Simd;
use crate::stream::{BLOCK, DIGITS, LANES, PHILOX_M0, PHILOX_M1, PHILOX_W0, PHILOX_W1, TILE};

/// Something to do between the steps of the generator.
///
/// Each step waits for the one before it, so a CPU that executes out of order has room for other
/// work, if it finds it close by in the program.
pub(super) trait Work<S: Simd> {
    /// Does part `i` of [`DIGITS`]; each is asked for once, in order.
    fn step(&mut self, simd: S, i: usize);
}

/// Nothing to do.
impl<S: Simd> Work<S> for () {
    #[inline(always)]
    fn step(&mut self, _: S, _: usize) {}
}

/// The words of a tile, aligned so that no vector of them straddles two cache lines.
#[repr(align(64))]
pub(super) struct TileWords(pub(super) [[u64; LANES]; TILE / BLOCK]);

impl TileWords {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self([[0; LANES]; TILE / BLOCK])
    }
}

/// The part of a window that lies in one tile.
pub(super) struct Part {
    /// The number of the tile.
    pub(super) tile: u64,
    /// The part's first element, counted from the start of the tile.
    pub(super) begin: usize,
    /// Where the part ends, counted from the start of the tile.
    pub(super) end: usize,
    /// The part's first element, counted from the start of the window.
    pub(super) at: usize,
}

impl Part {
    /// How many blocks at the start of the tile are wanted whole.
    #[inline(always)]
    pub(super) fn whole_blocks(&self) -> usize {
        if self.begin == 0 { self.end / BLOCK } else { 0 }
    }
}

/// The tiles of a window of `len` elements from element `first` on.
#[inline(always)]
pub(super) fn parts(first: u64, len: usize) -> impl Iterator<Item = Part> {
    let mut at = 0;
    core::iter::from_fn(move || {
        // The caller checked that no index of the window exceeds 64 bits; only the index after the
        // last one may, and it is not used.
        let next = first.wrapping_add(at as u64);
        let begin = (next % TILE as u64) as usize;
        let part_len = (TILE - begin).min(len - at);
        let part = Part {
            tile: next / TILE as u64,
            begin,
            end: begin + part_len,
            at,
        };
        at += part_len;
        (part_len > 0).then_some(part)
    })
}

/// The generator of one tile: eight lanes of xoshiro256++.
pub(super) struct TileBits<S: Simd> {
    simd: S,
    state: [S::Words; 4],
}

impl<S: Simd> TileBits<S> {
    /// As [`TileStream::new`](crate::stream::TileStream::new).
    #[inline(always)]
    pub(super) fn new(simd: S, key: MaskKey, tile: u64) -> Self {
        let w = simd.load_words(&[1, 3, 5, 7, 9, 11, 13, 15]);
        let w = simd.add(simd.splat(16 * tile), w);
        let [[s0, s1], [s3, _]] = philox4x32(simd, key, [w, simd.sub(w, simd.splat(1))]);
        Self {
            simd,
            state: [s0, s1, w, s3],
        }
    }

    /// One output of every lane.
    #[inline(always)]
    fn draw(&mut self) -> S::Words {
        let simd = self.simd;
        let [s0, s1, s2, s3] = self.state;
        let output = simd.add(simd.rotate(simd.add(s0, s3), 23), s0);
        let t = simd.shl(s1, 17);
        let s2 = simd.xor(s2, s0);
        let s3 = simd.xor(s3, s1);
        let s1 = simd.xor(s1, s2);
        let s0 = simd.xor(s0, s3);
        let s2 = simd.xor(s2, t);
        let s3 = simd.rotate(s3, 45);
        self.state = [s0, s1, s2, s3];
        output
    }

    /// As [`TileStream::block`](crate::stream::TileStream::block).
    #[inline(always)]
    pub(super) fn block(&mut self, threshold: NonZeroU64, work: &mut impl Work<S>) -> S::Words {
        let simd = self.simd;
        let mut rest = threshold.get();
        let mut below = simd.splat(0);
        let mut equal = simd.splat(u64::MAX);
        for i in 0..DIGITS {
            // The digits that remain when none is 1 decide nothing: what is equal so far is not
            // below.
            if rest != 0 {
                let u = self.draw();
                if rest >> 63 == 1 {
                    below = simd.or(below, simd.and_not(equal, u));
                    equal = simd.and(equal, u);
                } else {
                    equal = simd.and_not(equal, u);
                }
                rest <<= 1;
            }
            work.step(simd, i);
        }
        if rest == 0 {
            return below;
        }
        while !simd.all_zero(equal) {
            let u = self.draw();
            let others = simd.and(equal, simd.sub(equal, simd.splat(1)));
            let lowest = simd.xor(equal, others);
            below = simd.or(below, simd.where_less(u, simd.splat(rest), lowest));
            equal = others;
        }
        below
    }
}

/// Philox4x32-10 of counter (seed, offset), for two sets of keys with one key for each lane.
///
/// Every 64-bit lane holds one 32-bit word. The words that are only multiplied may have anything in
/// their upper halves, since the product looks at the lower ones, which saves most of the masking.
#[inline(always)]
fn philox4x32<S: Simd>(simd: S, key: MaskKey, keys: [S::Words; 2]) -> [[S::Words; 2]; 2] {
    let (m0, m1) = (simd.splat(PHILOX_M0.into()), simd.splat(PHILOX_M1.into()));
    let (w0, w1) = (simd.splat(PHILOX_W0.into()), simd.splat(PHILOX_W1.into()));
    let (seed, seed_high) = (simd.splat(key.seed), simd.splat(key.seed >> 32));
    let (offset, offset_high) = (simd.splat(key.offset), simd.splat(key.offset >> 32));
    let mut counters = [[seed, seed_high, offset, offset_high]; 2];
    let mut keys = [
        [keys[0], simd.shr(keys[0], 32)],
        [keys[1], simd.shr(keys[1], 32)],
    ];
    for _ in 0..10 {
        for ([c0, c1, c2, c3], [k0, k1]) in counters.iter_mut().zip(&mut keys) {
            let p0 = simd.mul_low_halves(*c0, m0);
            let p1 = simd.mul_low_halves(*c2, m1);
            *c0 = simd.xor(simd.xor(simd.shr(p1, 32), *c1), *k0);
            *c1 = p1;
            *c2 = simd.xor(simd.xor(simd.shr(p0, 32), *c3), *k1);
            *c3 = p0;
            *k0 = simd.add(*k0, w0);
            *k1 = simd.add(*k1, w1);
        }
    }
    let [[a0, a1, a2, a3], [b0, b1, b2, b3]] = counters;
    [
        [join_halves(simd, a0, a1), join_halves(simd, a2, a3)],
        [join_halves(simd, b0, b1), join_halves(simd, b2, b3)],
    ]
}

/// The lower halves of `low` and of `high`, put together.
#[inline(always)]
fn join_halves<S: Simd>(simd: S, low: S::Words, high: S::Words) -> S::Words {
    simd.or(
        simd.and(low, simd.splat(u32::MAX.into())),
        simd.shl(high, 32),
    )
}
