//! `cargo xtask stats`: builds the testing program of `stats/` and runs it.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::cargo::run_program;

/// Test the statistics of the masks (`cargo xtask stats --help` tells more).
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// Handed to the testing program, which knows them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Runs the command and returns the exit code of the testing program, which has said what failed.
///
/// # Errors
///
/// If the program cannot be built or started.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let package = ["--release", "--package=sorix-stats", "--bin=sorix-stats"];
    run_program(".", &package, &args.args)
}
