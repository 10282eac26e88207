//! A drop probability that changes: schedules, setters, and whole models.

use std::sync::Arc;

use sorix_core::{DType, DropRate, Tensor};
use sorix_nn::visit::Visit;
use sorix_nn::{Dropout, Error, Generator, Module, Schedule, Sequential};

#[test]
fn linear_and_cosine_values() {
    let cases: [(Schedule, &[(u64, f64)]); 6] = [
        (
            Schedule::linear(0.0, 0.5, 4).unwrap(),
            &[
                (0, 0.0),
                (1, 0.125),
                (2, 0.25),
                (3, 0.375),
                (4, 0.5),
                (u64::MAX, 0.5),
            ],
        ),
        (
            Schedule::linear(0.75, 0.25, 2).unwrap(),
            &[(0, 0.75), (1, 0.5), (2, 0.25), (3, 0.25)],
        ),
        (
            Schedule::cosine(0.0, 1.0, 3).unwrap(),
            &[(0, 0.0), (1, 0.25), (2, 0.75), (3, 1.0), (9, 1.0)],
        ),
        (
            Schedule::cosine(0.5, 0.0, 4).unwrap(),
            &[(0, 0.5), (1, 0.426_776_695_296_636_9), (2, 0.25), (4, 0.0)],
        ),
        (
            Schedule::linear(0.1, 0.7, 0).unwrap(),
            &[(0, 0.7), (1, 0.7)],
        ),
        (
            Schedule::cosine(1.0, 1.0, 10).unwrap(),
            &[(0, 1.0), (3, 1.0), (10, 1.0)],
        ),
    ];
    for (schedule, expected) in cases {
        for &(step, p) in expected {
            let got = schedule.at(step).p();
            assert!((got - p).abs() < 1e-15, "{schedule:?} at {step}: {got}");
        }
    }
}

#[test]
fn a_schedule_moves_one_way_and_stays_between_its_ends() {
    for (from, to) in [
        (0.0, 1.0),
        (1.0, 0.0),
        (0.1, 0.3),
        (0.3, 0.1),
        (1e-300, 1e-17),
    ] {
        for make in [Schedule::linear, Schedule::cosine] {
            let schedule = make(from, to, 1000).unwrap();
            let values: Vec<f64> = (0..=1000).map(|step| schedule.at(step).p()).collect();
            assert_eq!((values[0], values[1000]), (from, to));
            let towards = |w: &[f64]| (w[1] - w[0]) * (to - from) >= 0.0;
            assert!(values.windows(2).all(towards), "{schedule:?}");
        }
    }
}

#[test]
fn ends_outside_0_to_1_are_errors() {
    for bad in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        for make in [Schedule::linear, Schedule::cosine] {
            for (from, to) in [(bad, 0.5), (0.5, bad)] {
                let error = make(from, to, 10).unwrap_err();
                assert!(matches!(error, Error::Rate(_)), "{from} to {to}");
            }
        }
    }
}

#[test]
fn a_rejected_p_leaves_the_old_one() {
    let mut dropout = Dropout::new(0.3).unwrap();
    for bad in [-0.1, 1.1, f64::NAN] {
        let error = dropout.set_p(bad).unwrap_err();
        assert!(error.to_string().ends_with(&format!("got p = {bad}")));
        assert_eq!(dropout.rate().p(), 0.3);
    }
}

#[test]
fn the_next_call_uses_the_new_p_and_the_old_backward_the_old_one() {
    let generator = Arc::new(Generator::new(1));
    let mut dropout = Dropout::new(0.5).unwrap().generator(Arc::clone(&generator));
    let x = Tensor::ones([100], DType::F64).unwrap().requires_grad(true);
    let before = dropout.forward(&x).unwrap();
    dropout.set_p(0.75).unwrap();
    let after = dropout.forward(&x).unwrap();
    assert_eq!(generator.state().offset, 2, "changing p takes no key");
    for (y, scale) in [(before, 2.0), (after, 4.0)] {
        x.zero_grad();
        y.sum().unwrap().backward().unwrap();
        let y = y.to_vec::<f64>().unwrap();
        assert!(y.contains(&0.0) && y.contains(&scale));
        assert!(y.iter().all(|&y| y == 0.0 || y == scale));
        assert_eq!(x.grad().unwrap().to_vec::<f64>().unwrap(), y);
    }
}

#[test]
fn a_model_is_set_whole_or_in_part() {
    let drop = |p| Dropout::new(p).unwrap();
    let mut model = Sequential::new()
        .with(drop(0.1))
        .with(Sequential::new().with(drop(0.2)).with(drop(0.3)));
    let rates = |model: &Sequential| -> Vec<(String, f64)> {
        let rates = model.named_drop_rates();
        rates
            .into_iter()
            .map(|(name, rate)| (name, rate.p()))
            .collect()
    };
    let named = |rates: [f64; 3]| ["0", "1.0", "1.1"].map(String::from).into_iter().zip(rates);
    assert!(rates(&model).into_iter().eq(named([0.1, 0.2, 0.3])));
    model.visit_children_mut(&mut |name, child| {
        if name == "1" {
            child.set_drop_rate(DropRate::new(0.5).unwrap());
        }
    });
    assert!(rates(&model).into_iter().eq(named([0.1, 0.5, 0.5])));
    model.set_drop_rate(DropRate::new(0.9).unwrap());
    assert!(rates(&model).into_iter().eq(named([0.9; 3])));
    let mut boxed: Box<dyn Module> = Box::new(drop(0.4));
    boxed.set_drop_rate(DropRate::new(0.6).unwrap());
    assert_eq!(boxed.drop_rate().unwrap().p(), 0.6);
    assert_eq!(boxed.named_drop_rates()[0].0, "");
}
