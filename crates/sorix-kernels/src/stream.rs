//! Mask format v1, the scalar definition: which elements a key keeps.
//!
//! `docs/mask-format.md` is the normative text; this is the same in Rust, with the generator taken
//! from `rand_xoshiro` and no thought for speed. The [reference](mod@crate::reference) is built on it,
//! and every backend is tested against the reference.

use core::num::NonZeroU64;

use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::key::MaskKey;

/// Elements in a tile: the unit of random access. Making any bit of a tile costs a whole seeding
/// and the bits before it.
pub const TILE: usize = 8192;

/// Elements that are decided together: eight words, one per lane of the generator.
pub const BLOCK: usize = 512;

/// Lanes of the generator: independent xoshiro256++ streams side by side.
pub const LANES: usize = 8;

/// Digits of the threshold that are compared one at a time, for all elements of a block at once.
pub const DIGITS: usize = 9;

/// Draws after the digits, at least, in each of which every lane settles one element.
pub const ROUNDS: usize = 1;

/// A stream of random words of a key: xoshiro256++ in a state that no other lane has.
///
/// ```
/// use sorix_kernels::MaskKey;
/// use sorix_kernels::stream::{Lane, TileStream};
/// // Lane 3 of tile 2 of a mask.
/// let key = MaskKey::new(42, 7);
/// assert_eq!(Lane::new(key, 8 * 2 + 3).draw(), TileStream::new(key, 2).draw()[3]);
/// ```
#[derive(Clone, Debug)]
pub struct Lane(Xoshiro256PlusPlus);

impl Lane {
    /// Lane number `number`, which is below 2^63; numbers from there on begin again at 0.
    ///
    /// It is keyed by the odd number `w = 2 number + 1`. With P(k) the Philox4x32-10 block of counter
    /// (seed, offset) under key k, its state is s0, s1 = P(w), s2 = w, and s3 the lower half of
    /// P(w - 1). w can be read off the state, and given w, P can be undone: distinct
    /// (seed, offset, number) have distinct states, none of them zero.
    ///
    /// Masks have the lanes below 2^54. The others are there for random numbers of another kind, which
    /// have nothing to do with the masks of their key then.
    #[must_use]
    pub fn new(key: MaskKey, number: u64) -> Self {
        let w = number << 1 | 1;
        let [s0, s1] = philox4x32([key.seed, key.offset], w);
        let [s3, _] = philox4x32([key.seed, key.offset], w - 1);
        let mut state = [0; 32];
        for (bytes, word) in state.chunks_exact_mut(8).zip([s0, s1, w, s3]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Self(Xoshiro256PlusPlus::from_seed(state))
    }

    /// The next 64 bits.
    #[inline]
    pub fn draw(&mut self) -> u64 {
        self.0.next_u64()
    }
}

/// The random bits of one tile: eight lanes.
#[derive(Clone, Debug)]
pub struct TileStream {
    lanes: [Lane; LANES],
}

impl TileStream {
    /// The stream of tile number `tile` (elements `8192 tile` to `8192 tile + 8191`): [lanes](Lane)
    /// `8 tile` to `8 tile + 7`.
    ///
    /// The last tile of a mask is number 2^51 - 1; numbers from 2^60 on begin again at 0.
    #[must_use]
    pub fn new(key: MaskKey, tile: u64) -> Self {
        let first = tile.wrapping_mul(LANES as u64);
        Self {
            lanes: core::array::from_fn(|lane| Lane::new(key, first.wrapping_add(lane as u64))),
        }
    }

    /// One 64-bit output of every lane.
    pub fn draw(&mut self) -> [u64; LANES] {
        core::array::from_fn(|lane| self.lanes[lane].draw())
    }

    /// The next 512 keep bits: element `64 l + b` of the block is bit `b` of word `l`.
    ///
    /// Each element compares a random number, drawn digit by digit, with the threshold, most
    /// significant digit first, and is decided at the first digit that differs. The first nine
    /// digits are compared for all 512 at once, a digit a draw. The element or so that is undecided
    /// after them compares the 55 remaining digits at once with the bits of one 64-bit draw: each
    /// lane settles its lowest undecided element, once, and again until none is left.
    pub fn block(&mut self, threshold: NonZeroU64) -> [u64; LANES] {
        let threshold = threshold.get();
        let mut below = [0; LANES];
        let mut equal = [u64::MAX; LANES];
        let mut rest = threshold;
        for _ in 0..DIGITS {
            if rest == 0 {
                // The digits that remain are all zero: nothing equal so far is below.
                return below;
            }
            let draw = self.draw();
            for lane in 0..LANES {
                let u = draw[lane];
                if rest >> 63 == 1 {
                    below[lane] |= equal[lane] & !u;
                    equal[lane] &= u;
                } else {
                    equal[lane] &= !u;
                }
            }
            rest <<= 1;
        }
        if rest == 0 {
            return below;
        }
        let mut rounds = 0;
        while rounds < ROUNDS || equal != [0; LANES] {
            rounds += 1;
            let draw = self.draw();
            for lane in 0..LANES {
                let lowest = equal[lane] & equal[lane].wrapping_neg();
                if draw[lane] < rest {
                    below[lane] |= lowest;
                }
                equal[lane] ^= lowest;
            }
        }
        below
    }
}

/// Philox4x32 with ten rounds (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
/// 1, 2, 3", 2011): a bijection of the 128-bit counter for each 64-bit key. Words are given and
/// returned in pairs, the lower half of a `u64` first.
///
/// ```
/// use sorix_kernels::stream::philox4x32;
/// // Random123's published vector for a zero counter and key.
/// assert_eq!(philox4x32([0, 0], 0), [0xe169c58d_6627e8d5, 0x9b00dbd8_bc57ac4c]);
/// ```
#[must_use]
pub fn philox4x32(counter: [u64; 2], key: u64) -> [u64; 2] {
    let halves = |x: u64| [x as u32, (x >> 32) as u32];
    let product = |a: u32, b: u32| halves(u64::from(a) * u64::from(b));
    let ([mut c0, mut c1], [mut c2, mut c3]) = (halves(counter[0]), halves(counter[1]));
    let [mut k0, mut k1] = halves(key);
    for _ in 0..10 {
        let [low0, high0] = product(PHILOX_M0, c0);
        let [low1, high1] = product(PHILOX_M1, c2);
        (c0, c1, c2, c3) = (high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0);
        k0 = k0.wrapping_add(PHILOX_W0);
        k1 = k1.wrapping_add(PHILOX_W1);
    }
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    [join(c0, c1), join(c2, c3)]
}

/// Philox4x32's multiplier of counter word 0.
pub(crate) const PHILOX_M0: u32 = 0xD251_1F53;
/// Philox4x32's multiplier of counter word 2.
pub(crate) const PHILOX_M1: u32 = 0xCD9E_8D57;
/// What a round adds to key word 0.
pub(crate) const PHILOX_W0: u32 = 0x9E37_79B9;
/// What a round adds to key word 1.
pub(crate) const PHILOX_W1: u32 = 0xBB67_AE85;
