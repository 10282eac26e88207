//! Results that are in range although what they are made of is not, or is rounded: values and gradients
//! of the formulas, of numbers at the ends of their types.

use crate::common::{DTYPES, numbers, pool, values};
use sorix_core::{Axes, DType, DropRate, MaskKey, Result, SaveMask, Tensor, tensor};

type Op = fn(&Tensor) -> Result<Tensor>;

fn of(numbers: &[f64], dtype: DType) -> Tensor {
    tensor(numbers).to_dtype(dtype).unwrap()
}

/// The gradient at `numbers` of `op`, from that of its result.
fn gradient(op: Op, numbers: &[f64], grad: &[f64], dtype: DType) -> Vec<f64> {
    let x = of(numbers, dtype).requires_grad(true);
    let y = op(&x).unwrap();
    let grad = of(grad, dtype).reshape(y.shape()).unwrap();
    y.backward_with(&grad).unwrap();
    values(&x.grad().unwrap())
}

/// Within `tolerance` of the largest number expected.
#[track_caller]
fn near(got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    let size = expected.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
    for (k, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!(
            got == expected || (got - expected).abs() <= tolerance * size,
            "element {k}: {got:e}, not {expected:e}"
        );
    }
}

/// Numbers that look normal: sums of twelve uniform ones.
fn bells(count: usize, mean: f64, std: f64) -> Vec<f64> {
    let parts = numbers(12 * count, 8);
    let bell = |parts: &[f64]| parts.iter().sum::<f64>() / 4.0;
    parts
        .chunks(12)
        .map(|parts| mean + std * bell(parts))
        .collect()
}

/// Mean, variance and standardized numbers, and the gradient of the standard deviation, of numbers whose
/// distances from their mean are known exactly.
fn moments(numbers: &[f64], unit: f64) -> (f64, Vec<f64>, Vec<f64>) {
    let count = numbers.len() as f64;
    let small: Vec<f64> = numbers
        .iter()
        .map(|x| x / unit - numbers[0] / unit)
        .collect();
    let mean = small.iter().sum::<f64>() / count;
    let apart: Vec<f64> = small.iter().map(|x| x - mean).collect();
    let std = (apart.iter().map(|x| x * x).sum::<f64>() / count).sqrt();
    let standard: Vec<f64> = apart.iter().map(|x| x / std).collect();
    let slope = standard.iter().map(|x| x / count).collect();
    (std * unit, standard, slope)
}

/// The numbers of every report, and those of every end of every type.
#[test]
fn spreads_at_the_ends_of_every_range() {
    let single = |x: f64| f64::from(x as f32);
    let bf16 = |x: f64| half::bf16::from_f64(x).to_f64();
    let alternating = |size: f64| (0..1000).map(move |i| if i % 2 == 0 { size } else { -size });
    let rows: Vec<(DType, f64, Vec<f64>)> = vec![
        (
            DType::F32,
            1e20,
            vec![1e20, -1e20].into_iter().map(single).collect(),
        ),
        (
            DType::F32,
            1e38,
            vec![3e38, -3e38, 3.2e38].into_iter().map(single).collect(),
        ),
        (
            DType::F32,
            1e-30,
            bells(1000, 0.0, 1e-30).into_iter().map(single).collect(),
        ),
        (
            DType::F32,
            1e-38,
            bells(1000, 0.0, 1e-38).into_iter().map(single).collect(),
        ),
        (DType::F32, 1e18, alternating(1e18).map(single).collect()),
        (
            DType::F32,
            1.0,
            bells(1000, 1e6, 1.0).into_iter().map(single).collect(),
        ),
        (
            DType::F32,
            1.0,
            bells(70_000, -3e6, 0.5).into_iter().map(single).collect(),
        ),
        (
            DType::F32,
            1e-3,
            (0..768)
                .map(|i| single(1e4 + f64::from(i) * 1e-3))
                .collect(),
        ),
        (DType::BF16, 1e20, alternating(1e20).map(bf16).collect()),
        (DType::BF16, 1e38, alternating(3e38).map(bf16).collect()),
        (
            DType::BF16,
            1e-30,
            bells(1000, 0.0, 1e-30).into_iter().map(bf16).collect(),
        ),
        (
            DType::BF16,
            1.0,
            bells(1000, 300.0, 1.0).into_iter().map(bf16).collect(),
        ),
        (
            DType::F16,
            1e4,
            alternating(6e4)
                .map(|x| half::f16::from_f64(x).to_f64())
                .collect(),
        ),
        (DType::F64, 1e200, vec![1e200, -1e200]),
        (DType::F64, 1e300, vec![1.7e308, 1.6e308, 1.5e308, -1.7e308]),
        (DType::F64, 1e-200, bells(1000, 0.0, 1e-200)),
        (DType::F64, 1e-310, vec![1e-310, 3e-310, -2e-310]),
        (DType::F64, 1.0, bells(1000, 1e15, 1.0)),
    ];
    for (dtype, unit, numbers) in rows {
        println!("{dtype} {unit:e} {:?}", &numbers[..2]);
        let tolerance = match dtype {
            DType::F16 => 1e-3,
            DType::BF16 => 8e-3,
            DType::F32 => 3e-7,
            _ => 1e-12,
        };
        let (std, standard, slope) = moments(&numbers, unit);
        let x = of(&numbers, dtype);
        near(&values(&x), &numbers, 0.0);
        near(&values(&x.std(0).unwrap()), &[std], tolerance);
        let variance = std * std;
        if (1e-36..1e36).contains(&variance) && dtype != DType::F16 {
            near(&values(&x.var(0).unwrap()), &[variance], tolerance);
        }
        near(
            &values(&x.standardize(&[0], 0.0).unwrap()),
            &standard,
            2.0 * tolerance,
        );
        let got = gradient(|x| x.std(0), &numbers, &[1.0], dtype);
        near(&got, &slope, 2.0 * tolerance);
    }
    let million = [1e18_f32, -1e18].repeat(500);
    let variance = tensor(million).var(0).unwrap().item::<f32>().unwrap();
    assert_eq!(variance, (1e18_f32 as f64).powi(2) as f32);
}

