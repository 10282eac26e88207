//! Saving and loading in a process that has no room for a second model.
#![cfg(all(feature = "safetensors", target_os = "linux"))]

use std::path::Path;

use sorix_core::{DType, Error as TensorError, ErrorKind, Tensor};
use sorix_nn::visit::Visit;
use sorix_nn::{Checkpoint, Error, Module, Result};
use sorix_testing::this_program_within;

/// Set in the processes that this test starts.
const CHILD: &str = "SORIX_TEST_SHORT_OF_MEMORY";

/// Four parameters of 16 MiB.
#[derive(Debug)]
struct Four([Tensor; 4]);

impl Four {
    fn of(value: f64) -> Self {
        Self(
            [0, 1, 2, 3]
                .map(|i| Tensor::full([4 << 20], value + f64::from(i), DType::F32).unwrap()),
        )
    }

    fn firsts(&self) -> [f32; 4] {
        self.0
            .each_ref()
            .map(|x| x.slice(0, 0..1).unwrap().item().unwrap())
    }
}

impl Module for Four {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.clone())
    }
}

impl Visit for Four {
    fn visit_own_parameters(&self, visit: &mut dyn FnMut(&str, &Tensor)) {
        for (name, x) in ["a", "b", "c", "d"].into_iter().zip(&self.0) {
            visit(name, x);
        }
    }
}

/// All memory that there is but about so many bytes, until it is dropped.
fn all_but(bytes: usize) -> Vec<Vec<u8>> {
    let mut kept = Vec::<u8>::new();
    kept.try_reserve_exact(bytes).unwrap();
    let mut taken = Vec::with_capacity(100_000);
    for piece in [16 << 20, 1 << 20, 128 << 10] {
        loop {
            let mut more = Vec::new();
            if more.try_reserve_exact(piece).is_err() {
                break;
            }
            taken.push(more);
        }
    }
    drop(kept);
    taken
}

fn is_short(outcome: Result<()>) -> bool {
    let Err(Error::Tensor(error)) = outcome else {
        return false;
    };
    matches!(TensorError::kind(&error), ErrorKind::Allocation { .. })
}

fn in_the_child(path: &Path) {
    let model = Four::of(1.0);
    let checkpoint = || Checkpoint::new().parameters("", &model);
    {
        // A file in memory does not fit, one on the disk takes none.
        let _taken = all_but(8 << 20);
        assert!(is_short(checkpoint().to_bytes().map(drop)));
        checkpoint().save(path).unwrap();
    }
    let other = Four::of(5.0);
    {
        // There is no room for one of the parameters: none is set.
        let _taken = all_but(8 << 20);
        assert!(is_short(
            Checkpoint::new().parameters("", &other).load(path)
        ));
        assert_eq!(other.firsts(), [5.0, 6.0, 7.0, 8.0]);
    }
    // There is room for one, and not for two.
    let _taken = all_but(24 << 20);
    Checkpoint::new().parameters("", &other).load(path).unwrap();
    assert_eq!(other.firsts(), [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn a_model_is_saved_and_loaded_tensor_by_tensor() {
    match std::env::var_os(CHILD) {
        Some(path) if path.is_empty() => {}
        Some(path) => in_the_child(Path::new(&path)),
        None => {
            let directory = tempfile::tempdir().unwrap();
            let run = |path: &Path| {
                let test = "a_model_is_saved_and_loaded_tensor_by_tensor";
                let output = this_program_within(600_000, test)?
                    .env(CHILD, path)
                    .env("RAYON_NUM_THREADS", "1")
                    .output()
                    .unwrap();
                let error = String::from_utf8_lossy(&output.stderr).into_owned();
                Some((output.status.success(), error))
            };
            // Not where a test that does nothing has too little, as under a sanitizer.
            if let Some((true, _)) = run(Path::new("")) {
                let path = directory.path().join("model.safetensors");
                let (passed, error) = run(&path).expect("a limit, as before");
                assert!(passed, "{error}");
            }
        }
    }
}
