//! Comparisons, choices by a condition, extremes of two, triangles, copies, and operators of numbers.

use crate::common::{DTYPES, values};
use sorix_core::{DType, Tensor, tensor};

const NAN: f64 = f64::NAN;
const INF: f64 = f64::INFINITY;

#[test]
fn comparisons_are_1_and_0_in_the_dtype_and_broadcast() {
    for dtype in DTYPES {
        let x = tensor([[1.0, 2.0], [NAN, -INF]]).to_dtype(dtype).unwrap();
        let y = tensor([1.0, 3.0])
            .to_dtype(dtype)
            .unwrap()
            .requires_grad(true);
        let rows = [
            (x.eq(&y), [1.0, 0.0, 0.0, 0.0]),
            (x.ne(&y), [0.0, 1.0, 1.0, 1.0]),
            (x.lt(&y), [0.0, 1.0, 0.0, 1.0]),
            (x.le(&y), [1.0, 1.0, 0.0, 1.0]),
            (x.gt(&y), [0.0, 0.0, 0.0, 0.0]),
            (x.ge(&y), [1.0, 0.0, 0.0, 0.0]),
        ];
        for (k, (got, expected)) in rows.into_iter().enumerate() {
            let got = got.unwrap();
            assert_eq!(
                (got.dtype(), values(&got)),
                (dtype, expected.to_vec()),
                "{k}"
            );
            assert!(!got.needs_grad());
        }
    }
    assert_eq!(
        tensor(1.0).lt(&tensor(1.0_f32)).unwrap_err().to_string(),
        "lt(float64[], float32[]): operands must have one dtype"
    );
}

/// Neither a value nor a gradient that is NaN or infinite leaks from what is not chosen.
#[test]
fn choices_select_values_and_gradients() {
    let condition = tensor([[1.0], [0.0]]);
    let x = tensor([1.0, NAN]).requires_grad(true);
    let y = tensor([[5.0, 6.0], [7.0, 8.0]]).requires_grad(true);
    let z = condition.where_cond(&x, &y).unwrap();
    assert!(values(&z)[1].is_nan());
    assert_eq!(
        [values(&z)[0], values(&z)[2], values(&z)[3]],
        [1.0, 7.0, 8.0]
    );
    z.backward_with(&tensor([[2.0, INF], [NAN, 3.0]])).unwrap();
    assert_eq!(values(&x.grad().unwrap()), [2.0, INF]);
    let of_y = values(&y.grad().unwrap());
    assert!(of_y[2].is_nan());
    assert_eq!([of_y[0], of_y[1], of_y[3]], [0.0, 0.0, 3.0]);
    // A condition of more axes than the two, and NaN, which is not 0.
    let chosen = tensor([[NAN], [0.0], [-0.0]]).where_cond(&tensor(1.0), &tensor([2.0, 3.0]));
    assert_eq!(values(&chosen.unwrap()), [1.0, 1.0, 2.0, 3.0, 2.0, 3.0]);

    let x = tensor([[1.0, NAN], [3.0, 4.0]]).requires_grad(true);
    let filled = x.masked_fill(&tensor([0.0, 1.0]), -INF).unwrap();
    assert_eq!(values(&filled), [1.0, -INF, 3.0, -INF]);
    filled
        .backward_with(&tensor([[2.0, NAN], [3.0, INF]]))
        .unwrap();
    assert_eq!(values(&x.grad().unwrap()), [2.0, 0.0, 3.0, 0.0]);
    assert_eq!(
        x.masked_fill(&tensor([[[0.0]]]), 0.0)
            .unwrap_err()
            .to_string(),
        "masked_fill(float64[2, 2], float64[1, 1, 1]): shapes [1, 1, 1] and [2, 2] do not broadcast"
    );
}

#[test]
fn extremes_of_two_share_the_gradient_if_equal() {
    for dtype in DTYPES {
        let cast = |x: Tensor| x.to_dtype(dtype).unwrap().requires_grad(true);
        let gradients = |op: fn(&Tensor, &Tensor) -> sorix_core::Result<Tensor>| {
            let (x, y) = (
                cast(tensor([1.0, 2.0, NAN, 4.0, NAN])),
                cast(tensor([3.0, 2.0, 0.0, NAN, NAN])),
            );
            let z = op(&x, &y).unwrap();
            let grad = Tensor::full([5], 2.0, dtype).unwrap();
            z.backward_with(&grad).unwrap();
            (
                values(&z),
                values(&x.grad().unwrap()),
                values(&y.grad().unwrap()),
            )
        };
        let (z, x, y) = gradients(Tensor::maximum);
        assert_eq!(z[..2], [3.0, 2.0]);
        assert!(z[2..].iter().all(|z| z.is_nan()));
        assert_eq!(
            (x, y),
            (vec![0.0, 1.0, 2.0, 0.0, 1.0], vec![2.0, 1.0, 0.0, 2.0, 1.0])
        );
        let (z, x, y) = gradients(Tensor::minimum);
        assert_eq!(z[..2], [1.0, 2.0]);
        assert!(z[2..].iter().all(|z| z.is_nan()));
        assert_eq!(
            (x, y),
            (vec![2.0, 1.0, 2.0, 0.0, 1.0], vec![0.0, 1.0, 0.0, 2.0, 1.0])
        );
        // A bound for all: its gradients are added up.
        let (x, bound) = (cast(tensor([1.0, -1.0, -2.0])), cast(tensor(0.0)));
        x.maximum(&bound)
            .unwrap()
            .sum()
            .unwrap()
            .backward()
            .unwrap();
        assert_eq!(values(&x.grad().unwrap()), [1.0, 0.0, 0.0]);
        assert_eq!(values(&bound.grad().unwrap()), [2.0]);
    }
}

