//! Dropout by masks of a smaller shape, by masks from elsewhere, and with other maps.

use std::sync::Arc;

use crate::common::{DTYPES, random, values};
use sorix_core::autograd::no_grad;
use sorix_core::{Affine, BitMask, DType, DropRate, MaskKey, Result, SaveMask, Tensor, tensor};

const SAVES: [SaveMask; 2] = [SaveMask::Bits, SaveMask::Replay];

const AFFINE: Affine = Affine {
    scale: 1.5,
    shift: 0.25,
    dropped: -2.0,
};

/// Tensor and mask: channels first and last, samples, steps, rows, and none smaller.
const SHAPES: [(&[usize], &[usize]); 9] = [
    (&[3, 5, 6, 7], &[3, 5, 1, 1]),
    (&[3, 6, 7, 5], &[3, 1, 1, 5]),
    (&[8, 70], &[8, 1]),
    (&[4, 9, 33], &[4, 1, 33]),
    (&[4, 9, 33], &[1, 9, 1]),
    (&[50, 3], &[1, 1]),
    (&[4, 33], &[4, 33]),
    (&[], &[]),
    (&[0, 3], &[1, 3]),
];

fn rate(p: f64) -> DropRate {
    DropRate::new(p).unwrap()
}

fn key() -> MaskKey {
    MaskKey::new(42, 7)
}

fn bits(x: &Tensor) -> Vec<u64> {
    values(x).into_iter().map(f64::to_bits).collect()
}

/// 1 where the small mask keeps, 0 where it drops, in the tensor's shape: by `Tensor::dropout` on
/// the small shape.
fn keep(p: f64, shape: &[usize], mask_shape: &[usize]) -> Vec<f64> {
    let ones = Tensor::ones(mask_shape, DType::F64).unwrap();
    let small = ones.dropout(rate(p), key(), SaveMask::Bits).unwrap();
    values(&small.expand(shape).unwrap())
        .iter()
        .map(|&y| if y == 0.0 { 0.0 } else { 1.0 })
        .collect()
}

