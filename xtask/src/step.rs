//! What the commands of several steps have in common: each step is named, timed, and may be left out
//! aloud.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use crate::cargo::succeed;

/// A part of a command, which passes, fails or is left out.
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) what: &'static str,
    action: Action,
}

pub(crate) enum Action {
    /// Commands that must all succeed.
    Run(Vec<Command>),
    /// Something that needs a tool which may be missing.
    Try(fn() -> Result<Outcome>),
    /// Nothing, because a tool is missing; the text says which.
    Skip(String),
}

pub(crate) enum Outcome {
    Passed,
    /// A tool is missing; the text says which.
    Skipped(String),
}

impl Step {
    pub(crate) fn new(name: impl Into<String>, what: &'static str, action: Action) -> Self {
        Self {
            name: name.into(),
            what,
            action,
        }
    }

    fn run(self) -> Result<Outcome> {
        match self.action {
            Action::Run(commands) => {
                for mut command in commands {
                    succeed(&mut command)?;
                }
                Ok(Outcome::Passed)
            }
            Action::Try(action) => action(),
            Action::Skip(why) => Ok(Outcome::Skipped(why)),
        }
    }
}

/// Which steps of a command run, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// Run these steps alone [default: all].
    #[arg(value_name = "STEP")]
    steps: Vec<String>,

    /// Go on after a step that failed.
    #[arg(long)]
    keep_going: bool,

    /// List the steps and do nothing.
    #[arg(long)]
    list: bool,
}

impl Which {
    /// Runs those of the steps of `command` that were asked for.
    ///
    /// # Errors
    ///
    /// If a step fails, or one is named that there is not.
    pub(crate) fn run(&self, command: &str, mut steps: Vec<Step>) -> Result<()> {
        let unknown = |name: &&String| steps.iter().all(|step| step.name != **name);
        if let Some(name) = self.steps.iter().find(unknown) {
            let names: Vec<_> = steps.iter().map(|step| step.name.as_str()).collect();
            bail!("no step is called {name:?}; there are {}", names.join(", "));
        }
        if !self.steps.is_empty() {
            steps.retain(|step| self.steps.contains(&step.name));
        }
        if self.list {
            for step in &steps {
                println!("{:20} {}", step.name, step.what);
            }
            return Ok(());
        }
        run_steps(command, steps, self.keep_going)
    }
}

/// Runs the steps of `command` in order, and says at the end how many passed.
///
/// # Errors
///
/// If a step fails; those after it run only where `keep_going` says so.
pub(crate) fn run_steps(command: &str, steps: Vec<Step>, keep_going: bool) -> Result<()> {
    let start = Instant::now();
    let (mut passed, mut skipped, mut failed) = (0, Vec::new(), Vec::new());
    let mut left = steps.len();
    for step in steps {
        let name = step.name.clone();
        println!("==> {name}: {}", step.what);
        let begun = Instant::now();
        let outcome = step.run();
        let seconds = begun.elapsed().as_secs_f64();
        left -= 1;
        match outcome {
            Ok(Outcome::Passed) => {
                println!("    {name} ok, {seconds:.1} s");
                passed += 1;
            }
            Ok(Outcome::Skipped(why)) => {
                println!("    {name} SKIPPED: {why}");
                skipped.push(name);
            }
            Err(error) => {
                println!("    {name} FAILED, {seconds:.1} s: {error:#}");
                failed.push(name);
                if !keep_going {
                    break;
                }
            }
        }
    }

    let mut summary = format!("{passed} steps passed");
    for (count, what) in [
        (skipped.len(), format!("skipped ({})", skipped.join(", "))),
        (failed.len(), format!("failed ({})", failed.join(", "))),
        (left, "not run".into()),
    ] {
        if count > 0 {
            summary += &format!(", {count} {what}");
        }
    }
    println!(
        "{command}: {summary}, {:.0} s",
        start.elapsed().as_secs_f64()
    );
    ensure!(failed.is_empty(), "{} failed", failed.join(", "));
    Ok(())
}
