//! Slices, axes of length 1, flattening, joining, selecting: values, shared memory, errors.

use crate::common::{DTYPES, random, values};
use half::f16;
use ndarray::{ArrayD, Axis, Slice};
use sorix_core::autograd::no_grad;
use sorix_core::{DType, ErrorKind, Result, Tensor, tensor};

/// 0, 1, 2, … in a shape.
fn count(shape: &[usize]) -> Tensor {
    let numbers: Vec<f64> = (0..shape.iter().product())
        .map(|i: usize| i as f64)
        .collect();
    Tensor::from_slice(&numbers, shape).unwrap()
}

#[test]
fn slices_are_those_of_ndarray_also_of_views() {
    let x = random(&[4, 5, 6], 1);
    let a: ArrayD<f64> = x.to_ndarray().unwrap();
    for (x, a) in [
        (x.clone(), a.view()),
        (
            x.permute(&[2, 0, 1]).unwrap(),
            a.view().permuted_axes(vec![2, 0, 1]),
        ),
    ] {
        for axis in 0..3 {
            for (start, end, step) in [
                (0, 4, 1),
                (1, 3, 1),
                (1, 4, 2),
                (0, 4, 3),
                (2, 2, 1),
                (3, 4, 9),
            ] {
                let slice = |x: &Tensor| x.slice_step(axis as isize, start..end, step).unwrap();
                let part = Slice::from(start..end).step_by(step as isize);
                let (once, expected) = (slice(&x), a.slice_axis(Axis(axis), part));
                assert_eq!(once.to_ndarray::<f64>().unwrap(), expected);
                assert!(once.same_storage(&x));
                // A slice of the slice, along the next axis.
                let next = (axis + 1) % 3;
                let twice = once.slice(next as isize, 1..=2).unwrap();
                let expected = expected.slice_axis(Axis(next), Slice::from(1..3));
                assert_eq!(twice.to_ndarray::<f64>().unwrap(), expected);
            }
        }
    }
}

#[test]
fn every_kind_of_range() {
    let x = count(&[5]);
    let slices: [(Result<Tensor>, &[f64]); 7] = [
        (x.slice(0, ..), &[0.0, 1.0, 2.0, 3.0, 4.0]),
        (x.slice(-1, 3..), &[3.0, 4.0]),
        (x.slice(0, ..2), &[0.0, 1.0]),
        (x.slice(0, ..=2), &[0.0, 1.0, 2.0]),
        (x.slice(0, 1..=1), &[1.0]),
        (x.slice(0, 5..), &[]),
        (x.slice_step(0, .., usize::MAX), &[0.0]),
    ];
    for (slice, expected) in slices {
        assert_eq!(values(&slice.unwrap()), expected);
    }
    // Empty slices of empty slices, at the very end of the memory.
    let x = count(&[8, 8]).slice(0, 8..).unwrap().slice(1, 8..).unwrap();
    assert_eq!((x.shape(), values(&x)), (&[0, 0][..], vec![]));
}

#[test]
fn a_write_to_a_slice_is_seen_by_the_whole_and_by_nothing_else() {
    for dtype in DTYPES {
        let x = count(&[3, 4]).to_dtype(dtype).unwrap();
        let column = x.slice_step(1, 1.., 2).unwrap();
        let new = tensor([[-1.0, -2.0], [-3.0, -4.0], [-5.0, -6.0]]);
        column.assign(&new.to_dtype(dtype).unwrap()).unwrap();
        let expected = [
            0.0, -1.0, 2.0, -2.0, 4.0, -3.0, 6.0, -4.0, 8.0, -5.0, 10.0, -6.0,
        ];
        assert_eq!(values(&x), expected, "{dtype}");
    }
}

#[test]
fn a_saved_slice_notices_a_write_to_the_whole() {
    let x = count(&[4]).requires_grad(true);
    let part = x.slice(0, 1..3).unwrap();
    let square = part.mul(&part).unwrap().sum().unwrap();
    no_grad(|| x.assign(&count(&[4]))).unwrap();
    let error = square.backward().unwrap_err();
    let written = matches!(error.kind(), ErrorKind::SavedTensorWritten { .. });
    assert!(written);
}

