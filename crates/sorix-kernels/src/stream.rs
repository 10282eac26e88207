//! Mask format v1, the scalar definition: which elements a key keeps.
//!
//! `docs/mask-format.md` is the normative text; this is the same in Rust, with the generator taken
//! from `rand_xoshiro` and no thought for speed. The [reference](mod@crate::backend::reference) is built on it,
//! and every backend is tested against the reference.

use core::cmp::Ordering;
use core::num::NonZeroU64;
use std::collections::VecDeque;

use crate::key::MaskKey;
use crate::lane::Lane;
pub(crate) use crate::lane::{PHILOX_M0, PHILOX_M1, PHILOX_W0, PHILOX_W1};

/// Elements in a tile: the unit of random access. Making any bit of a tile costs a whole seeding
/// and the bits before it.
pub const TILE: usize = 16384;

/// Elements that are decided together: eight words, one per lane of the generator.
pub const BLOCK: usize = 512;

/// Lanes of the generator: independent xoshiro256++ streams side by side.
pub const LANES: usize = 8;

/// A threshold whose last binary digit 1 is among the first so many of its 64 is compared digit by
/// digit; any other decides four elements at a time.
pub const DIGITS: usize = 4;

/// The random bits of one tile: eight lanes.
#[derive(Clone, Debug)]
pub struct TileStream {
    lanes: [Lane; LANES],
}

impl TileStream {
    /// The stream of tile number `tile` (elements `TILE tile` to `TILE tile + TILE - 1`): lanes
    /// `8 tile` to `8 tile + 7` of the key.
    ///
    /// The last tile of a mask is number 2^64 / `TILE` - 1; numbers from 2^60 on begin again at 0.
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
    /// All blocks of a tile are made by one law, in order.
    ///
    /// ```
    /// use core::num::NonZeroU64;
    /// use sorix_kernels::MaskKey;
    /// use sorix_kernels::stream::{Law, TileStream};
    ///
    /// // p = 0.1, tile 0 of the mask with seed 42 and offset 7.
    /// let law = Law::new(NonZeroU64::new(0xe666_6666_6666_6600).unwrap());
    /// let mut tile = TileStream::new(MaskKey::new(42, 7), 0);
    /// assert_eq!(tile.block(&law)[..2], [0xffff_ffbf_ffee_feff, 0xffff_ffff_bfff_bfbd]);
    /// assert_eq!(tile.block(&law)[..2], [0xbff7_ffff_ffff_ffbb, 0xffff_f7bf_ee7f_ff5f]);
    /// ```
    pub fn block(&mut self, law: &Law) -> [u64; LANES] {
        law.block(|| self.draw())
    }
}

/// What makes the bits of a block from random words, for one threshold T: each element is kept with
/// probability T / 2^64.
///
/// If the last digit 1 of T is among the first [`DIGITS`], all 512 elements compare a random number
/// each with T, digit by digit. Any other T decides four neighbouring elements, a *nibble*, at a time,
/// by an [`AliasTable`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Law(Rule);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Digits(NonZeroU64),
    Nibbles(AliasTable),
}

impl Law {
    /// The law of a threshold.
    ///
    /// ```
    /// use core::num::NonZeroU64;
    /// use sorix_kernels::stream::Law;
    ///
    /// let law = |threshold| Law::new(NonZeroU64::new(threshold).unwrap());
    /// // 1/2, 3/4 and 9/16 have a digit, two and four.
    /// assert_eq!(law(1 << 63).draws(), 1);
    /// assert_eq!(law(3 << 62).draws(), 2);
    /// assert_eq!(law(9 << 60).draws(), 4);
    /// assert_eq!(law(9 << 60).table(), None);
    /// // 17/32 has five: too many.
    /// assert!(law(17 << 59).table().is_some());
    /// ```
    #[must_use]
    pub fn new(threshold: NonZeroU64) -> Self {
        Self(if digits(threshold) <= DIGITS {
            Rule::Digits(threshold)
        } else {
            Rule::Nibbles(AliasTable::new(threshold))
        })
    }

    /// The table, if the law has one.
    #[must_use]
    pub fn table(&self) -> Option<&AliasTable> {
        match &self.0 {
            Rule::Digits(_) => None,
            Rule::Nibbles(table) => Some(table),
        }
    }

