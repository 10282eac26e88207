//! What dropout of an activation means in every corner case, for every backend by name.

use half::{bf16, f16};
use sorix_kernels::stream::TILE;
use sorix_kernels::{Activation, BitMask, Buffers, Element, Engine, Function, MaskKey};

use crate::common::{for_each_backend, rate};

const KEY: MaskKey = MaskKey { seed: 3, offset: 4 };

/// Dropout of the rectifier of `x` and a bias, and the bits that are left.
fn relu<T: Element>(engine: Engine<'_>, p: f64, x: &[T], bias: Option<&[T]>) -> (Vec<T>, BitMask) {
    let (mut y, mut mask) = (vec![T::ZERO; x.len()], BitMask::new(x.len()));
    let mut buffers = Buffers::new(x, &mut y).unwrap();
    if let Some(bias) = bias {
        buffers = buffers.with_row(bias).unwrap();
    }
    engine
        .act_dropout(Activation::Relu, rate(p), KEY, buffers, Some(&mut mask))
        .unwrap();
    (y, mask)
}

#[test]
fn it_is_dropout_of_the_rectifier_and_its_bits_are_those_of_both() {
    let len = 3 * TILE + 77;
    let x: Vec<f32> = (0..len).map(|i| (i * 7 % 19) as f32 - 9.0).collect();
    for row_len in [0, 1, 30, 64, 1001] {
        let bias: Vec<f32> = (0..row_len).map(|i| (i % 5) as f32 - 2.0).collect();
        let sum = |i: usize| x[i] + bias.get(i % row_len.max(1)).unwrap_or(&0.0);
        let rectified: Vec<f32> = (0..len).map(|i| sum(i).max(0.0)).collect();
        for_each_backend(|engine| {
            for p in [0.0, 0.1, 0.5, 1.0] {
                let (mut want, mut keep) = (vec![0.0; len], BitMask::new(len));
                let buffers = Buffers::new(&rectified, &mut want).unwrap();
                engine.forward(rate(p), KEY, buffers, &mut keep).unwrap();
                let bits = keep.iter().zip(&rectified);
                let want_bits: BitMask = bits.map(|(keep, &y)| keep && y > 0.0).collect();
                let bias = (row_len > 0).then_some(&bias[..]);
                let (y, mask) = relu(engine, p, &x, bias);
                assert_eq!(y, want, "p = {p}, row of {row_len}");
                assert_eq!(mask, want_bits, "p = {p}, row of {row_len}");

                let mut in_place = x.clone();
                let mut buffers = Buffers::in_place(&mut in_place);
                if let Some(bias) = bias {
                    buffers = buffers.with_row(bias).unwrap();
                }
                engine
                    .act_dropout(Activation::Relu, rate(p), KEY, buffers, None)
                    .unwrap();
                assert_eq!(in_place, want, "in place, p = {p}, row of {row_len}");
            }
        });
    }
}

/// The elements of one group and more, of numbers on either side of zero and of NaN of either sign.
fn signs<T: Element>(of: impl Fn(f64) -> T) {
    let numbers = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        f64::NAN,
        -f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
    ];
    // And the least number that there is.
    let mut least = T::ZERO;
    bytemuck::bytes_of_mut(&mut least)[if cfg!(target_endian = "little") {
        0
    } else {
        size_of::<T>() - 1
    }] = 1;
    let x: Vec<T> = (0..200)
        .map(|i| match i % 9 {
            8 => least,
            i => of(numbers[i]),
        })
        .collect();
    for_each_backend(|engine| {
        for p in [0.0, 0.1] {
            let (y, mask) = relu(engine, p, &x, None);
            for (i, (y, left)) in y.into_iter().zip(&mask).enumerate() {
                let is_nan = matches!(i % 9, 4 | 5);
                let is_positive = matches!(i % 9, 2 | 6 | 8);
                assert!(
                    p > 0.0 || left == (is_nan || is_positive),
                    "{:?}: {left}",
                    x[i]
                );
                #[allow(clippy::eq_op, reason = "a NaN is what is not equal to itself")]
                let holds = if left {
                    is_nan && y != y || is_positive && y >= x[i]
                } else {
                    bytemuck::bytes_of(&y).iter().all(|&byte| byte == 0)
                };
                assert!(holds, "{:?} became {y:?}, left: {left}", x[i]);
            }
        }
    });
}

