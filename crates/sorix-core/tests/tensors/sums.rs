//! Sums, moments and extremes of many elements: as exact as those of a few.

use crate::common::{numbers, values};
use sorix_core::{Axes, DType, Result, Tensor, tensor};

fn relative_error(got: f64, expected: f64) -> f64 {
    (got - expected).abs() / expected.abs()
}

/// One accumulator of f32 loses a thousandth over a million numbers.
#[test]
fn the_error_of_a_long_row_does_not_grow_with_it() {
    type Op = fn(&Tensor) -> Result<Tensor>;
    let ops: [(&str, Op); 8] = [
        ("sum", Tensor::sum),
        ("mean", |x| x.mean()),
        ("var", |x| x.var(0)),
        ("std", |x| x.std(1)),
        ("logsumexp", Tensor::logsumexp),
        ("softmax", |x| x.softmax(0)?.slice(0, 7..8)?.sum()),
        ("log_softmax", |x| x.log_softmax(0)?.slice(0, 7..8)?.sum()),
        ("standardize", |x| {
            x.standardize(&[0], 0.0)?.slice(0, 7..8)?.sum()
        }),
    ];
    const COUNT: usize = 1 << 20;
    let narrow: Vec<f32> = numbers(COUNT, 3).iter().map(|x| (x + 3.0) as f32).collect();
    let narrow = Tensor::from_vec(narrow, [COUNT]).unwrap();
    let wide = narrow.to_dtype(DType::F64).unwrap();
    for (name, op) in ops {
        let [got, expected] = [&narrow, &wide].map(|x| values(&op(x).unwrap())[0]);
        let error = relative_error(got, expected);
        assert!(error < 1e-6, "{name}: {got} for {expected}");
    }
}

#[test]
fn nor_does_that_of_a_sum_over_rows() {
    const ROWS: usize = 1 << 17;
    let tenth = f64::from(0.1_f32);
    let x = Tensor::full([ROWS, 3], 0.1, DType::F32).unwrap();
    // Laid out by rows, by columns, as a part of something larger, and in the middle.
    let views = [
        (x.clone(), 0),
        (x.transpose(0, 1).unwrap().contiguous().unwrap(), 1),
        (
            Tensor::concat(&[&x, &x], 1)
                .unwrap()
                .slice(1, 1..4)
                .unwrap(),
            0,
        ),
        (x.reshape([2, ROWS / 2, 3]).unwrap(), 1),
    ];
    for (x, axis) in views {
        let count = x.shape()[axis] as f64;
        for sum in values(&x.sum_over(axis as isize).unwrap()) {
            assert!(relative_error(sum, tenth * count) < 1e-6, "{x:?}: {sum}");
        }
    }
}

#[test]
fn what_repeats_is_counted() {
    let x = Tensor::full([1], 0.1, DType::F32).unwrap();
    let mean = x.expand([1 << 30, 2]).unwrap().mean_over(0).unwrap();
    assert_eq!(mean.to_vec::<f32>().unwrap(), [0.1; 2]);

    // Along an axis that stays, and two that do not.
    let x = tensor([[1.0], [2.0], [3.0]]).expand([4, 3, 5]).unwrap();
    let sum = |axes: &[isize]| values(&x.sum_over(axes).unwrap());
    assert_eq!(sum(&[0]), [[4.0; 5], [8.0; 5], [12.0; 5]].concat());
    assert_eq!(sum(&[1]), [6.0; 20]);
    assert_eq!(sum(&[2]), [5.0, 10.0, 15.0].repeat(4));
    assert_eq!(sum(&[0, 2]), [20.0, 40.0, 60.0]);
    assert_eq!(sum(&[1, 2]), [30.0; 4]);
    assert_eq!(
        x.sum_over(1).unwrap().strides(),
        [5, 1],
        "a tensor of its own"
    );

    // The gradient of what was broadcast: a sum of equal numbers.
    let bias = Tensor::zeros([3], DType::F32).unwrap().requires_grad(true);
    let x = Tensor::zeros([4096, 3], DType::F32).unwrap();
    let y = x.add(&bias).unwrap().mul_scalar(0.1).unwrap();
    y.sum().unwrap().backward().unwrap();
    for sum in values(&bias.grad().unwrap()) {
        assert!(
            relative_error(sum, f64::from(0.1_f32) * 4096.0) < 1e-6,
            "{sum}"
        );
    }
}

#[test]
fn the_sum_of_nothing_is_positive_zero() {
    for dtype in [DType::BF16, DType::F32, DType::F64] {
        let x = Tensor::zeros([0, 2], dtype).unwrap();
        for sum in [x.sum().unwrap(), x.sum_over(0).unwrap()] {
            assert!(values(&sum).iter().all(|sum| sum.to_bits() == 0), "{sum}");
        }
        assert!(values(&x.mean().unwrap())[0].is_nan());
        assert!(values(&x.mean_over(0).unwrap()).iter().all(|x| x.is_nan()));
    }
}

/// At every place of a row of several vectors and a rest.
#[test]
fn an_extreme_is_found_wherever_it_is() {
    for length in [1, 15, 16, 17, 53] {
        for place in 0..length {
            let row = |special: f64| {
                let mut row = numbers(length, 5);
                row[place] = special;
                Tensor::from_vec(row, [length]).unwrap()
            };
            let [large, small, nan] = [7.0, -7.0, f64::NAN].map(row);
            assert_eq!(values(&large.max().unwrap()), [7.0]);
            assert_eq!(values(&small.min().unwrap()), [-7.0]);
            assert_eq!(large.argmax(0).unwrap(), [place]);
            assert_eq!(nan.argmax(0).unwrap(), [place]);
            assert!(values(&nan.max().unwrap())[0].is_nan());
            assert!(values(&nan.min().unwrap())[0].is_nan());
        }
    }
}

#[test]
fn a_sum_over_no_axis_has_memory_of_its_own() {
    for dtype in [DType::BF16, DType::F32, DType::F64] {
        let x = tensor([[1.0, 2.0], [3.0, 4.0]]).to_dtype(dtype).unwrap();
        for x in [x.clone(), x.transpose(0, 1).unwrap()] {
            for y in [
                x.sum_over([]).unwrap(),
                x.mean_over(Axes::keepdim([])).unwrap(),
            ] {
                assert!(!y.same_storage(&x));
                assert_eq!((y.shape(), values(&y)), (x.shape(), values(&x)));
            }
        }
    }
}
