//! [`Joint`]: how two sequences of decisions agree.

use crate::law;

/// Counts over pairs of decisions, one of each sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Joint {
    pub(crate) pairs: u64,
    pub(crate) first_kept: u64,
    pub(crate) second_kept: u64,
    pub(crate) both_kept: u64,
}

impl Joint {
    /// Takes in the 64 pairs of two words.
    pub(crate) fn look(&mut self, first: u64, second: u64) {
        self.look_at(u64::MAX, first, second);
    }

    /// Takes in the pairs of two words at the bits that are set in `places`.
    pub(crate) fn look_at(&mut self, places: u64, first: u64, second: u64) {
        let count = |bits: u64| u64::from((places & bits).count_ones());
        self.pairs += count(u64::MAX);
        self.first_kept += count(first);
        self.second_kept += count(second);
        self.both_kept += count(first & second);
    }

    /// The covariance about the known mean, in standard deviations: for independent decisions its
    /// mean is 0 and its variance 1, exactly.
    pub(crate) fn z(&self, keep: f64) -> f64 {
        let n = self.pairs as f64;
        let covariance = self.both_kept as f64
            - keep * (self.first_kept as f64 + self.second_kept as f64)
            + n * keep * keep;
        covariance / (n.sqrt() * keep * (1.0 - keep))
    }

    /// Pearson's test of the four joint outcomes; `None` where too few are expected.
    pub(crate) fn goodness_of_fit(&self, keep: f64) -> Option<f64> {
        let observed = [
            self.both_kept,
            self.first_kept - self.both_kept,
            self.second_kept - self.both_kept,
            self.pairs + self.both_kept - self.first_kept - self.second_kept,
        ];
        let drop = 1.0 - keep;
        law::goodness_of_fit(
            &observed,
            &[keep * keep, keep * drop, drop * keep, drop * drop],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z_is_the_covariance_in_standard_deviations() {
        let joint = Joint {
            pairs: 1600,
            first_kept: 800,
            second_kept: 800,
            both_kept: 430,
        };
        // 30 more than 400; the standard deviation is 40 / 4.
        assert_eq!(joint.z(0.5), 3.0);
        // The four cells are 30 off 400 each: chi-square 9 with 3 degrees of freedom.
        let p = joint.goodness_of_fit(0.5).unwrap();
        assert!((p - 2.0 * 0.029_29).abs() < 1e-4, "{p}");
    }

    #[test]
    fn pairs_of_words_are_counted() {
        let mut joint = Joint::default();
        joint.look(0b0111, 0b1100);
        assert_eq!(
            (
                joint.pairs,
                joint.first_kept,
                joint.second_kept,
                joint.both_kept
            ),
            (64, 3, 2, 1)
        );
        let mut some = Joint::default();
        some.look_at(0b1101, 0b0111, 0b1100);
        assert_eq!(
            (
                some.pairs,
                some.first_kept,
                some.second_kept,
                some.both_kept
            ),
            (3, 2, 2, 1)
        );
    }
}