#[test]
fn zeros_nan_and_infinity_are_as_of_the_rectifier() {
    signs(|x| x as f32);
    signs(|x| x);
    signs(bf16::from_f64);
    signs(f16::from_f64);
}

#[test]
fn sixteen_bits_are_rounded_once() {
    // 256.75 / 0.9 is 285.28, nearest to 286. With the sum rounded to 256 it would be 284.
    let (x, bias) = ([bf16::from_f64(256.0); 200], [bf16::from_f64(0.75)]);
    for_each_backend(|engine| {
        let (y, mask) = relu(engine, 0.1, &x, Some(&bias));
        for (y, left) in y.into_iter().zip(&mask) {
            assert_eq!(y.to_f32(), if left { 286.0 } else { 0.0 });
        }
    });
}

#[test]
fn what_does_not_fit_is_an_error_and_nothing_is_written() {
    for_each_backend(|engine| {
        let mut y = [7.0_f32; 4];
        let mut mask = BitMask::new(3);
        let of = |buffers: Buffers<'_, f32>, mask: Option<&mut BitMask>| {
            let done = engine.act_dropout(Activation::Relu, rate(0.5), KEY, buffers, mask);
            done.unwrap_err().to_string()
        };
        let buffers = Buffers::new(&[1.0; 4], &mut y).unwrap();
        assert_eq!(
            of(buffers, Some(&mut mask)),
            "length of mask: expected 4, got 3"
        );
        let buffers = Buffers::new(&[1.0; 4], &mut y).unwrap();
        let buffers = buffers.with_elements(&[1.0; 4]).unwrap();
        assert_eq!(
            of(buffers, None),
            "length of second input: expected 0, got 4"
        );
        let buffers = Buffers::new(&[1.0; 4], &mut y).unwrap();
        let empty = buffers.with_row(&[]).unwrap_err().to_string();
        assert_eq!(empty, "length of row (at least): expected 1, got 0");
        assert_eq!(y, [7.0; 4]);
    });
}

/// Neither threads nor windows nor shards show, in the bits neither.
#[cfg(feature = "parallel")]
#[test]
fn threads_windows_and_shards_agree() {
    use crate::common::one_two_and_seven_threads_agree;

    let (rows, row_len) = (700, 1001);
    let x: Vec<f32> = (0..rows * row_len)
        .map(|i| (i % 1000) as f32 - 500.0)
        .collect();
    let bias: Vec<f32> = (0..row_len).map(|i| i as f32 - 400.0).collect();
    for_each_backend(|engine| {
        if engine.backend().name() == "reference" {
            return;
        }
        for p in [0.0, 0.1] {
            one_two_and_seven_threads_agree(engine, "act_dropout", |engine| {
                relu(engine, p, &x, Some(&bias))
            });
        }
        let (whole, whole_bits) = relu(engine, 0.1, &x, Some(&bias));
        // Columns 100 to 399 of all rows.
        let shard = KEY.shard(&[rows, row_len], 1, 100..400).unwrap();
        let columns: Vec<usize> = (0..rows * row_len)
            .filter(|i| (100..400).contains(&(i % row_len)))
            .collect();
        let x: Vec<f32> = columns.iter().map(|&i| x[i]).collect();
        let (mut y, mut mask) = (vec![0.0; x.len()], BitMask::new(x.len()));
        let buffers = Buffers::new(&x, &mut y).unwrap();
        let buffers = buffers.with_row(&bias[100..400]).unwrap();
        engine
            .act_dropout(Activation::Relu, rate(0.1), shard, buffers, Some(&mut mask))
            .unwrap();
        for (at, &i) in columns.iter().enumerate() {
            assert_eq!(y[at], whole[i]);
            assert_eq!(mask.get(at), whole_bits.get(i));
        }
    });
}

/// x and a gradient, of which every seventh is not a number.
fn x_and_gradient(len: usize) -> (Vec<f32>, Vec<f32>) {
    let x = (0..len).map(|i| (i * 7 % 1009) as f32 / 64.0 - 8.0);
    let dy = (0..len).map(|i| match i % 7 {
        3 => f32::NAN,
        i => i as f32 - 3.5,
    });
    (x.collect(), dy.collect())
}

