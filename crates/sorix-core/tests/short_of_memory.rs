//! A process that is short of memory gets an error, and goes on.
#![cfg(target_os = "linux")]

use sorix_core::{DType, ErrorKind, Tensor};
use sorix_testing::this_program_within;

/// Set in the processes that these tests start.
const CHILD: &str = "SORIX_TEST_SHORT_OF_MEMORY";

/// Runs a test of this file again, in a process with so many KiB of address space. `None` if there is no
/// such limit here, or if it is not enough for a test that does nothing, as under a sanitizer.
fn under_a_limit(test: &str, kib: usize) -> Option<bool> {
    let run = |what: &str| {
        let output = this_program_within(kib, test)?.env(CHILD, what).output();
        let output = output.unwrap();
        if !output.status.success() {
            eprintln!("{what}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Some(output.status.success())
    };
    if run("nothing")? { run("all") } else { None }
}

/// What a process that a test started is to do; `None` in the one that the user started.
fn role() -> Option<String> {
    std::env::var(CHILD).ok()
}

#[test]
fn a_product_on_a_fresh_thread() {
    match role().as_deref() {
        None => assert_ne!(
            under_a_limit("a_product_on_a_fresh_thread", 300_000),
            Some(false)
        ),
        Some("nothing") => {}
        Some(_) => {
            let x = Tensor::ones([64, 64], DType::F32).unwrap();
            let (begin, begun) = std::sync::mpsc::channel();
            let thread = std::thread::spawn(move || {
                begun.recv().unwrap();
                x.matmul(&x).map(|y| y.to_vec::<f32>().unwrap())
            });
            // All there is, but for some pieces that the product itself may need.
            let mut taken = Vec::new();
            for bytes in [16 << 20, 1 << 20, 64 << 10] {
                loop {
                    let mut piece = Vec::<u8>::new();
                    if taken.try_reserve(1).is_err() || piece.try_reserve_exact(bytes).is_err() {
                        break;
                    }
                    taken.push(piece);
                }
            }
            taken.truncate(taken.len().saturating_sub(8));
            begin.send(()).unwrap();
            let product = thread.join().unwrap();
            drop(taken);
            let error = product.unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::Allocation { .. }),
                "{error}"
            );
            assert!(
                error
                    .to_string()
                    .starts_with("matmul(float32[64, 64], float32[64, 64]): ")
            );
        }
    }
}
