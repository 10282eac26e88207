//! Initialisers: distributions, repetition, and what they refuse.

use sorix_core::{DType, Tensor, tensor};
use sorix_nn::init::{self, Fan};
use sorix_nn::{Generator, Result};

fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().to_vec().unwrap()
}

/// Shape [outputs 20, inputs 10, kernel 5]: fan-in 50, fan-out 100.
fn weight(dtype: DType) -> Tensor {
    Tensor::zeros([20, 10, 5], dtype)
        .unwrap()
        .requires_grad(true)
}

type Init = fn(&Tensor, &Generator) -> Result<()>;

/// Each with its standard deviation, and its bound where it has one.
const CASES: [(&str, Init, f64, f64); 7] = [
    (
        "uniform",
        |x, g| init::uniform(x, -3.0, 3.0, g),
        1.7320508,
        3.0,
    ),
    (
        "normal",
        |x, g| init::normal(x, 0.0, 2.0, g),
        2.0,
        f64::INFINITY,
    ),
    // √(2 / 150), √3 times that.
    (
        "xavier_uniform",
        |x, g| init::xavier_uniform(x, 1.0, g),
        0.1154701,
        0.2,
    ),
    (
        "xavier_normal",
        |x, g| init::xavier_normal(x, 2.0, g),
        0.2309401,
        f64::INFINITY,
    ),
    // √(2 / 50)
    (
        "kaiming_uniform",
        |x, g| init::kaiming_uniform(x, Fan::In, init::RELU_GAIN, g),
        0.2,
        0.3464102,
    ),
    (
        "kaiming_normal",
        |x, g| init::kaiming_normal(x, Fan::In, 1.0, g),
        0.1414214,
        f64::INFINITY,
    ),
    (
        "kaiming_normal out",
        |x, g| init::kaiming_normal(x, Fan::Out, 1.0, g),
        0.1,
        f64::INFINITY,
    ),
];

#[test]
fn distributions_have_their_mean_spread_and_bound() {
    for dtype in [DType::F64, DType::F32, DType::BF16] {
        for (name, init, std, bound) in CASES {
            let w = weight(dtype);
            init(&w, &Generator::new(5)).unwrap();
            let w = values(&w);
            let mean = w.iter().sum::<f64>() / 1000.0;
            let measured = (w.iter().map(|w| (w - mean) * (w - mean)).sum::<f64>() / 1000.0).sqrt();
            // Four standard errors: of a mean std/√1000, of a deviation at most std/√2000.
            assert!(mean.abs() < 0.127 * std, "{name} {dtype}: mean {mean}");
            assert!(
                (measured / std - 1.0).abs() < 0.09,
                "{name} {dtype}: std {measured}"
            );
            assert!(w.iter().all(|w| w.abs() <= bound * 1.005), "{name} {dtype}");
        }
    }
}

#[test]
fn values_depend_on_the_key_alone() {
    for (name, init, ..) in CASES {
        let draw = |generator: &Generator| {
            let w = weight(DType::F32);
            init(&w, generator).unwrap();
            values(&w)
        };
        let (generator, again) = (Generator::new(5), Generator::new(5));
        let first = draw(&generator);
        assert_eq!(draw(&again), first, "{name}");
        assert_eq!(generator.state().offset, 1, "{name} takes one key");
        assert_ne!(draw(&generator), first, "{name}");
    }
}

#[test]
fn constants() {
    let w = weight(DType::F32);
    init::constant(&w, 0.25).unwrap();
    assert_eq!(values(&w), [0.25; 1000]);
    init::zeros(&w).unwrap();
    assert_eq!(values(&w), [0.0; 1000]);
    assert!(w.needs_grad() && w.is_leaf());
}

#[test]
fn what_cannot_be_is_refused_and_nothing_is_drawn_or_written() {
    let generator = Generator::new(1);
    let (w, flat) = (tensor([[7.0]]), tensor([7.0]));
    let message = |result: Result<()>| result.unwrap_err().to_string();
    assert_eq!(
        message(init::xavier_normal(&flat, 1.0, &generator)),
        "init::xavier_normal: expected a weight of shape [outputs, inputs, ..], got shape [1]"
    );
    let cases = [
        init::uniform(&w, 1.0, 0.0, &generator),
        init::uniform(&w, f64::NAN, 0.0, &generator),
        init::uniform(&w, 0.0, f64::INFINITY, &generator),
        init::uniform(&w, -f64::MAX, f64::MAX, &generator),
        init::normal(&w, 0.0, -1.0, &generator),
        init::normal(&w, f64::NAN, 1.0, &generator),
        init::xavier_uniform(&w, -1.0, &generator),
        init::xavier_uniform(&w, f64::NAN, &generator),
        init::kaiming_uniform(&flat, Fan::In, 1.0, &generator),
        init::kaiming_normal(&w, Fan::Out, f64::INFINITY, &generator),
    ];
    assert!(cases.iter().all(Result::is_err));
    let expanded = tensor([7.0]).expand([2, 3]).unwrap();
    for (name, init, ..) in CASES {
        let by = if name.contains("uniform") {
            "uniform"
        } else {
            "normal"
        };
        assert_eq!(
            message(init(&expanded, &generator)),
            format!(
                "init::{by}(float64[2, 3]): an expanded tensor (strides [0, 0]) cannot be written: \
                 its elements share memory"
            )
        );
    }
    assert_eq!(values(&expanded), [7.0; 6]);
    assert_eq!((values(&w), values(&flat)), (vec![7.0], vec![7.0]));
    assert_eq!(generator.state().offset, 0);
}

#[test]
fn tensors_without_elements_are_filled_too() {
    let generator = Generator::new(1);
    for shape in [[0, 3], [3, 0]] {
        let w = Tensor::zeros(shape, DType::F32).unwrap();
        init::kaiming_uniform(&w, Fan::In, 1.0, &generator).unwrap();
        init::xavier_normal(&w, 1.0, &generator).unwrap();
    }
}
