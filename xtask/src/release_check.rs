//! `cargo xtask release-check`: what has to hold before a release, beyond `cargo xtask test`.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cargo::{Workspace, call, packages, root, works};
use crate::nightly::Nightly;
use crate::step::{Action, Step, run_steps};

/// Check what a release needs: the packages, and that the interface changed no more than the version
/// says.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The release to compare with, as a tag or a commit [default: the last tag v*].
    #[arg(long, value_name = "REVISION")]
    baseline: Option<String>,

    /// Go on after a step that failed.
    #[arg(long)]
    keep_going: bool,
}

/// Runs the command.
///
/// # Errors
///
/// If a step fails. A tool that is missing is none, and neither is there being no earlier release:
/// the step is left out, and says so.
pub(crate) fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::read()?;
    let published = packages(&workspace.published);
    let baseline = match &args.baseline {
        Some(revision) => Some(revision.clone()),
        None => last_release()?,
    };
    let since = |tool: &str, how: &dyn Fn(&str) -> Vec<Command>| match &baseline {
        _ if !works(&mut call(&format!("{tool} --version"), &[], &[])) => Action::Skip(format!(
            "cargo-{tool} is not installed: `cargo install cargo-{tool} --locked`"
        )),
        None => Action::Skip("there is no earlier release, no tag v*, to compare with".into()),
        Some(baseline) => Action::Run(how(baseline)),
    };

    let semver = since("semver-checks", &|baseline| {
        let revision = format!("--baseline-rev={baseline}");
        vec![call("semver-checks", &published, &[&revision])]
    });
    let public_api = match Nightly::find() {
        Ok(_) => since("public-api", &|baseline| {
            let range = format!("{baseline}..HEAD");
            let diff = |package| call("public-api", &[package], &["diff", &range]);
            published.iter().cloned().map(diff).collect()
        }),
        Err(missing) => Action::Skip(format!("cargo-public-api needs it: {missing}")),
    };
    let steps = vec![
        Step::new(
            "package",
            "every published crate can be packaged",
            Action::Run(vec![call("package --no-verify", &published, &[])]),
        ),
        Step::new(
            "semver",
            "nothing breaks that the version does not say",
            semver,
        ),
        Step::new(
            "public-api",
            "what was added, changed and removed, to be read",
            public_api,
        ),
    ];
    run_steps("cargo xtask release-check", steps, args.keep_going)
}

/// The newest tag of a version that HEAD descends from.
fn last_release() -> Result<Option<String>> {
    let output = Command::new("git")
        .current_dir(root())
        .args(["tag", "--list", "v*", "--merged", "HEAD"])
        .arg("--sort=-version:refname")
        .output()
        .context("cannot run git")?;
    ensure!(
        output.status.success(),
        "git tag failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tags = String::from_utf8_lossy(&output.stdout);
    Ok(tags.lines().next().map(str::to_owned))
}
