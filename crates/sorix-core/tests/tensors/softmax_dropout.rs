//! Dropout of a softmax: against the operations apart, and its corner cases.

use crate::common::{DTYPES, check_gradients, pool, random, values};
use sorix_core::autograd::no_grad;
use sorix_core::{DType, DropRate, MaskKey, MaskRegion, Result, SaveMask, Tensor, tensor};

const SAVES: [SaveMask; 2] = [SaveMask::Bits, SaveMask::Replay];
const KEY: MaskKey = MaskKey { seed: 4, offset: 2 };

fn rate(p: f64) -> DropRate {
    DropRate::new(p).unwrap()
}

/// The output and the gradient of each input, as doubles.
fn all(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Vec<Vec<f64>> {
    let leaves: Vec<Tensor> = inputs.iter().map(|x| x.requires_grad(true)).collect();
    let y = f(&leaves).unwrap();
    let weights = random(y.shape(), 99).to_dtype(y.dtype()).unwrap();
    y.backward_with(&weights).unwrap();
    let gradients = leaves.iter().map(|x| x.grad().unwrap());
    core::iter::once(y)
        .chain(gradients)
        .map(|x| values(&x))
        .collect()
}

fn bits(all: &[Vec<f64>]) -> Vec<u64> {
    let numbers = all.iter().flatten();
    // Apart, a dropped element's gradient may be -0.
    numbers.map(|x| (x + 0.0).to_bits()).collect()
}

#[test]
fn it_is_the_operations_apart_bit_for_bit() {
    for dtype in [DType::F32, DType::F64] {
        for shape in [
            &[3, 40, 50][..],
            &[2000],
            &[0, 5],
            &[40, 1],
            &[3, 0],
            &[2, 3, 16400],
        ] {
            let x = random(shape, 1).to_dtype(dtype).unwrap();
            let mask = random(&shape[shape.len() - 1..], 2);
            let mask = mask.to_dtype(dtype).unwrap();
            for p in [0.0, 0.1, 0.5, 1.0] {
                for save in SAVES {
                    let what = format!("{dtype} {shape:?}, p = {p}, {save:?}");
                    let fused = |x: &Tensor, mask: Option<&Tensor>, scale| {
                        x.softmax_dropout(mask, scale, rate(p), KEY, save)
                    };
                    let inputs = [x.clone(), mask.clone()];
                    assert_eq!(
                        bits(&all(&inputs, |x| fused(&x[0], Some(&x[1]), 0.7))),
                        bits(&all(&inputs, |x| {
                            let scores = x[0].mul_scalar(0.7)?.add(&x[1])?;
                            scores.softmax(-1)?.dropout(rate(p), KEY, save)
                        })),
                        "{what}"
                    );
                    assert_eq!(
                        bits(&all(&inputs[..1], |x| fused(&x[0], None, 0.7))),
                        bits(&all(&inputs[..1], |x| {
                            let scores = x[0].mul_scalar(0.7)?;
                            scores.softmax(-1)?.dropout(rate(p), KEY, save)
                        })),
                        "{what}, no mask"
                    );
                }
            }
        }
    }
}

#[test]
fn sixteen_bits_are_rounded_once() {
    for (dtype, ulp) in [(DType::F16, 2e-3), (DType::BF16, 1.6e-2)] {
        let x = random(&[7, 60], 1).to_dtype(dtype).unwrap();
        let wide = x.to_dtype(DType::F32).unwrap();
        for save in SAVES {
            let of = |x: &Tensor| {
                all(core::slice::from_ref(x), |x| {
                    x[0].softmax_dropout(None, 2.0, rate(0.5), KEY, save)
                })
            };
            let (narrow, wide) = (of(&x), of(&wide));
            let rounded = tensor(wide[0].clone()).to_dtype(DType::F32).unwrap();
            assert_eq!(narrow[0], values(&rounded.to_dtype(dtype).unwrap()));
            for (a, b) in narrow[1].iter().zip(&wide[1]) {
                assert!((a - b).abs() <= ulp * (1e-2 + b.abs()), "{dtype}: {a}, {b}");
            }
        }
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    // A mask that repeats along two axes.
    let inputs = [
        random(&[2, 3, 5], 1),
        random(&[3, 1], 2),
        random(&[1, 5], 3),
    ];
    for save in SAVES {
        check_gradients(&inputs, |x| {
            let mask = x[1].add(&x[2])?;
            x[0].softmax_dropout(Some(&mask), 0.7, rate(0.4), KEY, save)
        });
    }
    check_gradients(&inputs[..2], |x| {
        x[0].softmax_dropout(Some(&x[1]), -1.5, rate(0.4), KEY, SaveMask::Bits)
    });
}

#[test]
fn a_row_that_is_masked_out_is_zeros_and_so_is_its_gradient() {
    let mask = tensor([
        [0.0; 4],
        [f64::NEG_INFINITY; 4],
        [0.0, 0.0, f64::NEG_INFINITY, 0.0],
    ]);
    for dtype in DTYPES {
        let x = random(&[2, 3, 4], 1).to_dtype(dtype).unwrap();
        let mask = mask.to_dtype(dtype).unwrap();
        for p in [0.0, 0.5] {
            let found = all(core::slice::from_ref(&x), |x| {
                x[0].softmax_dropout(Some(&mask), 1.0, rate(p), KEY, SaveMask::Replay)
            });
            for rows in found {
                for (i, row) in rows.chunks(4).enumerate() {
                    match i % 3 {
                        1 => assert_eq!(row, [0.0; 4], "{dtype}"),
                        2 => assert_eq!(row[2], 0.0, "{dtype}"),
                        _ => {}
                    }
                    assert!(row.iter().all(|x| x.is_finite()), "{dtype}: {row:?}");
                }
            }
        }
    }
}

#[test]
fn views_and_shards_get_their_part_of_the_mask() {
    let shape = [4, 30, 50];
    let x = random(&[4, 50, 30], 1).transpose(1, 2).unwrap();
    let of = |x: &Tensor, at: MaskRegion| {
        values(
            &x.softmax_dropout(None, 1.0, rate(0.3), at, SaveMask::Bits)
                .unwrap(),
        )
    };
    let whole = of(&x, KEY.into());
    assert_eq!(whole, of(&x.contiguous().unwrap(), KEY.into()));
    for axis in [0, 1] {
        for save in SAVES {
            let parts = (0..2).map(|w| {
                let half = shape[axis] / 2;
                let range = w * half..(w + 1) * half;
                let at = KEY.shard(&shape, axis, range.clone()).unwrap();
                let part = x.slice(axis as isize, range).unwrap();
                part.softmax_dropout(None, 1.0, rate(0.3), at, save)
                    .unwrap()
            });
            let parts: Vec<Tensor> = parts.collect();
            let joined = Tensor::concat(&parts.iter().collect::<Vec<_>>(), axis as isize);
            assert_eq!(values(&joined.unwrap()), whole, "axis {axis}, {save:?}");
        }
    }
}

#[test]
fn the_number_of_threads_does_not_show() {
    // 300 Ki elements: enough to share out, and rows do not fill tiles of the mask.
    let (x, mask) = (random(&[997, 307], 1), random(&[997, 1], 2));
    for (dtype, save) in [
        (DType::BF16, SaveMask::Replay),
        (DType::F32, SaveMask::Bits),
    ] {
        let [x, mask] = [&x, &mask].map(|x| x.to_dtype(dtype).unwrap());
        let run = |threads| {
            pool(threads).install(|| {
                bits(&all(&[x.clone(), mask.clone()], |x| {
                    x[0].softmax_dropout(Some(&x[1]), 0.3, rate(0.1), KEY, save)
                }))
            })
        };
        let one = run(1);
        assert!(one == run(2) && one == run(5), "{dtype}");
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let x = random(&[4, 3], 1);
    let message = |y: Result<Tensor>| y.unwrap_err().to_string();
    let of = |mask: &Tensor| x.softmax_dropout(Some(mask), 1.0, rate(0.5), KEY, SaveMask::Bits);
    assert_eq!(
        message(of(&random(&[4], 3))),
        "softmax_dropout(float64[4, 3], float64[4]): shapes [4] and [4, 3] do not broadcast"
    );
    assert_eq!(
        message(of(&random(&[3], 3).to_dtype(DType::F32).unwrap())),
        "softmax_dropout(float64[4, 3], float32[3]): expected dtype sorix.float64, got sorix.float32"
    );
    let none = tensor(1.0).softmax_dropout(None, 1.0, rate(0.5), KEY, SaveMask::Bits);
    assert_eq!(
        message(none),
        "softmax_dropout(float64[]): axis -1 is out of range"
    );
    let shard = KEY.shard(&[8, 4], 0, 0..4).unwrap();
    let error = message(x.softmax_dropout(None, 1.0, rate(0.5), shard, SaveMask::Bits));
    assert_eq!(
        error,
        "softmax_dropout(float64[4, 3]): length of shard: expected 16, got 12"
    );
    // Of 16 bits x is what is kept.
    let x = x.to_dtype(DType::F16).unwrap().requires_grad(true);
    let y = x
        .softmax_dropout(None, 1.0, rate(0.5), KEY, SaveMask::Bits)
        .unwrap();
    no_grad(|| x.assign(&random(&[4, 3], 7).to_dtype(DType::F16).unwrap())).unwrap();
    let error = y.sum().unwrap().backward().unwrap_err().to_string();
    assert!(error.contains("SoftmaxDropoutBackward"), "{error}");
}
