//! Checkpoints: the gradients of the same function without one, bit for bit.

use core::cell::RefCell;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;

use crate::common::{random, values};
use sorix_core::autograd::{
    checkpoint, enable_grad, is_grad_enabled, no_grad, taped_key, taped_mode,
};
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

fn bits(x: &Tensor) -> Vec<u64> {
    values(x).into_iter().map(f64::to_bits).collect()
}

fn gradient(leaf: &Tensor) -> Vec<u64> {
    bits(&leaf.grad().expect("a gradient"))
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
        "checkpoint(float64[2]): draw 2 was nothing in forward and a key when computed again in \
         backward; was a module switched between train and eval, or its p changed?"
    );
    assert_eq!(
        rounds(|x, round| draw(&x[0], 1 - round)),
        "checkpoint(float64[2]): draw 0 was a key in forward and nothing when computed again in \
         backward; was a module switched between train and eval, or its p changed?"
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
         (at version 0 then, 1 now), as by an optimiser's step after forward"
    );
}

/// What the closure holds is watched as what it is given: a parameter is at every step written.
#[test]
fn a_captured_parameter_that_was_written_is_noticed() {
    let written = "CheckpointBackward(float64[1]): a tensor it saved for backward was written since \
                   (at version 0 then, 1 now), as by an optimiser's step after forward";
    let (x, w) = (leaf(&[1], 1), leaf(&[1], 2));
    let halved = w.mul_scalar(0.5).unwrap();
    let view = w.reshape([1, 1]).unwrap();
    let captured: [(&str, Tensor); 3] = [("leaf", w.clone()), ("computed", halved), ("view", view)];
    for (name, tensor) in captured {
        let captured = tensor.clone();
        let y = checkpoint(
            move |x: &[Tensor]| x[0].exp()?.mul(&captured.reshape([1])?),
            &[&x],
        )
        .unwrap();
        y.backward_retain_graph(None).unwrap();
        let before = (gradient(&x), gradient(&w));
        let target = tensor.detach();
        target.assign(&target.mul_scalar(2.0).unwrap()).unwrap();
        let error = y.backward_retain_graph(None).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::SavedTensorWritten { .. }),
            "{name}: {error}"
        );
        if name == "leaf" {
            assert_eq!(error.to_string(), written);
        }
        assert_eq!((gradient(&x), gradient(&w)), before, "{name}");
    }
}

/// Another thread writes while the closure is run again: what it reads is refused afterwards.
#[test]
fn a_captured_parameter_that_is_written_meanwhile_is_noticed() {
    let (x, w) = (leaf(&[1], 1), leaf(&[1], 2));
    let (captured, runs) = (w.clone(), AtomicUsize::new(0));
    let y = checkpoint(
        move |x: &[Tensor]| {
            if runs.fetch_add(1, Ordering::Relaxed) == 1 {
                let w = captured.detach();
                std::thread::spawn(move || w.assign(&tensor([9.0])).unwrap())
                    .join()
                    .unwrap();
            }
            x[0].mul(&captured)
        },
        &[&x],
    )
    .unwrap();
    let error = y.backward().unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::SavedTensorWritten { .. }),
        "{error}"
    );
    assert!(x.grad().is_none() && w.grad().is_none());
}

/// A leaf that the closure makes is its own affair, and what it writes before the graph uses it too.
#[test]
fn what_the_closure_makes_it_may_write() {
    let x = leaf(&[2], 1);
    let y = checkpoint(
        |x: &[Tensor]| {
            let mine = x[0].detach().exp()?.requires_grad(true);
            no_grad(|| mine.assign(&tensor([3.0, 4.0])))?;
            x[0].mul(&mine)
        },
        &[&x],
    )
    .unwrap();
    y.sum().unwrap().backward().unwrap();
    assert_eq!(values(&x.grad().unwrap()), [3.0, 4.0]);
}

/// Its masks would not be those of forward.
#[test]
fn what_another_thread_computes_for_the_closure_is_an_error() {
    type Segment = fn(&Tensor, &Keys) -> Result<Tensor>;
    fn dropped(x: &Tensor, keys: &Keys) -> Result<Tensor> {
        x.dropout(DropRate::new(0.5).unwrap(), keys.next(), SaveMask::Bits)
    }
    let segments: [(&str, Segment); 4] = [
        ("an operand", |x, keys| {
            std::thread::scope(|scope| scope.spawn(|| dropped(x, keys)).join().unwrap())?.add(x)
        }),
        ("the output", |x, keys| {
            std::thread::scope(|scope| scope.spawn(|| dropped(x, keys)).join().unwrap())
        }),
        ("a part", |x, keys| {
            let (left, right) = crate::common::pool(2)
                .install(|| rayon::join(|| dropped(x, keys), || dropped(x, keys)));
            left?.add(&right?)?.neg()
        }),
        ("a checkpoint", |x, _| {
            let inner = || checkpoint(|x| x[0].neg(), &[x]);
            std::thread::scope(|scope| scope.spawn(inner).join().unwrap())?.neg()
        }),
    ];
    for (name, segment) in segments {
        let (x, keys) = (leaf(&[2], 1), Keys::default());
        let error = checkpoint(move |x: &[Tensor]| segment(&x[0], &keys), &[&x]).unwrap_err();
        let function = match name {
            "a checkpoint" => "CheckpointBackward",
            _ => "DropoutBackward",
        };
        assert_eq!(
            error.to_string(),
            format!(
                "checkpoint(float64[2]): {function} was recorded on another thread while the closure \
                 ran; the closure must compute everything on the calling thread"
            ),
            "{name}"
        );
    }
}

