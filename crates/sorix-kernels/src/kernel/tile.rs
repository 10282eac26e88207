//! The random bits of a tile: mask format v1 with the eight lanes side by side.
//!
//! The scalar definition is [`stream`](crate::stream); this computes the same numbers. A general p
//! costs about ten draws of 512 bits for each block of 512 elements:
//!
//! * The threshold T is compared with 512 random numbers at once, one digit of each at a time, most
//!   significant first. One draw supplies a digit of all 512. Two bit vectors say what is known:
//!   `below`, the numbers that are smaller than T for certain, and `equal`, those that agree with T
//!   so far. A digit 1 of T moves the equal ones that drew 0 to `below`; a digit 0 discards the
//!   equal ones that drew 1. Nothing is compared bit by bit in a loop over elements: a digit costs
//!   two instructions for 512 elements.
//! * Each digit halves the undecided. After nine, one of 512 is left on average, and going on like
//!   this would spend 512 bits on it for each further digit. It is settled by its lane instead: the
//!   64 bits that the lane draws next *are* the further digits of its lowest undecided element, and
//!   one comparison of 64-bit integers decides it. One such draw is always made; in one block of
//!   eighteen it is not enough.
//!
//! The numbers of digits and of rounds balance instructions against mispredicted branches.
//! `fill_mask` for a general p, f32, as a ratio to a copy in the level 2 cache of a Zen 5:
//!
//! | digits at once, then by lanes | draws | not enough | avx512 | avx2 |
//! |---|---|---|---|---|
//! | 7, at least two rounds | 9.1 | 11 % | 0.68 | 2.31 |
//! | 8, as many rounds as it takes | 9.2 | 13 %, 68 %, 17 % for 0, 1, 2 | 0.86 | 2.18 |
//! | 8, at least two rounds | 10.0 | 1.7 % | 0.64 | 2.40 |
//! | **9, at least one round** | 10.1 | 5.6 % | 0.67 | 1.89 |
//!
//! Deciding all of them digit by digit, and looking for the end after 12, takes 12.2 draws.
//! Measure with a mask of its own for every call: a predictor learns one that is made over and over
//! by heart, and the second row is then 0.57.

use core::num::NonZeroU64;

use crate::key::MaskKey;
use crate::mask::{BitSlice, BitSliceMut, WORD};
use crate::simd::{MAX_TILES, Simd};
use crate::stream::{
    BLOCK, DIGITS, LANES, PHILOX_M0, PHILOX_M1, PHILOX_W0, PHILOX_W1, ROUNDS, TILE,
};

/// Other work, a little of which is done after every digit: the processor then has something to do
/// while one step of a generator waits for the one before it.
pub(super) trait Meanwhile {
    /// Does a little of it, if there is any left.
    fn step(&mut self);
}

/// No other work.
pub(super) struct Nothing;

impl Meanwhile for Nothing {
    #[inline(always)]
    fn step(&mut self) {}
}

/// The words of as many tiles as are made at a time, aligned so that no vector of them straddles two cache lines.
#[repr(align(64))]
pub(super) struct TileWords(pub(super) [[u64; LANES]; MAX_TILES * TILE / BLOCK]);

impl TileWords {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self([[0; LANES]; MAX_TILES * TILE / BLOCK])
    }
}

/// The part of a window that is made at a time: what lies in one tile, or two whole ones.
pub(super) struct Part {
    /// The number of the tile, or of the first of the two.
    pub(super) tile: u64,
    /// The part's first element, counted from the start of the tile.
    pub(super) begin: usize,
    /// Where the part ends, counted from the start of the tile.
    pub(super) end: usize,
    /// The part's first element, counted from the start of the window.
    pub(super) at: usize,
}

impl Part {
    /// Nothing of any tile.
    pub(super) const EMPTY: Self = Self {
        tile: 0,
        begin: 0,
        end: 0,
        at: 0,
    };

    /// The number of elements.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.end - self.begin
    }

    /// The words of `out` that are this part's own: where all of its blocks are wanted whole, and
    /// begin at a word.
    #[inline(always)]
    pub(super) fn own_words<'a>(
        &self,
        out: &'a mut BitSliceMut<'_>,
    ) -> Option<&'a mut [[u64; LANES]]> {
        let whole = self.begin == 0 && self.end.is_multiple_of(BLOCK);
        (whole && self.at.is_multiple_of(WORD)).then(|| {
            let words = &mut out.words_mut()[self.at / WORD..][..self.end / WORD];
            words.as_chunks_mut().0
        })
    }

    /// The part's bits, given the blocks from the start of its tile on.
    #[inline(always)]
    pub(super) fn bits<'a>(&self, blocks: &'a [[u64; LANES]]) -> BitSlice<'a> {
        BitSlice::of_words(blocks.as_flattened(), self.begin, self.len())
    }
}

