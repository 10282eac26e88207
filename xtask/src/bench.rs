//! `cargo xtask bench`: builds the measuring program of `benches/` and runs it, or with `--peers` the
//! one of `adapters/peers/`, which has the same rows and more.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::cargo::run_program;

/// Measure the kernels as ratios to a memory copy (`cargo xtask bench --help` tells more).
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// Handed to the measuring program, which knows them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Runs the command and returns the exit code of the measuring program, which has said what failed.
///
/// # Errors
///
/// If the program cannot be built or started.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    // What is compiled in must be known before the program can read its own arguments.
    let (workspace, package) = if args.args.iter().any(|arg| arg == "--peers") {
        (
            "adapters",
            ["--package=sorix-peers", "--bin=sorix-bench-peers"],
        )
    } else {
        (".", ["--package=sorix-benches", "--bin=sorix-bench"])
    };
    run_program(
        workspace,
        &["--release", package[0], package[1]],
        &args.args,
    )
}
