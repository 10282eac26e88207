//! Optimisers against worked examples, and what they refuse; clipping.

use std::sync::Barrier;
use std::thread;

use sorix_core::autograd::no_grad;
use sorix_core::{DType, Tensor, tensor};
use sorix_nn::{
    Adam, AdamW, Error, Optimizer, OptimizerState, Result, Sgd, clip_grad_norm, clip_grad_value,
};

const START: [f64; 3] = [1.0, -2.0, 0.5];

const GRADIENTS: [[f64; 3]; 3] = [[0.5, -1.0, 2.0], [-0.25, 0.75, 1.0], [1.5, 0.0, -3.0]];

fn named(tensor: &Tensor) -> [(String, Tensor); 1] {
    [("w".to_owned(), tensor.clone())]
}

fn leaf(dtype: DType) -> Tensor {
    tensor(START).to_dtype(dtype).unwrap().requires_grad(true)
}

fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().to_vec().unwrap()
}

/// Makes `gradient` the gradient of `w`.
fn set_gradient(w: &Tensor, gradient: &[f64]) {
    w.zero_grad();
    let gradient = Tensor::from_slice(gradient, [gradient.len()]).unwrap();
    let gradient = gradient.to_dtype(w.dtype()).unwrap();
    w.mul(&gradient).unwrap().sum().unwrap().backward().unwrap();
}

fn assert_close(got: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!(
            (got - expected).abs() <= tolerance * (1.0 + expected.abs()),
            "{what}: {got} where {expected} was expected"
        );
    }
}

type Change = fn(&mut OptimizerState);

type Make = fn(&Tensor) -> Result<Box<dyn Optimizer>>;

/// Three steps with the gradients above. The figures come from a program of a page in Python, over
/// lists of floats, after the formulas in PyTorch's documentation.
const CASES: [(&str, Make, [f64; 3]); 8] = [
    (
        "sgd",
        |w| Ok(Box::new(Sgd::new(named(w), 0.1)?)),
        [0.825, -1.975, 0.5],
    ),
    (
        "sgd with decay",
        |w| Ok(Box::new(Sgd::new(named(w), 0.1)?.weight_decay(0.01)?)),
        [0.822077949, -1.969130898, 0.4990012995],
    ),
    (
        "sgd with momentum",
        |w| {
            let sgd = Sgd::new(named(w), 0.1)?.weight_decay(0.01)?;
            Ok(Box::new(sgd.momentum(0.9)?))
        },
        [0.756559749, -1.860594498, 0.0660571995],
    ),
    (
        "sgd with nesterov's momentum",
        |w| {
            let sgd = Sgd::new(named(w), 0.1)?.weight_decay(0.01)?;
            Ok(Box::new(sgd.nesterov_momentum(0.9)?))
        },
        [0.603189208191, -1.844038166382, 0.1096016787705],
    ),
    (
        "adam",
        |w| Ok(Box::new(Adam::new(named(w), 1e-3)?)),
        [0.998063162429161, -1.9988416265149462, 0.4981497971695565],
    ),
    (
        "adam, other numbers",
        |w| {
            let adam = Adam::new(named(w), 0.1)?.betas(0.8, 0.95)?;
            Ok(Box::new(adam.eps(1e-3)?.weight_decay(0.05)?))
        },
        [0.795563833476948, -1.8707743158929757, 0.3242945823908417],
    ),
    (
        "adamw",
        |w| Ok(Box::new(AdamW::new(named(w), 1e-3)?)),
        [0.9980331853924301, -1.9987816480080944, 0.49813482664125225],
    ),
    (
        "adamw, other numbers",
        |w| {
            let adamw = AdamW::new(named(w), 0.1)?.betas(0.8, 0.95)?;
            Ok(Box::new(adamw.eps(1e-3)?.weight_decay(0.05)?))
        },
        [0.794830091969188, -1.8658048982640254, 0.3193229577233369],
    ),
];

