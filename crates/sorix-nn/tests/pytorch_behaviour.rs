//! The behaviours that PyTorch's own tests of dropout (`test/nn/test_dropout.py`) fix, as tests of
//! ours, for every class that both have.
//!
//! Where sorix differs on purpose, it says so: nothing is random here but the seed, and p = 1e-10 is
//! resolved, not rounded to 0.

use sorix_core::{DType, SaveMask, Tensor};
use sorix_nn::{
    AlphaDropout, Dropout, Dropout1d, Dropout2d, Dropout3d, Error, FeatureAlphaDropout, Generator,
    Mode, Module, functional,
};

const SEED: u64 = 2014;

fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().to_vec().unwrap()
}

fn mean(x: &Tensor) -> f64 {
    let values = values(x);
    values.iter().sum::<f64>() / values.len() as f64
}

fn standard_deviation(x: &Tensor) -> f64 {
    let (mean, values) = (mean(x), values(x));
    let squares = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
    (squares / values.len() as f64).sqrt()
}

fn leaf(shape: &[usize], value: f64, dtype: DType) -> Tensor {
    Tensor::full(shape, value, dtype)
        .unwrap()
        .requires_grad(true)
}

/// 0, 1, 2 and so on.
fn counting(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let elements: Vec<f64> = (0..count).map(|i| i as f64).collect();
    Tensor::from_slice(&elements, shape).unwrap()
}

