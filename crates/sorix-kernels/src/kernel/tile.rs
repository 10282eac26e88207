//! The random bits of a tile: mask format v1 with the eight lanes side by side.
//!
//! The scalar definition is [`stream`](crate::stream); this computes the same numbers. A general p
//! costs four draws of 512 bits for each block of 512 elements:
//!
//! * Keep bits are made four at a time, a *nibble*, by an alias table of sixteen columns, which fits
//!   a register. The first draw is 128 random columns, four bits each. Two more are a random byte for
//!   each, which is compared with the first byte of the column's threshold: below it the nibble *is*
//!   the column, above it the column's alias. Thresholds and aliases are looked up by one byte
//!   shuffle each, 64 columns at a time.
//! * One nibble in some 270 has a byte equal to its threshold's, so that the next byte decides. The
//!   fourth draw is that byte, one for the two nibbles of a byte, and is drawn whether or not it is
//!   needed: there are 128 nibbles in a block, so a branch would be a coin toss.
//! * What is then still open, a nibble whose second byte ties, too, or two ties in one byte, is in
//!   one block of some 370. These are settled one by one in scalar code, which asks for further draws.
//!
//! A threshold of few digits is compared with 512 random numbers digit by digit, most significant
//! first, for a draw a digit. Two bit vectors say what is known: `below`, the numbers that are smaller
//! for certain, and `equal`, those that agree with the threshold so far.
//!
//! Tried before, and slower: nine digits one by one and then the undecided lane by lane (10.1 draws;
//! 2.0 times the time on AVX-512, 1.7 on AVX2), twelve and more digits (12.2 draws and up), ties
//! settled one by one at the end of a tile (1.7 times on AVX-512).

use crate::keep::KeepRule;
use crate::key::MaskKey;
use crate::mask::{BitSlice, BitSliceMut, WORD};
use crate::simd::Simd;
use crate::stream::{BLOCK, LANES, PHILOX_M0, PHILOX_M1, PHILOX_W0, PHILOX_W1, TILE};

/// Other work, done between the blocks of a tile: the processor then has something to do while one
/// step of a generator waits for the one before it.
pub(super) trait Meanwhile {
    /// Does what there is to do for a block, given the first `made` of `blocks`.
    fn step(&mut self, blocks: &[[u64; LANES]], made: usize);
}

/// No other work.
pub(super) struct Nothing;

impl Meanwhile for Nothing {
    #[inline(always)]
    fn step(&mut self, _: &[[u64; LANES]], _: usize) {}
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
pub(super) struct Span {
    /// The number of the tile.
    tile: u64,
    /// The span's first element, counted from the start of the tile.
    pub(super) begin: usize,
    /// Where the span ends, counted from the start of the tile.
    end: usize,
    /// The span's first element, counted from the start of the window.
    pub(super) at: usize,
}

impl Span {
    /// The number of elements.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.end - self.begin
    }

    /// Whether words of a mask can be this span's own: if all of its blocks are wanted whole, and
    /// begin at a word.
    #[inline(always)]
    pub(super) fn has_own_words(&self) -> bool {
        self.begin == 0 && self.end.is_multiple_of(BLOCK) && self.at.is_multiple_of(WORD)
    }

    /// The words of `out` that are this span's own.
    #[inline(always)]
    pub(super) fn own_words<'a>(&self, out: &'a mut BitSliceMut<'_>) -> &'a mut [[u64; LANES]] {
        let words = &mut out.words_mut()[self.at / WORD..][..self.end / WORD];
        words.as_chunks_mut().0
    }

    /// The span's bits, given the blocks from the start of its tile on.
    #[inline(always)]
    pub(super) fn bits<'a>(&self, blocks: &'a [[u64; LANES]]) -> BitSlice<'a> {
        BitSlice::of_words(blocks.as_flattened(), self.begin, self.len())
    }
}

/// The spans of a window of `len` elements from element `first` on.
#[inline(always)]
pub(super) fn spans(first: u64, len: usize) -> impl Iterator<Item = Span> {
    let mut at = 0;
    core::iter::from_fn(move || {
        // The caller checked that no index of the window exceeds 64 bits; only the index after the
        // last one may, and it is not used.
        let next = first.wrapping_add(at as u64);
        let begin = (next % TILE as u64) as usize;
        let span_len = (TILE - begin).min(len - at);
        let span = Span {
            tile: next / TILE as u64,
            begin,
            end: begin + span_len,
            at,
        };
        at += span_len;
        (span_len > 0).then_some(span)
    })
}

