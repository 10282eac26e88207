//! Who may wait for a pool.
#![cfg(feature = "parallel")]

use sorix_kernels::internal::parallel::{may_wait, may_wait_for, threads_pay, waiting};

fn pool(threads: usize) -> rayon::ThreadPool {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build().unwrap()
}

#[test]
fn two_tasks_on_a_stack_may_wait_and_a_third_works_alone() {
    let other = pool(1);
    pool(2).install(|| {
        assert!(may_wait() && threads_pay(usize::MAX) && may_wait_for(&other));
        waiting(|| {
            assert!(may_wait() && threads_pay(usize::MAX) && may_wait_for(&other));
            waiting(|| assert!(!may_wait() && !threads_pay(usize::MAX) && !may_wait_for(&other)));
            assert!(may_wait());
        });
        let outcome = std::panic::catch_unwind(|| waiting(|| waiting(|| panic!("as asked"))));
        assert!(outcome.is_err() && may_wait());
    });
}

#[test]
fn one_thread_waits_for_nobody() {
    pool(1).install(|| assert!(!may_wait() && !threads_pay(usize::MAX)));
}