/// The derivative by differences, in numbers of another size.
#[test]
fn the_gradient_of_standardize_scales_with_its_input() {
    let numbers = [1.0, -2.0, 4.0, 0.5];
    let grad = [0.5, -1.0, 0.25, 2.0];
    let op: Op = |x| x.standardize(&[0], 0.0);
    let exact = gradient(op, &numbers, &grad, DType::F64);
    for (dtype, size, tolerance) in [
        (DType::F32, 2f64.powi(66), 1e-6),
        (DType::F32, 2f64.powi(-66), 1e-6),
        (DType::BF16, 2f64.powi(100), 8e-3),
        (DType::F64, 2f64.powi(600), 1e-13),
        (DType::F64, 2f64.powi(-600), 1e-13),
    ] {
        let got = gradient(op, &numbers.map(|x| x * size), &grad, dtype);
        near(
            &got,
            &exact.iter().map(|x| x / size).collect::<Vec<_>>(),
            tolerance,
        );
    }
}

/// With an epsilon that is larger than the variance, and smaller.
#[test]
fn an_epsilon_counts_beside_numbers_of_any_size() {
    for dtype in [DType::F32, DType::F64] {
        for (size, epsilon, expected) in [
            (1e-20, 1e-10, 1e-15),
            (1e-20, 1e-40, 0.5f64.sqrt()),
            (1e15, 1e-5, 1.0),
        ] {
            let y = of(&[size, -size], dtype)
                .standardize(&[0], epsilon)
                .unwrap();
            near(&values(&y), &[expected, -expected], 1e-6);
        }
    }
    let y = tensor([1e-200, -1e-200]).standardize(&[0], 1e-10).unwrap();
    near(&values(&y), &[1e-195, -1e-195], 1e-12);
}

/// Equal numbers are at a distance of 0 from their mean, whatever it rounds to.
#[test]
fn equal_numbers_have_no_spread() {
    for dtype in DTYPES {
        for number in [0.1, -1e4 / 3.0, 1.0 / 3e7] {
            let x = Tensor::full([7, 3], number, dtype)
                .unwrap()
                .requires_grad(true);
            let std = x.std_over(0, 0).unwrap();
            assert_eq!(values(&std), [0.0; 3], "{dtype}");
            std.sum().unwrap().backward().unwrap();
            assert_eq!(values(&x.grad().unwrap()), [0.0; 21], "{dtype}");
        }
    }
}

