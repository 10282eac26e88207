//! Dropout in a transformer: a language model of characters, trained on a book of Cicero, with and without.
//!
//! ```text
//! cargo run --release --features safetensors --example transformer
//! ```
//!
//! `README.md` beside this file says what was seen.

mod chart;
mod claims;
#[path = "../common/mod.rs"]
mod common;
mod experiment;
mod model;
mod summary;
mod text;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Parser;
use indicatif::ProgressBar;

use self::experiment::{Plan, Trainer};
use self::model::{HEADS, Size};
use self::text::Text;

/// Trains a small transformer that is too large for its text, with several drop probabilities, and compares
/// what it makes of text it has not seen.
#[derive(Debug, Parser)]
struct Args {
    /// The drop probabilities; the others are compared with the first.
    #[arg(
        long,
        value_name = "P",
        value_delimiter = ',',
        default_value = "0,0.1,0.2"
    )]
    rates: Vec<f64>,

    /// The number of seeds; each has its own first weights and batches.
    #[arg(long, default_value_t = 3)]
    seeds: u64,

    /// Steps of a run, each of 16 samples.
    #[arg(long, default_value_t = 2000)]
    steps: u64,

    /// Numbers that stand for a character within the model, divisible by 4, the number of heads.
    #[arg(long, default_value_t = 64)]
    width: usize,

    /// Layers of the transformer.
    #[arg(long, default_value_t = 2)]
    layers: usize,

    /// Characters that the model sees at once.
    #[arg(long, default_value_t = 64)]
    context: usize,

    /// Where to draw the chart.
    #[arg(long, value_name = "PATH", default_value = "transformer.svg")]
    out: PathBuf,

    /// Only show that all works, in seconds: two seeds, 30 steps, width 16, one layer, 16 characters.
    #[arg(long)]
    quick: bool,
}

impl Args {
    fn plan(&self, rate: f64, seed: u64) -> Plan {
        Plan {
            size: Size {
                rate,
                width: self.width,
                layers: self.layers,
                context: self.context,
            },
            seed,
            steps: self.steps,
        }
    }
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.quick {
        (args.seeds, args.steps, args.context) = (2, 30, 16);
        (args.width, args.layers) = (16, 1);
    }
    ensure!(args.seeds > 0, "expected at least one seed");
    ensure!(args.steps > 0, "expected at least one step");
    ensure!(!args.rates.is_empty(), "expected at least one rate");

    let text = Text::cicero(args.context)?;
    let model = Trainer::new(&text, &args.plan(args.rates[0], 0))?.model;
    println!(
        "{} characters to train, {} to validate, {} to test, {} different ones; {} parameters, {HEADS} heads",
        text.train.len(),
        text.validation.len(),
        text.test.len(),
        text.characters(),
        model.parameters(),
    );
    let plan = args.plan(0.2, 0);
    let elements = claims::checkpointing_changes_no_gradient(&text, &plan)?;
    println!(
        "gradient checkpointing: all {elements} elements of the gradients are equal bit for bit"
    );
    let bytes = claims::a_training_goes_on(&text, &plan, 5)?;
    println!(
        "5 steps, a checkpoint of {bytes} bytes, 5 more: losses and weights are those of 10 steps, bit for bit"
    );

    let begun = Instant::now();
    let run = |rate, seed, progress: &ProgressBar| {
        experiment::run(&text, &args.plan(rate, seed), || progress.inc(1))
    };
    let outcomes = common::run_all(&args.rates, args.seeds, (args.steps, "steps"), run)?;
    print!("{}", summary::table(&args.rates, &outcomes));
    for (rate, outcomes) in args.rates.iter().zip(&outcomes) {
        println!("\np = {rate} goes on:\n{}", outcomes[0].sample);
    }
    chart::draw(&args.out, &args.rates, &outcomes)?;
    println!(
        "\n{} runs in {:.0} s, chart in {}",
        outcomes.iter().map(Vec::len).sum::<usize>(),
        begun.elapsed().as_secs_f64(),
        args.out.display()
    );
    Ok(())
}
