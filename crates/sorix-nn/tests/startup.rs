//! What `init` finds, and what goes on without threads. Each case in a process of its own, since the
//! choices are made once.

use std::process::Output;

use sorix_core::{DType, Tensor, tensor};
use sorix_nn::{Dropout, init, manual_seed, mc_samples};
#[cfg(all(feature = "parallel", target_os = "linux"))]
use sorix_testing::is_emulated;
use sorix_testing::this_program;

const CHILD: &str = "SORIX_TEST_STARTUP";

/// Runs [`the_child`] with these variables and on its main thread.
fn child(role: &str, variables: &[(&str, &str)]) -> Output {
    let mut child = this_program();
    child
        .args(["--exact", "the_child", "--nocapture", "--test-threads=1"])
        .env_remove("SORIX_BACKEND")
        .env_remove("SORIX_STREAMING_ABOVE")
        .env("RAYON_NUM_THREADS", "3")
        .env(CHILD, role)
        .envs(variables.iter().copied());
    child.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_child() {
    let Ok(role) = std::env::var(CHILD) else {
        return;
    };
    manual_seed(42);
    match role.as_str() {
        "init" => match init() {
            Ok(startup) => println!("chose {startup}"),
            Err(error) => println!("failed: {error}"),
        },
        _ => {
            // Long enough to be shared out.
            let x = Tensor::ones([4 << 20], DType::F64).unwrap();
            for _ in 0..2 {
                let sum = x.exp().unwrap().sum().unwrap().item::<f64>().unwrap();
                assert!((sum / f64::from(4 << 20) - 1.0_f64.exp()).abs() < 1e-9);
                let dropout = Dropout::new(0.5).unwrap();
                let samples = mc_samples(&dropout, &tensor([1.0]), 100, 1).unwrap();
                assert_eq!(samples.samples().len(), 100);
            }
            println!(
                "init: {}",
                init().map_or_else(|error| error.to_string(), |s| s.to_string())
            );
        }
    }
}

#[test]
fn init_says_what_was_chosen() {
    let threads = if cfg!(feature = "parallel") {
        "3 threads"
    } else {
        "1 thread"
    };
    let output = said(&child("init", &[("SORIX_BACKEND", "portable")]));
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!("chose sorix {version}: backend portable, {threads}, seed 42\n");
    assert!(output.contains(&expected), "{output}");

    let streaming = [("SORIX_BACKEND", ""), ("SORIX_STREAMING_ABOVE", "4096")];
    let output = said(&child("init", &streaming));
    assert!(
        output.contains("streaming stores above 4096 bytes, seed 42\n"),
        "{output}"
    );
}

#[test]
fn init_finds_what_is_wrong() {
    let output = said(&child("init", &[("SORIX_BACKEND", "bad")]));
    let expected =
        r#"failed: environment variable SORIX_BACKEND: unknown backend "bad"; this machine has: "#;
    assert!(output.contains(expected), "{output}");
    let output = said(&child("init", &[("SORIX_STREAMING_ABOVE", "much")]));
    assert!(
        output.contains("failed: environment variable SORIX_STREAMING_ABOVE"),
        "{output}"
    );
}

/// No thread gets a stack of this size, so that none can be started.
#[cfg(all(feature = "parallel", target_os = "linux"))]
const NO_THREADS: (&str, &str) = ("RUST_MIN_STACK", "70368744177664");

#[cfg(all(feature = "parallel", target_os = "linux"))]
#[test]
fn without_threads_everything_works_on_one() {
    if is_emulated() {
        // qemu ends a process that asks for such a stack, where Linux gives an error.
        eprintln!("skipped: an emulator does not fail to start threads");
        return;
    }
    let output = child("all", &[NO_THREADS]);
    let text = said(&output);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("init: cannot start threads: "), "{text}");
}
