//! Backward from the last value, and what may come after.

use num_traits::Float;
use sorix::autograd::no_grad;
use sorix::{
    DType, ErrorKind, Scalar, Tensor, TensorError as Error, TensorResult as Result, UpdateRule,
};

use super::program::{Program, Then, Write};
use super::value::{Value, elements, tensor_of};
use crate::model::{Array, Dual};

/// Runs backward from the last value, and compares the gradients along the direction.
pub(super) fn check(program: &Program, values: &[Value]) {
    let y = values.last().expect("there are leaves");
    let mut i = usize::from(program.weights);
    let weights = y.model.map(|_| {
        i += 1;
        Dual::constant((i * 5 % 7) as f64 - 3.0)
    });
    let weights_tensor = tensor_of(&weights);
    if !y.needs_grad {
        let refused = y.tensor.backward_with(&weights_tensor);
        assert_eq!(kind(&refused), Some(&ErrorKind::NoGradient), "{program:?}");
        return;
    }

    // A gradient of another shape is refused and leaves the leaves alone.
    let leaves = &values[..program.leaves.len()];
    let mut longer = y.model.shape.clone();
    longer.push(2);
    let wrong = Tensor::zeros(&longer, DType::F64).expect("a small tensor");
    assert!(y.tensor.backward_with(&wrong).is_err(), "{program:?}");
    let untouched = leaves.iter().all(|leaf| leaf.tensor.grad().is_none());
    assert!(untouched, "{program:?}");

    let gradients = Gradients {
        program,
        leaves,
        y: &y.model,
        weights: &weights,
    };
    let last = || y.tensor.backward_with(&weights_tensor);
    if let Then::Nothing = program.then {
        assert_eq!(last(), Ok(()), "{program:?}");
        gradients.compare(1.0);
    } else {
        let retained = y.tensor.backward_retain_graph(Some(&weights_tensor));
        assert_eq!(retained, Ok(()), "{program:?}");
        gradients.compare(1.0);
    }
    match program.then {
        Then::Nothing => {}
        Then::Again => {
            assert_eq!(last(), Ok(()), "{program:?}");
            gradients.compare(2.0);
        }
        Then::Write(place, how) => {
            let written = write(program, &values[usize::from(place) % values.len()], how);
            match last() {
                Ok(()) => gradients.compare(2.0),
                Err(error) => {
                    let noticed = matches!(error.kind(), ErrorKind::SavedTensorWritten { .. });
                    assert!(written && noticed, "{program:?}: {error} after a write");
                    return gradients.compare(1.0);
                }
            }
        }
    }
    if !y.tensor.is_leaf() {
        let again = last();
        assert!(
            matches!(kind(&again), Some(ErrorKind::GraphFreed { .. })),
            "{program:?}: {again:?}"
        );
    }
}

/// What was wrong.
fn kind<T>(result: &Result<T>) -> Option<&ErrorKind> {
    result.as_ref().err().map(Error::kind)
}

/// The gradients at the leaves, and what they have to be.
struct Gradients<'a> {
    program: &'a Program,
    leaves: &'a [Value],
    y: &'a Array,
    weights: &'a Array,
}

impl Gradients<'_> {
    /// Compares along the direction, after so many times of backward.
    fn compare(&self, times: f64) {
        let program = self.program;
        let tangents = |x: &Array| -> Vec<f64> { x.elements.iter().map(|x| x.tangent).collect() };
        let weights: Vec<f64> = self.weights.elements.iter().map(|w| w.value).collect();
        let (want, mut scale) = product(&tangents(self.y), &weights);
        let mut got = 0.0;
        for leaf in self.leaves {
            let Some(gradient) = leaf.tensor.grad() else {
                continue;
            };
            assert!(leaf.needs_grad, "{program:?}");
            assert_eq!(gradient.shape(), leaf.model.shape, "{program:?}");
            let (part, size) = product(&elements(&gradient), &tangents(&leaf.model));
            (got, scale) = (got + part, scale + size);
        }
        assert!(
            (got - times * want).abs() <= 1e-9 * scale + 1e-6,
            "{program:?}: the gradients give {got}, the model {want} times {times}"
        );
    }
}

/// The scalar product, and the sum of the sizes of what it adds.
fn product(left: &[f64], right: &[f64]) -> (f64, f64) {
    let products = left.iter().zip(right).map(|(l, r)| l * r);
    products.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()))
}

/// Writes a value in place, and returns whether that could be done. A function that saved the value
/// has to notice.
fn write(program: &Program, value: &Value, how: Write) -> bool {
    let tensor = &value.tensor;
    let halves = tensor.detach().mul_scalar(0.5).expect("a small tensor");
    let write = || match how {
        Write::Assign => tensor.assign(&halves),
        Write::Update => tensor.update(&halves, &mut [], &Subtract),
    };
    let mut square = None;
    if value.needs_grad {
        let refused = write();
        assert!(
            matches!(kind(&refused), Some(ErrorKind::WriteNeedsNoGrad)),
            "{program:?}: {refused:?}"
        );
        square = Some(tensor.mul(tensor).expect("a small tensor"));
    }

    let before = elements(tensor);
    let result = no_grad(write);
    if tensor.is_expanded() {
        assert!(
            matches!(kind(&result), Some(ErrorKind::WriteToExpanded { .. })),
            "{program:?}: {result:?}"
        );
        assert_eq!(elements(tensor), before, "{program:?}");
        return false;
    }
    assert_eq!(result, Ok(()), "{program:?}");
    assert_eq!(elements(tensor), elements(&halves), "{program:?}");
    if let Some(square) = square {
        let late = square.sum().and_then(|sum| sum.backward());
        assert!(
            matches!(kind(&late), Some(ErrorKind::SavedTensorWritten { .. })),
            "{program:?}: {late:?}"
        );
    }
    true
}

/// The parameter less the gradient.
struct Subtract;

impl UpdateRule<0> for Subtract {
    fn apply<A: Scalar + Float>(&self, parameter: A, gradient: A, _: [A; 0]) -> (A, [A; 0]) {
        (parameter - gradient, [])
    }
}
