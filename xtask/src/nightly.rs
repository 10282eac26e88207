//! The nightly compiler, where there is one: sanitizers, fuzzing and Miri need it.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::cargo::root;

/// What is said where there is none.
const MISSING: &str = "there is no nightly compiler: `rustup toolchain install nightly`";

/// A nightly toolchain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nightly {
    /// By way of rustup.
    Rustup,
    /// The cargo on PATH is one.
    OnPath,
}

impl Nightly {
    /// Looks for one.
    ///
    /// # Errors
    ///
    /// If there is none; the message says how to get it.
    pub(crate) fn find() -> Result<Self> {
        for nightly in [Self::OnPath, Self::Rustup] {
            let output = nightly.command("rustc").arg("--version").output();
            if output.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains("nightly")) {
                return Ok(nightly);
            }
        }
        bail!(MISSING)
    }

    /// Its cargo, to be called on the workspace.
    pub(crate) fn cargo(self) -> Command {
        let mut command = self.command("cargo");
        command.current_dir(root());
        command
    }

    /// Whether its cargo has a subcommand that works.
    pub(crate) fn has(self, subcommand: &str) -> bool {
        let mut command = self.cargo();
        command
            .args([subcommand, "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    /// Whether it has the source of its standard library, to build that anew.
    pub(crate) fn has_source(self) -> bool {
        let sysroot = self.command("rustc").args(["--print", "sysroot"]).output();
        sysroot.is_ok_and(|output| {
            Path::new(String::from_utf8_lossy(&output.stdout).trim())
                .join("lib/rustlib/src/rust/library/std/Cargo.toml")
                .exists()
        })
    }

    fn command(self, program: &str) -> Command {
        let mut command = match self {
            Self::OnPath => Command::new(program),
            Self::Rustup => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", program]);
                command
            }
        };
        // We run under another toolchain's cargo, which says so to the programs it starts.
        for variable in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
            command.env_remove(variable);
        }
        command
    }
}
