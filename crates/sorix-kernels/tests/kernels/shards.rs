//! Parts of one mask: what W workers make is what one machine makes, at the cost of the parts.

use core::sync::atomic::{AtomicUsize, Ordering};

use sorix_kernels::backend::job::FillMask;
use sorix_kernels::backend::{Backend, Kernels, MakeMasks, reference};
use sorix_kernels::stream::TILE;
use sorix_kernels::{BitMask, Buffers, Element, Engine, MaskKey, MaskRegion, dropout};

use crate::common::{for_each_backend, rate};

const KEY: MaskKey = MaskKey { seed: 3, offset: 9 };

const RATE: f64 = 0.3;

fn whole(len: usize) -> BitMask {
    let mut mask = BitMask::new(len);
    dropout::fill_mask(rate(RATE), KEY, &mut mask).unwrap();
    mask
}

/// What a worker gets by each kernel: the mask, the output and the gradient.
fn check_shard(engine: Engine<'_>, shard: MaskRegion, whole: &BitMask) {
    let len = shard.len().unwrap();
    let expected: BitMask = (0..len)
        .map(|i| whole.get(shard.index(i) as usize).unwrap())
        .collect();
    let context = format!("{} {shard:?}", engine.backend().name());

    let mut mask = BitMask::from_bools(&vec![true; len]);
    engine.fill_mask(rate(RATE), shard, &mut mask).unwrap();
    assert_eq!(mask, expected, "{context}");

    let x: Vec<f32> = (0..len).map(|i| i as f32 + 1.0).collect();
    let mut y = vec![9.0; len];
    let mut scaled = y.clone();
    engine
        .apply(
            rate(RATE),
            &expected,
            Buffers::new(&x, &mut scaled).unwrap(),
        )
        .unwrap();
    mask.fill(true);
    engine
        .forward(
            rate(RATE),
            shard,
            Buffers::new(&x, &mut y).unwrap(),
            &mut mask,
        )
        .unwrap();
    assert!(y == scaled && mask == expected, "forward {context}");
    y.fill(9.0);
    engine
        .replay(rate(RATE), shard, Buffers::new(&x, &mut y).unwrap())
        .unwrap();
    assert!(y == scaled, "replay {context}");
    y.copy_from_slice(&x);
    engine
        .replay(rate(RATE), shard, Buffers::in_place(&mut y))
        .unwrap();
    assert!(y == scaled, "replay in place {context}");
    y.copy_from_slice(&x);
    engine
        .forward(rate(RATE), shard, Buffers::in_place(&mut y), &mut mask)
        .unwrap();
    assert!(
        y == scaled && mask == expected,
        "forward in place {context}"
    );
}

/// The range of worker `w` of `workers`, as even as it goes.
fn part(len: usize, w: usize, workers: usize) -> core::ops::Range<usize> {
    len * w / workers..len * (w + 1) / workers
}

/// Runs within a word, a tile, over tiles, and with tiles between them that nobody needs.
#[test]
fn what_workers_make_is_what_one_machine_makes() {
    for shape in [
        [5, 7, 11],
        [2, 40, 300],
        [3000, 2, 5],
        [3, 20_000, 1],
        [1, 2, 70_000],
    ] {
        let whole = whole(shape.iter().product());
        for axis in 0..3 {
            for workers in [1, 2, 3, 8] {
                let mut seen = vec![0; whole.len()];
                for w in 0..workers {
                    let shard = KEY
                        .shard(&shape, axis, part(shape[axis], w, workers))
                        .unwrap();
                    for i in 0..shard.len().unwrap() {
                        seen[shard.index(i) as usize] += 1;
                    }
                    check_shard(Engine::active().unwrap(), shard, &whole);
                }
                assert!(
                    seen.iter().all(|&times| times == 1),
                    "every element has one owner"
                );
            }
        }
    }
}

#[test]
fn every_backend_makes_the_same_shards() {
    let shape = [6, 50, 70];
    let whole = whole(shape.iter().product());
    for_each_backend(|engine| {
        for (axis, range) in [(0, 1..3), (1, 7..23), (2, 3..70), (2, 69..70)] {
            let shard = KEY.shard(&shape, axis, range).unwrap();
            check_shard(engine, shard, &whole);
        }
    });
}

