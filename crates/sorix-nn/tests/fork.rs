//! A process that is forked off after the threads of a pool were started has none of them.
#![cfg(all(feature = "parallel", unix))]

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use daemonize::{Daemonize, Outcome};
use sorix_core::{DType, Tensor, tensor};
use sorix_nn::{Dropout, MonteCarlo, init, mc_samples};
use sorix_testing::this_program;

const CHILD: &str = "SORIX_TEST_FORK";

/// A call that is shared out, and passes.
fn work() -> Vec<f64> {
    let x = Tensor::ones([4 << 20], DType::F64).unwrap();
    let sum = x.exp().unwrap().sum().unwrap().item::<f64>().unwrap();
    let dropout = Dropout::new(0.5).unwrap();
    let samples = mc_samples(&dropout, &tensor([1.0; 4]), 100, 1).unwrap();
    let mean = samples.mean().unwrap().to_vec::<f64>().unwrap();
    [vec![sum], mean].concat()
}

/// In a process of its own, on its main thread: has a pool work, and is forked off.
#[test]
fn the_parent() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    assert_eq!(init().unwrap().threads, 3);
    let before = work();
    match Daemonize::new().execute() {
        Outcome::Parent(parent) => drop(parent.unwrap()),
        Outcome::Child(child) => {
            child.unwrap();
            // Nobody waits for this process if it waits for ever.
            std::thread::spawn(|| {
                sleep(Duration::from_secs(60));
                std::process::abort();
            });
            let alone = work();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(2);
            let pool = pool.build().unwrap();
            let (own, threads) = pool.install(|| (work(), init().unwrap().threads));
            let dropout = Dropout::new(0.5).unwrap();
            let passes = MonteCarlo::new(1).on_pool(&pool);
            let given = passes.samples(&dropout, &tensor([1.0; 4]), 100).unwrap();
            let given = given.mean().unwrap().to_vec::<f64>().unwrap();
            let same = alone == before && own == before && given == before[1..];
            let shares = pool.install(sorix_kernels::internal::parallel::may_wait);
            let said = format!("same {same}, own pool of {threads} helps {shares}");
            // Whole or not there, for those who look.
            let path = Path::new(&path);
            std::fs::write(path.with_extension("part"), said).unwrap();
            std::fs::rename(path.with_extension("part"), path).unwrap();
            std::process::exit(0);
        }
    }
}

#[test]
fn a_child_works_on_its_own_thread_and_in_pools_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("said");
    let output = this_program()
        .args(["--exact", "the_parent", "--nocapture", "--test-threads=1"])
        .env("RAYON_NUM_THREADS", "3")
        .env(CHILD, &path)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    for _ in 0..700 {
        if let Ok(said) = std::fs::read_to_string(&path) {
            assert_eq!(said, "same true, own pool of 2 helps true");
            return;
        }
        sleep(Duration::from_millis(100));
    }
    panic!("the child did not end: {error}");
}
