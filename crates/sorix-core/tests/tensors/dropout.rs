//! Dropout on tensors: the mask, its layout-independence, its gradients, the corner cases.

use crate::common::{DTYPES, random, values};
use sorix_core::autograd::no_grad;
use sorix_core::{DType, DropRate, MaskKey, SaveMask, Tensor, tensor};
use sorix_kernels::backend::reference::Reference;
use sorix_kernels::{BitMask, Buffers, Engine};

const SAVES: [SaveMask; 2] = [SaveMask::Bits, SaveMask::Replay];

fn rate(p: f64) -> DropRate {
    DropRate::new(p).unwrap()
}

fn key() -> MaskKey {
    MaskKey::new(42, 7)
}

/// Output and input gradient, for the gradient `dy`.
fn forward_and_backward(x: &Tensor, p: f64, save: SaveMask, dy: &Tensor) -> (Tensor, Tensor) {
    let x = x.requires_grad(true);
    let y = x.dropout(rate(p), key(), save).unwrap();
    y.backward_with(dy).unwrap();
    (y.detach(), x.grad().unwrap())
}

/// Against the oracle, so that a wrong backend shows here too and not only in its own tests.
#[test]
fn output_and_gradient_are_those_of_the_oracle() {
    let oracle = Engine::new(&Reference);
    for shape in [&[10_000][..], &[3, 5, 7], &[1], &[]] {
        let (x, dy) = (random(shape, 1), random(shape, 2));
        let (x_slice, dy_slice) = (x.to_vec::<f64>().unwrap(), dy.to_vec::<f64>().unwrap());
        for p in [0.1, 0.3, 0.5] {
            let (mut y, mut dx) = (x_slice.clone(), x_slice.clone());
            let mut mask = BitMask::new(x_slice.len());
            oracle
                .forward(
                    rate(p),
                    key(),
                    Buffers::new(&x_slice, &mut y).unwrap(),
                    &mut mask,
                )
                .unwrap();
            oracle
                .apply(rate(p), &mask, Buffers::new(&dy_slice, &mut dx).unwrap())
                .unwrap();
            for save in SAVES {
                let (tensor_y, tensor_dx) = forward_and_backward(&x, p, save, &dy);
                assert_eq!(
                    tensor_y.to_vec::<f64>().unwrap(),
                    y,
                    "{shape:?} {p} {save:?}"
                );
                assert_eq!(
                    tensor_dx.to_vec::<f64>().unwrap(),
                    dx,
                    "{shape:?} {p} {save:?}"
                );
                assert_eq!((tensor_y.shape(), tensor_dx.shape()), (shape, shape));
            }
        }
    }
}

/// The count of kept elements is binomial: within five standard deviations of its mean, which a
/// right mask misses once in a million keys, and this key does not.
#[test]
fn as_many_elements_are_kept_as_the_rate_says() {
    const COUNT: usize = 1 << 20;
    let x = Tensor::ones([COUNT], DType::F32).unwrap();
    for p in [0.01, 0.1, 0.5, 0.9] {
        let y = x
            .dropout(rate(p), key(), SaveMask::Bits)
            .unwrap()
            .to_vec::<f32>()
            .unwrap();
        let kept = y.iter().filter(|&&y| y != 0.0).count() as f64;
        let (mean, deviation) = (
            COUNT as f64 * (1.0 - p),
            (COUNT as f64 * p * (1.0 - p)).sqrt(),
        );
        assert!(
            (kept - mean).abs() < 5.0 * deviation,
            "p = {p}: {kept} kept, expected {mean}"
        );
    }
}

