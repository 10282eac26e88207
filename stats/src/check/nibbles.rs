//! Four aligned elements, which mask format v1 decides together, follow their joint law; and what
//! lies on the two sides of a border of what is made together says nothing about each other.

use super::Check;
use crate::finding::Finding;
use crate::joint::Joint;
use crate::law;
use crate::stream::{BLOCK, TILE};

/// Nibbles of a block.
const NIBBLES: usize = BLOCK as usize / 4;

/// Neighbours with a border between them, by the kind of the greatest one there.
const BORDERS: [&str; 5] = [
    "neighbours across nibbles",
    "neighbours across bytes",
    "neighbours across lanes",
    "neighbours across blocks",
    "neighbours across tiles",
];

/// The last elements of the lower nibbles of a word's bytes.
const NIBBLE_ENDS: u64 = 0x0808_0808_0808_0808;

/// The last elements of a word's bytes, but for the last byte.
const BYTE_ENDS: u64 = 0x0080_8080_8080_8080;

/// How often each value of a nibble, of two nibbles of different bytes, and of two neighbours across
/// a border was seen.
pub(super) struct Nibbles {
    keep: f64,
    /// Words seen since the stream began.
    words: u64,
    /// By position in the block.
    values: Vec<[u64; 16]>,
    /// The upper nibble of a byte and the lower one of the next.
    across_bytes: [u64; 256],
    borders: [Joint; BORDERS.len()],
}

impl Nibbles {
    pub(super) fn new(keep: f64) -> Self {
        Self {
            keep,
            words: 0,
            values: vec![[0; 16]; NIBBLES],
            across_bytes: [0; 256],
            borders: Default::default(),
        }
    }

    /// The probabilities of the values of so many elements. Those of a nibble in the mask format
    /// differ from these by less than 2^-65, which a double cannot show.
    fn probabilities(&self, elements: i32) -> Vec<f64> {
        let probability = |value: u32| {
            let kept = value.count_ones() as i32;
            self.keep.powi(kept) * (1.0 - self.keep).powi(elements - kept)
        };
        (0..1 << elements).map(probability).collect()
    }

    /// The kind of border at the end of the word number `word` of the stream.
    fn border_after(word: u64) -> usize {
        match (word + 1) * 64 {
            end if end.is_multiple_of(TILE) => 4,
            end if end.is_multiple_of(BLOCK) => 3,
            _ => 2,
        }
    }
}

impl Check for Nibbles {
    fn look(&mut self, words: &[u64]) {
        for (i, &word) in words.iter().enumerate() {
            let lane = (self.words as usize + i) % (BLOCK as usize / 64);
            for (n, values) in self.values[16 * lane..][..16].iter_mut().enumerate() {
                values[(word >> (4 * n) & 15) as usize] += 1;
            }
            for byte in 0..7 {
                self.across_bytes[(word >> (8 * byte + 4) & 255) as usize] += 1;
            }
            self.borders[0].look_at(NIBBLE_ENDS, word, word >> 1);
            self.borders[1].look_at(BYTE_ENDS, word, word >> 1);
            // The neighbour of a chunk's last element is not there.
            if let Some(next) = words.get(i + 1) {
                let border = Self::border_after(self.words + i as u64);
                self.borders[border].look_at(1, word >> 63, *next);
            }
        }
        self.words += words.len() as u64;
    }

    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut add = |test, p_value: Option<f64>| {
            findings.extend(p_value.map(|p_value| Finding::new(test, p_value)));
        };
        let four = self.probabilities(4);
        let of_all: [u64; 16] =
            std::array::from_fn(|value| self.values.iter().map(|seen| seen[value]).sum());
        add(
            "4 of a nibble jointly",
            law::goodness_of_fit(&of_all, &four),
        );
        let each = self.values.iter().map(|seen| &seen[..]);
        add(
            "4 of a nibble jointly, by position in the block",
            law::goodness_of_fit_of_each(each, &four),
        );
        add(
            "8 across bytes jointly",
            law::goodness_of_fit(&self.across_bytes, &self.probabilities(8)),
        );
        for (test, pairs) in BORDERS.into_iter().zip(&self.borders) {
            add(test, pairs.goodness_of_fit(self.keep));
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(joint: &Joint) -> [u64; 4] {
        [
            joint.pairs,
            joint.first_kept,
            joint.second_kept,
            joint.both_kept,
        ]
    }

    #[test]
    fn nibbles_are_counted_by_value_and_position() {
        let mut nibbles = Nibbles::new(0.5);
        // In two looks, as by chunks: a block and a word of the next.
        nibbles.look(&[0x21, 0, 0, 0xF << 60]);
        nibbles.look(&[0, 0, 0, 0, 0x5]);
        assert_eq!(nibbles.values[0][1], 1);
        assert_eq!(nibbles.values[0][5], 1);
        assert_eq!(nibbles.values[1][2], 1);
        assert_eq!(nibbles.values[63][15], 1);
        assert_eq!(nibbles.values[127][0], 1);
        let seen: u64 = nibbles.values.iter().flatten().sum();
        assert_eq!(seen, 9 * 16);
        assert_eq!(nibbles.across_bytes[0x02], 1);
        assert_eq!(nibbles.across_bytes.iter().sum::<u64>(), 9 * 7);
    }

    #[test]
    fn neighbours_are_counted_by_the_greatest_border_between_them() {
        let mut nibbles = Nibbles::new(0.5);
        let mut words = vec![0; TILE as usize / 64 + 1];
        // Elements 3, 4, 7, 63, 64, 512 and the first of the second tile are kept.
        words[0] = 0b1001_1000 | 1 << 63;
        words[1] = 1;
        words[8] = 1;
        words[TILE as usize / 64] = 1;
        nibbles.look(&words);
        let n = words.len() as u64;
        let blocks = TILE / BLOCK;
        assert_eq!(counts(&nibbles.borders[0]), [8 * n, 1, 1, 1]);
        assert_eq!(counts(&nibbles.borders[1]), [7 * n, 1, 0, 0]);
        assert_eq!(counts(&nibbles.borders[2]), [7 * blocks, 1, 1, 1]);
        assert_eq!(counts(&nibbles.borders[3]), [blocks - 1, 0, 1, 0]);
        assert_eq!(counts(&nibbles.borders[4]), [1, 0, 1, 0]);
    }
}