#[test]
fn an_infinite_or_missing_number_spoils_its_row_only() {
    for dtype in DTYPES {
        for special in [f64::INFINITY, f64::NAN] {
            let x = of(&[special, 1.0, 1.0, 3.0], dtype)
                .reshape([2, 2])
                .unwrap();
            let (std, y) = (x.std_over(1, 0).unwrap(), x.standardize(&[1], 0.0).unwrap());
            assert!(
                values(&std)[0].is_nan() && values(&y)[0].is_nan(),
                "{dtype}"
            );
            assert_eq!((values(&std)[1], &values(&y)[2..]), (1.0, &[-1.0, 1.0][..]));
        }
    }
}

#[test]
fn sums_are_in_range_if_their_parts_are_not() {
    for (dtype, huge) in [
        (DType::F16, 65504.0),
        (DType::BF16, 2f64.powi(127)),
        (DType::F32, f64::from(f32::MAX)),
        (DType::F64, f64::MAX),
    ] {
        let signs = [1.0, 1.0, 1.0, -1.0, -1.0, 0.5];
        let x = of(&signs.map(|x| x * huge), dtype);
        let half = [1.5 * huge / 6.0];
        assert_eq!(
            values(&x.slice(0, 1..).unwrap().sum().unwrap()),
            [0.5 * huge]
        );
        near(&values(&x.mean().unwrap()), &half, 1e-2);
        let twice = x.slice(0, ..2).unwrap();
        assert_eq!(values(&twice.mean().unwrap()), [huge], "{dtype}");

        // Over rows, columns, and two axes with one between them; long and short.
        for count in [1, 3, 200] {
            let x = x.reshape([6, 1]).unwrap().expand([6, count]).unwrap();
            for x in [x.contiguous().unwrap(), x.clone()] {
                near(
                    &values(&x.slice(0, 1..).unwrap().sum_over(0).unwrap()),
                    &vec![0.5 * huge; count],
                    0.0,
                );
                near(
                    &values(&x.mean_over(0).unwrap()),
                    &vec![half[0]; count],
                    1e-2,
                );
                let y = x.transpose(0, 1).unwrap().contiguous().unwrap();
                near(
                    &values(&y.mean_over(1).unwrap()),
                    &vec![half[0]; count],
                    1e-2,
                );
                let y = x.reshape([2, 3, count]).unwrap();
                let means = y.mean_over([0, 2]).unwrap();
                near(&values(&means), &[0.0, 0.0, 0.75 * huge], 1e-2);
            }
        }
        // What repeats: three times, divided by three.
        let mean = x
            .slice(0, ..1)
            .unwrap()
            .expand([3])
            .unwrap()
            .mean_over(Axes::keepdim(0));
        assert_eq!(values(&mean.unwrap()), [huge]);
        let mean = x
            .reshape([6, 1])
            .unwrap()
            .expand([6, 3])
            .unwrap()
            .mean_over(1)
            .unwrap();
        assert_eq!(values(&mean), values(&x), "{dtype}");
        assert_eq!(values(&twice.sum().unwrap()), [f64::INFINITY]);
    }
}

#[test]
fn threads_do_not_show_in_sums_and_spreads() {
    let x: Vec<f32> = bells(300_000, 1e5, 1e-2)
        .into_iter()
        .map(|x| x as f32)
        .collect();
    let x = Tensor::from_vec(x, [300, 1000]).unwrap();
    let ops: [Op; 7] = [
        |x| x.sum_over(0),
        |x| x.mean_over(1),
        |x| x.var(0),
        |x| x.std_over(0, 0),
        |x| x.standardize(&[0, 1], 1e-5),
        |x| x.norm_over(1),
        |x| x.normalize(&[0], 0.0),
    ];
    for op in ops {
        let bits = |threads: usize| {
            let y = pool(threads).install(|| op(&x).unwrap());
            y.to_vec::<f32>()
                .unwrap()
                .into_iter()
                .map(f32::to_bits)
                .collect::<Vec<_>>()
        };
        assert_eq!(bits(1), bits(4));
    }
}

