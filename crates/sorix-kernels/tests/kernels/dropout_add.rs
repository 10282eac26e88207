//! What a residual plus dropout means in every corner case, for every backend by name.

use half::bf16;
use sorix_kernels::stream::TILE;
use sorix_kernels::{BitMask, Broadcast, Buffers, Element, Engine, MaskKey};

use crate::common::{for_each_backend, rate};

const KEY: MaskKey = MaskKey { seed: 8, offset: 9 };

/// The sum, and the mask, of `x` and a residual as long.
fn add<T: Element>(engine: Engine<'_>, p: f64, x: &[T], residual: &[T]) -> (Vec<T>, BitMask) {
    let mut y = vec![T::ZERO; x.len()];
    let mut mask = BitMask::new(x.len());
    let buffers = Buffers::new(residual, &mut y).unwrap();
    let buffers = buffers.with_elements(x).unwrap();
    let done = engine.dropout_add(rate(p), KEY, buffers, Some(&mut mask));
    done.unwrap();
    (y, mask)
}

#[test]
fn it_is_the_residual_plus_dropout() {
    let x: Vec<f32> = (0..3000).map(|i| (i % 17) as f32 - 8.0).collect();
    let residual: Vec<f32> = (0..3000).map(|i| 0.5 * (i % 7) as f32).collect();
    for_each_backend(|engine| {
        for p in [0.0, 0.1, 0.5, 1.0] {
            let (mut dropped, mut mask) = (vec![0.0; x.len()], BitMask::new(x.len()));
            let buffers = Buffers::new(&x, &mut dropped).unwrap();
            engine.forward(rate(p), KEY, buffers, &mut mask).unwrap();
            let want: Vec<f32> = residual.iter().zip(&dropped).map(|(r, x)| r + x).collect();
            let (got, got_mask) = add(engine, p, &x, &residual);
            assert_eq!((&got, &got_mask), (&want, &mask), "p = {p}");

            let mut in_place = residual.clone();
            let buffers = Buffers::in_place(&mut in_place).with_elements(&x).unwrap();
            engine.dropout_add(rate(p), KEY, buffers, None).unwrap();
            assert_eq!(in_place, want, "in place, p = {p}");
        }
    });
}

#[test]
fn what_is_dropped_leaves_the_residual_as_it_is() {
    // A signalling NaN in the residual, and what must not leak in x.
    let residual = [f32::from_bits(0x7F80_0001), -0.0, 1.0];
    let bits = |y: &[f32]| y.iter().map(|y| y.to_bits()).collect::<Vec<_>>();
    for_each_backend(|engine| {
        let x = [f32::NAN, f32::INFINITY, f32::NAN];
        let (y, mask) = add(engine, 1.0, &x, &residual);
        assert_eq!(bits(&y), bits(&residual));
        assert_eq!(mask.count_kept(), 0);

        let rows = Broadcast::new(&[3, 1], &[3, 1]).unwrap();
        let mut y = [9.0; 3];
        let mask = BitMask::from_bools(&[false, false, true]);
        let buffers = Buffers::new(&residual, &mut y).unwrap();
        let buffers = buffers.with_elements(&[f32::NAN, f32::NAN, 2.0]).unwrap();
        engine
            .dropout_add_broadcast(rate(0.5), &mask, &rows, buffers)
            .unwrap();
        assert_eq!(bits(&y), bits(&[residual[0], residual[1], 5.0]));
    });
}

#[test]
fn sixteen_bits_are_rounded_once() {
    // 0.90234375 / 0.9 is 1.0026, and 256 plus that is nearest to 258. Rounded after each step it would be 256:
    // the product alone is nearest to 1, and 257 is half way.
    let [x, residual, sum] = [0.902_343_75, 256.0, 258.0].map(bf16::from_f64);
    for_each_backend(|engine| {
        let (y, mask) = add(engine, 0.1, &[x; 200], &[residual; 200]);
        for (y, keep) in y.into_iter().zip(&mask) {
            assert_eq!(y, if keep { sum } else { residual });
        }
    });
}

#[test]
fn a_bias_is_added_before_dropout() {
    // Rows of a length that no vector has, and of the length of one element, of a group and of all.
    for row_len in [1, 30, 64, 75, 3000] {
        let x: Vec<f32> = (0..3000).map(|i| (i % 17) as f32 - 8.0).collect();
        let bias: Vec<f32> = (0..row_len).map(|i| 0.25 * (i % 13) as f32).collect();
        let residual: Vec<f32> = (0..3000).map(|i| 0.5 * (i % 7) as f32).collect();
        let sums: Vec<f32> = (0..3000).map(|i| x[i] + bias[i % row_len]).collect();
        for_each_backend(|engine| {
            for p in [0.0, 0.1, 0.5, 1.0] {
                let (want, want_mask) = add(engine, p, &sums, &residual);
                let (mut y, mut mask) = (vec![0.0; 3000], BitMask::new(3000));
                let buffers = Buffers::new(&residual, &mut y).unwrap();
                let buffers = buffers.with_elements(&x).unwrap();
                let buffers = buffers.with_row(&bias).unwrap();
                engine
                    .dropout_add(rate(p), KEY, buffers, Some(&mut mask))
                    .unwrap();
                assert_eq!(
                    (&y, &mask),
                    (&want, &want_mask),
                    "p = {p}, row of {row_len}"
                );
            }
        });
    }
}

