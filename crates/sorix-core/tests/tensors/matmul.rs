//! Products of matrices against a naive loop, and what is an error.

use crate::common::{DTYPES, pool, random, values};
use sorix_core::{DType, Tensor};

/// The product of two tensors of at least two axes, by its definition.
fn naive(left: &Tensor, right: &Tensor, batch: &[usize]) -> Vec<f64> {
    let matrix = |x: &Tensor| [x.shape()[x.ndim() - 2], x.shape()[x.ndim() - 1]];
    let ([m, k], [_, n]) = (matrix(left), matrix(right));
    let full = |x: &Tensor| values(&x.expand([batch, &matrix(x)].concat()).unwrap());
    let (left, right) = (full(left), full(right));
    let mut out = Vec::new();
    for b in 0..batch.iter().product() {
        for i in 0..m {
            for j in 0..n {
                let terms = (0..k).map(|l| left[(b * m + i) * k + l] * right[(b * k + l) * n + j]);
                out.push(terms.sum());
            }
        }
    }
    out
}

fn assert_close(got: &[f64], expected: &[f64], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!(
            (got - expected).abs() <= 1e-12 * (1.0 + expected.abs()),
            "{what}: element {i}: {got}, not {expected}"
        );
    }
}

/// Shapes of operands, and the leading axes of the product.
const STACKS: [(&[usize], &[usize], &[usize]); 12] = [
    (&[2, 3], &[3, 4], &[]),
    (&[1, 1], &[1, 1], &[]),
    (&[1, 7], &[7, 1], &[]),
    (&[70, 33], &[33, 65], &[]),
    (&[4, 2, 3], &[3, 5], &[4]),
    (&[2, 3], &[4, 3, 5], &[4]),
    (&[4, 2, 3], &[4, 3, 5], &[4]),
    (&[4, 1, 2, 3], &[5, 3, 2], &[4, 5]),
    (&[1, 2, 3], &[6, 3, 2], &[6]),
    (&[2, 1, 1, 1, 3], &[1, 3, 2, 3, 4], &[2, 3, 2]),
    (&[2, 2, 0], &[0, 3], &[2]),
    (&[0, 2, 3], &[1, 3, 4], &[0]),
];

/// The same tensor with its last two axes the other way round in memory.
fn by_columns(x: &Tensor) -> Tensor {
    x.transpose(-1, -2)
        .unwrap()
        .contiguous()
        .unwrap()
        .transpose(-1, -2)
        .unwrap()
}

/// The first column of each matrix for every column, and the first row for every row: views whose
/// strides are 0, as the gradient of a sum is.
fn repeated(x: &Tensor) -> [Tensor; 2] {
    [-1, -2].map(|axis| {
        let kept = x.shape()[(x.ndim() as isize + axis) as usize].min(1);
        let first = x.slice(axis, ..kept).unwrap();
        first.expand(x.shape()).unwrap()
    })
}

/// The same tensor with its first axis innermost in memory: in a stack, no row and no column lies
/// together.
fn interleaved(x: &Tensor) -> Tensor {
    let ndim = x.ndim() as isize;
    let (last, first): (Vec<isize>, Vec<isize>) = (
        (0..ndim).map(|k| (k + 1) % ndim).collect(),
        (0..ndim).map(|k| (k + ndim - 1) % ndim).collect(),
    );
    x.permute(&last)
        .unwrap()
        .contiguous()
        .unwrap()
        .permute(&first)
        .unwrap()
}

#[test]
fn stacks_of_matrices_in_every_layout() {
    for (left, right, batch) in STACKS {
        let (left, right) = (random(left, 1), random(right, 2));
        let expected = naive(&left, &right, batch);
        let shape = [
            batch,
            &[
                left.shape()[left.ndim() - 2],
                right.shape()[right.ndim() - 1],
            ],
        ]
        .concat();
        for (a, left) in [left.clone(), by_columns(&left), interleaved(&left)]
            .iter()
            .enumerate()
        {
            for (b, right) in [right.clone(), by_columns(&right), interleaved(&right)]
                .iter()
                .enumerate()
            {
                let product = left.matmul(right).unwrap();
                let what = format!(
                    "{:?} @ {:?}, layouts {a} and {b}",
                    left.shape(),
                    right.shape()
                );
                assert_eq!(product.shape(), shape, "{what}");
                assert_close(&values(&product), &expected, &what);
            }
        }
    }
}

#[test]
fn operands_may_repeat_rows_or_columns() {
    for (left, right, batch) in STACKS {
        let (left, right) = (random(left, 1), random(right, 2));
        for left in &repeated(&left) {
            for right in &repeated(&right) {
                let product = values(&left.matmul(right).unwrap());
                let what = format!("{left:?} @ {right:?}");
                assert_close(&product, &naive(left, right, batch), &what);
            }
        }
    }
    // The gradient of a sum is one number, repeated.
    let (a, b) = (random(&[5, 70], 1).requires_grad(true), random(&[70, 3], 2));
    a.matmul(&b).unwrap().sum().unwrap().backward().unwrap();
    let rows = b.sum_over(1).unwrap().expand([5, 70]).unwrap();
    assert_close(&values(&a.grad().unwrap()), &values(&rows), "gradient");
}

