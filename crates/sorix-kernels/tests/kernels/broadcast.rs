//! Masks of a smaller shape: bit for bit what the expanded mask gives, for every backend by name.

use half::{bf16, f16};
use proptest::collection::vec;
use proptest::prelude::*;
use sorix_kernels::backend::reference::Reference;
use sorix_kernels::{Affine, BitMask, Broadcast, Buffers, Element, Engine, MaskKey, dropout};

use crate::common::{for_each_backend, rate};

const KEY: MaskKey = MaskKey { seed: 8, offset: 1 };

/// Tensor and mask: every way in which axes are repeated, runs short and long, and rows that come
/// once, often, and more often than fit a chunk.
const SHAPES: [(&[usize], &[usize]); 25] = [
    (&[2, 70, 513], &[1, 70, 1]),
    (&[], &[]),
    (&[1, 1], &[1, 1]),
    (&[7], &[1]),
    (&[130], &[130]),
    (&[2, 3, 4, 5], &[2, 3, 1, 1]),
    (&[3, 7, 7, 5], &[3, 1, 1, 5]),
    (&[2, 5, 13, 49], &[2, 5, 1, 1]),
    (&[4, 3, 64], &[4, 3, 1]),
    (&[3, 4, 1025], &[3, 4, 1]),
    (&[5, 3000], &[5, 1]),
    (&[2, 17_000], &[2, 1]),
    (&[2, 350, 96], &[2, 1, 96]),
    (&[2, 5, 1030], &[2, 1, 1030]),
    (&[1, 2000, 17], &[1, 1, 17]),
    (&[2, 2, 8200], &[1, 2, 8200]),
    (&[300, 3], &[1, 3]),
    (&[3, 5, 4, 6], &[1, 5, 1, 6]),
    (&[3, 5, 4, 6], &[3, 1, 4, 1]),
    (&[2, 3, 2, 3, 2, 3], &[2, 1, 2, 1, 2, 1]),
    (&[2, 3, 2, 3, 2, 3], &[1, 3, 1, 3, 1, 3]),
    (&[3, 1, 5], &[3, 1, 1]),
    (&[5, 50, 37], &[1, 50, 1]),
    (&[0, 3], &[1, 3]),
    (&[4, 0], &[4, 1]),
];

/// The bit of each element, by indices alone.
fn expanded(shape: &[usize], mask_shape: &[usize], mask: &BitMask) -> BitMask {
    (0..shape.iter().product())
        .map(|mut i: usize| {
            let (mut bit, mut stride) = (0, 1);
            for (&len, &mask_len) in shape.iter().zip(mask_shape).rev() {
                bit += i % len % mask_len * stride;
                stride *= mask_len;
                i /= len;
            }
            mask.get(bit).unwrap()
        })
        .collect()
}

