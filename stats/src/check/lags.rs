//! An element says nothing about the one so many further on.

use super::Check;
use crate::finding::Finding;
use crate::joint::Joint;
use crate::law;
use crate::stream::TILE;

/// The lags with a test of their own: neighbours, bytes, lanes, blocks and tiles.
const LAGS: [(usize, &str); 5] = [
    (1, "lag 1"),
    (8, "lag 8"),
    (64, "lag 64"),
    (512, "lag 512"),
    (TILE as usize, "lag 16384"),
];

/// Takes in the pairs of a chunk at a distance, those whose first elements lie in words that have a
/// whole partner.
fn look(joint: &mut Joint, words: &[u64], lag: usize) {
    let (skip, shift) = (lag / 64, lag % 64);
    let further = words.get(skip..).unwrap_or_default();
    if shift == 0 {
        for (&first, &second) in words.iter().zip(further) {
            joint.look(first, second);
        }
    } else {
        for (&first, second) in words.iter().zip(further.windows(2)) {
            joint.look(first, second[0] >> shift | second[1] << (64 - shift));
        }
    }
}

/// The autocorrelation at each of [`LAGS`].
pub(super) struct Lags {
    keep: f64,
    pairs: [Joint; LAGS.len()],
}

impl Lags {
    pub(super) fn new(keep: f64) -> Self {
        Self {
            keep,
            pairs: Default::default(),
        }
    }
}

impl Check for Lags {
    fn look(&mut self, words: &[u64]) {
        for (pairs, (lag, _)) in self.pairs.iter_mut().zip(LAGS) {
            look(pairs, words, lag);
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let some = self.pairs.iter().zip(LAGS).filter(|(p, _)| p.pairs > 0);
        some.map(|(pairs, (_, name))| Finding::new(name, law::normal(pairs.z(self.keep))))
            .collect()
    }
}

/// The autocorrelations at lags 1 to 512, squared and summed.
pub(super) struct LagsTogether {
    keep: f64,
    pairs: Vec<Joint>,
}

impl LagsTogether {
    const LAGS: usize = 512;

    /// So many lags take long: this many elements must do.
    const ELEMENTS: u64 = 1 << 22;

    pub(super) fn new(keep: f64) -> Self {
        Self {
            keep,
            pairs: vec![Joint::default(); Self::LAGS],
        }
    }
}

impl Check for LagsTogether {
    fn look(&mut self, words: &[u64]) {
        if self.pairs[0].pairs < Self::ELEMENTS - TILE {
            for (lag, pairs) in (1..).zip(&mut self.pairs) {
                look(pairs, words, lag);
            }
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let squares = self.pairs.iter().map(|pairs| pairs.z(self.keep).powi(2));
        let p_value = law::chi_square(squares.sum(), Self::LAGS as f64);
        vec![Finding::new("lags 1 to 512 together", p_value)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_at_a_distance_are_counted() {
        // Elements 0, 64 and 65 of 256 are kept.
        let words = [0b1, 0b11, 0, 0];
        let count = |lag| {
            let mut pairs = Joint::default();
            look(&mut pairs, &words, lag);
            (
                pairs.pairs,
                pairs.first_kept,
                pairs.second_kept,
                pairs.both_kept,
            )
        };
        assert_eq!(count(1), (192, 3, 2, 1));
        assert_eq!(count(64), (192, 3, 2, 1));
        assert_eq!(count(65), (128, 3, 1, 1));
        assert_eq!(count(512), (0, 0, 0, 0));
    }
}
