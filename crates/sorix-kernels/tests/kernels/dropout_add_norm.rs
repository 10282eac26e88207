//! What a residual plus dropout, normalised, means in every corner case, for every backend by name.

use half::{bf16, f16};
use sorix_kernels::stream::TILE;
use sorix_kernels::{
    AddNorm, BitMask, Buffers, Element, Engine, MaskKey, MaskRegion, Norm, NormGradient, RowMoments,
};

use crate::common::{for_each_backend, rate};

const KEY: MaskKey = MaskKey { seed: 8, offset: 9 };

/// What a call writes.
#[derive(Clone, Debug, PartialEq)]
struct Written<T, S> {
    z: Vec<T>,
    sum: Vec<S>,
    moments: Vec<RowMoments>,
    mask: BitMask,
}

/// The rows of x and a residual as long, by a mask from `at`.
fn add_norm<T: Element>(
    engine: Engine<'_>,
    norm: Norm<'_, T::Scale>,
    p: f64,
    at: impl Into<MaskRegion>,
    x: &[T],
    residual: &[T::Scale],
) -> Written<T, T::Scale> {
    let mut written = Written {
        z: vec![T::ZERO; x.len()],
        sum: vec![T::Scale::ZERO; x.len()],
        moments: vec![RowMoments::default(); x.len() / norm.len()],
        mask: BitMask::new(x.len()),
    };
    let Written {
        z,
        sum,
        moments,
        mask,
    } = &mut written;
    let rows = AddNorm::new(norm, x, Buffers::new(residual, sum).unwrap(), z, moments).unwrap();
    engine
        .dropout_add_norm(rate(p), at, rows, Some(mask))
        .unwrap();
    written
}

fn some_numbers<T: Element>(len: usize, step: usize) -> Vec<T> {
    let number = |i: usize| T::narrow(T::factor((i * step % 1021) as f64 / 256.0 - 2.0));
    (0..len).map(number).collect()
}

#[test]
fn a_row_far_from_zero_keeps_its_digits() {
    for len in [64, 768, 1000, 4096] {
        let x: Vec<f32> = (0..len).map(|i| (1e4 + i as f64 * 1e-3) as f32).collect();
        // Of what x is after rounding to f32, in doubles.
        let exact: Vec<f64> = x.iter().map(|&x| x.into()).collect();
        let mean = exact.iter().sum::<f64>() / len as f64;
        let variance = exact.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / len as f64;
        for_each_backend(|engine| {
            let norm = Norm::layer(len, 1e-5).unwrap();
            let written = add_norm(engine, norm, 0.0, KEY, &x, &vec![0.0; len]);
            for (z, x) in written.z.iter().zip(&exact) {
                let want = (x - mean) / (variance + 1e-5).sqrt();
                let error = (f64::from(*z) - want).abs();
                assert!(error < 1e-6, "{len}: {z} and {want}");
            }
        });
    }
}

#[test]
fn rows_at_the_ends_of_the_range_are_normalised() {
    let rows = [
        // The mean is near -MAX, the first element further from it than MAX.
        [f32::MAX, -f32::MAX, -f32::MAX, -f32::MAX],
        [1e-40, -1e-40, -1e-40, -1e-40],
    ];
    let third = 3_f32.sqrt() / 3.0;
    for_each_backend(|engine| {
        for row in rows {
            let norm = Norm::layer(4, 0.0).unwrap();
            let written = add_norm(engine, norm, 0.0, KEY, &row, &[0.0; 4]);
            for (z, want) in written.z.iter().zip([3.0 * third, -third, -third, -third]) {
                assert!((z - want).abs() < 1e-6, "{:?}", written.z);
            }
        }
        // Nothing is divided by 0.
        let norm = Norm::layer(3, 0.0).unwrap();
        let written = add_norm(engine, norm, 0.0, KEY, &[5.0_f32; 3], &[0.0; 3]);
        assert_eq!(written.z, [0.0; 3]);
        assert_eq!(written.moments[0].inverse_deviation, 0.0);
    });
}

