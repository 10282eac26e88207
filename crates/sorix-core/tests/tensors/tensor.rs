//! Making tensors, reading them, viewing them, computing with them.

use crate::common::{DTYPES, numbers, random, values};
use half::{bf16, f16};
use ndarray::{Array2, ArrayD, Axis, IxDyn, array};
use sorix_core::{Axes, DType, Error, ErrorKind, Tensor, tensor};

#[test]
fn literals_nested_arrays_slices_and_vecs() {
    let x = tensor([
        [[1.0, 2.0], [3.0, 4.0]],
        [[5.0, 6.0], [7.0, 8.0]],
        [[9.0, 10.0], [11.0, 12.0]],
    ]);
    assert_eq!(
        (x.shape(), x.dtype(), x.ndim(), x.numel()),
        (&[3, 2, 2][..], DType::F64, 3, 12)
    );
    assert_eq!(
        x.to_vec::<f64>().unwrap(),
        (1..=12).map(f64::from).collect::<Vec<_>>()
    );

    let rows = vec![[1.0_f32, 2.0], [3.0, 4.0], [5.0, 6.0]];
    for x in [tensor(&rows), tensor(rows.as_slice()), tensor(rows)] {
        assert_eq!((x.shape(), x.dtype()), (&[3, 2][..], DType::F32));
    }
    assert_eq!(
        tensor([f16::ONE; 3]).to_vec::<f16>().unwrap(),
        [f16::ONE; 3]
    );
    assert_eq!(tensor(bf16::ONE).item::<bf16>().unwrap(), bf16::ONE);
    assert_eq!(tensor([[1.0; 3]; 2].as_slice()).shape(), [2, 3]);
    assert_eq!(tensor([[[0.0_f64; 4]; 0]; 2]).shape(), [2, 0, 4]);
}

#[test]
#[should_panic(
    expected = "a tensor of shape [18446744073709551615, 0] and dtype sorix.float64 is too large to address"
)]
fn a_literal_without_elements_may_have_a_shape_too_large_to_address() {
    let _ = tensor(vec![[0.0; 0]; usize::MAX]);
}

#[test]
fn operators_are_the_methods() {
    let (x, y) = (random(&[2, 3], 1), random(&[3], 2));
    let (a, b) = (|| x.clone(), || y.clone());
    let rows = [
        ([&x + &y, &x + b(), a() + &y, a() + b()], x.add(&y)),
        ([&x - &y, &x - b(), a() - &y, a() - b()], x.sub(&y)),
        ([&x * &y, &x * b(), a() * &y, a() * b()], x.mul(&y)),
        ([&x / &y, &x / b(), a() / &y, a() / b()], x.div(&y)),
    ];
    let with_numbers = [
        ([&x + 0.3, a() + 0.3], x.add_scalar(0.3)),
        ([&x - 0.3, a() - 0.3], x.add_scalar(-0.3)),
        ([&x * 0.3, a() * 0.3], x.mul_scalar(0.3)),
        ([&x / 0.3, a() / 0.3], x.div_scalar(0.3)),
        ([-&x, -a()], x.neg()),
    ];
    let rows = rows.map(|(got, expected)| (got.to_vec(), expected));
    let with_numbers = with_numbers.map(|(got, expected)| (got.to_vec(), expected));
    for (got, expected) in rows.into_iter().chain(with_numbers) {
        let expected = values(&expected.unwrap());
        for got in got {
            assert_eq!(values(&got.unwrap()), expected);
        }
    }
    let error = (&x + &tensor([1.0, 2.0])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "add(float64[2, 3], float64[2]): shapes [2, 3] and [2] do not broadcast"
    );

    // They are recorded.
    let x = tensor([3.0, -2.0]).requires_grad(true);
    let y = ((&x * &x).unwrap() - 1.0).unwrap();
    y.sum().unwrap().backward().unwrap();
    assert_eq!(values(&x.grad().unwrap()), [6.0, -4.0]);
}

