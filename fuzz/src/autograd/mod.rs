//! Programs of tensor operations, their values and gradients against [dual numbers](crate::model).
//!
//! Where the model has no answer the operation has to be an error, and nothing may panic.

use core::f64::consts::PI;

use arbitrary::{Arbitrary, Unstructured};
use sorix::kernels::{DropRate, MaskKey};
use sorix::{DType, Error, Result, SaveMask, Tensor};

use crate::inputs::{Rate, bounded};
use crate::kernels::keep_bits;
use crate::model::{Array, Dual};

#[derive(Arbitrary, Debug)]
struct Program {
    leaves: [Leaf; 3],
    steps: Vec<Step>,
    /// The gradient that backward begins with.
    weights: u8,
    retain: bool,
}

#[derive(Arbitrary, Debug)]
struct Leaf {
    shape: Shape,
    elements: u8,
    requires_grad: bool,
}

/// Up to three axes of up to four elements.
#[derive(Clone, Debug)]
struct Shape(Vec<usize>);

impl<'a> Arbitrary<'a> for Shape {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        bounded(u, 3, |u| u.int_in_range(0..=4)).map(Self)
    }
}

/// Up to three axes, most of them in range.
#[derive(Clone, Debug)]
struct Axes(Vec<isize>);

impl<'a> Arbitrary<'a> for Axes {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        bounded(u, 3, |u| u.int_in_range(-3..=3)).map(Self)
    }
}

