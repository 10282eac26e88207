//! The number of threads does not show in a result.
#![cfg(feature = "parallel")]

mod common;

use common::{pool, random};
use sorix_core::autograd::{checkpoint, is_grad_enabled, no_grad, taped_key};
use sorix_core::{DType, Error, MaskKey, MaskRegion, Result, Tensor};

#[test]
fn elementwise_loops_agree_for_any_number_of_threads() {
    type Op = fn(&Tensor, &Tensor) -> Result<Tensor>;
    let ops: [(&str, Op); 5] = [
        ("exp", |x, _| x.exp()),
        ("gelu", |x, _| x.gelu()),
        ("add", Tensor::add),
        ("add a row", |x, y| x.add(&y.slice(0, 3..4)?)),
        ("add a transposed", |x, y| {
            x.transpose(0, 1)?.add(&y.transpose(0, 1)?)
        }),
    ];
    // 277 Ki elements: 3.2 MiB to read and write, more than the 2 MiB that are shared out.
    let x = random(&[301, 307], 1).to_dtype(DType::F32).unwrap();
    let x = Tensor::concat(&[&x, &x, &x], 0).unwrap();
    let y = x.mul_scalar(0.37).unwrap();
    for (name, op) in ops {
        let on = |threads: usize| {
            let bits = |x: f32| x.to_bits();
            let result = pool(threads).install(|| op(&x, &y).unwrap().to_vec::<f32>().unwrap());
            result.into_iter().map(bits).collect::<Vec<_>>()
        };
        let one = on(1);
        assert!(
            [2, 7].map(on).iter().all(|several| *several == one),
            "{name}"
        );
    }
}

#[test]
fn rows_agree_for_any_number_of_threads() {
    type Op = fn(&Tensor) -> Result<Tensor>;
    let ops: [(&str, Op); 6] = [
        ("softmax", |x| x.softmax(1)),
        ("log_softmax", |x| x.log_softmax(0)),
        ("standardize", |x| x.standardize(&[-1], 1e-5)),
        ("logsumexp_axes", |x| x.logsumexp_axes(&[1])),
        ("max_axes", |x| x.max_axes(&[0])),
        ("argmax", |x| {
            let indices: Vec<f64> = x.argmax(1)?.into_iter().map(|i| i as f64).collect();
            let count = indices.len();
            Tensor::from_vec(indices, [count])?.mul(&x.sum_axes(&[1])?.to_dtype(DType::F64)?)
        }),
    ];
    // 300 Ki elements, enough to share out in every dtype; 997 rows are not cut in equal parts.
    let x = random(&[997, 307], 1);
    for dtype in [DType::BF16, DType::F32, DType::F64] {
        for (name, op) in ops {
            let on = |threads: usize| {
                pool(threads).install(|| {
                    let x = x.to_dtype(dtype).unwrap().requires_grad(true);
                    let y = op(&x).unwrap();
                    let row = y.detach().mul_scalar(0.37).unwrap();
                    y.backward_with(&row).unwrap();
                    let bytes = |x: &Tensor| x.to_le_bytes().unwrap();
                    (bytes(&y), bytes(&x.grad().unwrap()))
                })
            };
            let one = on(1);
            assert!(
                [2, 7].map(on).iter().all(|several| *several == one),
                "{name} {dtype}"
            );
        }
    }
}

#[test]
fn gradients_agree_for_any_number_of_threads() {
    let on = |threads: usize| {
        pool(threads).install(|| {
            let x = random(&[101, 103], 1).requires_grad(true);
            x.gelu()
                .unwrap()
                .mul(&x)
                .unwrap()
                .sum()
                .unwrap()
                .backward()
                .unwrap();
            x.grad().unwrap().to_vec::<f64>().unwrap()
        })
    };
    assert_eq!(on(1), on(3));
}

#[test]
fn random_numbers_agree_for_any_number_of_threads() {
    // 469 Ki elements: some parts of 32 Ki each, and one that is shorter.
    let shape = [601, 799];
    let key = MaskKey::new(42, 7);
    let parts: [MaskRegion; 3] = [
        key.into(),
        key.window(1000).into(),
        key.shard(&[601, 2000], 1, 1000..1799).unwrap(),
    ];
    for at in parts {
        let on = |threads: usize| {
            pool(threads).install(|| {
                let normal = Tensor::randn(shape, DType::F32, at).unwrap();
                let uniform = Tensor::uniform(shape, 0.0, 1.0, DType::F32, at).unwrap();
                [normal, uniform].map(|x| x.to_vec::<f32>().unwrap())
            })
        };
        let one = on(1);
        assert!([2, 7].map(on).iter().all(|several| *several == one));
    }
}

/// A thread of a pool that waits for the parts of one task's operation runs other tasks meanwhile.
/// None may find itself within another's `no_grad`, backward or checkpoint.
#[test]
fn tasks_of_one_pool_do_not_see_each_others_scopes() {
    // Functions of so many elements are shared out.
    let x = random(&[1 << 13], 1);
    let train = |task: u64| -> Result<()> {
        assert!(is_grad_enabled(), "task {task} began within a no_grad");
        no_grad(|| {
            assert!(!x.exp()?.needs_grad());
            assert!(!is_grad_enabled(), "task {task} lost its no_grad");
            Ok::<_, Error>(())
        })?;
        let w = x.requires_grad(true);
        let segment = move |x: &[Tensor]| {
            let first = taped_key(|| MaskKey::new(task, 0));
            let y = x[0].exp()?;
            let second = taped_key(|| MaskKey::new(task, 1));
            assert_eq!([first.seed, second.seed], [task; 2], "another's tape");
            y.exp()
        };
        checkpoint(segment, &[&w])?.sum()?.backward()?;
        assert!(w.grad().is_some());
        Ok(())
    };
    // A task that waits runs another on top of itself, which may wait in turn: room for all of them.
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(4)
        .stack_size(64 << 20)
        .build();
    // Not from a thread of the pool, so that each thread comes for a task when it has time.
    pool.unwrap().in_place_scope(|scope| {
        for task in 0..100 {
            scope.spawn(move |_| train(task).unwrap());
        }
    });
}
