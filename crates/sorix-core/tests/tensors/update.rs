//! Updates in place: values, dtypes, views, handles that keep theirs, and refusals.

use crate::common::{DTYPES, numbers, pool, random, values};
#[cfg(feature = "parallel")]
use core::sync::atomic::{AtomicBool, Ordering};
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

/// What the optimisers' loops do on the threads of a pool, and on one.
fn on_threads(
    threads: usize,
    w: &Tensor,
    gradient: &Tensor,
    masters: bool,
    rule: &impl UpdateRule<2>,
) -> Vec<Vec<u8>> {
    let (shape, wide) = (w.shape(), w.dtype().arithmetic());
    let mut state = [(); 2].map(|()| zeros(shape, wide));
    let former = state.clone();
    let mut master = w.to_dtype(wide).unwrap().copy().unwrap();
    pool(threads).install(|| {
        for _ in 0..2 {
            if masters {
                w.update_master(&mut master, gradient, &mut state, rule)
                    .unwrap();
            } else {
                w.update(gradient, &mut state, rule).unwrap();
            }
        }
    });
    assert!(values(&former[1]).iter().all(|&count| count == 0.0));
    let all = [w, &master, &state[0], &state[1]];
    all.map(|x| x.to_le_bytes().unwrap()).to_vec()
}

/// Long enough to be shared out.
const LONG: usize = 1 << 17;

#[test]
fn the_number_of_threads_does_not_show() {
    let numbers = [numbers(LONG + 70, 1), numbers(LONG + 70, 2)];
    for (dtype, of_gradient, masters) in [
        (DType::F32, DType::F32, false),
        (DType::F64, DType::F64, true),
        (DType::BF16, DType::BF16, false),
        (DType::BF16, DType::F32, true),
        (DType::F16, DType::F16, true),
    ] {
        let make = |which: usize, dtype| tensor(&*numbers[which]).to_dtype(dtype).unwrap();
        let gradient = make(1, of_gradient).slice(0, 7..LONG + 7).unwrap();
        let run = |threads| {
            let all = make(0, dtype);
            let part = all.slice(0, 33..LONG + 33).unwrap();
            let after = on_threads(threads, &part, &gradient, masters, &Momentum);
            // The rest of the storage is as it was.
            let before = make(0, dtype);
            for rest in [0..33, LONG + 33..LONG + 70] {
                let [rest, before] = [&all, &before].map(|x| x.slice(0, rest.clone()).unwrap());
                assert_eq!(values(&rest), values(&before));
            }
            after
        };
        let expected = run(1);
        for threads in [2, 7] {
            assert!(
                run(threads) == expected,
                "{dtype}, {of_gradient}, {threads} threads"
            );
        }
    }
}

/// The first call writes to the parameter, as another thread may.
#[cfg(feature = "parallel")]
struct Disturbed(Tensor, AtomicBool);

#[cfg(feature = "parallel")]
impl UpdateRule<2> for Disturbed {
    fn apply<A: Scalar + Float>(&self, p: A, g: A, state: [A; 2]) -> (A, [A; 2]) {
        if !self.1.swap(true, Ordering::Relaxed) {
            let sevens = Tensor::full([LONG], 7.0, DType::F32).unwrap();
            self.0.assign(&sevens).unwrap();
        }
        Momentum.apply(p, g, state)
    }
}

// On one thread such a rule waits for itself.
#[cfg(feature = "parallel")]
#[test]
fn a_write_meanwhile_is_not_lost() {
    let w = Tensor::zeros([LONG], DType::F32).unwrap();
    let rule = Disturbed(w.clone(), AtomicBool::new(false));
    let ones = Tensor::ones([LONG], DType::F32).unwrap();
    let mut state = [(); 2].map(|()| zeros(&[LONG], DType::F32));
    pool(2)
        .install(|| w.update(&ones, &mut state, &rule))
        .unwrap();
    // As if it had come before the update, which is made once.
    assert_eq!(values(&w), vec![6.0; LONG]);
    assert_eq!(values(&state[1]), vec![1.0; LONG]);
}

/// A thread that waits for its helpers takes up whatever it finds: here, what reads and writes the very
/// parameter.
#[test]
fn tasks_that_want_the_parameter_may_run_meanwhile() {
    let w = Tensor::zeros([LONG], DType::F32).unwrap();
    let ones = Tensor::ones([LONG], DType::F32).unwrap();
    pool(2).in_place_scope(|scope| {
        for k in 0..60 {
            let (w, ones) = (&w, &ones);
            scope.spawn(move |_| match k % 3 {
                0 => {
                    let mut state = [(); 2].map(|()| zeros(&[LONG], DType::F32));
                    w.update(ones, &mut state, &Momentum).unwrap();
                }
                1 => assert!(w.sum().unwrap().item::<f32>().unwrap().is_finite()),
                _ => w.assign(ones).unwrap(),
            });
        }
    });
}

#[test]
fn a_master_adds_up_what_sixteen_bits_cannot() {
    for dtype in [DType::F16, DType::BF16] {
        let w = tensor([1.0, -2.0]).to_dtype(dtype).unwrap();
        let small = tensor([1e-4, -2e-4]).to_dtype(dtype).unwrap();
        let mut master = w.to_dtype(DType::F32).unwrap();
        let mut none = [];
        for _ in 0..1000 {
            w.update_master(&mut master, &small, &mut none, &Descent)
                .unwrap();
        }
        let expected = [0.9, -1.8];
        for (got, expected) in values(&master).into_iter().zip(expected) {
            assert!((got - expected).abs() < 1e-3, "{dtype}: {got}");
        }
        assert_eq!(values(&w), values(&master.to_dtype(dtype).unwrap()));
        // What somebody else writes counts.
        w.assign(&tensor([5.0, f64::NAN]).to_dtype(dtype).unwrap())
            .unwrap();
        let zero = Tensor::zeros([2], dtype).unwrap();
        w.update_master(&mut master, &zero, &mut none, &Descent)
            .unwrap();
        assert_eq!(values(&master)[0], 5.0);
        assert!(values(&master)[1].is_nan() && values(&w)[1].is_nan());
    }
    // Of a view, which is written by index.
    let base = tensor([[1.0, 2.0], [3.0, 4.0]])
        .to_dtype(DType::BF16)
        .unwrap();
    let view = base.transpose(0, 1).unwrap();
    let mut master = view.to_dtype(DType::F32).unwrap();
    let gradient = tensor([[0.0, 1.0], [2.0, 0.0]])
        .to_dtype(DType::F32)
        .unwrap();
    view.update_master(&mut master, &gradient, &mut [], &Descent)
        .unwrap();
    assert_eq!(values(&base), [1.0, 0.0, 2.0, 4.0]);
    assert_eq!(values(&master), [1.0, 2.0, 0.0, 4.0]);
    let error = view.update_master(&mut base.clone(), &gradient, &mut [], &Descent);
    let expected =
        "update(bfloat16[2, 2], float32[2, 2]): expected dtype sorix.float32, got sorix.bfloat16";
    assert_eq!(error.unwrap_err().to_string(), expected);
}

struct Descent;

impl UpdateRule<0> for Descent {
    fn apply<A: Scalar + Float>(&self, p: A, g: A, _: [A; 0]) -> (A, [A; 0]) {
        (p - g, [])
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
