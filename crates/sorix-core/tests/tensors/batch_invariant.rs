//! A row of a product is the same in a batch of any size.

use crate::common::{DTYPES, pool};
use sorix_core::{DType, MaskKey, Tensor, batch_invariant, is_batch_invariant};

fn bytes(x: &Tensor) -> Vec<u8> {
    x.to_le_bytes().unwrap()
}

fn random(shape: [usize; 2], dtype: DType, seed: u64) -> Tensor {
    Tensor::randn(shape, dtype, MaskKey { seed, offset: 0 }).unwrap()
}

/// Each row of `x` times `right`, for the first 1, 2, 3 … rows, against the row of the last.
fn assert_alike(x: &Tensor, right: &Tensor, sizes: impl Iterator<Item = usize>, what: &str) {
    let rows = x.shape()[0];
    let all = bytes(&x.matmul(right).unwrap());
    let width = all.len() / rows;
    for size in sizes {
        // The batch is at the end, so that its rows are at other places than in the whole.
        let batch = x.slice(0, rows - size..).unwrap();
        let got = bytes(&batch.matmul(right).unwrap());
        assert!(
            got == all[(rows - size) * width..],
            "{what}: {size} of {rows} rows"
        );
    }
}

#[test]
fn every_batch_size_dtype_and_width() {
    let widths = [
        (1, 1),
        (3, 1),
        (1, 5),
        (10, 7),
        (600, 1),
        (64, 64),
        (520, 30),
    ];
    for (k, n) in widths {
        for dtype in DTYPES {
            let (x, w) = (random([70, k], dtype, 1), random([k, n], dtype, 2));
            // As `Linear` has it: a view of [outputs, inputs].
            let transposed = random([n, k], dtype, 2).transpose(0, 1).unwrap();
            for right in [w, transposed] {
                let what = format!("{dtype} {k} x {n}, strides {:?}", right.strides());
                // Halves are multiplied as f32.
                let step = if dtype.arithmetic() == dtype { 1 } else { 9 };
                batch_invariant(|| assert_alike(&x, &right, (1..=64).step_by(step), &what));
            }
        }
    }
}

#[test]
fn a_batch_beyond_a_tile_and_one_by_columns() {
    let (x, w) = (
        random([300, 64], DType::F32, 1),
        random([64, 20], DType::F32, 2),
    );
    batch_invariant(|| {
        assert_alike(
            &x,
            &w,
            [1, 2, 43, 44, 45, 255, 256, 257].into_iter(),
            "tiles",
        )
    });

    let by_columns = x.transpose(0, 1).unwrap().contiguous().unwrap();
    let by_columns = by_columns.transpose(0, 1).unwrap();
    batch_invariant(|| {
        assert_eq!(
            bytes(&by_columns.matmul(&w).unwrap()),
            bytes(&x.matmul(&w).unwrap())
        );
        let stack = x.reshape([3, 100, 64]).unwrap();
        assert_eq!(
            bytes(&stack.matmul(&w).unwrap()),
            bytes(&x.matmul(&w).unwrap())
        );
        let pairs = w.expand([3, 64, 20]).unwrap();
        assert_eq!(
            bytes(&stack.matmul(&pairs).unwrap()),
            bytes(&x.matmul(&w).unwrap())
        );
    });
}

#[test]
fn threads_do_not_show() {
    let (x, w) = (
        random([600, 500], DType::F32, 1),
        random([500, 600], DType::F32, 2),
    );
    let expected = pool(1).install(|| batch_invariant(|| bytes(&x.matmul(&w).unwrap())));
    for threads in [2, 3, 7] {
        pool(threads).install(|| {
            batch_invariant(|| {
                assert!(bytes(&x.matmul(&w).unwrap()) == expected, "{threads}");
                assert_alike(&x, &w, [1, 2, 300].into_iter(), "threads");
            });
        });
    }
}

#[test]
fn the_values_are_those_of_the_product() {
    for (m, k, n) in [(1, 5, 3), (2, 100, 10), (1, 784, 100)] {
        let (x, w) = (random([m, k], DType::F64, 1), random([k, n], DType::F64, 2));
        let plain = x.matmul(&w).unwrap().to_vec::<f64>().unwrap();
        let alike = batch_invariant(|| x.matmul(&w))
            .unwrap()
            .to_vec::<f64>()
            .unwrap();
        for (plain, alike) in plain.iter().zip(&alike) {
            assert!(
                (plain - alike).abs() <= 1e-12 * (1.0 + plain.abs()),
                "{m} {k} {n}"
            );
        }
    }
    // What is put behind the rows does not reach them.
    let infinite = Tensor::full([3, 3], f64::INFINITY, DType::F64).unwrap();
    let one = Tensor::ones([1, 3], DType::F64).unwrap();
    let y = batch_invariant(|| one.matmul(&infinite)).unwrap();
    assert_eq!(y.to_vec::<f64>().unwrap(), [f64::INFINITY; 3]);
    for (m, k, n) in [(0, 3, 4), (1, 0, 4), (1, 3, 0)] {
        let (x, w) = (random([m, k], DType::F64, 1), random([k, n], DType::F64, 2));
        let y = batch_invariant(|| x.matmul(&w)).unwrap();
        assert_eq!(y.to_vec::<f64>().unwrap(), vec![0.0; m * n]);
    }
}

#[test]
fn the_scope_ends() {
    assert!(!is_batch_invariant());
    batch_invariant(|| {
        batch_invariant(|| assert!(is_batch_invariant()));
        assert!(is_batch_invariant());
        let fresh = std::thread::scope(|scope| scope.spawn(is_batch_invariant).join().unwrap());
        assert!(!fresh);
        let outcome = std::panic::catch_unwind(|| batch_invariant(|| panic!("within")));
        assert!(outcome.is_err() && is_batch_invariant());
    });
    assert!(!is_batch_invariant());
}