/// 16 bits are widened, and rounded once: the factors are far from 1, and their product is not.
#[test]
fn the_gradient_of_a_quotient_is_rounded_once() {
    for (dtype, tolerance) in [(DType::F16, 1e-3), (DType::BF16, 8e-3), (DType::F32, 2e-7)] {
        let x = of(&[1e-5, 0.0, 2e-5], dtype);
        let s = of(&[1e-3], dtype)
            .expand([3])
            .unwrap()
            .contiguous()
            .unwrap();
        let s = s.requires_grad(true);
        let y = x.div(&s).unwrap();
        y.backward_with(&of(&[128.0; 3], dtype)).unwrap();
        let (x, by) = (values(&x), values(&s)[0]);
        let expected: Vec<f64> = x.iter().map(|x| -128.0 * x / by / by).collect();
        near(&values(&s.grad().unwrap()), &expected, tolerance);

        // One divisor for all.
        let s = s
            .detach()
            .slice(0, ..1)
            .unwrap()
            .contiguous()
            .unwrap()
            .requires_grad(true);
        let y = of(&[1e-5, 0.0, 2e-5], dtype).div(&s).unwrap();
        y.backward_with(&of(&[128.0, 128.0, -64.0], dtype)).unwrap();
        let sum = expected[0] - expected[2] / 2.0;
        let got = values(&s.grad().unwrap())[0];
        assert!(
            (got - sum).abs() <= tolerance * expected[2].abs(),
            "{got}, not {sum}"
        );
    }
    // In f32 and f64 as well, an infinite dy / y is not multiplied by what was dropped.
    for (dtype, tiny, huge) in [(DType::F32, 1e-30, 1e20), (DType::F64, 1e-200, 1e200)] {
        let by = of(&[tiny], dtype).requires_grad(true);
        let y = of(&[0.0, 0.0], dtype).div(&by).unwrap();
        y.backward_with(&of(&[huge, huge], dtype)).unwrap();
        assert_eq!(values(&by.grad().unwrap()), [0.0]);
    }
}

#[test]
fn dropout_before_a_small_divisor_leaves_its_gradient_finite() {
    for dtype in DTYPES {
        let x = Tensor::full([64], 1e-5, dtype).unwrap();
        let by = of(&[1e-3], dtype).requires_grad(true);
        let dropped = x.dropout(
            DropRate::new(0.5).unwrap(),
            MaskKey::new(1, 2),
            SaveMask::Bits,
        );
        let dropped = dropped.unwrap();
        let kept = values(&dropped).iter().filter(|&&x| x != 0.0).count() as f64;
        let y = dropped.div(&by).unwrap();
        y.backward_with(&Tensor::full([64], 8.0, dtype).unwrap())
            .unwrap();
        let expected = -8.0 * kept * values(&x)[0] * 2.0 / values(&by)[0].powi(2);
        near(&values(&by.grad().unwrap()), &[expected], 8e-3);
    }
}

#[test]
fn products_of_a_broadcast_factor_are_summed_before_they_are_rounded() {
    for (dtype, x) in [
        (DType::F16, 300.0),
        (DType::BF16, 2f64.powi(100)),
        (DType::F32, 2f64.powi(100)),
    ] {
        let factor = of(&[x], dtype).requires_grad(true);
        let y = of(&[x, -x, 0.5 * x], dtype).mul(&factor).unwrap();
        y.backward_with(&of(&[x, x, 0.0], dtype)).unwrap();
        assert_eq!(values(&factor.grad().unwrap()), [0.0], "{dtype}");
        // The same of quotients.
        let by = of(&[1.0 / x], dtype).requires_grad(true);
        let y = of(&[x, -x, 1.0], dtype).div(&by).unwrap();
        y.backward_with(&of(&[1.0, 1.0, 0.0], dtype)).unwrap();
        assert_eq!(values(&by.grad().unwrap()), [0.0], "{dtype}");
        let dividend = of(&[x], dtype).requires_grad(true);
        let y = dividend.div(&of(&[1.0 / x, -1.0 / x], dtype)).unwrap();
        y.backward_with(&of(&[x, x], dtype)).unwrap();
        assert_eq!(values(&dividend.grad().unwrap()), [0.0], "{dtype}");
    }
    // Each product of 4097 would lose its last bit.
    let factor = of(&[1.0], DType::F16).requires_grad(true);
    let y = of(&[1.0 + 2f64.powi(-10); 16], DType::F16)
        .mul(&factor)
        .unwrap();
    y.backward_with(&of(&[1.0 + 2f64.powi(-10); 16], DType::F16))
        .unwrap();
    let exact = 16.0 * (1.0 + 2f64.powi(-10)).powi(2);
    let rounded = half::f16::from_f64(exact).to_f64();
    assert_eq!(values(&factor.grad().unwrap()), [rounded]);
}

