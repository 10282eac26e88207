//! Values and gradients, against the reference's mask, finite differences and worked examples.

use sorix_core::autograd::checkpoint;
use sorix_core::{DType, SaveMask, Tensor};
use sorix_nn::{DropBlock2d, Dropout2d, GaussianDropout, Module};

use crate::forms::Mask::Small;
use crate::forms::{
    DTYPES, KEY, SAVES, assert_close, bits, random, reference_mask, rows, run, values,
};

#[test]
fn values_and_gradients_are_those_of_the_reference_mask() {
    for row in rows() {
        let Small(mask_shape) = row.mask else {
            continue;
        };
        for p in [0.1, 0.5, 0.8] {
            let keep = reference_mask(p, mask_shape, row.shape);
            let (x, dy) = (random(row.shape, 1), random(row.shape, 2));
            // What the gradient is multiplied by is the slope of a straight line.
            let slope = (row.kept)(1.0, p) - (row.kept)(0.0, p);
            let masked = |x: &Tensor, kept: &dyn Fn(f64) -> f64, dropped: f64| -> Vec<f64> {
                let pairs = values(x).into_iter().zip(&keep);
                pairs
                    .map(|(x, &keep)| if keep { kept(x) } else { dropped })
                    .collect()
            };
            for save in SAVES {
                let case = format!("{} at {p}, {save:?}", row.name);
                let (y, dx) = run(&*row.layer(p, save), &x, &dy);
                let expected = masked(&x, &|x| (row.kept)(x, p), (row.dropped)(p));
                assert_close(&values(&y), &expected, &case);
                assert_close(&values(&dx), &masked(&dy, &|dy| dy * slope, 0.0), &case);
                assert_eq!((y.shape(), dx.shape()), (row.shape, row.shape), "{case}");
            }
        }
    }
}

#[test]
fn gradients_against_finite_differences() {
    const STEP: f64 = 1e-6;
    for row in rows() {
        for (p, save) in [(0.3, SaveMask::Bits), (0.6, SaveMask::Replay)] {
            let (x, weights) = (random(row.shape, 3), random(row.shape, 4));
            let (_, dx) = run(&*row.layer(p, save), &x, &weights);
            let elements = values(&x);
            let loss = |i: usize, step: f64| -> f64 {
                let mut moved = elements.clone();
                moved[i] += step;
                let x = Tensor::from_slice(&moved, row.shape).unwrap();
                let y = row.forward(p, save, &x).mul(&weights).unwrap();
                y.sum().unwrap().item().unwrap()
            };
            for (i, gradient) in values(&dx).into_iter().enumerate().step_by(7) {
                let expected = (loss(i, STEP) - loss(i, -STEP)) / (2.0 * STEP);
                assert!(
                    (gradient - expected).abs() < 1e-7 * (1.0 + expected.abs()),
                    "{} at {p}, {save:?}, element {i}: {gradient}, differences {expected}",
                    row.name
                );
            }
        }
    }
}

#[test]
fn bits_and_replay_are_equal_bit_for_bit() {
    for row in rows() {
        for dtype in DTYPES {
            for p in [0.2, 0.5, 1.0] {
                let (x, dy) = (random(row.shape, 5), random(row.shape, 6));
                let (x, dy) = (x.to_dtype(dtype).unwrap(), dy.to_dtype(dtype).unwrap());
                let run = |save| {
                    let (y, dx) = run(&*row.layer(p, save), &x, &dy);
                    assert_eq!((y.dtype(), dx.dtype()), (dtype, dtype));
                    (bits(&y), bits(&dx))
                };
                let case = format!("{} in {dtype} at {p}", row.name);
                assert_eq!(run(SaveMask::Bits), run(SaveMask::Replay), "{case}");
            }
        }
    }
}

#[test]
fn a_view_is_treated_as_its_copy() {
    for row in rows() {
        let mut shape = row.shape.to_vec();
        let last = shape.len() - 1;
        shape.swap(0, last);
        let view = random(&shape, 7).transpose(0, -1).unwrap();
        let copy = Tensor::from_slice(&values(&view), row.shape).unwrap();
        assert!(!view.is_contiguous() && copy.is_contiguous());
        let y = row.forward(0.5, SaveMask::Bits, &view);
        let expected = row.forward(0.5, SaveMask::Bits, &copy);
        assert_eq!(bits(&y), bits(&expected), "{}", row.name);
    }
}