/// Not what was there before, wherever it was computed, and what runs beside it.
#[test]
fn what_another_thread_computed_before_is_no_error() {
    let (x, w) = (leaf(&[2], 1), leaf(&[2], 2));
    let twice = std::thread::scope(|scope| {
        let twice = scope.spawn(|| w.mul_scalar(2.0).unwrap());
        twice.join().unwrap()
    });
    let beside = w.clone();
    let y = checkpoint(
        move |x: &[Tensor]| {
            let constant = std::thread::scope(|scope| {
                scope
                    .spawn(|| beside.exp().unwrap().to_vec::<f64>().unwrap())
                    .join()
                    .unwrap()
            });
            x[0].mul(&twice)?.mul(&Tensor::from_slice(&constant, [2])?)
        },
        &[&x],
    )
    .unwrap();
    y.sum().unwrap().backward().unwrap();
    let expected = w.mul_scalar(2.0).unwrap().mul(&w.exp().unwrap()).unwrap();
    assert_eq!(values(&x.grad().unwrap()), values(&expected));
}

#[test]
fn keys_and_modes_that_are_made_of_others_are_taken_once() {
    let run = |checkpointed: bool| {
        let x = leaf(&[64], 1);
        let keys = Arc::new(Keys::default());
        let segment = {
            let keys = Arc::clone(&keys);
            move |x: &[Tensor]| {
                let key = taped_key(|| {
                    let inner = keys.next();
                    MaskKey::new(inner.seed ^ 1, inner.offset)
                });
                let mode = taped_mode(|| !taped_mode(|| false));
                let y = x[0].dropout(DropRate::new(0.5).unwrap(), key, SaveMask::Bits)?;
                let by = if mode && !taped_mode(|| false) {
                    3.0
                } else {
                    5.0
                };
                let key = keys.next();
                y.mul_scalar(by)?
                    .dropout(DropRate::new(0.5).unwrap(), key, SaveMask::Bits)
            }
        };
        let y = if checkpointed {
            checkpoint(segment, &[&x]).unwrap()
        } else {
            segment(core::slice::from_ref(&x)).unwrap()
        };
        y.sum().unwrap().backward().unwrap();
        (values(&y), gradient(&x), keys.taken())
    };
    assert_eq!(run(true), run(false));
}

/// The same keys in the same number, for another mask, or in another order.
#[test]
fn another_mask_in_the_second_run_is_an_error() {
    let x = leaf(&[4], 1);
    let rounds = |segment: fn(&Tensor, usize) -> Result<Tensor>| {
        let round = AtomicUsize::new(0);
        let y = checkpoint(
            move |x: &[Tensor]| segment(&x[0], round.fetch_add(1, Ordering::Relaxed)),
            &[&x],
        );
        let error = y.unwrap().sum().unwrap().backward().unwrap_err();
        assert!(x.grad().is_none());
        let message = error.to_string();
        let (draw, rest) = message
            .strip_prefix("checkpoint(float64[4]): draw ")
            .and_then(|message| message.split_once(" was "))
            .unwrap_or_else(|| panic!("{message}"));
        let (what, _) = rest.split_once(" when computed again").unwrap();
        format!("{draw}: {what}")
    };
    fn at(x: &Tensor, p: f64, shape: &[usize]) -> Result<Tensor> {
        let (rate, key) = (DropRate::new(p).unwrap(), taped_key(|| MaskKey::new(3, 4)));
        x.dropout_broadcast(rate, key, shape, SaveMask::Bits)
    }
    assert_eq!(
        rounds(|x, round| at(x, 0.5 + 0.25 * round as f64, &[4])),
        "1: a mask of 4 elements at p = 0.5, seed 3, offset 4 in forward and \
         a mask of 4 elements at p = 0.75, seed 3, offset 4"
    );
    assert_eq!(
        rounds(|x, round| at(x, 0.5, &[1 + 3 * round])),
        "1: a mask of 1 elements at p = 0.5, seed 3, offset 4 in forward and \
         a mask of 4 elements at p = 0.5, seed 3, offset 4"
    );
    assert_eq!(
        rounds(|x, round| at(x, 0.5 - 0.5 * round as f64, &[4])),
        "1: a mask of 4 elements at p = 0.5, seed 3, offset 4 in forward and nothing"
    );
    // Of two layers, one in train and one in eval, each is switched.
    assert_eq!(
        rounds(|x, round| {
            let layers = (0..2).map(|layer| {
                if layer == round {
                    at(x, 0.5, &[4])
                } else {
                    taped_mode(|| false);
                    Ok(x.clone())
                }
            });
            let layers: Vec<Tensor> = layers.collect::<Result<_>>()?;
            layers[0].mul_scalar(10.0)?.add(&layers[1])
        }),
        "0: a key in forward and a mode"
    );
}