#[test]
fn three_steps_are_those_of_the_worked_examples() {
    // For f16 and bf16 the bound is three roundings of a number below 4.
    let dtypes = [
        (DType::F64, 1e-14),
        (DType::F32, 1e-6),
        (DType::F16, 2e-3),
        (DType::BF16, 2e-2),
    ];
    for (name, make, expected) in CASES {
        for (dtype, tolerance) in dtypes {
            let w = leaf(dtype);
            let mut optimizer = make(&w).unwrap();
            for gradient in GRADIENTS {
                set_gradient(&w, &gradient);
                optimizer.step().unwrap();
            }
            assert_close(
                &values(&w),
                &expected,
                tolerance,
                &format!("{name} {dtype}"),
            );
        }
    }
}

#[test]
fn a_learning_rate_counts_from_the_next_step_on() {
    for (name, make, _) in CASES {
        let w = leaf(DType::F64);
        let mut optimizer = make(&w).unwrap();
        optimizer.set_learning_rate(0.0).unwrap();
        assert_eq!(optimizer.learning_rate(), 0.0);
        set_gradient(&w, &GRADIENTS[0]);
        optimizer.step().unwrap();
        assert_eq!(values(&w), START, "{name}");
        optimizer.set_learning_rate(0.5).unwrap();
        optimizer.step().unwrap();
        assert_ne!(values(&w), START, "{name}");
    }
}

#[test]
fn parameters_without_a_gradient_stay_and_do_not_count_a_step() {
    for (name, make, _) in CASES {
        let w = leaf(DType::F64);
        let mut optimizer = make(&w).unwrap();
        optimizer.step().unwrap();
        assert_eq!(values(&w), START, "{name}");
        assert!(optimizer.state().parameters.is_empty());
        set_gradient(&w, &GRADIENTS[0]);
        optimizer.step().unwrap();
        assert_eq!(optimizer.state().parameters[0].steps, 1);
        optimizer.zero_grad();
        assert!(w.grad().is_none());
    }
    let frozen = tensor(START);
    Sgd::new(named(&frozen), 0.1).unwrap().step().unwrap();
    assert_eq!(values(&frozen), START);
}

/// A parameter whose first gradient comes late is changed as one that begins then.
#[test]
fn each_parameter_counts_its_own_steps() {
    let [early, late, alone] = [0; 3].map(|_| leaf(DType::F64));
    let pair = [("early", &early), ("late", &late)].map(|(name, w)| (name.to_owned(), w.clone()));
    let mut adam = Adam::new(pair, 0.1).unwrap();
    let mut adam_alone = Adam::new(named(&alone), 0.1).unwrap();
    set_gradient(&early, &GRADIENTS[0]);
    adam.step().unwrap();
    assert_eq!(values(&late), START);
    for gradient in &GRADIENTS[1..] {
        for w in [&early, &late, &alone] {
            set_gradient(w, gradient);
        }
        adam.step().unwrap();
        adam_alone.step().unwrap();
    }
    assert_eq!(values(&late), values(&alone));
    let state = adam.state();
    let steps: Vec<u64> = state.parameters.iter().map(|w| w.steps).collect();
    assert_eq!(steps, [3, 2]);
}

/// Whether a first gradient comes before the step, after it or in its midst, the step is whole.
#[test]
fn first_gradients_may_arrive_during_a_step() {
    const PARAMETERS: usize = 64;
    for _ in 0..50 {
        let leaves: Vec<Tensor> = (0..PARAMETERS).map(|_| leaf(DType::F64)).collect();
        let named = leaves.iter().enumerate();
        let named = named.map(|(i, w)| (i.to_string(), w.clone()));
        let mut adam = Adam::new(named, 0.1).unwrap();
        let start = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                leaves.iter().for_each(|w| set_gradient(w, &[1.0; 3]));
            });
            start.wait();
            for _ in 0..20 {
                adam.step().unwrap();
            }
        });
        adam.step().unwrap();
        assert_eq!(adam.state().parameters.len(), PARAMETERS);
    }
}

#[test]
fn a_tied_parameter_is_changed_once() {
    let w = leaf(DType::F64);
    let [one] = named(&w);
    let mut sgd = Sgd::new([one, ("tied".to_owned(), w.clone())], 0.1).unwrap();
    set_gradient(&w, &[1.0; 3]);
    sgd.step().unwrap();
    assert_eq!(values(&w), [0.9, -2.1, 0.4]);
    assert_eq!(sgd.named_parameters().len(), 1);
}

