//! Losses: values, gradients, and what they refuse.

use sorix_core::{DType, Tensor, tensor};
use sorix_nn::Reduction;
use sorix_nn::loss::{CrossEntropy, binary_cross_entropy_with_logits, cross_entropy, mse_loss};

fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().to_vec().unwrap()
}

#[test]
fn squared_errors_and_their_gradients() {
    let x = tensor([[1.0, 2.0], [3.0, 4.0]]).requires_grad(true);
    let target = tensor([[1.0, 0.0], [4.0, 1.0]]);
    let mean = mse_loss(&x, &target, Reduction::Mean).unwrap();
    assert_eq!((mean.shape(), mean.item::<f64>().unwrap()), (&[][..], 3.5));
    mean.backward().unwrap();
    assert_eq!(values(&x.grad().unwrap()), [0.0, 1.0, -0.5, 1.5]);
    x.zero_grad();
    let sum = mse_loss(&x, &target, Reduction::Sum).unwrap();
    assert_eq!(sum.item::<f64>().unwrap(), 14.0);
    sum.backward().unwrap();
    assert_eq!(values(&x.grad().unwrap()), [0.0, 4.0, -2.0, 6.0]);
}

/// The figures are those of Python's math module; the gradient is `softmax - one-hot`.
#[test]
fn cross_entropy_and_its_gradient() {
    let logits = [[2.0, 1.0, 0.0], [0.0, 3.0, -1.0]];
    let classes = [0, 2];
    let losses = [0.40760596444438013, 4.065883903757429];
    let x = tensor(logits).requires_grad(true);
    let sum = cross_entropy(&x, &classes, Reduction::Sum).unwrap();
    assert!((sum.item::<f64>().unwrap() - (losses[0] + losses[1])).abs() < 1e-12);
    let mean = cross_entropy(&x, &classes, Reduction::Mean).unwrap();
    assert!((mean.item::<f64>().unwrap() - (losses[0] + losses[1]) / 2.0).abs() < 1e-12);
    mean.backward().unwrap();
    let gradient = values(&x.grad().unwrap());
    for (i, (row, &class)) in logits.iter().zip(&classes).enumerate() {
        let total: f64 = row.iter().map(|x: &f64| x.exp()).sum();
        for (k, x) in row.iter().enumerate() {
            let expected = (x.exp() / total - f64::from(u8::from(k == class))) / 2.0;
            assert!((gradient[3 * i + k] - expected).abs() < 1e-14);
        }
    }
}

#[test]
fn cross_entropy_of_extreme_logits_is_finite() {
    for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
        let x = tensor([[1000.0, -1000.0]]).to_dtype(dtype).unwrap();
        for (class, expected) in [(0, 0.0), (1, 2000.0)] {
            let loss = cross_entropy(&x, &[class], Reduction::Mean).unwrap();
            assert_eq!(values(&loss), [expected], "{dtype}");
        }
    }
}

#[test]
fn losses_that_are_not_reduced_are_those_of_each() {
    let x = tensor([[1.0, 2.0], [3.0, 4.0]]).requires_grad(true);
    let target = tensor([[1.0, 0.0], [4.0, 1.0]]);
    let each = mse_loss(&x, &target, Reduction::None).unwrap();
    assert_eq!(
        (each.shape(), values(&each)),
        (&[2, 2][..], vec![0.0, 4.0, 1.0, 9.0])
    );
    let weights = tensor([[1.0, 1.0], [0.0, 2.0]]);
    each.backward_with(&weights).unwrap();
    assert_eq!(values(&x.grad().unwrap()), [0.0, 4.0, 0.0, 12.0]);

    let logits = tensor([[2.0, 1.0, 0.0], [0.0, 3.0, -1.0]]);
    let each = cross_entropy(&logits, &[0, 2], Reduction::None).unwrap();
    assert_eq!(each.shape(), [2]);
    for (got, expected) in values(&each)
        .iter()
        .zip([0.40760596444438013, 4.065883903757429])
    {
        assert!((got - expected).abs() < 1e-12);
    }
}

/// As in PyTorch.
#[test]
fn of_no_examples_the_mean_is_nan_and_the_sum_0() {
    let none = Tensor::zeros([0, 3], DType::F32).unwrap();
    let squares = |reduction| mse_loss(&none, &none, reduction).unwrap();
    let entropy = |reduction| cross_entropy(&none, &[], reduction).unwrap();
    assert!(values(&squares(Reduction::Mean))[0].is_nan());
    assert!(values(&entropy(Reduction::Mean))[0].is_nan());
    assert_eq!(values(&squares(Reduction::Sum)), [0.0]);
    assert_eq!(values(&entropy(Reduction::Sum)), [0.0]);
    assert_eq!(squares(Reduction::None).shape(), [0, 3]);
    assert_eq!(entropy(Reduction::None).shape(), [0]);
}