/// An operation and the tensors it is applied to, by number, counted around.
#[derive(Arbitrary, Clone, Debug)]
enum Step {
    Binary(Binary, u8, u8),
    Scalar(Binary, u8, i8),
    Unary(Unary, u8),
    Sum(u8),
    Mean(u8),
    SumAxes(u8, Axes, bool),
    MeanAxes(u8, Axes, bool),
    Reshape(u8, Shape),
    Permute(u8, Axes),
    Transpose(u8, i8, i8),
    Expand(u8, Shape),
    Slice(u8, i8, [u8; 3]),
    IndexSelect(u8, i8, [u8; 3], u8),
    Concat(u8, u8, i8),
    Stack(u8, u8, i8),
    Squeeze(u8, i8),
    Unsqueeze(u8, i8),
    Flatten(u8, i8, i8),
    Matmul(u8, u8),
    Dropout(u8, Rate, u8, bool),
    /// A mask that is shared along some axes.
    DropoutBroadcast(u8, Rate, u8, bool, [bool; 4]),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Binary {
    Add,
    Sub,
    Mul,
    Div,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Unary {
    Neg,
    Abs,
    Clamp,
    Exp,
    GeluTanh,
    Log,
    Relu,
    Sigmoid,
    Sqrt,
    Tanh,
    Contiguous,
    Detach,
    ToDType,
}

/// A tensor and what it should be.
#[derive(Clone, Debug)]
struct Value {
    tensor: Tensor,
    model: Array,
    needs_grad: bool,
}

/// Values and derivatives beyond this leave the program, so that rounding stays out of the picture.
const MOST: f64 = 1e4;

/// The target.
pub fn run(data: &[u8]) {
    crate::with_arbitrary(data, check);
}

fn check(program: Program) {
    let mut values: Vec<Value> = program
        .leaves
        .iter()
        .enumerate()
        .map(|(k, leaf)| leaf.value(k))
        .collect();
    for step in program.steps.iter().take(24) {
        let (result, expected) = apply(step, &values);
        assert_eq!(
            result.is_ok(),
            expected.is_some(),
            "{step:?} in {program:?}: {result:?}"
        );
        let (Ok(tensor), Some((model, needs_grad))) = (result, expected) else {
            continue;
        };
        let mut value = Value {
            tensor,
            model,
            needs_grad,
        };
        value.compare(step, &program);
        let moderate = value.model.elements.iter().all(|x| x.is_moderate(MOST));
        if moderate && value.model.elements.len() <= 512 {
            values.push(value);
        }
    }
    backward(&program, &values);
}

impl Leaf {
    fn value(&self, k: usize) -> Value {
        let Shape(shape) = &self.shape;
        // Eighths, and small integers for the direction: exact in all but divisions.
        let number = |i: usize, salt: usize| (i * (2 * salt + 37) + salt * salt) % 33;
        let mut i = 0;
        let model = Array::from_fn(shape, |_| {
            i += 1;
            Dual {
                value: (number(i, self.elements.into()) as f64 - 16.0) / 8.0,
                tangent: if self.requires_grad {
                    number(i, k + 100) as f64 - 16.0
                } else {
                    0.0
                },
            }
        });
        Value {
            tensor: tensor_of(&model, |x| x.value).requires_grad(self.requires_grad),
            model,
            needs_grad: self.requires_grad,
        }
    }
}

fn tensor_of(model: &Array, part: impl Fn(&Dual) -> f64) -> Tensor {
    let elements: Vec<f64> = model.elements.iter().map(part).collect();
    Tensor::from_slice(&elements, &model.shape).expect("as many elements as the shape has")
}

impl Value {
    /// Compares, and goes on from the tensor's values: what was rounded another way must not grow,
    /// or end up on the other side of an edge.
    fn compare(&mut self, step: &Step, program: &Program) {
        let (tensor, model) = (&self.tensor, &mut self.model);
        assert_eq!(tensor.shape(), model.shape, "{step:?} in {program:?}");
        assert_eq!(
            tensor.needs_grad(),
            self.needs_grad,
            "{step:?} in {program:?}"
        );
        let got = tensor.to_vec::<f64>().expect("an f64 tensor");
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
}

/// What an operation gives, and what it should give and whether that needs a gradient.
fn apply(step: &Step, values: &[Value]) -> (Result<Tensor>, Option<(Array, bool)>) {
    let value = |i: u8| &values[usize::from(i) % values.len()];
    let unary = |i: u8,
                 result: &dyn Fn(&Tensor) -> Result<Tensor>,
                 model: &dyn Fn(&Array) -> Option<Array>| {
        let x = value(i);
        (
            result(&x.tensor),
            model(&x.model).map(|model| (model, x.needs_grad)),
        )
    };
    let each = |f: fn(Dual) -> Dual| move |x: &Array| Some(x.map(f));
    let pair = |i: u8,
                j: u8,
                result: &dyn Fn(&Tensor, &Tensor) -> Result<Tensor>,
                model: &dyn Fn(&Array, &Array) -> Option<Array>| {
        let (x, y) = (value(i), value(j));
        let model = model(&x.model, &y.model);
        (
            result(&x.tensor, &y.tensor),
            model.map(|model| (model, x.needs_grad || y.needs_grad)),
        )
    };
    match step {
        Step::Binary(op, i, j) => {
            let zip = |f: fn(Dual, Dual) -> Dual| move |x: &Array, y: &Array| x.zip(y, f);
            match op {
                Binary::Add => pair(*i, *j, &Tensor::add, &zip(|x, y| x + y)),
                Binary::Sub => pair(*i, *j, &Tensor::sub, &zip(|x, y| x - y)),
                Binary::Mul => pair(*i, *j, &Tensor::mul, &zip(|x, y| x * y)),
                Binary::Div => pair(*i, *j, &Tensor::div, &zip(|x, y| x / y)),
            }
        }
        Step::Scalar(op, i, number) => {
            let number = f64::from(*number) / 8.0;
            let constant = Dual::constant(number);
            let each = |f: fn(Dual, Dual) -> Dual| move |x: &Array| Some(x.map(|x| f(x, constant)));
            match op {
                Binary::Add => unary(*i, &|x| x.add_scalar(number), &each(|x, c| x + c)),
                Binary::Sub => unary(*i, &|x| x.add_scalar(-number), &each(|x, c| x - c)),
                Binary::Mul => unary(*i, &|x| x.mul_scalar(number), &each(|x, c| x * c)),
                Binary::Div => unary(*i, &|x| x.div_scalar(number), &each(|x, c| x / c)),
            }
        }
        Step::Unary(op, i) => match op {
            Unary::Neg => unary(*i, &Tensor::neg, &each(|x| -x)),
            Unary::Abs => unary(
                *i,
                &Tensor::abs,
                &each(|x| {
                    let sign = if x.value == 0.0 {
                        0.0
                    } else {
                        x.value.signum()
                    };
                    x.chain(x.value.abs(), sign)
                }),
            ),
            Unary::Clamp => unary(
                *i,
                &|x| x.clamp(-1.0, 1.5),
                &each(|x| {
                    let within = (-1.0..=1.5).contains(&x.value);
                    x.chain(x.value.clamp(-1.0, 1.5), f64::from(within))
                }),
            ),
            Unary::Exp => unary(
                *i,
                &Tensor::exp,
                &each(|x| x.chain(x.value.exp(), x.value.exp())),
            ),
            Unary::GeluTanh => unary(
                *i,
                &Tensor::gelu_tanh,
                &each(|x| {
                    let a = Dual::constant((2.0 / PI).sqrt());
                    let inner = a * (x + Dual::constant(0.044715) * x * x * x);
                    Dual::constant(0.5) * x * (Dual::constant(1.0) + tanh(inner))
                }),
            ),
            Unary::Log => unary(
                *i,
                &Tensor::log,
                &each(|x| x.chain(x.value.ln(), 1.0 / x.value)),
            ),
            Unary::Relu => unary(
                *i,
                &Tensor::relu,
                &each(|x| x.chain(x.value.max(0.0), f64::from(x.value > 0.0))),
            ),
            Unary::Sigmoid => unary(
                *i,
                &Tensor::sigmoid,
                &each(|x| {
                    let y = 1.0 / (1.0 + (-x.value).exp());
                    x.chain(y, y * (1.0 - y))
                }),
            ),
            Unary::Sqrt => unary(
                *i,
                &Tensor::sqrt,
                &each(|x| x.chain(x.value.sqrt(), 0.5 / x.value.sqrt())),
            ),
            Unary::Tanh => unary(*i, &Tensor::tanh, &each(tanh)),
            Unary::Contiguous => unary(*i, &Tensor::contiguous, &|x| Some(x.clone())),
            Unary::ToDType => unary(*i, &|x| x.to_dtype(DType::F64), &|x| Some(x.clone())),
            Unary::Detach => {
                let x = value(*i);
                let model = x.model.map(|x| Dual::constant(x.value));
                (Ok(x.tensor.detach()), Some((model, false)))
            }
        },
        Step::Sum(i) => unary(*i, &Tensor::sum, &|x| x.sum(&all_axes(x), false)),
        Step::Mean(i) => unary(*i, &Tensor::mean, &|x| x.mean(&all_axes(x), false)),
        Step::SumAxes(i, Axes(axes), keepdim) => unary(
            *i,
            &|x| match keepdim {
                true => x.sum_axes_keepdim(axes),
                false => x.sum_axes(axes),
            },
            &|x| x.sum(axes, *keepdim),
        ),
        Step::MeanAxes(i, Axes(axes), keepdim) => unary(
            *i,
            &|x| match keepdim {
                true => x.mean_axes_keepdim(axes),
                false => x.mean_axes(axes),
            },
            &|x| x.mean(axes, *keepdim),
        ),
        Step::Reshape(i, Shape(shape)) => unary(*i, &|x| x.reshape(shape), &|x| x.reshape(shape)),
        Step::Permute(i, Axes(axes)) => unary(*i, &|x| x.permute(axes), &|x| x.permute(axes)),
        Step::Transpose(i, first, second) => {
            let (first, second) = ((first % 4).into(), (second % 4).into());
            unary(*i, &|x| x.transpose(first, second), &|x| {
                x.transpose(first, second)
            })
        }
        Step::Expand(i, Shape(shape)) => unary(*i, &|x| x.expand(shape), &|x| x.expand(shape)),
        Step::Slice(i, axis, range) => {
            let axis = (axis % 4).into();
            let [begin, end, step] = range.map(|n| usize::from(n % 6));
            unary(*i, &|x| x.slice_step(axis, begin..end, step), &|x| {
                x.slice(axis, begin, end, step)
            })
        }
        Step::IndexSelect(i, axis, indices, count) => {
            let axis = (axis % 4).into();
            let indices = indices.map(|n| usize::from(n % 5));
            let indices = &indices[..usize::from(count % 4)];
            unary(*i, &|x| x.index_select(axis, indices), &|x| {
                x.select(axis, indices)
            })
        }
        Step::Concat(i, j, axis) => {
            let axis = (axis % 4).into();
            pair(*i, *j, &|x, y| Tensor::concat(&[x, y], axis), &|x, y| {
                x.concat(y, axis)
            })
        }
        Step::Stack(i, j, axis) => {
            let axis = (axis % 5).into();
            pair(*i, *j, &|x, y| Tensor::stack(&[x, y], axis), &|x, y| {
                x.stack(y, axis)
            })
        }
        Step::Squeeze(i, axis) => {
            let axis = (axis % 4).into();
            unary(*i, &|x| x.squeeze(axis), &|x| x.squeeze(axis))
        }
        Step::Unsqueeze(i, axis) => {
            let axis = (axis % 5).into();
            unary(*i, &|x| x.unsqueeze(axis), &|x| x.unsqueeze(axis))
        }
        Step::Flatten(i, start, end) => {
            let (start, end) = ((start % 4).into(), (end % 4).into());
            unary(*i, &|x| x.flatten(start, end), &|x| x.flatten(start, end))
        }
        Step::Matmul(i, j) => pair(*i, *j, &Tensor::matmul, &Array::matmul),
        Step::Dropout(i, Rate(rate), seed, replay) => {
            let (key, save) = (MaskKey::new(u64::from(*seed), 1), save(*replay));
            unary(*i, &|x| x.dropout(*rate, key, save), &|x| {
                Some(drop(x, &x.shape, *rate, key))
            })
        }
        Step::DropoutBroadcast(i, Rate(rate), seed, replay, shared) => {
            let (key, save) = (MaskKey::new(u64::from(*seed), 1), save(*replay));
            let mask_shape = |shape: &[usize]| -> Vec<usize> {
                let axes = shape.iter().zip(shared.iter().cycle());
                axes.map(|(&length, &shared)| if shared { 1 } else { length })
                    .collect()
            };
            unary(
                *i,
                &|x| x.dropout_broadcast(*rate, key, &mask_shape(x.shape()), save),
                &|x| Some(drop(x, &mask_shape(&x.shape), *rate, key)),
            )
        }
    }
}

fn save(replay: bool) -> SaveMask {
    if replay {
        SaveMask::Replay
    } else {
        SaveMask::Bits
    }
}

fn tanh(x: Dual) -> Dual {
    let y = x.value.tanh();
    x.chain(y, 1.0 - y * y)
}

/// Inverted dropout by the mask of a shape that broadcasts to that of `x`.
fn drop(x: &Array, mask_shape: &[usize], rate: DropRate, key: MaskKey) -> Array {
    let keep = keep_bits(rate, key.into(), mask_shape.iter().product());
    let mut keep = keep.iter();
    let mask = Array::from_fn(mask_shape, |_| {
        Dual::constant(f64::from(keep.next() == Some(true)))
    });
    let scale = Dual::constant(rate.scale());
    Array::from_fn(&x.shape, |index| match mask.at(index).value {
        1.0 => x.at(index) * scale,
        _ => Dual::default(),
    })
}

fn all_axes(x: &Array) -> Vec<isize> {
    (0..x.shape.len() as isize).collect()
}

/// Runs backward from the last value, and compares the gradients along the direction.
fn backward(program: &Program, values: &[Value]) {
    let Some(Value {
        tensor: y,
        model,
        needs_grad,
    }) = values.last()
    else {
        return;
    };
    let mut i = usize::from(program.weights);
    let weights = model.map(|_| {
        i += 1;
        Dual::constant((i * 5 % 7) as f64 - 3.0)
    });
    let weights_tensor = tensor_of(&weights, |w| w.value);
    if !needs_grad {
        assert_eq!(
            y.backward_with(&weights_tensor),
            Err(Error::NoGradient),
            "{program:?}"
        );
        return;
    }

    // A gradient of another shape is refused and leaves the leaves alone.
    let mut longer = model.shape.clone();
    longer.push(2);
    let wrong = Tensor::zeros(&longer, DType::F64).expect("a small tensor");
    assert!(y.backward_with(&wrong).is_err(), "{program:?}");
    let leaves = &values[..program.leaves.len()];
    assert!(
        leaves.iter().all(|leaf| leaf.tensor.grad().is_none()),
        "{program:?}"
    );

    let mut times = 1.0;
    if program.retain {
        let retained = y.backward_retain_graph(Some(&weights_tensor));
        assert_eq!(retained, Ok(()), "{program:?}");
        times = 2.0;
    }
    assert_eq!(y.backward_with(&weights_tensor), Ok(()), "{program:?}");

    let products = |pairs: &mut dyn Iterator<Item = (f64, f64)>| {
        pairs.fold((0.0, 0.0), |(sum, size), (a, b)| {
            (sum + a * b, size + (a * b).abs())
        })
    };
    let tangents = model.elements.iter().map(|y| y.tangent);
    let (want, size) = products(&mut tangents.zip(weights.elements.iter().map(|w| w.value)));
    let (mut got, mut scale) = (0.0, size);
    for leaf in leaves {
        let Some(gradient) = leaf.tensor.grad() else {
            continue;
        };
        assert!(leaf.needs_grad, "{program:?}");
        assert_eq!(gradient.shape(), leaf.model.shape, "{program:?}");
        let gradient = gradient.to_vec::<f64>().expect("of the leaf's dtype");
        let tangents = leaf.model.elements.iter().map(|x| x.tangent);
        let (sum, size) = products(&mut gradient.into_iter().zip(tangents));
        (got, scale) = (got + sum, scale + size);
    }
    assert!(
        (got - times * want).abs() <= 1e-9 * scale + 1e-6,
        "{program:?}: the gradients give {got}, the model {want} times {times}"
    );

    if !y.is_leaf() {
        let again = y.backward_with(&weights_tensor);
        assert!(
            matches!(again, Err(Error::GraphFreed { .. })),
            "{program:?}: {again:?}"
        );
    }
}
