//! `sorix-stats`, the program behind `cargo xtask stats`.

#![forbid(unsafe_code)]

use std::io;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Parser;
use sorix_kernels::{DropRate, Keep, MaskKey, dispatch};
use sorix_stats::battery::{self, Outcome};
use sorix_stats::emit::emit;
use sorix_stats::plan::Plan;
use sorix_stats::report::Verdict;
use sorix_stats::stream::{Along, Sorix, Stream};

/// Tests the statistics of the masks: rates, independence, runs.
///
/// The same seed gives the same p-values on every machine. docs/statistics.md says what is tested
/// and what the tests cannot show.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask stats",
    bin_name = "cargo xtask stats",
    disable_version_flag = true
)]
struct Args {
    /// Look at fewer elements: seconds instead of a minute or two.
    #[arg(long, conflicts_with = "long")]
    quick: bool,

    /// Look at eight times as many elements.
    #[arg(long)]
    long: bool,

    /// The seed of the masks; where successive seeds are looked at, the first of them.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Test nothing and write random bytes made from masks of this p to standard output: at 0.5 the
    /// decisions, otherwise fair bits made of them by von Neumann's pairs.
    #[arg(long, value_name = "P", conflicts_with_all = ["quick", "long", "battery"])]
    emit: Option<f64>,

    /// End after so many bytes [default: when the reader ends].
    #[arg(long, value_name = "N", requires = "emit")]
    bytes: Option<u64>,

    /// From which masks the bytes are made.
    #[arg(long, value_enum, value_name = "WAY", default_value_t = Along::Elements)]
    along: Along,

    /// Feed dieharder and PractRand (RNG_test), where they are installed, with the bits of p = 0.5
    /// and 0.1. Takes an hour.
    #[arg(long, conflicts_with_all = ["quick", "long"])]
    battery: bool,

    /// So many bytes for PractRand.
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "16GB",
        requires = "battery"
    )]
    practrand: String,
}

impl Args {
    fn stream(&self, p: f64) -> Result<Stream<'static>> {
        let rate = DropRate::new(p)?;
        ensure!(
            matches!(rate.keep(), Keep::By(_)),
            "a mask of p = {p} has no random bits"
        );
        Ok(Stream {
            source: &Sorix,
            rate,
            key: MaskKey::new(self.seed, 0),
            along: self.along,
        })
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let passed = match args.emit {
        Some(p) => emit_bytes(&args, p).map(|()| true),
        None if args.battery => run_batteries(&args),
        None => run_tests(&args),
    };
    match passed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn emit_bytes(args: &Args, p: f64) -> Result<()> {
    emit(&args.stream(p)?, args.bytes, &mut io::stdout().lock())
}

fn run_batteries(args: &Args) -> Result<bool> {
    let mut passed = true;
    for p in [0.5, 0.1] {
        let stream = args.stream(p)?;
        println!(
            "dieharder, p = {p}, along {}, seed {}",
            args.along, args.seed
        );
        let outcome = battery::dieharder(&stream)?;
        if outcome == Outcome::Missing {
            println!("left out: there is no dieharder on PATH (Debian: apt-get install dieharder)");
        }
        passed &= outcome != Outcome::Failed;
        println!(
            "PractRand, p = {p}, along {}, seed {}",
            args.along, args.seed
        );
        let outcome = battery::practrand(&stream, &args.practrand)?;
        if outcome == Outcome::Missing {
            println!("left out: there is no RNG_test on PATH (PractRand, to be built from source)");
        }
        passed &= outcome != Outcome::Failed;
    }
    Ok(passed)
}

fn run_tests(args: &Args) -> Result<bool> {
    let plan = match (args.quick, args.long) {
        (true, _) => Plan::quick(args.seed),
        (_, true) => Plan::long(args.seed),
        _ => Plan::usual(args.seed),
    };
    let start = Instant::now();
    let tables = plan.run(&Sorix)?;
    for table in &tables {
        println!("{table}");
    }
    let verdict = Verdict::over(&tables);
    println!("{verdict}");
    println!(
        "seed {}, backend {}, {:.0} s",
        args.seed,
        dispatch::active()?.name(),
        start.elapsed().as_secs_f64()
    );
    Ok(verdict.failures.is_empty())
}