/// A [`KeepRule`], laid out for an instruction set.
pub(super) enum Rule<'r, S: Simd> {
    /// The threshold, to be compared digit by digit.
    Digits(u64),
    Table(Table<'r, S>),
}

/// An alias table in registers.
pub(super) struct Table<'r, S: Simd> {
    /// The first bytes of the thresholds of the columns.
    first: S::Words,
    /// Their second bytes.
    second: S::Words,
    alias: S::Words,
    rule: &'r KeepRule,
}

/// The nibbles in one half of the bytes of a draw.
struct Decided<S: Simd> {
    /// The nibbles; what they are does not matter if they are open.
    nibbles: S::Words,
    /// Those whose first byte ties.
    tie: S::Bytes,
    /// Those whose second byte ties, too.
    both_tie: S::Bytes,
}

impl<'r, S: Simd> Rule<'r, S> {
    #[inline(always)]
    pub(super) fn new(simd: S, rule: &'r KeepRule) -> Self {
        if rule.is_by_digits() {
            return Self::Digits(rule.threshold().get());
        }
        Self::Table(Table {
            first: simd.splat_table(&rule.bytes(0)),
            second: simd.splat_table(&rule.bytes(1)),
            alias: simd.splat_table(rule.alias()),
            rule,
        })
    }
}

impl<S: Simd> Table<'_, S> {
    /// What becomes of a column in each byte, by its first and its second random byte.
    #[inline(always)]
    fn decide(
        &self,
        simd: S,
        columns: S::Words,
        byte: S::Words,
        second_byte: S::Words,
    ) -> Decided<S> {
        let (first, alias) = simd.look_up_both(self.first, self.alias, columns);
        let tie = simd.bytes_equal(byte, first);
        if !S::LOOKS_UP_FAST && !simd.any(tie) {
            let below = simd.bytes_less(byte, first);
            return Decided {
                nibbles: simd.select_bytes(below, columns, alias),
                tie,
                both_tie: tie,
            };
        }
        let second = simd.look_up(self.second, columns);
        let below = simd.both(tie, simd.bytes_less(second_byte, second));
        let below = simd.either(simd.bytes_less(byte, first), below);
        Decided {
            nibbles: simd.select_bytes(below, columns, alias),
            tie,
            both_tie: simd.both(tie, simd.bytes_equal(second_byte, second)),
        }
    }
}

/// Makes the blocks of a span, from the start of its tile on, with steps of `meanwhile` in between.
#[inline(always)]
pub(super) fn make<S: Simd>(
    simd: S,
    key: MaskKey,
    rule: &Rule<'_, S>,
    span: &Span,
    blocks: &mut [[u64; LANES]],
    meanwhile: &mut impl Meanwhile,
) {
    let mut tile = TileBits::new(simd, key, span.tile);
    for block in 0..span.end.div_ceil(BLOCK) {
        meanwhile.step(blocks, block);
        simd.store_words(tile.block(rule), &mut blocks[block]);
    }
}

/// The generators of a tile: eight lanes of xoshiro256++.
struct TileBits<S: Simd> {
    simd: S,
    state: [S::Words; 4],
}

impl<S: Simd> TileBits<S> {
    /// As [`TileStream::new`](crate::stream::TileStream::new).
    #[inline(always)]
    fn new(simd: S, key: MaskKey, tile: u64) -> Self {
        let odd = simd.load_words(&[1, 3, 5, 7, 9, 11, 13, 15]);
        let w = simd.add(simd.splat(16 * tile), odd);
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
        // The authors' sequence of updates, each written in terms of the old state.
        self.state = [
            simd.xor3(s0, s1, s3),
            simd.xor3(s0, s1, s2),
            simd.xor3(s0, s2, simd.shl(s1, 17)),
            simd.rotate(simd.xor(s1, s3), 45),
        ];
        output
    }

    /// The next block, as [`TileStream::block`](crate::stream::TileStream::block).
    #[inline(always)]
    fn block(&mut self, rule: &Rule<'_, S>) -> S::Words {
        let simd = self.simd;
        let table = match rule {
            &Rule::Digits(threshold) => return self.digits(threshold),
            Rule::Table(table) => table,
        };
        let [columns, for_low, for_high, for_ties] =
            [self.draw(), self.draw(), self.draw(), self.draw()];
        let fifteen = simd.splat(u64::from_ne_bytes([15; 8]));
        let low = table.decide(simd, simd.and(columns, fifteen), for_low, for_ties);
        let upper = simd.and(simd.shr(columns, 4), fifteen);
        let high = table.decide(simd, upper, for_high, for_ties);
        let bits = simd.or(low.nibbles, simd.shl(high.nibbles, 4));
        let open = simd.either(
            simd.both(low.tie, high.tie),
            simd.either(low.both_tie, high.both_tie),
        );
        if simd.any(open) {
            let draws = [columns, for_low, for_high, for_ties];
            return self.settle(table.rule, draws, bits);
        }
        bits
    }

