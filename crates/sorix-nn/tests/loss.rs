//! Losses: values, gradients, and what they refuse.

use sorix_core::{DType, Tensor, tensor};
use sorix_nn::Reduction;
use sorix_nn::loss::{cross_entropy, mse_loss};

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
        "cross_entropy: expected logits of shape [examples, classes], got shape [2]"
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
