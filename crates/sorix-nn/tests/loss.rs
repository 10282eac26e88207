//! Losses: values, gradients, and what they refuse.

use sorix_core::{DType, Tensor, tensor};
use sorix_nn::Reduction;
use sorix_nn::loss::mse_loss;

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

#[test]
fn what_does_not_fit_is_named() {
    let x = tensor([[0.0, 0.0], [0.0, 0.0]]);
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
