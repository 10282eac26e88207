//! What dropout means in every corner case, for every backend by name, the oracle included.

use half::{bf16, f16};
use sorix_kernels::backend::reference::Reference;
use sorix_kernels::backend::{Backend, Kernels, MakeMasks};
use sorix_kernels::stream::TILE;
use sorix_kernels::{
    BitMask, Buffers, Element, Engine, Error, LengthError, MaskKey, WindowError, dropout,
};

use crate::common::{self, for_each_backend, rate};

const KEY: MaskKey = MaskKey { seed: 5, offset: 6 };

/// Values as f64, exactly representable in every element type.
fn of<T: Element>(values: &[f64], from: impl Fn(f64) -> T) -> Vec<T> {
    values.iter().map(|&x| from(x)).collect()
}

fn for_each_dtype(check: &dyn Fn(&dyn DtypeCheck)) {
    check(&std::marker::PhantomData::<f32>);
    check(&std::marker::PhantomData::<f64>);
    check(&std::marker::PhantomData::<bf16>);
    check(&std::marker::PhantomData::<f16>);
}

/// The checks that are the same for all element types.
trait DtypeCheck {
    fn name(&self) -> &'static str;
    /// forward, backward and replay of `x`, each widened to f64, and the mask.
    fn run(&self, engine: Engine<'_>, p: f64, x: &[f64]) -> ([Vec<f64>; 3], Vec<bool>);
}

macro_rules! dtype_check {
    ($t:ty, $from:expr, $into:expr) => {
        impl DtypeCheck for std::marker::PhantomData<$t> {
            fn name(&self) -> &'static str {
                <$t>::NAME
            }

            fn run(&self, engine: Engine<'_>, p: f64, x: &[f64]) -> ([Vec<f64>; 3], Vec<bool>) {
                let x = of::<$t>(x, $from);
                let junk = vec![$from(77.0); x.len()];
                let mut mask = BitMask::new(x.len());
                let mut outputs = [junk.clone(), junk.clone(), junk];
                engine
                    .forward(
                        rate(p),
                        KEY,
                        Buffers::new(&x, &mut outputs[0]).unwrap(),
                        &mut mask,
                    )
                    .unwrap();
                engine
                    .apply(rate(p), &mask, Buffers::new(&x, &mut outputs[1]).unwrap())
                    .unwrap();
                engine
                    .replay(rate(p), KEY, Buffers::new(&x, &mut outputs[2]).unwrap())
                    .unwrap();
                (
                    outputs.map(|y| y.into_iter().map($into).collect()),
                    mask.to_bools(),
                )
            }
        }
    };
}

dtype_check!(f32, |x| x as f32, f64::from);
dtype_check!(f64, |x| x, |x: f64| x);
dtype_check!(bf16, bf16::from_f64, bf16::to_f64);
dtype_check!(f16, f16::from_f64, f16::to_f64);

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn kept_is_scaled_and_dropped_is_positive_zero() {
    let x: Vec<f64> = (0..700).map(|i| f64::from(i % 16) - 8.0).collect();
    for_each_backend(|engine| {
        for_each_dtype(&|dtype| {
            for (p, scale) in [(0.5, 2.0), (0.75, 4.0)] {
                let (outputs, mask) = dtype.run(engine, p, &x);
                let want: Vec<f64> = x
                    .iter()
                    .zip(&mask)
                    .map(|(x, &keep)| if keep { scale * x } else { 0.0 })
                    .collect();
                for y in outputs {
                    assert_eq!(bits(&y), bits(&want), "{} p={p}", dtype.name());
                }
                let kept = mask.iter().filter(|&&keep| keep).count();
                assert!(
                    kept.abs_diff((700.0 * (1.0 - p)) as usize) < 80,
                    "{kept} of 700 at p={p}"
                );
            }
        });
    });
}

#[test]
fn nan_and_infinity_do_not_leak() {
    let x: Vec<f64> = (0..300)
        .map(|i| [f64::NAN, f64::INFINITY, -f64::INFINITY][i % 3])
        .collect();
    for_each_backend(|engine| {
        for_each_dtype(&|dtype| {
            let (outputs, mask) = dtype.run(engine, 0.5, &x);
            for y in outputs {
                for ((y, x), &keep) in y.iter().zip(&x).zip(&mask) {
                    if keep {
                        assert!(y.is_nan() == x.is_nan() && (x.is_nan() || y == x));
                    } else {
                        assert_eq!(y.to_bits(), 0, "{}", dtype.name());
                    }
                }
            }
        });
    });
}

#[test]
fn p_0_keeps_and_p_1_drops_everything() {
    let x = [1.5, -0.0, f64::INFINITY, -2.0, 0.0];
    for_each_backend(|engine| {
        for_each_dtype(&|dtype| {
            // 2^-70 rounds to a threshold of 2^64: all kept, at a scale of 1.
            for p in [0.0, -0.0, (-70f64).exp2()] {
                let (outputs, mask) = dtype.run(engine, p, &x);
                for y in outputs {
                    assert_eq!(bits(&y), bits(&x), "{} p={p}", dtype.name());
                }
                assert_eq!(mask, [true; 5]);
            }
            let (outputs, mask) = dtype.run(engine, 1.0, &x);
            for y in outputs {
                assert_eq!(bits(&y), [0; 5], "{} p=1", dtype.name());
            }
            assert_eq!(mask, [false; 5]);
        });
    });
}

