//! Reductions and normalisations of rows: values, special numbers, layouts, errors.

use crate::common::{DTYPES, random, values};
use sorix_core::{Axes, DType, Result, Tensor, tensor};

fn close(got: &Tensor, expected: &[f64]) {
    let got = values(got);
    assert_eq!(got.len(), expected.len());
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let near = (got - expected).abs() <= 1e-14 * (1.0 + expected.abs());
        assert!(
            near || got.to_bits() == expected.to_bits(),
            "element {i}: {got}, not {expected}"
        );
    }
}

#[test]
fn shapes_with_and_without_the_axes() {
    type Reduce = fn(&Tensor, Axes) -> Result<Tensor>;
    let x = random(&[2, 3, 4], 1);
    let reductions: [Reduce; 7] = [
        Tensor::sum_over,
        Tensor::mean_over,
        Tensor::max_over,
        Tensor::min_over,
        Tensor::logsumexp_over,
        |x, axes| x.var_over(axes, 1),
        |x, axes| x.std_over(axes, 1),
    ];
    for reduce in reductions {
        for (axes, without, with) in [
            (&[1][..], &[2, 4][..], &[2, 1, 4][..]),
            (&[-1, 0], &[3], &[1, 3, 1]),
            (&[0, 1, 2], &[], &[1, 1, 1]),
        ] {
            let left = reduce(&x, axes.into()).unwrap();
            let kept = reduce(&x, Axes::keepdim(axes)).unwrap();
            assert_eq!((left.shape(), kept.shape()), (without, with));
            assert_eq!(values(&left), values(&kept));
        }
    }
}

#[test]
fn values_over_axes_that_are_not_together() {
    let x = Tensor::from_slice(&[1.0, 8.0, 3.0, 4.0, 5.0, 6.0, 7.0, 2.0], [2, 2, 2]).unwrap();
    close(&x.max_over([0, 2]).unwrap(), &[8.0, 7.0]);
    close(&x.min_over([2, 0]).unwrap(), &[1.0, 2.0]);
    close(&x.var_over([0, 2], 0).unwrap(), &[6.5, 3.5]);
    close(&x.var_over([0, 2], 1).unwrap(), &[26.0 / 3.0, 14.0 / 3.0]);
    close(
        &x.std_over([0, 2], 0).unwrap(),
        &[6.5_f64.sqrt(), 3.5_f64.sqrt()],
    );
    close(&x.max().unwrap(), &[8.0]);
    assert_eq!(x.argmax(1).unwrap(), [1, 0, 1, 0]);
    assert_eq!(x.argmax(-1).unwrap(), [1, 1, 1, 0]);
}

