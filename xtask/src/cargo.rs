//! Calls of cargo, and what cargo knows of the workspace.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this crate lies in the workspace")
}

/// The cargo that runs this program, to be called on the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// A call of cargo: words, packages, and what comes last.
pub(crate) fn call(words: &str, packages: &[String], last: &[&str]) -> Command {
    let mut command = cargo();
    command.args(words.split(' ')).args(packages).args(last);
    command
}

/// A call of cargo on another workspace of this repository, in the directory `nested`. Dependencies
/// built for the one serve the other.
pub(crate) fn call_nested(nested: &str, target: &Path, words: &str, last: &[&str]) -> Command {
    let mut command = call(words, &[], &[&manifest(nested)]);
    command.env("CARGO_TARGET_DIR", target).args(last);
    command
}

/// The argument that names the workspace in a directory of this repository.
fn manifest(directory: &str) -> String {
    let manifest = root().join(directory).join("Cargo.toml");
    format!("--manifest-path={}", manifest.display())
}

/// The arguments that name these packages.
pub(crate) fn packages(names: &[String]) -> Vec<String> {
    names
        .iter()
        .map(|name| format!("--package={name}"))
        .collect()
}

/// Whether a command runs and succeeds.
pub(crate) fn works(command: &mut Command) -> bool {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// Runs a command to its end; it shares our terminal.
///
/// # Errors
///
/// If it cannot be started or fails.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", line(command)))?;
    ensure!(status.success(), "{} failed: {status}", line(command));
    Ok(())
}

/// Builds a program of the workspace in the directory `workspace`, which shows, and runs it where the
/// user stands, so that paths among its arguments are meant from there. Returns its exit code.
///
/// # Errors
///
/// If it cannot be built or started.
pub(crate) fn run_program(
    workspace: &str,
    package: &[&str],
    args: &[OsString],
) -> Result<ExitCode> {
    let target = Workspace::read()?.target;
    succeed(&mut call_nested(workspace, &target, "build", package))?;
    let mut program = call_nested(workspace, &target, "run --quiet", package);
    program.current_dir(".").arg("--").args(args);
    let status = program
        .status()
        .with_context(|| format!("cannot run {}", line(&program)))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// A command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_stem()
        .unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// What `cargo metadata` says of the workspace.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The members that are published: those users depend on.
    pub(crate) published: Vec<String>,
    /// The members that are not.
    pub(crate) unpublished: Vec<String>,
    /// Where cargo builds.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Asks cargo.
    ///
    /// # Errors
    ///
    /// If cargo cannot read a manifest.
    pub(crate) fn read() -> Result<Self> {
        let mut command = cargo();
        command.args(["metadata", "--no-deps", "--format-version=1"]);
        let output = command.output().context("cannot run cargo metadata")?;
        ensure!(
            output.status.success(),
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Self::parse(&serde_json::from_slice(&output.stdout)?)
    }

    fn parse(metadata: &Value) -> Result<Self> {
        let target = metadata["target_directory"]
            .as_str()
            .context("no target directory")?;
        let packages = metadata["packages"].as_array().context("no packages")?;
        let (published, unpublished): (Vec<&Value>, Vec<&Value>) = packages
            .iter()
            .partition(|package| package["publish"] != serde_json::json!([]));
        let names = |packages: Vec<&Value>| {
            let name = |package: &Value| package["name"].as_str().map(str::to_owned);
            packages
                .into_iter()
                .map(name)
                .collect::<Option<Vec<_>>>()
                .context("a nameless package")
        };
        Ok(Self {
            published: names(published)?,
            unpublished: names(unpublished)?,
            target: target.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_told_apart_by_whether_they_are_published() {
        let workspace = Workspace::parse(&serde_json::json!({
            "target_directory": "/somewhere/target",
            "packages": [
                { "name": "sorix", "publish": null },
                { "name": "xtask", "publish": [] },
            ],
        }))
        .unwrap();
        assert_eq!(workspace.published, ["sorix"]);
        assert_eq!(workspace.unpublished, ["xtask"]);
        assert_eq!(workspace.target, Path::new("/somewhere/target"));
    }

    #[test]
    fn commands_read_as_one_would_type_them() {
        let mut command = Command::new("/some/where/cargo");
        command.args(["test", "--workspace"]);
        assert_eq!(line(&command), "cargo test --workspace");
    }
}