/// Channels first and last, batched and not, draw the same decisions.
#[test]
fn the_layout_does_not_change_the_decisions() {
    let x = Tensor::ones([3, 7, 4, 5], DType::F64).unwrap();
    let first = Dropout2d::new(0.5).unwrap();
    let last = Dropout2d::new(0.5).unwrap().channels_last();
    let y = first.forward_with_key(&x, KEY).unwrap();
    let z = x.permute(&[0, 2, 3, 1]).unwrap();
    let z = last.forward_with_key(&z, KEY).unwrap();
    assert_eq!(values(&z.permute(&[0, 3, 1, 2]).unwrap()), values(&y));
    let one = Tensor::ones([7, 4, 5], DType::F64).unwrap();
    let one = first.forward_with_key(&one, KEY).unwrap();
    assert_eq!(values(&one), values(&y)[..7 * 20]);
}

/// The squares of drop block by a worked example: of a plane of 5 by 6, with squares of 2 by 2.
#[test]
fn drop_block_drops_squares_and_scales_by_what_is_left() {
    let layer = DropBlock2d::with_block_size(0.4, 2).unwrap();
    let x = Tensor::ones([50, 5, 6], DType::F64).unwrap();
    let y = layer.forward_with_key(&x, KEY).unwrap();
    let y = values(&y);
    let kept = y.iter().filter(|&&y| y != 0.0).count();
    let scale = 1500.0 / kept as f64;
    assert!(y.iter().all(|&y| y == 0.0 || y == scale));
    assert!((750..1050).contains(&kept), "{kept}");
    for plane in y.chunks(30) {
        let dropped = |row: usize, column: usize| plane[row * 6 + column] == 0.0;
        let square =
            |row: usize, column: usize| (0..4).all(|i| dropped(row + i / 2, column + i % 2));
        for (row, column) in (0..30_usize).map(|i| (i / 6, i % 6)) {
            let covered = (row.saturating_sub(1)..=row.min(3))
                .any(|r| (column.saturating_sub(1)..=column.min(4)).any(|c| square(r, c)));
            assert_eq!(dropped(row, column), covered, "{row} {column}");
        }
    }
    // A square larger than the plane drops all of it or nothing.
    let layer = DropBlock2d::with_block_size(0.5, 100).unwrap();
    let x = Tensor::ones([40, 3, 3], DType::F64).unwrap();
    let y = values(&layer.forward_with_key(&x, KEY).unwrap());
    let whole = y.chunks(9).filter(|plane| plane.iter().all(|&y| y == 0.0));
    let whole = whole.count();
    assert!((10..30).contains(&whole), "{whole} of 40 planes");
    assert!(y.chunks(9).all(|plane| plane == [plane[0]; 9]));
}

#[test]
fn gaussian_dropout_multiplies_by_the_noise_of_its_key() {
    let x = random(&[40, 7], 1);
    let layer = GaussianDropout::new(0.2).unwrap();
    let normal = values(&Tensor::randn([40, 7], DType::F64, KEY).unwrap());
    let expected: Vec<f64> = values(&x)
        .into_iter()
        .zip(normal)
        // The square root of 0.2 / 0.8.
        .map(|(x, normal)| x * (1.0 + 0.5 * normal))
        .collect();
    let y = layer.forward_with_key(&x, KEY).unwrap();
    assert_close(&values(&y), &expected, "gaussian_dropout");
}

/// A segment that backward computes again draws the very same mask.
#[test]
fn a_checkpoint_changes_no_gradient() {
    for row in rows() {
        for save in SAVES {
            let (x, dy) = (random(row.shape, 1), random(row.shape, 2));
            let (y, dx) = run(&*row.layer(0.4, save), &x, &dy);
            let x = x.requires_grad(true);
            let layer = row.layer(0.4, save);
            let again = checkpoint(move |x| layer.forward(&x[0]), &[&x]).unwrap();
            again.backward_with(&dy).unwrap();
            assert_eq!(bits(&again), bits(&y), "{}", row.name);
            assert_eq!(bits(&x.grad().unwrap()), bits(&dx), "{}", row.name);
        }
    }
}
