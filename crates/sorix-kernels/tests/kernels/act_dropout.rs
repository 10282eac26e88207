//! What dropout of an activation means in every corner case, for every backend by name.

use half::{bf16, f16};
use sorix_kernels::stream::TILE;
use sorix_kernels::{Activation, BitMask, Buffers, Element, Engine, MaskKey};

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