#[test]
fn a_state_taken_and_set_repeats_the_steps_after_it() {
    for (name, make, _) in CASES {
        let w = leaf(DType::F64);
        let mut optimizer = make(&w).unwrap();
        set_gradient(&w, &GRADIENTS[0]);
        optimizer.step().unwrap();
        let (state, at) = (optimizer.state(), values(&w));
        let follow = |optimizer: &mut dyn Optimizer, w: &Tensor| {
            for gradient in &GRADIENTS[1..] {
                set_gradient(w, gradient);
                optimizer.step().unwrap();
            }
            values(w)
        };
        let expected = follow(&mut *optimizer, &w);

        let w = Tensor::from_slice(&at, [3]).unwrap().requires_grad(true);
        let mut optimizer = make(&w).unwrap();
        optimizer.set_state(state.clone()).unwrap();
        assert_eq!(follow(&mut *optimizer, &w), expected, "{name}");
        // The state that was taken is as it was, whoever went on.
        no_grad(|| w.assign(&Tensor::from_slice(&at, [3]).unwrap())).unwrap();
        optimizer.set_state(state).unwrap();
        assert_eq!(follow(&mut *optimizer, &w), expected, "{name}");
    }
}

#[test]
fn a_state_that_does_not_fit_is_refused_whole() {
    let w = leaf(DType::F64);
    let mut adam = Adam::new(named(&w), 0.1).unwrap();
    set_gradient(&w, &GRADIENTS[0]);
    adam.step().unwrap();
    let state = adam.state();
    let refused = |adam: &mut Adam, change: Change| {
        let mut wrong = state.clone();
        change(&mut wrong);
        let error = adam.set_state(wrong).unwrap_err();
        assert_eq!(adam.state().hyperparameters, state.hyperparameters);
        assert_eq!(adam.state().parameters[0].steps, 1);
        error.to_string()
    };
    let cases: [(Change, &str); 10] = [
        (
            |state| state.parameters[0].name = "v".to_owned(),
            "Adam: state of parameter \"v\": there is no such parameter",
        ),
        (
            |state| state.parameters.push(state.parameters[0].clone()),
            "Adam: state of parameter \"w\": it is given twice",
        ),
        (
            |state| state.parameters[0].tensors.truncate(1),
            "Adam: state of parameter \"w\": expected the tensors [\"exp_avg\", \"exp_avg_sq\"], \
             got [\"exp_avg\"]",
        ),
        (
            |state| state.parameters[0].tensors[1].0 = "exp_avg".to_owned(),
            "Adam: state of parameter \"w\": expected the tensors [\"exp_avg\", \"exp_avg_sq\"], \
             got [\"exp_avg\", \"exp_avg\"]",
        ),
        (
            |state| state.parameters[0].tensors[1].1 = tensor([1.0]),
            "Adam: state of parameter \"w\": expected exp_avg_sq of shape [3] and dtype \
             sorix.float64, got [1] and sorix.float64",
        ),
        (
            |state| state.hyperparameters[0].1 = -1.0,
            "Adam: learning rate: expected a finite number, at least 0, got -1",
        ),
        (
            |state| state.hyperparameters[2].1 = 1.0,
            "Adam: second beta: expected a number in [0, 1), got 1",
        ),
        (
            |state| state.hyperparameters[4].0 = "decoupled_weight_decay".to_owned(),
            "Adam: expected the hyperparameters [\"learning_rate\", \"beta1\", \"beta2\", \"eps\", \
             \"weight_decay\"], got [\"learning_rate\", \"beta1\", \"beta2\", \"eps\", \
             \"decoupled_weight_decay\"]",
        ),
        (
            |state| state.hyperparameters.push(("eps".to_owned(), 1e-8)),
            "Adam: expected the hyperparameters [\"learning_rate\", \"beta1\", \"beta2\", \"eps\", \
             \"weight_decay\"], got [\"learning_rate\", \"beta1\", \"beta2\", \"eps\", \
             \"weight_decay\", \"eps\"]",
        ),
        (
            |state| state.parameters[0].steps = 0,
            "Adam: state of parameter \"w\": expected the tensors [], got [\"exp_avg\", \
             \"exp_avg_sq\"]",
        ),
    ];
    for (change, message) in cases {
        assert_eq!(refused(&mut adam, change), message);
    }
}