/// Output and input gradient.
fn run(x: &Tensor, dy: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> (Tensor, Tensor) {
    let x = x.requires_grad(true);
    let y = f(&x).unwrap();
    y.backward_with(dy).unwrap();
    (y.detach(), x.grad().unwrap())
}

#[test]
fn a_small_mask_is_the_mask_of_its_shape_repeated() {
    for (shape, mask_shape) in SHAPES {
        for p in [0.3, 0.5, 1.0] {
            let (x, dy) = (random(shape, 1), random(shape, 2));
            let keep = keep(p, shape, mask_shape);
            let expected = |x: &Tensor| -> Vec<f64> {
                let scaled = |(x, &keep): (f64, &f64)| {
                    if keep == 1.0 {
                        x * rate(p).scale()
                    } else {
                        0.0
                    }
                };
                values(x).into_iter().zip(&keep).map(scaled).collect()
            };
            for save in SAVES {
                let (y, dx) = run(&x, &dy, |x| {
                    x.dropout_broadcast(rate(p), key(), mask_shape, save)
                });
                assert_eq!(
                    values(&y),
                    expected(&x),
                    "{shape:?} {mask_shape:?} {p} {save:?}"
                );
                assert_eq!(
                    values(&dx),
                    expected(&dy),
                    "{shape:?} {mask_shape:?} {p} {save:?}"
                );
                assert_eq!((y.shape(), dx.shape()), (shape, shape));
            }
        }
    }
}

#[test]
fn an_affine_map_is_applied_where_kept_and_its_scale_to_the_gradient() {
    for (shape, mask_shape) in SHAPES {
        for p in [0.0, 0.4, 1.0] {
            let (x, dy) = (random(shape, 1), random(shape, 2));
            let keep = keep(p, shape, mask_shape);
            let pairs = |x: &Tensor, f: fn(f64, bool) -> f64| -> Vec<f64> {
                values(x)
                    .into_iter()
                    .zip(&keep)
                    .map(|(x, &keep)| f(x, keep == 1.0))
                    .collect()
            };
            for save in SAVES {
                let (y, dx) = run(&x, &dy, |x| {
                    x.dropout_affine(rate(p), key(), mask_shape, AFFINE, save)
                });
                let f = |x, keep| if keep { 1.5 * x + 0.25 } else { -2.0 };
                assert_eq!(
                    values(&y),
                    pairs(&x, f),
                    "{shape:?} {mask_shape:?} {p} {save:?}"
                );
                let f = |dy, keep| if keep { 1.5 * dy } else { 0.0 };
                assert_eq!(
                    values(&dx),
                    pairs(&dy, f),
                    "{shape:?} {mask_shape:?} {p} {save:?}"
                );
            }
        }
    }
}

#[test]
fn a_given_mask_is_applied_as_it_is() {
    let mask = Arc::new(BitMask::from_bools(&[true, false, true]));
    for dtype in DTYPES {
        let x = random(&[2, 3], 1).to_dtype(dtype).unwrap();
        let (y, dx) = run(&x, &x, |x| x.apply_mask(mask.clone(), &[1, 3], 2.0));
        let expected: Vec<f64> = values(&x)
            .into_iter()
            .zip([2.0, 0.0, 2.0].repeat(2))
            .map(|(x, scale)| if scale == 0.0 { 0.0 } else { x * scale })
            .collect();
        assert_eq!(values(&y), expected, "{dtype}");
        assert_eq!(values(&dx), expected, "{dtype}");
    }
    assert_eq!(Arc::strong_count(&mask), 1, "nothing is left behind");
}

#[test]
fn replay_and_bits_give_the_same_gradients_bit_for_bit() {
    for dtype in DTYPES {
        for (shape, mask_shape) in SHAPES {
            let x = random(shape, 1).to_dtype(dtype).unwrap();
            let dy = random(shape, 2).to_dtype(dtype).unwrap();
            let both = |f: &dyn Fn(&Tensor, SaveMask) -> Result<Tensor>| {
                let [stored, replayed] = SAVES.map(|save| {
                    let (y, dx) = run(&x, &dy, |x| f(x, save));
                    (bits(&y), bits(&dx))
                });
                assert_eq!(stored, replayed, "{dtype} {shape:?} {mask_shape:?}");
            };
            both(&|x, save| x.dropout_broadcast(rate(0.3), key(), mask_shape, save));
            both(&|x, save| x.dropout_affine(rate(0.3), key(), mask_shape, AFFINE, save));
        }
    }
}

#[test]
fn a_permuted_view_gets_the_mask_of_its_contiguous_copy() {
    let view = random(&[6, 35, 4], 1).permute(&[2, 0, 1]).unwrap();
    let copy = view.contiguous().unwrap();
    let form = |x: &Tensor| x.dropout_broadcast(rate(0.5), key(), &[4, 6, 1], SaveMask::Bits);
    assert_eq!(values(&form(&view).unwrap()), values(&form(&copy).unwrap()));
}

#[test]
fn what_is_dropped_does_not_leak() {
    let x = Tensor::full([64, 2], f64::NAN, DType::F32).unwrap();
    let (y, dx) = run(&x, &x, |x| {
        x.dropout_affine(rate(0.5), key(), &[64, 1], AFFINE, SaveMask::Bits)
    });
    for (result, dropped) in [(y, -2.0), (dx, 0.0)] {
        let result = values(&result);
        assert!(result.contains(&dropped) && result.iter().any(|y| y.is_nan()));
        assert!(result.iter().all(|&y| y == dropped || y.is_nan()));
    }
}

#[test]
fn rate_0_of_inverted_dropout_is_the_tensor_itself() {
    let x = random(&[2, 3], 1).requires_grad(true);
    let y = x
        .dropout_broadcast(rate(0.0), key(), &[2, 1], SaveMask::Bits)
        .unwrap();
    assert!(y.same_storage(&x) && y.is_leaf());
}

#[test]
fn what_does_not_fit_is_an_error_that_says_what_was_expected() {
    let x = tensor([[1.0, 2.0, 3.0]; 2]);
    let shape = |op, got| {
        format!(
            "{op}(float64[2, 3]): mask shape for a tensor of shape [2, 3]: \
             expected 2 axes, each 1 or the tensor's, got {got}"
        )
    };
    let error = x
        .dropout_broadcast(rate(0.0), key(), &[2], SaveMask::Bits)
        .unwrap_err();
    assert_eq!(error.to_string(), shape("dropout_broadcast", "[2]"));
    let error = x
        .dropout_affine(rate(0.5), key(), &[3, 1], AFFINE, SaveMask::Bits)
        .unwrap_err();
    assert_eq!(error.to_string(), shape("dropout_affine", "[3, 1]"));
    let error = x.apply_mask(BitMask::new(2), &[2, 2], 1.0).unwrap_err();
    assert_eq!(error.to_string(), shape("apply_mask", "[2, 2]"));
    let error = x.apply_mask(BitMask::new(3), &[2, 1], 1.0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "apply_mask(float64[2, 3]): length of mask: expected 2, got 3"
    );
}

#[test]
fn no_gradient_keeps_no_mask() {
    let mask = Arc::new(BitMask::from_bools(&[true, false]));
    let x = random(&[2, 3], 1).requires_grad(true);
    let y = no_grad(|| x.apply_mask(mask.clone(), &[2, 1], 1.0)).unwrap();
    assert!(!y.needs_grad() && Arc::strong_count(&mask) == 1);
    let recorded = x.apply_mask(mask.clone(), &[2, 1], 1.0).unwrap();
    assert_eq!(Arc::strong_count(&mask), 2, "kept, not copied");
    drop(recorded);
}