#[test]
fn p_0_keeps_even_signalling_nans_as_they_are() {
    let signalling = f32::from_bits(0x7F80_0001);
    let x = [signalling, signalling];
    for_each_backend(|engine| {
        let (mut y, mut mask) = ([0.0; 2], BitMask::new(2));
        let bits = |y: [f32; 2]| y.map(f32::to_bits);
        engine
            .forward(rate(0.0), KEY, Buffers::new(&x, &mut y).unwrap(), &mut mask)
            .unwrap();
        assert_eq!(bits(y), [0x7F80_0001; 2]);
        engine
            .apply(rate(0.0), &mask, Buffers::new(&x, &mut y).unwrap())
            .unwrap();
        assert_eq!(bits(y), [0x7F80_0001; 2]);
        // A mask from elsewhere may drop at p = 0.
        engine
            .apply(
                rate(0.0),
                &BitMask::from_bools(&[false, true]),
                Buffers::new(&x, &mut y).unwrap(),
            )
            .unwrap();
        assert_eq!(bits(y), [0, 0x7F80_0001]);
    });
}

#[test]
fn the_scale_is_rounded_once_and_the_product_once() {
    // 1/0.9 is not a bf16; with a scale rounded to one, results would be off by a unit.
    for_each_backend(|engine| {
        let keep = BitMask::from_bools(&[true; 64]);
        for value in [1.0_f32, 3.0, 1.171875, -2.984375, 65504.0] {
            let x = [bf16::from_f32(value); 64];
            let mut y = [bf16::ZERO; 64];
            engine
                .apply(rate(0.1), &keep, Buffers::new(&x, &mut y).unwrap())
                .unwrap();
            let exact = f64::from(x[0].to_f32()) * f64::from((1.0 / 0.9) as f32);
            let distance = |y: bf16| (f64::from(y.to_f32()) - exact).abs();
            let neighbours =
                [-1_i16, 1].map(|d| bf16::from_bits(y[0].to_bits().wrapping_add_signed(d)));
            assert!(
                neighbours.iter().all(|&n| distance(y[0]) <= distance(n)),
                "{value}: {}",
                y[0]
            );

            let x = [f16::from_f32(value.min(1000.0)); 64];
            let mut y = [f16::ZERO; 64];
            engine
                .apply(rate(0.1), &keep, Buffers::new(&x, &mut y).unwrap())
                .unwrap();
            let product = x[0].to_f32() * (1.0 / 0.9) as f32;
            assert_eq!(y[0].to_bits(), f16::from_f32(product).to_bits());
        }
    });
}

#[test]
fn empty_buffers_and_windows_at_the_end_of_the_indices_work() {
    for_each_backend(|engine| {
        for_each_dtype(&|dtype| {
            let (outputs, mask) = dtype.run(engine, 0.5, &[]);
            assert!(outputs.iter().all(Vec::is_empty) && mask.is_empty());
        });
        let mut mask = BitMask::new(3);
        engine
            .fill_mask(rate(0.5), KEY.window(u64::MAX - 2), &mut mask)
            .unwrap();
        let error = engine
            .fill_mask(rate(0.5), KEY.window(u64::MAX - 1), &mut mask)
            .unwrap_err();
        let Error::Window(WindowError { first, len, .. }) = error else {
            panic!("{error:?}")
        };
        assert_eq!((first, len), (u64::MAX - 1, 3));
    });
}

#[test]
fn wrong_lengths_are_named_and_nothing_is_written() {
    for_each_backend(|engine| {
        let x = [1.0_f32; 4];
        let (mut y, mut mask) = ([7.0; 3], BitMask::from_bools(&[true; 4]));
        let length = |result| match result {
            Err(Error::Length(LengthError {
                what,
                expected,
                got,
                ..
            })) => (what, expected, got),
            other => panic!("{other:?}"),
        };
        let error = Error::from(Buffers::new(&x, &mut y).unwrap_err());
        assert_eq!(error.to_string(), "length of output: expected 4, got 3");
        assert_eq!(length(Err(error)), ("output", 4, 3));
        let buffers = Buffers::new(&x[..3], &mut y).unwrap();
        let result = engine.forward(rate(1.0), KEY, buffers, &mut mask);
        assert_eq!(length(result), ("mask", 3, 4));
        for p in [0.0, 0.5, 1.0] {
            assert_eq!(
                length(engine.apply(rate(p), &mask, Buffers::new(&x[..3], &mut y).unwrap())),
                ("mask", 3, 4)
            );
            assert_eq!(
                length(engine.apply(rate(p), &mask, Buffers::in_place(&mut y))),
                ("mask", 3, 4)
            );
            let beside = Buffers::in_place(&mut y).with_elements(&x[..3]).unwrap();
            assert_eq!(
                length(engine.replay(rate(p), KEY, beside)),
                ("second input", 0, 3)
            );
            assert_eq!(
                length(dropout::replay(rate(p), KEY, &x, &mut y)),
                ("output", 4, 3)
            );
            let end = KEY.window(u64::MAX);
            assert!(
                engine
                    .replay(rate(p), end, Buffers::in_place(&mut y))
                    .is_err()
            );
        }
        assert_eq!(y, [7.0; 3]);
        assert_eq!(mask.count_kept(), 4);
    });
}