/// What one that goes on from a state does, whatever it was made with.
#[test]
fn a_state_brings_its_hyperparameters() {
    for (name, make, _) in CASES {
        let w = leaf(DType::F64);
        let mut optimizer = make(&w).unwrap();
        set_gradient(&w, &GRADIENTS[0]);
        optimizer.step().unwrap();
        let (state, at) = (optimizer.state(), values(&w));
        set_gradient(&w, &GRADIENTS[1]);
        optimizer.step().unwrap();

        let again = Tensor::from_slice(&at, [3]).unwrap().requires_grad(true);
        let mut other: Box<dyn Optimizer> = match name.split([' ', ',']).next() {
            Some("sgd") => Box::new(Sgd::new(named(&again), 7.0).unwrap()),
            Some("adam") => Box::new(Adam::new(named(&again), 7.0).unwrap()),
            _ => Box::new(AdamW::new(named(&again), 7.0).unwrap()),
        };
        other.set_state(state).unwrap();
        set_gradient(&again, &GRADIENTS[1]);
        other.step().unwrap();
        assert_eq!(values(&again), values(&w), "{name}");
        assert_eq!(
            other.state().hyperparameters,
            optimizer.state().hyperparameters
        );
    }
}

#[test]
fn hyperparameters_of_sgd_are_numbers_in_a_state() {
    let w = leaf(DType::F64);
    let mut sgd = Sgd::new(named(&w), 0.1)
        .unwrap()
        .nesterov_momentum(0.9)
        .unwrap()
        .weight_decay(0.25)
        .unwrap();
    let state = sgd.state();
    let numbers: Vec<(&str, f64)> = state
        .hyperparameters
        .iter()
        .map(|(name, number)| (&**name, *number))
        .collect();
    assert_eq!(
        numbers,
        [
            ("learning_rate", 0.1),
            ("momentum", 0.9),
            ("weight_decay", 0.25),
            ("nesterov", 1.0)
        ]
    );
    let cases = [
        (
            1,
            -1.0,
            "momentum: expected a finite number, at least 0, got -1",
        ),
        (
            2,
            f64::NAN,
            "weight decay: expected a finite number, at least 0, got NaN",
        ),
        (3, 0.5, "nesterov: expected 0 or 1, got 0.5"),
    ];
    for (number, bad, message) in cases {
        let mut wrong = state.clone();
        wrong.hyperparameters[number].1 = bad;
        let error = sgd.set_state(wrong).unwrap_err();
        assert_eq!(error.to_string(), format!("Sgd: {message}"));
        assert_eq!(sgd.state().hyperparameters, state.hyperparameters);
    }
}

/// A parameter was changed before there was momentum: its buffer is zeros, in the state too.
#[test]
fn momentum_may_begin_and_end_between_steps() {
    let w = leaf(DType::F64);
    let mut sgd = Sgd::new(named(&w), 0.5).unwrap();
    set_gradient(&w, &[1.0; 3]);
    sgd.step().unwrap();
    let mut sgd = sgd.momentum(0.5).unwrap();
    let state = sgd.state();
    assert_eq!(state.parameters[0].tensors[0].0, "momentum_buffer");
    assert_eq!(values(&state.parameters[0].tensors[0].1), [0.0; 3]);
    sgd.set_state(state).unwrap();
    sgd.step().unwrap();
    sgd.step().unwrap();
    // 0.5 of 1, of 1 and of 1.5.
    assert_eq!(values(&w), START.map(|w| w - 1.75));

    let mut sgd = sgd.momentum(0.0).unwrap();
    let state = sgd.state();
    assert!(state.parameters[0].tensors.is_empty());
    sgd.set_state(state).unwrap();
    sgd.step().unwrap();
    assert_eq!(values(&w), START.map(|w| w - 2.25));
}

