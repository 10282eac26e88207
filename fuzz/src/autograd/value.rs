//! A tensor and what it should be.

use sorix::Tensor;

use super::program::{Leaf, Program, Shape, Step};
use crate::model::{Array, Dual, rows};

#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) tensor: Tensor,
    pub(super) model: Array,
    pub(super) needs_grad: bool,
}

/// Values and derivatives beyond this leave the program, so that rounding stays out of the picture.
const MOST: f64 = 1e4;

/// So do values of more elements.
const MOST_ELEMENTS: usize = 512;

impl Value {
    /// Leaf number `k`.
    pub(super) fn leaf(k: usize, leaf: &Leaf) -> Self {
        let Shape(shape) = &leaf.shape;
        // Eighths, and small integers for the direction: exact in all but divisions.
        let number = |i: usize, salt: usize| (i * (2 * salt + 37) + salt * salt) % 33;
        let mut i = 0;
        let model = Array::from_fn(shape, |_| {
            i += 1;
            Dual {
                value: (number(i, leaf.elements.into()) as f64 - 16.0) / 8.0,
                tangent: if leaf.requires_grad {
                    number(i, k + 100) as f64 - 16.0
                } else {
                    0.0
                },
            }
        });
        Self {
            tensor: tensor_of(&model).requires_grad(leaf.requires_grad),
            model,
            needs_grad: leaf.requires_grad,
        }
    }

    /// The sum of all elements that need a gradient, each times a small number; `None` where none
    /// does.
    pub(super) fn total(values: &[Self]) -> Option<Self> {
        let mut i = 0;
        let parts = values.iter().filter(|value| value.needs_grad).map(|value| {
            let factors = value.model.map(|_| {
                i += 1;
                Dual::constant((i * 3 % 8) as f64 - 3.5)
            });
            let product = value.tensor.mul(&tensor_of(&factors));
            Self {
                tensor: product.and_then(|x| x.sum()).expect("a small tensor"),
                model: value
                    .model
                    .zip(&factors, |x, factor| x * factor)
                    .and_then(|x| x.reduce(&x.axes(), false, |row| Some(rows::sum(row))))
                    .expect("of one shape"),
                needs_grad: true,
            }
        });
        parts.reduce(|sum, part| Self {
            tensor: sum.tensor.add(&part.tensor).expect("numbers"),
            model: sum.model.zip(&part.model, |x, y| x + y).expect("numbers"),
            needs_grad: true,
        })
    }

    /// Compares, and goes on from the tensor's values: what was rounded another way must not grow,
    /// or end up on the other side of an edge.
    pub(super) fn compare(&mut self, step: &Step, program: &Program) {
        let (tensor, model) = (&self.tensor, &mut self.model);
        assert_eq!(tensor.shape(), model.shape, "{step:?} in {program:?}");
        assert_eq!(
            tensor.needs_grad(),
            self.needs_grad,
            "{step:?} in {program:?}"
        );
        let got = elements(tensor);
        for (&got, want) in got.iter().zip(&mut model.elements) {
            let close = (got - want.value).abs() <= 1e-9 * (1.0 + want.value.abs());
            assert!(
                close || got.is_nan() && want.value.is_nan() || got == want.value,
                "{step:?} in {program:?}: {got} for {}",
                want.value
            );
            want.value = got;
        }
    }

    pub(super) fn is_moderate(&self) -> bool {
        let elements = &self.model.elements;
        elements.len() <= MOST_ELEMENTS && elements.iter().all(|x| x.is_moderate(MOST))
    }
}

/// The values as a tensor.
pub(super) fn tensor_of(model: &Array) -> Tensor {
    let elements: Vec<f64> = model.elements.iter().map(|x| x.value).collect();
    Tensor::from_slice(&elements, &model.shape).expect("as many elements as the shape has")
}

pub(super) fn elements(tensor: &Tensor) -> Vec<f64> {
    tensor.to_vec().expect("an f64 tensor")
}
