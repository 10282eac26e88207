//! The example `transformer`, as its user runs it, but quick.

#[path = "common/charted.rs"]
mod charted;
mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::LazyLock;

use self::charted::text;

static EXAMPLE: LazyLock<PathBuf> =
    LazyLock::new(|| common::build_example("transformer", "safetensors"));

fn run(arguments: &[&str], out: &Path) -> Output {
    charted::run(&EXAMPLE, arguments, out)
}

#[test]
fn it_compares_rates_and_writes_text_the_same_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("chart.svg");
    let arguments = ["--quick", "--rates", "0,0.5"];
    let first = text(&run(&arguments, &out));
    assert!(first.starts_with("39191 characters to train, 4899 to validate, 4899 to test, 56 "));
    for claim in [
        "gradients are equal bit for bit",
        "those of 10 steps, bit for bit",
    ] {
        assert!(first.contains(claim), "{claim}: {first}");
    }
    let lines = first
        .lines()
        .skip_while(|line| !line.starts_with("loss in nats"));
    let rows: Vec<&str> = lines.skip(2).take(2).collect();
    for (line, rate) in rows.iter().zip(["0 ", "0.5 "]) {
        assert!(line.trim_start().starts_with(rate), "{line}");
        let words = line.split_whitespace().skip(1);
        let numbers: Vec<f64> = words.filter_map(|word| word.parse().ok()).collect();
        let [stopped, _, last, _, train, _, best_step] = numbers[..] else {
            panic!("{line}");
        };
        // A guess among 56 is at 4.03, and one by how frequent a character is at 2.8.
        for loss in [stopped, last, train] {
            assert!((2.0..3.6).contains(&loss), "{line}");
        }
        assert!((1.0..=30.0).contains(&best_step), "{line}");
    }
    assert_eq!(first.matches(" goes on:\n").count(), 2, "{first}");
    let chart = fs::read_to_string(&out).unwrap();
    for part in ["<svg", "</svg>", "nats a character", "p = 0.5"] {
        assert!(chart.contains(part), "{part}");
    }
    assert_eq!(text(&run(&arguments, &out)), first, "a seed repeats a run");
}

#[test]
fn what_cannot_be_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("chart.svg");
    let cases: [(&[&str], &str); 5] = [
        (&["--quick", "--rates", "1.5"], "got p = 1.5"),
        (&["--seeds", "0"], "expected at least one seed"),
        (&["--steps", "0"], "expected at least one step"),
        (&["--width", "6"], "expected a divisor of the width"),
        (
            &["--context", "5000"],
            "expected a context of 1 to 4898 characters, got 5000",
        ),
    ];
    for (arguments, message) in cases {
        let output = run(arguments, &out);
        assert!(!output.status.success());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(message), "{arguments:?}: {error}");
        assert!(!error.contains("panicked"), "{arguments:?}: {error}");
        assert!(!out.exists());
    }
}
