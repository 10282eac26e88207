//! The program behind `cargo xtask bench`: `sorix-bench`, or `sorix-bench-peers` of the adapters
//! workspace, which brings the frameworks along.

use std::iter;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use crate::case::{Case, Dtype, Shape, selected};
use crate::html;
use crate::layers::Layer;
use crate::machine::{Machine, cores, memory_budget};
use crate::peers::{self, Frameworks, Peer};
use crate::record;
use crate::report::{Report, check_writable, with_stray_copies_named, write};
use crate::runner::{LayerCase, PeerCase, Plan};
use crate::sample::Sampling;
use crate::scaling;
use crate::step;
use crate::{attention, chain};
use anyhow::{Result, bail, ensure};
use clap::{Parser, value_parser};
use sorix_kernels::backend::Backend;
use sorix_kernels::dispatch;

/// Measures the kernels on activation tensors, as ratios to a memory copy sampled in turn.
///
/// A ratio of 1.00 means: as fast as copying the tensor with the same threads. Every kernel is
/// compared with the reference, bit for bit, before it is timed.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask bench",
    bin_name = "cargo xtask bench",
    disable_version_flag = true
)]
struct Args {
    /// Take fewer samples: all rows but those of peers in some two minutes, half of which attention of 4,096
    /// queries takes.
    #[arg(long)]
    quick: bool,

    /// Measure this backend alone; may be given several times [default: all this CPU has, but not
    /// `reference`].
    #[arg(long, value_name = "NAME")]
    backend: Vec<String>,

    /// Measure on this many threads alone; may be given several times [default: 1 and all].
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..))]
    threads: Vec<u16>,

    /// Measure only the rows whose id `op/dtype/backend/size` contains this, for instance
    /// `forward/f32`, `avx2/1Mi` or `8x128x768`; `step` for the training steps, `chain` for fused operations
    /// against those apart, `softmax_dropout`, `attention`, `attention_backward` and `transformer_step` for these.
    #[arg(long, value_name = "SUBSTRING")]
    filter: Option<String>,

    /// Measure the dropout of other libraries as well, and sorix's layers in them (compiles candle
    /// and burn).
    #[arg(long)]
    peers: bool,

    /// Measure forward and backward of f32 on several threads as a ratio to the same call on one: inside
    /// pools of `--threads`, and outside rayon's global pool, the threads of which `RAYON_NUM_THREADS` says.
    #[arg(long, conflicts_with = "peers")]
    scaling: bool,

    /// Append the table to the file of this processor model in `benches/record/`.
    #[arg(long, conflicts_with_all = ["scaling", "quick"])]
    record: bool,

    /// Write the rows as JSON.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,

    /// Write a page with plots, readable in a browser without network.
    #[arg(long, value_name = "PATH")]
    html: Option<PathBuf>,
}

