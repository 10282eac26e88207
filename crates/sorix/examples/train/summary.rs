//! Outcomes over several seeds, as mean and standard deviation.

use std::fmt::Write;

use crate::common::Spread;
use crate::experiment::{Outcome, Score};

/// A number to compare, and what it is called.
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) of: fn(&Score) -> f64,
}

pub(crate) const METRICS: [Metric; 2] = [
    Metric {
        name: "accuracy",
        of: |score| score.accuracy,
    },
    Metric {
        name: "cross entropy",
        of: |score| score.cross_entropy,
    },
];

/// Which set, and when.
pub(crate) struct Moment {
    pub(crate) name: &'static str,
    pub(crate) of: fn(&Outcome) -> Score,
}

pub(crate) const STOPPED: Moment = Moment {
    name: "test, early stopping",
    of: |outcome| outcome.stopped,
};

pub(crate) const LAST: Moment = Moment {
    name: "test, last epoch",
    of: |outcome| outcome.last,
};

const TRAIN: Moment = Moment {
    name: "training, last epoch",
    of: |outcome| outcome.train,
};

/// The outcomes as text, by rate and seed.
pub(crate) fn table(rates: &[f64], outcomes: &[Vec<Outcome>]) -> String {
    let mut text = String::new();
    let seeds = outcomes.first().map_or(0, Vec::len);
    let _ = writeln!(text, "\nmean ± standard deviation over {seeds} seeds");
    for moment in [STOPPED, LAST, TRAIN] {
        let _ = writeln!(text, "\n{}", moment.name);
        let [first, second] = METRICS.map(|metric| metric.name);
        let _ = writeln!(text, "  {:>4}  {first:>15}  {second:>15}", "p");
        for (rate, outcomes) in rates.iter().zip(outcomes) {
            let [first, second] = METRICS.map(|metric| {
                spread(
                    outcomes
                        .iter()
                        .map(|outcome| (metric.of)(&(moment.of)(outcome))),
                    "",
                )
            });
            let _ = writeln!(text, "  {rate:>4}  {first:>15}  {second:>15}");
        }
    }
    let Some((first, others)) = outcomes.split_first() else {
        return text;
    };
    let _ = writeln!(
        text,
        "\nwith early stopping, less the same seed's at p = {} (in brackets: seeds that were better)",
        rates[0]
    );
    for (rate, outcomes) in rates[1..].iter().zip(others) {
        let pairs = || outcomes.iter().zip(first);
        let accuracy = pairs().map(|(a, b)| a.stopped.accuracy - b.stopped.accuracy);
        let entropy = pairs().map(|(a, b)| a.stopped.cross_entropy - b.stopped.cross_entropy);
        let _ = writeln!(
            text,
            "  {rate:>4}  {} ({})  {} ({})",
            spread(accuracy.clone(), "+"),
            accuracy.filter(|&difference| difference > 0.0).count(),
            spread(entropy.clone(), "+"),
            entropy.filter(|&difference| difference < 0.0).count(),
        );
    }
    let epochs = |outcomes: &Vec<Outcome>| {
        let epochs = outcomes.iter().map(|outcome| outcome.best_epoch as f64);
        format!("{:.0}", Spread::of(epochs).mean)
    };
    let epochs: Vec<String> = outcomes.iter().map(epochs).collect();
    let _ = writeln!(
        text,
        "\nmean epoch of the lowest validation loss: {}",
        epochs.join(", ")
    );
    text
}

fn spread(values: impl Iterator<Item = f64> + Clone, sign: &str) -> String {
    let Spread { mean, deviation } = Spread::of(values);
    if sign.is_empty() {
        format!("{mean:.3} ± {deviation:.3}")
    } else {
        format!("{mean:+.3} ± {deviation:.3}")
    }
}
