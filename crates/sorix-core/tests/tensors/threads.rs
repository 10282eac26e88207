//! The number of threads does not show in a result; nor does a write by another thread half way.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::common::{pool, random, values};
use sorix_core::autograd::{checkpoint, is_grad_enabled, no_grad, taped_key};
use sorix_core::{DType, Error, MaskKey, MaskRegion, Result, Tensor};
use sorix_kernels::internal::parallel::waiting;

fn assert_same_on_any_number_of_threads<R: PartialEq + Send>(
    what: impl core::fmt::Display,
    run: impl Fn() -> R + Sync,
) {
    let on = |threads| pool(threads).install(&run);
    let one = on(1);
    assert!(
        [2, 7].map(on).iter().all(|several| *several == one),
        "{what}"
    );
}

fn bytes(x: &Tensor) -> Vec<u8> {
    x.to_le_bytes().unwrap()
}

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
        assert_same_on_any_number_of_threads(name, || bytes(&op(&x, &y).unwrap()));
    }
}

#[test]
fn rows_agree_for_any_number_of_threads() {
    type Op = fn(&Tensor) -> Result<Tensor>;
    let ops: [(&str, Op); 6] = [
        ("softmax", |x| x.softmax(1)),
        ("log_softmax", |x| x.log_softmax(0)),
        ("standardize", |x| x.standardize(&[-1], 1e-5)),
        ("logsumexp_over", |x| x.logsumexp_over(1)),
        ("max_over", |x| x.max_over(0)),
        ("argmax", |x| {
            let indices: Vec<f64> = x.argmax(1)?.into_iter().map(|i| i as f64).collect();
            let count = indices.len();
            Tensor::from_vec(indices, [count])?.mul(&x.sum_over(1)?.to_dtype(DType::F64)?)
        }),
    ];
    // 300 Ki elements, enough to share out in every dtype; 997 rows are not cut in equal parts.
    let x = random(&[997, 307], 1);
    for dtype in [DType::BF16, DType::F32, DType::F64] {
        for (name, op) in ops {
            assert_same_on_any_number_of_threads(format_args!("{name} {dtype}"), || {
                let x = x.to_dtype(dtype).unwrap().requires_grad(true);
                let y = op(&x).unwrap();
                let row = y.detach().mul_scalar(0.37).unwrap();
                y.backward_with(&row).unwrap();
                (bytes(&y), bytes(&x.grad().unwrap()))
            });
        }
    }
}

/// Whole numbers, whose sums are exact in any order.
fn whole_numbers(shape: &[usize]) -> Tensor {
    let elements = (0..shape.iter().product()).map(|i: usize| (i * 7919 % 61) as f64 - 30.0);
    Tensor::from_vec(elements.collect(), shape).unwrap()
}

#[test]
fn sums_are_right_and_agree_for_any_number_of_threads() {
    // 529 Ki elements, enough to share out in f32; cut along whichever axis is outermost in memory.
    let x = whole_numbers(&[731, 741]);
    let stack = whole_numbers(&[7, 311, 251]);
    let views = [
        ("rows", x.clone()),
        ("columns", x.transpose(0, 1).unwrap()),
        ("stack", stack.clone()),
        ("permuted stack", stack.permute(&[2, 0, 1]).unwrap()),
        (
            "one row",
            x.slice(0, 3..4).unwrap().expand([731, 741]).unwrap(),
        ),
    ];
    for (name, x) in views {
        let axes: Vec<Vec<isize>> = match x.ndim() {
            2 => vec![vec![0], vec![1], vec![0, 1]],
            _ => vec![vec![0], vec![1], vec![2], vec![0, 2], vec![2, 1]],
        };
        for axes in axes {
            let expected = x.with_view(|x: ndarray::ArrayViewD<'_, f64>| {
                let mut sorted = axes.clone();
                sorted.sort_unstable_by(|a, b| b.cmp(a));
                let sum = sorted.iter().fold(x.to_owned(), |x, &axis| {
                    x.map_axis(ndarray::Axis(axis as usize), |lane| lane.iter().sum())
                });
                sum.into_iter().collect::<Vec<f64>>()
            });
            let expected = expected.unwrap();
            for dtype in [DType::F32, DType::F64] {
                // Not whole, so that another order would show.
                let x = x.mul_scalar(0.37).unwrap().to_dtype(dtype).unwrap();
                assert_same_on_any_number_of_threads(format_args!("{name} {axes:?}"), || {
                    bytes(&x.sum_over(&axes).unwrap())
                });
            }
            assert_eq!(
                values(&x.sum_over(&axes).unwrap()),
                expected,
                "{name} {axes:?}"
            );
        }
    }
}

