//! Every operation's gradient against finite differences, in f64, on random shapes and layouts.
//!
//! A new operation is one line of a table.

mod common;

use common::check_gradients;
use proptest::prelude::*;
use sorix_core::{Result, Tensor};

/// Which numbers an operation is differentiable at.
#[derive(Clone, Copy, Debug)]
enum Domain {
    /// Any, in -2 to 2, none nearer to a whole number than the step of the differences.
    Real,
    /// From 1/4 to 17/4.
    Positive,
}
use Domain::{Positive, Real};

/// The name, the least number of axes, the numbers, the operation.
type Unary = (&'static str, usize, Domain, fn(&Tensor) -> Result<Tensor>);

/// The name, the numbers of the second tensor, the operation.
type Binary = (&'static str, Domain, fn(&Tensor, &Tensor) -> Result<Tensor>);

/// Operations of one tensor.
const UNARY: &[Unary] = &[
    ("neg", 0, Real, Tensor::neg),
    ("exp", 0, Real, Tensor::exp),
    ("log", 0, Positive, Tensor::log),
    ("sqrt", 0, Positive, Tensor::sqrt),
    ("powf(3)", 0, Real, |x| x.powf(3.0)),
    ("powf(-1.5)", 0, Positive, |x| x.powf(-1.5)),
    ("powf(0)", 0, Real, |x| x.powf(0.0)),
    ("tanh", 0, Real, Tensor::tanh),
    ("sigmoid", 0, Real, Tensor::sigmoid),
    ("relu", 0, Real, Tensor::relu),
    ("gelu", 0, Real, Tensor::gelu),
    ("gelu_tanh", 0, Real, Tensor::gelu_tanh),
    ("abs", 0, Real, Tensor::abs),
    ("clamp", 0, Real, |x| x.clamp(-1.0, f64::INFINITY)),
    ("add_scalar", 0, Real, |x| x.add_scalar(0.3)),
    ("mul_scalar", 0, Real, |x| x.mul_scalar(0.3)),
    ("div_scalar", 0, Real, |x| x.div_scalar(0.3)),
    ("contiguous", 0, Real, Tensor::contiguous),
    ("reshape", 0, Real, |x| x.reshape([x.numel(), 1])),
    ("transpose", 2, Real, |x| x.transpose(0, -1)),
    ("expand", 0, Real, |x| x.expand([&[2], x.shape()].concat())),
    ("slice", 1, Real, |x| x.slice(0, x.shape()[0] / 3..)),
    ("slice_step", 1, Real, |x| x.slice_step(-1, .., 2)),
    ("slice of a slice", 2, Real, |x| {
        x.slice(1, x.shape()[1] / 2..)?.slice_step(0, .., 2)
    }),
    ("squeeze", 0, Real, |x| x.unsqueeze(0)?.squeeze(0)),
    ("squeeze_all", 0, Real, Tensor::squeeze_all),
    ("unsqueeze", 0, Real, |x| x.unsqueeze(-1)),
    ("flatten", 0, Real, |x| x.flatten(0, -1)),
    ("flatten a view", 2, Real, |x| {
        x.slice_step(1, .., 2)?.flatten(0, 1)
    }),
    ("concat", 1, Real, |x| {
        Tensor::concat(&[x, &x.slice(0, x.shape()[0] / 2..)?, x], 0)
    }),
    ("stack", 0, Real, |x| Tensor::stack(&[x, x], -1)),
    ("index_select", 1, Real, |x| {
        let last = x.shape()[0].saturating_sub(1);
        let indices = [last, 0, last];
        x.index_select(0, &indices[..3 * x.shape()[0].min(1)])
    }),
    ("sum", 0, Real, Tensor::sum),
    ("sum_axes", 1, Real, |x| x.sum_axes(&[-1])),
    ("mean_axes_keepdim", 1, Real, |x| x.mean_axes_keepdim(&[0])),
];

/// Operations of two tensors that broadcast.
const BINARY: &[Binary] = &[
    ("add", Real, Tensor::add),
    ("sub", Real, Tensor::sub),
    ("mul", Real, Tensor::mul),
    ("div", Positive, Tensor::div),
];

/// A tensor with elements of the domain. They are odd multiples of 1/128, so that none is at a
/// corner of an operation.
fn elements(shape: &[usize], domain: Domain, salt: u64) -> Tensor {
    let numbers: Vec<f64> = common::numbers(shape.iter().product(), salt)
        .into_iter()
        .map(|number| ((number * 64.0).floor() + 0.5) / 64.0)
        .map(|number| match domain {
            Real => number,
            Positive => number + 2.25,
        })
        .collect();
    Tensor::from_slice(&numbers, shape).unwrap()
}

/// The tensor of this shape that is `x` with its axes in reverse, for every other salt.
fn maybe_reversed(x: &Tensor, salt: u64) -> Result<Tensor> {
    if salt.is_multiple_of(2) {
        return Ok(x.clone());
    }
    let axes: Vec<isize> = (0..x.ndim() as isize).rev().collect();
    x.permute(&axes)
}

/// Two shapes that broadcast: each leaves out leading axes of a common one and has some at length 1.
fn broadcasting_shapes() -> impl Strategy<Value = (Vec<usize>, Vec<usize>)> {
    let axes = prop::collection::vec((0_usize..4, any::<[bool; 2]>()), 0..4);
    (axes, 0_usize..3, 0_usize..3).prop_map(|(axes, left, right)| {
        let shape = |which: usize, leading: usize| {
            axes.iter()
                .map(|&(length, ones)| if ones[which] { 1 } else { length })
                .skip(leading)
                .collect()
        };
        (shape(0, left), shape(1, right))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gradients_of_operations_of_one_tensor(
        shape in prop::collection::vec(0_usize..4, 0..4),
        salt in any::<u64>(),
    ) {
        for &(name, axes, domain, op) in UNARY {
            if shape.len() >= axes {
                println!("{name} of {shape:?}, salt {salt}");
                let x = elements(&shape, domain, salt);
                check_gradients(&[x], |x| op(&maybe_reversed(&x[0], salt)?));
            }
        }
    }

    #[test]
    fn broadcasting_is_that_of_ndarray((left, right) in broadcasting_shapes(), salt in any::<u64>()) {
        let (x, y) = (elements(&left, Real, salt), elements(&right, Positive, !salt));
        let (a, b) = (x.to_ndarray::<f64>().unwrap(), y.to_ndarray::<f64>().unwrap());
        prop_assert_eq!(x.add(&y).unwrap().to_ndarray::<f64>().unwrap(), &a + &b);
        prop_assert_eq!(x.sub(&y).unwrap().to_ndarray::<f64>().unwrap(), &a - &b);
        prop_assert_eq!(x.mul(&y).unwrap().to_ndarray::<f64>().unwrap(), &a * &b);
        prop_assert_eq!(x.div(&y).unwrap().to_ndarray::<f64>().unwrap(), &a / &b);
    }

    /// Where ndarray finds no common shape there is an error, and an error only there.
    #[test]
    fn shapes_that_do_not_broadcast_are_errors(
        left in prop::collection::vec(0_usize..4, 0..4),
        right in prop::collection::vec(0_usize..4, 0..4),
    ) {
        let (x, y) = (elements(&left, Real, 1), elements(&right, Real, 2));
        let fits = left.iter().rev().zip(right.iter().rev()).all(|(&l, &r)| l == r || l == 1 || r == 1);
        prop_assert_eq!(x.add(&y).is_ok(), fits);
    }

    #[test]
    fn gradients_of_operations_of_two_tensors(
        (left, right) in broadcasting_shapes(),
        salt in any::<u64>(),
    ) {
        for &(name, domain, op) in BINARY {
            println!("{name} of {left:?} and {right:?}, salt {salt}");
            let (x, y) = (elements(&left, Real, salt), elements(&right, domain, !salt));
            check_gradients(&[x, y], |x| op(&x[0], &x[1]));
        }
    }
}
