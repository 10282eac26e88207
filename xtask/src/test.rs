//! `cargo xtask test`: everything a contributor must pass, cheapest first.

use std::env;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::cargo::{Workspace, call, call_nested, packages, root, succeed, works};
use crate::public_api;
use crate::step::{Action, Outcome, Step, Which};

/// Everything a contributor must pass, cheapest first.
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
        .run("cargo xtask test", steps(&Workspace::read()?))
}

/// The steps. Published members are built with all their features.
fn steps(workspace: &Workspace) -> Vec<Step> {
    let published = packages(&workspace.published);
    let unpublished = packages(&workspace.unpublished);
    let all = |words: &str| call(words, &published, &["--all-features"]);
    let deny_warnings = ["--", "-D", "warnings"];

    let mut lint = all("clippy --all-targets");
    lint.args(deny_warnings);
    let lint_own = call("clippy --all-targets", &unpublished, &deny_warnings);

    let bare = workspace.published.iter().map(|package| {
        let package = packages(std::slice::from_ref(package));
        call("clippy --no-default-features", &package, &deny_warnings)
    });
    // Another library multiplies the matrices then, and nothing is shared out.
    let bare = bare.chain([call(
        "test --no-default-features --package=sorix-core --package=sorix-nn --test=tensors \
         --test=layers --test=network",
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
            "the Python page reproduces the test vectors, which show every misreading of it",
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
            "public-api",
            "the public interface is that of docs/public-api.txt",
            Action::Try(public_api::check),
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
    // Of the same packages and features, so that each is compiled once.
    let optimised = [published.clone(), packages(&["sorix-stats".into()])].concat();
    let build = "build --release --bins --examples --all-features";
    let build = || call(build, &optimised, &[]);
    let built = workspace.target.join("release");
    let mut stats = Command::new(built.join("sorix-stats"));
    stats.arg("--quick");
    let mut example = Command::new(built.join("examples/dropout"));
    example.arg("42");
    steps.extend([
        Step::new(
            "examples",
            "the examples build optimised, and the first one runs",
            run(vec![build(), example]),
        ),
        Step::new(
            "stats",
            "the statistics of the masks, in short and for a fixed seed",
            run(vec![build(), stats]),
        ),
    ]);
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
    steps
}

/// The fuzz targets are a workspace of their own; without libFuzzer they need no other compiler.
fn fuzz_seeds(workspace: &Workspace) -> Vec<Command> {
    let fuzz = |words: &str, last: &[&str]| call_nested("fuzz", &workspace.target, words, last);
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
    for arguments in [&[][..], &["--misread", "all"]] {
        succeed(
            Command::new(python)
                .current_dir(root())
                .arg("docs/mask_format.py")
                .args(arguments),
        )?;
    }
    Ok(Outcome::Passed)
}

fn deny() -> Result<Outcome> {
    check_dependencies(".")
}

/// Holds the dependencies of the workspace in a directory of this repository to `deny.toml`.
pub(crate) fn check_dependencies(directory: &str) -> Result<Outcome> {
    if !works(&mut call("deny --version", &[], &[])) {
        return without("cargo-deny is not installed");
    }
    let manifest = format!("--manifest-path={directory}/Cargo.toml");
    // Not advisories: they change without any change of ours.
    succeed(&mut call(
        "deny",
        &[manifest, "--config=deny.toml".into()],
        &["check", "bans", "licenses", "sources"],
    ))?;
    Ok(Outcome::Passed)
}

/// What a step comes to that lacks a tool: with `CI` set, a failure.
pub(crate) fn without(why: &str) -> Result<Outcome> {
    ensure!(env::var_os("CI").is_none(), "{why}");
    Ok(Outcome::Skipped(why.into()))
}
