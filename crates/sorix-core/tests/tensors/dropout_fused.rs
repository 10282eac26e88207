//! Dropout fused with a bias, a residual or an activation: against the operations apart, its corner cases,
//! and what it keeps.

use crate::common::{DTYPES, far_out, pool, random, values};
use sorix_core::autograd::no_grad;
use sorix_core::{Activation, DType, DropRate, MaskKey, Result, SaveMask, Tensor, tensor};

const SAVES: [SaveMask; 2] = [SaveMask::Bits, SaveMask::Replay];
const RATES: [f64; 4] = [0.0, 0.1, 0.5, 1.0];
const KEY: MaskKey = MaskKey { seed: 4, offset: 2 };

fn rate(p: f64) -> DropRate {
    DropRate::new(p).unwrap()
}

/// The bits of the output and of the gradient of each input.
fn bits(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Vec<Vec<u64>> {
    let leaves: Vec<Tensor> = inputs.iter().map(|x| x.requires_grad(true)).collect();
    let y = f(&leaves).unwrap();
    let weights = random(y.shape(), 99).to_dtype(y.dtype()).unwrap();
    y.backward_with(&weights).unwrap();
    let gradients = leaves.iter().map(|x| x.grad().unwrap());
    let all = core::iter::once(y).chain(gradients);
    all.map(|x| values(&x).into_iter().map(f64::to_bits).collect())
        .collect()
}

/// In f32 and f64 nothing is rounded but what the operations apart round: every bit is the same.
#[test]
fn each_is_the_operations_apart_bit_for_bit() {
    for dtype in [DType::F32, DType::F64] {
        for shape in [&[7, 3, 50][..], &[2000], &[0, 5], &[40, 1]] {
            let of = |salt| random(shape, salt).to_dtype(dtype).unwrap();
            let bias = random(&shape[shape.len() - 1..], 3);
            let (x, residual, bias) = (of(1), of(2), bias.to_dtype(dtype).unwrap());
            for (p, save) in RATES.into_iter().flat_map(|p| SAVES.map(|save| (p, save))) {
                let what = format!("{dtype} {shape:?}, p = {p}, {save:?}");
                let dropped = |x: &Tensor| x.dropout(rate(p), KEY, save);
                assert_eq!(
                    bits(&[x.clone(), bias.clone(), residual.clone()], |x| {
                        x[0].bias_dropout_add(&x[1], &x[2], rate(p), KEY, save)
                    }),
                    bits(&[x.clone(), bias.clone(), residual.clone()], |x| {
                        x[2].add(&dropped(&x[0].add(&x[1])?)?)
                    }),
                    "bias_dropout_add of {what}"
                );
                let mut mask_shape = vec![1; shape.len()];
                mask_shape[0] = shape[0];
                assert_eq!(
                    bits(&[x.clone(), residual.clone()], |x| {
                        x[0].dropout_add_broadcast(&x[1], rate(p), KEY, &mask_shape, save)
                    }),
                    bits(&[x.clone(), residual.clone()], |x| {
                        x[1].add(&x[0].dropout_broadcast(rate(p), KEY, &mask_shape, save)?)
                    }),
                    "dropout_add_broadcast of {what}"
                );
                assert_eq!(
                    bits(&[x.clone(), bias.clone()], |x| {
                        x[0].act_dropout(Activation::Relu, Some(&x[1]), rate(p), KEY, save)
                    }),
                    bits(&[x.clone(), bias.clone()], |x| dropped(
                        &x[0].add(&x[1])?.relu()?
                    )),
                    "act_dropout of {what}"
                );
            }
        }
    }
}

/// The activation by an operation of its own.
fn activated(activation: Activation, x: &Tensor) -> Result<Tensor> {
    match activation {
        Activation::Relu => x.relu(),
        Activation::Gelu => x.gelu(),
        Activation::GeluTanh => x.gelu_tanh(),
        Activation::Silu => x.silu(),
        other => panic!("{} has no operation of its own", other.name()),
    }
}

/// Gradients are the same where the scale is a power of two, as its product is not rounded then, and near
/// elsewhere.
#[test]
fn activations_are_the_operations_apart() {
    for (dtype, off) in [(DType::F32, 1e-6), (DType::F64, 1e-14)] {
        for shape in [&[7, 3, 50][..], &[2000], &[0, 5], &[40, 1]] {
            let of = |salt| random(shape, salt).to_dtype(dtype).unwrap();
            let bias = random(&shape[shape.len() - 1..], 3);
            let (x, up, bias) = (of(1), of(2), bias.to_dtype(dtype).unwrap());
            for (p, save) in RATES.into_iter().flat_map(|p| SAVES.map(|save| (p, save))) {
                let what = format!("{dtype} {shape:?}, p = {p}, {save:?}");
                let dropped = |x: &Tensor| x.dropout(rate(p), KEY, save);
                let check = |name: &str, fused: Vec<Vec<u64>>, apart: Vec<Vec<u64>>| {
                    assert_eq!(fused[0], apart[0], "{name} of {what}");
                    if p != 0.1 {
                        // Apart, a dropped element's gradient is zero times a slope, of either sign.
                        let unsigned = |all: &[Vec<u64>]| -> Vec<f64> {
                            let numbers = all.iter().flatten().copied();
                            numbers.map(|bits| f64::from_bits(bits) + 0.0).collect()
                        };
                        assert_eq!(unsigned(&fused), unsigned(&apart), "{name} of {what}");
                    }
                    for (a, b) in fused.iter().flatten().zip(apart.iter().flatten()) {
                        let (a, b) = (f64::from_bits(*a), f64::from_bits(*b));
                        let near = (a - b).abs() <= off * (1.0 + b.abs());
                        assert!(near, "{name} of {what}: {a}, {b}");
                    }
                };
                for &activation in Activation::ALL {
                    let inputs = [x.clone(), bias.clone()];
                    let fused = bits(&inputs, |x| {
                        x[0].act_dropout(activation, Some(&x[1]), rate(p), KEY, save)
                    });
                    let apart = bits(&inputs, |x| {
                        dropped(&activated(activation, &x[0].add(&x[1])?)?)
                    });
                    check(activation.name(), fused, apart);
                    let alone = bits(&inputs[..1], |x| {
                        x[0].act_dropout(activation, None, rate(p), KEY, save)
                    });
                    let apart = bits(&inputs[..1], |x| dropped(&activated(activation, &x[0])?));
                    check(activation.name(), alone, apart);
                }
                let inputs = [x.clone(), up.clone()];
                let fused = bits(&inputs, |x| x[0].swiglu_dropout(&x[1], rate(p), KEY, save));
                let apart = bits(&inputs, |x| dropped(&x[0].silu()?.mul(&x[1])?));
                // The order of the factors is another one.
                assert_eq!(fused[0], apart[0], "swiglu_dropout of {what}");
                for (a, b) in fused.iter().flatten().zip(apart.iter().flatten()) {
                    let (a, b) = (f64::from_bits(*a), f64::from_bits(*b));
                    let near = (a - b).abs() <= off * (1.0 + b.abs());
                    assert!(near, "swiglu_dropout of {what}: {a}, {b}");
                }
            }
        }
    }
}

#[test]
fn only_gradients_that_are_wanted_are_made() {
    let (x, other) = (random(&[4, 6], 1), random(&[6], 2));
    for save in SAVES {
        let silu = Activation::Silu;
        let leaf = other.requires_grad(true);
        let y = x
            .act_dropout(silu, Some(&leaf), rate(0.5), KEY, save)
            .unwrap();
        y.sum().unwrap().backward().unwrap();
        assert!(leaf.grad().is_some() && x.grad().is_none());
        for of_up in [false, true] {
            let (gate, up) = (x.requires_grad(!of_up), x.requires_grad(of_up));
            let y = gate.swiglu_dropout(&up, rate(0.5), KEY, save).unwrap();
            y.sum().unwrap().backward().unwrap();
            assert_eq!(
                (gate.grad().is_some(), up.grad().is_some()),
                (!of_up, of_up)
            );
        }
    }
}

#[test]
fn an_activation_whose_input_was_written_has_no_gradient() {
    let x = random(&[100], 1).requires_grad(true);
    let y = x.act_dropout(Activation::Gelu, None, rate(0.5), KEY, SaveMask::Bits);
    let y = y.unwrap();
    no_grad(|| x.assign(&random(&[100], 7))).unwrap();
    let error = y.sum().unwrap().backward().unwrap_err().to_string();
    assert!(error.contains("ActDropoutBackward"), "{error}");
}

/// Nearest to what is computed without rounding, where the operations apart go astray.
#[test]
fn sixteen_bits_are_rounded_once() {
    for dtype in [DType::F16, DType::BF16] {
        let of = |shape: &[usize], salt| random(shape, salt).to_dtype(dtype).unwrap();
        let (x, bias, residual) = (of(&[40, 50], 1), of(&[50], 2), of(&[40, 50], 3));
        let wide = |x: &Tensor| x.to_dtype(DType::F64).unwrap();
        let y = x.bias_dropout_add(&bias, &residual, rate(0.5), KEY, SaveMask::Bits);
        // At p = 1/2 every step is exact in f64.
        let exact = wide(&x).add(&wide(&bias)).unwrap();
        let exact = exact.dropout(rate(0.5), KEY, SaveMask::Bits).unwrap();
        let exact = exact.add(&wide(&residual)).unwrap();
        let nearest = exact.to_dtype(DType::F32).unwrap().to_dtype(dtype).unwrap();
        assert_eq!(values(&y.unwrap()), values(&nearest), "{dtype}");
    }
}

#[test]
fn the_gradient_of_a_bias_is_wider_than_sixteen_bits_on_the_way() {
    // 3000 gradients of 1: added up in bf16 they would stop at 256.
    let x = Tensor::ones([3000, 2], DType::BF16).unwrap();
    let bias = Tensor::zeros([2], DType::BF16).unwrap().requires_grad(true);
    let y = x.act_dropout(
        Activation::Relu,
        Some(&bias),
        rate(0.0),
        KEY,
        SaveMask::Bits,
    );
    y.unwrap().sum().unwrap().backward().unwrap();
    assert_eq!(values(&bias.grad().unwrap()), [3008.0; 2]);
}

#[test]
fn the_number_of_threads_does_not_show() {
    let (x, bias) = (random(&[1500, 700], 1), random(&[700], 2));
    let run = |threads| {
        pool(threads).install(|| {
            bits(&[x.clone(), bias.clone()], |x| {
                let y = x[0].bias_dropout_add(&x[1], &x[0], rate(0.1), KEY, SaveMask::Replay)?;
                y.act_dropout(
                    Activation::Relu,
                    Some(&x[1]),
                    rate(0.1),
                    KEY,
                    SaveMask::Bits,
                )
            })
        })
    };
    assert!(run(1) == run(2));
}

#[test]
fn a_residual_gets_the_gradient_itself() {
    let x = random(&[100], 1).requires_grad(true);
    let residual = random(&[100], 2).mul(&x).unwrap();
    let y = x.dropout_add(&residual, rate(0.5), KEY, SaveMask::Bits);
    let y = y.unwrap();
    let loss = y.mul(&random(&[100], 3)).unwrap().sum().unwrap();
    let found = sorix_core::autograd::grad(&[&loss], &[&y, &residual]).unwrap();
    let [of_y, of_residual] = [0, 1].map(|i| found[i].clone().unwrap());
    assert!(of_residual.same_storage(&of_y));
}

#[test]
fn the_rectifier_keeps_no_tensor() {
    // Backward does not see that x and the output are written, as no gradient depends on them.
    let x = random(&[100], 1).requires_grad(true);
    for save in SAVES {
        x.zero_grad();
        let relu = Activation::Relu;
        let y = x.act_dropout(relu, None, rate(0.5), KEY, save).unwrap();
        let before = values(&y);
        no_grad(|| x.assign(&random(&[100], 7))).unwrap();
        y.sum().unwrap().backward().unwrap();
        let expected: Vec<f64> = before
            .iter()
            .map(|&y| if y > 0.0 { 2.0 } else { 0.0 })
            .collect();
        assert_eq!(values(&x.grad().unwrap()), expected);
        no_grad(|| x.assign(&random(&[100], 1))).unwrap();
    }
}

#[test]
fn nan_is_kept_or_dropped_as_any_number() {
    for dtype in DTYPES {
        let x = Tensor::full([200], f64::NAN, dtype)
            .unwrap()
            .requires_grad(true);
        let y = x.act_dropout(Activation::Relu, None, rate(0.5), KEY, SaveMask::Bits);
        let y = y.unwrap();
        y.sum().unwrap().backward().unwrap();
        let (y, dx) = (values(&y), values(&x.grad().unwrap()));
        assert!(y.iter().any(|y| y.is_nan()) && y.contains(&0.0));
        for (y, dx) in y.into_iter().zip(dx) {
            assert!(
                y.is_nan() && dx == 2.0 || y == 0.0 && dx == 0.0,
                "{dtype}: {y}, {dx}"
            );
        }
    }
}

#[test]
fn samples_that_are_dropped_are_not_read() {
    let x = Tensor::full([50, 600], f64::NAN, DType::F32).unwrap();
    let residual = random(&[50, 600], 1).to_dtype(DType::F32).unwrap();
    let y = x.dropout_add_broadcast(&residual, rate(0.5), KEY, &[50, 1], SaveMask::Bits);
    let (y, residual) = (values(&y.unwrap()), values(&residual));
    let mut dropped = 0;
    for (y, residual) in y.chunks(600).zip(residual.chunks(600)) {
        dropped += usize::from(y == residual);
        assert!(y == residual || y.iter().all(|y| y.is_nan()));
    }
    assert!((10..40).contains(&dropped), "{dropped} of 50");
}

#[test]
fn views_get_the_mask_of_their_copies() {
    let x = random(&[30, 20], 1).transpose(0, 1).unwrap();
    let (residual, bias) = (
        random(&[30, 20], 2).transpose(0, 1).unwrap(),
        random(&[30], 3),
    );
    let of = |x: &Tensor, residual: &Tensor| {
        let y = x.bias_dropout_add(&bias, residual, rate(0.3), KEY, SaveMask::Bits);
        values(&y.unwrap())
    };
    let copies = (x.contiguous().unwrap(), residual.contiguous().unwrap());
    assert_eq!(of(&x, &residual), of(&copies.0, &copies.1));
}

#[test]
fn what_does_not_fit_is_an_error() {
    let (x, residual) = (random(&[4, 3], 1), random(&[4, 3], 2));
    let message = |y: Result<Tensor>| y.unwrap_err().to_string();
    assert_eq!(
        message(x.bias_dropout_add(&random(&[4], 3), &residual, rate(0.5), KEY, SaveMask::Bits)),
        "bias_dropout_add(float64[4, 3], float64[4], float64[4, 3]): expected shape [3], got [4]"
    );
    let narrow = tensor([1.0, 2.0, 3.0]).to_dtype(DType::F32).unwrap();
    assert_eq!(
        message(x.act_dropout(
            Activation::Relu,
            Some(&narrow),
            rate(0.5),
            KEY,
            SaveMask::Bits
        )),
        "act_dropout(float64[4, 3], float32[3]): expected dtype sorix.float64, got sorix.float32"
    );
    let other = random(&[3, 4], 2);
    assert_eq!(
        message(x.dropout_add_broadcast(&other, rate(0.5), KEY, &[4, 1], SaveMask::Bits)),
        "dropout_add_broadcast(float64[4, 3], float64[3, 4]): expected shape [4, 3], got [3, 4]"
    );
    assert_eq!(
        message(x.swiglu_dropout(&other, rate(0.5), KEY, SaveMask::Bits)),
        "swiglu_dropout(float64[4, 3], float64[3, 4]): expected shape [4, 3], got [3, 4]"
    );
    let error = message(x.dropout_add_broadcast(&residual, rate(0.5), KEY, &[4], SaveMask::Bits));
    assert!(error.contains("mask shape"), "{error}");
}

/// What is kept has the value and gradient of the asymptote, at large numbers and at infinity, whether x or the bias is
/// so large; and what is dropped has zeros.
#[test]
fn activations_far_out_are_their_asymptotes() {
    const SHAPE: [usize; 2] = [90, 2];
    let keep = Tensor::ones(SHAPE, DType::F64).unwrap();
    let keep = values(&keep.dropout(rate(0.5), KEY, SaveMask::Bits).unwrap());
    assert!(keep.contains(&0.0) && keep.contains(&2.0));
    // Of a column far below 0 and one far above, of what was kept, by its number, else +0.0; in this dtype.
    let of = |columns: [f64; 2], dtype: DType| {
        let all = keep.iter().zip(columns.into_iter().cycle());
        let all = all.map(|(&keep, far)| if keep == 0.0 { 0.0 } else { keep * far });
        let all = Tensor::from_vec(all.collect::<Vec<_>>(), SHAPE).unwrap();
        values(&all.to_dtype(dtype).unwrap())
    };
    let zeros_are_positive = |got: &[f64]| {
        let zeros = got.iter().zip(&keep).filter(|(_, keep)| **keep == 0.0);
        zeros.into_iter().all(|(x, _)| x.to_bits() == 0)
    };
    for (dtype, save) in DTYPES
        .into_iter()
        .flat_map(|dtype| SAVES.map(|save| (dtype, save)))
    {
        for far in far_out(dtype) {
            let row = tensor([-far, far]).to_dtype(dtype).unwrap();
            let (large, zeros) = (
                row.expand(SHAPE).unwrap(),
                Tensor::zeros(SHAPE, dtype).unwrap(),
            );
            let upper = values(&row)[1];
            for &activation in Activation::ALL {
                let what = format!("{activation:?} of {dtype} at {far:e}, {save:?}");
                for (x, bias) in [(&large, None), (&zeros, Some(&row))] {
                    let x = x.contiguous().unwrap().detach().requires_grad(true);
                    let bias = bias.map(|bias| bias.detach().requires_grad(true));
                    let y = x.act_dropout(activation, bias.as_ref(), rate(0.5), KEY, save);
                    let y = y.unwrap();
                    y.backward_with(&Tensor::full(SHAPE, 3.0, dtype).unwrap())
                        .unwrap();
                    let dx = values(&x.grad().unwrap());
                    assert_eq!(values(&y), of([0.0, upper], dtype), "{what}");
                    assert_eq!(dx, of([0.0, 3.0], dtype), "{what}");
                    assert!(
                        zeros_are_positive(&values(&y)) && zeros_are_positive(&dx),
                        "{what}"
                    );
                    if let Some(bias) = bias {
                        let kept = keep.iter().skip(1).step_by(2).sum::<f64>();
                        let expected = tensor([0.0, 3.0 * kept]).to_dtype(dtype).unwrap();
                        assert_eq!(values(&bias.grad().unwrap()), values(&expected), "{what}");
                    }
                }
            }
            let what = format!("swiglu of {dtype} at {far:e}, {save:?}");
            let gate = large.contiguous().unwrap().detach().requires_grad(true);
            let up = Tensor::full(SHAPE, 0.5, dtype).unwrap().requires_grad(true);
            let y = gate.swiglu_dropout(&up, rate(0.5), KEY, save).unwrap();
            y.backward_with(&Tensor::full(SHAPE, 3.0, dtype).unwrap())
                .unwrap();
            let [d_gate, d_up] = [&gate, &up].map(|x| values(&x.grad().unwrap()));
            assert_eq!(values(&y), of([0.0, 0.5 * upper], dtype), "{what}");
            assert_eq!(d_gate, of([0.0, 1.5], dtype), "{what}");
            assert_eq!(d_up, of([0.0, 3.0 * upper], dtype), "{what}");
            for got in [values(&y), d_gate, d_up] {
                assert!(zeros_are_positive(&got), "{what}");
            }
        }
    }
}
