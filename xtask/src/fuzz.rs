//! `cargo xtask fuzz`: the targets of `fuzz/`, each for a while.

use std::fs;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::{line, root, succeed};
use crate::nightly::Nightly;

/// Run the fuzz targets, each for a while, from the seeds and what earlier runs found.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run these targets alone [default: all].
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,

    /// How long each target runs.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

/// Runs the command.
///
/// # Errors
///
/// If a tool is missing, a target is named that there is not, or a target finds something.
pub(crate) fn run(args: &Args) -> Result<()> {
    let all = targets()?;
    if let Some(name) = args.targets.iter().find(|name| !all.contains(name)) {
        bail!("no target is called {name:?}; there are {}", all.join(", "));
    }
    let targets = if args.targets.is_empty() {
        &all
    } else {
        &args.targets
    };
    let nightly = Nightly::find().context("cannot fuzz")?;
    ensure!(
        nightly.has("fuzz"),
        "cannot fuzz: cargo-fuzz is not installed: `cargo install cargo-fuzz`"
    );

    let (mut ran, mut failed) = (Vec::new(), Vec::new());
    for target in targets {
        println!("==> {target}: {} s", args.seconds);
        succeed(nightly.cargo().args(["fuzz", "build", target]))?;
        let executions = fuzz(nightly, target, args.seconds)?;
        if executions.is_none() {
            failed.push(target.as_str());
        }
        ran.push((target, executions));
    }

    println!(
        "\n{:12} {:>12} {:>10}",
        "target", "executions", "per second"
    );
    for (target, executions) in ran {
        match executions {
            Some(count) => println!("{target:12} {count:>12} {:>10}", count / args.seconds),
            None => println!("{target:12} {:>12}", "FAILED"),
        }
    }
    ensure!(
        failed.is_empty(),
        "something was found by {}",
        failed.join(", ")
    );
    Ok(())
}

/// The names of the programs in `fuzz/fuzz_targets/`.
fn targets() -> Result<Vec<String>> {
    let directory = root().join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        names.extend(
            path.file_stem()
                .and_then(|name| name.to_str())
                .map(str::to_owned),
        );
    }
    names.sort();
    Ok(names)
}

/// Runs a target and returns how many inputs it was given, or `None` where it found something,
/// which it has then said.
fn fuzz(nightly: Nightly, target: &str, seconds: u64) -> Result<Option<u64>> {
    // libFuzzer writes what it finds to the first directory; the seeds are only read.
    let corpus = format!("fuzz/corpus/{target}");
    fs::create_dir_all(root().join(&corpus)).with_context(|| corpus.clone())?;
    let mut command = nightly.cargo();
    command
        .args(["fuzz", "run", target, &corpus])
        .arg(format!("fuzz/corpus-seeds/{target}"))
        .arg("--")
        .arg(format!("-max_total_time={seconds}"))
        // An input that takes a minute is a finding as well.
        .args(["-timeout=60", "-print_final_stats=1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", line(&command)))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        eprintln!("{said}");
        return Ok(None);
    }
    let executions = executions(&said);
    ensure!(
        executions.is_some(),
        "{target} did not say how often it ran:\n{said}"
    );
    Ok(executions)
}

/// What libFuzzer's statistics say.
fn executions(said: &str) -> Option<u64> {
    let count = said
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?;
    count.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executions_are_read_from_the_final_statistics() {
        let said = "Done 812 runs in 11 second(s)\nstat::number_of_executed_units: 812\n\
                    stat::average_exec_per_sec:     73\n";
        assert_eq!(executions(said), Some(812));
        assert_eq!(executions("Done 812 runs in 11 second(s)\n"), None);
    }

    #[test]
    fn the_targets_are_the_programs() {
        let targets = targets().unwrap();
        assert!(targets.contains(&"kernels".into()), "{targets:?}");
        assert!(targets.is_sorted());
    }
}
