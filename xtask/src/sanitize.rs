//! `cargo xtask sanitize`: the tests again, under tools that see what a test cannot.
//!
//! AddressSanitizer sees memory read or written out of bounds or after it was freed, in the kernels
//! and whatever rests on them. ThreadSanitizer sees races, in the storage pool and the graph. Miri
//! sees any undefined behaviour, in what it can interpret: not in the intrinsics.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cargo::Workspace;
use crate::nightly::Nightly;
use crate::step::{Action, Step, run_steps};

/// The sanitizers need to be told the target, or they would be built into build scripts as well.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Run the tests of the kernels and of the core under AddressSanitizer, ThreadSanitizer and Miri.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Go on after a step that failed.
    #[arg(long)]
    keep_going: bool,
}

/// Runs the command.
///
/// # Errors
///
/// If there is no nightly compiler, if this machine is not the target, and if something is found.
pub(crate) fn run(args: &Args) -> Result<()> {
    let nightly = Nightly::find().context("cannot sanitize")?;
    ensure!(
        cfg!(all(target_arch = "x86_64", target_os = "linux")),
        "cannot sanitize: this is set up for {TARGET} alone"
    );
    let workspace = Workspace::read()?;

    // The kernels first: they are where `unsafe` is, and built sooner.
    let address = ["sorix-kernels", "sorix-core"].map(|package| {
        let mut command = tests(nightly, &workspace, "address");
        command.args(["--lib", "--tests", "--all-features", "--package", package]);
        command
    });

    let steps = vec![
        Step::new(
            "address",
            "the kernels and the core under AddressSanitizer",
            Action::Run(address.into()),
        ),
        Step::new(
            "thread",
            "the storage pool and the graph under ThreadSanitizer",
            thread(nightly, &workspace),
        ),
        Step::new(
            "miri",
            "masks, the portable backend and the storage under Miri",
            miri(nightly, &workspace),
        ),
    ];
    run_steps("cargo xtask sanitize", steps, args.keep_going)
}

/// `cargo test` with a sanitizer built in, in a directory of its own.
fn tests(nightly: Nightly, workspace: &Workspace, sanitizer: &str) -> Command {
    let mut command = nightly.cargo();
    command
        .args(["test", "--target", TARGET, "--target-dir"])
        .arg(workspace.target.join("sanitize").join(sanitizer))
        .env("RUSTFLAGS", format!("-Zsanitizer={sanitizer}"))
        // A failed allocation has to be an error there, too.
        .env("ASAN_OPTIONS", "allocator_may_return_null=1")
        .env("TSAN_OPTIONS", "allocator_may_return_null=1")
        // Instrumented code is slow enough; debug assertions stay.
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
    command
}

/// Only with a standard library that is instrumented as well: what a mutex of another one orders
/// looks like a race.
fn thread(nightly: Nightly, workspace: &Workspace) -> Action {
    if !nightly.has_source() {
        return Action::Skip(
            "ThreadSanitizer needs an instrumented standard library, and its source is not \
             installed: `rustup component add rust-src --toolchain nightly`"
                .into(),
        );
    }
    let test = |arguments: &[&str]| {
        let mut command = tests(nightly, workspace, "thread");
        command
            .args(["-Zbuild-std", "--package=sorix-core"])
            .args(arguments);
        command
    };
    Action::Run(vec![
        test(&["--lib", "--test=pool"]),
        test(&["--test=tensors", "autograd::"]),
    ])
}

fn miri(nightly: Nightly, workspace: &Workspace) -> Action {
    if !nightly.has("miri") {
        return Action::Skip(
            "Miri is not installed: `rustup component add miri --toolchain nightly`".into(),
        );
    }
    let test = |package: &str, tests: &[&str]| {
        let mut command = nightly.cargo();
        command
            .args(["miri", "test", "--target-dir"])
            .arg(workspace.target.join("sanitize/miri"))
            .args(["--package", package, "--no-default-features"])
            .args(tests)
            // The size of the caches is read from the system.
            .env("MIRIFLAGS", "-Zmiri-disable-isolation")
            .env("SORIX_BACKEND", "portable");
        command
    };
    Action::Run(vec![
        test(
            "sorix-kernels",
            &["--lib", "--test=bit_mask", "--test=portable"],
        ),
        test("sorix-core", &["--lib"]),
        test("sorix-core", &["--test=tensors", "tensor::"]),
    ])
}
