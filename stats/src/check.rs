//! The checks that look at one stream of bits.

mod counts;
mod lags;
mod nibbles;
mod patterns;
mod positions;
mod runs;

use crate::finding::Finding;

/// Looks at a stream, chunk after chunk, and says in the end how likely it was.
pub trait Check {
    /// Takes in the next words. All calls but the last bring whole chunks.
    fn look(&mut self, words: &[u64]);

    /// The p-values of what was seen; none where it was too little.
    fn findings(&self) -> Vec<Finding>;
}

/// All checks of a stream whose elements are kept with probability `keep`.
#[must_use]
pub fn all(keep: f64) -> Vec<Box<dyn Check>> {
    vec![
        Box::new(positions::Positions::new(keep)),
        Box::new(lags::Lags::new(keep)),
        Box::new(lags::LagsTogether::new(keep)),
        Box::new(patterns::Patterns::new(keep)),
        Box::new(nibbles::Nibbles::new(keep)),
        Box::new(counts::Counts::new(keep)),
        Box::new(runs::Runs::new(keep)),
    ]
}
