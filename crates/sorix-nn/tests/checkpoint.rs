//! Modules within a checkpoint: the same masks, the same gradients, the same generators.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use sorix_core::autograd::checkpoint;
use sorix_core::{DType, SaveMask, Tensor, tensor};
use sorix_nn::dropout::{DropoutLayer, Form, Rows};
use sorix_nn::{
    AlphaDropout, BroadcastDropout, DropBlock2d, DropPath, Dropout, Dropout1d, Dropout2d,
    Dropout3d, Embedding, EmbeddingDropout, FeatureAlphaDropout, GaussianDropout, Generator,
    Linear, LockedDropout, Mode, Module, Optimizer, Result, Sequential, Sgd, WeightDropout,
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
#[derive(Debug, Module)]
struct Block {
    layers: Sequential,
    generator: Arc<Generator>,
    #[module(skip)]
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
#[derive(Debug, Module)]
struct Checkpointed(#[module(skip)] Arc<Block>, bool);

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
        "checkpoint(float64[2]): draw 0 was a key in forward and a mode when computed again in \
         backward; was a module switched between train and eval, or its p changed?"
    );
    assert!(x.grad().is_none());
}

/// The same keys in the same number, each for another layer, or for another p.
#[test]
fn modules_that_change_places_before_backward_are_an_error() {
    type Change = fn(&mut [Dropout; 2]);
    let changes: [(Change, &str); 2] = [
        (
            |layers| {
                layers[0].eval();
                layers[1].train();
            },
            "draw 0 was a key in forward and a mode when",
        ),
        (
            |layers| layers[0].set_p(0.75).unwrap(),
            "draw 1 was a mask of 2 elements at p = 0.5, seed 7, offset 0 in forward and \
             a mask of 2 elements at p = 0.75, seed 7, offset 0 when",
        ),
    ];
    for (change, message) in changes {
        let generator = Arc::new(Generator::new(7));
        let layer = || Dropout::new(0.5).unwrap().generator(Arc::clone(&generator));
        let mut layers = [layer(), layer()];
        layers[1].eval();
        let layers = Arc::new(Mutex::new(layers));
        let shared = Arc::clone(&layers);
        let x = tensor([1.0, 2.0]).requires_grad(true);
        let segment = move |x: &[Tensor]| -> Result<Tensor> {
            let layers = shared.lock().unwrap();
            let y = layers[0].forward(&x[0])?.mul_scalar(10.0)?;
            Ok(y.add(&layers[1].forward(&x[0])?)?)
        };
        let y = checkpoint(segment, &[&x]).unwrap();
        change(&mut layers.lock().unwrap());
        let error = y.sum().unwrap().backward().unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert!(x.grad().is_none());
    }
}

/// A layer of any form that takes its keys from `generator`.
fn boxed<F: Form + 'static>(
    layer: Result<DropoutLayer<F>>,
    save: SaveMask,
    generator: &Arc<Generator>,
) -> Box<dyn Module> {
    let layer = layer.unwrap().save_mask(save);
    Box::new(layer.generator(Arc::clone(generator)))
}

type Make = fn(SaveMask, &Arc<Generator>) -> Box<dyn Module>;

#[test]
fn the_masks_of_every_form() {
    let rows: [(&str, &[usize], Make); 12] = [
        ("Dropout", &[3, 100], |s, g| boxed(Dropout::new(0.4), s, g)),
        ("Dropout1d", &[6, 20, 3], |s, g| {
            boxed(Dropout1d::new(0.4), s, g)
        }),
        ("Dropout2d", &[6, 20, 3, 2], |s, g| {
            boxed(Dropout2d::new(0.4), s, g)
        }),
        ("Dropout3d", &[6, 20, 3, 2, 2], |s, g| {
            boxed(Dropout3d::new(0.4), s, g)
        }),
        ("LockedDropout", &[4, 10, 20], |s, g| {
            boxed(LockedDropout::new(0.4), s, g)
        }),
        ("BroadcastDropout", &[40, 10], |s, g| {
            boxed(BroadcastDropout::shared_along(0.4, [1]), s, g)
        }),
        ("DropPath", &[50, 3], |s, g| boxed(DropPath::new(0.4), s, g)),
        ("DropBlock2d", &[2, 2, 16, 16], |s, g| {
            boxed(DropBlock2d::with_block_size(0.3, 3), s, g)
        }),
        ("AlphaDropout", &[30, 10], |s, g| {
            boxed(AlphaDropout::new(0.4), s, g)
        }),
        ("FeatureAlphaDropout", &[30, 10, 2], |s, g| {
            boxed(FeatureAlphaDropout::new(0.4), s, g)
        }),
        ("GaussianDropout", &[30, 10], |s, g| {
            boxed(GaussianDropout::new(0.4), s, g)
        }),
        ("WeightDropout", &[30, 10], |s, g| {
            let linear = Linear::with_dtype(10, 10, DType::F64, &Generator::new(1));
            let dropout = Dropout::new(0.4).unwrap().save_mask(s);
            let dropout = dropout.generator(Arc::clone(g));
            Box::new(WeightDropout::new(linear.unwrap(), dropout))
        }),
    ];
    for (name, shape, make) in rows {
        for save in [SaveMask::Bits, SaveMask::Replay] {
            // In eval within a Monte Carlo scope, too.
            for mode in [Mode::Train, Mode::Eval] {
                let run = |checkpointed: bool| {
                    let generator = Arc::new(Generator::new(9));
                    let mut layer = make(save, &generator);
                    layer.set_mode(mode);
                    let parameters = layer.parameters();
                    let numel = shape.iter().product::<usize>();
                    let elements: Vec<f64> = (0..numel)
                        .map(|i| (i * 37 % 101) as f64 / 25.0 - 2.01)
                        .collect();
                    let x = Tensor::from_slice(&elements, shape)
                        .unwrap()
                        .requires_grad(true);
                    let segment = move |x: &[Tensor]| -> Result<Tensor> {
                        let y = layer.forward(&x[0])?;
                        layer.forward(&y.mul(&y)?)
                    };
                    let forward = || match checkpointed {
                        true => checkpoint(segment, &[&x]).unwrap(),
                        false => segment(core::slice::from_ref(&x)).unwrap(),
                    };
                    let y = match mode {
                        Mode::Train => forward(),
                        Mode::Eval => monte_carlo(4, 2, forward),
                    };
                    // Others draw between forward and backward.
                    generator.next_key();
                    y.mul(&y).unwrap().sum().unwrap().backward().unwrap();
                    let bits = |x: &Tensor| -> Vec<u64> {
                        let elements: Vec<f64> = x.to_vec().unwrap();
                        elements.into_iter().map(f64::to_bits).collect()
                    };
                    let mut leaves = vec![x];
                    leaves.extend(parameters);
                    let gradients: Vec<_> = leaves
                        .iter()
                        .map(|leaf| bits(&leaf.grad().unwrap()))
                        .collect();
                    (bits(&y), gradients, generator.state().offset)
                };
                assert_eq!(run(true), run(false), "{name} {save:?} {mode:?}");
            }
        }
    }
}

