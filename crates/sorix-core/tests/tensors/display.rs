//! What `{}` prints. The expected texts are what NumPy 2.4 prints, with `tensor` for `array` and the
//! dtype always named.

use half::f16;
use sorix_core::{DType, Scalar, Tensor, tensor};

fn arange(count: usize, shape: &[usize]) -> Tensor {
    Tensor::from_slice(&(0..count).map(|i| i as f64).collect::<Vec<_>>(), shape).unwrap()
}

#[track_caller]
fn check(x: &Tensor, expected: &str) {
    assert_eq!(x.to_string(), expected);
}

#[test]
fn one_dimension() {
    check(
        &tensor([0.0, 2.0, 0.0, 2.0, 2.0]),
        "tensor([0., 2., 0., 2., 2.], dtype=sorix.float64)",
    );
    check(
        &tensor([0.5, 10.0, -2.25]),
        "tensor([ 0.5 , 10.  , -2.25], dtype=sorix.float64)",
    );
    check(
        &tensor([0.1 + 0.2, 1.0 / 3.0]),
        "tensor([0.3       , 0.33333333], dtype=sorix.float64)",
    );
    check(
        &tensor([0.1_f32, 0.7]),
        "tensor([0.1, 0.7], dtype=sorix.float32)",
    );
    check(
        &tensor([0.1, 0.7]).to_dtype(DType::F16).unwrap(),
        "tensor([0.1, 0.7], dtype=sorix.float16)",
    );
    check(
        &tensor([0.1, 0.7]).to_dtype(DType::BF16).unwrap(),
        "tensor([0.1, 0.7], dtype=sorix.bfloat16)",
    );
}

#[test]
fn any_number_of_dimensions() {
    check(&tensor(3.5), "tensor(3.5, dtype=sorix.float64)");
    check(&tensor([[[1.5]]]), "tensor([[[1.5]]], dtype=sorix.float64)");
    check(
        &arange(8, &[2, 2, 2]),
        "\
tensor([[[0., 1.],
         [2., 3.]],

        [[4., 5.],
         [6., 7.]]], dtype=sorix.float64)",
    );
    check(
        &arange(6, &[2, 3]).transpose(0, 1).unwrap(),
        "\
tensor([[0., 3.],
        [1., 4.],
        [2., 5.]], dtype=sorix.float64)",
    );
}

/// 2^-6 of f16 lies in the middle of two numbers of four digits, and only the upper one rounds to it:
/// the f16 below are closer to each other.
#[test]
fn the_digits_identify_the_number() {
    let half = |x: f64| tensor([x]).to_dtype(DType::F16).unwrap();
    check(&half(0.015625), "tensor([0.01563], dtype=sorix.float16)");
    check(&half(-0.015625), "tensor([-0.01563], dtype=sorix.float16)");
    check(&half(-0.0), "tensor([-0.], dtype=sorix.float16)");
    let both = tensor([0.015625, 1000.0]).to_dtype(DType::F16).unwrap();
    check(&both, "tensor([1.563e-02, 1.000e+03], dtype=sorix.float16)");
    // Those of every f16 are read as that f16, and are not more than three where three will do.
    for bits in 0..0x7C00 {
        let x = f16::from_bits(bits);
        let text = tensor([x]).to_string();
        let digits = &text["tensor([".len()..text.find(']').unwrap()];
        let read = |digits: &str| f16::nearest(digits.parse().unwrap());
        assert_eq!(read(digits), x, "{digits}");
        let shorter = format!("{:.2e}", x.to_f64());
        if read(&shorter) == x {
            let significant = digits.split('e').next().unwrap().replace('.', "");
            assert!(
                significant.trim_matches('0').len() <= 3,
                "{digits}, {shorter}"
            );
        }
    }
}

/// NumPy's `array2string` with `precision=2` and so on.
#[test]
fn a_precision_is_the_most_decimals() {
    let x = tensor([1.0 / 3.0, 0.5, 20.0]);
    let texts = [
        (0, "tensor([ 0.,  0., 20.], dtype=sorix.float64)"),
        (2, "tensor([ 0.33,  0.5 , 20.  ], dtype=sorix.float64)"),
        (
            10,
            "tensor([ 0.3333333333,  0.5         , 20.          ], dtype=sorix.float64)",
        ),
    ];
    for (precision, text) in texts {
        assert_eq!(format!("{x:.precision$}"), text);
    }
    let x = tensor([1.2345e-5, -3e10]);
    assert_eq!(
        format!("{x:.2}"),
        "tensor([ 1.23e-05, -3.00e+10], dtype=sorix.float64)"
    );
    assert_eq!(
        format!("{x:.0}"),
        "tensor([ 1.e-05, -3.e+10], dtype=sorix.float64)"
    );
}

