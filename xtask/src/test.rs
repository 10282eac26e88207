//! `cargo xtask test`: everything a contributor must pass, cheapest first.

use std::env;
use std::process::Command;

use anyhow::{Result, bail, ensure};

use crate::cargo::{Workspace, call, packages, root, succeed, works};
use crate::step::{Action, Outcome, Step, run_steps};

/// Everything a contributor must pass, cheapest first.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run these steps alone [default: all].
    #[arg(value_name = "STEP")]
    steps: Vec<String>,

    /// Go on after a step that failed.
    #[arg(long)]
    keep_going: bool,

    /// Lint the comparison with other libraries as well, which compiles candle and burn.
    #[arg(long)]
    peers: bool,

    /// List the steps and do nothing.
    #[arg(long)]
    list: bool,
}

/// Runs the command.
///
/// # Errors
///
/// If a step fails, or one is named that there is not.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut steps = steps(&Workspace::read()?, args.peers);
    if let Some(name) = args
        .steps
        .iter()
        .find(|name| steps.iter().all(|s| s.name != **name))
    {
        let names: Vec<_> = steps.iter().map(|step| step.name.as_str()).collect();
        bail!("no step is called {name:?}; there are {}", names.join(", "));
    }
    if !args.steps.is_empty() {
        steps.retain(|step| args.steps.contains(&step.name));
    }
    if args.list {
        for step in &steps {
            println!("{:20} {}", step.name, step.what);
        }
        return Ok(());
    }

    run_steps("cargo xtask test", steps, args.keep_going)
}

/// The steps. Published members are built with all their features; the features of the others pull
/// in other frameworks, and `peers` asks for those.
fn steps(workspace: &Workspace, peers: bool) -> Vec<Step> {
    let published = packages(&workspace.published);
    let unpublished = packages(&workspace.unpublished);
    let all = |words: &str| call(words, &published, &["--all-features"]);
    let deny_warnings = ["--", "-D", "warnings"];

    let mut lint = all("clippy --all-targets");
    lint.args(deny_warnings);
    let mut lint_own = call("clippy --all-targets", &unpublished, &[]);
    lint_own
        .args(peers.then_some("--features=sorix-benches/peers"))
        .args(deny_warnings);

    let bare = workspace.published.iter().map(|package| {
        let package = packages(std::slice::from_ref(package));
        call("clippy --no-default-features", &package, &deny_warnings)
    });
    // Another library multiplies the matrices then, and nothing is shared out.
    let bare = bare.chain([call(
        "test --no-default-features --package=sorix-core --package=sorix-nn --test=matmul \
         --test=batch_invariant --test=gradients --test=layers --test=network",
        &[],
        &[],
    )]);

    let mut doc = [
        all("doc --no-deps"),
        call("doc --no-deps", &unpublished, &[]),
    ];
    for command in &mut doc {
        command.env("RUSTDOCFLAGS", "-D warnings");
    }

    // Some tests run an example.
    let tests = || [all("build --examples"), all("test --lib --tests")];

    let run = Action::Run;
    let mut steps = vec![
        Step::new(
            "fmt",
            "the code is formatted",
            run(vec![call("fmt --all --check", &[], &[])]),
        ),
        Step::new(
            "mask-format",
            "the Python page reproduces the test vectors",
            Action::Try(mask_format),
        ),
        Step::new(
            "deny",
            "licences and sources of dependencies",
            Action::Try(deny),
        ),
        Step::new(
            "clippy",
            "no warnings, in all targets",
            run(vec![lint, lint_own]),
        ),
        Step::new(
            "no-default-features",
            "each published crate compiles without its features and without warnings, and its products pass",
            run(bare.collect()),
        ),
        Step::new(
            "docs",
            "the documentation builds without warnings",
            run(doc.into()),
        ),
        Step::new(
            "tests",
            "all tests, with debug assertions",
            run(tests()
                .into_iter()
                .chain([call("test --lib --bins", &unpublished, &[])])
                .collect()),
        ),
        Step::new(
            "doctests",
            "the examples in the documentation",
            run(vec![
                all("test --doc"),
                call("test --doc --package=sorix-benches", &[], &[]),
            ]),
        ),
        Step::new(
            "fuzz-seeds",
            "the fuzz targets find nothing in their seeds",
            run(fuzz_seeds(workspace)),
        ),
        Step::new(
            "kernels-release",
            "the kernels as they are shipped, optimised",
            run(vec![call(
                "test --release --lib --tests --all-features --package=sorix-kernels",
                &[],
                &[],
            )]),
        ),
    ];
    steps.push(Step::new(
        "stats",
        "the statistics of the masks, in short and for a fixed seed",
        run(vec![call(
            "run --release --package=sorix-stats -- --quick",
            &[],
            &[],
        )]),
    ));
    // The first, the best, is in charge of the step `tests`; the reference is what the others are
    // compared with there.
    let others = sorix_kernels::dispatch::available().iter().skip(1);
    for backend in others.filter(|backend| backend.name() != "reference") {
        let mut commands = tests();
        for command in &mut commands {
            command.env("SORIX_BACKEND", backend.name());
        }
        steps.push(Step::new(
            format!("backend-{}", backend.name()),
            "all tests with this backend in charge",
            run(commands.into()),
        ));
    }
    steps.push(Step::new(
        "examples",
        "the examples build as users run them, and the first one runs",
        run(vec![
            call("build --release --examples", &published, &[]),
            call(
                "run --release --package=sorix --example=dropout -- 42",
                &[],
                &[],
            ),
        ]),
    ));
    steps
}

/// The fuzz targets are a workspace of their own; without libFuzzer they need no other compiler.
fn fuzz_seeds(workspace: &Workspace) -> Vec<Command> {
    let fuzz = |words: &str, last: &[&str]| {
        let mut command = call(words, &[], &["--manifest-path=fuzz/Cargo.toml"]);
        // Dependencies built for the one serve the other.
        command
            .env("CARGO_TARGET_DIR", &workspace.target)
            .args(last);
        command
    };
    vec![
        fuzz("fmt", &["--check"]),
        fuzz(
            "clippy --no-default-features --all-targets",
            &["--", "-D", "warnings"],
        ),
        fuzz("test --no-default-features", &[]),
    ]
}

fn mask_format() -> Result<Outcome> {
    let is_python3 = "import sys; sys.exit(sys.version_info < (3, 8))";
    let python = ["python3", "python"]
        .into_iter()
        .find(|python| works(Command::new(python).args(["-c", is_python3])));
    let Some(python) = python else {
        return without("there is no python3 on PATH");
    };
    succeed(
        Command::new(python)
            .current_dir(root())
            .arg("docs/mask_format.py"),
    )?;
    Ok(Outcome::Passed)
}

fn deny() -> Result<Outcome> {
    if !works(&mut call("deny --version", &[], &[])) {
        return without("cargo-deny is not installed");
    }
    // Not advisories: they change without any change of ours.
    succeed(&mut call("deny check bans licenses sources", &[], &[]))?;
    Ok(Outcome::Passed)
}

/// What a step comes to that lacks a tool: with `CI` set, a failure.
fn without(why: &str) -> Result<Outcome> {
    ensure!(env::var_os("CI").is_none(), "{why}");
    Ok(Outcome::Skipped(why.into()))
}
