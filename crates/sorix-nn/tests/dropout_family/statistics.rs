//! Mean and variance of the outputs.

use std::sync::Arc;

use sorix_core::{DType, MaskKey, SaveMask, Tensor};
use sorix_nn::{DropBlock2d, Generator, Module};

use crate::forms::Mask::{Noise, Small, Squares};
use crate::forms::{random, rows, values};

/// The same numbers with mean 0 and variance 1.
fn standardised(x: &Tensor) -> Tensor {
    let mean = x.mean().unwrap();
    let centred = x.sub(&mean).unwrap();
    let variance = centred.mul(&centred).unwrap().mean().unwrap();
    let deviation = variance.item::<f64>().unwrap().sqrt();
    centred.mul_scalar(1.0 / deviation).unwrap()
}

/// Mean and variance of the output over many masks, for an input of mean 0 and variance 1.
#[test]
fn statistics() {
    const CALLS: usize = 40;
    const TIMES: usize = 20;
    for row in rows() {
        // A larger input with the same axes, so that there are decisions enough.
        let mut shape = row.shape.to_vec();
        shape[0] *= TIMES;
        let decisions = CALLS
            * match row.mask {
                Small([1, rest @ ..]) => rest.iter().product::<usize>(),
                Small(mask) => mask.iter().product::<usize>() * TIMES,
                Squares => shape.iter().product::<usize>() / 9,
                Noise => shape.iter().product(),
            };
        let x = standardised(&random(&shape, 11));
        for p in [0.2, 0.5] {
            let generator = Arc::new(Generator::new(99));
            let layer = (row.make)(p, SaveMask::Bits, generator);
            let (mut sum, mut squares, mut dropped, mut count) = (0.0, 0.0, 0, 0);
            for _ in 0..CALLS {
                for y in values(&layer.forward(&x).unwrap()) {
                    sum += y;
                    squares += y * y;
                    dropped += usize::from((y - (row.dropped)(p)).abs() < 1e-12);
                    count += 1;
                }
            }
            let case = format!("{} at {p}", row.name);
            let (mean, n) = (sum / count as f64, count as f64);
            let variance = squares / n - mean * mean;
            // Five standard errors, where a decision shared by many elements counts as one; the
            // variance of a square of a kept element is below 5 / (1 - p)^3.
            let bound = |variance: f64| 5.0 * (variance / decisions as f64).sqrt();
            assert!(mean.abs() < bound(1.0 / (1.0 - p)), "{case}: mean {mean}");
            let expected = match row.name {
                // The two that promise it keep the variance; the others spread by the scale.
                name if name.contains("alpha") => 1.0,
                "drop_path unscaled" => 1.0 - p,
                _ => 1.0 / (1.0 - p),
            };
            let spread = bound(5.0 / (1.0 - p).powi(3)) + 0.02;
            let share = dropped as f64 / n;
            match row.mask {
                Small(_) | Squares => {
                    let error = (share - p).abs();
                    assert!(error < bound(p * (1.0 - p)), "{case}: dropped {share}");
                }
                Noise => assert_eq!(share, 0.0, "{case}"),
            }
            if !matches!(row.mask, Squares) {
                let error = (variance - expected).abs();
                assert!(error < spread, "{case}: variance {variance}");
            }
        }
    }
}

/// Squares that overlap much: the share dropped is p all the same.
#[test]
fn drop_block_drops_p_of_the_positions() {
    let x = Tensor::ones([500, 28, 28], DType::F64).unwrap();
    for p in [0.1, 0.5, 0.9] {
        let layer = DropBlock2d::with_block_size(p, 7).unwrap();
        let y = values(&layer.forward_with_key(&x, MaskKey::new(5, 0)).unwrap());
        let share = y.iter().filter(|&&y| y == 0.0).count() as f64 / y.len() as f64;
        // Five standard errors of as many decisions as squares of 7 by 7 cover the images.
        let bound = 5.0 * (p * (1.0 - p) / (500.0 * 16.0)).sqrt();
        assert!((share - p).abs() < bound, "{p}: dropped {share}");
    }
}
