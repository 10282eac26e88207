//! `cargo xtask test-neon`: the tests of the kernels and of what rests on them, on AArch64.
//!
//! They are built for that target and run in emulation by qemu, so a machine of another kind will
//! do. The standard library of the target is the one rustup installed, or else the one of Debian's
//! own compiler, `rustc-web`. The test programs are linked statically: qemu then needs nothing of
//! an AArch64 system.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::cargo::{Workspace, cargo, line, succeed};

/// The target's name.
pub(crate) const TARGET: &str = "aarch64-unknown-linux-gnu";

/// What begins the names of variables that tell cargo of the target.
const CARGO_TARGET: &str = "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU";

/// Debian's compiler, which comes with a standard library for each of Debian's architectures.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

const LINKER: &str = "aarch64-linux-gnu-gcc";

/// qemu as Debian names it, and as others do.
const QEMU: [&str; 2] = ["qemu-aarch64-static", "qemu-aarch64"];

const PACKAGES: [&str; 3] = ["sorix-kernels", "sorix-core", "sorix-nn"];

/// Test the kernels, and what rests on them, on AArch64 with NEON: in emulation, where the machine
/// is another.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Install what is missing by Debian's apt-get, as root.
    #[arg(long)]
    install_debian: bool,
}

/// Runs the command.
///
/// # Errors
///
/// If a test fails, and if the tests cannot be run.
pub(crate) fn run(args: &Args) -> Result<()> {
    if cfg!(all(target_arch = "aarch64", target_os = "linux")) {
        println!("this machine is AArch64: the tests run on it");
        return succeed(&mut tests());
    }
    let mut tools = Tools::find();
    if args.install_debian && !tools.missing().is_empty() {
        for mut command in install(&tools.missing()) {
            succeed(&mut command)?;
        }
        tools = Tools::find();
    }
    let missing = tools.missing();
    let (Some(rustc), Some(qemu)) = (&tools.rustc, tools.qemu) else {
        bail!(instructions(&missing));
    };
    if !missing.is_empty() {
        bail!(instructions(&missing));
    }

    println!("building for {TARGET} by {rustc}, running by {qemu}");
    let rustc = rustc.clone();
    succeed(
        Compiler { rustc }
            .set_up(&mut tests())
            .args(["--target", TARGET])
            // Of its own, because the compiler may be another one than that of the other builds.
            .arg("--target-dir")
            .arg(Workspace::read()?.target.join("test-neon"))
            // Emulation is slow enough; debug assertions stay.
            .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
            // NEON must be there, or the tests by name would pass without it.
            .env("SORIX_REQUIRE_BACKENDS", "neon")
            .env(format!("{CARGO_TARGET}_RUNNER"), qemu)
            // For tests that start their own program again.
            .env("SORIX_TEST_EMULATOR", qemu)
            .env(
                format!("{CARGO_TARGET}_RUSTFLAGS"),
                "-C target-feature=+crt-static",
            ),
    )
}

/// All features but `faer`, whose products are not ours and most of what would be compiled.
const FEATURES: &str = "--features=sorix-kernels/conformance,sorix-core/npy,sorix-core/parallel,\
                        sorix-nn/parallel,sorix-nn/safetensors,sorix-nn/serde";

/// The tests, less those in documentation, which cannot run for another machine.
fn tests() -> Command {
    let mut command = cargo();
    command.args([
        "test",
        "--lib",
        "--tests",
        "--no-default-features",
        FEATURES,
        "--no-fail-fast",
    ]);
    command.args(PACKAGES.map(|package| format!("--package={package}")));
    command
}

/// What compiles and links for AArch64 on a machine of another kind.
#[derive(Debug)]
pub(crate) struct Compiler {
    /// With the target's standard library.
    rustc: String,
}

impl Compiler {
    /// That of this machine, if there is one; [`HOW_TO_GET_IT`] says what to do if not.
    pub(crate) fn find() -> Option<Self> {
        let tools = Tools::find();
        let rustc = tools.rustc?;
        tools.linker.then_some(Self { rustc })
    }

    /// Has a call of cargo use it.
    pub(crate) fn set_up<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .env("RUSTC", &self.rustc)
            .env(format!("{CARGO_TARGET}_LINKER"), LINKER)
    }
}

/// What is said where there is no [`Compiler`].
pub(crate) const HOW_TO_GET_IT: &str = "there is no linker aarch64-linux-gnu-gcc, or no standard library for \
    aarch64-unknown-linux-gnu: on Debian `cargo xtask test-neon --install-debian` gets both";

