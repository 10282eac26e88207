//! The example `dropout`, as its user runs it.

mod common;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::LazyLock;

static EXAMPLE: LazyLock<PathBuf> = LazyLock::new(|| common::build_example("dropout", ""));

/// Runs the example.
fn run(arguments: &[&str], backend: Option<&str>) -> Output {
    let mut command = Command::new(&*EXAMPLE);
    command.args(arguments).env_remove("SORIX_BACKEND");
    if let Some(backend) = backend {
        command.env("SORIX_BACKEND", backend);
    }
    command.output().expect("the example can be run")
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The rest of the line that begins with `label`.
fn after<'t>(text: &'t str, label: &str) -> &'t str {
    let line = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(label));
    line.unwrap_or_else(|| panic!("no line {label:?} in\n{text}"))
        .trim()
}

/// The numbers of a line like `tensor([0., 2.], dtype=sorix.float64)`.
fn numbers(tensor: &str) -> Vec<f64> {
    let inside = tensor.strip_prefix("tensor([").unwrap();
    let inside = inside.strip_suffix("], dtype=sorix.float64)").unwrap();
    inside
        .split(',')
        .map(|number| number.trim().parse().unwrap())
        .collect()
}

#[test]
fn both_demonstrations_hold_for_any_seed() {
    for seed in 0..20 {
        let text = stdout(&run(&[&seed.to_string()], None));
        assert_eq!(after(&text, "mean of the input"), "1.0000");
        assert_eq!(after(&text, "mean of the eval output"), "1.0000");
        let training: f64 = after(&text, "mean of the training output").parse().unwrap();
        assert!((training - 1.0).abs() < 0.01, "seed {seed}: {training}");

        let x = after(&text, "X ");
        assert_eq!(x, "tensor([10., 20., 30., 40., 50.], dtype=sorix.float64)");
        let y = numbers(after(&text, "Y "));
        let gradient = numbers(after(&text, "gradient of Y.sum()"));
        for ((x, y), gradient) in numbers(x).into_iter().zip(y).zip(gradient) {
            assert!(gradient == 0.0 || gradient == 2.0);
            assert_eq!(y, x * gradient, "seed {seed}");
        }
        assert_eq!(after(&text, "scale"), "2.00");
    }
}

#[test]
fn a_seed_repeats_a_run_and_without_one_it_is_told() {
    let first = stdout(&run(&["42"], None));
    assert_eq!(after(&first, "seed"), "42");
    assert_eq!(stdout(&run(&["42"], None)), first);
    assert_ne!(stdout(&run(&["43"], None)), first);
    let drawn = stdout(&run(&[], None));
    assert_eq!(stdout(&run(&[after(&drawn, "seed")], None)), drawn);
}

#[test]
fn every_backend_prints_the_same() {
    let expected = stdout(&run(&["7"], Some("reference")));
    for backend in sorix::kernels::dispatch::available() {
        assert_eq!(
            stdout(&run(&["7"], Some(backend.name()))),
            expected,
            "{}",
            backend.name()
        );
    }
}

#[test]
fn a_bad_argument_is_named() {
    let cases: [(&[&str], &str); 4] = [
        (
            &["abc"],
            r#"error: expected a seed from 0 to 18446744073709551615, got "abc""#,
        ),
        (
            &["-1"],
            r#"error: expected a seed from 0 to 18446744073709551615, got "-1""#,
        ),
        (
            &["18446744073709551616"],
            r#"error: expected a seed from 0 to 18446744073709551615, got "18446744073709551616""#,
        ),
        (
            &["1", "x"],
            r#"error: expected at most one argument, the seed; got also "x""#,
        ),
    ];
    for (arguments, message) in cases {
        let output = run(arguments, None);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert_eq!(
            String::from_utf8(output.stderr).unwrap().trim_end(),
            message
        );
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn an_unknown_backend_is_named_with_those_there_are() {
    let output = run(&["1"], Some("nonsense"));
    assert_eq!(output.status.code(), Some(1));
    let names: Vec<&str> = sorix::kernels::dispatch::available()
        .iter()
        .map(|backend| backend.name())
        .collect();
    assert_eq!(
        String::from_utf8(output.stderr).unwrap().trim_end(),
        format!(
            "error: dropout(float32[100000]): environment variable SORIX_BACKEND: unknown backend \"nonsense\"; this machine has: {}",
            names.join(", ")
        )
    );
}