#[test]
fn a_power_that_is_out_of_range_has_the_gradient_that_is_not() {
    for (dtype, tolerance) in [(DType::BF16, 8e-3), (DType::F32, 1e-6)] {
        let got = gradient(
            |x| x.powf(-1.0),
            &[2f64.powi(-70)],
            &[2f64.powi(-20)],
            dtype,
        );
        near(&got, &[-2f64.powi(120)], tolerance);
    }
}

/// f'(x), by Python's math module: 1 / (2 + 2 cosh(x)) and 1 / cosh(x)^2.
#[test]
fn slopes_near_a_limit_come_from_the_input() {
    let sigmoid = [
        (8.0, 3.352376707564e-4),
        (20.0, 2.061153613943e-9),
        (-8.0, 3.352376707564e-4),
    ];
    let tanh = [
        (4.0, 1.340950683026e-3),
        (9.0, 6.092_0e-8),
        (-4.0, 1.340950683026e-3),
    ];
    for dtype in DTYPES {
        let tolerance = match dtype {
            DType::F16 => 2e-3,
            DType::BF16 => 4e-3,
            _ => 1e-5,
        };
        for (op, known) in [(Tensor::sigmoid as Op, sigmoid), (Tensor::tanh, tanh)] {
            for (x, slope) in known {
                // f16 has no 2e-9, but 2e-5.
                let grad = if dtype == DType::F16 { 8192.0 } else { 1.0 };
                near(
                    &gradient(op, &[x], &[grad], dtype),
                    &[grad * slope],
                    tolerance,
                );
            }
        }
        // exp(12) is infinite in f16, and its product with 2^-10 is not.
        let got = gradient(Tensor::exp, &[12.0], &[2f64.powi(-10)], dtype);
        near(&got, &[158.940225999025], tolerance);
        let root = gradient(Tensor::sqrt, &[3.0], &[1.0], dtype);
        near(&root, &[0.2886751345948129], tolerance);
    }
}

/// The row sums of these gradients are 0.
#[test]
fn gradients_over_many_classes_come_from_the_input() {
    const CLASSES: usize = 50_000;
    let logits: Vec<f64> = numbers(CLASSES, 4).iter().map(|x| 2.0 * x).collect();
    for dtype in [DType::F16, DType::BF16] {
        let x = of(&logits, dtype);
        let exact = values(&x);
        let total: f64 = exact.iter().map(|x| x.exp()).sum();
        let step = if dtype == DType::F16 {
            2f64.powi(-11)
        } else {
            2f64.powi(-8)
        };
        // 1 where the class is, as of a cross entropy.
        let mut weights = vec![0.0; CLASSES];
        weights[7] = -1024.0;
        let got = gradient(|x| x.log_softmax(0), &exact, &weights, dtype);
        for (k, (got, x)) in got.iter().zip(&exact).enumerate().filter(|(k, _)| *k != 7) {
            let expected = 1024.0 * x.exp() / total;
            // f16 ends at multiples of 2^-24.
            let allowed = step * expected + 2f64.powi(-25);
            assert!(
                (got - expected).abs() <= allowed,
                "{k}: {got:e}, not {expected:e}"
            );
        }
        let sum: f64 = got.iter().sum();
        assert!(sum.abs() < 1024.0 * 1e-3, "{dtype}: {sum}");

        // y (dy - sum(dy y)), with 16 probabilities that are far from one of their type.
        let few = &exact[..16];
        let total: f64 = few.iter().map(|x| x.exp()).sum();
        let y: Vec<f64> = few.iter().map(|x| x.exp() / total).collect();
        let weights: Vec<f64> = (0..16).map(|k| f64::from(k % 5) - 2.0).collect();
        let product: f64 = y.iter().zip(&weights).map(|(y, w)| y * w).sum();
        let got = gradient(|x| x.softmax(0), few, &weights, dtype);
        for ((got, y), w) in got.iter().zip(&y).zip(&weights) {
            let expected = y * (w - product);
            assert!(
                (got - expected).abs() <= 1.01 * step * expected.abs(),
                "{got:e}, not {expected:e}"
            );
        }
    }
}

