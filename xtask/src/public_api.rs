//! `cargo xtask public-api`, and the step that holds it: what each published crate shows its users, in
//! full, one item a line, in `docs/public-api.txt`. A change of the interface is then a change of a file
//! that a reviewer sees.
//!
//! The list is made of rustdoc's JSON, which is not stable: the compiler in use is allowed it for this one
//! purpose, and one whose JSON we cannot read counts as a tool that is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::{Workspace, call, line, root};
use crate::step::Outcome;
use crate::test::without;

/// Set for rustdoc when it is called by way of [`as_rustdoc`].
const AS_RUSTDOC: &str = "SORIX_XTASK_AS_RUSTDOC";

/// Write the lists of `docs/public-api.txt` anew.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The crates whose lists are written [default: all that are published].
    #[arg(value_name = "CRATE")]
    crates: Vec<String>,
}

/// Runs the command.
///
/// # Errors
///
/// If a crate does not compile, is not published, or if the compiler's JSON cannot be read.
pub(crate) fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::read()?;
    if let Some(name) = args
        .crates
        .iter()
        .find(|name| !workspace.published.contains(name))
    {
        bail!(
            "no crate that is published is called {name:?}; there are {}",
            workspace.published.join(", ")
        );
    }
    let crates = if args.crates.is_empty() {
        &workspace.published
    } else {
        &args.crates
    };
    let path = path();
    let mut lists = lists(&fs::read_to_string(&path).unwrap_or_default());
    lists.retain(|name, _| workspace.published.contains(name));
    for name in crates {
        let list = list(&workspace, name)?;
        println!("{name}: {} lines", list.lines().count());
        lists.insert(name.clone(), list);
    }
    let text: String = lists
        .iter()
        .map(|(name, list)| format!("{HEADING}{name}\n{list}"))
        .collect();
    fs::write(&path, text).with_context(|| path.display().to_string())
}

/// The step: compares every crate with its list.
pub(crate) fn check() -> Result<Outcome> {
    let workspace = Workspace::read()?;
    let before = lists(&fs::read_to_string(path()).unwrap_or_default());
    let mut changed = Vec::new();
    for name in &workspace.published {
        let now = match list(&workspace, name) {
            Ok(now) => now,
            Err(error) if error.is::<Unreadable>() => return without(&format!("{error:#}")),
            Err(error) => return Err(error),
        };
        let lines = changes(before.get(name).map_or("", String::as_str), &now);
        if !lines.is_empty() {
            println!("{name}:");
            for line in lines {
                println!("{line}");
            }
            changed.push(name.as_str());
        }
    }
    ensure!(
        changed.is_empty(),
        "the public interface of {0} is not what docs/public-api.txt says; if that is meant, \
         `cargo xtask public-api {1}`, and commit the lists",
        changed.join(", "),
        changed.join(" ")
    );
    Ok(Outcome::Passed)
}

fn path() -> PathBuf {
    root().join("docs/public-api.txt")
}

/// What the line above a crate's list begins with; its name follows.
const HEADING: &str = "# ";

/// The list of each crate in the text of the file.
fn lists(text: &str) -> BTreeMap<String, String> {
    let (mut lists, mut nowhere) = (BTreeMap::new(), String::new());
    let mut list = &mut nowhere;
    for line in text.lines() {
        match line.strip_prefix(HEADING) {
            Some(name) => list = lists.entry(name.to_owned()).or_default(),
            None => *list += &format!("{line}\n"),
        }
    }
    lists
}

/// The lines that are gone, after a minus, and those that are new, after a plus.
fn changes(before: &str, now: &str) -> Vec<String> {
    let (old, new): (BTreeSet<_>, BTreeSet<_>) = (before.lines().collect(), now.lines().collect());
    let gone = old.difference(&new).map(|line| format!("- {line}"));
    gone.chain(new.difference(&old).map(|line| format!("+ {line}")))
        .collect()
}

/// The compiler in use writes JSON that cannot be read.
#[derive(Debug)]
struct Unreadable(String);

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rustdoc's JSON cannot be read: {}", self.0)
    }
}

impl std::error::Error for Unreadable {}

/// Every public item of a crate with all its features, but for what the compiler implements by itself.
fn list(workspace: &Workspace, name: &str) -> Result<String> {
    let mut command = call(
        "rustdoc --quiet --lib --all-features",
        &[format!("--package={name}")],
        &["--", "-Zunstable-options", "--output-format=json"],
    );
    // Not cargo as a whole: dependencies that ask what the compiler allows would be built again.
    command.env("RUSTDOC", env::current_exe()?).env(
        AS_RUSTDOC,
        env::var_os("RUSTDOC").unwrap_or_else(|| "rustdoc".into()),
    );
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", line(&command)))?;
    ensure!(status.success(), "{} failed: {status}", line(&command));
    let json = workspace
        .target
        .join("doc")
        .join(name.replace('-', "_"))
        .with_extension("json");
    let api = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .map_err(|error| Unreadable(error.to_string()))?;
    Ok(api.to_string())
}

/// If cargo calls this program for rustdoc: calls rustdoc, which may do what only nightly may, and returns
/// its exit code.
pub(crate) fn as_rustdoc() -> Option<ExitCode> {
    let rustdoc = env::var_os(AS_RUSTDOC)?;
    let status = Command::new(rustdoc)
        .args(env::args_os().skip(1))
        .env("RUSTC_BOOTSTRAP", "1")
        .env_remove(AS_RUSTDOC)
        .status();
    let code = status
        .ok()
        .and_then(|status| status.code())
        .and_then(|code| u8::try_from(code).ok());
    Some(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crate_has_its_list() {
        let text = "# a\npub mod a\npub fn a::f()\n# b\npub mod b\n";
        let lists = lists(text);
        assert_eq!(lists["a"], "pub mod a\npub fn a::f()\n");
        assert_eq!(lists["b"], "pub mod b\n");
    }

    #[test]
    fn changes_name_what_is_gone_and_what_is_new() {
        let before = "pub mod a\npub fn a::f()\n";
        assert_eq!(changes(before, before), [""; 0]);
        assert_eq!(
            changes(before, "pub mod a\npub fn a::g()\n"),
            ["- pub fn a::f()", "+ pub fn a::g()"]
        );
    }
}