/// Counts the tiles that it is asked for.
#[derive(Debug, Default)]
struct Counting(AtomicUsize);

impl Backend for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }
}

impl<T: Element> Kernels<T> for Counting {}

impl MakeMasks for Counting {
    fn fill_mask(&self, job: FillMask<'_>) {
        let tile = |index: u64| index / TILE as u64;
        let (first, len) = (job.window().first, job.len() as u64);
        let tiles = tile(first + len - 1) - tile(first) + 1;
        self.0.fetch_add(tiles as usize, Ordering::Relaxed);
        reference::fill_mask(job);
    }
}

#[test]
fn a_tile_is_made_once_for_all_of_its_runs_and_tiles_between_runs_are_not() {
    for (shape, axis, range, tiles) in [
        // 2,000 runs of two in two tiles.
        ([2000, 16], 1, 5..7, 2),
        // Four runs of ten, far from each other.
        ([4, 100_000], 1, 10..20, 4),
        // Two runs of 20,000, over two tiles each.
        ([2, 32_768], 1, 10_000..30_000, 4),
        // One run.
        ([8, TILE], 0, 2..3, 1),
    ] {
        let (counting, shard) = (Counting::default(), KEY.shard(&shape, axis, range).unwrap());
        let mut mask = BitMask::new(shard.len().unwrap());
        Engine::new(&counting)
            .fill_mask(rate(RATE), shard, &mut mask)
            .unwrap();
        assert_eq!(counting.0.into_inner(), tiles, "{shape:?}");
    }
}

#[test]
fn corner_cases() {
    let shard = |shape: &[usize], axis, range| KEY.shard(shape, axis, range).unwrap();
    // A cut along the first axis is a window, and so is the whole.
    assert_eq!(shard(&[4, 3], 0, 1..3).as_window(), Some(KEY.window(3)));
    assert_eq!(shard(&[4, 3], 1, 0..3).as_window(), Some(KEY.window(0)));
    assert_eq!(shard(&[4, 3], 1, 0..2).as_window(), None);
    for empty in [
        shard(&[4, 3], 1, 2..2),
        shard(&[0, 3], 1, 0..2),
        shard(&[3, 0], 0, 1..2),
    ] {
        assert!(empty.is_empty());
        let mut y = [1.0; 0];
        dropout::replay(rate(RATE), empty, &[], &mut y).unwrap();
    }
    // The last elements that have indices of 64 bits.
    let (huge, last) = (usize::MAX / 2 + 1, usize::MAX);
    let end = shard(&[2, huge], 1, huge - 3..huge);
    assert_eq!((end.len(), end.index(5)), (Some(6), last as u64));
    let mut mask = BitMask::new(6);
    dropout::fill_mask(rate(RATE), end, &mut mask).unwrap();
    let mut window = BitMask::new(3);
    dropout::fill_mask(rate(RATE), KEY.window(last as u64 - 2), &mut window).unwrap();
    assert!(mask.iter().skip(3).eq(&window));
    // p = 0 and p = 1.
    let strided = shard(&[4, 3], 1, 0..2);
    for (p, kept) in [(0.0, 8), (1.0, 0)] {
        let mut mask = BitMask::new(8);
        dropout::fill_mask(rate(p), strided, &mut mask).unwrap();
        assert_eq!(mask.count_kept(), kept);
    }
}

/// Equal if they are the same elements in the same number, however they were cut.
#[test]
fn regions_are_equal_if_they_have_the_same_elements() {
    let shard = |shape: &[usize], axis, range| KEY.shard(shape, axis, range).unwrap();
    let equal: [&[MaskRegion]; 5] = [
        // The whole, cut along no axis that matters.
        &[
            shard(&[12], 0, 0..12),
            shard(&[4, 3], 0, 0..4),
            shard(&[4, 3], 1, 0..3),
            shard(&[2, 2, 3], 1, 0..2),
        ],
        // One run.
        &[
            shard(&[4, 3], 0, 1..3),
            shard(&[1, 12], 1, 3..9),
            shard(&[12], 0, 3..9),
        ],
        // Runs of two at a distance of six.
        &[shard(&[2, 6], 1, 0..2), shard(&[2, 3, 2], 1, 0..1)],
        &[shard(&[4, 3], 0, 2..2), shard(&[0, 3], 1, 0..2)],
        // A window has no number of elements of its own.
        &[KEY.into(), KEY.window(0).into()],
    ];
    for (i, left) in equal.iter().enumerate() {
        for (j, right) in equal.iter().enumerate() {
            for (a, b) in left.iter().flat_map(|a| right.iter().map(move |b| (a, b))) {
                assert_eq!(a == b, i == j, "{a:?} and {b:?}");
            }
        }
    }
    let other = MaskKey::new(KEY.seed, KEY.offset + 1);
    assert_ne!(other.shard(&[12], 0, 0..12).unwrap(), equal[0][0]);
}