#[test]
fn sixteen_bits_and_a_bias_are_rounded_once() {
    let [x, bias, residual] = [256.0, 1.0, -512.0].map(bf16::from_f64);
    for_each_backend(|engine| {
        // (256 + 1) * 2 - 512 is 2; with the sum rounded to 256 it would be 0.
        let (mut y, mut mask) = (vec![bf16::ZERO; 200], BitMask::new(200));
        let (x, residual) = ([x; 200], [residual; 200]);
        let buffers = Buffers::new(&residual, &mut y).unwrap();
        let buffers = buffers.with_elements(&x).unwrap();
        let buffers = buffers.with_row(core::slice::from_ref(&bias)).unwrap();
        engine
            .dropout_add(rate(0.5), KEY, buffers, Some(&mut mask))
            .unwrap();
        for (y, keep) in y.into_iter().zip(&mask) {
            assert_eq!(y.to_f32(), if keep { 2.0 } else { -512.0 });
        }
    });
}

#[test]
fn whole_samples_are_added_or_not() {
    let (samples, each) = (9, 3 * TILE / 4 + 5);
    let x: Vec<f64> = (0..samples * each).map(|i| i as f64).collect();
    let residual: Vec<f64> = (0..samples * each).map(|i| -(i as f64)).collect();
    let mask: BitMask = (0..samples).map(|i| i % 3 != 1).collect();
    let shape = Broadcast::new(&[samples, each], &[samples, 1]).unwrap();
    for_each_backend(|engine| {
        let mut y = vec![0.5; x.len()];
        let buffers = Buffers::new(&residual, &mut y).unwrap();
        let buffers = buffers.with_elements(&x).unwrap();
        engine
            .dropout_add_broadcast(rate(0.5), &mask, &shape, buffers)
            .unwrap();
        for (i, &y) in y.iter().enumerate() {
            let want = if i / each % 3 == 1 {
                residual[i]
            } else {
                residual[i] + 2.0 * x[i]
            };
            assert_eq!(y, want, "element {i}");
        }
    });
}

#[test]
fn what_does_not_fit_is_an_error_and_nothing_is_written() {
    for_each_backend(|engine| {
        let mut y = [7.0_f32; 4];
        let mut mask = BitMask::new(3);
        let buffers = Buffers::new(&[1.0; 4], &mut y).unwrap();
        assert_eq!(
            buffers.with_elements(&[1.0; 3]).unwrap_err().to_string(),
            "length of second input: expected 4, got 3"
        );
        let buffers = Buffers::new(&[1.0; 4], &mut y).unwrap();
        let error = engine.dropout_add(rate(0.5), KEY, buffers, None);
        assert_eq!(
            error.unwrap_err().to_string(),
            "length of second input: expected 4, got 0"
        );
        let buffers = Buffers::new(&[1.0; 4], &mut y).unwrap();
        let buffers = buffers.with_elements(&[1.0; 4]).unwrap();
        let error = engine.dropout_add(rate(0.5), KEY, buffers, Some(&mut mask));
        assert!(error.unwrap_err().to_string().contains("mask"));
        assert_eq!(y, [7.0; 4]);
    });
}

/// Neither threads nor windows show, of rows that no part of a job begins with.
#[cfg(feature = "parallel")]
#[test]
fn threads_and_shards_agree() {
    use crate::common::one_two_and_seven_threads_agree;

    let row_len = 1001;
    let len = 660 * row_len;
    let x: Vec<f32> = (0..len).map(|i| (i % 1000) as f32).collect();
    let residual: Vec<f32> = (0..len).map(|i| (i % 777) as f32).collect();
    let bias: Vec<f32> = (0..row_len).map(|i| i as f32).collect();
    for_each_backend(|engine| {
        if engine.backend().name() == "reference" {
            return;
        }
        for bias in [None, Some(&bias)] {
            let add = |engine: Engine<'_>, first: usize, n: usize| {
                let (mut y, mut mask) = (vec![0.0; n], BitMask::new(n));
                let mut buffers = Buffers::new(&residual[first..][..n], &mut y).unwrap();
                buffers = buffers.with_elements(&x[first..][..n]).unwrap();
                if let Some(bias) = bias {
                    buffers = buffers.with_row(bias).unwrap();
                }
                let window = KEY.window(first as u64);
                engine
                    .dropout_add(rate(0.1), window, buffers, Some(&mut mask))
                    .unwrap();
                (y, mask)
            };
            one_two_and_seven_threads_agree(engine, "dropout_add", |engine| add(engine, 0, len));
            let (whole, _) = add(engine, 0, len);
            let (first, n) = (50 * row_len, 33 * row_len);
            assert_eq!(add(engine, first, n).0, whole[first..][..n]);
        }
    });
}