/// `want` where kept, `+0.0` elsewhere, down to the bits of a NaN's being one.
#[track_caller]
fn assert_masked(got: &[f32], want: &[f32], keep: &BitMask, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, keep) in keep.iter().enumerate() {
        let want = if keep { want[i] } else { 0.0 };
        let same = got[i].to_bits() == want.to_bits() || got[i].is_nan() && want.is_nan();
        assert!(same, "{what}, element {i}: {}, not {want}", got[i]);
    }
}

#[test]
fn it_is_the_activation_then_dropout_bit_for_bit() {
    let len = 2 * TILE + 77;
    let (x, dy) = x_and_gradient(len);
    let bias: Vec<f32> = (0..30).map(|i| (i % 5) as f32 - 2.0).collect();
    let sums: Vec<f32> = (0..len).map(|i| x[i] + bias[i % 30]).collect();
    for_each_backend(|engine| {
        for &activation in Activation::ALL {
            for p in [0.0, 0.1, 0.5, 1.0] {
                let what = format!("{}, p = {p}", activation.name());
                let scale = rate(p).scale() as f32;
                let mut keep = BitMask::new(len);
                engine.fill_mask(rate(p), KEY, &mut keep).unwrap();
                let mut want = vec![0.0; len];
                engine.map(
                    activation.function(),
                    Buffers::new(&sums, &mut want).unwrap(),
                );
                let want: Vec<f32> = want.iter().map(|y| y * scale).collect();

                let (mut y, mut mask) = (vec![9.0; len], BitMask::new(len));
                let buffers = Buffers::new(&x, &mut y).unwrap().with_row(&bias).unwrap();
                engine
                    .act_dropout(activation, rate(p), KEY, buffers, Some(&mut mask))
                    .unwrap();
                assert_masked(&y, &want, &keep, &what);
                if activation != Activation::Relu {
                    assert_eq!(mask, keep, "{what}");
                }

                let mut slope = vec![0.0; len];
                engine.map(
                    activation.derivative(),
                    Buffers::new(&sums, &mut slope).unwrap(),
                );
                let want: Vec<f32> = slope.iter().zip(&dy).map(|(s, g)| s * g * scale).collect();
                let buffers = Buffers::new(&x, &mut y).unwrap().with_row(&bias).unwrap();
                let buffers = buffers.with_elements(&dy).unwrap();
                engine
                    .map_apply(activation.derivative(), rate(p), &mask, buffers)
                    .unwrap();
                let stored = y.clone();
                if activation == Activation::Relu {
                    // Where x is not above 0, the bit is gone, and with it what the gradient has.
                    assert_masked(&y, &want, &mask, &what);
                } else {
                    assert_masked(&y, &want, &keep, &what);
                }

                let mut replayed = dy.clone();
                let buffers = Buffers::new(&x, &mut replayed).unwrap();
                let buffers = buffers.with_row(&bias).unwrap();
                let buffers = buffers.with_elements(&dy).unwrap();
                engine
                    .map_dropout(activation.derivative(), rate(p), KEY, buffers, None)
                    .unwrap();
                if activation != Activation::Relu {
                    assert_masked(&replayed, &stored, &keep, &what);
                }
            }
        }
    });
}