#[test]
fn reshaping_copies_only_where_strides_cannot_say_it() {
    let x = random(&[2, 3, 4], 1);
    let part = x.slice(2, 1..3).unwrap();
    let views = [
        x.flatten(0, -1),
        part.flatten(0, 1),
        part.unsqueeze(1).unwrap().squeeze(1),
        part.transpose(0, 2).unwrap().unsqueeze(-1),
        x.slice(0, 1..).unwrap().flatten(0, 2),
        x.slice(1, ..1).unwrap().squeeze_all(),
        tensor([3.0]).expand([5, 4, 1]).unwrap().flatten(0, 1),
    ];
    for (k, view) in views.into_iter().enumerate() {
        let view = view.unwrap();
        assert!(k == 6 || view.same_storage(&x), "{view:?}");
    }
    let flat = part.flatten(1, 2).unwrap();
    assert!(!flat.same_storage(&x));
    assert_eq!(values(&flat), values(&part));
    assert_eq!(tensor(1.0).flatten(0, -1).unwrap().shape(), [1]);
    assert_eq!(count(&[0, 3]).flatten(0, 1).unwrap().shape(), [0]);
    assert_eq!(tensor(1.0).unsqueeze(-1).unwrap().shape(), [1]);
}

#[test]
fn concat_and_stack_take_any_layout_and_dtype() {
    for dtype in DTYPES {
        let x = count(&[2, 3]).to_dtype(dtype).unwrap();
        let t = count(&[3, 2])
            .to_dtype(dtype)
            .unwrap()
            .transpose(0, 1)
            .unwrap();
        let empty = Tensor::zeros([2, 0], dtype).unwrap();
        let rows = Tensor::concat(&[&x, &t], 0).unwrap();
        assert_eq!(
            values(&rows),
            [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 2.0, 4.0, 1.0, 3.0, 5.0]
        );
        let columns = Tensor::concat(&[&x, &empty, &t], -1).unwrap();
        assert_eq!(columns.shape(), [2, 6]);
        assert_eq!(
            values(&columns),
            [0.0, 1.0, 2.0, 0.0, 2.0, 4.0, 3.0, 4.0, 5.0, 1.0, 3.0, 5.0]
        );
        let stacked = Tensor::stack(&[&x, &t], 1).unwrap();
        assert_eq!(stacked.shape(), [2, 2, 3]);
        assert_eq!(values(&stacked), values(&columns));
    }
}

#[test]
fn repeated_indices_add_up_in_the_arithmetic_type() {
    // 4096 gradients of 1 in f16 would stop at 2048.
    let x = Tensor::zeros([3, 2], DType::F16)
        .unwrap()
        .requires_grad(true);
    let y = x.index_select(0, &[1; 4096]).unwrap();
    y.backward_with(&Tensor::ones(y.shape(), DType::F16).unwrap())
        .unwrap();
    let gradient = x.grad().unwrap();
    assert_eq!(gradient.dtype(), DType::F16);
    let full = f16::from_f32(4096.0).to_f64();
    assert_eq!(values(&gradient), [0.0, 0.0, full, full, 0.0, 0.0]);

    let x = count(&[2, 3, 2]).transpose(0, 2).unwrap();
    let y = x.index_select(1, &[2, 2, 0]).unwrap();
    assert_eq!(y.shape(), [2, 3, 2]);
    let a = x.to_ndarray::<f64>().unwrap().select(Axis(1), &[2, 2, 0]);
    assert_eq!(y.to_ndarray::<f64>().unwrap(), a);
    assert_eq!(x.index_select(0, &[]).unwrap().shape(), [0, 3, 2]);
}

