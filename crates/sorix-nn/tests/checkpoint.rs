//! Modules within a checkpoint: the same masks, the same gradients, the same generators.

use std::sync::{Arc, Mutex};

use sorix_core::autograd::checkpoint;
use sorix_core::{Tensor, tensor};
use sorix_nn::{Dropout, Generator, Module, SaveMask, Sequential, default_generator, manual_seed};

fn leaf() -> Tensor {
    let elements: Vec<f64> = (1..=300).map(f64::from).collect();
    Tensor::from_slice(&elements, [3, 100])
        .unwrap()
        .requires_grad(true)
}

/// Output, gradient and the offset of the generator after a step, with and without a checkpoint.
fn step(
    model: Sequential,
    offset: impl Fn() -> u64,
    checkpointed: bool,
) -> (Vec<f64>, Vec<f64>, u64) {
    let x = leaf();
    let segment = move |x: &[Tensor]| model.forward(&x[0]);
    let y = if checkpointed {
        checkpoint(segment, &[&x]).unwrap()
    } else {
        segment(core::slice::from_ref(&x)).unwrap()
    };
    let z = y.mul(&y).unwrap();
    z.sum().unwrap().backward().unwrap();
    (
        y.to_vec().unwrap(),
        x.grad().unwrap().to_vec().unwrap(),
        offset(),
    )
}

#[test]
fn the_masks_of_a_generator_of_ones_own() {
    for save in [SaveMask::Bits, SaveMask::Replay] {
        let run = |checkpointed| {
            let generator = Arc::new(Generator::new(7));
            let dropout = || {
                let dropout = Dropout::new(0.5).unwrap().save_mask(save);
                dropout.generator(Arc::clone(&generator))
            };
            let model = Sequential::new().with(dropout()).with(dropout());
            step(model, || generator.state().offset, checkpointed)
        };
        let (y, gradient, offset) = run(false);
        assert_eq!(offset, 2);
        assert!(y.contains(&0.0) && gradient.iter().any(|&g| g != 0.0));
        assert_eq!(run(true), (y, gradient, offset));
    }
}

#[test]
fn the_masks_of_the_default_generator() {
    let run = |checkpointed| {
        manual_seed(11);
        let dropout = || Dropout::new(0.3).unwrap();
        let model = Sequential::new().with(dropout()).with(dropout());
        step(
            model,
            || default_generator().unwrap().state().offset,
            checkpointed,
        )
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn a_module_switched_before_backward_is_an_error() {
    let dropout = Dropout::new(0.5).unwrap().generator(Generator::new(7));
    let dropout = Arc::new(Mutex::new(dropout));
    let shared = Arc::clone(&dropout);
    let x = tensor([1.0, 2.0]).requires_grad(true);
    let y = checkpoint(
        move |x: &[Tensor]| shared.lock().unwrap().forward(&x[0]),
        &[&x],
    )
    .unwrap();
    dropout.lock().unwrap().eval();
    assert_eq!(
        y.sum().unwrap().backward().unwrap_err().to_string(),
        "checkpoint: took 1 mask keys in forward and 0 when computed again in backward; \
         was a module switched between train and eval?"
    );
    assert!(x.grad().is_none());
}
