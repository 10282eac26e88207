//! Every operation's gradient against finite differences, in f64.

use std::sync::Arc;

use crate::common::{check_gradients, random};
use sorix_core::{Affine, Axes, BitMask, DType, DropRate, MaskKey, SaveMask, Tensor};

/// Pairs of shapes that broadcast in every way there is.
const PAIRS: [(&[usize], &[usize]); 8] = [
    (&[], &[]),
    (&[3], &[3]),
    (&[2, 3], &[3]),
    (&[3], &[2, 3]),
    (&[2, 1], &[1, 3]),
    (&[], &[2, 2]),
    (&[4, 1, 2], &[3, 1]),
    (&[1], &[1, 1, 1]),
];

/// Shapes for operations of one operand.
const SHAPES: [&[usize]; 5] = [&[], &[1], &[5], &[2, 3], &[2, 3, 2]];

/// A shape and a view of a tensor of it, of shape [2, 3], that does not lie in row-major order.
type View = (&'static [usize], fn(&Tensor) -> sorix_core::Result<Tensor>);

const VIEWS: [View; 4] = [
    (&[3, 2], |x| x.transpose(0, 1)),
    (&[3, 5], |x| x.slice(0, 1..)?.slice_step(1, .., 2)),
    (&[2, 1], |x| x.expand([2, 3])),
    (&[3], |x| x.expand([2, 3])),
];

/// Axes of a tensor that has three.
const AXES: [&[isize]; 6] = [&[], &[0], &[-1], &[0, 2], &[1, 0], &[2, 0, 1]];

fn check_pairs(f: fn(&Tensor, &Tensor) -> sorix_core::Result<Tensor>) {
    for (left, right) in PAIRS {
        check_gradients(&[random(left, 1), random(right, 2)], |x| f(&x[0], &x[1]));
    }
}

fn check_shapes(f: impl Fn(&Tensor) -> sorix_core::Result<Tensor>) {
    for shape in SHAPES {
        check_gradients(&[random(shape, 1)], |x| f(&x[0]));
    }
}

#[test]
fn add() {
    check_pairs(Tensor::add);
}

#[test]
fn sub() {
    check_pairs(Tensor::sub);
}

#[test]
fn mul() {
    check_pairs(Tensor::mul);
}

#[test]
fn operands_that_are_one_tensor() {
    check_shapes(|x| x.mul(x)?.add(x)?.sub(&x.mul(x)?.mul(x)?));
}

#[test]
fn operands_that_are_views() {
    // At least 1/2 from 0, on both sides of it.
    let away = |shape: &[usize], salt| {
        let numbers = crate::common::numbers(shape.iter().product(), salt);
        let moved: Vec<f64> = numbers.iter().map(|x| x + 0.5_f64.copysign(*x)).collect();
        Tensor::from_slice(&moved, shape).unwrap()
    };
    for (left, left_view) in VIEWS {
        for (right, right_view) in VIEWS {
            let inputs = [away(left, 1), away(right, 2)];
            for op in [Tensor::add, Tensor::sub, Tensor::mul, Tensor::div] {
                check_gradients(&inputs, |x| op(&left_view(&x[0])?, &right_view(&x[1])?));
            }
            check_gradients(&inputs, |x| {
                left_view(&x[0])?.matmul(&right_view(&x[1])?.transpose(0, 1)?)
            });
        }
    }
}

#[test]
fn numbers() {
    check_shapes(|x| x.add_scalar(1.5)?.mul_scalar(-0.75)?.neg());
}

#[test]
fn sum_and_mean() {
    check_shapes(Tensor::sum);
    check_shapes(Tensor::mean);
    for axes in AXES {
        let x = [random(&[2, 3, 2], 1)];
        check_gradients(&x, |x| x[0].sum_over(axes));
        check_gradients(&x, |x| x[0].mean_over(axes));
        check_gradients(&x, |x| x[0].sum_over(Axes::keepdim(axes))?.mul(&x[0]));
        check_gradients(&x, |x| x[0].mean_over(Axes::keepdim(axes))?.mul(&x[0]));
    }
}

#[test]
fn matmul() {
    let cases: [(&[usize], &[usize]); 9] = [
        (&[2, 3], &[3, 4]),
        (&[3], &[3]),
        (&[3], &[3, 2]),
        (&[2, 3], &[3]),
        (&[2, 2, 3], &[3, 2]),
        (&[2, 3], &[4, 3, 2]),
        (&[4, 2, 3], &[4, 3, 1]),
        (&[2, 1, 2, 3], &[3, 3, 2]),
        (&[3], &[2, 3, 2]),
    ];
    for (left, right) in cases {
        let inputs = [random(left, 1), random(right, 2)];
        check_gradients(&inputs, |x| x[0].matmul(&x[1]));
    }
    check_gradients(&[random(&[3, 3], 1)], |x| {
        x[0].matmul(&x[0].transpose(0, 1)?)?.matmul(&x[0])
    });
}

#[test]
fn reductions_of_rows() {
    for axes in AXES {
        let x = [random(&[2, 3, 2], 1)];
        check_gradients(&x, |x| x[0].max_over(axes));
        check_gradients(&x, |x| x[0].max_over(Axes::keepdim(axes))?.mul(&x[0]));
        check_gradients(&x, |x| x[0].min_over(axes));
        check_gradients(&x, |x| x[0].min_over(Axes::keepdim(axes))?.mul(&x[0]));
        check_gradients(&x, |x| x[0].logsumexp_over(axes));
        check_gradients(&x, |x| x[0].logsumexp_over(Axes::keepdim(axes))?.mul(&x[0]));
        if !axes.is_empty() {
            check_gradients(&x, |x| x[0].var_over(axes, 1));
            check_gradients(&x, |x| x[0].var_over(Axes::keepdim(axes), 0)?.mul(&x[0]));
            check_gradients(&x, |x| x[0].std_over(axes, 1));
            check_gradients(&x, |x| x[0].std_over(Axes::keepdim(axes), 0)?.mul(&x[0]));
            check_gradients(&x, |x| x[0].standardize(axes, 0.1));
        }
    }
    check_shapes(Tensor::max);
    check_shapes(Tensor::min);
    check_shapes(Tensor::logsumexp);
    check_shapes(|x| x.var(0));
    let x = [random(&[3, 4], 1)];
    check_gradients(&x, |x| x[0].std(1));
    check_gradients(&x, |x| x[0].transpose(0, 1)?.standardize(&[0], 1e-5));
}

#[test]
fn softmax_and_what_goes_with_it() {
    for axis in [0, 1, -1] {
        let x = [random(&[2, 3, 2], 1)];
        check_gradients(&x, |x| x[0].softmax(axis));
        check_gradients(&x, |x| x[0].log_softmax(axis));
        check_gradients(&x, |x| x[0].transpose(0, 1)?.softmax(axis));
    }
    let logits = [random(&[2, 2, 5], 1)];
    check_gradients(&logits, |x| {
        x[0].log_softmax(-1)?.gather_last(&[4, 0, 2, 2])
    });
    check_gradients(&[random(&[3, 2], 1)], |x| {
        x[0].transpose(0, 1)?.gather_last(&[2, 1])
    });
}

#[test]
fn views() {
    let x = [random(&[2, 3, 4], 1)];
    check_gradients(&x, |x| x[0].reshape([4, 6]));
    check_gradients(&x, |x| x[0].permute(&[2, 0, 1]));
    check_gradients(&x, |x| x[0].transpose(0, -1)?.reshape([24]));
    check_gradients(&x, |x| x[0].transpose(1, 2)?.contiguous());
    let narrow = [random(&[3, 1], 1)];
    check_gradients(&narrow, |x| x[0].expand([2, 3, 4]));
    check_gradients(&narrow, |x| {
        x[0].expand([3, 4])?
            .transpose(0, 1)?
            .mul(&x[0].reshape([3])?)
    });
}

#[test]
fn dropout() {
    let key = MaskKey::new(5, 3);
    for p in [0.0, 0.25, 0.7, 1.0] {
        let rate = DropRate::new(p).unwrap();
        for save in [SaveMask::Bits, SaveMask::Replay] {
            check_shapes(|x| x.dropout(rate, key, save));
            check_gradients(&[random(&[3, 4], 1)], |x| {
                x[0].transpose(0, 1)?
                    .dropout(rate, key.window(1000), save)?
                    .transpose(0, 1)?
                    .mul(&x[0])
            });
        }
    }
}

#[test]
fn dropout_by_smaller_masks_and_of_other_maps() {
    let (key, affine) = (
        MaskKey::new(5, 3),
        Affine {
            scale: 1.5,
            shift: 0.25,
            dropped: -2.0,
        },
    );
    let x = [random(&[2, 3, 4], 1)];
    for mask_shape in [[2, 3, 4], [2, 3, 1], [2, 1, 4], [1, 3, 1], [1, 1, 1]] {
        let mask: Arc<BitMask> = Arc::new(
            (0..mask_shape.iter().product())
                .map(|i: usize| i % 3 != 1)
                .collect(),
        );
        check_gradients(&x, |x| x[0].apply_mask(mask.clone(), &mask_shape, -3.0));
        for p in [0.0, 0.25, 0.7, 1.0] {
            let rate = DropRate::new(p).unwrap();
            for save in [SaveMask::Bits, SaveMask::Replay] {
                check_gradients(&x, |x| x[0].dropout_broadcast(rate, key, &mask_shape, save));
                check_gradients(&x, |x| {
                    x[0].transpose(0, 2)?
                        .transpose(0, 2)?
                        .dropout_affine(rate, key, &mask_shape, affine, save)?
                        .mul(&x[0])
                });
            }
        }
    }
}

#[test]
fn to_dtype_rounds_the_gradient_to_the_dtype_of_the_input() {
    let x = random(&[4], 1)
        .to_dtype(DType::F32)
        .unwrap()
        .requires_grad(true);
    let y = x.to_dtype(DType::F64).unwrap();
    let gradient = random(&[4], 2);
    y.backward_with(&gradient).unwrap();
    let expected = gradient
        .to_dtype(DType::F32)
        .unwrap()
        .to_vec::<f32>()
        .unwrap();
    assert_eq!(x.grad().unwrap().to_vec::<f32>().unwrap(), expected);
}

#[test]
fn empty_tensors_have_empty_gradients() {
    let x = Tensor::zeros([0, 3], DType::F64)
        .unwrap()
        .requires_grad(true);
    x.mul(&x).unwrap().sum().unwrap().backward().unwrap();
    assert_eq!(x.grad().unwrap().shape(), [0, 3]);
}