/// The parts of a window of `len` elements from element `first` on.
#[inline(always)]
pub(super) fn parts<S: Simd>(first: u64, len: usize) -> impl Iterator<Item = Part> {
    let mut at = 0;
    core::iter::from_fn(move || {
        // The caller checked that no index of the window exceeds 64 bits; only the index after the
        // last one may, and it is not used.
        let next = first.wrapping_add(at as u64);
        let begin = (next % TILE as u64) as usize;
        let several = begin == 0 && len - at >= S::TILES * TILE;
        let most = if several {
            S::TILES * TILE
        } else {
            TILE - begin
        };
        let part_len = most.min(len - at);
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

/// The generators of `N` consecutive tiles, eight lanes of xoshiro256++ each.
///
/// Every step of a generator waits for the one before it. Two side by side fill each other's gaps,
/// where the instruction set has the registers for it: [`Simd::TILES`].
pub(super) struct TileBits<S: Simd, const N: usize> {
    simd: S,
    states: [[S::Words; 4]; N],
}

impl<S: Simd, const N: usize> TileBits<S, N> {
    /// As [`TileStream::new`](crate::stream::TileStream::new), for tiles `tile` to `tile + N - 1`.
    #[inline(always)]
    pub(super) fn new(simd: S, key: MaskKey, tile: u64) -> Self {
        let odd = simd.load_words(&[1, 3, 5, 7, 9, 11, 13, 15]);
        let mut states = [[odd; 4]; N];
        for (n, state) in states.iter_mut().enumerate() {
            let w = simd.add(simd.splat(16 * (tile + n as u64)), odd);
            let [[s0, s1], [s3, _]] = philox4x32(simd, key, [w, simd.sub(w, simd.splat(1))]);
            *state = [s0, s1, w, s3];
        }
        Self { simd, states }
    }

    /// One output of every lane of tile `n`.
    #[inline(always)]
    fn draw(&mut self, n: usize) -> S::Words {
        let simd = self.simd;
        let [s0, s1, s2, s3] = self.states[n];
        let output = simd.add(simd.rotate(simd.add(s0, s3), 23), s0);
        // The authors' sequence of updates, each written in terms of the old state.
        self.states[n] = [
            simd.xor3(s0, s1, s3),
            simd.xor3(s0, s1, s2),
            simd.xor3(s0, s2, simd.shl(s1, 17)),
            simd.rotate(simd.xor(s1, s3), 45),
        ];
        output
    }

    /// The next block of each tile, as [`TileStream::block`](crate::stream::TileStream::block).
    ///
    /// Takes a step of `meanwhile` after every digit.
    #[inline(always)]
    pub(super) fn blocks(
        &mut self,
        threshold: NonZeroU64,
        meanwhile: &mut impl Meanwhile,
    ) -> [S::Words; N] {
        let simd = self.simd;
        let mut rest = threshold.get();
        let mut below = [simd.splat(0); N];
        let mut equal = [simd.splat(u64::MAX); N];
        for _ in 0..DIGITS {
            for n in 0..N {
                let u = self.draw(n);
                if rest >> 63 == 1 {
                    below[n] = simd.or_and_not(below[n], equal[n], u);
                    equal[n] = simd.and(equal[n], u);
                } else {
                    equal[n] = simd.and_not(equal[n], u);
                }
                meanwhile.step();
            }
            rest <<= 1;
            // The digits that remain when none is 1 decide nothing: what is equal so far is not
            // below.
            if rest == 0 {
                return below;
            }
        }
        for _ in 0..ROUNDS {
            for n in 0..N {
                self.settle(n, rest, &mut below[n], &mut equal[n]);
            }
        }
        for n in 0..N {
            while !simd.all_zero(equal[n]) {
                self.settle(n, rest, &mut below[n], &mut equal[n]);
            }
        }
        below
    }

    /// Decides the lowest undecided element of each lane of tile `n` by the remaining digits.
    #[inline(always)]
    fn settle(&mut self, n: usize, rest: u64, below: &mut S::Words, equal: &mut S::Words) {
        let simd = self.simd;
        let u = self.draw(n);
        let others = simd.and(*equal, simd.sub(*equal, simd.splat(1)));
        let lowest = simd.xor(*equal, others);
        *below = simd.or(*below, simd.where_less(u, simd.splat(rest), lowest));
        *equal = others;
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
            *c0 = simd.xor3(simd.shr(p1, 32), *c1, *k0);
            *c1 = p1;
            *c2 = simd.xor3(simd.shr(p0, 32), *c3, *k1);
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
