//! Recycled memory: that it is recycled, bounded, and never seen by anybody but its owner.
//!
//! The pool is one for the process, so these tests take turns.

use std::sync::{Mutex, MutexGuard, PoisonError};

use sorix_core::{DType, DropRate, MaskKey, SaveMask, Tensor, pool};

fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    pool::set_limit(1 << 30);
    pool::clear();
    turn
}

fn full(elements: usize, value: f64) -> Tensor {
    Tensor::full([elements], value, DType::F32).unwrap()
}

#[test]
fn a_training_loop_allocates_only_in_its_first_step() {
    let _turn = turn();
    let w = full(100_000, 1.0).requires_grad(true);
    let step = |i| {
        w.zero_grad();
        let key = MaskKey::new(1, i);
        let y = w
            .dropout(DropRate::new(0.5).unwrap(), key, SaveMask::Bits)
            .unwrap();
        y.mul(&w).unwrap().sum().unwrap().backward().unwrap();
    };
    step(0);
    step(1);
    let warm = pool::stats();
    for i in 2..20 {
        step(i);
    }
    let after = pool::stats();
    assert_eq!(after.misses, warm.misses);
    assert!(after.hits >= warm.hits + 18 * 4);
    assert_eq!(after.held_bytes, warm.held_bytes);
}

#[test]
fn what_another_tensor_left_is_never_seen() {
    let _turn = turn();
    for elements in [1000, 5000, 100_000] {
        let dirty = || {
            drop([
                full(elements, 7.0),
                full(elements, 7.0),
                full(elements, 7.0),
            ])
        };
        dirty();
        let hits = pool::stats().hits;
        let zeros = Tensor::zeros([elements], DType::F32).unwrap();
        if elements >= 5000 {
            assert_eq!(pool::stats().hits, hits + 1);
        }
        assert_eq!(zeros.to_vec::<f32>().unwrap(), vec![0.0; elements]);
        dirty();
        assert_eq!(
            full(elements, 2.0).neg().unwrap().to_vec::<f32>().unwrap(),
            vec![-2.0; elements]
        );
        dirty();
        let rate = DropRate::new(1.0).unwrap();
        let dropped = full(elements, 2.0)
            .dropout(rate, MaskKey::new(1, 1), SaveMask::Bits)
            .unwrap();
        assert_eq!(dropped.to_vec::<f32>().unwrap(), vec![0.0; elements]);
    }
}

#[test]
fn memory_in_use_is_not_handed_out() {
    let _turn = turn();
    let x = full(10_000, 1.0);
    let view = x.reshape([100, 100]).unwrap();
    drop(x);
    let others: Vec<Tensor> = (0..4).map(|i| full(10_000, f64::from(i))).collect();
    assert_eq!(view.to_vec::<f32>().unwrap(), vec![1.0; 10_000]);
    for (i, other) in others.iter().enumerate() {
        assert!(!other.same_storage(&view));
        assert_eq!(other.to_vec::<f32>().unwrap(), vec![i as f32; 10_000]);
    }
    let held = pool::stats().held_buffers;
    drop(view);
    assert_eq!(
        pool::stats().held_buffers,
        held + 1,
        "the last view returns it"
    );
}

#[test]
fn threads_get_buffers_of_their_own() {
    let _turn = turn();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for round in 0..200 {
                    let value = f64::from(thread * 1000 + round);
                    let (x, y) = (full(5000, value), full(5000, value + 0.5));
                    std::thread::yield_now();
                    assert_eq!(x.to_vec::<f32>().unwrap(), vec![value as f32; 5000]);
                    assert_eq!(y.to_vec::<f32>().unwrap(), vec![value as f32 + 0.5; 5000]);
                }
            });
        }
    });
    let stats = pool::stats();
    assert!(
        stats.held_buffers <= 8,
        "no more than were in use at once: {stats:?}"
    );
}

#[test]
fn the_limit_holds_and_clear_empties() {
    let _turn = turn();
    pool::set_limit(100_000);
    drop((0..10).map(|_| full(10_000, 1.0)).collect::<Vec<_>>());
    let stats = pool::stats();
    assert_eq!(stats.limit_bytes, 100_000);
    assert_eq!((stats.held_buffers, stats.held_bytes), (2, 2 * 40_960));

    pool::set_limit(50_000);
    assert_eq!(pool::stats().held_buffers, 1);
    pool::clear();
    assert_eq!(
        (pool::stats().held_buffers, pool::stats().held_bytes),
        (0, 0)
    );
    pool::set_limit(0);
    drop(full(10_000, 1.0));
    assert_eq!(pool::stats().held_buffers, 0);
}

#[test]
fn sizes_that_are_almost_the_same_share_buffers() {
    let _turn = turn();
    drop(full(100_000, 1.0));
    let hits = pool::stats().hits;
    drop(full(99_000, 1.0));
    assert_eq!(pool::stats().hits, hits + 1);
}

#[test]
fn small_tensors_are_left_to_the_allocator() {
    let _turn = turn();
    let before = pool::stats();
    drop(full(100, 1.0));
    assert_eq!(pool::stats(), before);
}
