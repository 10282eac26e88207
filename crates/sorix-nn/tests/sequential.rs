//! Modules in modules: order, modes, names.

use std::sync::Arc;

use sorix_core::{DType, DropRate, Tensor, tensor};
use sorix_nn::visit::Visit;
use sorix_nn::{Dropout, Generator, Mode, Module, Result, Sequential};

/// Multiplies by a parameter, in either mode.
#[derive(Debug, Module)]
struct Scale(#[module(parameter, rename = "factor")] Tensor);

impl Scale {
    fn new(factor: f64) -> Self {
        Self(tensor(factor).requires_grad(true))
    }
}

impl Module for Scale {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.mul(&self.0)?)
    }
}

/// Adds a number.
#[derive(Debug, Module)]
struct Shift(f64);

impl Module for Shift {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.add_scalar(self.0)?)
    }
}

fn dropout(seed: u64) -> Dropout {
    Dropout::new(0.5).unwrap().generator(Generator::new(seed))
}

/// A dropout four containers deep, one of them boxed.
fn nested() -> Sequential {
    let inner = Sequential::new()
        .with(Scale::new(2.0))
        .with(Sequential::new().with(dropout(1)));
    let boxed: Box<dyn Module> = Box::new(Sequential::new().with(inner));
    Sequential::new()
        .with(dropout(2))
        .with(boxed)
        .with(Scale::new(3.0))
}

#[test]
fn modules_run_in_order() {
    let net = Sequential::new()
        .with(Scale::new(2.0))
        .with(Shift(1.0))
        .with(Scale::new(10.0));
    assert_eq!(
        net.forward(&tensor([1.0, 2.0]))
            .unwrap()
            .to_vec::<f64>()
            .unwrap(),
        [30.0, 50.0]
    );
    assert_eq!((net.len(), net.is_empty()), (3, false));
    let x = tensor([1.0]);
    assert!(Sequential::new().forward(&x).unwrap().same_storage(&x));
}

#[test]
fn a_mode_reaches_every_depth_and_comes_back() {
    let mut net = nested();
    let x = Tensor::ones([1000], DType::F64).unwrap();
    let run = |net: &Sequential| net.forward(&x).unwrap().to_vec::<f64>().unwrap();
    assert_eq!(net.mode(), Some(Mode::Train));
    let training = run(&net);
    assert!(training.iter().all(|&y| y == 0.0 || y == 24.0));
    assert!(training.contains(&0.0) && training.contains(&24.0));

    net.eval();
    assert_eq!(net.mode(), Some(Mode::Eval));
    assert_eq!(run(&net), [6.0; 1000]);

    net.train();
    assert_eq!(net.mode(), Some(Mode::Train));
    assert!(run(&net).contains(&0.0));

    net.eval();
    net.push(dropout(3));
    assert_eq!(
        net.mode(),
        Some(Mode::Train),
        "what is pushed keeps its own"
    );
}

#[test]
fn a_hundred_levels_are_reached() {
    let mut net = Sequential::new().with(dropout(1)).with(Scale::new(2.0));
    for _ in 0..100 {
        net = Sequential::new().with(net);
    }
    let x = tensor([1.0; 100]);
    assert!(
        !net.forward(&x)
            .unwrap()
            .to_vec::<f64>()
            .unwrap()
            .contains(&2.0)
    );
    net.eval();
    assert_eq!(
        net.forward(&x).unwrap().to_vec::<f64>().unwrap(),
        [2.0; 100]
    );
    let path = "0.".repeat(100);
    assert_eq!(net.named_parameters()[0].0, format!("{path}1.factor"));
    assert_eq!(net.named_generators()[0].0, format!("{path}0.generator"));
}

#[test]
fn modules_that_do_the_same_in_both_modes_have_none() {
    let mut net = Sequential::new().with(Scale::new(1.0)).with(Shift(1.0));
    assert_eq!(net.mode(), None);
    net.eval();
    assert_eq!(net.mode(), None);
    assert_eq!(Sequential::new().mode(), None);
}

#[test]
fn parameters_are_named_by_their_path() {
    let net = nested();
    let names: Vec<String> = net
        .named_parameters()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["1.0.0.factor", "2.factor"]);
}

#[test]
fn generators_are_named_by_their_path_and_are_the_ones_in_use() {
    let net = nested();
    let generators = net.named_generators();
    let seeds: Vec<(&str, u64)> = generators
        .iter()
        .map(|(name, generator)| (name.as_str(), generator.seed()))
        .collect();
    assert_eq!(seeds, [("0.generator", 2), ("1.0.1.0.generator", 1)]);
    net.forward(&Tensor::ones([4], DType::F64).unwrap())
        .unwrap();
    assert!(generators.iter().all(|(_, g)| g.state().offset == 1));
}

#[test]
fn parameters_are_the_leaves_themselves() {
    let net = nested();
    let x = Tensor::ones([64], DType::F64).unwrap();
    net.forward(&x).unwrap().sum().unwrap().backward().unwrap();
    let parameters = net.parameters();
    assert_eq!(parameters.len(), 2);
    assert!(
        parameters
            .iter()
            .all(|parameter| parameter.grad().is_some())
    );
}

#[test]
fn a_list_of_boxed_modules_makes_a_sequence() {
    let modules: Vec<Box<dyn Module>> = vec![Box::new(Scale::new(4.0)), Box::new(Shift(-1.0))];
    let net: Sequential = modules.into_iter().collect();
    assert_eq!(
        net.forward(&tensor(1.0)).unwrap().item::<f64>().unwrap(),
        3.0
    );
}

