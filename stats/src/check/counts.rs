//! The kept elements of a word, a block and a tile follow the binomial law.

use super::Check;
use crate::finding::Finding;
use crate::law;
use crate::stream::{BLOCK, TILE};

/// Elements counted together.
const UNITS: [(u64, &str); 3] = [
    (64, "kept in a word"),
    (BLOCK, "kept in a block"),
    (TILE, "kept in a tile"),
];

/// How many units kept how many.
pub(super) struct Counts {
    keep: f64,
    seen: [Vec<u64>; UNITS.len()],
}

impl Counts {
    pub(super) fn new(keep: f64) -> Self {
        Self {
            keep,
            seen: UNITS.map(|(unit, _)| vec![0; unit as usize + 1]),
        }
    }
}

impl Check for Counts {
    fn look(&mut self, words: &[u64]) {
        for (seen, (unit, _)) in self.seen.iter_mut().zip(UNITS) {
            for words in words.chunks_exact(unit as usize / 64) {
                let kept: u32 = words.iter().map(|word| word.count_ones()).sum();
                seen[kept as usize] += 1;
            }
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let finding = |(seen, (unit, name)): (&Vec<u64>, (u64, &'static str))| {
            let masses = law::binomial_masses(unit, self.keep);
            Some(Finding::new(name, law::goodness_of_fit(seen, &masses)?))
        };
        self.seen.iter().zip(UNITS).filter_map(finding).collect()
    }
}