#[test]
fn joined_and_selected_elements_agree_for_any_number_of_threads() {
    let x = whole_numbers(&[601, 907]).to_dtype(DType::F32).unwrap();
    // Some places come several times, some not at all.
    let indices: Vec<usize> = (0..700).map(|i| i * i % 601).collect();
    for axis in [0, 1] {
        assert_same_on_any_number_of_threads(format_args!("axis {axis}"), || {
            let x = x.mul_scalar(0.37).unwrap().requires_grad(true);
            let selected = x.index_select(axis, &indices).unwrap();
            let joined = Tensor::concat(&[&selected, &selected.exp().unwrap()], axis).unwrap();
            let gradient = joined.detach().neg().unwrap();
            joined.backward_with(&gradient).unwrap();
            (bytes(&joined), bytes(&x.grad().unwrap()))
        });
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
        assert_same_on_any_number_of_threads("random numbers", || {
            let normal = Tensor::randn(shape, DType::F32, at).unwrap();
            let uniform = Tensor::uniform(shape, 0.0, 1.0, DType::F32, at).unwrap();
            [normal, uniform].map(|x| bytes(&x))
        });
    }
}

/// What a task of the pool would find that runs on this thread while it waits.
#[test]
fn scopes_are_out_of_sight_while_their_task_waits() {
    no_grad(|| {
        waiting(|| {
            assert!(is_grad_enabled());
            no_grad(|| assert!(!is_grad_enabled()));
            assert!(is_grad_enabled());
        });
        assert!(!is_grad_enabled());
    });

    let x = random(&[3], 1).requires_grad(true);
    let runs = AtomicUsize::new(0);
    let segment = move |x: &[Tensor]| {
        let is_first = runs.fetch_add(1, Ordering::Relaxed) == 0;
        let (own, of_another_task) = (x[0].mul(&x[0])?, waiting(|| x[0].neg())?);
        // The first run leaves its operations to the second to be recorded, but no other task's.
        assert_eq!(own.needs_grad(), !is_first);
        assert!(of_another_task.needs_grad());
        Ok::<_, Error>(own)
    };
    let y = checkpoint(segment, &[&x]).unwrap();
    y.sum().unwrap().backward().unwrap();
    assert_eq!(
        values(&x.grad().unwrap()),
        values(&x.mul_scalar(2.0).unwrap())
    );
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

/// An operation on a tensor and itself does not see it before a write and after.
#[test]
fn a_write_meanwhile_does_not_come_between_the_operands() {
    let [ones, twos] = [1.0, 2.0].map(|x| Tensor::full([64, 64], x, DType::F64).unwrap());
    let x = ones.mul_scalar(1.0).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                x.assign(&twos).unwrap();
                x.assign(&ones).unwrap();
            }
        });
        for _ in 0..2000 {
            let product = x.mul(&x.transpose(0, 1).unwrap()).unwrap();
            let product = product.to_vec::<f64>().unwrap();
            let first = product[0];
            if !((first == 1.0 || first == 4.0) && product.iter().all(|&y| y == first)) {
                done.store(true, Ordering::Relaxed);
                panic!("{first}");
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}