#[test]
fn rows_that_are_masked_as_a_whole() {
    const MASKED: f64 = f64::NEG_INFINITY;
    let numbers = [MASKED, MASKED, MASKED, 0.0, MASKED, 0.0];
    let rows = |op: Op, grad: &[f64], dtype| {
        let x = of(&numbers, dtype)
            .reshape([2, 3])
            .unwrap()
            .requires_grad(true);
        let y = op(&x).unwrap();
        y.backward_with(&of(grad, dtype).reshape(y.shape()).unwrap())
            .unwrap();
        (values(&y), values(&x.grad().unwrap()))
    };
    for dtype in DTYPES {
        let ones = [1.0, 2.0, 3.0, 1.0, 2.0, 3.0];
        let (y, grad) = rows(|x| x.softmax(1), &ones, dtype);
        assert_eq!(y, [0.0, 0.0, 0.0, 0.5, 0.0, 0.5], "{dtype}");
        assert_eq!(grad, [0.0, 0.0, 0.0, -0.5, 0.0, 0.5], "{dtype}");

        let (y, grad) = rows(|x| x.logsumexp_over(1), &[f64::NAN, 4.0], dtype);
        let log = values(&of(&[2f64.ln()], dtype));
        assert_eq!((y[0], &y[1..]), (MASKED, &log[..]), "{dtype}");
        assert_eq!(grad, [0.0, 0.0, 0.0, 2.0, 0.0, 2.0], "{dtype}");

        let (y, grad) = rows(|x| x.log_softmax(1), &[1.0, 1.0, 1.0, 1.0, 0.0, 0.0], dtype);
        assert_eq!(
            y,
            [MASKED, MASKED, MASKED, -log[0], MASKED, -log[0]],
            "{dtype}"
        );
        assert_eq!(grad, [0.0, 0.0, 0.0, 0.5, 0.0, -0.5], "{dtype}");
    }
}

/// A query that every key is masked for: nothing of it comes into the gradients.
#[test]
fn attention_with_a_masked_query() {
    let leaf = |salt: u64| crate::common::random(&[3, 4], salt).requires_grad(true);
    let (q, k, v) = (leaf(1), leaf(2), leaf(3));
    let mask = tensor([
        [0.0, 0.0, f64::NEG_INFINITY],
        [f64::NEG_INFINITY; 3],
        [0.0, 0.0, 0.0],
    ]);
    let scores = q
        .matmul(&k.transpose(0, 1).unwrap())
        .unwrap()
        .add(&mask)
        .unwrap();
    let y = scores.softmax(-1).unwrap().matmul(&v).unwrap();
    assert_eq!(values(&y)[4..8], [0.0; 4]);
    y.sum().unwrap().backward().unwrap();
    for x in [&q, &k, &v] {
        assert!(values(&x.grad().unwrap()).iter().all(|x| x.is_finite()));
    }
    assert_eq!(values(&q.grad().unwrap())[4..8], [0.0; 4]);
}

#[test]
fn norms_and_vectors_of_length_1() {
    for (dtype, tolerance, sizes) in [
        (DType::F16, 2e-3, [1e4, 1e-2]),
        (DType::BF16, 1e-2, [1e37, 1e-37]),
        (DType::F32, 1e-6, [5e37, 1e-35]),
        (DType::F64, 1e-14, [1e307, 1e-300]),
    ] {
        for size in sizes {
            let x = [3.0 * size, 0.0, -4.0 * size];
            near(
                &values(&of(&x, dtype).norm().unwrap()),
                &[5.0 * size],
                tolerance,
            );
            near(
                &gradient(Tensor::norm, &x, &[10.0], dtype),
                &[6.0, 0.0, -8.0],
                tolerance,
            );
            let y = of(&x, dtype).normalize(&[0], 0.0).unwrap();
            near(&values(&y), &[0.6, 0.0, -0.8], tolerance);
            // Across y the gradient by the norm, along y none.
            let got = gradient(
                |x| x.normalize(&[0], 0.0),
                &x,
                &[0.0, 0.25 * size.min(1.0), 0.0],
                dtype,
            );
            near(&got, &[0.0, 0.05 * size.min(1.0) / size, 0.0], tolerance);
        }
        assert_eq!(gradient(Tensor::norm, &[0.0; 3], &[1.0], dtype), [0.0; 3]);
        for epsilon in [0.0, 1e-12] {
            let x = Tensor::zeros([2, 3], dtype).unwrap().requires_grad(true);
            let y = x.normalize(&[1], epsilon).unwrap();
            assert_eq!(values(&y), [0.0; 6]);
            y.sum().unwrap().backward().unwrap();
            assert_eq!(values(&x.grad().unwrap()), [0.0; 6]);
        }
    }
    // Shorter than epsilon: divided by that.
    let y = tensor([3e-3, -4e-3]).normalize(&[0], 0.01).unwrap();
    near(&values(&y), &[0.3, -0.4], 1e-14);
    let got = gradient(
        |x| x.normalize(&[0], 0.01),
        &[3e-3, -4e-3],
        &[1.0, 2.0],
        DType::F64,
    );
    near(&got, &[100.0, 200.0], 1e-14);
    let x = tensor([[3.0, 4.0], [6.0, 8.0]]);
    assert_eq!(values(&x.norm_over(1).unwrap()), [5.0, 10.0]);
    assert_eq!(x.norm_over(Axes::keepdim(-1)).unwrap().shape(), [2, 1]);
    assert_eq!(
        values(
            &Tensor::zeros([2, 0], DType::F32)
                .unwrap()
                .norm_over(1)
                .unwrap()
        ),
        [0.0; 2]
    );
}

