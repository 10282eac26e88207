//! Does dropout help? An MLP on the red wines of the wine-quality data, with and without.
//!
//! ```text
//! cargo run --release --example train
//! ```
//!
//! `README.md` beside this file says what was seen.

mod chart;
#[path = "../common/mod.rs"]
mod common;
mod data;
mod experiment;
mod summary;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Parser;
use indicatif::ProgressBar;

use self::data::Table;
use self::experiment::Plan;

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
    let (epochs, hidden) = (args.epochs, args.hidden);
    let run = |rate, seed, progress: &ProgressBar| {
        let plan = Plan {
            rate,
            seed,
            epochs,
            hidden,
        };
        let outcome = experiment::run(&table, &plan);
        progress.inc(1);
        outcome
    };
    let outcomes = common::run_all(&args.rates, args.seeds, (1, "runs"), run)?;
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
