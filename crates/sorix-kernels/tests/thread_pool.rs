//! Small calls leave rayon's global pool to the program. A test binary of its own: the pool is made
//! once in a process.
#![cfg(feature = "parallel")]

use sorix_kernels::{BitMask, DropRate, MaskKey, dropout};

#[test]
fn small_calls_do_not_start_the_global_pool() {
    let (rate, key) = (DropRate::new(0.5).unwrap(), MaskKey::new(7, 0));
    let x = vec![1.0_f32; 10_000];
    let (mut y, mut dx, mut mask) = (x.clone(), x.clone(), BitMask::new(x.len()));
    dropout::fill_mask(rate, key, &mut mask).unwrap();
    dropout::forward(rate, key, &x, &mut y, &mut mask).unwrap();
    dropout::backward(rate, &mask, &x, &mut dx).unwrap();
    assert_eq!(dx, y);
    dropout::replay(rate, key, &x, &mut dx).unwrap();
    assert_eq!(dx, y);
    dropout::apply(rate, &mask, &x, &mut dx).unwrap();
    assert_eq!(dx, y);

    let pool = rayon::ThreadPoolBuilder::new().num_threads(3);
    pool.build_global().expect("no call has started it");
    assert_eq!(rayon::current_num_threads(), 3);
}
