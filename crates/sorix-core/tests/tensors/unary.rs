//! Functions of one number: fixed values, corners, halves.

use crate::common::{far_out, numbers, values};
use half::{bf16, f16};
use sorix_core::{DType, Result, Tensor, tensor};

type Op = fn(&Tensor) -> Result<Tensor>;

/// x, f(x) and f'(x), by Python's math module with 17 digits.
const KNOWN: &[(&str, Op, f64, f64, f64)] = &[
    (
        "exp",
        Tensor::exp,
        0.5,
        1.6487212707001282,
        1.6487212707001282,
    ),
    ("log", Tensor::log, 0.25, -1.3862943611198906, 4.0),
    (
        "sqrt",
        Tensor::sqrt,
        3.0,
        1.7320508075688772,
        0.2886751345948129,
    ),
    (
        "powf(2.5)",
        |x| x.powf(2.5),
        2.0,
        5.656854249492381,
        7.0710678118654755,
    ),
    ("powf(-1)", |x| x.powf(-1.0), -4.0, -0.25, -0.0625),
    (
        "tanh",
        Tensor::tanh,
        0.5,
        0.46211715726000973,
        0.7864477329659275,
    ),
    (
        "sigmoid",
        Tensor::sigmoid,
        0.5,
        0.6224593312018546,
        0.2350037122015945,
    ),
    (
        "gelu",
        Tensor::gelu,
        0.5,
        0.34573123063700656,
        0.8674951246561629,
    ),
    (
        "gelu",
        Tensor::gelu,
        -3.0,
        -0.004049694094890287,
        -0.011945647204183927,
    ),
    // The lower tail, where 1 + erf would have cancelled to 0.
    (
        "gelu",
        Tensor::gelu,
        -9.0,
        -1.015729565358458e-18,
        -9.13893737390664e-18,
    ),
    (
        "gelu_tanh",
        Tensor::gelu_tanh,
        0.5,
        0.34571400982514394,
        0.8673699035346424,
    ),
    ("abs", Tensor::abs, -0.75, 0.75, -1.0),
    (
        "log1p",
        Tensor::log1p,
        1e-10,
        9.9999999995e-11,
        0.9999999999,
    ),
    (
        "expm1",
        Tensor::expm1,
        -1e-10,
        -9.9999999995e-11,
        0.9999999999,
    ),
    (
        "softplus",
        Tensor::softplus,
        0.5,
        0.9740769841801067,
        0.6224593312018546,
    ),
    (
        "softplus",
        Tensor::softplus,
        -40.0,
        4.248354255291589e-18,
        4.248354255291589e-18,
    ),
    (
        "selu",
        Tensor::selu,
        0.5,
        0.5253504936777403,
        1.0507009873554805,
    ),
    (
        "selu",
        Tensor::selu,
        -0.5,
        -0.6917581878028713,
        1.0663411530444962,
    ),
    ("relu", Tensor::relu, 0.75, 0.75, 1.0),
    ("relu", Tensor::relu, -0.75, 0.0, 0.0),
    ("clamp", |x| x.clamp(-1.0, 1.0), 0.75, 0.75, 1.0),
    ("clamp", |x| x.clamp(-1.0, 1.0), 1.75, 1.0, 0.0),
];

#[test]
fn values_and_derivatives() {
    for &(name, op, x, value, derivative) in KNOWN {
        let x = tensor(x).requires_grad(true);
        let y = op(&x).unwrap();
        y.backward().unwrap();
        // In the tail of gelu, the argument's rounding alone is 81 times that of a double.
        let near = |got: f64, known: f64| (got - known).abs() <= 2e-14 * known.abs();
        let (y, grad) = (y.item().unwrap(), x.grad().unwrap().item().unwrap());
        assert!(near(y, value), "{name}({x}): {y}, not {value}");
        assert!(
            near(grad, derivative),
            "{name}'({x}): {grad}, not {derivative}"
        );
    }
}