#[test]
fn a_panic_in_the_closure_leaves_no_trace() {
    let keys = Arc::new(Keys::default());
    for when in 0..2 {
        let (x, w) = (leaf(&[8], 1), leaf(&[8], 2));
        let (held, runs) = (Arc::clone(&keys), AtomicUsize::new(0));
        let panics = move |x: &[Tensor]| {
            let y = x[0].dropout(DropRate::new(0.5).unwrap(), held.next(), SaveMask::Bits);
            assert_ne!(runs.fetch_add(1, Ordering::Relaxed), when, "on purpose");
            y
        };
        let step = || {
            let y = checkpoint(panics, &[&x]).unwrap();
            y.mul(&w).unwrap().sum().unwrap().backward().unwrap();
        };
        std::panic::catch_unwind(core::panic::AssertUnwindSafe(step)).unwrap_err();
        assert!(is_grad_enabled(), "run {when}");
        assert!(x.grad().is_none() && w.grad().is_none(), "run {when}");
        // Operations are recorded, and keys are drawn.
        let before = keys.taken();
        let y = x.dropout(DropRate::new(0.5).unwrap(), keys.next(), SaveMask::Bits);
        let y = y.unwrap();
        assert_eq!((y.needs_grad(), keys.taken()), (true, before + 1));
        let held = Arc::clone(&keys);
        let drops = move |x: &[Tensor]| layer(&x[0], &x[1], &held, SaveMask::Bits);
        let (x, w) = (leaf(&[4, 4], 1), leaf(&[4, 4], 2));
        let y = checkpoint(drops, &[&x, &w]).unwrap();
        y.sum().unwrap().backward().unwrap();
        assert_eq!(keys.taken(), before + 2, "run {when}");
    }
}

#[test]
fn a_retained_checkpoint_runs_on_several_threads() {
    const RUNS: usize = 50;
    const THREADS: usize = 4;
    let (x, w) = (leaf(&[6, 6], 1), leaf(&[6, 6], 2));
    let keys = Arc::new(Keys::default());
    let (held, captured) = (Arc::clone(&keys), w.clone());
    let y = checkpoint(
        move |x: &[Tensor]| layer(&x[0], &captured, &held, SaveMask::Replay),
        &[&x],
    )
    .unwrap();
    let y = y.sum().unwrap();
    y.backward_retain_graph(None).unwrap();
    let once = [&x, &w].map(|leaf| leaf.grad().unwrap());
    x.zero_grad();
    w.zero_grad();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..RUNS).for_each(|_| y.backward_retain_graph(None).unwrap()));
        }
    });
    for (leaf, once) in [&x, &w].into_iter().zip(once) {
        let sum = (1..RUNS * THREADS).fold(once.clone(), |sum, _| sum.add(&once).unwrap());
        assert_eq!(gradient(leaf), bits(&sum));
    }
    assert_eq!(keys.taken(), 1);
}

/// Thread-local variables end in an order that nobody chose.
#[test]
fn a_checkpoint_in_the_destructor_of_a_thread_local_variable() {
    struct Last(std::sync::mpsc::Sender<Vec<f64>>);
    impl Drop for Last {
        fn drop(&mut self) {
            let x = tensor([2.0, 3.0]).requires_grad(true);
            let y = checkpoint(|x| x[0].mul(&x[0]), &[&x]).unwrap();
            y.sum().unwrap().backward().unwrap();
            self.0.send(values(&x.grad().unwrap())).unwrap();
        }
    }
    thread_local! {
        static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
    }
    let (sender, gradients) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        LAST.set(Some(Last(sender)));
        // What this registers on the thread comes later, and so goes first.
        let x = leaf(&[1], 1);
        checkpoint(|x| x[0].neg(), &[&x]).unwrap().backward()
    });
    thread.join().unwrap().unwrap();
    assert_eq!(gradients.recv().unwrap(), [4.0, 6.0]);
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
