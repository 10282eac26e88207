//! Does dropout help? An MLP on the red wines of the wine-quality data, with and without.
//!
//! ```text
//! cargo run --release --example train
//! ```
//!
//! `README.md` beside this file says what was seen.

mod chart;
mod data;
mod experiment;
mod summary;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use self::data::Table;
use self::experiment::{Outcome, Plan};

/// Trains a network that is too large for its data, with several drop probabilities, and compares
/// what it makes of wines it has not seen.
#[derive(Debug, Parser)]
struct Args {
    /// The drop probabilities; the others are compared with the first.
    #[arg(
        long,
        value_name = "P",
        value_delimiter = ',',
        default_value = "0,0.2,0.4,0.6,0.8"
    )]
    rates: Vec<f64>,

    /// The number of seeds; each has its own split of the data and its own first weights.
    #[arg(long, default_value_t = 10)]
    seeds: u64,

    /// Passes over the training data.
    #[arg(long, default_value_t = 100)]
    epochs: usize,

    /// Units in each of the two hidden layers.
    #[arg(long, default_value_t = 256)]
    hidden: usize,

    /// Where to draw the chart.
    #[arg(long, value_name = "PATH", default_value = "train.svg")]
    out: PathBuf,

    /// Only show that all works, in seconds: two seeds, three epochs, 16 units.
    #[arg(long)]
    quick: bool,
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.quick {
        (args.seeds, args.epochs, args.hidden) = (2, 3, 16);
    }
    ensure!(args.seeds > 0, "expected at least one seed");
    ensure!(args.epochs > 0, "expected at least one epoch");

    let table = Table::wine_quality()?;
    println!(
        "{} wines ({} repeated ones left out), {} measurements, {} grades",
        table.len(),
        table.repeated(),
        table.width(),
        table.grades(),
    );
    let begun = Instant::now();
    let outcomes = run_all(&args, &table)?;
    print!("{}", summary::table(&args.rates, &outcomes));
    chart::draw(&args.out, &args.rates, &outcomes)?;
    println!(
        "\n{} runs in {:.0} s, chart in {}",
        outcomes.iter().map(Vec::len).sum::<usize>(),
        begun.elapsed().as_secs_f64(),
        args.out.display()
    );
    Ok(())
}

/// The outcomes by rate and seed. Runs go side by side on the threads of the machine; what comes out
/// does not depend on how many there are.
fn run_all(args: &Args, table: &Table) -> Result<Vec<Vec<Outcome>>> {
    let plans: Vec<Plan> = args
        .rates
        .iter()
        .flat_map(|&rate| {
            (0..args.seeds).map(move |seed| Plan {
                rate,
                seed,
                epochs: args.epochs,
                hidden: args.hidden,
            })
        })
        .collect();
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} runs, {eta} left")?;
    let progress = ProgressBar::new(plans.len() as u64).with_style(style);
    let outcomes = plans
        .into_par_iter()
        .map(|plan| {
            let outcome = experiment::run(table, &plan);
            progress.inc(1);
            outcome
        })
        .collect::<Result<Vec<Outcome>>>()?;
    progress.finish_and_clear();
    let by_rate = outcomes.chunks(usize::try_from(args.seeds)?);
    Ok(by_rate.map(<[Outcome]>::to_vec).collect())
}