/// The name of a class, a layer of it, and the shape it is tried on.
type Class = (&'static str, Result<Box<dyn Module>, Error>, Vec<usize>);

/// Every class, those that keep the mean of a constant input first.
fn classes(p: f64) -> Vec<Class> {
    macro_rules! class {
        ($class:ident, $shape:expr) => {
            (
                stringify!($class),
                $class::new(p).map(|layer| {
                    Box::new(layer.generator(Generator::new(SEED))) as Box<dyn Module>
                }),
                Vec::from($shape),
            )
        };
    }
    vec![
        class!(Dropout, [1000]),
        class!(Dropout1d, [100, 60, 5]),
        class!(Dropout2d, [100, 60, 2, 3]),
        class!(Dropout3d, [100, 60, 2, 1, 2]),
        class!(AlphaDropout, [1000]),
        class!(FeatureAlphaDropout, [100, 60, 2, 3]),
    ]
}

#[test]
fn an_invalid_p_is_refused_by_every_class() {
    for p in [-0.1, 1.1, f64::NAN] {
        for (class, made, _) in classes(p) {
            assert!(
                matches!(made, Err(Error::Rate(_))),
                "{class}({p}): {made:?}"
            );
        }
    }
}

#[test]
fn output_and_gradient_keep_the_mean() {
    for dtype in [DType::F32, DType::F64, DType::BF16] {
        for (class, made, shape) in classes(0.2).into_iter().take(4) {
            let x = leaf(&shape, 0.8, dtype);
            let y = made.unwrap().forward(&x).unwrap();
            y.sum().unwrap().backward().unwrap();
            let gradient = x.grad().unwrap();
            assert_eq!((y.dtype(), gradient.dtype()), (dtype, dtype), "{class}");
            assert!(
                (mean(&y) - 0.8).abs() < 0.05,
                "{class} {dtype}: {}",
                mean(&y)
            );
            assert!((mean(&gradient) - 1.0).abs() < 0.05, "{class} {dtype}");
            // The mask of the gradient is that of the output.
            for (y, dx) in values(&y).into_iter().zip(values(&gradient)) {
                assert_eq!(y == 0.0, dx == 0.0, "{class} {dtype}");
            }
        }
    }
}

#[test]
fn eval_is_the_identity() {
    for (class, made, shape) in classes(0.7) {
        let (mut layer, x) = (made.unwrap(), leaf(&shape, 0.8, DType::F32));
        layer.set_mode(Mode::Eval);
        let y = layer.forward(&x).unwrap();
        assert!(y.same_storage(&x), "{class}");
        y.sum().unwrap().backward().unwrap();
        assert!(
            values(&x.grad().unwrap()).iter().all(|&dx| dx == 1.0),
            "{class}"
        );
    }
    let (x, generator) = (counting(&[10]), Generator::new(SEED));
    let y = functional::dropout(&x, 0.7, Mode::Eval, &generator).unwrap();
    assert!(y.same_storage(&x));
}

#[test]
fn an_empty_input_gives_an_empty_output() {
    for p in [0.0, 0.2, 1.0] {
        let dropout = Dropout::new(p).unwrap().generator(Generator::new(SEED));
        for shape in [&[0][..], &[2, 0], &[0, 3, 4]] {
            let x = leaf(shape, 1.0, DType::F32);
            let y = dropout.forward(&x).unwrap();
            assert_eq!(y.shape(), shape);
            y.sum().unwrap().backward().unwrap();
            assert_eq!(x.grad().unwrap().shape(), shape);
        }
    }
}

/// p = 0 and a p that drops nothing of so few elements: what comes back is what went in, whatever
/// the strides.
#[test]
fn a_vanishing_p_is_the_identity_on_discontiguous_inputs() {
    let channels_last = counting(&[2, 4, 5, 3]).permute(&[0, 3, 1, 2]).unwrap();
    let views = [
        channels_last,
        counting(&[8, 9]).transpose(0, 1).unwrap(),
        counting(&[10, 12]).slice(1, 3..9).unwrap(),
        counting(&[4, 1]).expand([4, 7]).unwrap(),
    ];
    for p in [0.0, 1e-10] {
        let dropout = Dropout::new(p).unwrap().generator(Generator::new(SEED));
        for x in &views {
            assert!(!x.is_contiguous());
            let y = dropout.forward(x).unwrap();
            assert_eq!(y.shape(), x.shape());
            for (y, x) in values(&y).into_iter().zip(values(x)) {
                assert!((y - x).abs() <= 2e-10 * x, "p = {p}: {y} for {x}");
            }
        }
    }
}

/// Permuted and sliced inputs get the mask that their contiguous copies get, forward and backward.
#[test]
fn strides_do_not_show() {
    let permutations = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    for p in [1e-10, 0.3, 0.5, 0.7] {
        for save in [SaveMask::Bits, SaveMask::Replay] {
            for permutation in permutations {
                for sliced in [false, true] {
                    let run = |contiguous: bool| {
                        let x = counting(&[9, 10, 11]).add_scalar(1.0).unwrap();
                        let x = x.requires_grad(true);
                        let mut view = x.permute(&permutation).unwrap();
                        if sliced {
                            view = view.slice(1, 2..8).unwrap();
                        }
                        if contiguous {
                            view = view.contiguous().unwrap();
                        }
                        let dropout = Dropout::new(p).unwrap().save_mask(save);
                        let y = dropout
                            .generator(Generator::new(SEED))
                            .forward(&view)
                            .unwrap();
                        y.sum().unwrap().backward().unwrap();
                        (values(&y), values(&x.grad().unwrap()))
                    };
                    assert_eq!(run(false), run(true), "p = {p}, {permutation:?}, {sliced}");
                }
            }
        }
    }
}

/// What PyTorch calls in place is an assignment here: the tensor then holds what the call returned.
#[test]
fn assigning_the_output_is_dropping_in_place() {
    let dropout = || Dropout::new(0.5).unwrap().generator(Generator::new(SEED));
    let x = counting(&[100]);
    let y = dropout().forward(&x).unwrap();
    let view = x.reshape([10, 10]).unwrap();
    x.assign(&dropout().forward(&x).unwrap()).unwrap();
    assert_eq!(values(&x), values(&y));
    assert_eq!(values(&view), values(&y), "views see it");
}

/// In every channel of every sample nothing is zero, or everything is.
#[test]
fn channels_are_dropped_whole() {
    let names = ["Dropout1d", "Dropout2d", "Dropout3d"];
    for (class, made, shape) in classes(0.4) {
        if !names.contains(&class) {
            continue;
        }
        let layer = made.unwrap();
        let positions: usize = shape[2..].iter().product();
        let (mut dropped, mut kept) = (0, 0);
        let y = layer.forward(&leaf(&shape, 1.0, DType::F64)).unwrap();
        for channel in values(&y).chunks(positions) {
            match channel.iter().filter(|&&y| y != 0.0).count() {
                0 => dropped += 1,
                count => {
                    assert_eq!(count, positions, "{class}");
                    kept += 1;
                }
            }
        }
        assert!(
            dropped > 0 && kept > dropped,
            "{class}: {dropped} of {}",
            kept + dropped
        );
    }
}

/// Without a batch, the output is that of a batch of one.
#[test]
fn no_batch_is_a_batch_of_one() {
    let names = ["Dropout1d", "Dropout2d", "Dropout3d"];
    for ((class, with, shape), (_, without, _)) in classes(0.5).into_iter().zip(classes(0.5)) {
        if !names.contains(&class) {
            continue;
        }
        let one = counting(&shape[1..]);
        let batch = one.unsqueeze(0).unwrap();
        let y = with.unwrap().forward(&batch).unwrap();
        assert_eq!(y.shape(), batch.shape());
        let alone = without.unwrap().forward(&one).unwrap();
        assert_eq!(alone.shape(), one.shape());
        assert_eq!(values(&alone), values(&y), "{class}");
    }
}

#[test]
fn inputs_of_another_rank_are_refused() {
    let wrong: [(&str, &[&[usize]]); 3] = [
        ("Dropout1d", &[&[5], &[2, 3, 4, 5]]),
        ("Dropout2d", &[&[5], &[4, 5], &[2, 2, 2, 2, 2]]),
        ("Dropout3d", &[&[5], &[3, 4, 5], &[2, 2, 2, 2, 2, 2]]),
    ];
    for (class, made, _) in classes(0.5) {
        let Some((_, shapes)) = wrong.iter().find(|(name, _)| *name == class) else {
            continue;
        };
        let layer = made.unwrap();
        for shape in *shapes {
            let x = Tensor::ones(shape, DType::F32).unwrap();
            assert!(layer.forward(&x).is_err(), "{class} of {shape:?}");
        }
    }
}

/// Alpha dropout keeps the mean and the standard deviation of a normal input.
#[test]
fn alpha_dropout_keeps_mean_and_standard_deviation() {
    // Sums of twelve numbers, uniform by Weyl's sequence: mean 0, standard deviation 1.
    let golden = (5_f64.sqrt() - 1.0) / 2.0;
    let normal = |i: usize| -> f64 {
        let uniform = |j: usize| ((i * 12 + j) as f64 * golden * (j + 1) as f64 * 1.37).fract();
        (0..12).map(uniform).sum::<f64>() - 6.0
    };
    for p in [0.2, 0.5, 0.8] {
        for (class, made, shape) in classes(p) {
            if !class.ends_with("AlphaDropout") {
                continue;
            }
            // More elements than PyTorch takes, so that the bound is far from chance.
            let shape = match class {
                "AlphaDropout" => vec![50_000],
                _ => [&[60, 200][..], &shape[2..]].concat(),
            };
            let elements: Vec<f64> = (0..shape.iter().product()).map(normal).collect();
            let x = Tensor::from_slice(&elements, &shape).unwrap();
            let y = made.unwrap().forward(&x).unwrap();
            let (mean_error, deviation_error) = (
                (mean(&y) - mean(&x)).abs(),
                (standard_deviation(&y) - standard_deviation(&x)).abs(),
            );
            assert!(mean_error < 0.1, "{class}({p}): mean off by {mean_error}");
            assert!(
                deviation_error < 0.1,
                "{class}({p}): off by {deviation_error}"
            );
        }
    }
}

/// p = 0 and p = 1, in training and in eval, with the mask that a backward shows.
#[test]
fn the_corners_of_p() {
    for (p, mode, expected) in [
        (0.0, Mode::Train, 1.0),
        (0.0, Mode::Eval, 1.0),
        (1.0, Mode::Train, 0.0),
        (1.0, Mode::Eval, 1.0),
    ] {
        for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
            let (x, generator) = (leaf(&[1000], 1.0, dtype), Generator::new(SEED));
            let y = functional::dropout(&x, p, mode, &generator).unwrap();
            y.sum().unwrap().backward().unwrap();
            for of in [&y, &x.grad().unwrap()] {
                assert!(
                    values(of).iter().all(|&v| v == expected),
                    "p = {p}, {mode:?}"
                );
            }
        }
    }
}
