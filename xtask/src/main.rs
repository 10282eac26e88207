//! `cargo xtask`: the commands a person types in this repository.

#![forbid(unsafe_code)]

mod bench;
mod cargo;
mod fuzz;
mod nightly;
mod public_api;
mod release_check;
mod sanitize;
mod stats;
mod step;
mod test;
mod test_adapters;
mod test_neon;
mod test_python;

use std::process::ExitCode;

use clap::Parser;

/// The commands a person types in this repository.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
enum Command {
    Test(test::Args),
    TestAdapters(test_adapters::Args),
    TestNeon(test_neon::Args),
    TestPython(test_python::Args),
    Bench(bench::Args),
    Fuzz(fuzz::Args),
    Stats(stats::Args),
    Sanitize(sanitize::Args),
    PublicApi(public_api::Args),
    ReleaseCheck(release_check::Args),
}

fn main() -> ExitCode {
    if let Some(code) = public_api::as_rustdoc() {
        return code;
    }
    let outcome = match Command::parse() {
        Command::Test(args) => test::run(&args).map(|()| ExitCode::SUCCESS),
        Command::TestAdapters(args) => test_adapters::run(&args).map(|()| ExitCode::SUCCESS),
        Command::TestNeon(args) => test_neon::run(&args).map(|()| ExitCode::SUCCESS),
        Command::TestPython(args) => test_python::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Bench(args) => bench::run(&args),
        Command::Fuzz(args) => fuzz::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Stats(args) => stats::run(&args),
        Command::Sanitize(args) => sanitize::run(&args).map(|()| ExitCode::SUCCESS),
        Command::PublicApi(args) => public_api::run(&args).map(|()| ExitCode::SUCCESS),
        Command::ReleaseCheck(args) => release_check::run(&args).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
