//! The random words that masks are made of: [`Lane`] and the block cipher that seeds it.

use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::key::MaskKey;

/// A stream of random words of a key: xoshiro256++ in a state that no other lane has.
///
/// ```
/// use sorix_kernels::MaskKey;
/// use sorix_kernels::internal::Lane;
/// use sorix_kernels::stream::TileStream;
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
    /// Masks have the lanes below 2^53. The others are there for random numbers of another kind, which
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

/// Philox4x32 with ten rounds (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
/// 1, 2, 3", 2011): a bijection of the 128-bit counter for each 64-bit key. Words are given and
/// returned in pairs, the lower half of a `u64` first.
///
/// ```
/// use sorix_kernels::internal::philox4x32;
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
