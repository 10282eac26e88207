//! `cargo xtask bench`: builds the measuring program of `benches/` and runs it, or with `--peers` the
//! one of `adapters/peers/`, which has the same rows and more, and then `python/bench/torch_dropout.py`,
//! which measures the Python package against PyTorch.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::cargo::{Workspace, run_program, succeed};
use crate::test_python::Package;

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
    let peers = args.args.iter().any(|arg| arg == "--peers");
    let (workspace, package) = if peers {
        (
            "adapters",
            ["--package=sorix-peers", "--bin=sorix-bench-peers"],
        )
    } else {
        (".", ["--package=sorix-benches", "--bin=sorix-bench"])
    };
    let code = run_program(
        workspace,
        &["--release", package[0], package[1]],
        &args.args,
    )?;
    let asks_only = args.args.iter().any(|arg| arg == "--help" || arg == "-h");
    if peers && !asks_only && code == ExitCode::SUCCESS {
        package_in_pytorch(&args.args)?;
    }
    Ok(code)
}

/// Measures `sorix.torch` against PyTorch, in the environment that `cargo xtask test-python` makes.
fn package_in_pytorch(args: &[OsString]) -> Result<()> {
    let package = Package::at(&Workspace::read()?.target);
    if !package.has_torch() {
        println!(
            "\nsorix.torch is not measured: there is no PyTorch in target/python/newest; \
             `cargo xtask test-python --torch environment` installs it"
        );
        return Ok(());
    }
    // An older build may be installed.
    for mut command in package.build_and_install() {
        succeed(&mut command)?;
    }
    println!("\nsorix.torch against PyTorch, in turn in one process");
    succeed(
        package
            .program("bench/torch_dropout.py")
            .args(of_both(args)),
    )
}

/// The options that this program has, too.
fn of_both(args: &[OsString]) -> Vec<&OsString> {
    const WITH_A_VALUE: [&str; 3] = ["--threads", "--filter", "--json"];
    let mut handed_on = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy();
        if WITH_A_VALUE.contains(&&*text) {
            handed_on.push(arg);
            handed_on.extend(args.next());
        } else if text == "--quick"
            || WITH_A_VALUE.iter().any(|name| {
                text.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with('='))
            })
        {
            handed_on.push(arg);
        }
    }
    handed_on
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_both_programs_are_handed_on_with_their_values() {
        let args = "--peers --quick --backend avx2 --threads 2 --filter=step --json rows.json";
        let args: Vec<_> = args.split(' ').map(OsString::from).collect();
        let expected = "--quick --threads 2 --filter=step --json rows.json";
        assert_eq!(of_both(&args), Vec::from_iter(expected.split(' ')));
    }
}