#[test]
fn a_permuted_view_gets_the_mask_of_its_contiguous_copy() {
    for dtype in DTYPES {
        let base = random(&[6, 35, 4], 1).to_dtype(dtype).unwrap();
        for axes in [[2, 1, 0], [1, 0, 2], [2, 0, 1]] {
            let view = base.permute(&axes).unwrap();
            let copy = view.contiguous().unwrap();
            let dy = random(view.shape(), 2).to_dtype(dtype).unwrap();
            for save in SAVES {
                let (y, dx) = forward_and_backward(&view, 0.5, save, &dy);
                let (copy_y, copy_dx) = forward_and_backward(&copy, 0.5, save, &dy);
                assert_eq!(values(&y), values(&copy_y), "{dtype} {axes:?} {save:?}");
                assert_eq!(values(&dx), values(&copy_dx), "{dtype} {axes:?} {save:?}");
                assert_eq!(dx.shape(), view.shape());
            }
        }
    }
}

#[test]
fn a_permuted_gradient_meets_the_right_mask() {
    let x = random(&[5, 8], 1).requires_grad(true);
    let y = x.dropout(rate(0.5), key(), SaveMask::Bits).unwrap();
    let weights = random(&[8, 5], 2);
    // The gradient reaches dropout as a permuted view.
    y.transpose(0, 1).unwrap().backward_with(&weights).unwrap();
    let scale_and_mask = no_grad(|| {
        let ones = Tensor::ones([5, 8], DType::F64).unwrap();
        ones.dropout(rate(0.5), key(), SaveMask::Bits).unwrap()
    });
    let expected = weights
        .transpose(0, 1)
        .unwrap()
        .mul(&scale_and_mask)
        .unwrap();
    assert_eq!(values(&x.grad().unwrap()), values(&expected));
}

#[test]
fn one_mask_for_all_dtypes() {
    let kept = |dtype| -> Vec<bool> {
        let ones = Tensor::ones([777], dtype).unwrap();
        values(&ones.dropout(rate(0.4), key(), SaveMask::Bits).unwrap())
            .iter()
            .map(|&y| y != 0.0)
            .collect()
    };
    let expected = kept(DType::F64);
    assert!(expected.contains(&true) && expected.contains(&false));
    for dtype in DTYPES {
        assert_eq!(kept(dtype), expected, "{dtype}");
    }
}

#[test]
fn replay_and_bits_give_the_same_gradients_bit_for_bit() {
    for dtype in DTYPES {
        let x = random(&[3, 1111], 1).to_dtype(dtype).unwrap();
        let dy = random(&[3, 1111], 2).to_dtype(dtype).unwrap();
        for p in [1e-10, 0.1, 0.5, 0.9, 1.0] {
            let bits = |save| {
                let (y, dx) = forward_and_backward(&x, p, save, &dy);
                let bits = |x: &Tensor| values(x).into_iter().map(f64::to_bits).collect::<Vec<_>>();
                (bits(&y), bits(&dx))
            };
            assert_eq!(
                bits(SaveMask::Bits),
                bits(SaveMask::Replay),
                "{dtype} p = {p}"
            );
        }
    }
}

#[test]
fn a_window_is_a_part_of_the_whole() {
    let x = random(&[1000], 1);
    let whole = x
        .dropout(rate(0.5), key(), SaveMask::Bits)
        .unwrap()
        .to_vec::<f64>()
        .unwrap();
    for save in SAVES {
        let part = Tensor::from_slice(&x.to_vec::<f64>().unwrap()[300..450], [10, 15]).unwrap();
        let part = part.requires_grad(true);
        let y = part.dropout(rate(0.5), key().window(300), save).unwrap();
        assert_eq!(y.to_vec::<f64>().unwrap(), whole[300..450], "{save:?}");
        y.sum().unwrap().backward().unwrap();
        assert_eq!(
            values(&part.mul(&part.grad().unwrap()).unwrap()),
            whole[300..450]
        );
    }
    let beyond = x
        .dropout(rate(0.5), key().window(u64::MAX), SaveMask::Bits)
        .unwrap_err();
    assert_eq!(
        beyond.to_string(),
        "dropout(float64[1000]): a window must end at or before element 2^64 - 1: got 1000 elements from element 18446744073709551615"
    );
}