#[test]
fn fills_round_once_to_each_dtype() {
    for dtype in DTYPES {
        assert_eq!(
            values(&Tensor::zeros([2, 3], dtype).unwrap()),
            [0.0; 6],
            "{dtype}"
        );
        assert_eq!(
            values(&Tensor::ones([2, 3], dtype).unwrap()),
            [1.0; 6],
            "{dtype}"
        );
    }
    assert_eq!(
        Tensor::full([1], 0.1, DType::F16)
            .unwrap()
            .item::<f16>()
            .unwrap(),
        f16::from_f64(0.1)
    );
    assert_eq!(
        Tensor::full([1], 0.1, DType::BF16)
            .unwrap()
            .item::<bf16>()
            .unwrap(),
        bf16::from_f64(0.1)
    );
    let empty = Tensor::ones([3, 0], DType::F64).unwrap();
    assert_eq!((empty.numel(), empty.to_vec::<f64>().unwrap()), (0, vec![]));
    assert_eq!(
        Tensor::full([], 2.5, DType::F64)
            .unwrap()
            .item::<f64>()
            .unwrap(),
        2.5
    );
}

#[test]
fn absurd_sizes_are_errors() {
    let shapes: [&[usize]; 5] = [
        &[usize::MAX],
        &[1 << 62],
        &[1 << 40, 1 << 40],
        &[usize::MAX, 0],
        &[1 << 50],
    ];
    for shape in shapes {
        for make in [Tensor::zeros, Tensor::ones] {
            let error = make(shape, DType::F32).unwrap_err();
            assert!(
                matches!(
                    error.kind(),
                    ErrorKind::TooLarge { .. } | ErrorKind::Allocation { .. }
                ),
                "{shape:?}: {error}"
            );
        }
    }
    let one = tensor(1.0);
    assert_eq!(
        one.expand([1 << 61]).unwrap_err().to_string(),
        "expand(float64[]): a tensor of shape [2305843009213693952] and dtype sorix.float64 is too \
         large to address"
    );
    // A view of so many elements is fine, a copy of it is not.
    let wide = one.expand([1 << 50]).unwrap();
    assert_eq!(
        wide.neg().unwrap_err().to_string(),
        "neg(float64[1125899906842624]): cannot allocate 9007199254740992 bytes"
    );
    assert_eq!(
        Tensor::zeros([1 << 50], DType::F32)
            .unwrap_err()
            .to_string(),
        "zeros(float32[1125899906842624]): cannot allocate 4503599627370496 bytes"
    );
}

#[test]
fn reading_checks_the_type() {
    let x = tensor([1.0_f32]);
    let wrong = |op| {
        let (expected, got) = (DType::F32, DType::F64);
        Error::new(op, &[&x], ErrorKind::DType { expected, got })
    };
    assert_eq!(x.to_vec::<f64>(), Err(wrong("to_vec")));
    assert_eq!(x.item::<f64>(), Err(wrong("item")));
    assert_eq!(x.to_ndarray::<f64>(), Err(wrong("to_ndarray")));
    for shape in [&[2][..], &[0], &[1, 2]] {
        let x = Tensor::zeros(shape, DType::F32).unwrap();
        let expected = Error::new("item", &[&x], ErrorKind::NotOneElement);
        assert_eq!(x.item::<f32>(), Err(expected));
    }
}

