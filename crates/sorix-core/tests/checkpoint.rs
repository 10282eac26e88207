//! Checkpoints: the gradients of the same function without one, bit for bit.

mod common;

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;

use common::{random, values};
use sorix_core::autograd::{checkpoint, enable_grad, no_grad, taped_key};
use sorix_core::{DropRate, ErrorKind, MaskKey, Result, SaveMask, Tensor, tensor};

/// A generator: each key once.
#[derive(Default)]
struct Keys(AtomicU64);

impl Keys {
    fn next(&self) -> MaskKey {
        taped_key(|| MaskKey::new(42, self.0.fetch_add(1, Ordering::Relaxed)))
    }

    fn taken(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A layer with dropout.
fn layer(x: &Tensor, w: &Tensor, keys: &Keys, save: SaveMask) -> Result<Tensor> {
    let rate = DropRate::new(0.5).unwrap();
    x.matmul(w)?.tanh()?.dropout(rate, keys.next(), save)
}

fn leaf(shape: &[usize], salt: u64) -> Tensor {
    random(shape, salt).requires_grad(true)
}

fn gradient(leaf: &Tensor) -> Vec<u64> {
    values(&leaf.grad().expect("a gradient"))
        .into_iter()
        .map(f64::to_bits)
        .collect()
}

#[test]
fn inputs_and_captured_parameters_get_the_gradients_they_would_get_without() {
    for save in [SaveMask::Bits, SaveMask::Replay] {
        let run = |checkpointed: bool| {
            let (x, w, v) = (leaf(&[4, 6], 1), leaf(&[6, 6], 2), leaf(&[6, 6], 3));
            let keys = Arc::new(Keys::default());
            // The second weight is used before, within and after.
            let before = layer(&x, &v, &keys, save).unwrap();
            let segment = {
                let (w, v, keys) = (w.clone(), v.clone(), Arc::clone(&keys));
                move |x: &[Tensor]| {
                    let y = layer(&x[0], &w, &keys, save)?;
                    layer(&y, &v, &keys, save)?.add(&x[1])
                }
            };
            let y = if checkpointed {
                checkpoint(segment, &[&before, &x]).unwrap()
            } else {
                segment(&[before, x.clone()]).unwrap()
            };
            let y = layer(&y, &v, &keys, save).unwrap();
            y.sum().unwrap().backward().unwrap();
            assert_eq!(keys.taken(), 4, "nothing is drawn again");
            (values(&y), gradient(&x), gradient(&w), gradient(&v))
        };
        assert_eq!(run(true), run(false));
    }
}

#[test]
fn checkpoints_nest() {
    let run = |depth: u32| {
        let (x, w) = (leaf(&[3, 5], 1), leaf(&[5, 5], 2));
        let keys = Arc::new(Keys::default());
        let layer = {
            let (w, keys) = (w.clone(), Arc::clone(&keys));
            move |x: &Tensor| layer(x, &w, &keys, SaveMask::Bits)
        };
        let inner = {
            let layer = layer.clone();
            move |x: &[Tensor]| layer(&layer(&x[0])?)
        };
        let y = match depth {
            0 => layer(&inner(&[layer(&x).unwrap()]).unwrap()),
            1 => layer(&checkpoint(inner, &[&layer(&x).unwrap()]).unwrap()),
            _ => checkpoint(
                move |x| layer(&checkpoint(inner.clone(), &[&layer(&x[0])?])?),
                &[&x],
            ),
        };
        y.unwrap().sum().unwrap().backward().unwrap();
        (gradient(&x), gradient(&w), keys.taken())
    };
    let expected = run(0);
    assert_eq!(run(1), expected);
    assert_eq!(run(2), expected);
}

#[test]
fn the_segment_runs_once_in_forward_and_once_in_each_backward() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let x = leaf(&[3], 1);
    let y = checkpoint(
        move |x: &[Tensor]| {
            counted.fetch_add(1, Ordering::Relaxed);
            x[0].mul(&x[0])
        },
        &[&x],
    )
    .unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    let ones = tensor([1.0; 3]);
    y.backward_retain_graph(Some(&ones)).unwrap();
    y.backward_with(&ones).unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 3);
    assert_eq!(
        values(&x.grad().unwrap()),
        values(&x.mul_scalar(4.0).unwrap())
    );
    let freed = y.backward_with(&ones).unwrap_err();
    assert_eq!(
        freed.kind(),
        &ErrorKind::GraphFreed {
            function: "CheckpointBackward"
        }
    );
}

#[test]
fn nothing_is_recorded_that_needs_no_gradient() {
    let x = random(&[3], 1);
    let square = |x: &[Tensor]| x[0].mul(&x[0]);
    assert!(!checkpoint(square, &[&x]).unwrap().needs_grad());
    let leaf = x.requires_grad(true);
    assert!(
        !no_grad(|| checkpoint(square, &[&leaf]))
            .unwrap()
            .needs_grad()
    );
    assert!(
        !checkpoint(|x| x[0].detach().neg(), &[&leaf])
            .unwrap()
            .needs_grad()
    );
    // An input without a gradient beside one with it.
    let y = checkpoint(|x| x[0].mul(&x[1]), &[&x, &leaf]).unwrap();
    y.sum().unwrap().backward().unwrap();
    assert_eq!(values(&leaf.grad().unwrap()), values(&x));
    assert!(x.grad().is_none());
}

