//! P(keep), counted.

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use sorix_kernels::{BitMask, DropRate, Error, Keep, MaskKey};

use crate::law;
use crate::stream::{BLOCK, CHUNK, Source};

/// The exact probability of keeping, as the mask format has it: the threshold over 2^64.
///
/// # Panics
///
/// For p = 0 and p = 1, which have no threshold.
#[must_use]
pub fn keep_probability(rate: DropRate) -> f64 {
    match rate.keep() {
        Keep::By(rule) => rule.threshold().get() as f64 / 2.0_f64.powi(64),
        Keep::Nothing | Keep::Everything => panic!("p = {} is certain", rate.p()),
    }
}

/// The count of one mask.
#[derive(Clone, Copy, Debug)]
pub struct Count {
    /// The elements looked at, from the first on.
    pub elements: u64,
    /// Those of them that were dropped.
    pub dropped: u64,
    /// The dropped ones to be expected.
    pub expected: f64,
    /// Of the exact binomial law.
    pub p_value: f64,
}

/// Counts the first `elements` elements, whole blocks, of a mask.
///
/// # Errors
///
/// As [`Source::fill`].
pub fn count(
    source: &dyn Source,
    rate: DropRate,
    key: MaskKey,
    elements: u64,
) -> Result<Count, Error> {
    assert_eq!(elements % BLOCK, 0, "elements in whole blocks");
    let chunk = |chunk: u64| -> Result<u64, Error> {
        let first = chunk * CHUNK;
        let mut mask = BitMask::new(CHUNK.min(elements - first) as usize);
        source.fill(rate, key.window(first), &mut mask)?;
        Ok((mask.len() - mask.count_kept()) as u64)
    };
    let chunks = (0..elements.div_ceil(CHUNK)).into_par_iter();
    let dropped = chunks.map(chunk).try_reduce(|| 0, |a, b| Ok(a + b))?;
    // The probability that is rounded least: 1 - 2^-30 has its digits in the other one.
    let drop = match rate.keep() {
        Keep::By(rule) => rule.threshold().get().wrapping_neg() as f64 / 2.0_f64.powi(64),
        Keep::Nothing | Keep::Everything => rate.p(),
    };
    Ok(Count {
        elements,
        dropped,
        expected: elements as f64 * drop,
        p_value: law::binomial(elements, drop, dropped),
    })
}