#[test]
fn ndarray_and_back_in_any_layout() {
    let a = Array2::from_shape_fn((3, 4), |(i, j)| (10 * i + j) as f32);
    assert_eq!(
        Tensor::from_ndarray(&a)
            .unwrap()
            .to_ndarray::<f32>()
            .unwrap(),
        a.clone().into_dyn()
    );

    let t = a.t();
    let x = Tensor::from_ndarray(&t).unwrap();
    assert_eq!((x.shape(), x.is_contiguous()), (&[4, 3][..], true));
    assert_eq!(x.to_ndarray::<f32>().unwrap(), t.into_dyn());

    let every_other = a.slice_axis(Axis(1), ndarray::Slice::new(0, None, -2));
    let x = Tensor::from_ndarray(&every_other).unwrap();
    assert_eq!(
        x.to_vec::<f32>().unwrap(),
        [3.0, 1.0, 13.0, 11.0, 23.0, 21.0]
    );

    let scalar = Tensor::from_ndarray(&ndarray::arr0(7.0)).unwrap();
    assert_eq!(
        (scalar.shape(), scalar.item::<f64>().unwrap()),
        (&[][..], 7.0)
    );
    let permuted = random(&[2, 3, 4], 1).permute(&[2, 0, 1]).unwrap();
    let expected = ArrayD::from_shape_vec(IxDyn(&[2, 3, 4]), numbers(24, 1)).unwrap();
    assert_eq!(
        permuted.to_ndarray::<f64>().unwrap(),
        expected.permuted_axes(IxDyn(&[2, 0, 1]))
    );
    let expanded = tensor([[1.0], [2.0]]).expand([2, 2]).unwrap();
    assert_eq!(
        expanded.to_ndarray::<f64>().unwrap(),
        array![[1.0, 1.0], [2.0, 2.0]].into_dyn()
    );
}

#[test]
fn views_share_memory_and_know_their_strides() {
    let x = random(&[2, 3, 4], 1);
    let p = x.permute(&[1, -1, 0]).unwrap();
    assert_eq!((p.shape(), p.strides()), (&[3, 4, 2][..], &[4, 1, 12][..]));
    assert!(p.same_storage(&x) && !p.is_contiguous());
    let source = numbers(24, 1);
    let expected: Vec<f64> = (0..3)
        .flat_map(|i| (0..4).flat_map(move |j| (0..2).map(move |k| (k, i, j))))
        .map(|(k, i, j)| source[12 * k + 4 * i + j])
        .collect();
    assert_eq!(p.to_vec::<f64>().unwrap(), expected);
    assert_eq!(p.contiguous().unwrap().to_vec::<f64>().unwrap(), expected);
    assert_eq!(p.reshape([24]).unwrap().to_vec::<f64>().unwrap(), expected);
    assert!(x.reshape([6, 4]).unwrap().same_storage(&x));
    assert!(!p.reshape([24]).unwrap().same_storage(&x));
    // Swapping back makes it contiguous again, without a copy.
    let back = p.permute(&[2, 0, 1]).unwrap();
    assert!(back.is_contiguous() && back.reshape([24]).unwrap().same_storage(&x));
}

#[test]
fn wrong_views_are_errors() {
    let x = random(&[2, 3], 1);
    let messages = [
        (
            x.reshape([4]),
            "reshape(float64[2, 3]): shape [4] has 4 elements, got 6",
        ),
        (
            x.permute(&[0]),
            "permute(float64[2, 3]): expected a permutation of all axes, got [0]",
        ),
        (
            x.permute(&[0, 0]),
            "permute(float64[2, 3]): expected distinct axes, got [0, 0]",
        ),
        (
            x.transpose(0, 2),
            "transpose(float64[2, 3]): axis 2 is out of range",
        ),
        (
            x.sum_over(-3),
            "sum_over(float64[2, 3]): axis -3 is out of range",
        ),
        (
            x.mean_over(Axes::keepdim([1, -1])),
            "mean_over(float64[2, 3]): expected distinct axes, got [1, -1]",
        ),
        (
            x.expand([3, 3]),
            "expand(float64[2, 3]): shapes [2, 3] and [3, 3] do not broadcast",
        ),
        (
            x.expand([3]),
            "expand(float64[2, 3]): shapes [2, 3] and [3] do not broadcast",
        ),
        (
            x.add(&random(&[2], 1)),
            "add(float64[2, 3], float64[2]): shapes [2, 3] and [2] do not broadcast",
        ),
        (
            x.mul(&tensor([1.0_f32; 3])),
            "mul(float64[2, 3], float32[3]): operands must have one dtype",
        ),
    ];
    for (result, message) in messages {
        assert_eq!(result.unwrap_err().to_string(), message);
    }
}

