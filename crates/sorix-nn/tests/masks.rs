//! Two layers never share a mask by accident: deep models of every way to come by a generator.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use sorix_core::{DType, Tensor};
use sorix_nn::{Dropout, Generator, Module, Result, Sequential, manual_seed, mc_samples};

const LAYERS: usize = 100;
const ELEMENTS: usize = 256;

/// A dropout that writes down its masks and passes its input on, so that each layer sees the same.
#[derive(Debug, Module)]
struct Recorder {
    dropout: Dropout,
    #[module(skip)]
    masks: Arc<Mutex<Vec<Vec<bool>>>>,
}

impl Module for Recorder {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.dropout.forward(x)?.to_vec::<f64>()?;
        let mask = y.into_iter().map(|y| y != 0.0).collect();
        self.masks.lock().unwrap().push(mask);
        Ok(x.clone())
    }
}

type Masks = Arc<Mutex<Vec<Vec<bool>>>>;

fn model(make: impl Fn(usize) -> Dropout) -> (Sequential, Masks) {
    let masks = Masks::default();
    let layer = |i| -> Box<dyn Module> {
        Box::new(Recorder {
            dropout: make(i),
            masks: Arc::clone(&masks),
        })
    };
    let model = (0..LAYERS).map(layer).collect();
    (model, masks)
}

fn input() -> Tensor {
    Tensor::ones([ELEMENTS], DType::F64).unwrap()
}

/// All different, and no two more alike than chance has it: of 256 positions two masks at p = 1/2
/// agree in 128, with a standard deviation of 8. Among 20,000 pairs six of them are not reached.
fn assert_unrelated(masks: &[Vec<bool>], case: &str) {
    let distinct: HashSet<&Vec<bool>> = masks.iter().collect();
    assert_eq!(distinct.len(), masks.len(), "{case}");
    for (i, a) in masks.iter().enumerate() {
        for (j, b) in masks.iter().enumerate().skip(i + 1) {
            let agree = a.iter().zip(b).filter(|(a, b)| a == b).count();
            assert!(
                (80..=176).contains(&agree),
                "{case}: {agree} of {i} and {j}"
            );
        }
    }
}

fn half() -> Dropout {
    Dropout::new(0.5).unwrap()
}

#[test]
fn layers_of_a_deep_model_share_no_mask() {
    manual_seed(42);
    let shared = Arc::new(Generator::new(7));
    let root = Generator::new(7);
    let one = half().generator(Generator::new(7));
    type Make<'a> = Box<dyn Fn(usize) -> Dropout + 'a>;
    let cases: [(&str, Make<'_>); 5] = [
        ("the generator of the process", Box::new(|_| half())),
        (
            "one generator for all",
            Box::new(|_| half().generator(Arc::clone(&shared))),
        ),
        (
            "forks",
            Box::new(|i| half().generator(root.fork(&format!("layer.{i}")))),
        ),
        ("clones of one layer", Box::new(|_| one.clone())),
        (
            "adjacent seeds",
            Box::new(|i| half().generator(Generator::new(i as u64))),
        ),
    ];
    for (case, make) in cases {
        let (model, masks) = model(make);
        for _ in 0..2 {
            model.forward(&input()).unwrap();
        }
        assert_unrelated(&masks.lock().unwrap(), case);
    }
}

#[test]
fn forks_name_their_streams_in_whatever_order_layers_are_built() {
    let masks_by_name = |order: &[usize]| -> Vec<Vec<bool>> {
        let root = Generator::new(3);
        let mut layers: Vec<(usize, Dropout)> = order
            .iter()
            .map(|&i| (i, half().generator(root.fork(&format!("layer.{i}")))))
            .collect();
        layers.sort_by_key(|&(i, _)| i);
        layers
            .iter()
            .map(|(_, layer)| layer.forward(&input()).unwrap().to_vec::<f64>().unwrap())
            .map(|y| y.into_iter().map(|y| y != 0.0).collect())
            .collect()
    };
    let forward: Vec<usize> = (0..LAYERS).collect();
    let backward: Vec<usize> = (0..LAYERS).rev().collect();
    assert_eq!(masks_by_name(&forward), masks_by_name(&backward));
}

#[test]
fn samples_of_a_deep_model_share_no_mask() {
    let (mut model, masks) = model(|_| half());
    model.eval();
    mc_samples(&model, &input(), 2, 42).unwrap();
    assert_unrelated(&masks.lock().unwrap(), "Monte Carlo samples");
}

/// A run that is stopped, saved as numbers and continued elsewhere draws what it would have drawn.
#[test]
fn a_run_continues_bit_for_bit() {
    let root = Generator::new(11);
    let generators: Vec<Arc<Generator>> = (0..4)
        .map(|i| Arc::new(root.fork(&format!("layer.{i}"))))
        .collect();
    let network = |generators: &[Arc<Generator>]| -> Sequential {
        let layer = |generator: &Arc<Generator>| -> Box<dyn Module> {
            Box::new(half().generator(Arc::clone(generator)))
        };
        generators.iter().map(layer).collect()
    };
    let step = |model: &Sequential| {
        let x = input().requires_grad(true);
        model
            .forward(&x)
            .unwrap()
            .sum()
            .unwrap()
            .backward()
            .unwrap();
        x.grad().unwrap().to_vec::<f64>().unwrap()
    };
    let model = network(&generators);
    for _ in 0..3 {
        step(&model);
    }
    let saved: Vec<_> = generators
        .iter()
        .map(|generator| generator.state())
        .collect();
    let uninterrupted: Vec<_> = (0..3).map(|_| step(&model)).collect();

    let restored: Vec<_> = saved
        .into_iter()
        .map(|state| Arc::new(Generator::from_state(state)))
        .collect();
    let model = network(&restored);
    let resumed: Vec<_> = (0..3).map(|_| step(&model)).collect();
    assert_eq!(resumed, uninterrupted);
}