/// An embedding has its rows dropped, whose gradients go to a parameter alone.
#[test]
fn the_masks_of_an_embedding() {
    let run = |checkpointed: bool| {
        let generator = Arc::new(Generator::new(9));
        let embedding = Embedding::with_dtype(20, 4, DType::F64, &Generator::new(1)).unwrap();
        let dropout = DropoutLayer::<Rows>::new(0.5).unwrap();
        let layer = EmbeddingDropout::new(embedding, dropout.generator(Arc::clone(&generator)));
        let weight = layer.parameters().swap_remove(0);
        let words = tensor([3.0, 1.0, 3.0, 17.0, 0.0]);
        let segment = move |x: &[Tensor]| layer.forward(&x[0]);
        let y = match checkpointed {
            true => checkpoint(segment, &[&words]).unwrap(),
            false => segment(core::slice::from_ref(&words)).unwrap(),
        };
        y.mul(&y).unwrap().sum().unwrap().backward().unwrap();
        let gradient: Vec<f64> = weight.grad().unwrap().to_vec().unwrap();
        (
            y.to_vec::<f64>().unwrap(),
            gradient,
            generator.state().offset,
        )
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn other_threads_draw_from_the_same_generator_meanwhile() {
    const STEPS: u64 = 200;
    let generator = Arc::new(Generator::new(9));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut taken = 0;
                    while !stop.load(Ordering::Relaxed) {
                        generator.next_key();
                        taken += 1;
                        std::thread::yield_now();
                    }
                    taken
                })
            })
            .collect();
        let results: Vec<_> = (0..STEPS)
            .map(|step| {
                let save = [SaveMask::Bits, SaveMask::Replay][step as usize % 2];
                let layer = || {
                    let layer = Dropout::new(0.5).unwrap().save_mask(save);
                    layer.generator(Arc::clone(&generator))
                };
                let (outer, inner) = (layer(), Arc::new(layer()));
                let x = tensor([1.0; 64]).requires_grad(true);
                let segment = move |x: &[Tensor]| -> Result<Tensor> {
                    let inner = Arc::clone(&inner);
                    checkpoint(
                        move |x: &[Tensor]| inner.forward(&x[0]),
                        &[&outer.forward(&x[0])?],
                    )
                };
                let y = checkpoint(segment, &[&x]).unwrap();
                y.sum().unwrap().backward().unwrap();
                // Of ones the output is the factor of each element, which is its gradient.
                let gradient: Vec<f64> = x.grad().unwrap().to_vec().unwrap();
                (y.to_vec::<f64>().unwrap(), gradient)
            })
            .collect();
        stop.store(true, Ordering::Relaxed);
        let taken: u64 = others.into_iter().map(|other| other.join().unwrap()).sum();
        for (y, gradient) in results {
            assert_eq!(y, gradient);
        }
        assert_eq!(generator.state().offset, taken + 2 * STEPS);
    });
}

#[test]
fn a_step_of_an_optimiser_before_backward_is_an_error() {
    for checkpointed in [false, true] {
        let (x, w) = (
            tensor([3.0, 4.0]).requires_grad(true),
            tensor([1.0, 2.0]).requires_grad(true),
        );
        let mut optimizer = Sgd::new([("w".to_owned(), w.clone())], 0.5).unwrap();
        let loss = || {
            let w = w.clone();
            let segment = move |x: &[Tensor]| x[0].mul(&w);
            let y = match checkpointed {
                true => checkpoint(segment, &[&x]).unwrap(),
                false => segment(core::slice::from_ref(&x)).unwrap(),
            };
            y.sum().unwrap()
        };
        let (first, second) = (loss(), loss());
        first.backward().unwrap();
        optimizer.step().unwrap();
        assert_eq!(w.to_vec::<f64>().unwrap(), [-0.5, 0.0]);
        let function = match checkpointed {
            true => "CheckpointBackward",
            false => "MulBackward",
        };
        assert_eq!(
            second.backward().unwrap_err().to_string(),
            format!(
                "{function}(float64[2]): a tensor it saved for backward was written since \
                 (at version 0 then, 1 now), as by an optimiser's step after forward"
            )
        );
        let gradients = [&x, &w].map(|leaf| leaf.grad().unwrap().to_vec::<f64>().unwrap());
        assert_eq!(gradients, [[1.0, 2.0], [3.0, 4.0]], "those of the first");
    }
}