#[test]
fn errors_say_what_was_wrong() {
    let x = count(&[2, 3]);
    let single = tensor([[1.0_f32; 3]; 2]);
    let messages = [
        (
            x.slice(2, ..),
            "slice(float64[2, 3]): axis 2 is out of range",
        ),
        (
            x.slice(1, 1..4),
            "slice(float64[2, 3]): 1..4 is not a range within axis 1 of length 3",
        ),
        (
            x.slice(-1, 2..=3),
            "slice(float64[2, 3]): 2..4 is not a range within axis 1 of length 3",
        ),
        #[expect(clippy::reversed_empty_ranges, reason = "what is wrong here")]
        (
            x.slice(0, 2..1),
            "slice(float64[2, 3]): 2..1 is not a range within axis 0 of length 2",
        ),
        (
            x.slice(0, ..=usize::MAX),
            "slice(float64[2, 3]): 0..18446744073709551615 is not a range within axis 0 of length 2",
        ),
        (
            x.slice_step(0, .., 0),
            "slice_step(float64[2, 3]): expected a step of at least 1, got 0",
        ),
        (
            x.squeeze(1),
            "squeeze(float64[2, 3]): expected an axis of length 1, got [1]",
        ),
        (
            x.unsqueeze(3),
            "unsqueeze(float64[2, 3]): axis 3 is out of range",
        ),
        (
            x.unsqueeze(-4),
            "unsqueeze(float64[2, 3]): axis -4 is out of range",
        ),
        (
            x.flatten(1, 0),
            "flatten(float64[2, 3]): expected a first and a last axis, in order, got [1, 0]",
        ),
        (
            tensor(1.0).flatten(0, 1),
            "flatten(float64[]): axis 1 is out of range",
        ),
        (
            Tensor::concat(&[], 0),
            "concat: expected at least one tensor, got none",
        ),
        (
            Tensor::stack(&[], 0),
            "stack: expected at least one tensor, got none",
        ),
        (
            Tensor::concat(&[&tensor(1.0)], 0),
            "concat(float64[]): axis 0 is out of range",
        ),
        (
            Tensor::concat(&[&x, &tensor(1.0)], 1),
            "concat(float64[2, 3], float64[]): expected shape [2, 3], got []",
        ),
        (
            Tensor::concat(&[&x, &x.transpose(0, 1).unwrap()], 0),
            "concat(float64[2, 3], float64[3, 2]): expected shape [3, 3], got [3, 2]",
        ),
        (
            Tensor::concat(&[&x, &single], 0),
            "concat(float64[2, 3], float32[2, 3]): expected dtype sorix.float64, got sorix.float32",
        ),
        // Said also where the operand is one of those that are not shown.
        (
            Tensor::concat(&[&x, &x, &x, &x, &x, &single], 0),
            "concat(float64[2, 3], float64[2, 3], float64[2, 3], float64[2, 3] and 2 more): \
             expected dtype sorix.float64, got sorix.float32",
        ),
        (
            Tensor::stack(&[&x, &x, &x, &x, &single], 0),
            "stack(float64[2, 3], float64[2, 3], float64[2, 3], float64[2, 3] and 1 more): \
             expected dtype sorix.float64, got sorix.float32",
        ),
        (
            Tensor::stack(&[&x, &x.slice(0, 1..).unwrap()], 0),
            "stack(float64[2, 3], float64[1, 3]): expected shape [2, 3], got [1, 3]",
        ),
        (
            Tensor::stack(&[&x], 3),
            "stack(float64[2, 3]): axis 3 is out of range",
        ),
        (
            x.index_select(1, &[0, 3, 9]),
            "index_select(float64[2, 3]): index 3 is out of range for axis 1 of length 3",
        ),
        (
            count(&[0]).index_select(0, &[0]),
            "index_select(float64[0]): index 0 is out of range for axis 0 of length 0",
        ),
    ];
    for (result, message) in messages {
        assert_eq!(result.unwrap_err().to_string(), message);
    }
    // Too many rows to count.
    let wide = tensor([1.0]).expand([1 << 59]).unwrap();
    assert_eq!(
        Tensor::concat(&[&wide; 64], 0).unwrap_err().to_string(),
        "concat(float64[576460752303423488], float64[576460752303423488], \
         float64[576460752303423488], float64[576460752303423488] and 60 more): \
         a tensor of shape [18446744073709551615] and dtype sorix.float64 is too large to address"
    );
}

/// Their strides point beyond a storage that has no elements.
#[test]
fn slices_of_tensors_without_elements_are_empty() {
    for (shape, axis, sliced) in [([0, 4], 1, [0, 2]), ([4, 0], 0, [2, 0])] {
        let x = Tensor::zeros(shape, DType::F64)
            .unwrap()
            .requires_grad(true);
        let y = x.slice(axis, 2..).unwrap();
        assert_eq!((y.shape(), values(&y).len()), (&sliced[..], 0));
        y.add(&y).unwrap().sum().unwrap().backward().unwrap();
        assert_eq!(x.grad().unwrap().shape(), shape);
        no_grad(|| y.assign(&y.detach())).unwrap();
    }
}
