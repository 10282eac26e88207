//! Runs of kept and of dropped elements have geometric lengths.

use super::Check;
use crate::finding::Finding;
use crate::law;

/// Runs longer than this are counted with those of this length.
const LONGEST: usize = 4096;

/// How many runs had which length. The first and the last run of the stream, whose ends were not
/// both seen, are left out.
pub(super) struct Runs {
    keep: f64,
    begun: bool,
    /// The value of the run that is going on, in all bits.
    value: u64,
    length: usize,
    /// By value, dropped first, and by length.
    seen: [Vec<u64>; 2],
}

impl Runs {
    pub(super) fn new(keep: f64) -> Self {
        Self {
            keep,
            begun: false,
            value: 0,
            length: 0,
            seen: [vec![0; LONGEST + 1], vec![0; LONGEST + 1]],
        }
    }

    fn end(&mut self) {
        if self.begun {
            self.seen[(self.value & 1) as usize][self.length.min(LONGEST)] += 1;
        }
        self.begun = true;
        self.value = !self.value;
        self.length = 0;
    }

    fn p_value(&self, dropped_or_kept: usize) -> Option<f64> {
        let go_on = [1.0 - self.keep, self.keep][dropped_or_kept];
        let seen = &self.seen[dropped_or_kept][1..];
        let mut lengths: Vec<f64> = (0..LONGEST as i32)
            .map(|more| go_on.powi(more) * (1.0 - go_on))
            .collect();
        lengths[LONGEST - 1] = go_on.powi(LONGEST as i32 - 1);
        law::goodness_of_fit(seen, &lengths)
    }
}

impl Check for Runs {
    fn look(&mut self, words: &[u64]) {
        for &word in words {
            let mut at = 0;
            loop {
                // The bits that differ from the run's value, from `at` on.
                let other = (word ^ self.value) >> at << at;
                if other == 0 {
                    break;
                }
                let change = other.trailing_zeros();
                self.length += (change - at) as usize;
                self.end();
                at = change;
            }
            self.length += (u64::BITS - at) as usize;
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let names = [(0, "runs of dropped"), (1, "runs of kept")];
        names
            .into_iter()
            .filter_map(|(value, name)| Some(Finding::new(name, self.p_value(value)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_measured_across_words() {
        let mut runs = Runs::new(0.5);
        // 4 dropped (its beginning was not seen), 3 kept, 57 + 60 dropped, 4 + 64 kept, 1 dropped,
        // 63 kept (its end was not seen).
        runs.look(&[0b111_0000, 0xF << 60]);
        runs.look(&[u64::MAX, !1]);
        let lengths = |value: usize| -> Vec<(usize, u64)> {
            let seen = runs.seen[value].iter().copied().enumerate();
            seen.filter(|(_, count)| *count > 0).collect()
        };
        assert_eq!(lengths(0), [(1, 1), (117, 1)]);
        assert_eq!(lengths(1), [(3, 1), (68, 1)]);
    }
}