fn check<T: Element>(from: fn(f32) -> T, bits: fn(T) -> u64) {
    let oracle = Engine::new(&Reference);
    let affines = [
        Affine::scale(1.0),
        Affine {
            scale: 1.7,
            shift: -0.3,
            dropped: 0.1,
        },
    ];
    for (shape, mask_shape) in SHAPES {
        let (len, mask_len) = (shape.iter().product(), mask_shape.iter().product());
        let mut mask = BitMask::new(mask_len);
        dropout::fill_mask(rate(0.3), KEY, &mut mask).unwrap();
        let whole = expanded(shape, mask_shape, &mask);
        let cover = Broadcast::new(shape, mask_shape).unwrap();
        assert_eq!((cover.len(), cover.mask_len()), (len, mask_len));
        for i in (0..len).step_by(89) {
            assert_eq!(
                mask.get(cover.bit_of(i)),
                whole.get(i),
                "{mask_shape:?} {i}"
            );
        }
        let special = [f32::NAN, f32::INFINITY, -0.0, 1e-40];
        let x: Vec<T> = (0..len)
            .map(|i| from(special.get(i % 50).copied().unwrap_or(i as f32 % 7.0 - 3.0)))
            .collect();
        let as_bits = |y: &[T]| y.iter().map(|&y| bits(y)).collect::<Vec<_>>();
        // Out of place to an unaligned element, so that no backend gets aligned groups by luck.
        let y = &mut vec![from(9.0); len + 1][1..];
        let mut z = y.to_vec();
        let mut expected = y.to_vec();
        for p in [0.0, 0.3, 1.0] {
            oracle
                .apply(rate(p), &whole, Buffers::new(&x, &mut expected).unwrap())
                .unwrap();
            let expected = as_bits(&expected);
            for_each_backend(|engine| {
                let name = engine.backend().name();
                let context = format!("{} {name} {shape:?} {mask_shape:?}", T::NAME);
                let stream = engine.streaming_above(0);
                stream
                    .apply_broadcast(rate(p), &mask, &cover, Buffers::new(&x, y).unwrap())
                    .unwrap();
                assert_eq!(as_bits(y), expected, "{context} p = {p}");
                z.copy_from_slice(&x);
                engine
                    .apply_broadcast(rate(p), &mask, &cover, Buffers::in_place(&mut z))
                    .unwrap();
                assert_eq!(as_bits(&z), expected, "{context} p = {p}, in place");
            });
        }
        for affine in affines {
            let full = Broadcast::full(len);
            oracle
                .apply_affine(
                    affine,
                    &whole,
                    &full,
                    Buffers::new(&x, &mut expected).unwrap(),
                )
                .unwrap();
            let expected = as_bits(&expected);
            for_each_backend(|engine| {
                let name = engine.backend().name();
                let context = format!("{} {name} {shape:?} {mask_shape:?}", T::NAME);
                engine
                    .apply_affine(affine, &mask, &cover, Buffers::new(&x, y).unwrap())
                    .unwrap();
                assert_eq!(as_bits(y), expected, "{context} {affine:?}");
                z.copy_from_slice(&x);
                engine
                    .apply_affine(affine, &mask, &cover, Buffers::in_place(&mut z))
                    .unwrap();
                assert_eq!(as_bits(&z), expected, "{context} {affine:?}, in place");
            });
        }
    }
}

#[test]
fn f32_equals_the_expanded_mask() {
    check::<f32>(|x| x, |y| y.to_bits().into());
}

#[test]
fn f64_equals_the_expanded_mask() {
    check::<f64>(f64::from, f64::to_bits);
}

#[test]
fn bf16_equals_the_expanded_mask() {
    check::<bf16>(bf16::from_f32, |y| y.to_bits().into());
}

#[test]
fn f16_equals_the_expanded_mask() {
    check::<f16>(f16::from_f32, |y| y.to_bits().into());
}

/// Worked by hand, with numbers that round: 1.0009765625 is the bf16 neighbour of nothing, so the
/// sum has to be made in f32.
#[test]
fn affine_rounds_the_sum_once() {
    let mask = BitMask::from_bools(&[true, false]);
    let affine = Affine {
        scale: 1.0,
        shift: 1.0 / 512.0,
        dropped: -1.7580993408473766,
    };
    for_each_backend(|engine| {
        let mut y = [bf16::ZERO; 2];
        let x = [bf16::from_f32(1.0078125); 2];
        engine
            .apply_affine(
                affine,
                &mask,
                &Broadcast::full(2),
                Buffers::new(&x, &mut y).unwrap(),
            )
            .unwrap();
        // 1.009765625 lies between 1.0078125 and 1.015625 and rounds down.
        assert_eq!(
            y.map(bf16::to_f32),
            [1.0078125, -1.7578125],
            "{}",
            engine.backend().name()
        );
    });
}

#[test]
fn what_does_not_fit_is_an_error_and_nothing_is_written() {
    let rate = rate(0.5);
    for (shape, mask_shape) in [(&[2, 3][..], &[2][..]), (&[2, 3], &[2, 2]), (&[2], &[0])] {
        let error = Broadcast::new(shape, mask_shape).unwrap_err();
        assert_eq!(
            (&error.shape[..], &error.mask_shape[..]),
            (shape, mask_shape)
        );
    }
    let rows = Broadcast::new(&[2, 3], &[2, 1]).unwrap();
    let mut y = [9.0; 6];
    let error = |mask: usize, x: &[f64], y: &mut [f64]| {
        let mask = BitMask::new(mask);
        dropout::apply_broadcast(rate, &mask, &rows, x, y)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        error(6, &[1.0; 6], &mut y),
        "length of mask: expected 2, got 6"
    );
    assert_eq!(
        error(2, &[1.0; 5], &mut y),
        "length of output: expected 5, got 6"
    );
    assert_eq!(
        error(2, &[1.0; 5], &mut y[..5]),
        "length of input: expected 6, got 5"
    );
    assert_eq!(y, [9.0; 6]);
    assert!(Broadcast::new(&[usize::MAX, 2], &[1, 2]).is_ok_and(|huge| huge.len() == usize::MAX));
}