    /// How many draws a block takes: exactly so many if the law has no table. With one, a block in
    /// 343 takes more.
    #[must_use]
    pub fn draws(&self) -> usize {
        match &self.0 {
            Rule::Digits(threshold) => digits(*threshold),
            Rule::Nibbles(_) => 4,
        }
    }

    /// The 512 keep bits that come of the words that `draw` returns, one of each lane a call.
    ///
    /// ```
    /// use core::num::NonZeroU64;
    /// use sorix_kernels::stream::Law;
    ///
    /// // T / 2^64 = 1/4: kept if the first digit of the random number is 0 and the second too.
    /// let law = Law::new(NonZeroU64::new(1 << 62).unwrap());
    /// let mut draws = [[0b0011; 8], [0b0101; 8]].into_iter();
    /// assert_eq!(law.block(|| draws.next().unwrap()), [!0b0111; 8]);
    /// ```
    pub fn block(&self, draw: impl FnMut() -> [u64; LANES]) -> [u64; LANES] {
        match &self.0 {
            Rule::Digits(threshold) => block_by_digits(*threshold, draw),
            Rule::Nibbles(table) => table.block(draw),
        }
    }
}

/// The number of the last binary digit 1 of a threshold; the most significant digit is number 1.
fn digits(threshold: NonZeroU64) -> usize {
    64 - threshold.trailing_zeros() as usize
}

/// Each element compares a random number, a digit of which is drawn at a time, with the threshold,
/// and is decided at the first digit that differs.
fn block_by_digits(threshold: NonZeroU64, mut draw: impl FnMut() -> [u64; LANES]) -> [u64; LANES] {
    let mut below = [0; LANES];
    let mut equal = [u64::MAX; LANES];
    for digit in 1..=digits(threshold) {
        let u = draw();
        for lane in 0..LANES {
            if threshold.get() >> (64 - digit) & 1 == 1 {
                below[lane] |= equal[lane] & !u[lane];
                equal[lane] &= u[lane];
            } else {
                equal[lane] &= !u[lane];
            }
        }
    }
    // The digits that remain are all zero: nothing equal so far is below.
    below
}

/// How four elements are decided at once: an alias table (Walker, "New fast method for generating
/// discrete random numbers with arbitrary frequency distributions", 1974; Vose, "A linear algorithm
/// for generating random numbers with a given distribution", 1991).
///
/// A nibble takes one of 16 columns, each as likely as any other, and a uniform number u of 64 bits.
/// Its result is the column itself if `u < limit[column]`, and `alias[column]` otherwise. So each of
/// the 16 results is as likely as its weight says, a number of 2^68 cases.
///
/// ```
/// use core::num::NonZeroU64;
/// use sorix_kernels::stream::{AliasTable, Law};
///
/// // p = 0.1
/// let law = Law::new(NonZeroU64::new(0xe666_6666_6666_6600).unwrap());
/// let AliasTable { limit, alias } = law.table().unwrap();
/// assert_eq!(*limit, [
///     0x0068_db8b_ac71_0cbd, 0x03af_b7e9_0ff9_7271, 0x03af_b7e9_0ff9_7271, 0x212d_7731_8fc5_056d,
///     0x03af_b7e9_0ff9_7271, 0x212d_7731_8fc5_056d, 0x212d_7731_8fc5_056d, 0x2b02_0c49_ba5e_3866,
///     0x03af_b7e9_0ff9_7271, 0x212d_7731_8fc5_056d, 0x212d_7731_8fc5_056d, 0x2e48_e8a7_1de6_9e1a,
///     0x212d_7731_8fc5_056d, 0x2e48_e8a7_1de6_9e1a, 0x4bc6_a7ef_9db2_3116, 0x0000_0000_0000_0000,
/// ]);
/// assert_eq!(*alias, [7, 11, 13, 14, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasTable {
    /// Below this number, the result is the column; 0 for a column that is full.
    pub limit: [u64; 16],
    /// The result otherwise. A full column has itself.
    pub alias: [u8; 16],
}

/// A nibble that the first draws leave open.
struct Open {
    nibble: usize,
    column: usize,
    /// How many bits of u were looked at, all equal to those of the limit.
    used: u32,
}