#[test]
fn triangles_of_stacks_and_views() {
    let x = tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]; 2]);
    let lower = [1.0, 0.0, 3.0, 4.0, 5.0, 6.0];
    assert_eq!(values(&x.tril(0).unwrap()), [lower, lower].concat());
    let view = x.transpose(1, 2).unwrap();
    assert_eq!(
        values(&view.tril(0).unwrap())[..6],
        [1.0, 0.0, 0.0, 2.0, 4.0, 0.0]
    );
    for (diagonal, kept) in [(isize::MIN, 0.0), (-3, 0.0), (1, 12.0), (isize::MAX, 12.0)] {
        let ones = Tensor::ones([2, 3, 2], DType::F32).unwrap();
        let sum = ones.tril(diagonal).unwrap().sum().unwrap();
        assert_eq!(values(&sum), [kept], "{diagonal}");
    }
    // Selected, not multiplied.
    let x = tensor([[1.0, NAN], [2.0, 3.0]]).requires_grad(true);
    let y = x.tril(0).unwrap();
    assert_eq!(values(&y), [1.0, 0.0, 2.0, 3.0]);
    y.backward_with(&tensor([[1.0, INF], [1.0, 1.0]])).unwrap();
    assert_eq!(values(&x.grad().unwrap()), [1.0, 0.0, 1.0, 1.0]);
    assert_eq!(
        Tensor::zeros([0, 3], DType::F32)
            .unwrap()
            .tril(0)
            .unwrap()
            .shape(),
        [0, 3]
    );
    assert_eq!(
        Tensor::zeros([3, 0], DType::F32)
            .unwrap()
            .tril(0)
            .unwrap()
            .shape(),
        [3, 0]
    );
    assert_eq!(
        tensor([1.0]).tril(0).unwrap_err().to_string(),
        "tril(float64[1]): axis -2 is out of range"
    );
}

#[test]
fn numbers_stand_on_either_side() {
    let x = tensor([1.0, 4.0]).requires_grad(true);
    let rows: [(sorix_core::Result<Tensor>, [f64; 2], [f64; 2]); 8] = [
        (1.0 - &x, [0.0, -3.0], [-1.0, -1.0]),
        (2.0 * &x, [2.0, 8.0], [2.0, 2.0]),
        (&x * 2.0, [2.0, 8.0], [2.0, 2.0]),
        (0.5 + &x, [1.5, 4.5], [1.0, 1.0]),
        (8.0 / &x, [8.0, 2.0], [-8.0, -0.5]),
        (1.0 - x.mul_scalar(1.0).unwrap(), [0.0, -3.0], [-1.0, -1.0]),
        (2.0 / x.mul_scalar(1.0).unwrap(), [2.0, 0.5], [-2.0, -0.125]),
        (2.0 * x.mul_scalar(1.0).unwrap(), [2.0, 8.0], [2.0, 2.0]),
    ];
    for (y, value, gradient) in rows {
        let y = y.unwrap();
        assert_eq!(values(&y), value);
        x.zero_grad();
        y.sum().unwrap().backward().unwrap();
        assert_eq!(values(&x.grad().unwrap()), gradient);
    }
    // 1/3 in one rounding, of a number that f16 does not have.
    let third = (1.0 / tensor(3.0_f32).to_dtype(DType::F16).unwrap()).unwrap();
    assert_eq!(values(&third), [half::f16::from_f64(1.0 / 3.0).to_f64()]);
}

#[test]
fn a_copy_is_of_its_own() {
    let x = tensor([[1.0, 2.0], [3.0, 4.0]]).requires_grad(true);
    let y = x.transpose(0, 1).unwrap().copy().unwrap();
    assert!(y.is_contiguous() && !y.same_storage(&x));
    assert_eq!(values(&y), [1.0, 3.0, 2.0, 4.0]);
    y.backward_with(&tensor([[1.0, 2.0], [3.0, 4.0]])).unwrap();
    assert_eq!(values(&x.grad().unwrap()), [1.0, 3.0, 2.0, 4.0]);
}

#[test]
fn an_axis_is_inferred_or_refused() {
    let x = Tensor::zeros([2, 3, 4], DType::F32).unwrap();
    assert_eq!(x.reshape_infer([-1]).unwrap().shape(), [24]);
    assert_eq!(x.reshape_infer([4, -1, 3]).unwrap().shape(), [4, 2, 3]);
    assert_eq!(x.reshape_infer([6, 4]).unwrap().shape(), [6, 4]);
    assert_eq!(tensor(1.0).reshape_infer([-1]).unwrap().shape(), [1]);
    let empty = Tensor::zeros([0, 3], DType::F32).unwrap();
    assert_eq!(empty.reshape_infer([-1, 3]).unwrap().shape(), [0, 3]);
    for lengths in [&[-1, -1][..], &[5, -1], &[-2, 12], &[23], &[0, -1]] {
        assert_eq!(
            x.reshape_infer(lengths).unwrap_err().to_string(),
            format!(
                "reshape_infer(float32[2, 3, 4]): expected lengths of 24 elements, at most one of \
                 them -1, got {lengths:?}"
            )
        );
    }
    assert!(empty.reshape_infer([0, -1]).is_err());
}