#[test]
fn a_state_counts_parameters_that_it_does_not_name_as_never_changed() {
    let w = leaf(DType::F64);
    let mut adam = Adam::new(named(&w), 0.1).unwrap();
    let fresh = adam.state();
    set_gradient(&w, &GRADIENTS[0]);
    adam.step().unwrap();
    adam.set_state(fresh).unwrap();
    assert!(adam.state().parameters.is_empty());
    // As the first step of another.
    let again = tensor(values(&w)).requires_grad(true);
    let mut first = Adam::new(named(&again), 0.1).unwrap();
    for (w, adam) in [(&w, &mut adam), (&again, &mut first)] {
        set_gradient(w, &GRADIENTS[1]);
        adam.step().unwrap();
    }
    assert_eq!(values(&w), values(&again));
}

/// The last call says which momentum it is.
#[test]
fn plain_momentum_after_nesterovs_is_plain() {
    let steps = |sgd: fn(Sgd) -> Result<Sgd>| {
        let w = leaf(DType::F64);
        let mut sgd = sgd(Sgd::new(named(&w), 0.1).unwrap()).unwrap();
        set_gradient(&w, &GRADIENTS[0]);
        sgd.step().unwrap();
        values(&w)
    };
    let plain = steps(|sgd| sgd.momentum(0.9));
    assert_eq!(
        steps(|sgd| sgd.nesterov_momentum(0.5)?.momentum(0.9)),
        plain
    );
    assert_ne!(steps(|sgd| sgd.nesterov_momentum(0.9)), plain);
}

#[test]
fn hyperparameters_out_of_range_are_named() {
    let w = leaf(DType::F64);
    let sgd = || Sgd::new(named(&w), 0.1).unwrap();
    let adam = || Adam::new(named(&w), 0.1).unwrap();
    let adamw = || AdamW::new(named(&w), 0.1).unwrap();
    let message = |result: Result<()>| result.unwrap_err().to_string();
    for bad in [-0.1, f64::NAN, f64::INFINITY] {
        let expected =
            |what: &str| format!("{what}: expected a finite number, at least 0, got {bad}");
        let cases = [
            (Sgd::new(named(&w), bad).map(drop), "Sgd: learning rate"),
            (sgd().set_learning_rate(bad), "Sgd: learning rate"),
            (sgd().momentum(bad).map(drop), "Sgd: momentum"),
            (sgd().nesterov_momentum(bad).map(drop), "Sgd: momentum"),
            (sgd().weight_decay(bad).map(drop), "Sgd: weight decay"),
            (Adam::new(named(&w), bad).map(drop), "Adam: learning rate"),
            (adam().set_learning_rate(bad), "Adam: learning rate"),
            (adam().weight_decay(bad).map(drop), "Adam: weight decay"),
            (AdamW::new(named(&w), bad).map(drop), "AdamW: learning rate"),
            (adamw().weight_decay(bad).map(drop), "AdamW: weight decay"),
        ];
        for (result, what) in cases {
            assert_eq!(message(result), expected(what));
        }
    }
    for bad in [-0.1, 1.0, f64::NAN] {
        assert_eq!(
            message(adam().betas(bad, 0.9).map(drop)),
            format!("Adam: first beta: expected a number in [0, 1), got {bad}")
        );
        assert_eq!(
            message(adamw().betas(0.9, bad).map(drop)),
            format!("AdamW: second beta: expected a number in [0, 1), got {bad}")
        );
    }
}

#[test]
fn only_leaves_under_distinct_names_can_be_optimised() {
    let w = leaf(DType::F64);
    assert_eq!(
        Sgd::new(named(&w.neg().unwrap()), 0.1).unwrap_err(),
        Error::NotALeaf {
            optimizer: "Sgd",
            name: "w".to_owned()
        }
    );
    let [one] = named(&w);
    let [other] = named(&leaf(DType::F64));
    assert_eq!(
        AdamW::new([one, other], 0.1).unwrap_err().to_string(),
        "AdamW: parameter \"w\" is given twice"
    );
}