#[test]
fn rows_of_f64_at_the_ends_of_the_range_are_normalised() {
    // Of 35 elements, so that there are whole vectors and single elements.
    let row: Vec<f64> = some_numbers(35, 7);
    let dz: Vec<f64> = some_numbers(35, 11);
    let zeros = [0.0; 35];
    let gradients = |engine: Engine<'_>, norm, row: &[f64], moments: &[RowMoments]| {
        let mut d_sum = zeros;
        let (mut d_weight, mut d_shift) = (zeros, zeros);
        let job = NormGradient::new(norm, &dz, row, moments, &mut d_sum).unwrap();
        let job = job.with_d_weight(&mut d_weight).unwrap();
        let job = job.with_d_shift(&mut d_shift).unwrap();
        engine.norm_backward(job).unwrap();
        (d_sum, d_weight, d_shift)
    };
    for_each_backend(|engine| {
        for norm in [Norm::layer(35, 0.0), Norm::rms(35, 0.0)].map(Result::unwrap) {
            let want = add_norm(engine, norm, 0.0, KEY, &row, &zeros);
            let wanted = gradients(engine, norm, &row, &want.moments);
            for exponent in [-1015, -600, 600, 1021] {
                // A power of two changes no digit.
                let power = 2.0_f64.powi(exponent);
                let scaled: Vec<f64> = row.iter().map(|x| x * power).collect();
                let got = add_norm(engine, norm, 0.0, KEY, &scaled, &zeros);
                for (got, want) in got.z.iter().zip(&want.z) {
                    assert!(
                        (got - want).abs() < 1e-14,
                        "2^{exponent}: {got}, not {want}"
                    );
                }
                let (d_sum, d_weight, d_shift) = gradients(engine, norm, &scaled, &got.moments);
                for (got, want) in d_weight.iter().zip(&wanted.1) {
                    assert!(
                        (got - want).abs() < 1e-13,
                        "2^{exponent}: {got}, not {want}"
                    );
                }
                assert_eq!(d_shift, wanted.2);
                for (got, want) in d_sum.iter().zip(&wanted.0) {
                    // As far as it is a number of f64 with all digits.
                    let error = (got * power - want).abs();
                    assert!(error < 1e-12, "2^{exponent}: {}, not {want}", got * power);
                }
            }
        }
        let third = 3_f64.sqrt() / 3.0;
        for row in [
            [f64::MAX, -f64::MAX, -f64::MAX, -f64::MAX],
            [1e-300, -1e-300, -1e-300, -1e-300],
        ] {
            let norm = Norm::layer(4, 0.0).unwrap();
            let written = add_norm(engine, norm, 0.0, KEY, &row, &[0.0; 4]);
            for (z, want) in written.z.iter().zip([3.0 * third, -third, -third, -third]) {
                assert!((z - want).abs() < 1e-14, "{:?}", written.z);
            }
        }
        // Equal elements are at no distance, also where their mean has to be rounded.
        for (x, epsilon) in [
            (0.1, 0.0),
            (0.1, 1e-30),
            (1e300, 0.0),
            (-1e300, 1e-5),
            (f64::MAX, 1e-5),
        ] {
            let norm = Norm::layer(35, epsilon).unwrap();
            let written = add_norm(engine, norm, 0.0, KEY, &[x; 35], &zeros);
            assert_eq!(written.z, zeros, "{x}");
            assert_eq!(written.moments[0].mean, x);
        }
        // Epsilon counts by its size beside the squares.
        let norm = Norm::rms(2, 1e-300).unwrap();
        let written = add_norm(engine, norm, 0.0, KEY, &[1e-150, 1e-150], &[0.0; 2]);
        assert!(
            (written.z[0] - 0.5_f64.sqrt()).abs() < 1e-14,
            "{:?}",
            written.z
        );
        // What is not finite is not made to be.
        for (odd, norm) in [
            (f64::NAN, Norm::rms(2, 0.0)),
            (f64::INFINITY, Norm::layer(2, 0.0)),
        ] {
            let written = add_norm(engine, norm.unwrap(), 0.0, KEY, &[odd, 1e200], &[0.0; 2]);
            assert!(written.z.iter().all(|z| z.is_nan()), "{:?}", written.z);
        }
        let written = add_norm(engine, norm, 0.0, KEY, &[f64::MAX; 2], &[0.0; 2]);
        assert!(
            written.z.iter().all(|z| (z - 1.0).abs() < 1e-14),
            "{:?}",
            written.z
        );
    });
}

