//! Eight elements at equal distances take each of their 256 joint values as often as they should.

use super::Check;
use crate::finding::Finding;
use crate::law;
use crate::stream::{BLOCK, TILE};

/// Distances of the eight: neighbours, the lanes of a block, blocks and tiles.
const STRIDES: [(usize, &str); 4] = [
    (1, "8 neighbours jointly"),
    (64, "8 at distance 64 jointly"),
    (BLOCK as usize, "8 at distance 512 jointly"),
    (TILE as usize, "8 at distance 16384 jointly"),
];

/// How often each joint value was seen; groups do not overlap.
pub(super) struct Patterns {
    keep: f64,
    seen: [[u64; 256]; STRIDES.len()],
}

impl Patterns {
    pub(super) fn new(keep: f64) -> Self {
        Self {
            keep,
            seen: [[0; 256]; STRIDES.len()],
        }
    }
}

impl Check for Patterns {
    fn look(&mut self, words: &[u64]) {
        for (seen, (stride, _)) in self.seen.iter_mut().zip(STRIDES) {
            if stride == 1 {
                for byte in words.iter().flat_map(|word| word.to_le_bytes()) {
                    seen[usize::from(byte)] += 1;
                }
                continue;
            }
            let step = stride / 64;
            for group in words.chunks_exact(8 * step) {
                for word in 0..step {
                    let eight: [u64; 8] = std::array::from_fn(|i| group[word + i * step]);
                    for bit in 0..64 {
                        let join = |all, (i, word): (usize, &u64)| all | (word >> bit & 1) << i;
                        seen[eight.iter().enumerate().fold(0, join) as usize] += 1;
                    }
                }
            }
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let probability = |value: u32| {
            let kept = value.count_ones() as i32;
            self.keep.powi(kept) * (1.0 - self.keep).powi(8 - kept)
        };
        let probabilities: Vec<f64> = (0..256).map(probability).collect();
        let finding = |(seen, (_, name)): (&[u64; 256], (usize, &'static str))| {
            let p_value = law::goodness_of_fit(seen, &probabilities)?;
            Some(Finding::new(name, p_value))
        };
        self.seen.iter().zip(STRIDES).filter_map(finding).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_group_is_the_lowest_bit() {
        let mut patterns = Patterns::new(0.5);
        // Element 3 of lanes 0 and 2.
        patterns.look(&[8, 0, 8, 0, 0, 0, 0, 0]);
        assert_eq!(patterns.seen[0][8], 2);
        assert_eq!(patterns.seen[0][0], 62);
        assert_eq!(patterns.seen[1][0b101], 1);
        assert_eq!(patterns.seen[1][0], 63);
        assert_eq!(patterns.seen[2], [0; 256]);
    }
}