#[test]
fn what_does_not_fit_is_named() {
    let x = tensor([[0.0, 0.0], [0.0, 0.0]]);
    let entropy = |x: &Tensor, classes: &[usize]| {
        cross_entropy(x, classes, Reduction::Mean)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        entropy(&tensor([0.0, 0.0]), &[0]),
        "cross_entropy: expected logits of shape [examples, classes, ..], got shape [2]"
    );
    assert_eq!(
        entropy(&x, &[0]),
        "cross_entropy: expected a class for each of 2 examples, got shape [1]"
    );
    assert_eq!(
        entropy(&x, &[0, 2]),
        "cross_entropy: expected whole numbers in 0..2, got 2"
    );
    assert_eq!(
        entropy(&x, &[0, usize::MAX]),
        format!(
            "cross_entropy: expected whole numbers in 0..2, got {}",
            usize::MAX
        )
    );
    let row = tensor([0.0, 0.0]);
    let squares = |target: &Tensor| {
        mse_loss(&x, target, Reduction::Mean)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        squares(&row),
        "mse_loss: expected a target of shape [2, 2], got shape [2]"
    );
    let single = Tensor::zeros([2, 2], DType::F32).unwrap();
    assert!(squares(&single).contains("one dtype"));
}

/// bf16 has 8 bits: what is rounded on the way shows in the sum of a row, which is 0.
#[test]
fn the_gradient_of_a_cross_entropy_in_16_bits_is_rounded_once() {
    const CLASSES: usize = 50_000;
    let logits: Vec<f64> = (0..2 * CLASSES)
        .map(|i| ((i * 7919) % 1000) as f64 / 250.0 - 2.0)
        .collect();
    for (dtype, step) in [(DType::F16, 2f64.powi(-11)), (DType::BF16, 2f64.powi(-8))] {
        let x = Tensor::from_slice(&logits, [2, CLASSES]).unwrap();
        let x = x.to_dtype(dtype).unwrap().requires_grad(true);
        let loss = cross_entropy(&x, &[3, 17], Reduction::Mean).unwrap();
        assert_eq!(loss.dtype(), dtype);
        loss.backward_with(&Tensor::full([], 512.0, dtype).unwrap())
            .unwrap();
        let (x, gradient) = (values(&x), values(&x.grad().unwrap()));
        for (row, class) in [3, 17].into_iter().enumerate() {
            let row = row * CLASSES..(row + 1) * CLASSES;
            let total: f64 = x[row.clone()].iter().map(|x| x.exp()).sum();
            for (k, i) in row.clone().enumerate() {
                let expected = 256.0 * (x[i].exp() / total - f64::from(u8::from(k == class)));
                let allowed = step * expected.abs() + 2f64.powi(-25);
                assert!((gradient[i] - expected).abs() <= allowed, "{dtype}, {k}");
            }
            let sum: f64 = gradient[row].iter().sum();
            assert!(sum.abs() < 256.0 * 1e-3, "{dtype}: {sum}");
        }
    }
}

/// The squares would overflow f16, and their mean does not.
#[test]
fn squared_errors_in_16_bits_are_in_range_if_their_mean_is() {
    let x = tensor([300.0, 0.0])
        .to_dtype(DType::F16)
        .unwrap()
        .requires_grad(true);
    let target = Tensor::zeros([2], DType::F16).unwrap();
    let loss = mse_loss(&x, &target, Reduction::Mean).unwrap();
    assert_eq!(
        values(&loss),
        [45_000.0_f64].map(|x| sorix_core::half::f16::from_f64(x).to_f64())
    );
    loss.backward().unwrap();
    assert_eq!(values(&x.grad().unwrap()), [300.0, 0.0]);
}

/// log softmax of [2, 1, 0] and of [0, 3, -1], by Python's math module.
const LOGS: [[f64; 3]; 2] = [
    [
        -0.4076059644443801,
        -1.4076059644443801,
        -2.4076059644443804,
    ],
    [-3.065883903757429, -0.06588390375742853, -4.065883903757429],
];

#[track_caller]
fn near(got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        let close = (got - expected).abs() < 1e-14 * (1.0 + expected.abs());
        assert!(
            close || (got.is_nan() && expected.is_nan()),
            "{got}, not {expected}"
        );
    }
}