#[test]
fn the_modes_of_the_segment_are_its_own() {
    let x = leaf(&[3], 1);
    let y = checkpoint(
        |x: &[Tensor]| {
            let constant = no_grad(|| x[0].exp())?;
            enable_grad(|| x[0].mul(&constant))
        },
        &[&x],
    )
    .unwrap();
    y.sum().unwrap().backward().unwrap();
    assert_eq!(values(&x.grad().unwrap()), values(&x.exp().unwrap()));
}

#[test]
fn other_threads_are_not_disturbed() {
    let run = |checkpointed: bool, seed: u64| {
        let (x, w) = (leaf(&[4, 4], seed), leaf(&[4, 4], seed + 100));
        let keys = Arc::new(Keys(AtomicU64::new(seed << 32)));
        for _ in 0..20 {
            let (w, keys) = (w.clone(), Arc::clone(&keys));
            let segment = move |x: &[Tensor]| layer(&x[0], &w, &keys, SaveMask::Bits);
            let y = if checkpointed {
                checkpoint(segment, &[&x]).unwrap()
            } else {
                segment(core::slice::from_ref(&x)).unwrap()
            };
            y.sum().unwrap().backward().unwrap();
        }
        (gradient(&x), gradient(&w), keys.taken())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (1..5)
            .map(|seed| (seed, scope.spawn(move || run(true, seed))))
            .collect();
        for (seed, thread) in threads {
            assert_eq!(thread.join().unwrap(), run(false, seed));
        }
    });
}

/// As many dropouts as `keys` says.
fn draw(x: &Tensor, keys: usize) -> Result<Tensor> {
    (0..keys).try_fold(x.neg()?, |x, _| {
        let key = taped_key(|| MaskKey::new(1, 2));
        x.dropout(DropRate::new(0.5).unwrap(), key, SaveMask::Bits)
    })
}

#[test]
fn a_second_run_that_differs_is_an_error_and_changes_no_gradient() {
    let rounds = |segment: fn(&[Tensor], usize) -> Result<Tensor>| {
        let count = AtomicUsize::new(0);
        let x = leaf(&[2], 1);
        let y = checkpoint(
            move |x: &[Tensor]| segment(x, count.fetch_add(1, Ordering::Relaxed)),
            &[&x],
        );
        let error = y.unwrap().sum().unwrap().backward().unwrap_err();
        assert!(x.grad().is_none());
        error.to_string()
    };
    assert_eq!(
        rounds(|x, round| draw(&x[0], 1 + round)),
        "checkpoint(float64[2]): took 1 mask keys in forward and 2 when computed again in backward; \
         was a module switched between train and eval?"
    );
    assert_eq!(
        rounds(|x, round| draw(&x[0], 1 - round)),
        "checkpoint(float64[2]): took 1 mask keys in forward and 0 when computed again in backward; \
         was a module switched between train and eval?"
    );
    assert_eq!(
        rounds(|x, round| if round == 0 { x[0].neg() } else { x[0].sum() }),
        "CheckpointBackward(float64[]): expected shape [2], got []"
    );
    assert_eq!(
        rounds(|x, round| if round == 0 {
            x[0].neg()
        } else {
            x[0].add(&tensor([1.0; 3]))
        }),
        "checkpoint(float64[2]): computed again in backward: add(float64[2], float64[3]): shapes [2] and [3] do not broadcast"
    );
}

#[test]
fn errors_of_the_first_run_come_back_and_leave_no_trace() {
    let x = leaf(&[2], 1);
    let failed = checkpoint(|x| x[0].add(&tensor([1.0; 3])), &[&x]);
    assert_eq!(
        failed.unwrap_err().to_string(),
        "add(float64[2], float64[3]): shapes [2] and [3] do not broadcast"
    );
    let y = x.mul(&x).unwrap();
    assert!(y.needs_grad(), "operations are recorded again");
}

#[test]
fn an_input_that_was_written_is_noticed() {
    let x = leaf(&[1], 1);
    let y = checkpoint(|x| x[0].exp(), &[&x]).unwrap();
    no_grad(|| x.assign(&tensor([3.0]))).unwrap();
    assert_eq!(
        y.backward().unwrap_err().to_string(),
        "CheckpointBackward(float64[1]): a tensor it saved for backward was written since \
         (at version 0 then, 1 now)"
    );
}

#[test]
fn a_chain_of_many_does_not_recurse() {
    let x = leaf(&[1], 1);
    let mut y = x.clone();
    for _ in 0..20_000 {
        y = checkpoint(|x| x[0].neg(), &[&y]).unwrap();
    }
    let z = y.neg().unwrap();
    y.backward().unwrap();
    assert_eq!(values(&x.grad().unwrap()), [1.0]);
    drop((y, z));
}
