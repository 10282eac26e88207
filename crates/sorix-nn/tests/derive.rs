//! `#[derive(Module)]`: what of a struct is shown, and under which names.

use std::marker::PhantomData;
use std::sync::Arc;

use sorix_core::{DType, DropRate, Tensor, tensor};
use sorix_nn::visit::Visit;
use sorix_nn::{Dropout, Generator, Linear, Mode, Module, ReLU, Result};

fn leaf() -> Tensor {
    tensor([1.0]).requires_grad(true)
}

fn linear() -> Linear {
    Linear::from_tensors(tensor([[1.0]]), None).unwrap()
}

fn dropout(seed: u64) -> Dropout {
    let dropout = Dropout::new(0.5).unwrap();
    dropout.generator(Generator::new(seed))
}

/// A field of every kind.
#[derive(Debug, Module)]
struct Every<M> {
    #[module(parameter)]
    scale: Tensor,
    #[module(parameter)]
    shift: Option<Tensor>,
    #[module(parameter)]
    gates: Vec<Tensor>,
    #[module(parameter, rename = "pair")]
    two: [Tensor; 2],
    first: Linear,
    generic: M,
    boxed: Box<dyn Module>,
    none: Option<Dropout>,
    some: Option<Dropout>,
    list: Vec<Dropout>,
    array: [Linear; 2],
    tuple: (Linear, (ReLU, Dropout)),
    blocks: Vec<Option<(Linear, Dropout)>>,
    #[module(rename = "last")]
    renamed: Linear,
    r#type: Linear,
    own: Arc<Generator>,
    generators: Vec<Arc<Generator>>,
    #[module(skip)]
    buffer: Tensor,
    #[module(skip)]
    unseen: Dropout,
    count: usize,
    words: (String, f64, Option<bool>),
    phantom: PhantomData<fn(M)>,
}

impl<M: Module> Module for Every<M> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.mul(&self.scale)?)
    }
}

fn every() -> Every<Linear> {
    Every {
        scale: leaf(),
        shift: Some(leaf()),
        gates: vec![leaf(), leaf()],
        two: [leaf(), leaf()],
        first: linear(),
        generic: linear(),
        boxed: Box::new(linear()),
        none: None,
        some: Some(dropout(1)),
        list: vec![dropout(2), dropout(3)],
        array: [linear(), linear()],
        tuple: (linear(), (ReLU, dropout(4))),
        blocks: vec![None, Some((linear(), dropout(5)))],
        renamed: linear(),
        r#type: linear(),
        own: Arc::new(Generator::new(6)),
        generators: vec![Arc::new(Generator::new(7)), Arc::new(Generator::new(8))],
        buffer: leaf(),
        unseen: dropout(9),
        count: 1,
        words: (String::new(), 0.5, None),
        phantom: PhantomData,
    }
}

#[test]
fn parameters_are_named_by_fields() {
    let module = every();
    let parameters = module.named_parameters();
    let names: Vec<_> = parameters.iter().map(|(name, _)| &**name).collect();
    assert_eq!(
        names,
        [
            "scale",
            "shift",
            "gates.0",
            "gates.1",
            "pair.0",
            "pair.1",
            "first.weight",
            "generic.weight",
            "boxed.weight",
            "array.0.weight",
            "array.1.weight",
            "tuple.0.weight",
            "blocks.1.0.weight",
            "last.weight",
            "type.weight",
        ]
    );
    assert!(parameters[2].1.is_same(&module.gates[0]));
    assert!(parameters[13].1.is_same(module.renamed.weight()));
    assert!(parameters.iter().all(|(_, it)| !it.is_same(&module.buffer)));
    assert_eq!(
        module
            .forward(&tensor([2.0]))
            .unwrap()
            .item::<f64>()
            .unwrap(),
        2.0
    );
}

/// The two visitors agree, so that nothing panics, and reach all but what is skipped.
#[test]
fn modes_rates_and_forks_reach_every_child() {
    let mut module = every();
    assert_eq!(module.mode(), Some(Mode::Train));
    module.eval();
    let drops = ["some", "list.0", "list.1", "tuple.1.1", "blocks.1.1"];
    module.visit_children(&mut |name, child| assert_ne!(child.mode(), Some(Mode::Train), "{name}"));
    assert_eq!(module.unseen.mode(), Some(Mode::Train));
    module.set_drop_rate(DropRate::new(0.25).unwrap());
    let rates = module.named_drop_rates().into_iter();
    let rates: Vec<_> = rates.map(|(name, rate)| (name, rate.p())).collect();
    assert_eq!(rates, drops.map(|name| (name.to_owned(), 0.25)));

    let names = |module: &Every<Linear>| -> Vec<String> {
        let generators = module.named_generators().into_iter();
        generators.map(|(name, _)| name).collect()
    };
    let expected = ["own", "generators.0", "generators.1"].map(str::to_owned);
    let below = drops.map(|name| format!("{name}.generator"));
    assert_eq!(names(&module), [&expected[..], &below[..]].concat());
    let (before, root) = (Arc::clone(&module.own), Generator::new(42));
    module.fork_generators(&root);
    for (name, generator) in module.named_generators() {
        let mut path = name.split('.');
        let first = root.fork(path.next().unwrap());
        let fork = path.fold(first, |fork, name| fork.fork(name));
        assert_eq!(generator.state(), fork.state(), "{name}");
    }
    assert_eq!(
        before.seed(),
        6,
        "one that others may share is replaced, not changed"
    );
    assert_eq!((module.count, module.words.1), (1, 0.5));
}

#[derive(Debug, Module)]
struct Unnamed(Linear, #[module(rename = "drop")] Dropout, f32);

#[derive(Debug, Module)]
struct Unit;

/// Of a crate that says where sorix-nn is.
#[derive(Debug, Module)]
#[module(crate = renamed)]
struct Elsewhere<'a, const N: usize> {
    linears: [Linear; N],
    #[module(skip)]
    name: &'a str,
}

use sorix_nn as renamed;

macro_rules! identity {
    ([$($generics:tt)*] $module:ty) => {
        impl $($generics)* Module for $module {
            fn forward(&self, x: &Tensor) -> Result<Tensor> {
                Ok(x.clone())
            }
        }
    };
}

identity!([] Unnamed);
identity!([] Unit);
identity!([<const N: usize>] Elsewhere<'_, N>);

#[test]
fn structs_of_all_shapes() {
    let mut children = Vec::new();
    let unnamed = Unnamed(linear(), dropout(1), 0.0);
    unnamed.visit_children(&mut |name, _| children.push(name.to_owned()));
    assert_eq!(children, ["0", "drop"]);
    assert_eq!(unnamed.2, 0.0);

    assert!(Unit.parameters().is_empty() && Unit.mode().is_none());
    let x = Tensor::ones([2], DType::F32).unwrap();
    assert!(Unit.forward(&x).unwrap().same_storage(&x));

    let elsewhere = Elsewhere {
        linears: [linear(), linear()],
        name: "b",
    };
    assert_eq!(elsewhere.parameters().len(), 2);
    assert_eq!(elsewhere.name, "b");
}