/// The formula of every option by hand, and the derivative of the mean by `softmax` and the labels.
#[test]
fn cross_entropy_with_weights_ignored_examples_and_smoothed_labels() {
    let logits = tensor([[2.0, 1.0, 0.0], [0.0, 3.0, -1.0], [5.0, 6.0, 7.0]]);
    let weights = [0.5, 2.0, 3.0];
    let weighted = || CrossEntropy::new().class_weights(&tensor(weights));
    let losses = |loss: CrossEntropy, classes: &[usize]| {
        let of = |reduction| {
            values(
                &loss
                    .clone()
                    .reduction(reduction)
                    .loss(&logits, classes)
                    .unwrap(),
            )
        };
        (
            of(Reduction::None),
            of(Reduction::Sum)[0],
            of(Reduction::Mean)[0],
        )
    };
    let check = |(each, sum, mean): (Vec<f64>, f64, f64), expected: [f64; 3], total: f64| {
        near(&each, &expected);
        near(&[sum], &[expected.iter().sum()]);
        near(&[mean], &[expected.iter().sum::<f64>() / total]);
    };
    let [a, b] = LOGS;
    // The third example is of the class that is ignored, in and out of range.
    let plain = CrossEntropy::new().ignore_index(usize::MAX);
    check(losses(plain, &[0, 2, usize::MAX]), [-a[0], -b[2], 0.0], 2.0);
    check(
        losses(weighted().ignore_index(1), &[0, 2, 1]),
        [-0.5 * a[0], -3.0 * b[2], 0.0],
        3.5,
    );

    let smooth = |logs: [f64; 3], class: usize| {
        let all: f64 = logs.iter().zip(weights).map(|(log, w)| log * w).sum();
        -0.9 * weights[class] * logs[class] - 0.1 / 3.0 * all
    };
    let options = weighted().label_smoothing(0.1).unwrap().ignore_index(7);
    let expected = [smooth(a, 0), smooth(b, 2), 0.0];
    check(losses(options.clone(), &[0, 2, 7]), expected, 3.5);
    let uniform =
        |logs: [f64; 3], class: usize| -0.8 * logs[class] - 0.2 / 3.0 * logs.iter().sum::<f64>();
    let plain = CrossEntropy::new()
        .label_smoothing(0.2)
        .unwrap()
        .ignore_index(7);
    check(
        losses(plain, &[0, 2, 7]),
        [uniform(a, 0), uniform(b, 2), 0.0],
        2.0,
    );

    let x = logits.requires_grad(true);
    options.loss(&x, &[0, 2, 7]).unwrap().backward().unwrap();
    let gradient = values(&x.grad().unwrap());
    let of = |logs: [f64; 3], class: usize| {
        let label =
            |c: usize| 0.1 / 3.0 * weights[c] + if c == class { 0.9 * weights[c] } else { 0.0 };
        let total: f64 = (0..3).map(label).sum();
        [0, 1, 2].map(|c| (logs[c].exp() * total - label(c)) / 3.5)
    };
    near(&gradient, &[of(a, 0), of(b, 2), [0.0; 3]].concat());

    let nothing = CrossEntropy::new()
        .ignore_index(1)
        .loss(&logits, &[1, 1, 1])
        .unwrap();
    assert!(values(&nothing)[0].is_nan());
}

/// An ignored example may be a row that is masked as a whole.
#[test]
fn an_ignored_example_spoils_nothing() {
    let x = tensor([[f64::NEG_INFINITY; 2], [0.0, 0.0]]).requires_grad(true);
    let loss = CrossEntropy::new()
        .ignore_index(9)
        .loss(&x, &[9, 1])
        .unwrap();
    near(&values(&loss), &[2f64.ln()]);
    loss.backward().unwrap();
    near(&values(&x.grad().unwrap()), &[0.0, 0.0, 0.5, -0.5]);
}

/// The classes are the second axis, as in PyTorch; the examples are in the order of the others.
#[test]
fn cross_entropy_over_more_axes_is_that_of_their_places() {
    let rows = [
        [2.0, 1.0, 0.0],
        [0.0, 3.0, -1.0],
        [1.0, 1.0, 4.0],
        [0.5, 0.0, 0.0],
    ];
    let classes = [0, 2, 1, 0];
    let flat = tensor(rows).requires_grad(true);
    // [2, 2, 3] with the classes brought to the second place.
    let deep = tensor(rows)
        .reshape([2, 2, 3])
        .unwrap()
        .permute(&[0, 2, 1])
        .unwrap();
    let deep = deep.copy().unwrap().requires_grad(true);
    for loss in [
        CrossEntropy::new(),
        CrossEntropy::new()
            .ignore_index(1)
            .label_smoothing(0.3)
            .unwrap()
            .class_weights(&tensor([1.0, 2.0, 3.0])),
    ] {
        let each = loss.clone().reduction(Reduction::None);
        let (a, b) = (
            each.loss(&flat, &classes).unwrap(),
            each.loss(&deep, &classes).unwrap(),
        );
        assert_eq!((a.shape(), b.shape()), (&[4][..], &[2, 2][..]));
        near(&values(&b), &values(&a));
        flat.zero_grad();
        deep.zero_grad();
        loss.loss(&flat, &classes).unwrap().backward().unwrap();
        loss.loss(&deep, &classes).unwrap().backward().unwrap();
        let of_deep = deep.grad().unwrap().permute(&[0, 2, 1]).unwrap();
        near(&values(&of_deep), &values(&flat.grad().unwrap()));
    }
    let four = tensor(rows).reshape([1, 3, 2, 2]).unwrap();
    let each = cross_entropy(&four, &[0, 1, 2, 0], Reduction::None).unwrap();
    assert_eq!(each.shape(), [1, 2, 2]);
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let x = tensor([[0.0, 0.0]]);
    let message = |weights: Tensor| {
        let loss = CrossEntropy::new().class_weights(&weights);
        loss.loss(&x, &[0]).unwrap_err().to_string()
    };
    assert_eq!(
        message(tensor([1.0])),
        "cross_entropy: expected a weight for each of 2 classes, got shape [1]"
    );
    assert_eq!(
        message(tensor([1.0_f32, 1.0])),
        "cross_entropy(float64[1, 2], float32[2]): operands must have one dtype"
    );
    assert!(CrossEntropy::new().label_smoothing(f64::NAN).is_err());
    let none = Tensor::zeros([1, 0], DType::F32).unwrap();
    let loss = CrossEntropy::new().ignore_index(0).loss(&none, &[0]);
    assert_eq!(
        loss.unwrap_err().to_string(),
        "cross_entropy: expected at least one class, got shape [1, 0]"
    );
}

