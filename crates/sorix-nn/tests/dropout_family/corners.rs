//! Keys, p = 0 and 1, empty tensors, NaN and infinity, and inputs that do not fit.

use std::sync::Arc;

use sorix_core::{DType, SaveMask, Tensor};
use sorix_nn::dropout::DropoutLayer;
use sorix_nn::{
    BroadcastDropout, DropBlock2d, DropPath, Dropout1d, Dropout2d, Dropout3d, FeatureAlphaDropout,
    Generator, LockedDropout, Module,
};

use crate::forms::{DTYPES, Make, SAVES, bits, boxed, random, rows, run, values};

#[test]
fn every_call_in_training_takes_one_key_and_none_in_eval() {
    for row in rows() {
        for p in [0.0, 1e-10, 0.5, 1.0] {
            let generator = Arc::new(Generator::new(5));
            let mut layer = (row.make)(p, SaveMask::Bits, Arc::clone(&generator));
            let mut empty = row.shape.to_vec();
            empty[0] = 0;
            for (calls, shape) in (1..).zip([row.shape, &empty, row.shape]) {
                let x = Tensor::ones(shape, DType::F32).unwrap().requires_grad(true);
                let y = layer.forward(&x).unwrap();
                assert_eq!(y.shape(), shape, "{}", row.name);
                y.sum().unwrap().backward().unwrap();
                assert_eq!(x.grad().unwrap().shape(), shape, "{}", row.name);
                assert_eq!(generator.state().offset, calls, "{} at {p}", row.name);
            }
            layer.eval();
            for dtype in DTYPES {
                let x = random(row.shape, 1).to_dtype(dtype).unwrap();
                let x = x.requires_grad(true);
                let y = layer.forward(&x).unwrap();
                assert!(y.same_storage(&x) && y.is_leaf(), "{}", row.name);
            }
            assert_eq!(generator.state().offset, 3, "{} at {p}", row.name);
        }
    }
}

#[test]
fn p_0_is_the_tensor_itself_and_p_1_all_zero() {
    for row in rows() {
        for save in SAVES {
            let x = random(row.shape, 8).requires_grad(true);
            let y = row.forward(0.0, save, &x);
            assert!(y.same_storage(&x), "{}", row.name);
            y.sum().unwrap().backward().unwrap();
            assert!(values(&x.grad().unwrap()).iter().all(|&dx| dx == 1.0));

            let special = Tensor::full(row.shape, f64::NAN, DType::F32).unwrap();
            let (y, dx) = run(&*row.layer(1.0, save), &special, &special);
            for zeros in [y, dx] {
                assert!(bits(&zeros).iter().all(|&y| y == 0), "{}", row.name);
            }
        }
    }
}

#[test]
fn nan_and_infinity_do_not_leak_from_dropped_elements() {
    for row in rows() {
        // Which elements are dropped shows in the gradient, also where they do not become zero.
        let ones = Tensor::ones(row.shape, DType::F64).unwrap();
        let (plain, dx) = run(&*row.layer(0.5, SaveMask::Bits), &ones, &ones);
        for special in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for dtype in DTYPES {
                for save in SAVES {
                    let x = Tensor::full(row.shape, special, dtype).unwrap();
                    let plain = plain.to_dtype(dtype).unwrap();
                    let (y, gradient) = run(&*row.layer(0.5, save), &x, &x);
                    let pairs = values(&dx).into_iter().zip(values(&plain));
                    let outputs = values(&y).into_iter().zip(values(&gradient));
                    for ((kept, plain), (y, gradient)) in pairs.zip(outputs) {
                        if kept == 0.0 {
                            let got = (y.to_bits(), gradient.to_bits());
                            assert_eq!(got, (plain.to_bits(), 0), "{} {dtype}", row.name);
                        } else {
                            assert!(!y.is_finite() && !gradient.is_finite(), "{}", row.name);
                        }
                    }
                }
            }
        }
    }
}

/// Monte Carlo scopes reach every form, and two samples differ.
#[test]
fn every_form_takes_part_in_monte_carlo() {
    for row in rows() {
        let generator = Arc::new(Generator::new(5));
        let mut layer = (row.make)(0.5, SaveMask::Bits, Arc::clone(&generator));
        layer.eval();
        let x = random(row.shape, 1);
        let sample = |i| bits(&sorix_nn::monte_carlo(3, i, || layer.forward(&x)).unwrap());
        assert_eq!(sample(0), sample(0), "{}", row.name);
        let other = |i| sample(i) != sample(0);
        assert!((1..20).any(other), "{}", row.name);
        assert_eq!(generator.state().offset, 0);
        assert_eq!(layer.drop_rate().unwrap().p(), 0.5);
        assert_eq!(layer.named_generators().len(), 1, "{}", row.name);
    }
}

