//! What several examples need to compare runs.

use std::ops::Range;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use rayon::iter::{IntoParallelIterator, ParallelIterator};

/// What `run` makes of each rate and seed, by rate and seed. Runs go side by side on the threads of the machine; what comes out
/// does not depend on how many there are. Each run moves the bar on by `ticks`, of what `unit` names.
pub(crate) fn run_all<O: Send>(
    rates: &[f64],
    seeds: u64,
    (ticks, unit): (u64, &str),
    run: impl Fn(f64, u64, &ProgressBar) -> Result<O> + Sync,
) -> Result<Vec<Vec<O>>> {
    let of_rate = |&rate| (0..seeds).map(move |seed| (rate, seed));
    let runs: Vec<(f64, u64)> = rates.iter().flat_map(of_rate).collect();
    let template = format!("{{bar:40}} {{pos}}/{{len}} {unit}, {{eta}} left");
    let style = ProgressStyle::with_template(&template)?;
    let progress = ProgressBar::new(runs.len() as u64 * ticks).with_style(style);
    let outcomes = runs
        .into_par_iter()
        .map(|(rate, seed)| run(rate, seed, &progress))
        .collect::<Result<Vec<O>>>()?;
    progress.finish_and_clear();
    let (mut outcomes, seeds) = (outcomes.into_iter(), usize::try_from(seeds)?);
    let by_rate = rates
        .iter()
        .map(|_| outcomes.by_ref().take(seeds).collect());
    Ok(by_rate.collect())
}

/// Mean and standard deviation of a sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) mean: f64,
    /// With one less than the count as divisor; 0 for a single value.
    pub(crate) deviation: f64,
}

impl Spread {
    pub(crate) fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let count = values.clone().count() as f64;
        let mean = values.clone().sum::<f64>() / count;
        let squares = values.map(|x| (x - mean) * (x - mean)).sum::<f64>();
        Self {
            mean,
            deviation: (squares / (count - 1.0).max(1.0)).sqrt(),
        }
    }

    /// Both ends of an error bar.
    pub(crate) fn ends(&self) -> [f64; 2] {
        [self.mean - self.deviation, self.mean + self.deviation]
    }
}

/// From the smallest to the largest value, with margins in parts of that.
pub(crate) fn range(
    values: impl Iterator<Item = f64> + Clone,
    below: f64,
    above: f64,
) -> Range<f64> {
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(f64::NEG_INFINITY, f64::max);
    let span = (high - low).max(0.01);
    low - below * span..high + above * span
}