/// log1p(exp(-20)) and its neighbours, by Python's math module: nothing cancels on either side.
#[test]
fn binary_cross_entropy_and_its_gradient() {
    let small = 2.061153620314381e-9;
    let rows = [
        (20.0, 1.0, small, -2.0611536181902033e-9),
        (-20.0, 0.0, small, 2.0611536181902033e-9),
        (0.0, 0.25, 2f64.ln(), 0.25),
        (1.0, 0.5, 0.8132616875182228, 0.2310585786300049),
        (-800.0, 1.0, 800.0, -1.0),
        (800.0, 0.0, 800.0, 1.0),
    ];
    for (x, target, value, slope) in rows {
        for dtype in [DType::BF16, DType::F32, DType::F64] {
            let tolerance = match dtype {
                DType::BF16 => 8e-3,
                DType::F32 => 1e-6,
                _ => 1e-15,
            };
            let x = tensor([x]).to_dtype(dtype).unwrap().requires_grad(true);
            let target = tensor([target]).to_dtype(dtype).unwrap();
            let loss = binary_cross_entropy_with_logits(&x, &target, Reduction::Mean).unwrap();
            assert_eq!(loss.dtype(), dtype);
            loss.backward().unwrap();
            let got = [values(&loss)[0], values(&x.grad().unwrap())[0]];
            for (got, expected) in got.into_iter().zip([value, slope]) {
                let error = (got / expected - 1.0).abs();
                assert!(error < tolerance, "{dtype} {x}: {got}, not {expected}");
            }
        }
    }
    let (x, t) = (tensor([0.0, 800.0]), tensor([1.0, 0.0]));
    let of = |reduction| values(&binary_cross_entropy_with_logits(&x, &t, reduction).unwrap());
    near(&of(Reduction::Sum), &[800.0 + 2f64.ln()]);
    near(&of(Reduction::Mean), &[400.0 + 2f64.ln() / 2.0]);
    let error = binary_cross_entropy_with_logits(&x, &tensor(1.0), Reduction::Mean).unwrap_err();
    assert_eq!(
        error.to_string(),
        "binary_cross_entropy_with_logits: expected a target of shape [2], got shape []"
    );
}

/// Of a mean over examples only the ratios of the weights matter.
#[test]
fn weights_of_any_size_give_the_mean_of_their_ratios() {
    let logits = Tensor::from_slice(&[0.5_f32, -1.0, 2.0, 3.0, 0.0, -4.0], [2, 3]).unwrap();
    let weighted = |weights: [f32; 3], smoothing: f64| {
        let x = logits.requires_grad(true);
        let weights = Tensor::from_slice(&weights, [3]).unwrap();
        let loss = CrossEntropy::new().class_weights(&weights);
        let loss = loss.label_smoothing(smoothing).unwrap().loss(&x, &[1, 2]);
        let loss = loss.unwrap();
        loss.backward().unwrap();
        (values(&loss), values(&x.grad().unwrap()))
    };
    for smoothing in [0.0, 0.25] {
        let expected = weighted([1.0, 2.0, 1.5], smoothing);
        for exponent in [-140, -120, 0, 100, 126] {
            let unit = f64::from(exponent).exp2();
            let weights = [1.0, 2.0, 1.5].map(|w| (w * unit) as f32);
            assert_eq!(
                weighted(weights, smoothing),
                expected,
                "2^{exponent}, {smoothing}"
            );
        }
    }
}
