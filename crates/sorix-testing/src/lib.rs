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
    let mut words = words_of_this_program().into_iter();
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words);
    command
}

/// The words of [`this_program`], for a script that starts it by `exec "$@"`.
///
/// # Panics
///
/// If the system does not say which program is running.
pub fn words_of_this_program() -> Vec<OsString> {
    let program = env::current_exe().expect("the path of the program that is running");
    emulator()
        .into_iter()
        .chain([program.into_os_string()])
        .collect()
}
