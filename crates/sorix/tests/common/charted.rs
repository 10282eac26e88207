//! What the tests of examples that draw a chart need.

use std::path::Path;
use std::process::{Command, Output};

/// Runs the example with these arguments and a place for its chart.
pub(crate) fn run(example: &Path, arguments: &[&str], out: &Path) -> Output {
    let mut command = Command::new(example);
    command.args(arguments).arg("--out").arg(out);
    command.output().expect("the example can be run")
}

/// What is printed, less the line that says how long it took.
pub(crate) fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines()
        .filter(|line| !line.contains("chart in"))
        .map(|line| format!("{line}\n"))
        .collect()
}
