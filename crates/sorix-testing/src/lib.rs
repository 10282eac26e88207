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

/// Names the backend to the child of [`answers_on_each_backend`].
const ON_BACKEND: &str = "SORIX_TEST_ON_BACKEND";

/// Runs the test `child` of the program that is running once on each backend that `here` names, each time in a
/// process that has it from the start. Returns what each gave to [`answer`], with the backend's name; the
/// backends that this machine does not have are said on standard output.
///
/// # Panics
///
/// If the test fails on one of them or answers nothing, and if there are not two backends at least.
pub fn answers_on_each_backend(here: &[&str], child: &str) -> Vec<(String, String)> {
    let mut answers = Vec::new();
    for name in ["reference", "portable", "avx2", "avx512", "neon"] {
        if !here.contains(&name) {
            println!("SKIPPED: this machine has no {name}");
            continue;
        }
        let output = this_program()
            .args(["--exact", child, "--nocapture"])
            .env("SORIX_BACKEND", name)
            .env(ON_BACKEND, name)
            .output()
            .expect("this program runs");
        let said = String::from_utf8_lossy(&output.stdout);
        let answer = said.lines().find_map(|line| line.split_once(ANSWER));
        let (Some((_, answer)), true) = (answer, output.status.success()) else {
            panic!("{name}: {said}{}", String::from_utf8_lossy(&output.stderr));
        };
        answers.push((name.to_owned(), answer.to_owned()));
    }
    assert!(answers.len() >= 2, "{here:?}");
    answers
}

/// The backend that the child of [`answers_on_each_backend`] is to run on; `None` in any other process.
pub fn backend_of_child() -> Option<String> {
    std::env::var(ON_BACKEND).ok()
}

const ANSWER: &str = "the answer is ";

/// Says a line to the parent.
pub fn answer(line: &str) {
    println!("{ANSWER}{line}");
}
