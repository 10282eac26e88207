//! [`KeepRule`]: what decides which elements are kept, made once for a rate.

use core::fmt;
use core::num::NonZeroU64;

/// What decides which elements are kept: a threshold, and the alias table of mask format v1 by which
/// four elements at a time are compared with it.
///
/// `docs/mask-format.md` defines the table. Its sixteen columns are the sixteen ways to keep or drop
/// four elements; a column is chosen by four random bits, and a random 64-bit number below the
/// column's threshold keeps the column, any other takes its alias.
///
/// ```
/// use sorix_kernels::{DropRate, Keep};
///
/// let rate = DropRate::new(0.1)?;
/// let Keep::By(rule) = rate.keep() else { panic!("p = 0.1 keeps some and drops some") };
/// assert_eq!(rule.threshold().get() >> 32, (0.9 * 4294967296.0) as u64);
/// # Ok::<(), sorix_kernels::InvalidRate>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeepRule {
    threshold: NonZeroU64,
    /// A column is kept by random numbers below this.
    columns: [u64; COLUMNS],
    /// What a column becomes otherwise.
    alias: [u8; COLUMNS],
}

/// Columns of an alias table: the ways to keep or drop four elements.
pub(crate) const COLUMNS: usize = 16;

/// A threshold whose last 1 is at most its fourth digit is compared digit by digit, a draw a digit.
const DIGITS: u32 = 4;

impl KeepRule {
    /// The rule of a threshold: an element is kept with probability `threshold` / 2^64.
    #[must_use]
    pub fn new(threshold: NonZeroU64) -> Self {
        let (columns, alias) = table(threshold.get());
        Self {
            threshold,
            columns,
            alias,
        }
    }

    /// P(keep), times 2^64.
    #[must_use]
    pub fn threshold(&self) -> NonZeroU64 {
        self.threshold
    }

    /// Whether the threshold is compared digit by digit, without the table.
    #[inline]
    pub(crate) fn is_by_digits(&self) -> bool {
        self.threshold.trailing_zeros() >= u64::BITS - DIGITS
    }

    /// The thresholds of the columns.
    #[inline]
    pub(crate) fn columns(&self) -> &[u64; COLUMNS] {
        &self.columns
    }

    /// What columns become whose random number is not below their threshold.
    #[inline]
    pub(crate) fn alias(&self) -> &[u8; COLUMNS] {
        &self.alias
    }

    /// Byte number `i` of the thresholds of the columns, the most significant first.
    #[inline]
    pub(crate) fn bytes(&self, i: usize) -> [u8; COLUMNS] {
        self.columns.map(|column| column.to_be_bytes()[i])
    }
}

impl fmt::Debug for KeepRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threshold = &self.threshold;
        f.debug_struct("KeepRule")
            .field("threshold", threshold)
            .finish_non_exhaustive()
    }
}

/// Thresholds and aliases of the columns: the method of Walker (1974) in the form of Vose (1991),
/// with the columns that are too low taken in turn and filled up from the first that is too high.
fn table(t: u64) -> ([u64; COLUMNS], [u8; COLUMNS]) {
    const FULL: u128 = 1 << 64;
    let mut rest = weights(t);
    let (mut columns, mut alias) = ([0; COLUMNS], core::array::from_fn(|column| column as u8));
    // Each column comes into each queue at most once.
    let (mut low, mut high) = (Queue::default(), Queue::default());
    for (column, &weight) in rest.iter().enumerate() {
        if weight < FULL { &mut low } else { &mut high }.push(column);
    }
    while let Some(column) = low.pop() {
        // What is left is as many times `FULL` as there are columns left, so where one is too low
        // another is too high.
        let Some(from) = high.first() else { break };
        columns[column] = rest[column] as u64;
        alias[column] = from as u8;
        rest[from] -= FULL - rest[column];
        if rest[from] < FULL {
            high.pop();
            low.push(from);
        }
    }
    (columns, alias)
}