#[test]
fn an_expanded_leaf_or_no_parameter_at_all_is_refused_by_name() {
    let [w] = named(&leaf(DType::F64));
    let expanded = tensor([1.0]).expand([2]).unwrap().requires_grad(true);
    assert!(expanded.is_leaf());
    assert_eq!(
        Adam::new([w, ("b".to_owned(), expanded)], 0.1)
            .unwrap_err()
            .to_string(),
        "Adam: parameter \"b\" is expanded: its elements share memory"
    );
    assert_eq!(
        Sgd::new([], 0.1).unwrap_err().to_string(),
        "Sgd: expected at least one parameter, got none"
    );
    assert_eq!(
        Sgd::new([], -1e300).unwrap_err().to_string(),
        "Sgd: learning rate: expected a finite number, at least 0, got -1e300"
    );
}

/// With an `eps` of 0 a gradient of 0 makes the weight NaN.
#[test]
fn adam_divides_by_no_zero() {
    for bad in [0.0, 1e-46, -1e-8, f64::NAN, f64::INFINITY] {
        let w = leaf(DType::F32);
        let error = Adam::new(named(&w), 0.1).unwrap().eps(bad).unwrap_err();
        assert!(
            matches!(error, Error::Hyperparameter { what: "eps", .. }),
            "{bad}"
        );
        let mut adamw = AdamW::new(named(&w), 0.1).unwrap();
        let mut state = adamw.state();
        let eps = state
            .hyperparameters
            .iter_mut()
            .find(|(name, _)| name == "eps");
        eps.unwrap().1 = bad;
        assert!(adamw.set_state(state).is_err(), "{bad}");
    }
    let error = Adam::new(named(&leaf(DType::F32)), 0.1).unwrap().eps(0.0);
    assert_eq!(
        error.unwrap_err().to_string(),
        "Adam: eps: expected a finite number above 0, also in f32, got 0"
    );
    let w = leaf(DType::F32);
    set_gradient(&w, &[0.0; 3]);
    let before = values(&w);
    Adam::new(named(&w), 0.1)
        .unwrap()
        .eps(1e-45)
        .unwrap()
        .step()
        .unwrap();
    assert_eq!(values(&w), before);
}

/// Parameters named by their position.
fn numbered<const N: usize>(parameters: [&Tensor; N]) -> Vec<(String, Tensor)> {
    let named = |(i, parameter): (usize, &Tensor)| (i.to_string(), parameter.clone());
    parameters.into_iter().enumerate().map(named).collect()
}

#[test]
fn the_norm_is_taken_over_all_gradients_together() {
    let (a, b) = (leaf(DType::F64), leaf(DType::F32));
    let without = leaf(DType::F64);
    set_gradient(&a, &[1.0, 2.0, 2.0]);
    set_gradient(&b, &[0.0, 4.0, 0.0]);
    let all = numbered([&a, &without, &b]);
    assert_eq!(clip_grad_norm(&all, 5.0).unwrap(), 5.0);
    assert_eq!(values(&a.grad().unwrap()), [1.0, 2.0, 2.0]);
    assert_eq!(clip_grad_norm(&all, 2.5).unwrap(), 5.0);
    assert_eq!(values(&a.grad().unwrap()), [0.5, 1.0, 1.0]);
    assert_eq!(values(&b.grad().unwrap()), [0.0, 2.0, 0.0]);
    assert_eq!(clip_grad_norm(&[], 1.0).unwrap(), 0.0);
}

#[test]
fn a_tied_parameter_counts_once_in_the_norm() {
    let (a, b) = (leaf(DType::F64), leaf(DType::F64));
    set_gradient(&a, &[0.0, 3.0, 0.0]);
    set_gradient(&b, &[4.0, 0.0, 0.0]);
    let tied = numbered([&a, &b, &a, &a]);
    assert_eq!(clip_grad_norm(&tied, 2.5).unwrap(), 5.0);
    assert_eq!(values(&a.grad().unwrap()), [0.0, 1.5, 0.0]);
    assert_eq!(values(&b.grad().unwrap()), [2.0, 0.0, 0.0]);
}