/// Values and gradients of 1 where something had to be decided: as PyTorch decides, but for `gelu`.
#[test]
fn corners() {
    const NAN: f64 = f64::NAN;
    const INF: f64 = f64::INFINITY;
    type Row = (
        &'static str,
        Op,
        &'static [f64],
        &'static [f64],
        &'static [f64],
    );
    let rows: &[Row] = &[
        (
            "relu",
            Tensor::relu,
            &[0.0, -0.0, NAN, INF, -INF],
            &[0.0, 0.0, NAN, INF, 0.0],
            &[0.0, 0.0, 1.0, 1.0, 0.0],
        ),
        (
            "abs",
            Tensor::abs,
            &[0.0, -0.0, NAN, -INF],
            &[0.0, 0.0, NAN, INF],
            &[0.0, 0.0, 0.0, -1.0],
        ),
        (
            "clamp",
            |x| x.clamp(-1.0, 2.0),
            &[-1.0, 2.0, NAN, INF],
            &[-1.0, 2.0, NAN, 2.0],
            &[1.0, 1.0, 0.0, 0.0],
        ),
        (
            "powf(0)",
            |x| x.powf(0.0),
            &[0.0, NAN, INF],
            &[1.0; 3],
            &[0.0; 3],
        ),
        (
            "log1p",
            Tensor::log1p,
            &[0.0, -1.0, -2.0],
            &[0.0, -INF, NAN],
            &[1.0, INF, -1.0],
        ),
        (
            "expm1",
            Tensor::expm1,
            &[0.0, -INF, 1000.0],
            &[0.0, -1.0, INF],
            &[1.0, 0.0, INF],
        ),
        (
            "softplus",
            Tensor::softplus,
            &[1000.0, INF, -INF, NAN],
            &[1000.0, INF, 0.0, NAN],
            &[1.0, 1.0, 0.0, NAN],
        ),
        ("powf(1)", |x| x.powf(1.0), &[0.0], &[0.0], &[1.0]),
        (
            "powf(0.5)",
            |x| x.powf(0.5),
            &[0.0, -1.0],
            &[0.0, NAN],
            &[INF, NAN],
        ),
        ("sqrt", Tensor::sqrt, &[0.0, -1.0], &[0.0, NAN], &[INF, NAN]),
        ("log", Tensor::log, &[0.0, -1.0], &[-INF, NAN], &[INF, -1.0]),
        (
            "exp",
            Tensor::exp,
            &[-INF, 1000.0],
            &[0.0, INF],
            &[0.0, INF],
        ),
        (
            "tanh",
            Tensor::tanh,
            &[-INF, INF, NAN],
            &[-1.0, 1.0, NAN],
            &[0.0, 0.0, NAN],
        ),
        (
            "sigmoid",
            Tensor::sigmoid,
            &[-INF, INF, -800.0],
            &[0.0, 1.0, 0.0],
            &[0.0; 3],
        ),
        (
            "silu",
            Tensor::silu,
            &[0.0, -0.0, -INF, -1e20, INF, NAN],
            &[0.0, -0.0, -0.0, -0.0, INF, NAN],
            &[0.5, 0.5, 0.0, 0.0, 1.0, NAN],
        ),
        // PyTorch multiplies by infinities here, and has NaN.
        (
            "gelu",
            Tensor::gelu,
            &[-INF, -1e20, INF, NAN],
            &[-0.0, -0.0, INF, NAN],
            &[0.0, 0.0, 1.0, NAN],
        ),
        (
            "gelu_tanh",
            Tensor::gelu_tanh,
            &[-INF, -1e20, INF, NAN],
            &[-0.0, -0.0, INF, NAN],
            &[0.0, 0.0, 1.0, NAN],
        ),
    ];
    // By bits, so that -0.0 is not 0.0, with one NaN for all.
    let bits = |values: Vec<f64>| -> Vec<u64> {
        let bits = |value: f64| if value.is_nan() { NAN } else { value }.to_bits();
        values.into_iter().map(bits).collect()
    };
    for &(name, op, x, value, gradient) in rows {
        for dtype in crate::common::DTYPES {
            let x = tensor(x).to_dtype(dtype).unwrap().requires_grad(true);
            let y = op(&x).unwrap();
            y.backward_with(&Tensor::ones(y.shape(), dtype).unwrap())
                .unwrap();
            assert_eq!(bits(values(&y)), bits(value.to_vec()), "{name} in {dtype}");
            assert_eq!(
                bits(values(&x.grad().unwrap())),
                bits(gradient.to_vec()),
                "{name}' in {dtype}"
            );
        }
    }
}