#[test]
fn it_is_dropout_add_and_then_a_normalisation() {
    fn check<T: Element<Scale = T>>(engine: Engine<'_>, rows: usize, len: usize) {
        let (x, residual) = (
            some_numbers::<T>(rows * len, 7),
            some_numbers(rows * len, 11),
        );
        let (weight, shift) = (some_numbers(len, 13), some_numbers(len, 17));
        for p in [0.0, 0.1, 0.5, 1.0] {
            let (mut sum, mut mask) = (vec![T::ZERO; x.len()], BitMask::new(x.len()));
            let buffers = Buffers::new(&residual, &mut sum).unwrap();
            let buffers = buffers.with_elements(&x).unwrap();
            engine
                .dropout_add(rate(p), KEY, buffers, Some(&mut mask))
                .unwrap();
            for norm in [Norm::layer(len, 1e-5), Norm::rms(len, 1e-5)] {
                let norm = norm.unwrap().with_weight(&weight).unwrap();
                let norm = norm.with_shift(&shift).unwrap();
                let written = add_norm(engine, norm, p, KEY, &x, &residual);
                assert_eq!(written.sum, sum);
                assert_eq!(written.mask, mask);
                // The sum of what is kept, normalised alone: zeros are added to it and nothing dropped.
                let zeros = vec![T::ZERO; x.len()];
                let alone = add_norm(engine, norm, 0.0, KEY, &zeros, &sum);
                assert_eq!((&alone.z, &alone.moments), (&written.z, &written.moments));

                // By the mask that was written, and over the residual itself.
                let (mut stream, mut z) = (residual.clone(), x.clone());
                let mut moments = vec![RowMoments::default(); rows];
                let buffers = Buffers::in_place(&mut stream);
                let job = AddNorm::new(norm, &x, buffers, &mut z, &mut moments).unwrap();
                engine.apply_add_norm(rate(p), &mask, job).unwrap();
                assert_eq!(
                    (stream, z, moments),
                    (sum.clone(), written.z, written.moments)
                );
            }
        }
    }
    for_each_backend(|engine| {
        check::<f32>(engine, 5, 97);
        check::<f64>(engine, 3, 130);
        check::<f32>(engine, 2, TILE + 3);
    });
}

#[test]
fn what_is_dropped_is_not_looked_at() {
    for_each_backend(|engine| {
        let norm = Norm::layer(2, 0.0).unwrap();
        let written = add_norm(engine, norm, 1.0, KEY, &[f32::NAN; 2], &[1.0, 3.0]);
        assert_eq!((written.sum, written.z), (vec![1.0, 3.0], vec![-1.0, 1.0]));
        assert_eq!(written.mask.count_kept(), 0);
    });
}

#[test]
fn sixteen_bits_are_added_to_a_residual_of_f32() {
    fn check<T: Element<Scale = f32>>(engine: Engine<'_>) {
        // A residual that no 16-bit type has: of f32, it counts.
        let x = [T::narrow(1.0); 200];
        let residual = [1000.001_f32; 200];
        let norm = Norm::rms(200, 0.0).unwrap();
        let written = add_norm(engine, norm, 0.5, KEY, &x, &residual);
        for (sum, keep) in written.sum.iter().zip(&written.mask) {
            assert_eq!(*sum, if keep { 1002.001 } else { 1000.001 });
        }
        // 1002 or 1000, divided by some 1001.
        let near = |z: &T| (z.to_double() - 1.0).abs() < 2e-3;
        assert!(written.z.iter().all(near));
    }
    for_each_backend(|engine| {
        check::<bf16>(engine);
        check::<f16>(engine);
    });
}

