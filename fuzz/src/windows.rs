//! A mask made in shards, by any backends, is the mask made whole.

use arbitrary::Arbitrary;
use sorix::kernels::stream::TILE;
use sorix::kernels::{BitMask, Buffers, Engine};

use crate::inputs::{AnyBackend, Length, Rate, Window};
use crate::kernels::keep_bits;

#[derive(Arbitrary, Debug)]
struct Case {
    rate: Rate,
    window: Window,
    whole: AnyBackend,
    shards: Vec<(AnyBackend, Length)>,
}

/// The target.
pub fn run(data: &[u8]) {
    crate::with_arbitrary(data, check);
}

fn check(mut case: Case) {
    const MOST: usize = 5 * TILE;
    case.shards.truncate(8);
    let (Rate(rate), Window(window)) = (case.rate, case.window);
    let len: usize = case.shards.iter().map(|(_, Length(len))| len).sum();
    if len > MOST {
        return;
    }
    let x: Vec<f32> = (0..len).map(|i| i as f32 + 1.0).collect();
    let (mut y, mut mask) = (vec![-1.0; len], BitMask::new(len));
    let whole = Engine::new(case.whole.0).forward(
        rate,
        window,
        Buffers::new(&x, &mut y).unwrap(),
        &mut mask,
    );
    let fits = len == 0 || window.first.checked_add(len as u64 - 1).is_some();
    assert_eq!(whole.is_ok(), fits, "{case:?}: {whole:?}");
    if !fits {
        assert!(
            y.iter().all(|&y| y == -1.0) && mask.count_kept() == 0,
            "{case:?}"
        );
        return;
    }
    assert_eq!(mask, keep_bits(rate, window, len), "{case:?}: the whole");

    let (mut joined, mut bits, mut at) = (Vec::new(), Vec::new(), 0);
    for &(AnyBackend(backend), Length(len)) in &case.shards {
        let engine = Engine::new(backend);
        if len == 0 {
            continue;
        }
        let window = window.advance(at).expect("the whole fits");
        let (mut part, mut shard) = (vec![0.0; len], BitMask::new(len));
        engine
            .forward(
                rate,
                window,
                Buffers::new(&x[at..][..len], &mut part).unwrap(),
                &mut shard,
            )
            .expect("the whole fits");

        let mut replayed = vec![0.0; len];
        engine
            .replay(
                rate,
                window,
                Buffers::new(&x[at..][..len], &mut replayed).unwrap(),
            )
            .expect("as above");
        assert_eq!(replayed, part, "{case:?}: replay of the shard at {at}");
        let mut applied = vec![0.0; len];
        engine
            .apply(
                rate,
                &shard,
                Buffers::new(&x[at..][..len], &mut applied).unwrap(),
            )
            .expect("as above");
        assert_eq!(applied, part, "{case:?}: the shard at {at} by its own bits");
        let of_whole = mask.slice(at..at + len).expect("inside");
        engine
            .apply(
                rate,
                of_whole,
                Buffers::new(&x[at..][..len], &mut applied).unwrap(),
            )
            .expect("as above");
        assert_eq!(
            applied, part,
            "{case:?}: the shard at {at} by bits of the whole"
        );

        joined.extend(part);
        bits.extend(&shard);
        at += len;
    }
    assert_eq!(joined, y, "{case:?}: joined outputs");
    assert!(mask.iter().eq(bits), "{case:?}: joined masks");
}