/// Parses the arguments, measures, and says what failed. `--peers` needs `frameworks`.
#[must_use]
pub fn main(frameworks: Option<Frameworks>) -> ExitCode {
    match run(&Args::parse(), frameworks) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args, frameworks: Option<Frameworks>) -> Result<()> {
    let start = Instant::now();
    let frameworks = match frameworks {
        Some(frameworks) if args.peers => frameworks,
        None if args.peers => {
            bail!("built without other libraries; run `cargo xtask bench --peers`")
        }
        _ => Frameworks::default(),
    };
    let backends = backends(&args.backend)?;
    for path in [&args.json, &args.html].into_iter().flatten() {
        check_writable(path)?;
    }
    if args.scaling {
        return scaling(args, &backends);
    }
    ensure!(
        args.json.is_none() || args.json != args.html,
        "--json and --html name the same file"
    );

    let threads = threads(&args.threads);
    let filter = args.filter.as_deref();
    let (peers, mut left_out) = if args.peers {
        peers::available(frameworks.peers)
    } else {
        Default::default()
    };
    let mut plan = Plan {
        cases: Case::all(&backends, &threads, filter),
        layers: layer_cases(&backends, &threads, filter)?,
        peers: peer_cases(&peers, &threads, filter),
        sampling: if args.quick {
            Sampling::QUICK
        } else {
            Sampling::FULL
        },
        memory: memory_budget(),
    };
    let steps = step::selected(filter);
    let step_peers = if steps {
        let made = frameworks.steps.into_iter();
        made.map(|(name, make)| Ok((name, make()?)))
            .collect::<Result<_>>()?
    } else {
        Vec::new()
    };
    if let (Some(filter), true) = (
        filter,
        plan.is_empty() && !steps && !chain::selected(filter) && !attention::selected(filter),
    ) {
        let example = Case::all(&backends, &threads, None);
        let example = example.first().map_or_else(String::new, Case::id);
        bail!("no row has {filter:?} in its id; an id is like {example:?}");
    }
    left_out.extend(plan.fit_memory().into_iter().map(|line| {
        format!(
            "left out: {line}, more than the {} MiB to spare",
            plan.memory >> 20
        )
    }));
    for line in &left_out {
        eprintln!("{line}");
    }

    let machine = Machine::here(args.quick);
    eprintln!(
        "{} rows on {} with {} threads at once: {}",
        plan.len(),
        machine.cpu,
        machine.cores,
        backends
            .iter()
            .map(|backend| backend.name())
            .collect::<Vec<_>>()
            .join(", "),
    );
    let mut report = Report {
        machine,
        rows: with_stray_copies_named(plan.run()?),
        steps: if steps {
            step::run(plan.sampling, &threads, &step_peers)?
        } else {
            Vec::new()
        },
    };
    report
        .steps
        .extend(chain::run(plan.sampling, &threads, filter)?);
    report.steps.extend(attention::run(
        plan.sampling,
        &threads,
        filter,
        &frameworks.attention,
    )?);

    if !report.rows.is_empty() {
        println!("{}", report.table());
        println!(
            "Ratio to a copy of the same bytes by the same threads: 1.00 is a copy, less is faster."
        );
        if report.rows.iter().any(|row| row.copy_strays.is_some()) {
            println!(
                "*: the copy beside this row took over twice, or under half, what copies of its size \
                 took beside the others; the ratio says little."
            );
        }
    }
    if !report.steps.is_empty() {
        println!("{}", step::table(&report.steps));
    }
    if args.record {
        let path = record::write(&report)?;
        println!("wrote {}", path.display());
    }
    if let Some(path) = &args.json {
        write(path, &report.json()?)?;
        println!("wrote {}", path.display());
    }
    if let Some(path) = &args.html {
        write(path, &html::page(&report))?;
        println!("wrote {}", path.display());
    }
    println!(
        "{} rows in {:.1} s",
        report.rows.len() + report.steps.len(),
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

/// `--scaling`.
fn scaling(args: &Args, backends: &[&'static dyn Backend]) -> Result<()> {
    let threads: Vec<usize> = if args.threads.is_empty() {
        iter::successors(Some(2), |n| Some(2 * n))
            .take_while(|&n| n <= cores())
            .collect()
    } else {
        threads(&args.threads)
    };
    let sampling = if args.quick {
        Sampling::QUICK
    } else {
        Sampling::FULL
    };
    let filter = args.filter.as_deref();
    let report = Report {
        machine: Machine::here(args.quick),
        rows: scaling::rows(backends, &threads, filter, sampling)?,
        steps: Vec::new(),
    };
    println!("{}", report.table());
    println!("Ratio to the same call on one thread: 0.50 is twice as fast.");
    if let Some(path) = &args.json {
        write(path, &report.json()?)?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

/// The backends named, or all but the reference, which is for comparing and not for speed.
fn backends(names: &[String]) -> Result<Vec<&'static dyn Backend>> {
    if names.is_empty() {
        let all = dispatch::available().iter().copied();
        return Ok(all
            .filter(|backend| backend.name() != "reference")
            .collect());
    }
    let mut backends: Vec<&dyn Backend> = Vec::new();
    for name in names {
        let backend = dispatch::by_name(name)?;
        if backends.iter().all(|other| other.name() != backend.name()) {
            backends.push(backend);
        }
    }
    Ok(backends)
}

/// The numbers of threads asked for, or one and all.
fn threads(asked: &[u16]) -> Vec<usize> {
    let mut threads: Vec<usize> = asked.iter().copied().map(Into::into).collect();
    if threads.is_empty() {
        threads = vec![1, cores()];
    }
    threads.sort_unstable();
    threads.dedup();
    threads
}

/// The layers, where the active backend is one of those to measure.
fn layer_cases(
    backends: &[&'static dyn Backend],
    threads: &[usize],
    filter: Option<&str>,
) -> Result<Vec<LayerCase>> {
    let backend = dispatch::active()?.name();
    if backends.iter().all(|other| other.name() != backend) {
        return Ok(Vec::new());
    }
    let selected = |layer: &Layer| filter.is_none_or(|filter| layer.id(backend).contains(filter));
    let layers = Layer::ALL.into_iter().filter(selected);
    Ok(layers
        .flat_map(|layer| {
            threads.iter().map(move |&threads| LayerCase {
                layer,
                backend,
                threads,
            })
        })
        .collect())
}

fn peer_cases<'p>(
    peers: &'p [Box<dyn Peer>],
    threads: &[usize],
    filter: Option<&str>,
) -> Vec<PeerCase<'p>> {
    let mut cases = Vec::new();
    for shape in Shape::ALL {
        for peer in peers {
            for &op in peer.ops() {
                if !selected(filter, op, Dtype::F32, peer.backend(), shape) {
                    continue;
                }
                for &p in op.rates() {
                    for &threads in threads.iter().filter(|&&n| n == 1 || peer.threaded()) {
                        cases.push(PeerCase {
                            peer: peer.as_ref(),
                            op,
                            shape,
                            threads,
                            p,
                        });
                    }
                }
            }
        }
    }
    cases
}
