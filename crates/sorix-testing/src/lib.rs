//! What the tests of sorix's crates share. Not published.
#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsString;
use std::process::Command;

/// The program that runs the tests of another machine's instruction set. `cargo xtask test-neon` sets
/// it; empty and unset are none.
const EMULATOR: &str = "SORIX_TEST_EMULATOR";

/// Whether the tests run in an emulator, which is not always the system that it emulates.
pub fn is_emulated() -> bool {
    emulator().is_some()
}

fn emulator() -> Option<OsString> {
    env::var_os(EMULATOR).filter(|emulator| !emulator.is_empty())
}

/// The program that is running, as a command without arguments: for a test that needs a process of its
/// own, because what it tests is decided once or ends the process.
///
/// # Panics
///
/// If the system does not say which program is running.
pub fn this_program() -> Command {
    let program = env::current_exe().expect("the path of the program that is running");
    match emulator() {
        Some(emulator) => {
            let mut command = Command::new(emulator);
            command.arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// [`this_program`] with at most so many KiB of address space, in which it runs one test. `None`, said
/// on standard error, if that limit would be another one than the test means: an emulator takes its own
/// memory from it, and may end the process where Linux gives an error.
///
/// # Panics
///
/// If the system does not say which program is running.
pub fn this_program_within(kib: usize, test: &str) -> Option<Command> {
    if is_emulated() {
        eprintln!("skipped: an emulator takes its own memory from a limit of the address space");
        return None;
    }
    let program = this_program();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("ulimit -v {kib} && exec \"$@\""), "sh"])
        .arg(program.get_program())
        .args(["--exact", test, "--test-threads=1"]);
    Some(shell)
}
