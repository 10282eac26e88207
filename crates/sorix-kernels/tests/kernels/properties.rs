//! What holds for any rate, window, length and cut.

use proptest::collection::vec;
use proptest::prelude::*;
use sorix_kernels::{BitMask, Buffers, DropRate, Engine, Keep, MaskKey, MaskWindow, dropout};

#[cfg(feature = "parallel")]
use crate::common::one_two_and_seven_threads_agree;
use crate::common::rate;

fn rates() -> impl Strategy<Value = DropRate> {
    prop_oneof![
        Just(0.0),
        Just(1.0),
        Just(0.5),
        0.0..=1.0,
        (-70.0..0.0).prop_map(f64::exp2),
        // Half of these are ties.
        (0..1_u32 << 20).prop_map(|k| f64::from(k) * (-65_f64).exp2()),
    ]
    .prop_map(rate)
}

fn windows() -> impl Strategy<Value = MaskWindow> {
    let first = prop_oneof![0..20_000_u64, 0..u64::MAX - 100_000];
    (any::<u64>(), any::<u64>(), first)
        .prop_map(|(seed, offset, first)| MaskKey { seed, offset }.window(first))
}

/// `round((1 - p) * 2^64)`, ties to even, in integers alone.
fn exact_threshold(p: f64) -> u128 {
    let (one, bits) = (1_u128 << 64, p.to_bits());
    let (exponent, fraction) = (bits >> 52, u128::from(bits & ((1 << 52) - 1)));
    // p = mantissa * 2^-scale
    let mantissa = fraction + if exponent > 0 { 1 << 52 } else { 0 };
    let scale = 1075 - exponent.max(1);
    match scale.checked_sub(64) {
        None | Some(0) => one - (mantissa << (64 - scale)),
        Some(shift @ 1..=60) => {
            let exact = (one << shift) - mantissa;
            let (whole, rest, half) = (exact >> shift, exact % (1 << shift), 1 << (shift - 1));
            whole + u128::from(rest > half || rest == half && whole % 2 == 1)
        }
        // p * 2^64 is less than a half.
        Some(_) => one,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn the_threshold_is_the_exact_one(rate in rates()) {
        let threshold = match rate.keep() {
            Keep::Nothing => 0,
            Keep::By(rule) => u128::from(rule.threshold().get()),
            Keep::Everything => 1 << 64,
        };
        prop_assert_eq!(threshold, exact_threshold(rate.p()));
    }

    /// Two roundings of f64, that of 1 - p and that of the quotient: an error of 2^-52 at most.
    #[test]
    fn the_scale_is_exact_to_two_roundings(k in 0..1_u64 << 53) {
        let p = k as f64 / (1_u64 << 53) as f64;
        let scale = rate(p).scale();
        let mantissa = u128::from(scale.to_bits() & ((1 << 52) - 1) | 1 << 52);
        // scale = mantissa * 2^-down; scale * (1 - p) should be 1.
        let down = 1075 - (scale.to_bits() >> 52);
        let product = mantissa * u128::from((1 << 53) - k);
        let one = 1_u128 << (53 + down);
        prop_assert!(product.abs_diff(one) <= one >> 52, "{p}: {scale}");
    }

    #[test]
    fn shards_joined_are_the_whole(
        rate in rates(), at in windows(), lengths in vec(0..6000_usize, 1..5),
    ) {
        let len = lengths.iter().sum();
        let x: Vec<f32> = (0..len).map(|i| i as f32 + 1.0).collect();
        let (mut y, mut mask) = (vec![0.0; len], BitMask::new(len));
        dropout::forward(rate, at, &x, &mut y, &mut mask).unwrap();

        let (mut joined, mut bits, mut begin) = (Vec::new(), Vec::new(), 0);
        for len in lengths {
            let (mut part, mut shard) = (vec![0.0; len], BitMask::new(len));
            let at = at.advance(begin).unwrap();
            dropout::forward(rate, at, &x[begin..][..len], &mut part, &mut shard).unwrap();
            joined.extend(part);
            bits.extend(shard.iter());
            begin += len;
        }
        prop_assert_eq!(joined, y);
        prop_assert_eq!(bits, mask.to_bools());
    }

    #[test]
    fn replay_equals_backward(rate in rates(), at in windows(), dy in vec(any::<u32>(), 0..3000)) {
        let dy: Vec<f32> = dy.into_iter().map(f32::from_bits).collect();
        let mut mask = BitMask::new(dy.len());
        dropout::fill_mask(rate, at, &mut mask).unwrap();
        let (mut stored, mut replayed) = (dy.clone(), dy.clone());
        dropout::backward_in_place(rate, &mask, &mut stored).unwrap();
        dropout::replay(rate, at, &dy, &mut replayed).unwrap();
        for (i, (stored, replayed)) in stored.iter().zip(&replayed).enumerate() {
prop_assert_eq!(stored.to_bits(), replayed.to_bits(), "element {}", i);
        }
    }

    #[test]
    fn a_mask_is_its_bools(bools in vec(any::<bool>(), 0..400), cut in any::<[prop::sample::Index; 2]>()) {
        let mask = BitMask::from_bools(&bools);
        let mut cut = cut.map(|cut| cut.index(bools.len() + 1));
        cut.sort_unstable();
        let [begin, end] = cut;
        let view = mask.slice(begin..end).unwrap();
        prop_assert!(view.iter().eq(bools[begin..end].iter().copied()));
        prop_assert_eq!(view.count_kept(), bools[begin..end].iter().filter(|&&keep| keep).count());
        let part = BitMask::from_bools(&bools[begin..end]);
        prop_assert_eq!(view, part.as_slice());
        prop_assert_eq!(view.get(end - begin), None);
        let (left, right) = mask.as_slice().split_at(begin);
        prop_assert!(left.iter().chain(right.iter()).eq(bools.iter().copied()));
        prop_assert_eq!(BitMask::from_bytes(&mask.to_bytes(), bools.len()).unwrap(), mask);
    }
}

#[cfg(feature = "parallel")]
proptest! {
    // Long enough to be split, so few.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3) })]

    #[test]
    fn threads_do_not_show(p in 0.01..0.99, at in windows(), extra in 0..70_000_usize) {
        let (rate, x) = (rate(p), vec![1.0_f32; 1_000_000 + extra]);
        let run = |engine: Engine<'static>| {
            let (mut y, mut mask) = (vec![0.0; x.len()], BitMask::new(x.len()));
            let at = at.key.window(at.first / 2);
            engine.forward(rate, at, Buffers::new(&x, &mut y).unwrap(), &mut mask).unwrap();
            (y, mask)
        };
        one_two_and_seven_threads_agree(Engine::active().unwrap(), &format!("{at:?}"), run);
    }
}
