//! Updates in place: values, dtypes, views, handles that keep theirs, and refusals.

mod common;

use common::{DTYPES, random, values};
use num_traits::Float;
use sorix_core::autograd::no_grad;
use sorix_core::{DType, Scalar, Tensor, UpdateRule, tensor};

/// A step with momentum, and a count of steps: every operand shows in every result.
struct Momentum;

impl UpdateRule<2> for Momentum {
    fn apply<A: Scalar + Float>(&self, p: A, g: A, [momentum, count]: [A; 2]) -> (A, [A; 2]) {
        let momentum = momentum * A::nearest(0.5) + g;
        (p - momentum, [momentum, count + A::one()])
    }
}

fn zeros(shape: &[usize], dtype: DType) -> Tensor {
    Tensor::zeros(shape, dtype).unwrap()
}

#[test]
fn elements_and_state_change_together_in_every_dtype() {
    for dtype in DTYPES {
        let w = tensor([1.0, 2.0, -3.0])
            .to_dtype(dtype)
            .unwrap()
            .requires_grad(true);
        let gradient = tensor([1.0, 0.5, -2.0]).to_dtype(dtype).unwrap();
        let mut state = [(); 2].map(|()| zeros(&[3], dtype.arithmetic()));
        for _ in 0..2 {
            no_grad(|| w.update(&gradient, &mut state, &Momentum)).unwrap();
        }
        // Momentum is g, then 1.5 g: together 2.5 g.
        assert_eq!(values(&w), [-1.5, 0.75, 2.0], "{dtype}");
        assert_eq!(values(&state[0]), [1.5, 0.75, -3.0], "{dtype}");
        assert_eq!(values(&state[1]), [2.0; 3], "{dtype}");
    }
}

#[test]
fn strided_tensors_and_gradients_are_updated_by_index() {
    let (base, step) = (random(&[3, 4], 1), random(&[3, 4], 2));
    let mut state = [(); 2].map(|()| zeros(&[4, 3], DType::F64));
    let expected: Vec<f64> = values(&base)
        .iter()
        .zip(values(&step))
        .map(|(w, g)| w - g)
        .collect();
    let (view, step) = (base.transpose(0, 1).unwrap(), step.transpose(0, 1).unwrap());
    view.update(&step, &mut state, &Momentum).unwrap();
    assert_eq!(values(&base), expected, "the tensor of the view is written");
    assert_eq!(values(&state[0]), values(&step));
}

#[test]
fn handles_to_a_former_state_keep_their_values() {
    let w = tensor([1.0, 2.0]);
    let mut state = [(); 2].map(|()| zeros(&[2], DType::F64));
    let former = state.clone();
    w.update(&tensor([1.0, 1.0]), &mut state, &Momentum)
        .unwrap();
    assert_eq!(values(&former[0]), [0.0, 0.0]);
    assert_eq!(values(&state[0]), [1.0, 1.0]);
}

#[test]
fn a_tensor_can_be_its_own_gradient() {
    let w = tensor([1.0, 2.0]);
    let mut state = [(); 2].map(|()| zeros(&[2], DType::F64));
    w.update(&w, &mut state, &Momentum).unwrap();
    assert_eq!(values(&w), [0.0, 0.0]);
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_written() {
    let w = tensor([1.0, 2.0]).requires_grad(true);
    let gradient = tensor([1.0, 1.0]);
    let zeros = zeros(&[2], DType::F64);
    let refused = |w: &Tensor, gradient: &Tensor, state: [&Tensor; 2]| {
        let mut state = state.map(Tensor::clone);
        let error = w.update(gradient, &mut state, &Momentum).unwrap_err();
        assert!(values(&state[1]).iter().all(|&count| count == 0.0));
        error.to_string()
    };
    assert_eq!(
        refused(&w, &gradient, [&zeros; 2]),
        "update(float64[2], float64[2]): with a tensor that requires a gradient it can be used only \
         within no_grad"
    );
    let w = w.detach();
    let three = Tensor::zeros([3], DType::F64).unwrap();
    let single = zeros.to_dtype(DType::F32).unwrap();
    let cases = [
        (
            refused(&w, &three, [&zeros; 2]),
            "update(float64[2], float64[3]): expected shape [2], got [3]",
        ),
        (
            refused(&w, &gradient, [&zeros, &three]),
            "update(float64[2], float64[2]): expected shape [2], got [3]",
        ),
        (
            refused(&w, &single, [&zeros; 2]),
            "update(float64[2], float32[2]): expected dtype sorix.float64, got sorix.float32",
        ),
        (
            refused(&w, &gradient, [&single, &zeros]),
            "update(float64[2], float64[2]): expected dtype sorix.float64, got sorix.float32",
        ),
        (
            refused(&tensor(1.0).expand([2]).unwrap(), &gradient, [&zeros; 2]),
            "update(float64[2], float64[2]): elements of an expanded tensor (strides [0]) share memory",
        ),
    ];
    for (message, expected) in cases {
        assert_eq!(message, expected);
    }
    assert_eq!(values(&w), [1.0, 2.0]);
}
