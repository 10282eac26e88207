//! Sampling two things in turn, and the medians of what was seen.

use std::time::{Duration, Instant};

/// How long a row is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// No further pair is begun when this much time has gone into a row.
    pub budget: Duration,
    /// Calls are repeated until one sample takes about this long, well above what reading the clock
    /// costs.
    pub sample: Duration,
    /// The most pairs of samples in a row.
    pub pairs: usize,
}

impl Sampling {
    /// What `cargo xtask bench` takes.
    pub const FULL: Self = Self {
        budget: Duration::from_millis(400),
        sample: Duration::from_micros(100),
        pairs: 101,
    };

    /// What `cargo xtask bench --quick` takes: hundreds of rows within one minute.
    pub const QUICK: Self = Self {
        budget: Duration::from_millis(25),
        sample: Duration::from_micros(50),
        pairs: 21,
    };
}

/// The outcome of sampling a subject and a copy in turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// The median time of one call of the subject, in seconds.
    pub subject: f64,
    /// The median time of one copy, in seconds.
    pub copy: f64,
    /// The median of the ratios of each sample of the subject to the sample of the copy after it.
    pub ratio: f64,
    /// How many pairs of samples there were.
    pub pairs: usize,
}

/// Samples `subject` and `copy` in turn (A B A B …) and returns the medians.
///
/// Both are called before, to warm the caches and to see how often a sample must repeat them. Those
/// calls count as the only pair where the budget has no room for another.
pub fn in_turn<S: ?Sized>(
    sampling: Sampling,
    state: &mut S,
    subject: impl FnMut(&mut S),
    copy: impl FnMut(&mut S),
) -> Measured {
    in_turn_rested(sampling, state, subject, |_| (), copy)
}

/// [`in_turn`] with something to do before each sample of the copy, which is not timed: what a
/// subject whose threads go on for a while needs.
pub fn in_turn_rested<S: ?Sized>(
    sampling: Sampling,
    state: &mut S,
    mut subject: impl FnMut(&mut S),
    mut rest: impl FnMut(&mut S),
    mut copy: impl FnMut(&mut S),
) -> Measured {
    let start = Instant::now();
    let (subject_repeats, subject_first) = calibrate(sampling.sample, state, &mut subject);
    rest(state);
    let (copy_repeats, copy_first) = calibrate(sampling.sample, state, &mut copy);
    let mut pairs = Vec::with_capacity(sampling.pairs);
    while pairs.len() < sampling.pairs && start.elapsed() < sampling.budget {
        let subject = seconds_per_call(subject_repeats, state, &mut subject);
        rest(state);
        pairs.push((subject, seconds_per_call(copy_repeats, state, &mut copy)));
    }
    if pairs.is_empty() {
        pairs.push((subject_first, copy_first));
    }
    summary(&pairs)
}

/// How many calls make a sample of the wanted length, and the seconds per call seen.
fn calibrate<S: ?Sized>(
    sample: Duration,
    state: &mut S,
    call: &mut impl FnMut(&mut S),
) -> (u32, f64) {
    let mut repeats = 1;
    loop {
        let seconds = seconds_per_call(repeats, state, call);
        let wanted = (sample.as_secs_f64() / seconds.max(1e-9)).ceil() as u32;
        // The first, cold call misjudges what follows; what a sample of many says is good enough.
        if wanted <= repeats.saturating_mul(2) {
            return (wanted.max(1), seconds);
        }
        repeats = wanted;
    }
}

fn seconds_per_call<S: ?Sized>(repeats: u32, state: &mut S, call: &mut impl FnMut(&mut S)) -> f64 {
    let start = Instant::now();
    for _ in 0..repeats {
        call(state);
    }
    start.elapsed().as_secs_f64() / f64::from(repeats)
}

/// The medians of pairs of samples, each in seconds per call.
fn summary(pairs: &[(f64, f64)]) -> Measured {
    Measured {
        subject: median(pairs.iter().map(|pair| pair.0)),
        copy: median(pairs.iter().map(|pair| pair.1)),
        ratio: median(pairs.iter().map(|pair| pair.0 / pair.1)),
        pairs: pairs.len(),
    }
}

/// The median; of an even number of values, the mean of the two in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) {
        f64::midpoint(values[middle - 1], values[middle])
    } else {
        values[middle]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_the_median_of_the_pairs_not_the_ratio_of_the_medians() {
        // A machine that slows to a third after the first pair slows both.
        let measured = summary(&[(2.0, 1.0), (6.0, 3.0), (6.0, 4.0)]);
        assert_eq!(
            measured,
            Measured {
                subject: 6.0,
                copy: 3.0,
                ratio: 2.0,
                pairs: 3
            }
        );
        let measured = summary(&[(1.0, 1.0), (5.0, 1.0), (2.0, 1.0), (4.0, 1.0)]);
        assert_eq!(measured.ratio, 3.0);
    }

    #[test]
    fn samples_are_taken_in_turn_until_there_are_enough() {
        let sampling = Sampling {
            budget: Duration::from_secs(3600),
            sample: Duration::ZERO,
            pairs: 5,
        };
        let mut calls = String::new();
        let measured = in_turn(
            sampling,
            &mut calls,
            |calls| calls.push('a'),
            |calls| calls.push('b'),
        );
        assert_eq!(calls, "ab".repeat(1 + 5));
        assert_eq!(measured.pairs, 5);
    }

    #[test]
    fn each_sample_of_the_copy_comes_after_a_rest() {
        let sampling = Sampling {
            budget: Duration::from_secs(3600),
            sample: Duration::ZERO,
            pairs: 3,
        };
        let mut calls = String::new();
        in_turn_rested(
            sampling,
            &mut calls,
            |calls| calls.push('a'),
            |calls| calls.push('.'),
            |calls| calls.push('b'),
        );
        assert_eq!(calls, "a.b".repeat(1 + 3));
    }

    #[test]
    fn without_time_for_more_the_calls_that_warmed_up_are_the_sample() {
        let sampling = Sampling {
            budget: Duration::ZERO,
            sample: Duration::ZERO,
            pairs: 5,
        };
        let mut calls = String::new();
        let measured = in_turn(
            sampling,
            &mut calls,
            |calls| calls.push('a'),
            |calls| calls.push('b'),
        );
        assert_eq!(calls, "ab");
        assert_eq!(measured.pairs, 1);
    }

    #[test]
    fn short_calls_are_repeated_to_fill_a_sample() {
        let sampling = Sampling {
            budget: Duration::from_secs(3600),
            sample: Duration::from_micros(200),
            pairs: 1,
        };
        let mut calls = (0_u32, 0_u32);
        in_turn(
            sampling,
            &mut calls,
            |calls| calls.0 += 1,
            |calls| calls.1 += 1,
        );
        assert!(calls.0 > 100 && calls.1 > 100, "{calls:?}");
    }
}
