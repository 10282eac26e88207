//! Every element of a tile is kept as often as every other.

use super::Check;
use crate::finding::Finding;
use crate::law;
use crate::stream::{BLOCK, TILE};

/// How often each position was kept.
pub(super) struct Positions {
    keep: f64,
    /// Words seen of each position; the same for all when whole tiles were seen.
    tiles: u64,
    kept: Vec<u64>,
}

impl Positions {
    pub(super) fn new(keep: f64) -> Self {
        Self {
            keep,
            tiles: 0,
            kept: vec![0; TILE as usize],
        }
    }

    /// The kept elements by position modulo `period`: chi-square with a degree for each.
    fn finding(&self, test: &'static str, period: u64) -> Finding {
        let mut kept = vec![0; period as usize];
        for (position, &count) in self.kept.iter().enumerate() {
            kept[position % period as usize] += count;
        }
        let n = (self.tiles * (TILE / period)) as f64;
        let variance = n * self.keep * (1.0 - self.keep);
        let value = kept
            .iter()
            .map(|&kept| (kept as f64 - n * self.keep).powi(2) / variance);
        Finding::new(test, law::chi_square(value.sum(), period as f64))
    }
}

impl Check for Positions {
    fn look(&mut self, words: &[u64]) {
        for tile in words.chunks_exact(TILE as usize / 64) {
            self.tiles += 1;
            for (kept, &word) in self.kept.chunks_exact_mut(64).zip(tile) {
                for (bit, kept) in kept.iter_mut().enumerate() {
                    *kept += word >> bit & 1;
                }
            }
        }
    }

    fn findings(&self) -> Vec<Finding> {
        if self.tiles == 0 {
            return Vec::new();
        }
        let kept = self.kept.iter().sum();
        let total = law::binomial(self.tiles * TILE, self.keep, kept);
        vec![
            Finding::new("kept", total),
            self.finding("kept by position in the block", BLOCK),
            self.finding("kept by position in the tile", TILE),
        ]
    }
}