#[test]
fn vectors_are_a_row_on_the_left_and_a_column_on_the_right() {
    let cases: [(&[usize], &[usize], &[usize]); 5] = [
        (&[3], &[3], &[]),
        (&[3], &[3, 2], &[2]),
        (&[2, 3], &[3], &[2]),
        (&[3], &[4, 3, 2], &[4, 2]),
        (&[5, 4, 2, 3], &[3], &[5, 4, 2]),
    ];
    for (left, right, expected) in cases {
        let (x, y) = (random(left, 1), random(right, 2));
        let product = x.matmul(&y).unwrap();
        assert_eq!(product.shape(), expected, "{left:?} @ {right:?}");
        let rows = if left.len() == 1 {
            x.reshape([1, 3]).unwrap()
        } else {
            x
        };
        let columns = if right.len() == 1 {
            y.reshape([3, 1]).unwrap()
        } else {
            y
        };
        assert_eq!(
            values(&product),
            values(&rows.matmul(&columns).unwrap()),
            "{left:?} @ {right:?}"
        );
    }
}

#[test]
fn a_product_over_no_columns_is_zero() {
    for dtype in DTYPES {
        let x = Tensor::zeros([2, 0], dtype).unwrap();
        let y = Tensor::zeros([0, 3], dtype).unwrap();
        assert_eq!(values(&x.matmul(&y).unwrap()), [0.0; 6]);
        assert_eq!(
            y.matmul(&Tensor::zeros([3, 4], dtype).unwrap())
                .unwrap()
                .shape(),
            [0, 4]
        );
        let v = Tensor::zeros([0], dtype).unwrap();
        assert_eq!(values(&v.matmul(&v).unwrap()), [0.0]);
    }
}

#[test]
fn views_without_elements_have_products() {
    // Their strides are those of a tensor with elements, and lead out of a storage that has none.
    let columns = Tensor::zeros([0, 2, 2], DType::F64)
        .and_then(|x| x.permute(&[1, 2, 0]))
        .unwrap();
    let rows = columns.transpose(1, 2).unwrap();
    assert_eq!(
        (columns.shape(), rows.shape()),
        (&[2, 2, 0][..], &[2, 0, 2][..])
    );
    assert_eq!(values(&columns.matmul(&rows).unwrap()), [0.0; 8]);
    assert_eq!(rows.matmul(&columns).unwrap().shape(), [2, 0, 0]);

    let left = columns.requires_grad(true);
    left.matmul(&rows)
        .unwrap()
        .sum()
        .unwrap()
        .backward()
        .unwrap();
    assert_eq!(left.grad().unwrap().shape(), [2, 2, 0]);
}

#[test]
fn every_dtype_is_exact_where_the_numbers_are() {
    for dtype in DTYPES {
        let of = |numbers: &[f64], shape| {
            Tensor::from_slice(numbers, shape)
                .unwrap()
                .to_dtype(dtype)
                .unwrap()
        };
        let x = of(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3]);
        let y = of(&[1.0, -1.0, 0.5, 2.0, 0.0, 4.0], [3, 2]);
        let product = x.matmul(&y).unwrap();
        assert_eq!(product.dtype(), dtype);
        assert_eq!(values(&product), [2.0, 15.0, 6.5, 30.0]);
    }
}

#[test]
fn halves_are_added_up_in_f32_and_rounded_once() {
    // In f16 itself the sum would stop at 2048, in bf16 at 256.
    let x = |shape, dtype| Tensor::ones(shape, dtype).unwrap();
    for (dtype, expected) in [(DType::F16, 4100.0), (DType::BF16, 4096.0)] {
        let product = x([1, 4099], dtype).matmul(&x([4099, 1], dtype)).unwrap();
        assert_eq!(values(&product), [expected]);
    }
}

#[test]
fn the_number_of_threads_does_not_show() {
    let x = random(&[2, 300, 40], 1).to_dtype(DType::F32).unwrap();
    let y = random(&[2, 40, 530], 2).to_dtype(DType::F32).unwrap();
    let on = |threads| pool(threads).install(|| x.matmul(&y).unwrap().to_vec::<f32>().unwrap());
    let one = on(1);
    assert_eq!(on(2), one);
    assert_eq!(on(5), one);
    let exact = naive(&x, &y, &[2]);
    assert!(
        one.iter()
            .zip(&exact)
            .all(|(&got, exact)| (f64::from(got) - exact).abs() < 1e-3)
    );
}

#[test]
fn not_a_number_stays_where_it_belongs() {
    let x = sorix_core::tensor([[1.0, f64::NAN], [2.0, 3.0]]);
    let product = x
        .matmul(&sorix_core::tensor([[1.0], [0.0]]))
        .unwrap()
        .to_vec::<f64>()
        .unwrap();
    assert!(product[0].is_nan());
    assert_eq!(product[1], 2.0);
}

#[test]
fn errors_name_the_shapes() {
    let error = |left: &[usize], right: &[usize]| {
        random(left, 1)
            .matmul(&random(right, 2))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        error(&[2, 3], &[2, 3]),
        "matmul(float64[2, 3], float64[2, 3]): expected matrices or vectors, the left one with \
         as many columns as the right one has rows"
    );
    assert_eq!(
        error(&[3], &[4, 2]),
        "matmul(float64[3], float64[4, 2]): expected matrices or vectors, the left one with \
         as many columns as the right one has rows"
    );
    assert_eq!(
        error(&[], &[4]),
        "matmul(float64[], float64[4]): expected matrices or vectors, the left one with \
         as many columns as the right one has rows"
    );
    assert_eq!(
        error(&[2, 4, 3], &[3, 3, 2]),
        "matmul(float64[2, 4, 3], float64[3, 3, 2]): shapes [2] and [3] do not broadcast"
    );
    let mixed = random(&[2, 2], 1).matmul(&Tensor::ones([2, 2], DType::F32).unwrap());
    assert_eq!(
        mixed.unwrap_err().to_string(),
        "matmul(float64[2, 2], float32[2, 2]): operands must have one dtype"
    );
}