#[test]
fn nothing_to_show() {
    check(
        &Tensor::zeros([0], DType::F64).unwrap(),
        "tensor([], dtype=sorix.float64)",
    );
    check(
        &Tensor::zeros([2, 0], DType::F32).unwrap(),
        "tensor([], shape=[2, 0], dtype=sorix.float32)",
    );
}

#[test]
fn numbers_that_are_not_finite() {
    check(
        &tensor([1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY]),
        "tensor([  1.,  nan,  inf, -inf], dtype=sorix.float64)",
    );
    check(&tensor([f64::NAN]), "tensor([nan], dtype=sorix.float64)");
}

#[test]
fn scientific_notation_for_large_small_and_wide() {
    check(
        &tensor([1e8, 1.0]),
        "tensor([1.e+08, 1.e+00], dtype=sorix.float64)",
    );
    check(&tensor([1.5e-5]), "tensor([1.5e-05], dtype=sorix.float64)");
    check(
        &tensor([-1e-300, 12.25]),
        "tensor([-1.000e-300,  1.225e+001], dtype=sorix.float64)",
    );
    check(
        &tensor([1001.0, 1.0]),
        "tensor([1.001e+03, 1.000e+00], dtype=sorix.float64)",
    );
    check(
        &tensor([1000.0, 1.0]),
        "tensor([1000.,    1.], dtype=sorix.float64)",
    );
    check(&tensor([1e6_f32]), "tensor([1.e+06], dtype=sorix.float32)");
}

#[test]
fn long_lines_wrap() {
    check(
        &arange(20, &[20]),
        "\
tensor([ 0.,  1.,  2.,  3.,  4.,  5.,  6.,  7.,  8.,  9., 10., 11., 12.,
        13., 14., 15., 16., 17., 18., 19.], dtype=sorix.float64)",
    );
    // The dtype goes to a line of its own where it does not fit.
    check(
        &arange(11, &[11]),
        "\
tensor([ 0.,  1.,  2.,  3.,  4.,  5.,  6.,  7.,  8.,  9., 10.],
       dtype=sorix.float64)",
    );
}

#[test]
fn more_than_a_thousand_elements_are_summarised() {
    check(
        &arange(1001, &[1001]),
        "\
tensor([   0.,    1.,    2., ...,  998.,  999., 1000.],
       dtype=sorix.float64)",
    );
    check(
        &Tensor::ones([40, 40], DType::F32).unwrap(),
        "\
tensor([[1., 1., 1., ..., 1., 1., 1.],
        [1., 1., 1., ..., 1., 1., 1.],
        [1., 1., 1., ..., 1., 1., 1.],
        ...,
        [1., 1., 1., ..., 1., 1., 1.],
        [1., 1., 1., ..., 1., 1., 1.],
        [1., 1., 1., ..., 1., 1., 1.]], dtype=sorix.float32)",
    );
    let thousand = Tensor::ones([1000], DType::F64).unwrap().to_string();
    assert!(!thousand.contains("..."));
}

/// Short axes are shown whole, so that many of them are too much even where six of each are not.
#[test]
fn of_too_many_elements_the_shape_is_shown() {
    let one = Tensor::ones([1; 28], DType::F32).unwrap();
    check(
        &one.expand([2; 28]).unwrap(),
        "\
tensor([...],
       shape=[2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2], \
         dtype=sorix.float32)",
    );
    // 7776 and 46,656 of them.
    let shown = |ndim| Tensor::ones(vec![7; ndim], DType::F32).unwrap().to_string();
    assert!(shown(5).contains("1., 1., 1., ..., 1., 1., 1."));
    assert_eq!(
        shown(6),
        "tensor([...], shape=[7, 7, 7, 7, 7, 7], dtype=sorix.float32)"
    );
}

#[test]
fn of_very_many_axes_the_number_is_shown() {
    let x = Tensor::ones(vec![1; 100_000], DType::F32).unwrap();
    let text = "tensor([...], ndim=100000, dtype=sorix.float32)";
    assert_eq!(x.to_string(), text);
    let x = Tensor::ones([1; 64], DType::F32).unwrap().to_string();
    assert!(
        x.starts_with(&format!("tensor({}1.]", "[".repeat(64))),
        "{x}"
    );
}