#[test]
fn a_norm_that_is_not_finite_changes_nothing() {
    for bad in [f64::INFINITY, f64::NAN] {
        let (a, b) = (leaf(DType::F64), leaf(DType::F64));
        set_gradient(&a, &[1.0, 2.0, 3.0]);
        set_gradient(&b, &[bad, 0.0, 0.0]);
        let error = clip_grad_norm(&numbered([&a, &b]), 1.0).unwrap_err();
        assert!(matches!(error, Error::GradientNorm { norm, .. } if !norm.is_finite()));
        assert_eq!(
            error.to_string(),
            format!(
                "clip_grad_norm: the gradient norm is {bad} and cannot be clipped: see parameter \"1\""
            )
        );
        assert_eq!(values(&a.grad().unwrap()), [1.0, 2.0, 3.0]);
    }
    for bad in [-1.0, f64::NAN] {
        assert_eq!(
            clip_grad_norm(&[], bad).unwrap_err().to_string(),
            format!("clip_grad_norm: max_norm: expected a number, at least 0, got {bad}")
        );
    }
}

#[test]
fn infinity_measures_a_norm_and_clips_nothing() {
    let w = leaf(DType::F64);
    set_gradient(&w, &[3.0, 0.0, 4.0]);
    let norm = clip_grad_norm(&numbered([&w]), f64::INFINITY).unwrap();
    assert_eq!(
        (norm, values(&w.grad().unwrap())),
        (5.0, vec![3.0, 0.0, 4.0])
    );
    set_gradient(&w, &[f64::NAN, 0.0, f64::INFINITY]);
    assert!(clip_grad_norm(&numbered([&w]), f64::INFINITY).is_err());
    // Each element is finite, the norm of all is not.
    set_gradient(&w, &[1.5e308, 1.5e308, 0.0]);
    assert_eq!(
        clip_grad_norm(&numbered([&w]), 1.0)
            .unwrap_err()
            .to_string(),
        "clip_grad_norm: the gradient norm is inf and cannot be clipped: each gradient by itself is \
         finite"
    );
}

/// The squares of these leave the range of f64.
#[test]
fn the_norm_of_huge_and_of_tiny_gradients_is_right() {
    for scale in [1e200, 1e-200, 1e-310, 1.0] {
        let (a, b) = (leaf(DType::F64), leaf(DType::F64));
        set_gradient(&a, &[3.0 * scale, 0.0, 0.0]);
        set_gradient(&b, &[0.0, -4.0 * scale, 0.0]);
        let norm = clip_grad_norm(&numbered([&a, &b]), 2.5 * scale).unwrap();
        assert_close(&[norm / scale], &[5.0], 1e-12, "norm");
        let clipped = [&a, &b].map(|w| -> Vec<f64> {
            let gradient = values(&w.grad().unwrap()).into_iter();
            gradient.map(|g| g / scale).collect()
        });
        assert_close(&clipped[0], &[1.5, 0.0, 0.0], 1e-12, "clipped");
        assert_close(&clipped[1], &[0.0, -2.0, 0.0], 1e-12, "clipped");
    }
    let w = leaf(DType::F64);
    set_gradient(&w, &[0.0; 3]);
    assert_eq!(clip_grad_norm(&numbered([&w]), 0.0).unwrap(), 0.0);
    let none = Tensor::zeros([0], DType::F32).unwrap().requires_grad(true);
    none.sum().unwrap().backward().unwrap();
    assert_eq!(clip_grad_norm(&numbered([&none]), 1.0).unwrap(), 0.0);
}

/// The squares of these leave the range of f16.
#[test]
fn the_norm_of_half_precision_gradients_does_not_overflow() {
    let w = leaf(DType::F16);
    set_gradient(&w, &[3000.0, 0.0, 4000.0]);
    assert_eq!(clip_grad_norm(&numbered([&w]), 5.0).unwrap(), 5000.0);
    assert_close(
        &values(&w.grad().unwrap()),
        &[3.0, 0.0, 4.0],
        1e-3,
        "clipped",
    );
}

#[test]
fn values_are_clipped_one_by_one() {
    let w = leaf(DType::F32);
    set_gradient(&w, &[5.0, -0.25, -7.0]);
    clip_grad_value(&numbered([&w]), 0.5).unwrap();
    assert_eq!(values(&w.grad().unwrap()), [0.5, -0.25, -0.5]);
    assert!(clip_grad_value(&numbered([&w]), -1.0).is_err());
}