#[test]
fn errors_of_operations_come_through() {
    let net = Sequential::new().with(Scale::new(1.0));
    assert_eq!(
        net.forward(&tensor([1.0_f32])).unwrap_err().to_string(),
        "mul(float32[1], float64[]): operands must have one dtype"
    );
}

/// Shows a child to be looked at and not to be changed.
#[derive(Debug)]
struct Forgetful(Dropout);

impl Module for Forgetful {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x)
    }
}

impl Visit for Forgetful {
    fn visit_children(&self, visit: &mut dyn FnMut(&str, &dyn Module)) {
        visit("dropout", &self.0);
    }
}

#[test]
#[should_panic = "visit_children shows [\"dropout\"] and visit_children_mut [] of Forgetful(Dropout"]
fn a_child_that_cannot_be_put_into_a_mode_is_noticed() {
    Sequential::new().with(Forgetful(dropout(1))).eval();
}

#[test]
#[should_panic = "visit_children shows [\"dropout\"] and visit_children_mut [] of Forgetful(Dropout"]
fn a_child_that_cannot_be_given_a_rate_is_noticed() {
    let rate = DropRate::new(0.1).unwrap();
    Sequential::new()
        .with(Forgetful(dropout(1)))
        .set_drop_rate(rate);
}

/// Overrides what others leave as it is.
#[derive(Debug, Default, Module)]
struct Own(&'static str);

impl Module for Own {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.clone())
    }

    fn train(&mut self) {
        self.0 = "train";
    }

    fn eval(&mut self) {
        self.0 = "eval";
    }

    fn parameters(&self) -> Vec<Tensor> {
        vec![tensor(1.0)]
    }
}

#[test]
fn a_box_does_what_the_module_in_it_does() {
    let mut boxed = Box::new(Own::default());
    Module::eval(&mut boxed);
    assert_eq!(boxed.0, "eval");
    Module::train(&mut boxed);
    assert_eq!(boxed.0, "train");
    assert_eq!(Module::parameters(&boxed).len(), 1);
}

fn seeds(module: &dyn Module) -> Vec<u64> {
    let generators = module.named_generators().into_iter();
    generators.map(|(_, generator)| generator.seed()).collect()
}

/// What two layers of p = 1/2 draw one after the other from ones.
fn drawn(net: &Sequential) -> [Vec<f64>; 2] {
    let x = Tensor::ones([256], DType::F64).unwrap();
    [0, 1].map(|i| {
        let y = net.get(i).unwrap().forward(&x).unwrap();
        y.to_vec::<f64>().unwrap()
    })
}

#[test]
fn generators_of_one_seed_draw_other_masks() {
    let root = Generator::new(42);
    let by_path = |path: &[&str]| {
        let rest = path[1..].iter();
        rest.fold(root.fork(path[0]), |fork, name| fork.fork(name))
            .seed()
    };
    let net = Sequential::new().with(dropout(42)).with(dropout(42));
    let [first, second] = drawn(&net);
    assert_ne!(first, second);
    assert_eq!(seeds(&net), [42, by_path(&["1", "generator"])]);
    let alone = dropout(42).forward(&Tensor::ones([256], DType::F64).unwrap());
    assert_eq!(first, alone.unwrap().to_vec::<f64>().unwrap());

    // The same again, also where they come as an iterator, a step later, and nested.
    let again: Sequential = (0..2)
        .map(|_| Box::new(dropout(42)) as Box<dyn Module>)
        .collect();
    assert_eq!(drawn(&again), [first, second]);
    let used = dropout(42);
    used.forward(&tensor([1.0])).unwrap();
    assert_eq!(
        seeds(&Sequential::new().with(used).with(dropout(42))),
        seeds(&net)
    );
    let nested = Sequential::new()
        .with(dropout(42))
        .with(Sequential::new().with(dropout(42)))
        .with(dropout(7));
    assert_eq!(seeds(&nested), [42, by_path(&["1", "0", "generator"]), 7]);

    // One that is shared stays what it is.
    let shared = Arc::new(Generator::new(42));
    let layer = || Dropout::new(0.5).unwrap().generator(Arc::clone(&shared));
    let net = Sequential::new()
        .with(layer())
        .with(Sequential::new().with(layer()));
    assert_eq!((seeds(&net), shared.seed()), (vec![42, 42], 42));
}

#[test]
fn generators_are_forked_by_path() {
    let (mut net, root) = (nested(), Generator::new(9));
    net.forward(&tensor([1.0])).unwrap();
    net.fork_generators(&root);
    let expected = net.named_generators().into_iter().map(|(name, generator)| {
        let mut names = name.split('.');
        let first = root.fork(names.next().unwrap());
        let fork = names.fold(first, |fork, name| fork.fork(name));
        assert_eq!(generator.state(), fork.state(), "{name}");
        name
    });
    assert_eq!(
        expected.collect::<Vec<_>>(),
        ["0.generator", "1.0.1.0.generator"]
    );
    // A layer without a generator gets one.
    let mut net = Sequential::new().with(Dropout::new(0.5).unwrap());
    assert!(seeds(&net).is_empty());
    net.fork_generators(&root);
    assert_eq!(seeds(&net), [root.fork("0").fork("generator").seed()]);
    let mut boxed: Box<dyn Module> = Box::new(dropout(1));
    boxed.fork_generators(&root);
    assert_eq!(seeds(&*boxed), [root.fork("generator").seed()]);
}

#[test]
#[should_panic = "visit_children shows [\"dropout\"] and visit_children_mut [] of Forgetful(Dropout"]
fn a_child_whose_generator_cannot_be_forked_is_noticed() {
    Forgetful(dropout(1)).fork_generators(&Generator::new(1));
}