#[test]
fn inputs_that_do_not_fit_are_errors_and_take_no_key() {
    let cases: [(&str, Make, &[&[usize]], &str); 12] = [
        (
            "dropout1d",
            |p, s, g| boxed(Dropout1d::new(p), s, g),
            &[&[], &[3], &[2, 3, 4, 5]],
            "Dropout1d: expected (N, C, L) or (C, L)",
        ),
        (
            "dropout1d, last",
            |p, s, g| boxed(Dropout1d::new(p).map(DropoutLayer::channels_last), s, g),
            &[&[3]],
            "Dropout1d: expected (N, L, C) or (L, C)",
        ),
        (
            "dropout2d",
            |p, s, g| boxed(Dropout2d::new(p), s, g),
            &[&[3], &[3, 4], &[1, 2, 3, 4, 5]],
            "Dropout2d: expected (N, C, H, W) or (C, H, W)",
        ),
        (
            "dropout2d, last",
            |p, s, g| boxed(Dropout2d::new(p).map(DropoutLayer::channels_last), s, g),
            &[&[3, 4]],
            "Dropout2d: expected (N, H, W, C) or (H, W, C)",
        ),
        (
            "dropout3d",
            |p, s, g| boxed(Dropout3d::new(p), s, g),
            &[&[3, 4, 5], &[1, 2, 3, 4, 5, 6]],
            "Dropout3d: expected (N, C, D, H, W) or (C, D, H, W)",
        ),
        (
            "dropout3d, last",
            |p, s, g| boxed(Dropout3d::new(p).map(DropoutLayer::channels_last), s, g),
            &[&[3, 4, 5]],
            "Dropout3d: expected (N, D, H, W, C) or (D, H, W, C)",
        ),
        (
            "noise_shape",
            |p, s, g| boxed(BroadcastDropout::noise_shape(p, [None, Some(2)]), s, g),
            &[&[3], &[2, 3], &[2, 2, 2]],
            "BroadcastDropout: expected a shape that [None, 2] covers",
        ),
        (
            "shared_along",
            |p, s, g| boxed(BroadcastDropout::shared_along(p, [0, -3]), s, g),
            &[&[2], &[2, 3]],
            "BroadcastDropout: expected a shape with axis -3",
        ),
        (
            "locked_dropout",
            |p, s, g| boxed(LockedDropout::new(p), s, g),
            &[&[], &[3]],
            "LockedDropout: expected a shape with axis -2 of time",
        ),
        (
            "drop_path",
            |p, s, g| boxed(DropPath::new(p), s, g),
            &[&[]],
            "DropPath: expected (N, …)",
        ),
        (
            "feature_alpha_dropout",
            |p, s, g| boxed(FeatureAlphaDropout::new(p), s, g),
            &[&[], &[3]],
            "FeatureAlphaDropout: expected (N, C, …)",
        ),
        (
            "drop_block2d",
            |p, s, g| boxed(DropBlock2d::with_block_size(p, 3), s, g),
            &[&[], &[3, 4], &[1, 2, 3, 4, 5]],
            "DropBlock2d: expected (N, C, H, W) or (C, H, W)",
        ),
    ];
    for (name, make, shapes, message) in cases {
        for &shape in shapes {
            for p in [0.0, 0.5, 1.0] {
                let generator = Arc::new(Generator::new(5));
                let mut layer = make(p, SaveMask::Bits, Arc::clone(&generator));
                let x = Tensor::ones(shape, DType::F32).unwrap();
                let error = layer.forward(&x).unwrap_err();
                let expected = format!("{message}, got shape {shape:?}");
                assert_eq!(error.to_string(), expected, "{name}");
                assert_eq!(generator.state().offset, 0, "{name}");
                layer.eval();
                assert!(layer.forward(&x).unwrap().same_storage(&x), "{name}");
            }
        }
    }
    assert_eq!(
        DropBlock2d::with_block_size(0.1, 0)
            .unwrap_err()
            .to_string(),
        "DropBlock2d: expected a block size of at least 1, got 0"
    );
}