#[test]
fn the_gradient_is_that_of_the_formula() {
    let (rows, len) = (70, 67);
    let sum = some_numbers::<f64>(rows * len, 7);
    let (dz, more) = (
        some_numbers::<f64>(rows * len, 11),
        some_numbers(rows * len, 19),
    );
    let weight = some_numbers::<f64>(len, 13);
    for_each_backend(|engine| {
        for (norm, is_layer) in [(Norm::layer(len, 1e-3), 1.0), (Norm::rms(len, 1e-3), 0.0)] {
            let norm = norm.unwrap().with_weight(&weight).unwrap();
            let zeros = vec![0.0; sum.len()];
            let moments = add_norm(engine, norm, 0.0, KEY, &zeros, &sum).moments;
            let mut d_sum = vec![0.0_f64; sum.len()];
            let (mut d_weight, mut d_shift) = (vec![0.0_f64; len], vec![0.0_f64; len]);
            let gradient = NormGradient::new(norm, &dz, &sum, &moments, &mut d_sum).unwrap();
            let gradient = gradient.with_more(&more).unwrap();
            let gradient = gradient.with_d_weight(&mut d_weight).unwrap();
            let gradient = gradient.with_d_shift(&mut d_shift).unwrap();
            engine.norm_backward(gradient).unwrap();

            let (mut of_weight, mut of_shift) = (vec![0.0_f64; len], vec![0.0_f64; len]);
            for row in 0..rows {
                let range = row * len..(row + 1) * len;
                let (x, dz) = (&sum[range.clone()], &dz[range.clone()]);
                let count = len as f64;
                let mean = is_layer * x.iter().sum::<f64>() / count;
                let squares = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
                let inverse = 1.0 / (squares / count + 1e-3).sqrt();
                let y: Vec<f64> = x.iter().map(|x| (x - mean) * inverse).collect();
                let h: Vec<f64> = dz.iter().zip(&weight).map(|(dz, w)| dz * w).collect();
                let of_h = is_layer * h.iter().sum::<f64>() / count;
                let of_products = h.iter().zip(&y).map(|(h, y)| h * y).sum::<f64>() / count;
                for i in 0..len {
                    let want = inverse * (h[i] - of_h - y[i] * of_products);
                    let want = want + more[row * len + i];
                    let got = d_sum[row * len + i];
                    assert!((got - want).abs() < 1e-12, "{got} and {want}");
                    of_weight[i] += dz[i] * y[i];
                    of_shift[i] += dz[i];
                }
            }
            for i in 0..len {
                assert!((d_weight[i] - of_weight[i]).abs() < 1e-11);
                assert!((d_shift[i] - of_shift[i]).abs() < 1e-11);
            }
        }
    });
}

#[test]
fn what_does_not_fit_is_an_error_and_nothing_is_written() {
    let norm = Norm::<f32>::layer(3, 1e-5).unwrap();
    let (mut sum, mut z) = ([7.0_f32; 6], [7.0_f32; 6]);
    let mut moments = [RowMoments::default(); 2];
    let mut message = |x: &[f32], sums: usize, zs: usize, count: usize| {
        let buffers = Buffers::in_place(&mut sum[..sums]);
        let job = AddNorm::new(norm, x, buffers, &mut z[..zs], &mut moments[..count]);
        job.map(|_| ()).unwrap_err().to_string()
    };
    let cases = [
        (
            message(&[0.0; 5], 6, 6, 2),
            "x (whole rows): expected 3, got 5",
        ),
        (
            message(&[0.0; 6], 5, 6, 2),
            "residual and sum: expected 6, got 5",
        ),
        (message(&[0.0; 6], 6, 3, 2), "z: expected 6, got 3"),
        (
            message(&[0.0; 6], 6, 6, 1),
            "moments of rows: expected 2, got 1",
        ),
    ];
    for (got, want) in cases {
        assert_eq!(got, format!("length of {want}"));
    }
    for_each_backend(|engine| {
        let buffers = Buffers::in_place(&mut sum);
        let job = AddNorm::new(norm, &[0.0; 6], buffers, &mut z, &mut moments).unwrap();
        let error = engine.dropout_add_norm(rate(0.5), KEY, job, Some(&mut BitMask::new(5)));
        let message = error.unwrap_err().to_string();
        assert_eq!(message, "length of mask: expected 6, got 5");
        let buffers = Buffers::in_place(&mut sum);
        let job = AddNorm::new(norm, &[0.0; 6], buffers, &mut z, &mut moments).unwrap();
        let window = KEY.window(u64::MAX - 2);
        assert!(
            engine
                .dropout_add_norm(rate(0.5), window, job, None)
                .is_err()
        );
        assert_eq!((sum, z), ([7.0; 6], [7.0; 6]));
    });
}

