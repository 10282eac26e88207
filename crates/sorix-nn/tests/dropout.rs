//! Dropout as a module: what users of PyTorch rely on, and what sorix promises beyond.

use std::sync::{Arc, Mutex};

use half::{bf16, f16};
use sorix_core::{DType, MaskKey, SaveMask, Tensor, tensor};
use sorix_nn::{Dropout, Error, Generator, GeneratorState, Mode, Module, functional};

const DTYPES: [DType; 4] = [DType::F16, DType::BF16, DType::F32, DType::F64];

fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().to_vec().unwrap()
}

fn seeded(p: f64, seed: u64) -> Dropout {
    Dropout::new(p).unwrap().generator(Generator::new(seed))
}

fn leaf(shape: &[usize], value: f64, dtype: DType) -> Tensor {
    Tensor::full(shape, value, dtype)
        .unwrap()
        .requires_grad(true)
}

#[test]
fn p_outside_0_to_1_is_an_error_that_names_it() {
    let generator = Generator::new(1);
    for p in [-0.1, 1.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let error = Dropout::new(p).unwrap_err();
        assert!(matches!(error, Error::Rate(_)));
        assert!(
            error.to_string().ends_with(&format!("got p = {p}")),
            "{error}"
        );
        for mode in [Mode::Train, Mode::Eval] {
            let error = functional::dropout(&tensor([1.0]), p, mode, &generator).unwrap_err();
            assert!(matches!(error, Error::Rate(_)), "{p} {mode:?}");
        }
    }
    assert_eq!(generator.state().offset, 0, "a refused call takes no key");
}

#[test]
fn output_and_gradient_keep_their_mean_in_training() {
    for dtype in DTYPES {
        for save in [SaveMask::Bits, SaveMask::Replay] {
            let x = leaf(&[100, 100, 10], 0.8, dtype);
            let y = seeded(0.2, 1).save_mask(save).forward(&x).unwrap();
            y.sum().unwrap().backward().unwrap();
            let mean = |x: &Tensor| values(x).iter().sum::<f64>() / 100_000.0;
            assert!(
                (mean(&y) - 0.8).abs() < 0.01,
                "{dtype} {save:?}: {}",
                mean(&y)
            );
            let gradient = x.grad().unwrap();
            assert!((mean(&gradient) - 1.0).abs() < 0.01, "{dtype} {save:?}");
            assert_eq!(gradient.dtype(), dtype);
            for (y, dx) in values(&y).into_iter().zip(values(&gradient)) {
                assert_eq!(y == 0.0, dx == 0.0);
            }
        }
    }
}

#[test]
fn the_scale_is_rounded_once() {
    let kept = |y: &Tensor| values(y).into_iter().find(|&y| y != 0.0).unwrap();
    let scale = (1.0_f64 / 0.9) as f32;
    for dtype in DTYPES {
        let y = seeded(0.1, 1)
            .forward(&Tensor::full([64], 3.0, dtype).unwrap())
            .unwrap();
        let expected = match dtype {
            DType::F64 => 3.0 * (1.0 / 0.9),
            DType::F32 => f64::from(3.0 * scale),
            DType::F16 => f16::from_f32(3.0 * scale).to_f64(),
            _ => bf16::from_f32(3.0 * scale).to_f64(),
        };
        assert_eq!(kept(&y), expected, "{dtype}");
    }
}

#[test]
fn eval_is_the_tensor_itself_and_takes_no_key() {
    for dtype in DTYPES {
        let generator = Arc::new(Generator::new(1));
        let mut dropout = Dropout::new(0.9).unwrap().generator(Arc::clone(&generator));
        dropout.eval();
        let x = leaf(&[7, 3], 2.0, dtype);
        let y = dropout.forward(&x).unwrap();
        assert!(y.same_storage(&x) && y.is_leaf());
        y.sum().unwrap().backward().unwrap();
        assert_eq!(values(&x.grad().unwrap()), [1.0; 21]);
        let view = x.transpose(0, 1).unwrap();
        let through = dropout.forward(&view).unwrap();
        assert!(through.same_storage(&view) && through.strides() == view.strides());
        assert!(
            functional::dropout(&x, 0.9, Mode::Eval, &generator)
                .unwrap()
                .same_storage(&x)
        );
        assert_eq!(generator.state(), GeneratorState { seed: 1, offset: 0 });
    }
}

#[test]
fn training_takes_exactly_one_key_whatever_p_and_the_shape() {
    let generator = Arc::new(Generator::new(5));
    let shapes: [&[usize]; 5] = [&[], &[0], &[1], &[100_000], &[3, 0, 2]];
    let mut taken = 0;
    for p in [0.0, 1e-10, 0.5, 1.0] {
        let dropout = Dropout::new(p).unwrap().generator(Arc::clone(&generator));
        for shape in shapes {
            let x = leaf(shape, 1.0, DType::F32);
            dropout
                .forward(&x)
                .unwrap()
                .sum()
                .unwrap()
                .backward()
                .unwrap();
            taken += 1;
            assert_eq!(generator.state().offset, taken, "p = {p}, shape {shape:?}");
            functional::dropout(&x, p, Mode::Train, &generator).unwrap();
            taken += 1;
            assert_eq!(generator.state().offset, taken, "p = {p}, shape {shape:?}");
        }
    }
}