/// The weight of each column, out of 2^68: that of `k` kept elements is T^k (2^64 - T)^(4-k) / 2^188
/// rounded down for k from 1 to 3, and those of none and of all four are what makes each single
/// element's P(keep) exact.
fn weights(t: u64) -> [u128; COLUMNS] {
    let d = u128::from(t.wrapping_neg());
    let t = u128::from(t);
    let weight = |a: u128, b: u128| high_half(a, b) >> 60;
    let w1 = weight(d * d, t * d);
    let w2 = weight(t * d, t * d);
    let w3 = weight(t * t, t * d);
    let w0 = 16 * d - 3 * w1 - 3 * w2 - w3;
    let w4 = 16 * t - w1 - 3 * w2 - 3 * w3;
    core::array::from_fn(|column| [w0, w1, w2, w3, w4][column.count_ones() as usize])
}

/// The upper 128 of the 256 bits of `a * b`.
fn high_half(a: u128, b: u128) -> u128 {
    const LOW: u128 = u64::MAX as u128;
    let ((a1, a0), (b1, b0)) = ((a >> 64, a & LOW), (b >> 64, b & LOW));
    let (low, middle, other) = (a0 * b0, a1 * b0, a0 * b1);
    let carry = (low >> 64) + (middle & LOW) + (other & LOW);
    a1 * b1 + (middle >> 64) + (other >> 64) + (carry >> 64)
}

/// Columns in the order in which they came, each at most twice.
#[derive(Default)]
struct Queue {
    columns: [u8; 2 * COLUMNS],
    begin: usize,
    end: usize,
}

impl Queue {
    fn push(&mut self, column: usize) {
        self.columns[self.end] = column as u8;
        self.end += 1;
    }

    fn first(&self) -> Option<usize> {
        (self.begin < self.end).then(|| usize::from(self.columns[self.begin]))
    }

    fn pop(&mut self) -> Option<usize> {
        let first = self.first()?;
        self.begin += 1;
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Law;

    fn rules() -> impl Iterator<Item = KeepRule> {
        let edges = [1, 2, 3, (1 << 63) + 1, u64::MAX, u64::MAX - 1, 1 << 40];
        let spread = (0..5000_u64).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (i % 64));
        let thresholds = edges.into_iter().chain(spread).filter_map(NonZeroU64::new);
        thresholds.map(KeepRule::new)
    }

    /// How much of 2^68 goes to each way to keep or drop four.
    fn law(rule: &KeepRule) -> [u128; COLUMNS] {
        let mut law = [0; COLUMNS];
        for (column, (&below, &alias)) in rule.columns.iter().zip(&rule.alias).enumerate() {
            law[column] += u128::from(below);
            law[usize::from(alias)] += (1 << 64) - u128::from(below);
        }
        law
    }

    #[test]
    fn every_element_is_kept_with_exactly_the_wanted_probability() {
        for rule in rules() {
            let law = law(&rule);
            assert_eq!(law.iter().sum::<u128>(), 1 << 68, "{rule:?}");
            for element in 0..4 {
                let kept = (0..COLUMNS).filter(|column| column >> element & 1 == 1);
                let kept = kept.map(|column| law[column]).sum::<u128>();
                assert_eq!(kept, 16 * u128::from(rule.threshold.get()), "{rule:?}");
            }
        }
    }

    #[test]
    fn four_elements_are_independent() {
        for rule in rules() {
            let t = rule.threshold.get() as f64 / 2f64.powi(64);
            for (column, &weight) in law(&rule).iter().enumerate() {
                let kept = column.count_ones() as i32;
                let independent = t.powi(kept) * (1.0 - t).powi(4 - kept);
                let error = (weight as f64 / 2f64.powi(68) - independent).abs();
                // What doubles see of 2^-65.
                assert!(error < 1e-15, "{rule:?}, {column}: {error:e}");
            }
        }
    }

    #[test]
    fn tables_are_those_of_the_scalar_definition() {
        for rule in rules() {
            let law = Law::new(rule.threshold);
            assert_eq!(law.table().is_none(), rule.is_by_digits(), "{rule:?}");
            if let Some(table) = law.table() {
                assert_eq!((table.limit, table.alias), (rule.columns, rule.alias));
            }
        }
    }

    #[test]
    fn halves_of_products_are_exact() {
        assert_eq!(high_half(u128::MAX, u128::MAX), u128::MAX - 1);
        assert_eq!(high_half(1 << 127, 6), 3);
        assert_eq!(high_half((1 << 64) - 1, (1 << 64) - 1), 0);
        assert_eq!(high_half((1 << 64) + 1, u128::MAX), 1 << 64);
    }
}
