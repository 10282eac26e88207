//! Outcomes over several seeds, as mean and standard deviation.

use std::fmt::Write;

use crate::common::Spread;
use crate::experiment::Outcome;

/// The outcomes as text, by rate and seed.
pub(crate) fn table(rates: &[f64], outcomes: &[Vec<Outcome>]) -> String {
    let mut text = String::new();
    let seeds = outcomes.first().map_or(0, Vec::len);
    let _ = writeln!(
        text,
        "\nloss in nats a character, mean ± standard deviation over {seeds} seeds"
    );
    let columns = [
        "test, stopped early",
        "test, last step",
        "training, last step",
    ];
    let [first, second, third] = columns;
    let _ = writeln!(
        text,
        "  {:>4}  {first:>20}  {second:>20}  {third:>20}  best step",
        "p"
    );
    for (rate, outcomes) in rates.iter().zip(outcomes) {
        let spread = |of: fn(&Outcome) -> f64| {
            let Spread { mean, deviation } = Spread::of(outcomes.iter().map(of));
            format!("{mean:.3} ± {deviation:.3}")
        };
        let (stopped, last) = (spread(|o| o.stopped), spread(|o| o.last));
        let train = spread(|o| o.train);
        let step = Spread::of(outcomes.iter().map(|o| o.best_step as f64)).mean;
        let _ = writeln!(
            text,
            "  {rate:>4}  {stopped:>20}  {last:>20}  {train:>20}  {step:>9.0}"
        );
    }
    let Some((first, others)) = outcomes.split_first() else {
        return text;
    };
    let _ = writeln!(
        text,
        "\ntest less the same seed's at p = {} (in brackets: seeds that were better)",
        rates[0]
    );
    for (rate, outcomes) in rates[1..].iter().zip(others) {
        let difference = |of: fn(&Outcome) -> f64| {
            let pairs = outcomes.iter().zip(first);
            let differences = pairs.map(|(a, b)| of(a) - of(b));
            let better = differences.clone().filter(|&d| d < 0.0).count();
            let Spread { mean, deviation } = Spread::of(differences);
            format!("{mean:+.3} ± {deviation:.3} ({better})")
        };
        let (stopped, last) = (difference(|o| o.stopped), difference(|o| o.last));
        let _ = writeln!(
            text,
            "  {rate:>4}  stopped early {stopped}, last step {last}"
        );
    }
    text
}