#[test]
fn swiglu_is_silu_of_the_gate_times_up_then_dropout() {
    let len = TILE + 1077;
    let (gate, dy) = x_and_gradient(len);
    let up: Vec<f32> = (0..len).map(|i| (i % 11) as f32 - 5.0).collect();
    for_each_backend(|engine| {
        for p in [0.0, 0.1, 1.0] {
            let what = format!("p = {p}");
            let scale = rate(p).scale() as f32;
            let mut value = vec![0.0; len];
            engine.map(Function::Silu, Buffers::new(&gate, &mut value).unwrap());
            let mut slope = vec![0.0; len];
            let derivative = Function::SiluDerivative;
            engine.map(derivative, Buffers::new(&gate, &mut slope).unwrap());

            let (mut y, mut mask) = (vec![9.0; len], BitMask::new(len));
            let buffers = Buffers::new(&gate, &mut y).unwrap();
            let buffers = buffers.with_elements(&up).unwrap();
            engine
                .map_dropout(Function::Silu, rate(p), KEY, buffers, Some(&mut mask))
                .unwrap();
            let want: Vec<f32> = (0..len).map(|i| value[i] * up[i] * scale).collect();
            assert_masked(&y, &want, &mask, &what);

            let (mut d_gate, mut d_up) = (vec![9.0; len], vec![9.0; len]);
            let of = |d_gate: Option<&mut [f32]>, d_up: Option<&mut [f32]>| {
                let rate = rate(p);
                engine.swiglu_dropout_backward(rate, &mask, &gate, &up, &dy, d_gate, d_up)
            };
            of(Some(&mut d_gate), Some(&mut d_up)).unwrap();
            let want: Vec<f32> = (0..len)
                .map(|i| slope[i] * (dy[i] * up[i]) * scale)
                .collect();
            assert_masked(&d_gate, &want, &mask, &what);
            let want: Vec<f32> = (0..len).map(|i| value[i] * dy[i] * scale).collect();
            assert_masked(&d_up, &want, &mask, &what);

            // Either by itself.
            let (mut one, mut other) = (vec![9.0; len], vec![9.0; len]);
            of(Some(&mut one), None).unwrap();
            of(None, Some(&mut other)).unwrap();
            assert_masked(&one, &d_gate, &mask, &what);
            assert_masked(&other, &d_up, &mask, &what);
        }
    });
}

#[test]
fn the_gradient_of_swiglu_does_not_overflow_where_it_is_small() {
    // 300 * 300 is beyond f16; silu'(-20) is -4e-8.
    let (gate, all) = ([f16::from_f64(-16.0)], [f16::from_f64(300.0)]);
    let mask = BitMask::from_bools(&[true]);
    for_each_backend(|engine| {
        let mut d_gate = all;
        let [up, dy] = [&all, &all];
        engine
            .swiglu_dropout_backward(rate(0.5), &mask, &gate, up, dy, Some(&mut d_gate), None)
            .unwrap();
        // silu'(-16) = s (1 - 16 (1 - s)) = -1.68803e-6, times 90,000, times 2.
        assert_eq!(d_gate[0], f16::from_f64(-0.303_845));
    });
}

#[test]
fn gradients_of_other_lengths_are_errors_and_nothing_is_written() {
    use sorix_kernels::dropout;

    let (silu, mask, x) = (Activation::Silu, BitMask::new(4), [1.0_f32; 4]);
    let mut out = [7.0_f32; 4];
    let of = |done: Result<(), sorix_kernels::Error>| done.unwrap_err().to_string();
    let short = &x[..3];
    assert_eq!(
        of(dropout::act_dropout_backward(
            silu,
            rate(0.5),
            &mask,
            &x,
            None,
            short,
            &mut out
        )),
        "length of gradient: expected 4, got 3"
    );
    assert_eq!(
        of(dropout::act_dropout_replay(
            silu,
            rate(0.5),
            KEY,
            &x,
            Some(short),
            &x,
            &mut out
        )),
        "length of input (whole rows of the bias): expected 3, got 4"
    );
    assert_eq!(
        of(dropout::swiglu_dropout(
            rate(0.5),
            KEY,
            &x,
            short,
            &mut out,
            None
        )),
        "length of up: expected 4, got 3"
    );
    for (up, dy, mask, message) in [
        (short, &x[..], &mask, "length of up: expected 4, got 3"),
        (
            &x[..],
            short,
            &mask,
            "length of gradient: expected 4, got 3",
        ),
        (
            &x[..],
            &x[..],
            &BitMask::new(5),
            "length of mask: expected 4, got 5",
        ),
    ] {
        let out = Some(&mut out[..]);
        let done = dropout::swiglu_dropout_backward(rate(0.5), mask, &x, up, dy, None, out);
        assert_eq!(of(done), message);
    }
    let done =
        dropout::swiglu_dropout_backward(rate(0.5), &mask, &x, &x, &x, Some(&mut out[..3]), None);
    assert_eq!(of(done), "length of gradient of gate: expected 4, got 3");
    assert_eq!(out, [7.0; 4]);
}