/// An exponent that is 0 or 1 in the type that is computed in has the gradients of 0 and 1.
#[test]
fn powf_has_the_gradient_of_the_exponent_that_its_value_has() {
    for dtype in [DType::F16, DType::BF16, DType::F32] {
        for (exponent, gradient) in [(1e-50, 0.0), (1.0 + 1e-12, 1.0)] {
            let x = Tensor::zeros([], dtype).unwrap().requires_grad(true);
            let y = x.powf(exponent).unwrap();
            y.backward().unwrap();
            assert_eq!(values(&y), [1.0 - gradient], "{exponent} in {dtype}");
            assert_eq!(
                values(&x.grad().unwrap()),
                [gradient],
                "{exponent} in {dtype}"
            );
        }
    }
}

/// A gradient that is not a number is no reason to spoil what it does not flow through.
#[test]
fn relu_and_clamp_select_the_gradient() {
    for op in [Tensor::relu, |x: &Tensor| x.clamp(0.0, 1.0)] {
        let x = tensor([-1.0, 0.5]).requires_grad(true);
        op(&x)
            .unwrap()
            .backward_with(&tensor([f64::NAN, 2.0]))
            .unwrap();
        assert_eq!(x.grad().unwrap().to_vec::<f64>().unwrap(), [0.0, 2.0]);
    }
}

#[test]
fn halves_round_once() {
    let numbers = numbers(200, 1);
    let x = tensor(numbers.as_slice());
    let (halves, brains) = (
        x.to_dtype(DType::F16).unwrap(),
        x.to_dtype(DType::BF16).unwrap(),
    );
    for (x, y) in halves
        .to_vec::<f16>()
        .unwrap()
        .iter()
        .zip(halves.exp().unwrap().to_vec().unwrap())
    {
        assert_eq!(f16::from_f32(x.to_f32().exp()), y);
    }
    for (x, y) in brains
        .to_vec::<bf16>()
        .unwrap()
        .iter()
        .zip(brains.tanh().unwrap().to_vec().unwrap())
    {
        assert_eq!(bf16::from_f32(x.to_f32().tanh()), y);
    }
    // 1/3 in one rounding; by way of a rounded reciprocal of 3 it would be another number.
    let third = tensor([bf16::from_f32(5.0)])
        .div(&tensor([bf16::from_f32(3.0)]))
        .unwrap();
    assert_eq!(third.item::<bf16>().unwrap(), bf16::from_f32(5.0 / 3.0));
    let third = tensor([f16::from_f32(5.0)]).div_scalar(3.0).unwrap();
    assert_eq!(third.item::<f16>().unwrap(), f16::from_f32(5.0 / 3.0));
}