/// Up to five axes; a few long enough for rows that do not fit a chunk, and masks of any of them.
fn shapes() -> impl Strategy<Value = (Vec<usize>, Vec<usize>)> {
    let axis = prop_oneof![8 => 1..6_usize, 2 => 6..80_usize, 1 => 80..700_usize];
    vec((axis, any::<bool>()), 0..6)
        .prop_map(|axes| {
            let mask = axes.iter().map(|&(len, kept)| if kept { len } else { 1 });
            (axes.iter().map(|&(len, _)| len).collect(), mask.collect())
        })
        .prop_filter(
            "small enough for a debug build",
            |(shape, _): &(Vec<_>, _)| shape.iter().product::<usize>() < 100_000,
        )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    #[test]
    fn any_shape_equals_the_expanded_mask((shape, mask_shape) in shapes(), seed in any::<u64>()) {
        let rate = rate(0.4);
        let cover = Broadcast::new(&shape, &mask_shape).unwrap();
        let mut mask = BitMask::new(cover.mask_len());
        dropout::fill_mask(rate, MaskKey::new(seed, 0), &mut mask).unwrap();
        let whole = expanded(&shape, &mask_shape, &mask);
        let x: Vec<f32> = (0..cover.len()).map(|i| i as f32 + 1.0).collect();
        let (mut y, mut expected) = (vec![9.0; x.len()], vec![7.0; x.len()]);
        dropout::apply(rate, &whole, &x, &mut expected).unwrap();
        dropout::apply_broadcast(rate, &mask, &cover, &x, &mut y).unwrap();
        prop_assert!(y == expected, "{shape:?} {mask_shape:?}");
    }
}

#[cfg(feature = "parallel")]
#[test]
fn one_two_and_seven_threads_agree() {
    let rate = rate(0.4);
    for (shape, mask_shape) in [
        ([64, 48, 1000], [64, 48, 1]),
        ([64, 700, 68], [64, 1, 68]),
        ([3, 1_000_001, 1], [3, 1, 1]),
    ] {
        let cover = Broadcast::new(&shape, &mask_shape).unwrap();
        let mut mask = BitMask::new(cover.mask_len());
        dropout::fill_mask(rate, KEY, &mut mask).unwrap();
        let x: Vec<f32> = (0..cover.len()).map(|i| i as f32).collect();
        let run = |engine: Engine<'static>| {
            let mut y = vec![9.0_f32; x.len()];
            engine
                .apply_broadcast(rate, &mask, &cover, Buffers::new(&x, &mut y).unwrap())
                .unwrap();
            y
        };
        crate::common::one_two_and_seven_threads_agree(
            Engine::active().unwrap(),
            &format!("{shape:?}"),
            run,
        );
    }
}

/// A shape of more elements than a `usize` counts has no tensor, but it may be asked about.
#[test]
fn shapes_beyond_any_tensor_are_no_panic() {
    const MOST: usize = usize::MAX;
    for (shape, mask_shape, i, bit) in [
        ([MOST, MOST], [MOST, 1], MOST - 1, 0),
        ([MOST, MOST], [1, MOST], MOST - 1, MOST - 1),
        ([2, MOST], [2, 1], MOST - 1, 0),
        ([MOST, 3], [MOST, 1], 5, 1),
    ] {
        let broadcast = Broadcast::new(&shape, &mask_shape).unwrap();
        assert_eq!(broadcast.bit_of(i), bit, "{shape:?} by {mask_shape:?}");
    }
    let empty = Broadcast::new(&[0, MOST, MOST], &[1, MOST, 1]).unwrap();
    assert_eq!((empty.len(), empty.is_empty()), (0, true));
    let mask = BitMask::new(0);
    let refused = dropout::apply_broadcast(rate(0.5), &mask, &empty, &[0.0; 0], &mut []);
    assert!(refused.is_err(), "the mask has more elements than that");
}
