//! Requests from the threads of pools: they do not pile up on a stack, and are answered in the order in
//! which they came, more or less.
#![cfg(feature = "parallel")]

use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use sorix_core::{DType, Tensor, tensor};
use sorix_nn::{Dropout, Error, Module, MonteCarlo, Result, Sequential, mc_samples};

fn pool(threads: usize) -> rayon::ThreadPool {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build().unwrap()
}

fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().to_vec().unwrap()
}

thread_local! {
    /// The requests on the stack of this thread.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// What is seen of all requests.
#[derive(Default)]
struct Seen {
    /// The most on one stack.
    deepest: AtomicUsize,
    /// Those that ended, in this order.
    answered: Mutex<Vec<usize>>,
}

/// Counts a request, while it is answered, with those below it on the stack.
fn request<R>(seen: &Seen, number: usize, answer: impl FnOnce() -> R) -> R {
    let depth = DEPTH.get() + 1;
    seen.deepest.fetch_max(depth, Ordering::Relaxed);
    DEPTH.set(depth);
    let answer = answer();
    DEPTH.set(depth - 1);
    seen.answered.lock().unwrap().push(number);
    answer
}

/// A dropout, an operation that is long enough to be shared out, and a dropout.
#[derive(Debug, Module)]
struct Large(Sequential);

impl Module for Large {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let wide = x.expand([1 << 8, x.numel()])?;
        let y = self.0.forward(&wide.exp()?)?;
        Ok(y.sum()?)
    }
}

fn failure(number: usize) -> Error {
    Error::Threads {
        reason: number.to_string(),
    }
}

fn model() -> Sequential {
    let mut model = Sequential::new()
        .with(Dropout::new(0.5).unwrap())
        .with(Dropout::new(0.1).unwrap());
    model.eval();
    model
}

#[test]
fn ten_thousand_requests_of_one_pool() {
    let (model, x) = (model(), tensor([1.0; 8]));
    for threads in [1, 2, 4] {
        let seen = Seen::default();
        pool(threads).install(|| {
            (0..10_000).into_par_iter().for_each(|i| {
                request(&seen, i, || mc_samples(&model, &x, 4, i as u64).unwrap());
            });
        });
        assert!(seen.deepest.into_inner() <= 3, "{threads} threads");
    }
}

#[test]
fn requests_do_not_pile_up_above_others() {
    let (model, x) = (model(), tensor([1.0; 64]));
    for threads in [1, 2, 4] {
        let seen = Seen::default();
        pool(threads).in_place_scope(|scope| {
            for i in 0..500 {
                let (model, x, seen) = (&model, &x, &seen);
                scope.spawn(move |_| {
                    request(seen, i, || mc_samples(model, x, 4, i as u64).unwrap());
                });
            }
        });
        // How often a thread takes up another request while it waits is up to the scheduler, how many it
        // has on its stack is not; nor is the first request left to wait for most of the others.
        assert!(seen.deepest.into_inner() <= 3, "{threads} threads");
        let answered = seen.answered.into_inner().unwrap();
        let first = answered.iter().position(|&i| i == 0).unwrap();
        assert!(first < 250, "the first request was answer {first}");
    }
}

/// Operations that are shared out wait by rayon, also within passes.
#[test]
fn operations_that_wait_do_not_pile_up() {
    let (model, x) = (Large(model()), Tensor::ones([1 << 8], DType::F64).unwrap());
    let seen = Seen::default();
    pool(4).in_place_scope(|scope| {
        for i in 0..100 {
            let (model, x, seen) = (&model, &x, &seen);
            scope.spawn(move |_| {
                request(seen, i, || {
                    model.forward(x).unwrap();
                    mc_samples(model, x, 2, i as u64).unwrap();
                });
            });
        }
    });
    let deepest = seen.deepest.into_inner();
    assert!(deepest <= 3, "{deepest} on one stack");
}

#[test]
fn a_pool_of_another_and_none() {
    let (model, x) = (model(), tensor([1.0; 64]));
    let expected: Vec<_> = (0..20)
        .map(|seed| values(&mc_samples(&model, &x, 5, seed).unwrap().mean().unwrap()))
        .collect();
    let (ours, theirs) = (pool(2), pool(3));
    for requests in [&ours, &theirs] {
        let seen = Seen::default();
        requests.install(|| {
            (0..2000_usize).into_par_iter().for_each(|i| {
                let seed = i % expected.len();
                let passes = MonteCarlo::new(seed as u64);
                let passes = if i % 3 == 0 {
                    passes.on_this_thread()
                } else {
                    passes.on_pool(&ours)
                };
                let samples = request(&seen, i, || passes.samples(&model, &x, 5).unwrap());
                assert_eq!(values(&samples.mean().unwrap()), expected[seed]);
            });
        });
        assert!(seen.deepest.into_inner() <= 3);
    }
}

#[test]
fn the_first_pass_that_fails_is_reported_and_a_panic_comes_through() {
    /// Fails for some numbers of samples, told from their keys, and panics for one of them.
    #[derive(Debug, Module)]
    struct Fails(Vec<usize>, Option<usize>);
    impl Module for Fails {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            let own = sorix_nn::Generator::new(0);
            let key = sorix_nn::take_key(sorix_nn::Mode::Eval, &own).unwrap();
            let number = (0..100)
                .find(|i| {
                    let sample =
                        sorix_nn::Generator::new(7).fork(&format!("monte carlo sample {i}"));
                    sample.seed() == key.seed
                })
                .unwrap();
            assert_ne!(Some(number), self.1, "as asked");
            if self.0.contains(&number) {
                return Err(failure(number));
            }
            Ok(x.clone())
        }
    }
    let x = tensor([1.0]);
    for threads in [1, 2, 4] {
        pool(threads).install(|| {
            for _ in 0..50 {
                let error = mc_samples(&Fails(vec![5, 3, 40], None), &x, 100, 7).unwrap_err();
                assert_eq!(error, failure(3));
            }
            let outcome =
                std::panic::catch_unwind(|| mc_samples(&Fails(vec![], Some(11)), &x, 100, 7));
            assert!(outcome.is_err());
            // And the pool is as it was.
            assert_eq!(mc_samples(&model(), &x, 3, 7).unwrap().samples().len(), 3);
        });
    }
}