#[test]
fn rate_0_is_the_tensor_itself() {
    let x = random(&[10], 1).requires_grad(true);
    let y = x.dropout(rate(0.0), key(), SaveMask::Bits).unwrap();
    assert!(y.same_storage(&x) && y.is_leaf());
    let view = random(&[2, 3], 1).transpose(0, 1).unwrap();
    assert!(
        view.dropout(rate(0.0), key(), SaveMask::Bits)
            .unwrap()
            .same_storage(&view)
    );
}

#[test]
fn rate_1_is_zero_and_so_is_its_gradient() {
    for dtype in DTYPES {
        for save in SAVES {
            let x = Tensor::full([100], -3.0, dtype).unwrap();
            let dy = Tensor::full([100], f64::NEG_INFINITY, dtype).unwrap();
            let (y, dx) = forward_and_backward(&x, 1.0, save, &dy);
            for result in [y, dx] {
                assert!(
                    values(&result).iter().all(|y| y.to_bits() == 0),
                    "{dtype} {save:?}: +0.0"
                );
            }
        }
    }
}

#[test]
fn what_is_dropped_does_not_leak() {
    for special in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0] {
        for dtype in DTYPES {
            for save in SAVES {
                let x = Tensor::full([512], special, dtype).unwrap();
                let (y, dx) = forward_and_backward(&x, 0.5, save, &x);
                let scaled = |y: f64| y == 2.0 * special || (y.is_nan() && special.is_nan());
                for result in [y, dx] {
                    let result = values(&result);
                    assert!(result.iter().all(|&y| y.to_bits() == 0 || scaled(y)));
                    assert!(result.iter().any(|y| y.to_bits() == 0));
                    assert!(result.iter().any(|&y| scaled(y)));
                }
            }
        }
    }
}

#[test]
fn empty_and_zero_dimensional_tensors() {
    for shape in [&[0][..], &[3, 0, 2]] {
        for p in [0.5, 1.0] {
            for save in SAVES {
                let x = Tensor::zeros(shape, DType::F32).unwrap();
                let (y, dx) = forward_and_backward(&x, p, save, &x);
                assert_eq!((y.shape(), dx.shape()), (shape, shape));
            }
        }
    }
    let x = tensor(3.0).requires_grad(true);
    let y = x.dropout(rate(0.5), key(), SaveMask::Bits).unwrap();
    y.backward().unwrap();
    let (y, dx) = (
        y.item::<f64>().unwrap(),
        x.grad().unwrap().item::<f64>().unwrap(),
    );
    assert!((y, dx) == (0.0, 0.0) || (y, dx) == (6.0, 2.0));
}

#[test]
fn a_tiny_rate_drops_nothing_of_a_small_tensor_and_scales_by_one() {
    let x = random(&[64, 33], 1);
    let (y, dx) = forward_and_backward(
        &x.transpose(0, 1).unwrap(),
        1e-10,
        SaveMask::Bits,
        &x.transpose(0, 1).unwrap(),
    );
    for result in [y, dx] {
        for (got, expected) in values(&result)
            .iter()
            .zip(values(&x.transpose(0, 1).unwrap()))
        {
            assert!(
                (got - expected).abs() <= 1e-9 * expected.abs(),
                "{got} {expected}"
            );
        }
    }
}

#[test]
fn the_given_gradient_is_not_written() {
    let dy = random(&[100], 3);
    let before = values(&dy);
    for save in SAVES {
        let (_, dx) = forward_and_backward(&random(&[100], 1), 0.5, save, &dy);
        assert_eq!(values(&dy), before);
        assert!(!dx.same_storage(&dy));
    }
}

#[test]
fn the_graph_can_be_run_twice_with_the_same_mask() {
    let x = random(&[100], 1).requires_grad(true);
    for save in SAVES {
        x.zero_grad();
        let y = x.dropout(rate(0.5), key(), save).unwrap().sum().unwrap();
        y.backward_retain_graph(None).unwrap();
        let once = values(&x.grad().unwrap());
        y.backward().unwrap();
        assert_eq!(
            values(&x.grad().unwrap()),
            once.iter().map(|g| 2.0 * g).collect::<Vec<_>>()
        );
        assert!(y.backward().is_err());
    }
}