/// What a masked row, or one without elements, gives in every operation on rows, of any layout.
#[test]
fn masked_rows_do_not_spoil_others_in_any_layout() {
    let infinity = f64::NEG_INFINITY;
    for dtype in DTYPES {
        for axis in [0_isize, 1] {
            let x = tensor([[infinity, infinity, infinity], [1.0, 2.0, infinity]]);
            let x = x.to_dtype(dtype).unwrap();
            let x = if axis == 0 {
                x.transpose(0, 1).unwrap().contiguous().unwrap()
            } else {
                x
            };
            for x in [
                x.clone(),
                x.transpose(0, 1)
                    .unwrap()
                    .contiguous()
                    .unwrap()
                    .transpose(0, 1)
                    .unwrap(),
            ] {
                for f in [Tensor::softmax, Tensor::log_softmax, |x: &Tensor, axis| {
                    x.logsumexp_over(axis)
                }] {
                    let leaf = x.requires_grad(true);
                    let y = f(&leaf, axis).unwrap();
                    y.backward_with(&Tensor::ones(y.shape(), dtype).unwrap())
                        .unwrap();
                    let gradient = values(&leaf.grad().unwrap());
                    assert!(
                        gradient.iter().all(|g| g.is_finite()),
                        "{dtype} {axis}: {gradient:?}"
                    );
                }
            }
        }
        let none = Tensor::zeros([3, 0], dtype).unwrap().requires_grad(true);
        for y in [none.softmax(-1).unwrap(), none.log_softmax(-1).unwrap()] {
            assert_eq!(y.shape(), [3, 0]);
            y.sum().unwrap().backward().unwrap();
        }
        assert_eq!(values(&none.norm_over(-1).unwrap()), [0.0; 3]);
    }
}

/// Every operation of one element, in 16 bits, has the gradient that f64 has from the same input, rounded.
#[test]
fn gradients_of_elements_in_sixteen_bits_are_those_of_f64_rounded() {
    type Op = fn(&Tensor) -> Result<Tensor>;
    let ops: [(&str, Op); 16] = [
        ("exp", Tensor::exp),
        ("log", Tensor::log),
        ("sqrt", Tensor::sqrt),
        ("tanh", Tensor::tanh),
        ("sigmoid", Tensor::sigmoid),
        ("gelu", Tensor::gelu),
        ("gelu_tanh", Tensor::gelu_tanh),
        ("log1p", Tensor::log1p),
        ("expm1", Tensor::expm1),
        ("softplus", Tensor::softplus),
        ("selu", Tensor::selu),
        ("powf", |x| x.powf(2.5)),
        ("rdiv", |x| x.rdiv_scalar(3.0)),
        ("square", |x| x.mul(x)),
        ("reciprocal of a square", |x| x.mul(x)?.rdiv_scalar(1.0)),
        ("x / x²", |x| x.div(&x.mul(x)?)),
    ];
    for dtype in [DType::F16, DType::BF16] {
        let numbers = [0.01, 0.1, 0.5, 1.0, 2.0, 3.5, 8.0, 10.0];
        let x = tensor(numbers).to_dtype(dtype).unwrap();
        for (name, op) in ops {
            let of = |dtype: DType| {
                let leaf = x.to_dtype(dtype).unwrap().detach().requires_grad(true);
                let y = op(&leaf).unwrap();
                y.backward_with(&Tensor::full(y.shape(), 1.5, dtype).unwrap())
                    .unwrap();
                leaf.grad().unwrap()
            };
            // Operations of several steps round what is between them.
            let steps = if name.contains('²') || name.contains("of a") {
                8.0
            } else {
                1.01
            };
            let unit = if dtype == DType::F16 {
                2f64.powi(-11)
            } else {
                2f64.powi(-8)
            };
            let (got, expected) = (values(&of(dtype)), values(&of(DType::F64)));
            for (k, (got, expected)) in got.into_iter().zip(expected).enumerate() {
                let largest = if dtype == DType::F16 { 65504.0 } else { 3e38 };
                let floor = if dtype == DType::F16 {
                    2f64.powi(-24)
                } else {
                    1e-40
                };
                let expected: f64 = expected;
                // What a chain of operations hands on is in the dtype, and in range if this is.
                let in_range = numbers[k] > 0.05 || steps < 8.0;
                if in_range && expected.abs() < largest {
                    let error = (got - expected).abs();
                    assert!(
                        error <= steps * unit * expected.abs() + floor,
                        "{dtype} {name}({}): {got}, {expected}",
                        numbers[k]
                    );
                }
            }
        }
    }
}

