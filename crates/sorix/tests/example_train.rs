//! The example `train`, as its user runs it, but quick.

#[path = "common/charted.rs"]
mod charted;
mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::LazyLock;

use self::charted::text;

static EXAMPLE: LazyLock<PathBuf> = LazyLock::new(|| common::build_example("train", ""));

fn run(arguments: &[&str], out: &Path) -> Output {
    charted::run(&EXAMPLE, arguments, out)
}

/// The numbers of a row like `0.2  0.463 ± 0.020  1.343 ± 0.009`, after the rate.
fn row(line: &str) -> Vec<f64> {
    line.split_whitespace()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect()
}

#[test]
fn it_prints_a_table_and_draws_a_chart_the_same_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("chart.svg");
    let arguments = ["--quick", "--rates", "0,0.5"];
    let first = text(&run(&arguments, &out));
    assert!(
        first.starts_with("1359 wines (240 repeated ones left out), 11 measurements, 6 grades\n")
    );
    for section in [
        "test, early stopping",
        "test, last epoch",
        "training, last epoch",
    ] {
        let lines = first.lines().skip_while(|line| *line != section);
        let rows: Vec<&str> = lines.skip(2).take(2).collect();
        for (line, rate) in rows.iter().zip(["0 ", "0.5 "]) {
            assert!(line.trim_start().starts_with(rate), "{section}: {line}");
            let [accuracy, _, entropy, _] = row(line)[..] else {
                panic!("{section}: {line}");
            };
            // Better than a guess among six, which has a cross entropy of 1.79.
            assert!((0.3..0.7).contains(&accuracy), "{line}");
            assert!((0.8..1.79).contains(&entropy), "{line}");
        }
    }
    let chart = fs::read_to_string(&out).unwrap();
    for part in [
        "<svg",
        "</svg>",
        "drop probability p",
        "accuracy on the test set",
    ] {
        assert!(chart.contains(part), "{part}");
    }
    assert_eq!(text(&run(&arguments, &out)), first, "a seed repeats a run");
}

#[test]
fn what_cannot_be_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("chart.svg");
    let cases: [(&[&str], &str); 3] = [
        (&["--quick", "--rates", "1.5"], "got p = 1.5"),
        (&["--seeds", "0"], "expected at least one seed"),
        (&["--epochs", "0"], "expected at least one epoch"),
    ];
    for (arguments, message) in cases {
        let output = run(arguments, &out);
        assert!(!output.status.success());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(message), "{arguments:?}: {error}");
        assert!(!out.exists());
    }
}
