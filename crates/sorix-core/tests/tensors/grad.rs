//! Gradients of chosen tensors.

use crate::common::{random, values};
use sorix_core::autograd::{checkpoint, grad, grad_retain_graph, grad_with};
use sorix_core::{DType, ErrorKind, Tensor, tensor};

fn leaf(numbers: &[f64]) -> Tensor {
    tensor(numbers).requires_grad(true)
}

fn found(gradients: &[Option<Tensor>]) -> Vec<Option<Vec<f64>>> {
    gradients.iter().map(|it| it.as_ref().map(values)).collect()
}

#[test]
fn they_are_those_of_backward_and_no_leaf_changes() {
    let (x, w) = (
        random(&[3, 4], 1).requires_grad(true),
        random(&[4, 2], 2).requires_grad(true),
    );
    let output = || {
        let hidden = x.matmul(&w).unwrap().tanh().unwrap();
        (hidden.clone(), hidden.mul(&hidden).unwrap().sum().unwrap())
    };
    let (_, y) = output();
    y.backward().unwrap();
    let expected = [&x, &w].map(|leaf| values(&leaf.grad().unwrap()));
    x.zero_grad();
    w.zero_grad();
    let (hidden, y) = output();
    let gradients = grad_retain_graph(&[&y], None, &[&w, &hidden, &x]).unwrap();
    let twice: Vec<f64> = values(&hidden).iter().map(|h| 2.0 * h).collect();
    assert_eq!(
        found(&gradients),
        [
            Some(expected[1].clone()),
            Some(twice),
            Some(expected[0].clone())
        ]
    );
    assert!(x.grad().is_none() && w.grad().is_none());
    // An output is an input of its own.
    assert_eq!(found(&grad(&[&y], &[&y]).unwrap()), [Some(vec![1.0])]);
    // That passed nothing, so the graph is there.
    assert_eq!(
        found(&grad(&[&y], &[&x]).unwrap()),
        [Some(expected[0].clone())]
    );
    assert!(matches!(
        grad(&[&y], &[&x]).unwrap_err().kind(),
        ErrorKind::GraphFreed { .. }
    ));
}

#[test]
fn several_outputs_and_the_same_input_twice() {
    let x = leaf(&[1.0, 2.0]);
    let (y, z) = (x.mul(&x).unwrap(), x.neg().unwrap());
    let grads = [&tensor([1.0, 10.0]), &tensor([5.0, 7.0])];
    let gradients = grad_with(&[&y, &z], &grads, &[&x, &x]).unwrap();
    let expected = Some(vec![2.0 - 5.0, 40.0 - 7.0]);
    assert_eq!(found(&gradients), [expected.clone(), expected]);
}

/// What is older than every input is not gone through, and stays.
#[test]
fn the_graph_below_an_input_stays() {
    let x = leaf(&[3.0]);
    let hidden = x.mul(&x).unwrap();
    let y = hidden.mul_scalar(5.0).unwrap();
    assert_eq!(found(&grad(&[&y], &[&hidden]).unwrap()), [Some(vec![5.0])]);
    hidden.backward().unwrap();
    assert_eq!(values(&x.grad().unwrap()), [6.0]);
}

#[test]
fn through_a_checkpoint_and_in_sixteen_bits() {
    let (x, w) = (leaf(&[3.0]), leaf(&[2.0]));
    let held = w.clone();
    let y = checkpoint(move |x| x[0].mul(&held)?.exp()?.log()?.sum(), &[&x]).unwrap();
    let unused = leaf(&[1.0]);
    let gradients = grad(&[&y], &[&w, &unused, &x]).unwrap();
    let gradients = found(&gradients);
    assert!((gradients[0].as_ref().unwrap()[0] - 3.0).abs() < 1e-12);
    assert!(gradients[1].is_none());
    assert!((gradients[2].as_ref().unwrap()[0] - 2.0).abs() < 1e-12);

    let w = tensor([1.0])
        .to_dtype(DType::BF16)
        .unwrap()
        .requires_grad(true);
    w.set_grad_dtype(DType::F32).unwrap();
    let hidden = w.neg().unwrap();
    let y = hidden.mul(&hidden).unwrap();
    let gradients = grad(&[&y], &[&w, &hidden]).unwrap();
    let dtypes: Vec<_> = gradients
        .iter()
        .map(|it| it.as_ref().unwrap().dtype())
        .collect();
    assert_eq!(dtypes, [DType::F32, DType::BF16]);
}

#[test]
fn what_has_no_gradient_is_an_error() {
    let x = leaf(&[1.0, 2.0]);
    let y = x.sum().unwrap();
    let kinds = [
        grad(&[&y], &[&tensor([1.0])]),
        grad(&[&tensor([1.0])], &[&x]),
        grad(&[&x.neg().unwrap()], &[&x]),
        grad_with(&[&y], &[], &[&x]),
        grad_with(&[&y], &[&x.detach()], &[&x]),
    ]
    .map(|result| result.unwrap_err().to_string());
    assert_eq!(
        kinds,
        [
            "grad(float64[1]): the tensor does not require a gradient",
            "backward(float64[1]): the tensor does not require a gradient",
            "backward without a gradient(float64[2]): expected a tensor of one element",
            "grad(float64[]): expected a gradient for each of 1 outputs, got 0",
            "backward_with(float64[2]): expected shape [], got [2]",
        ]
    );
    assert!(grad(&[&y], &[]).unwrap().is_empty());
    assert!(grad(&[], &[&x]).unwrap()[0].is_none());
    // Nothing was freed by what failed before it began.
    y.backward().unwrap();
}