#[test]
fn p_1e_minus_10_drops_nothing_in_a_million() {
    for_each_backend(|engine| {
        let mut mask = BitMask::new(1 << 20);
        engine.fill_mask(rate(1e-10), KEY, &mut mask).unwrap();
        assert_eq!(mask.count_kept(), 1 << 20);
    });
}

#[test]
fn the_same_mask_whatever_the_dtype() {
    for_each_backend(|engine| {
        let masks = std::cell::RefCell::new(Vec::new());
        for_each_dtype(&|dtype| {
            masks
                .borrow_mut()
                .push(dtype.run(engine, 0.3, &[1.0; 9000]).1)
        });
        let masks = masks.into_inner();
        assert!(masks.windows(2).all(|pair| pair[0] == pair[1]));
    });
}

#[cfg(feature = "parallel")]
#[test]
fn one_two_and_seven_threads_agree() {
    for_each_backend(|engine| {
        let len = if engine.backend().name() == "reference" {
            300_000
        } else {
            3_000_001
        };
        let x: Vec<f32> = (0..len).map(|i| i as f32).collect();
        for first in [0, 100, TILE + 64] {
            let run = |engine: Engine<'static>| {
                let (mut y, mut mask) = (vec![0.0; len], BitMask::new(len));
                let at = KEY.window(first as u64);
                engine
                    .forward(rate(0.1), at, Buffers::new(&x, &mut y).unwrap(), &mut mask)
                    .unwrap();
                let mut alone = BitMask::new(len);
                engine.fill_mask(rate(0.1), at, &mut alone).unwrap();
                assert_eq!(alone.words(), mask.words());
                let (mut dx, mut replayed) = (vec![0.0; len], x.clone());
                engine
                    .apply(rate(0.1), &mask, Buffers::new(&x, &mut dx).unwrap())
                    .unwrap();
                engine
                    .replay(rate(0.1), at, Buffers::in_place(&mut replayed))
                    .unwrap();
                assert!(dx == y && replayed == y);
                (y, mask)
            };
            common::one_two_and_seven_threads_agree(engine, &format!("from {first}"), run);
        }
    });
}

/// Long calls make and apply the mask a part at a time.
#[test]
fn the_parts_of_a_long_call_do_not_show() {
    let len = 140_000;
    let x: Vec<f32> = (0..len).map(|i| i as f32).collect();
    let run = |engine: Engine<'_>, first| {
        let (mut y, mut mask) = (vec![0.0; len], BitMask::new(len));
        let at = KEY.window(first as u64);
        engine
            .forward(rate(0.1), at, Buffers::new(&x, &mut y).unwrap(), &mut mask)
            .unwrap();
        let mut replayed = x.clone();
        engine
            .replay(rate(0.1), at, Buffers::in_place(&mut replayed))
            .unwrap();
        assert_eq!(replayed, y);
        (y, mask)
    };
    for first in [0, 100, TILE - 64, TILE - 192] {
        let want = run(Engine::new(&Reference), first);
        for_each_backend(|engine| {
            assert!(run(engine.sequential(), first) == want, "from {first}");
        });
    }
}

#[test]
fn shards_joined_are_the_whole() {
    for_each_backend(|engine| {
        let len = TILE + 11_808;
        let mut whole = BitMask::new(len);
        engine.fill_mask(rate(0.3), KEY, &mut whole).unwrap();
        for cuts in [
            vec![1, 100, TILE - 1, TILE, TILE + 1808],
            vec![64, 512, 576, TILE],
            vec![len - 1],
        ] {
            let edges: Vec<_> = [0].into_iter().chain(cuts).chain([len]).collect();
            let joined: BitMask = edges
                .windows(2)
                .flat_map(|edge| {
                    let mut shard = BitMask::new(edge[1] - edge[0]);
                    engine
                        .fill_mask(rate(0.3), KEY.window(edge[0] as u64), &mut shard)
                        .unwrap();
                    shard.to_bools()
                })
                .collect();
            assert_eq!(joined.words(), whole.words());
        }
    });
}

/// A foreign backend gets every method from the oracle until it brings its own.
#[test]
fn a_backend_may_bring_nothing_but_its_name() {
    #[derive(Debug)]
    struct Nothing;
    impl MakeMasks for Nothing {}

    impl<T: Element> Kernels<T> for Nothing {}

    impl Backend for Nothing {
        fn name(&self) -> &'static str {
            "nothing"
        }
    }
    for_each_dtype(&|dtype| {
        let x = [1.0; 1000];
        let own = dtype.run(Engine::new(&Nothing), 0.3, &x);
        assert_eq!(own, dtype.run(Engine::active().unwrap(), 0.3, &x));
    });
}