#[test]
fn division_broadcasts_and_refuses() {
    let x = tensor([[1.0, 2.0], [3.0, 4.0]]).requires_grad(true);
    let y = tensor([2.0, 4.0]).requires_grad(true);
    let quotient = x.div(&y).unwrap();
    assert_eq!(values(&quotient), [0.5, 0.5, 1.5, 1.0]);
    quotient.sum().unwrap().backward().unwrap();
    assert_eq!(values(&x.grad().unwrap()), [0.5, 0.25, 0.5, 0.25]);
    assert_eq!(values(&y.grad().unwrap()), [-1.0, -0.375]);
    let by_zero = tensor([1.0, -1.0, 0.0]).div(&tensor(0.0)).unwrap();
    assert_eq!(values(&by_zero)[..2], [f64::INFINITY, f64::NEG_INFINITY]);
    assert!(values(&by_zero)[2].is_nan());
    // The square of the divisor would overflow f16.
    let divisor = tensor([f16::from_f32(512.0)]).requires_grad(true);
    tensor([f16::from_f32(512.0)])
        .div(&divisor)
        .unwrap()
        .backward()
        .unwrap();
    assert_eq!(values(&divisor.grad().unwrap()), [-1.0 / 512.0]);

    let messages = [
        (
            x.div(&tensor([1.0; 3])),
            "div(float64[2, 2], float64[3]): shapes [2, 2] and [3] do not broadcast",
        ),
        (
            x.div(&tensor(1.0_f32)),
            "div(float64[2, 2], float32[]): operands must have one dtype",
        ),
        (
            x.clamp(2.0, 1.0),
            "clamp(float64[2, 2]): expected min <= max, got 2.0 and 1.0",
        ),
        (
            x.clamp(f64::NAN, 1.0),
            "clamp(float64[2, 2]): expected min <= max, got NaN and 1.0",
        ),
    ];
    for (result, message) in messages {
        assert_eq!(result.unwrap_err().to_string(), message);
    }
}

/// Of a view, whose elements do not lie in a row, and for a gradient that does not either.
#[test]
fn functions_of_the_kernels_take_views() {
    const OPS: [Op; 5] = [
        Tensor::exp,
        Tensor::tanh,
        Tensor::sigmoid,
        Tensor::gelu,
        Tensor::gelu_tanh,
    ];
    for dtype in crate::common::DTYPES {
        for op in OPS {
            let numbers = tensor(numbers(77, 3).as_slice()).to_dtype(dtype).unwrap();
            let x = numbers.reshape([7, 11]).unwrap().requires_grad(true);
            let grad = x.detach().permute(&[1, 0]).unwrap();
            let view = op(&x.permute(&[1, 0]).unwrap()).unwrap();
            view.backward_with(&grad).unwrap();

            let same = x.detach().requires_grad(true);
            let plain = op(&same).unwrap();
            plain.backward_with(&same.detach()).unwrap();
            assert_eq!(values(&view.permute(&[1, 0]).unwrap()), values(&plain));
            let gradients = [&x, &same].map(|x| values(&x.grad().unwrap()));
            assert_eq!(gradients[0], gradients[1], "{dtype}");
        }
    }
}

/// Where a function has come to its asymptote, its gradient is that of the asymptote, from large numbers to infinity:
/// no product of zero and infinity gets in, and nothing overflows on the way.
#[test]
fn gradients_far_out_are_those_of_the_asymptotes() {
    const SELU: f64 = 1.050_700_987_355_480_5;
    // Far below 0, and far above.
    let rows: [(&str, Op, [f64; 2]); 8] = [
        ("relu", Tensor::relu, [0.0, 1.0]),
        ("selu", Tensor::selu, [0.0, SELU]),
        ("softplus", Tensor::softplus, [0.0, 1.0]),
        ("silu", Tensor::silu, [0.0, 1.0]),
        ("gelu", Tensor::gelu, [0.0, 1.0]),
        ("gelu_tanh", Tensor::gelu_tanh, [0.0, 1.0]),
        ("sigmoid", Tensor::sigmoid, [0.0, 0.0]),
        ("tanh", Tensor::tanh, [0.0, 0.0]),
    ];
    for dtype in crate::common::DTYPES {
        for far in far_out(dtype) {
            for (name, op, limits) in rows {
                let x = tensor([-far, far]).to_dtype(dtype).unwrap();
                let x = x.requires_grad(true);
                let grad = tensor([-2.0, 4.0]).to_dtype(dtype).unwrap();
                op(&x).unwrap().backward_with(&grad).unwrap();
                let expected = tensor([-2.0 * limits[0], 4.0 * limits[1]]);
                let expected = values(&expected.to_dtype(dtype).unwrap());
                assert_eq!(
                    values(&x.grad().unwrap()),
                    expected,
                    "{name} of {dtype} at {far:e}"
                );
            }
        }
    }
}
