//! Outside batteries: dieharder and PractRand, where they are installed.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::emit::emit;
use crate::stream::Stream;

/// What a battery said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ran and rejected nothing.
    Passed,
    /// It ran and rejected something.
    Failed,
    /// Its program is not on PATH.
    Missing,
}

/// The tests of dieharder 3.31.1, by number and parameters; 0 where a test has none. Left out: 5, 6, 7
/// and 14, which dieharder itself calls suspect or not to be used, and the longer lags of 203, each of
/// which reads gigabytes.
#[rustfmt::skip]
const DIEHARDER: [(u32, &[u32]); 27] = [
    (100, &[0]), (101, &[0]), (102, &[0]),
    (0, &[0]), (1, &[0]), (2, &[0]), (3, &[0]), (4, &[0]), (8, &[0]), (9, &[0]), (10, &[0]), (11, &[0]),
    (12, &[0]), (13, &[0]), (15, &[0]), (16, &[0]), (17, &[0]),
    (200, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
    (201, &[2, 3, 4, 5]),
    (202, &[2, 3, 4, 5]),
    (204, &[0]), (205, &[0]), (206, &[0]), (207, &[0]), (208, &[0]), (209, &[0]),
    (203, &[0, 1, 7, 8]),
];

/// Runs dieharder's tests one after the other, each on the stream from its beginning.
///
/// # Errors
///
/// Where the stream cannot be made or the program cannot be talked to.
pub fn dieharder(stream: &Stream<'_>) -> Result<Outcome> {
    let columns = [
        "test_name",
        "ntuple",
        "tsamples",
        "psamples",
        "pvalues",
        "assessment",
    ];
    let mut outcome = Outcome::Passed;
    for (test, parameters) in DIEHARDER {
        for parameter in parameters {
            let mut command = Command::new("dieharder");
            // Generator 200 is standard input.
            command.args(["-g", "200", "-d", &test.to_string()]);
            command.args(["-n", &parameter.to_string()]);
            for column in columns {
                command.args(["-D", column]);
            }
            match feed(command, stream, |line| line.contains("FAILED"))? {
                Outcome::Passed => {}
                Outcome::Failed => outcome = Outcome::Failed,
                Outcome::Missing => return Ok(Outcome::Missing),
            }
        }
    }
    Ok(outcome)
}

/// Runs PractRand's standard tests on so many bytes, such as `32GB`.
///
/// # Errors
///
/// Where the stream cannot be made or the program cannot be talked to.
pub fn practrand(stream: &Stream<'_>, bytes: &str) -> Result<Outcome> {
    let mut command = Command::new("RNG_test");
    command.args(["stdin64", "-tlmin", "1GB", "-tlmax", bytes]);
    feed(command, stream, |line| line.contains("FAIL"))
}

/// Writes the stream to a program until it has had enough, and shows what it prints.
fn feed(
    mut command: Command,
    stream: &Stream<'_>,
    is_failure: impl Fn(&str) -> bool + Sync,
) -> Result<Outcome> {
    let name = command.get_program().to_string_lossy().into_owned();
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = match piped.spawn() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Outcome::Missing),
        child => child.with_context(|| format!("cannot run {name}"))?,
    };
    let mut input = child.stdin.take().context("no pipe to the program")?;
    let output = child.stdout.take().context("no pipe from the program")?;
    let failed = std::thread::scope(|scope| {
        let reader = scope.spawn(|| -> Result<bool> {
            let mut failed = false;
            for line in BufReader::new(output).lines() {
                let line = line?;
                println!("{line}");
                failed |= is_failure(&line);
            }
            Ok(failed)
        });
        let fed = emit(stream, None, &mut input);
        drop(input);
        let failed = reader.join().expect("the reader does not panic")?;
        fed.map(|()| failed)
    });
    let status = child.wait()?;
    let failed = failed?;
    // It may say by its status, too, that a test failed.
    anyhow::ensure!(status.success() || failed, "{name} failed: {status}");
    Ok(if failed {
        Outcome::Failed
    } else {
        Outcome::Passed
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use sorix_kernels::{DropRate, MaskKey};

    use crate::stream::{Along, Sorix};

    fn stream() -> Stream<'static> {
        Stream {
            source: &Sorix,
            rate: DropRate::new(0.5).unwrap(),
            key: MaskKey::new(1, 0),
            along: Along::Elements,
        }
    }

    #[test]
    fn a_missing_program_is_said_to_be_missing() {
        let command = Command::new("no-such-battery");
        assert_eq!(
            feed(command, &stream(), |_| false).unwrap(),
            Outcome::Missing
        );
    }

    #[test]
    #[cfg(unix)]
    fn a_program_is_fed_until_it_has_had_enough_and_judged_by_what_it_prints() {
        let run = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            feed(command, &stream(), |line| line.contains("FAILED"))
        };
        assert_eq!(
            run("head -c 100 >/dev/null; echo PASSED").unwrap(),
            Outcome::Passed
        );
        assert_eq!(
            run("head -c 100 >/dev/null; echo FAILED").unwrap(),
            Outcome::Failed
        );
        assert!(run("exit 3").is_err());
    }
}
