//! Updates in place: values, dtypes, views, handles that keep theirs, and refusals.

use crate::common::{DTYPES, random, values};
use ndarray::ArrayViewD;
use num_traits::Float;
use sorix_core::autograd::no_grad;
use sorix_core::{DType, ErrorKind, Scalar, Tensor, UpdateRule, tensor};

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

/// Adds the gradient and counts, and panics at 3.
struct Panics;

impl UpdateRule<1> for Panics {
    fn apply<A: Scalar + Float>(&self, p: A, g: A, [count]: [A; 1]) -> (A, [A; 1]) {
        assert_ne!(p.to_f64(), 3.0, "on purpose");
        (p + g, [count + A::one()])
    }
}

#[test]
fn an_update_is_a_write() {
    let (x, w) = (
        tensor([5.0, 6.0]).requires_grad(true),
        tensor([1.0, 2.0]).requires_grad(true),
    );
    let y = x.mul(&w).unwrap().sum().unwrap();
    let mut state = [zeros(&[2], DType::F64)];
    no_grad(|| w.update(&tensor([1.0, 1.0]), &mut state, &Panics)).unwrap();
    assert_eq!(
        y.backward().unwrap_err().to_string(),
        "MulBackward(float64[2]): a tensor it saved for backward was written since \
         (at version 0 then, 1 now), as by an optimiser's step after forward"
    );
    assert!(x.grad().is_none() && w.grad().is_none());
}

#[test]
fn a_rule_that_panics_has_written() {
    for shared in [false, true] {
        let (x, w) = (random(&[4], 1), tensor([1.0, 2.0, 3.0, 4.0]));
        let x = x.requires_grad(true);
        let y = x.mul(&w).unwrap().sum().unwrap();
        let mut state = [zeros(&[4], DType::F64)];
        let update = || w.update(&tensor([10.0; 4]), &mut state, &Panics);
        let update = core::panic::AssertUnwindSafe(update);
        let result = match shared {
            // Somebody reads meanwhile, so that the write is to a copy.
            true => w.with_view(|_: ArrayViewD<'_, f64>| std::panic::catch_unwind(update)),
            false => Ok(std::panic::catch_unwind(update)),
        };
        result.unwrap().unwrap_err();
        assert_eq!(values(&w), [11.0, 12.0, 3.0, 4.0]);
        assert_eq!(values(&state[0]), [1.0, 1.0, 0.0, 0.0]);
        let error = y.backward().unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::SavedTensorWritten { .. }),
            "{error}"
        );
        // And it can be used again.
        w.assign(&tensor([1.0; 4])).unwrap();
        assert_eq!(values(&w), [1.0; 4]);
    }
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
            "update(float64[2], float64[2]): an expanded tensor (strides [0]) cannot be written: its elements share memory",
        ),
    ];
    for (message, expected) in cases {
        assert_eq!(message, expected);
    }
    assert_eq!(values(&w), [1.0, 2.0]);
}