#[test]
fn nothing_is_normalised_without_elements() {
    for_each_backend(|engine| {
        let norm = Norm::<f32>::layer(0, 1e-5).unwrap();
        let (mut z, mut moments) = (
            [0.0_f32; 0],
            [RowMoments {
                mean: 9.0,
                inverse_deviation: 9.0,
            }; 2],
        );
        let job = AddNorm::new(
            norm,
            &[0.0_f32; 0],
            Buffers::in_place(&mut []),
            &mut z,
            &mut moments,
        );
        engine
            .dropout_add_norm(rate(0.5), KEY, job.unwrap(), None)
            .unwrap();
        assert_eq!(moments, [RowMoments::default(); 2]);
        let norm = Norm::<f32>::layer(2, 1e-5).unwrap();
        let mut d_weight = [9.0; 2];
        let gradient = NormGradient::<f32>::new(norm, &[], &[], &[], &mut []).unwrap();
        let gradient = gradient.with_d_weight(&mut d_weight).unwrap();
        engine.norm_backward(gradient).unwrap();
        assert_eq!(d_weight, [0.0; 2]);
    });
}

/// Neither windows nor shards show.
#[test]
fn parts_of_a_tensor_agree_with_the_whole() {
    let (samples, steps, len) = (3, 10, 50);
    let x = some_numbers::<f32>(samples * steps * len, 7);
    let residual = some_numbers(x.len(), 11);
    for_each_backend(|engine| {
        let norm = Norm::layer(len, 1e-5).unwrap();
        let whole = add_norm(engine, norm, 0.3, KEY, &x, &residual);
        let part = 7 * len..23 * len;
        let window = KEY.window(part.start as u64);
        let (x_part, r_part) = (&x[part.clone()], &residual[part.clone()]);
        let written = add_norm(engine, norm, 0.3, window, x_part, r_part);
        assert_eq!(written.z, whole.z[part]);

        // Steps 2 to 4 of every sample.
        let shard = KEY.shard(&[samples, steps, len], 1, 2..5).unwrap();
        let of_shard = |all: &[f32]| -> Vec<f32> {
            let samples = all.chunks(steps * len);
            samples
                .flat_map(|all| all[2 * len..5 * len].to_vec())
                .collect()
        };
        let written = add_norm(
            engine,
            norm,
            0.3,
            shard,
            &of_shard(&x),
            &of_shard(&residual),
        );
        assert_eq!(written.z, of_shard(&whole.z));
        let mut replayed = vec![0.0; written.z.len()];
        let mut sum = of_shard(&residual);
        let mut moments = written.moments.clone();
        let x = of_shard(&x);
        let buffers = Buffers::in_place(&mut sum);
        let job = AddNorm::new(norm, &x, buffers, &mut replayed, &mut moments).unwrap();
        engine
            .dropout_add_norm(rate(0.3), shard, job, None)
            .unwrap();
        assert_eq!(replayed, written.z);
    });
}

/// Neither do threads.
#[cfg(feature = "parallel")]
#[test]
fn threads_agree() {
    use crate::common::one_two_and_seven_threads_agree;

    // Rows that begin anywhere in a word of the mask, and sums over several blocks of rows; and fewer rows than
    // parts.
    for (rows, len) in [(1100, 717), (3, 240_000)] {
        let x = some_numbers::<f32>(rows * len, 7);
        let residual = some_numbers::<f32>(x.len(), 11);
        let weight = some_numbers::<f32>(len, 13);
        for_each_backend(|engine| {
            if engine.backend().name() == "reference" {
                return;
            }
            one_two_and_seven_threads_agree(engine, "dropout_add_norm", |engine| {
                let norm = Norm::layer(len, 1e-5).unwrap();
                let norm = norm.with_weight(&weight).unwrap();
                let written = add_norm(engine, norm, 0.1, KEY.window(77), &x, &residual);
                let (sum, moments) = (&written.sum, &written.moments);
                let mut d_sum = vec![0.0; x.len()];
                let (mut d_weight, mut d_shift) = (vec![0.0; len], vec![0.0; len]);
                let gradient = NormGradient::new(norm, &x, sum, moments, &mut d_sum).unwrap();
                let gradient = gradient.with_d_weight(&mut d_weight).unwrap();
                let gradient = gradient.with_d_shift(&mut d_shift).unwrap();
                engine.norm_backward(gradient).unwrap();
                (written, d_sum, d_weight, d_shift)
            });
        });
    }
}
