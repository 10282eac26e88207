//! Modules within a checkpoint: the same masks, the same gradients, the same generators.

use std::sync::{Arc, Mutex};

use sorix_core::autograd::checkpoint;
use sorix_core::{Tensor, tensor};
use sorix_nn::{
    Dropout, GaussianDropout, Generator, Mode, Module, Result, SaveMask, Sequential,
    default_generator, functional, manual_seed, mc_samples, monte_carlo, take_key,
};

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

/// Noise and dropouts of all kinds of calls, in eval; writes its outputs down.
#[derive(Debug)]
struct Block {
    layers: Sequential,
    generator: Arc<Generator>,
    outputs: Mutex<Vec<Vec<f64>>>,
}

impl Block {
    fn new(save: SaveMask) -> Self {
        let dropout = Dropout::new(0.5).unwrap().save_mask(save);
        let noise = GaussianDropout::new(0.3).unwrap().save_mask(save);
        let mut layers = Sequential::new().with(dropout).with(noise);
        layers.eval();
        Self {
            layers,
            generator: Arc::new(Generator::new(7)),
            outputs: Mutex::default(),
        }
    }
}

impl Module for Block {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.layers.forward(x)?;
        let y = functional::dropout(&y, 0.5, Mode::Eval, &self.generator)?;
        let y = match take_key(Mode::Eval, &self.generator) {
            Some(key) => Dropout::new(0.1)?.forward_with_key(&y, key)?,
            None => y,
        };
        self.outputs.lock().unwrap().push(y.to_vec()?);
        Ok(y)
    }
}

/// A block whose inner tensors are computed again in backward, or not.
#[derive(Debug)]
struct Checkpointed(Arc<Block>, bool);

impl Module for Checkpointed {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let block = Arc::clone(&self.0);
        if self.1 {
            checkpoint(move |x: &[Tensor]| block.forward(&x[0]), &[x])
        } else {
            block.forward(x)
        }
    }
}

/// A model in eval drops within a Monte Carlo scope, and drops the very same when a checkpoint in it
/// is computed again, wherever backward is called.
#[test]
fn the_masks_of_a_monte_carlo_sample() {
    #[derive(Clone, Copy, Debug)]
    enum Backward {
        Within,
        After,
        InAnother,
    }
    for save in [SaveMask::Bits, SaveMask::Replay] {
        let run = |checkpointed: bool, when: Backward| {
            let blocks = [(); 3].map(|()| Arc::new(Block::new(save)));
            let inner = Checkpointed(Arc::clone(&blocks[1]), checkpointed);
            let x = leaf();
            let backward = |y: &Tensor| y.mul(y).unwrap().sum().unwrap().backward().unwrap();
            let y = monte_carlo(5, 3, || {
                let y = blocks[0].forward(&x).unwrap();
                let y = blocks[2].forward(&inner.forward(&y).unwrap()).unwrap();
                if matches!(when, Backward::Within) {
                    backward(&y);
                }
                y
            });
            match when {
                Backward::Within => {}
                Backward::After => backward(&y),
                Backward::InAnother => monte_carlo(6, 0, || backward(&y)),
            }
            let outputs = blocks[1].outputs.lock().unwrap();
            assert_eq!(outputs.len(), if checkpointed { 2 } else { 1 });
            assert!(outputs.iter().all(|y| *y == outputs[0]), "{when:?}");
            assert!(blocks.iter().all(|b| b.generator.state().offset == 0));
            let gradient = x.grad().unwrap().to_vec::<f64>().unwrap();
            (y.to_vec::<f64>().unwrap(), gradient)
        };
        let expected = run(false, Backward::Within);
        assert!(expected.0.contains(&0.0) && expected.1.iter().any(|&g| g != 0.0));
        for when in [Backward::Within, Backward::After, Backward::InAnother] {
            assert_eq!(run(true, when), expected, "{when:?}");
        }
    }
}

/// And one that drops nothing in forward drops nothing in a backward within a scope.
#[test]
fn a_scope_around_backward_alone_changes_nothing() {
    let x = leaf();
    let y = Checkpointed(Arc::new(Block::new(SaveMask::Bits)), true);
    let y = y.forward(&x).unwrap().sum().unwrap();
    monte_carlo(5, 3, || y.backward()).unwrap();
    assert_eq!(x.grad().unwrap().to_vec::<f64>().unwrap(), [1.0; 300]);
}

#[test]
fn samples_of_a_checkpointed_model() {
    let samples = |checkpointed| {
        let model = Checkpointed(Arc::new(Block::new(SaveMask::Bits)), checkpointed);
        let samples = mc_samples(&model, &leaf(), 5, 9).unwrap().into_samples();
        samples
            .iter()
            .map(|y| y.to_vec().unwrap())
            .collect::<Vec<Vec<f64>>>()
    };
    assert_eq!(samples(true), samples(false));
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
        "checkpoint(float64[2]): took 1 mask keys in forward and 0 when computed again in backward; \
         was a module switched between train and eval?"
    );
    assert!(x.grad().is_none());
}