#[test]
fn p_0_and_p_1() {
    for dtype in DTYPES {
        let x = leaf(&[50], -2.0, dtype);
        assert!(seeded(0.0, 1).forward(&x).unwrap().same_storage(&x));
        let y = seeded(1.0, 1).forward(&x).unwrap();
        y.sum().unwrap().backward().unwrap();
        for zeros in [y, x.grad().unwrap()] {
            assert!(
                values(&zeros).iter().all(|y| y.to_bits() == 0),
                "+0.0 in {dtype}"
            );
        }
    }
}

#[test]
fn nan_and_infinity_do_not_leak_from_dropped_elements() {
    for special in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let x = leaf(&[1000], special, DType::F32);
        let y = seeded(0.5, 3).forward(&x).unwrap();
        let (dropped, kept): (Vec<f64>, Vec<f64>) =
            values(&y).into_iter().partition(|y| y.to_bits() == 0);
        assert!((400..600).contains(&dropped.len()), "{}", dropped.len());
        assert!(kept.iter().all(|y| !y.is_finite()));
    }
}

#[test]
fn the_same_seed_gives_the_same_masks_and_the_next_call_another() {
    let x = Tensor::ones([1000], DType::F32).unwrap();
    let (a, b, c) = (seeded(0.5, 1), seeded(0.5, 1), seeded(0.5, 2));
    let run = |dropout: &Dropout| values(&dropout.forward(&x).unwrap());
    let first = run(&a);
    assert_eq!(run(&b), first);
    assert_ne!(run(&c), first);
    let second = run(&a);
    assert_ne!(second, first);
    assert_eq!(run(&b), second);
}

#[test]
fn clones_draw_different_masks() {
    let x = Tensor::ones([1000], DType::F32).unwrap();
    let dropout = seeded(0.5, 1);
    let clone = dropout.clone();
    assert_ne!(
        values(&dropout.forward(&x).unwrap()),
        values(&clone.forward(&x).unwrap())
    );
}

#[test]
fn a_key_of_ones_own_drops_in_either_mode_and_takes_none() {
    let generator = Arc::new(Generator::new(1));
    let mut dropout = Dropout::new(0.5).unwrap().generator(Arc::clone(&generator));
    let x = leaf(&[1000], 1.0, DType::F64);
    let key = MaskKey { seed: 1, offset: 0 };
    let train = dropout.forward_with_key(&x, key).unwrap();
    dropout.eval();
    let eval = dropout.forward_with_key(&x, key).unwrap();
    assert_eq!(values(&train), values(&eval));
    assert_eq!(generator.state().offset, 0);
    // It is the mask that the generator would have named.
    dropout.train();
    assert_eq!(values(&dropout.forward(&x).unwrap()), values(&eval));
    // A window makes a part of it.
    let part = Tensor::ones([100], DType::F64).unwrap();
    let part = dropout.forward_with_key(&part, key.window(300)).unwrap();
    assert_eq!(values(&part), values(&eval)[300..400]);
}

#[test]
fn both_ways_to_keep_a_mask_give_equal_gradients() {
    for dtype in DTYPES {
        for p in [0.1, 0.5, 1.0] {
            let run = |save| {
                let x = leaf(&[33, 77], 1.5, dtype);
                let y = seeded(p, 4)
                    .save_mask(save)
                    .forward(&x.transpose(0, 1).unwrap())
                    .unwrap();
                y.mul(&y).unwrap().sum().unwrap().backward().unwrap();
                let bits = |x: &Tensor| values(x).into_iter().map(f64::to_bits).collect::<Vec<_>>();
                (bits(&y), bits(&x.grad().unwrap()))
            };
            assert_eq!(
                run(SaveMask::Bits),
                run(SaveMask::Replay),
                "{dtype} p = {p}"
            );
        }
    }
}

#[test]
fn threads_share_one_module() {
    const THREADS: usize = 4;
    const CALLS: usize = 50;
    let generator = Arc::new(Generator::new(11));
    let dropout = Dropout::new(0.5).unwrap().generator(Arc::clone(&generator));
    let x = Tensor::ones([500], DType::F32).unwrap();
    let outputs = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..CALLS {
                    let y = values(&dropout.forward(&x).unwrap());
                    outputs.lock().unwrap().push(y);
                }
            });
        }
    });
    assert_eq!(generator.state().offset, (THREADS * CALLS) as u64);
    // Together they are what one thread would have made, in some order.
    let mut together = outputs.into_inner().unwrap();
    let again = seeded(0.5, 11);
    let mut alone: Vec<_> = (0..THREADS * CALLS)
        .map(|_| values(&again.forward(&x).unwrap()))
        .collect();
    together.sort_by(|a, b| a.partial_cmp(b).unwrap());
    alone.sort_by(|a, b| a.partial_cmp(b).unwrap());
    assert_eq!(together, alone);
}

#[test]
fn a_dropout_has_no_parameters() {
    let dropout = Dropout::new(0.5).unwrap();
    assert!(dropout.parameters().is_empty() && dropout.named_parameters().is_empty());
    assert_eq!(dropout.mode(), Some(Mode::Train));
}
