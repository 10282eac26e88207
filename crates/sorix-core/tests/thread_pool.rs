//! Small operations leave rayon's global pool to the program. A test binary of its own: the pool is
//! made once in a process.
#![cfg(feature = "parallel")]

use sorix_core::{DType, DropRate, MaskKey, SaveMask, Tensor};

#[test]
fn small_operations_do_not_start_the_global_pool() {
    let x = Tensor::ones([32, 32], DType::F32)
        .unwrap()
        .requires_grad(true);
    let rate = DropRate::new(0.5).unwrap();
    let y = x
        .matmul(&x)
        .and_then(|y| y.exp()?.add(&x)?.softmax(-1))
        .and_then(|y| y.dropout(rate, MaskKey::new(7, 0), SaveMask::Bits))
        .unwrap();
    y.sum().unwrap().backward().unwrap();
    assert_eq!(x.grad().unwrap().shape(), [32, 32]);

    let pool = rayon::ThreadPoolBuilder::new().num_threads(3);
    pool.build_global().expect("no operation has started it");
    assert_eq!(rayon::current_num_threads(), 3);
}