#[test]
fn what_does_not_fit_is_an_error_and_nothing_is_written() {
    for (shape, axis, range) in [
        (&[4, 3][..], 2, 0..1),
        (&[4, 3], 1, 2..4),
        (&[], 0, 0..0),
        (&[usize::MAX, 3], 1, 0..1),
    ] {
        let error = KEY.shard(shape, axis, range.clone()).unwrap_err();
        assert_eq!(
            (&error.shape[..], error.axis, error.range),
            (shape, axis, range)
        );
    }
    assert_eq!(
        KEY.shard(&[4, 3], 1, 2..4).unwrap_err().to_string(),
        "a shard must be a range of an axis of the whole tensor, of shape [4, 3], with at most 2^64 \
         elements: got 2..4 of axis 1"
    );
    let shard = KEY.shard(&[4, 3], 1, 0..2).unwrap();
    let (mut y, mut mask) = ([9.0; 7], BitMask::from_bools(&[true; 7]));
    let error = dropout::forward(rate(RATE), shard, &[1.0; 7], &mut y, &mut mask).unwrap_err();
    assert_eq!(error.to_string(), "length of shard: expected 8, got 7");
    assert_eq!((y, mask.count_kept()), ([9.0; 7], 7));
}

#[cfg(feature = "parallel")]
#[test]
fn one_two_and_seven_threads_agree() {
    let shard = KEY.shard(&[1500, 1000], 1, 123..789).unwrap();
    let x = vec![1.0_f32; shard.len().unwrap()];
    let run = |engine: Engine<'static>| {
        let (mut y, mut mask) = (vec![0.0; x.len()], BitMask::new(x.len()));
        engine
            .forward(
                rate(RATE),
                shard,
                Buffers::new(&x, &mut y).unwrap(),
                &mut mask,
            )
            .unwrap();
        let mut filled = BitMask::new(x.len());
        engine.fill_mask(rate(RATE), shard, &mut filled).unwrap();
        assert_eq!(mask, filled);
        (y, mask)
    };
    let engine = Engine::active().unwrap();
    crate::common::one_two_and_seven_threads_agree(engine, "shard", run);
}

/// The regions of tensor parallelism: one key for what all workers hold, other keys elsewhere.
#[test]
fn the_same_region_has_the_same_mask_and_others_have_unrelated_ones() {
    let len = 3 * TILE;
    let mask = |key: MaskKey| {
        let mut mask = BitMask::new(len);
        dropout::fill_mask(rate(RATE), key, &mut mask).unwrap();
        mask
    };
    // A worker has nothing but the key: whoever makes the mask, it is the same.
    let everywhere: Vec<BitMask> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3).map(|_| scope.spawn(|| mask(KEY))).collect();
        workers.into_iter().map(|w| w.join().unwrap()).collect()
    });
    assert!(everywhere.iter().all(|mask| *mask == whole(len)));

    let next_offset = MaskKey::new(KEY.seed, KEY.offset + 1);
    let next_seed = MaskKey::new(KEY.seed + 1, KEY.offset);
    for other in [next_offset, next_seed] {
        let (other_mask, own_mask) = (mask(other), mask(KEY));
        let both = other_mask.iter().zip(own_mask.iter());
        let kept_by_both = both.filter(|&(a, b)| a && b).count() as f64;
        // Binomial: five standard deviations.
        let (mean, q) = (0.49 * len as f64, 0.51);
        assert!(
            (kept_by_both - mean).abs() < 5.0 * (mean * q).sqrt(),
            "{other:?}"
        );
    }
}