#[test]
fn arithmetic_broadcasts_over_views() {
    let x = tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    let t = x.transpose(0, 1).unwrap();
    let column = tensor([[10.0], [20.0], [30.0]]);
    assert_eq!(
        values(&t.add(&column).unwrap()),
        [11.0, 14.0, 22.0, 25.0, 33.0, 36.0]
    );
    assert_eq!(
        values(&column.sub(&t).unwrap()),
        [9.0, 6.0, 18.0, 15.0, 27.0, 24.0]
    );
    assert_eq!(
        values(&t.mul(&t).unwrap()),
        [1.0, 16.0, 4.0, 25.0, 9.0, 36.0]
    );
    assert_eq!(
        values(&t.neg().unwrap()),
        [-1.0, -4.0, -2.0, -5.0, -3.0, -6.0]
    );
    let empty = Tensor::zeros([0, 1], DType::F64).unwrap();
    assert_eq!(empty.add(&tensor([1.0, 2.0])).unwrap().shape(), [0, 2]);
}

#[test]
fn halves_compute_in_f32_and_round_once() {
    // 1 + 2^-10 is an f16, its square is not; 3 * 0.1 with 0.1 rounded to f16 first would differ.
    let x = f16::from_f32(1.0 + 1.0 / 1024.0);
    let square = tensor([x])
        .mul(&tensor([x]))
        .unwrap()
        .item::<f16>()
        .unwrap();
    assert_eq!(square, f16::from_f32(x.to_f32() * x.to_f32()));
    let three = tensor([bf16::from_f32(3.0)]);
    assert_eq!(
        three.mul_scalar(0.1).unwrap().item::<bf16>().unwrap(),
        bf16::from_f32(3.0 * 0.1)
    );
    assert_eq!(
        three.add_scalar(0.01).unwrap().item::<bf16>().unwrap(),
        bf16::from_f32(3.0 + 0.01)
    );
}

#[test]
fn conversions_round_to_nearest_even() {
    let x = tensor([
        1.0 + 2f64.powi(-11),
        1.0 + 3.0 * 2f64.powi(-11),
        65520.0,
        -0.0,
        f64::NAN,
    ]);
    let halves = x.to_dtype(DType::F16).unwrap().to_vec::<f16>().unwrap();
    assert_eq!(
        halves[..3],
        [f16::ONE, f16::from_f64(1.0 + 2f64.powi(-9)), f16::INFINITY]
    );
    assert!(halves[3].is_sign_negative() && halves[4].is_nan());
    // Rounding in two steps, over f32, would give 1 + 2^-7.
    let almost_tie = tensor([1.0 + 2f64.powi(-8) + 2f64.powi(-40)]);
    let once = almost_tie
        .to_dtype(DType::BF16)
        .unwrap()
        .item::<bf16>()
        .unwrap();
    assert_eq!(once.to_f64(), 1.0 + 2f64.powi(-7));
    let below = tensor([1.0 + 2f64.powi(-8)]).to_dtype(DType::BF16).unwrap();
    assert_eq!(below.item::<bf16>().unwrap(), bf16::ONE);
    assert!(x.to_dtype(DType::F64).unwrap().same_storage(&x));
}

/// At the middle between two neighbours the even one wins, and the least step decides.
#[test]
fn conversions_are_right_at_every_tie() {
    fn check(dtype: DType, infinity: u16, value: impl Fn(u16) -> f64) {
        let positive =
            (0..infinity - 1).map(|bits| (bits, f64::midpoint(value(bits), value(bits + 1))));
        for step in [f64::next_down, |tie| tie, f64::next_up] {
            let inputs: Vec<f64> = positive.clone().map(|(_, tie)| step(tie)).collect();
            let rounded = values(&tensor(inputs.as_slice()).to_dtype(dtype).unwrap());
            for ((bits, tie), (input, rounded)) in positive.clone().zip(inputs.iter().zip(rounded))
            {
                let up = *input > tie || (*input == tie && bits % 2 == 1);
                assert_eq!(rounded, value(bits + u16::from(up)), "{dtype}: {input:e}");
            }
        }
    }
    check(DType::F16, 0x7C00, |bits| f16::from_bits(bits).to_f64());
    check(DType::BF16, 0x7F80, |bits| bf16::from_bits(bits).to_f64());
}