/// f64 near both ends of its range, in views, and in rows without elements.
#[test]
fn extremes_of_f64_in_views_and_in_nothing() {
    for unit in [1e300, 1e-300, 1e-320] {
        let x = tensor([[3.0 * unit, -4.0 * unit], [4.0 * unit, 3.0 * unit]]);
        let x = x.transpose(0, 1).unwrap();
        let norms = values(&x.norm_over(0).unwrap());
        for norm in norms {
            assert!((norm / unit - 5.0).abs() < 1e-3, "{norm:e}");
        }
        let y = values(&x.standardize(&[0], 0.0).unwrap());
        let expected = [1.0, 1.0, -1.0, -1.0];
        near(&y, &expected, 1e-3);
        let y = values(&x.normalize(&[0], 0.0).unwrap());
        near(&y, &[0.6, 0.8, -0.8, 0.6], 1e-3);
        assert!((values(&x.std_over(0, 0).unwrap())[0] / unit - 3.5).abs() < 1e-3);
    }
    let max = f64::MAX;
    assert_eq!(values(&tensor([max, max, max, max]).mean().unwrap()), [max]);
    assert_eq!(
        values(&tensor([max, max, -max, -max]).sum().unwrap()),
        [0.0]
    );
    assert_eq!(
        values(&tensor([[max, -max], [max, -max]]).mean_over(1).unwrap()),
        [0.0; 2]
    );
    for dtype in DTYPES {
        let none = Tensor::zeros([0, 3], dtype).unwrap().requires_grad(true);
        assert!(
            values(&none.std_over(0, 0).unwrap())
                .iter()
                .all(|x| x.is_nan())
        );
        let y = none.standardize(&[1], 1e-5).unwrap();
        y.sum().unwrap().backward().unwrap();
        assert_eq!(none.grad().unwrap().shape(), [0, 3]);
    }
}

#[test]
fn an_epsilon_that_is_no_distance_is_refused_and_0_makes_no_nan() {
    let x = tensor([[1.0, 1.0], [0.0, 0.0]]);
    for epsilon in [-1e-5, f64::NAN, f64::INFINITY] {
        for (name, result) in [
            ("standardize", x.standardize(&[-1], epsilon)),
            ("normalize", x.normalize(&[-1], epsilon)),
        ] {
            let expected = format!(
                "{name}(float64[2, 2]): expected a finite epsilon of at least 0, got {epsilon:?}"
            );
            assert_eq!(result.unwrap_err().to_string(), expected);
        }
    }
    for dtype in DTYPES {
        let x = x.to_dtype(dtype).unwrap().requires_grad(true);
        let y = x.standardize(&[-1], 0.0).unwrap();
        y.backward_with(&of(&[1.0, 2.0, 3.0, 5.0], dtype).reshape([2, 2]).unwrap())
            .unwrap();
        assert_eq!(values(&y), [0.0; 4]);
        assert_eq!(values(&x.grad().unwrap()), [0.0; 4]);
    }
}
