//! How many buffers tensors have and take: what a graph keeps, and what backward needs.

mod common;

use std::sync::{Mutex, MutexGuard, PoisonError};

use common::values;
use sorix_core::autograd::{checkpoint, taped_key};
use sorix_core::{
    Affine, AttentionOptions, DType, DropRate, MaskKey, Result, SaveMask, Tensor, pool,
};

/// Elements of a tensor whose buffer the pool counts.
const LEN: usize = 4096;

/// Counts the buffers since it was made. The pool is the process's, so one test at a time has it.
struct Buffers {
    misses: u64,
    _turn: MutexGuard<'static, ()>,
}

impl Buffers {
    fn new() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        pool::clear();
        Self {
            misses: pool::stats().misses,
            _turn: turn,
        }
    }

    /// Those that somebody has.
    fn in_use(&self) -> u64 {
        let stats = pool::stats();
        stats.misses - self.misses - stats.held_buffers as u64
    }

    /// How many `f` takes, new ones or recycled.
    fn taken_by(f: impl FnOnce()) -> u64 {
        let taken = || {
            let stats = pool::stats();
            stats.hits + stats.misses
        };
        let before = taken();
        f();
        taken() - before
    }
}

fn leaf() -> Tensor {
    let x = Tensor::full([LEN], 0.5, DType::F64).unwrap();
    x.requires_grad(true)
}

/// Ten operations of which each saves its input, or its mask.
fn segment(x: &Tensor) -> Result<Tensor> {
    (0..5).try_fold(x.clone(), |x, k| {
        let key = taped_key(|| MaskKey::new(1, k));
        let rate = DropRate::new(0.1).unwrap();
        x.tanh()?.dropout(rate, key, SaveMask::Bits)
    })
}

#[test]
fn a_checkpoint_keeps_its_inputs_alone() {
    let buffers = Buffers::new();
    let x = leaf();
    let plain = segment(&x).unwrap().sum().unwrap();
    assert_eq!(buffers.in_use(), 1 + 4, "x, and what tanh saved after it");
    drop(plain);

    let y = checkpoint(|x| segment(&x[0]), &[&x]).unwrap();
    assert_eq!(buffers.in_use(), 2, "x and y");
    let loss = y.sum().unwrap();
    drop(y);
    assert_eq!(buffers.in_use(), 1, "x");
    loss.backward().unwrap();
    assert_eq!(buffers.in_use(), 2, "x and its gradient");

    // An input that nobody else has, and a parameter that the closure holds.
    x.zero_grad();
    let (input, parameter) = (x.neg().unwrap(), leaf());
    let y = checkpoint(
        move |x: &[Tensor]| segment(&x[0].mul(&parameter)?),
        &[&input],
    );
    let loss = y.unwrap().sum().unwrap();
    drop(input);
    assert_eq!(buffers.in_use(), 3, "x, the input and the parameter");
    // A leaf that the closure makes is no parameter.
    let y = checkpoint(|x| x[0].mul(&x[0].exp()?.requires_grad(true))?.sum(), &[&x]);
    assert_eq!(buffers.in_use(), 3);
    drop((loss, y));
    assert_eq!(buffers.in_use(), 1);
}

#[test]
fn backward_of_dropout_takes_the_memory_of_its_gradient() {
    let _buffers = Buffers::new();
    let (rate, key) = (DropRate::new(0.5).unwrap(), MaskKey::new(1, 2));
    let affine = Affine {
        scale: 3.0,
        shift: 1.0,
        dropped: 2.0,
    };
    type Dropout<'a> = &'a dyn Fn(&Tensor, SaveMask) -> Result<Tensor>;
    let forms: [(&str, Dropout<'_>); 3] = [
        ("dropout", &|x, save| x.dropout(rate, key, save)),
        ("broadcast", &|x, save| {
            let x = x.reshape([64, 64])?;
            x.dropout_broadcast(rate, key, &[64, 1], save)
        }),
        ("affine", &|x, save| {
            x.dropout_affine(rate, key, &[LEN], affine, save)
        }),
    ];
    for (name, dropout) in forms {
        for save in [SaveMask::Bits, SaveMask::Replay] {
            let x = leaf();
            let y = dropout(&x, save).unwrap();
            let ones = Tensor::ones(y.shape(), DType::F64).unwrap();
            let scaled = y.mul_scalar(7.0).unwrap();
            let taken = Buffers::taken_by(|| scaled.backward_with(&ones).unwrap());
            assert_eq!(taken, 1, "{name} {save:?}: that of mul_scalar");
            let scaled = x.grad().unwrap();

            // Not where somebody else has it.
            x.zero_grad();
            let z = dropout(&x, save).unwrap();
            z.backward_with(&ones).unwrap();
            assert_eq!(values(&ones), [1.0; LEN], "{name} {save:?}");
            let expected = x.grad().unwrap().mul_scalar(7.0).unwrap();
            assert_eq!(values(&scaled), values(&expected), "{name} {save:?}");
        }
    }
}

#[test]
fn attention_never_holds_its_matrix() {
    const LENGTH: usize = 4096;
    const MATRIX: usize = LENGTH * LENGTH * size_of::<f32>();

    let _buffers = Buffers::new();
    // On one thread, as each has memory of its own.
    common::pool(1).install(|| {
        let x = Tensor::full([1, 1, LENGTH, 4], 0.5, DType::F32).unwrap();
        let leaves = [(); 3].map(|()| x.copy().unwrap().requires_grad(true));
        let options = AttentionOptions::new();
        let options = options.dropout(DropRate::new(0.1).unwrap(), MaskKey::new(1, 2));
        let y = leaves[0].scaled_dot_product_attention(&leaves[1], &leaves[2], options);
        y.unwrap().sum().unwrap().backward().unwrap();
    });
    // All that was used, arguments and results among it, waits to be used again.
    let held = pool::stats().held_bytes;
    assert!(held < MATRIX / 20, "{held} of {MATRIX}");
}