#[test]
fn sums_are_accurate_and_wide() {
    // One f32 accumulator would stop at 2^24.
    let ones = Tensor::ones([(1 << 24) + 3], DType::F32).unwrap();
    assert_eq!(ones.sum().unwrap().item::<f32>().unwrap(), 16_777_219.0_f32);
    assert_eq!(ones.mean().unwrap().item::<f32>().unwrap(), 1.0);
    // The sum overflows f16, the mean does not.
    let large = Tensor::full([100], 60_000.0, DType::F16).unwrap();
    assert_eq!(large.sum().unwrap().item::<f16>().unwrap(), f16::INFINITY);
    assert_eq!(values(&large.mean().unwrap()), [60_000.0]);
    assert_eq!(
        values(&large.reshape([2, 50]).unwrap().mean_over(1).unwrap()),
        [60_000.0; 2]
    );
    // 4096 ones in bf16 would stop at 256.
    assert_eq!(
        values(
            &Tensor::ones([4096, 2], DType::BF16)
                .unwrap()
                .sum_over(0)
                .unwrap()
        ),
        [4096.0; 2]
    );
}

#[test]
fn reductions_over_axes() {
    let x = Tensor::from_slice(&(0..24).map(f64::from).collect::<Vec<_>>(), [2, 3, 4]).unwrap();
    let t = x.permute(&[2, 0, 1]).unwrap();
    assert_eq!(values(&x.sum_over([0, 2]).unwrap()), [60.0, 92.0, 124.0]);
    assert_eq!(values(&t.sum_over([0, 1]).unwrap()), [60.0, 92.0, 124.0]);
    assert_eq!(
        values(&x.mean_over(-1).unwrap()),
        [1.5, 5.5, 9.5, 13.5, 17.5, 21.5]
    );
    assert_eq!(
        x.sum_over(Axes::keepdim([0, 2])).unwrap().shape(),
        [1, 3, 1]
    );
    assert_eq!(x.sum_over([0, 1, 2]).unwrap().shape(), []);
    assert_eq!(
        x.sum_over(Axes::keepdim([0, 1, 2])).unwrap().shape(),
        [1, 1, 1]
    );
    assert_eq!(values(&x.sum_over([]).unwrap()), values(&x));
    assert_eq!(t.sum().unwrap().item::<f64>().unwrap(), 276.0);

    let empty = Tensor::zeros([0, 3], DType::F32).unwrap();
    assert_eq!(empty.sum().unwrap().item::<f32>().unwrap(), 0.0);
    assert!(empty.mean().unwrap().item::<f32>().unwrap().is_nan());
    assert_eq!(values(&empty.sum_over(0).unwrap()), [0.0; 3]);
    assert_eq!(empty.sum_over(1).unwrap().shape(), [0]);
}

#[test]
fn a_sum_does_not_depend_on_the_layout() {
    let x = random(&[50, 70], 3).to_dtype(DType::F32).unwrap();
    let view = x.transpose(0, 1).unwrap();
    let copy = view.contiguous().unwrap();
    let bits = |x: &Tensor| x.sum().unwrap().item::<f32>().unwrap().to_bits();
    assert_eq!(bits(&view), bits(&copy));
}

#[test]
fn debug_names_shape_dtype_and_gradient() {
    let x = tensor([[1.0_f32, 2.0]]);
    assert_eq!(
        format!("{x:?}"),
        "Tensor { shape: [1, 2], dtype: sorix.float32, needs_grad: false }"
    );
    let y = x.requires_grad(true).neg().unwrap();
    assert_eq!(
        format!("{y:?}"),
        "Tensor { shape: [1, 2], dtype: sorix.float32, needs_grad: true, function: \"NegBackward\" }"
    );
}

#[test]
fn tensors_go_to_other_threads() {
    fn check<T: Send + Sync + Clone>(_: &T) {}
    let x = random(&[1000], 1);
    check(&x);
    let expected = values(&x.neg().unwrap());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| values(&x.neg().unwrap())))
            .collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), expected);
        }
    });
}