    /// The next block, for a threshold of few digits.
    #[inline(always)]
    fn digits(&mut self, threshold: u64) -> S::Words {
        let simd = self.simd;
        let mut below = simd.splat(0);
        let mut equal = simd.splat(u64::MAX);
        let mut rest = threshold;
        // The digits that remain when none is 1 decide nothing: what is equal so far is not below.
        while rest != 0 {
            let u = self.draw();
            if rest >> 63 == 1 {
                below = simd.or_and_not(below, equal, u);
                equal = simd.and(equal, u);
            } else {
                equal = simd.and_not(equal, u);
            }
            rest <<= 1;
        }
        below
    }

    /// Settles the nibbles of a block that its four draws left open. Rare.
    #[inline(always)]
    fn settle(&mut self, rule: &KeepRule, draws: [S::Words; 4], bits: S::Words) -> S::Words {
        let simd = self.simd;
        let mut words = [[0; LANES]; 4];
        for (words, draw) in words.iter_mut().zip(draws) {
            simd.store_words(draw, words);
        }
        let (mut settled, mut draw) = ([0; LANES], [0; LANES]);
        simd.store_words(bits, &mut settled);
        let mut open = Open::new(rule, words);
        while open.any() {
            simd.store_words(self.draw(), &mut draw);
            open.settle(rule, &draw, &mut settled);
        }
        simd.load_words(&settled)
    }
}

/// The nibbles of a block that are still open: bit `n` of lane `l` is nibble `n` of word `l`.
struct Open {
    /// The columns of all nibbles.
    columns: [u64; LANES],
    /// Open after one byte, as both nibbles of a byte tied.
    after_one: [u16; LANES],
    /// Open after two bytes.
    after_two: [u16; LANES],
}

impl Open {
    #[cold]
    #[inline(never)]
    fn new(rule: &KeepRule, [columns, for_low, for_high, for_ties]: [[u64; LANES]; 4]) -> Self {
        let (first, second) = (rule.bytes(0), rule.bytes(1));
        let mut open = Self {
            columns,
            after_one: [0; LANES],
            after_two: [0; LANES],
        };
        for lane in 0..LANES {
            for byte in 0..8 {
                let at = |word: u64| (word >> (8 * byte)) as u8;
                let pair = at(columns[lane]);
                let (low, high) = (usize::from(pair & 15), usize::from(pair >> 4));
                let low_tie = at(for_low[lane]) == first[low];
                let high_tie = at(for_high[lane]) == first[high];
                let tie = at(for_ties[lane]);
                if low_tie && high_tie {
                    open.after_one[lane] |= 0b11 << (2 * byte);
                } else if low_tie && tie == second[low] {
                    open.after_two[lane] |= 0b01 << (2 * byte);
                } else if high_tie && tie == second[high] {
                    open.after_two[lane] |= 0b10 << (2 * byte);
                }
            }
        }
        open
    }

    fn any(&self) -> bool {
        self.after_one != [0; LANES] || self.after_two != [0; LANES]
    }

    /// Decides the lowest open nibble of each lane by what is left of its threshold.
    #[cold]
    #[inline(never)]
    fn settle(&mut self, rule: &KeepRule, draw: &[u64; LANES], bits: &mut [u64; LANES]) {
        for lane in 0..LANES {
            let open = self.after_one[lane] | self.after_two[lane];
            if open == 0 {
                continue;
            }
            let nibble = open.trailing_zeros();
            let lowest = 1 << nibble;
            let used = if self.after_one[lane] & lowest != 0 {
                8
            } else {
                16
            };
            self.after_one[lane] &= !lowest;
            self.after_two[lane] &= !lowest;
            let column = (self.columns[lane] >> (4 * nibble) & 15) as usize;
            let result = if draw[lane] < rule.columns()[column] << used {
                column as u64
            } else {
                u64::from(rule.alias()[column])
            };
            bits[lane] = bits[lane] & !(15 << (4 * nibble)) | result << (4 * nibble);
        }
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