#[test]
fn equal_extrema_share_the_gradient() {
    let x = tensor([[3.0, 1.0, 3.0], [1.0, 2.0, 0.0]]).requires_grad(true);
    x.max_over(1)
        .unwrap()
        .backward_with(&tensor([1.0, 4.0]))
        .unwrap();
    assert_eq!(values(&x.grad().unwrap()), [0.5, 0.0, 0.5, 0.0, 4.0, 0.0]);
    x.zero_grad();
    x.min().unwrap().backward().unwrap();
    assert_eq!(values(&x.grad().unwrap()), [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
}

#[test]
fn the_gradient_of_an_extremum_that_is_nan_goes_to_the_nan() {
    const NAN: f64 = f64::NAN;
    for dtype in DTYPES {
        for extremum in [Tensor::max, Tensor::min] {
            let gradient = |x: &[f64]| {
                let x = tensor(x).to_dtype(dtype).unwrap().requires_grad(true);
                extremum(&x).unwrap().backward().unwrap();
                values(&x.grad().unwrap())
            };
            assert_eq!(gradient(&[1.0, NAN, 3.0]), [0.0, 1.0, 0.0], "{dtype}");
            assert_eq!(gradient(&[NAN, 2.0, NAN]), [0.5, 0.0, 0.5], "{dtype}");
        }
    }
}

#[test]
fn the_gradient_of_a_standard_deviation_of_0_is_0() {
    for dtype in DTYPES {
        let x = Tensor::full([2, 3], 0.75, dtype)
            .unwrap()
            .requires_grad(true);
        x.std(0).unwrap().backward().unwrap();
        assert_eq!(values(&x.grad().unwrap()), [0.0; 6], "{dtype}");
    }
}

#[test]
fn a_correction_that_leaves_nothing_to_divide_by() {
    for correction in [3, 4, usize::MAX] {
        let [varied, constant] = [[1.0, 2.0, 4.0], [2.0; 3]].map(|x| {
            let x = tensor(x);
            [x.var(correction).unwrap(), x.std(correction).unwrap()]
        });
        assert!(varied.iter().all(|x| values(x) == [f64::INFINITY]));
        assert!(constant.iter().all(|x| values(x)[0].is_nan()));
    }
}

/// The mean is subtracted before squaring: squares of these numbers agree in all digits of their type.
#[test]
fn a_common_offset_does_not_cancel() {
    for (dtype, unit, tolerance) in [(DType::F32, 1.0, 1e-4), (DType::F64, 1.0 / 1024.0, 1e-10)] {
        let numbers: Vec<f64> = (0..100)
            .map(|i| 1e6 + f64::from(i * 37 % 100) * unit)
            .collect();
        let x = tensor(numbers.as_slice()).to_dtype(dtype).unwrap();
        // Of 0 to 99.
        let exact = 833.25 * unit * unit;
        let near = |got: Tensor, exact: f64| {
            let got = values(&got)[0];
            assert!((got / exact - 1.0).abs() < tolerance, "{got}, not {exact}");
        };
        near(x.var(0).unwrap(), exact);
        near(x.var(1).unwrap(), exact * 100.0 / 99.0);
        near(x.std(0).unwrap(), exact.sqrt());
    }
}

#[test]
fn special_numbers() {
    const NAN: f64 = f64::NAN;
    const INF: f64 = f64::INFINITY;
    let x = tensor([[1.0, NAN], [-INF, 2.0], [-INF, -INF], [INF, 1.0]]);
    close(&x.max_over(1).unwrap(), &[NAN, 2.0, -INF, INF]);
    close(&x.min_over(1).unwrap(), &[NAN, -INF, -INF, 1.0]);
    close(&x.logsumexp_over(1).unwrap(), &[NAN, 2.0, -INF, INF]);
    assert_eq!(x.argmax(1).unwrap(), [1, 1, 0, 0]);
    let y = values(&x.softmax(1).unwrap());
    assert!(y[0].is_nan() && y[1].is_nan() && y[7].is_nan());
    assert_eq!(y[2..6], [0.0, 1.0, 0.0, 0.0]);
    let log = values(&tensor([-1000.0, 1000.0]).log_softmax(0).unwrap());
    assert_eq!(log, [-2000.0, 0.0]);
    assert!(values(&tensor([5.0]).var(1).unwrap())[0].is_nan());
}

#[test]
fn a_view_and_its_copy_have_the_same_bits() {
    let x = random(&[7, 33, 5], 1).to_dtype(DType::F32).unwrap();
    let view = x.transpose(0, 2).unwrap();
    let copy = view.contiguous().unwrap();
    let ops: [fn(&Tensor) -> Result<Tensor>; 6] = [
        |x| x.softmax(1),
        |x| x.log_softmax(0),
        |x| x.var_over([0, 1], 1),
        |x| x.logsumexp(),
        |x| x.standardize(&[1, 2], 1e-5),
        |x| x.max_over(0),
    ];
    for op in ops {
        let (a, b) = (op(&view).unwrap(), op(&copy).unwrap());
        assert_eq!(a.to_vec::<f32>().unwrap(), b.to_vec::<f32>().unwrap());
    }
}

#[test]
fn halves_are_computed_in_f32_and_rounded_once() {
    for dtype in [DType::F16, DType::BF16] {
        let x = random(&[3, 50], 1).to_dtype(dtype).unwrap();
        let wide = x.to_dtype(DType::F32).unwrap();
        let ops: [fn(&Tensor) -> Result<Tensor>; 5] = [
            |x| x.softmax(1),
            |x| x.log_softmax(1),
            |x| x.std_over(1, 1),
            |x| x.logsumexp_over(1),
            |x| x.standardize(&[1], 1e-5),
        ];
        for op in ops {
            let (got, exact) = (op(&x).unwrap(), op(&wide).unwrap());
            assert_eq!(got.dtype(), dtype);
            assert_eq!(values(&got), values(&exact.to_dtype(dtype).unwrap()));
        }
    }
}

#[test]
fn empty_rows_and_no_rows() {
    for dtype in DTYPES {
        let x = Tensor::zeros([2, 0], dtype).unwrap();
        assert_eq!(x.softmax(1).unwrap().shape(), [2, 0]);
        assert_eq!(x.log_softmax(0).unwrap().shape(), [2, 0]);
        assert_eq!(x.standardize(&[1], 1e-5).unwrap().shape(), [2, 0]);
        assert_eq!(
            values(&x.logsumexp_over(1).unwrap()),
            [f64::NEG_INFINITY; 2]
        );
        assert_eq!(x.max_over(0).unwrap().shape(), [0]);
        assert_eq!(x.argmax(0).unwrap(), [0; 0]);
        assert_eq!(
            x.transpose(0, 1).unwrap().gather_last(&[]).unwrap().shape(),
            [0]
        );
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let empty = Tensor::zeros([2, 0], DType::F64).unwrap();
    let message = |result: Result<Tensor>| result.unwrap_err().to_string();
    assert_eq!(
        message(empty.max_over(-1)),
        "max_over(float64[2, 0]): no elements to choose from over axes [1]"
    );
    assert_eq!(
        message(empty.min()),
        "min(float64[2, 0]): no elements to choose from over axes [0, 1]"
    );
    assert_eq!(
        empty.argmax(1).unwrap_err().to_string(),
        "argmax(float64[2, 0]): no elements to choose from over axes [1]"
    );
    let x = random(&[2, 3], 1);
    assert_eq!(
        message(x.softmax(2)),
        "softmax(float64[2, 3]): axis 2 is out of range"
    );
    assert_eq!(
        message(tensor(1.0).log_softmax(0)),
        "log_softmax(float64[]): axis 0 is out of range"
    );
    assert_eq!(
        message(x.gather_last(&[0])),
        "gather_last(float64[2, 3]): shape [2] has 2 elements, got 1"
    );
}

/// The gradient of a softmax adds up to 1, also where neighbours of the value are 4 apart.
#[test]
fn gradients_in_half_precision_come_from_a_value_that_is_not_rounded() {
    for dtype in [DType::F16, DType::BF16] {
        let x = Tensor::full([10], 1000.0, dtype)
            .unwrap()
            .requires_grad(true);
        x.logsumexp().unwrap().backward().unwrap();
        let tenth = Tensor::full([10], 0.1, dtype).unwrap();
        assert_eq!(values(&x.grad().unwrap()), values(&tenth), "{dtype}");
    }
}

/// Of a row of huge equal numbers epsilon is all that the variance has.
#[test]
fn equal_elements_of_any_size_have_the_gradient_that_epsilon_gives() {
    for size in [1.0, 1e153, 1e160, f64::MAX / 8.0, -1e300, 1e-300] {
        let x = Tensor::full([1, 4], size, DType::F64)
            .unwrap()
            .requires_grad(true);
        let y = x.standardize(&[-1], 1e-5).unwrap();
        assert_eq!(values(&y), [0.0; 4], "{size}");
        y.backward_with(&tensor([[1.0, 2.0, 3.0, 4.0]])).unwrap();
        let scale = 1e-5_f64.sqrt().recip();
        let expected = [-1.5, -0.5, 0.5, 1.5].map(|x: f64| x * scale);
        close(&x.grad().unwrap(), &expected);
    }
}

/// What is all but certain is 1 when it is rounded; its gradient is not 0.
#[test]
fn what_is_all_but_certain_keeps_a_gradient() {
    for (dtype, off) in [(DType::F64, 1e-14), (DType::F32, 1e-6), (DType::BF16, 4e-3)] {
        for margin in [1.0, 8.0, 16.0, 20.0, 30.0] {
            let rest = f64::exp(-margin) / (1.0 + f64::exp(-margin));
            let x = tensor([[margin, 0.0]]).to_dtype(dtype).unwrap();
            let gradient = |f: &dyn Fn(&Tensor) -> Tensor| {
                let x = x.requires_grad(true);
                let grad = tensor([[1.0, 0.0]]).to_dtype(dtype).unwrap();
                f(&x).backward_with(&grad).unwrap();
                values(&x.grad().unwrap())
            };
            for (i, (found, expected)) in [
                (gradient(&|x| x.log_softmax(-1).unwrap()), rest),
                (gradient(&|x| x.softmax(-1).unwrap()), rest * (1.0 - rest)),
            ]
            .iter()
            .enumerate()
            {
                for (found, expected) in found.iter().zip([*expected, -expected]) {
                    // Probabilities are as exact as doubles near 1 are.
                    let error = (found - expected).abs();
                    assert!(
                        error <= off * expected.abs() + 4e-16,
                        "{dtype}, {margin}, {i}: {found} for {expected}"
                    );
                }
            }
        }
    }
}