/// Something the tests need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tool {
    what: &'static str,
    /// How to get it on any system, where there is one way.
    anywhere: Option<&'static str>,
    /// Debian's packages with it.
    debian: &'static [&'static str],
}

const STANDARD_LIBRARY: Tool = Tool {
    what: "the standard library for aarch64-unknown-linux-gnu",
    anywhere: Some("rustup target add aarch64-unknown-linux-gnu"),
    debian: &["rustc-web", "libstd-rust-web-dev:arm64"],
};

const CROSS_LINKER: Tool = Tool {
    what: "the linker aarch64-linux-gnu-gcc",
    anywhere: None,
    debian: &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
};

const EMULATOR: Tool = Tool {
    what: "the emulator qemu-aarch64-static (or qemu-aarch64)",
    anywhere: None,
    debian: &["qemu-user-static"],
};

/// What this machine has.
#[derive(Debug)]
struct Tools {
    /// A compiler with the target's standard library.
    rustc: Option<String>,
    linker: bool,
    qemu: Option<&'static str>,
}

impl Tools {
    fn find() -> Self {
        let ours = env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
        Self {
            rustc: [ours, DEBIAN_RUSTC.into()]
                .into_iter()
                .find(|rustc| has_target(rustc)),
            linker: runs(LINKER),
            qemu: QEMU.into_iter().find(|qemu| runs(qemu)),
        }
    }

    fn missing(&self) -> Vec<Tool> {
        [
            (self.rustc.is_some(), STANDARD_LIBRARY),
            (self.linker, CROSS_LINKER),
            (self.qemu.is_some(), EMULATOR),
        ]
        .into_iter()
        .filter_map(|(found, tool)| (!found).then_some(tool))
        .collect()
    }
}

/// Whether a compiler has the target's standard library.
fn has_target(rustc: &str) -> bool {
    let mut command = Command::new(rustc);
    command
        .args(["--print", "target-libdir", "--target", TARGET])
        .stderr(Stdio::null());
    let Ok(output) = command.output() else {
        return false;
    };
    let directory = String::from_utf8_lossy(&output.stdout);
    output.status.success() && Path::new(directory.trim()).is_dir()
}

fn runs(program: &str) -> bool {
    let mut command = Command::new(program);
    command
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn instructions(missing: &[Tool]) -> String {
    let mut text = String::from("the AArch64 tests cannot run; this machine lacks");
    for tool in missing {
        text += &format!("\n  - {}", tool.what);
        if let Some(command) = tool.anywhere {
            text += &format!(": `{command}`");
        }
    }
    let commands: Vec<_> = install(missing).iter().map(line).collect();
    text + &format!(
        "\nOn Debian, `cargo xtask test-neon --install-debian` (as root) gets it, by\n  {}",
        commands.join(" && ")
    )
}

/// The commands that install what is missing on Debian.
fn install(missing: &[Tool]) -> Vec<Command> {
    let packages: Vec<_> = missing.iter().flat_map(|tool| tool.debian).collect();
    let mut commands = Vec::new();
    if packages.iter().any(|package| package.ends_with(":arm64")) {
        commands.push(command("dpkg", &["--add-architecture", "arm64"]));
    }
    commands.push(command("apt-get", &["update"]));
    let mut last = command("apt-get", &["install", "--yes", "--no-install-recommends"]);
    last.args(packages).env("DEBIAN_FRONTEND", "noninteractive");
    commands.push(last);
    commands
}

fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_the_way_to_get_it() {
        let tools = Tools {
            rustc: None,
            linker: true,
            qemu: None,
        };
        let text = instructions(&tools.missing());
        assert!(
            text.contains("rustup target add aarch64-unknown-linux-gnu"),
            "{text}"
        );
        assert!(
            text.contains("dpkg --add-architecture arm64 && apt-get update && "),
            "{text}"
        );
        assert!(
            text.ends_with(" rustc-web libstd-rust-web-dev:arm64 qemu-user-static"),
            "{text}"
        );
        assert!(!text.contains("gcc-aarch64-linux-gnu"), "{text}");
    }

    #[test]
    fn with_rustup_no_other_architecture_is_added() {
        let tools = Tools {
            rustc: Some("rustc".into()),
            linker: false,
            qemu: Some(QEMU[0]),
        };
        let text = instructions(&tools.missing());
        assert!(!text.contains("dpkg"), "{text}");
        assert!(text.contains("gcc-aarch64-linux-gnu"), "{text}");
    }

    #[test]
    fn a_machine_with_everything_lacks_nothing() {
        let tools = Tools {
            rustc: Some("rustc".into()),
            linker: true,
            qemu: Some(QEMU[0]),
        };
        assert_eq!(tools.missing(), []);
    }
}