impl AliasTable {
    fn new(threshold: NonZeroU64) -> Self {
        const COLUMN: u128 = 1 << 64;
        let weights = weights(threshold);
        let mut rest: [u128; 16] =
            core::array::from_fn(|value| weights[value.count_ones() as usize]);
        let mut limit = [0; 16];
        let mut alias = core::array::from_fn(|column| column as u8);
        let (mut small, mut large): (VecDeque<_>, VecDeque<_>) =
            (0..16).partition(|&column| rest[column] < COLUMN);
        while let Some(s) = small.pop_front() {
            // What is in the queues has 2^64 a column on average, so not all of it is small.
            let l = large[0];
            limit[s] = rest[s] as u64;
            alias[s] = l as u8;
            rest[l] -= COLUMN - rest[s];
            if rest[l] < COLUMN {
                large.pop_front();
                small.push_back(l);
            }
        }
        Self { limit, alias }
    }

    fn block(&self, mut draw: impl FnMut() -> [u64; LANES]) -> [u64; LANES] {
        let [i, a, b, c] = [draw(), draw(), draw(), draw()];
        let mut words = [0; LANES];
        let mut open: [VecDeque<Open>; LANES] = Default::default();
        for lane in 0..LANES {
            let first_bytes = [a[lane].to_le_bytes(), b[lane].to_le_bytes()];
            let second_bytes = c[lane].to_le_bytes();
            for byte in 0..8 {
                // The nibble in the lower half of the byte, and that in the upper half.
                let nibbles = [2 * byte, 2 * byte + 1];
                let columns = nibbles.map(|nibble| (i[lane] >> (4 * nibble) & 15) as usize);
                let firsts =
                    [0, 1].map(|half| self.compare(columns[half], 0, first_bytes[half][byte]));
                let both_tie = firsts == [None, None];
                for half in 0..2 {
                    let (nibble, column) = (nibbles[half], columns[half]);
                    let (result, used) = match firsts[half] {
                        None if !both_tie => (self.compare(column, 1, second_bytes[byte]), 16),
                        first => (first, 8),
                    };
                    match result {
                        Some(value) => words[lane] |= (value as u64) << (4 * nibble),
                        None => open[lane].push_back(Open {
                            nibble,
                            column,
                            used,
                        }),
                    }
                }
            }
        }
        while open.iter().any(|open| !open.is_empty()) {
            let u = draw();
            for lane in 0..LANES {
                if let Some(lowest) = open[lane].pop_front() {
                    let Open {
                        nibble,
                        column,
                        used,
                    } = lowest;
                    let value = if u[lane] < self.limit[column] << used {
                        column
                    } else {
                        self.alias[column].into()
                    };
                    words[lane] |= (value as u64) << (4 * nibble);
                }
            }
        }
        words
    }

    /// The result of a nibble in `column`, where byte `place` of u, the most significant one being
    /// number 0, is the first that may differ from the limit's; `None` if it does not.
    fn compare(&self, column: usize, place: usize, byte: u8) -> Option<usize> {
        match byte.cmp(&self.limit[column].to_be_bytes()[place]) {
            Ordering::Less => Some(column),
            Ordering::Equal => None,
            Ordering::Greater => Some(self.alias[column].into()),
        }
    }
}

/// How many of 2^68 cases a value of four bits has that keeps none, one, ... four of its elements.
///
/// With D = 2^64 - T, a value that keeps k has about T^k D^(4-k) / 2^188. Those of one, two and three
/// are rounded down. The others are what is left, so that all 16 values together have 2^68 cases, and
/// those that keep a given element 16 T, exactly.
fn weights(threshold: NonZeroU64) -> [u128; 5] {
    let t = threshold.get();
    let d = t.wrapping_neg();
    let [w1, w2, w3] = [[t, d, d, d], [t, t, d, d], [t, t, t, d]].map(product_over_2_pow_188);
    let [t, d] = [t, d].map(u128::from);
    [
        16 * d - 3 * w1 - 3 * w2 - w3,
        w1,
        w2,
        w3,
        16 * t - w1 - 3 * w2 - 3 * w3,
    ]
}

/// The product of four numbers divided by 2^188, rounded down.
fn product_over_2_pow_188(factors: [u64; 4]) -> u128 {
    // 256 bits, in digits of 64 bits, the least significant first.
    let mut product = [1, 0, 0, 0];
    for factor in factors {
        let mut carry = 0;
        for digit in &mut product {
            let sum = u128::from(*digit) * u128::from(factor) + carry;
            *digit = sum as u64;
            carry = sum >> 64;
        }
    }
    // 188 = 2 * 64 + 60.
    u128::from(product[3]) << 4 | u128::from(product[2] >> 60)
}
