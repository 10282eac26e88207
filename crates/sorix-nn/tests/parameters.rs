//! Parameters that are frozen, and copied.

use sorix_core::{DType, MaskKey, Tensor, tensor};
use sorix_nn::{
    Generator, LayerNorm, Linear, Module, Optimizer, Sequential, Sgd, copy_parameters, freeze,
    unfreeze,
};

fn network(seed: u64, outputs: usize) -> Sequential {
    let generator = Generator::new(seed);
    Sequential::new()
        .with(Linear::new(3, 4, &generator).unwrap())
        .with(LayerNorm::new([4]).unwrap())
        .with(Linear::new(4, outputs, &generator).unwrap())
}

fn bytes(net: &dyn Module) -> Vec<Vec<u8>> {
    let parameters = net.parameters();
    parameters
        .iter()
        .map(|x| x.to_le_bytes().unwrap())
        .collect()
}

fn input() -> Tensor {
    Tensor::randn([5, 3], DType::F32, MaskKey { seed: 1, offset: 0 }).unwrap()
}

#[test]
fn a_frozen_part_gets_no_gradient_and_no_step() {
    let net = network(1, 2);
    let first = net.get(0).unwrap();
    net.forward(&input())
        .unwrap()
        .sum()
        .unwrap()
        .backward()
        .unwrap();
    assert!(first.parameters()[0].grad().is_some());
    let before = bytes(first);
    freeze(first);
    assert!(first.parameters()[0].grad().is_none());
    let mut sgd = Sgd::new(net.named_parameters(), 0.1).unwrap();
    let y = net.forward(&input()).unwrap();
    y.mul(&y).unwrap().sum().unwrap().backward().unwrap();
    let head = net.get(2).unwrap();
    assert!(first.parameters().iter().all(|x| x.grad().is_none()));
    assert!(head.parameters().iter().all(|x| x.grad().is_some()));
    let of_head = bytes(head);
    sgd.step().unwrap();
    assert_eq!(bytes(first), before);
    assert_ne!(bytes(head), of_head);

    unfreeze(first);
    net.forward(&input())
        .unwrap()
        .sum()
        .unwrap()
        .backward()
        .unwrap();
    assert!(first.parameters().iter().all(|x| x.grad().is_some()));
}

#[test]
fn a_frozen_model_records_nothing_and_stays_frozen() {
    let net = network(1, 2);
    freeze(&net);
    assert!(!net.forward(&input()).unwrap().needs_grad());
    // An input of one's own may still want a gradient.
    let x = input().requires_grad(true);
    let y = net.forward(&x).unwrap().sum().unwrap();
    y.backward().unwrap();
    assert!(x.grad().is_some() && net.parameters().iter().all(|x| x.grad().is_none()));
    // A layer made of a frozen tensor has it as it is.
    let weight = net.parameters()[0].clone();
    let linear = Linear::from_tensors(weight.clone(), None).unwrap();
    assert!(!linear.weight().needs_grad() && linear.weight().is_same(&weight));
    // What was detached before stays apart.
    let apart = weight.detach();
    unfreeze(&net);
    assert!(weight.needs_grad() && linear.weight().needs_grad() && !apart.needs_grad());
}

#[test]
fn a_copy_is_whole_or_not_at_all() {
    let (from, to) = (network(1, 2), network(2, 2));
    assert_ne!(bytes(&from), bytes(&to));
    freeze(&to);
    copy_parameters(&from, &to).unwrap();
    assert_eq!(bytes(&from), bytes(&to));
    assert!(!to.forward(&input()).unwrap().needs_grad());
    let shared = from.parameters();
    assert!(
        to.parameters()
            .iter()
            .zip(&shared)
            .all(|(a, b)| !a.same_storage(b))
    );
    copy_parameters(&to, &to).unwrap();

    let before = bytes(&to);
    let said =
        |from: &dyn Module, to: &dyn Module| copy_parameters(from, to).unwrap_err().to_string();
    assert_eq!(
        said(&network(3, 7), &to),
        "copy_parameters: expected parameter \"2.weight\" to be float32 of shape [2, 4]"
            .replace("float32", &DType::F32.to_string())
    );
    let longer = network(3, 2).with(LayerNorm::new([2]).unwrap());
    for (a, b) in [(&longer as &dyn Module, &to as &dyn Module), (&to, &longer)] {
        assert!(said(a, b).starts_with("copy_parameters: expected parameter \"3."));
    }
    let half = Linear::from_tensors(tensor([[1.0]]), None).unwrap();
    assert!(
        said(
            &half,
            &Linear::new(1, 1, &Generator::new(1))
                .unwrap()
                .without_bias()
        )
        .contains("weight")
    );
    assert_eq!(bytes(&to), before);
}
