//! `cargo xtask test-adapters`: what must pass in `adapters/`, a workspace of its own.

use anyhow::Result;

use crate::cargo::{Workspace, call_nested};
use crate::step::{Action, Outcome, Step, Which};
use crate::test::check_dependencies;

/// Build and test sorix in other frameworks (compiles candle and burn; needs Rust 1.95).
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    which: Which,
}

/// Runs the command.
///
/// # Errors
///
/// If a step fails, or one is named that there is not.
pub(crate) fn run(args: &Args) -> Result<()> {
    args.which
        .run("cargo xtask test-adapters", steps(&Workspace::read()?))
}

fn steps(workspace: &Workspace) -> Vec<Step> {
    let call = |words: &str, last: &[&str]| call_nested("adapters", &workspace.target, words, last);
    let mut doc = call("doc --workspace --no-deps", &[]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    vec![
        Step::new(
            "fmt",
            "the code is formatted",
            Action::Run(vec![call("fmt --all", &["--check"])]),
        ),
        Step::new(
            "deny",
            "licences and sources of dependencies",
            Action::Try(deny),
        ),
        Step::new(
            "clippy",
            "no warnings, in all targets",
            Action::Run(vec![call(
                "clippy --workspace --all-targets",
                &["--", "-D", "warnings"],
            )]),
        ),
        Step::new(
            "docs",
            "the documentation builds without warnings",
            Action::Run(vec![doc]),
        ),
        Step::new(
            "tests",
            "all tests, and the examples in the documentation; each framework can be measured",
            Action::Run(vec![call("test --workspace", &[])]),
        ),
    ]
}

fn deny() -> Result<Outcome> {
    check_dependencies("adapters")
}
