//! Monte Carlo dropout: samples that depend on the model, the input, the seed and their number, and
//! on nothing that happens around them.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use sorix_core::autograd::is_grad_enabled;
use sorix_core::{DType, Tensor, tensor};
use sorix_kernels::internal::parallel::waiting;
use sorix_nn::{
    Dropout, Error, Generator, GeneratorState, McClasses, McMoments, Mode, Module, MonteCarlo,
    Result, Sequential, functional, is_monte_carlo, mc_samples, monte_carlo, take_key,
};

fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().to_vec().unwrap()
}

/// Three dropouts in eval, one of them with a generator of its own.
fn model(generator: &Arc<Generator>) -> Sequential {
    let mut model = Sequential::new()
        .with(Dropout::new(0.2).unwrap())
        .with(Dropout::new(0.5).unwrap().generator(Arc::clone(generator)))
        .with(Sequential::new().with(Dropout::new(0.1).unwrap()));
    model.eval();
    model
}

#[test]
fn a_sample_depends_on_its_number_and_the_seed_alone() {
    let generator = Arc::new(Generator::new(1));
    let model = model(&generator);
    let x = Tensor::ones([50], DType::F32).unwrap();
    let draw = |n, seed| -> Vec<Vec<f64>> {
        let samples = mc_samples(&model, &x, n, seed).unwrap();
        samples.samples().iter().map(values).collect()
    };
    let many = draw(20, 7);
    assert_eq!(many.len(), 20);
    for n in [1, 2, 7] {
        assert_eq!(draw(n, 7), many[..n]);
    }
    for (i, sample) in many.iter().enumerate() {
        let alone = monte_carlo(7, i as u64, || model.forward(&x)).unwrap();
        assert_eq!(&values(&alone), sample, "sample {i}");
    }
    let distinct: HashSet<Vec<u64>> = many
        .iter()
        .chain(&draw(20, 8))
        .map(|sample| sample.iter().map(|y| y.to_bits()).collect())
        .collect();
    assert_eq!(distinct.len(), 40);
    assert_eq!(
        generator.state(),
        GeneratorState { seed: 1, offset: 0 },
        "the layer's own generator is not asked"
    );
    assert!(model.forward(&x).unwrap().same_storage(&x));
}

#[test]
fn the_keys_are_the_published_ones() {
    let keys = Generator::new(9).fork("monte carlo sample 3");
    let own = Generator::new(1);
    monte_carlo(9, 3, || {
        for mode in [Mode::Train, Mode::Eval] {
            assert_eq!(take_key(mode, &own), Some(keys.next_key()));
        }
        // Layers and functions take theirs from the same stream, in the order of calls.
        let x = Tensor::ones([100], DType::F64).unwrap();
        let layer = Dropout::new(0.5).unwrap();
        let expected = layer.forward_with_key(&x, keys.next_key()).unwrap();
        assert_eq!(values(&layer.forward(&x).unwrap()), values(&expected));
        let expected = layer.forward_with_key(&x, keys.next_key()).unwrap();
        let y = functional::dropout(&x, 0.5, Mode::Eval, &own).unwrap();
        assert_eq!(values(&y), values(&expected));
    });
    assert_eq!(own.state().offset, 0);
}

#[test]
fn scopes_nest_and_end_with_a_panic_too() {
    let own = Generator::new(1);
    let key = || take_key(Mode::Eval, &own);
    let (first, second, inner) = monte_carlo(1, 0, || {
        let first = key();
        let inner = monte_carlo(2, 0, key);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            monte_carlo(3, 0, || -> () { panic!("within the scope") })
        }));
        assert!(outcome.is_err());
        (first, key(), inner)
    });
    let outer = Generator::new(1).fork("monte carlo sample 0");
    assert_eq!(first, Some(outer.next_key()));
    assert_eq!(second, Some(outer.next_key()), "the outer scope goes on");
    assert_ne!(inner, first);
    assert_eq!(key(), None);
    assert!(!is_monte_carlo());
}

#[test]
fn a_scope_belongs_to_its_thread() {
    monte_carlo(1, 0, || {
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(!is_monte_carlo())).join().unwrap();
        });
    });
}

/// Passes in eval, passes with samples and training run at once, on threads and as tasks of one
/// rayon pool whose workers take up each other's tasks while they wait.
#[cfg(feature = "parallel")]
#[test]
fn one_model_serves_many_requests_at_once() {
    use rayon::prelude::*;

    let generator = Arc::new(Generator::new(1));
    let model = model(&generator);
    // Large enough for the kernels to share out.
    let x = Tensor::ones([1 << 19], DType::F32).unwrap();
    let expected = values(
        mc_samples(&model, &x, 2, 5)
            .unwrap()
            .samples()
            .last()
            .unwrap(),
    );
    (0..12).into_par_iter().for_each(|request| {
        if request % 2 == 0 {
            assert!(model.forward(&x).unwrap().same_storage(&x));
        } else {
            let samples = mc_samples(&model, &x, 2, 5).unwrap();
            assert!(
                values(&samples.samples()[1]) == expected,
                "request {request}"
            );
        }
    });
    assert_eq!(generator.state().offset, 0);
}

#[test]
fn a_scope_is_out_of_sight_while_its_task_waits() {
    monte_carlo(42, 0, || {
        assert!(is_monte_carlo());
        assert!(!waiting(is_monte_carlo));
        assert!(waiting(|| monte_carlo(42, 1, is_monte_carlo)));
        assert!(is_monte_carlo());
    });
    assert!(!is_monte_carlo());
}

/// While a sample waits, the worker of a pool runs another task of that pool, which should drop nothing.
#[cfg(feature = "parallel")]
#[test]
fn a_task_that_runs_while_a_sample_waits_is_not_in_its_scope() {
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Lets the pool it runs on run something else.
    #[derive(Debug, Module)]
    struct Waits;
    impl Module for Waits {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            waiting(rayon::yield_now);
            Ok(x.clone())
        }
    }
    let model = Sequential::new()
        .with(Waits)
        .with(Dropout::new(0.5).unwrap());
    let x = tensor([1.0; 64]);
    let expected = values(&monte_carlo(3, 0, || model.forward(&x)).unwrap());
    let in_scope = AtomicBool::new(true);
    pool(1).install(|| {
        rayon::scope(|scope| {
            scope.spawn(|_| in_scope.store(is_monte_carlo(), Ordering::Relaxed));
            let samples = mc_samples(&model, &x, 1, 3).unwrap();
            assert_eq!(values(&samples.samples()[0]), expected);
        });
    });
    assert!(!in_scope.into_inner());
}

/// The same while an operation of a sample waits, on whatever pool.
#[cfg(feature = "parallel")]
#[test]
fn tasks_of_one_pool_do_not_see_each_others_samples() {
    // A function of so many elements is shared out.
    let x = Tensor::ones([1 << 13], DType::F64).unwrap();
    pool(4).in_place_scope(|scope| {
        for task in 0..100 {
            let x = &x;
            scope.spawn(move |_| {
                assert!(!is_monte_carlo(), "task {task} began within a sample");
                monte_carlo(1, task, || {
                    x.exp().unwrap();
                    assert!(is_monte_carlo(), "task {task} lost its sample");
                });
            });
        }
    });
}

#[cfg(feature = "parallel")]
fn pool(threads: usize) -> rayon::ThreadPool {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build().unwrap()
}

#[test]
fn mean_and_variance() {
    /// Gives 1, 2, 3 … times its input, whatever the thread.
    #[derive(Debug, Module)]
    struct Fixed(Vec<f64>);
    impl Module for Fixed {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            assert!(!is_grad_enabled(), "a sample records nothing");
            // Which sample this is, told from the key.
            let key = take_key(Mode::Eval, &Generator::new(0)).unwrap();
            let sample = (0..self.0.len())
                .find(|i| {
                    let keys = Generator::new(4).fork(&format!("monte carlo sample {i}"));
                    keys.seed() == key.seed
                })
                .unwrap();
            Ok(x.mul_scalar(self.0[sample])?)
        }
    }
    let x = tensor([1.0, -2.0]).requires_grad(true);
    let samples = mc_samples(&Fixed(vec![1.0, 2.0, 6.0]), &x, 3, 4).unwrap();
    assert!(samples.samples().iter().all(|y| !y.needs_grad()));
    assert_eq!(values(&samples.mean().unwrap()), [3.0, -6.0]);
    assert_eq!(values(&samples.variance().unwrap()), [7.0, 28.0]);

    // A large mean and a small spread, where the textbook's sum of squares loses everything.
    let far = Fixed(vec![1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0]);
    let samples = mc_samples(&far, &x, 4, 4).unwrap();
    assert_eq!(values(&samples.variance().unwrap()), [30.0, 120.0]);

    // Half precision is rounded at the end, not on the way: the sum of these is infinite in f16.
    let half = Tensor::full([1], 1000.0, DType::F16).unwrap();
    let samples = mc_samples(&Fixed(vec![60.0; 5]), &half, 5, 4).unwrap();
    let mean = samples.mean().unwrap();
    assert_eq!((values(&mean), mean.dtype()), (vec![60_000.0], DType::F16));

    let one = mc_samples(&Fixed(vec![1.0]), &x, 1, 4).unwrap();
    assert!(values(&one.variance().unwrap()).iter().all(|v| v.is_nan()));
    assert_eq!(one.into_samples().len(), 1);
}

#[test]
fn statistics_of_the_samples_are_those_of_dropout() {
    // y = x * kept / 0.75: mean x, variance x^2 * p / (1 - p) = x^2 / 3.
    let mut dropout = Dropout::new(0.25).unwrap();
    dropout.eval();
    let samples = mc_samples(&dropout, &tensor([3.0; 100]), 400, 11).unwrap();
    let average = |x: &Tensor| values(x).iter().sum::<f64>() / 100.0;
    // 40,000 draws of standard deviation 1.73: five standard errors are 0.043.
    assert!((average(&samples.mean().unwrap()) - 3.0).abs() < 0.05);
    assert!((average(&samples.variance().unwrap()) - 3.0).abs() < 0.1);
}

#[test]
fn a_running_mean_and_variance_have_the_bits_of_those_of_all_samples() {
    let bytes = |x: Result<Tensor>| x.unwrap().to_le_bytes().unwrap();
    for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
        let (model, x) = (
            model(&Arc::new(Generator::new(1))),
            Tensor::full([50], 0.3, dtype).unwrap(),
        );
        for n in [1, 2, 3, 100] {
            let passes = MonteCarlo::new(3);
            let (moments, samples) = (
                passes.moments(&model, &x, n).unwrap(),
                passes.samples(&model, &x, n).unwrap(),
            );
            assert_eq!(moments.count(), n);
            assert_eq!(bytes(moments.mean()), bytes(samples.mean()));
            assert_eq!(bytes(moments.variance()), bytes(samples.variance()));
            let alone = passes.on_this_thread().moments(&model, &x, n).unwrap();
            assert_eq!(
                bytes(moments.standard_error()),
                bytes(alone.standard_error())
            );
        }
    }
    let mut moments = McMoments::new();
    assert_eq!(moments.mean().unwrap_err(), Error::NoSamples);
    moments.add(&tensor([1.0, f64::INFINITY])).unwrap();
    moments.add(&tensor([2.0, 1.0])).unwrap();
    assert_eq!(values(&moments.mean().unwrap()), [1.5, f64::INFINITY]);
    assert!(moments.add(&tensor([1.0])).is_err() && moments.add(&tensor([1.0_f32; 2])).is_err());
    assert_eq!(moments.count(), 2);
}

#[test]
fn sampling_stops_where_the_standard_error_is_small_enough() {
    let (model, x) = (Dropout::new(0.5).unwrap(), tensor([1.0, 3.0]));
    let passes = MonteCarlo::new(5);
    let until = |wanted, n| passes.moments_until(&model, &x, wanted, n).unwrap();
    let stopped = until(0.5, 2..=1000);
    let n = stopped.count();
    let largest = |n| {
        let moments = passes.moments(&model, &x, n).unwrap();
        values(&moments.standard_error().unwrap())
            .into_iter()
            .fold(0.0, f64::max)
    };
    assert!((10..200).contains(&n), "{n}");
    assert!(largest(n) <= 0.5 && largest(n - 1) > 0.5);
    let alone = passes
        .on_this_thread()
        .moments_until(&model, &x, 0.5, 2..=1000)
        .unwrap();
    assert_eq!(alone.count(), n);
    assert_eq!(until(0.5, 300..=1000).count(), 300);
    assert_eq!(until(0.0, 2..=40).count(), 40);
    for wrong in [f64::NAN, -1.0] {
        assert!(passes.moments_until(&model, &x, wrong, 2..=40).is_err());
    }
}

#[test]
fn quantiles() {
    let mut dropout = Dropout::new(0.5).unwrap();
    dropout.eval();
    let samples = mc_samples(&dropout, &tensor([1.0]), 101, 1).unwrap();
    let mut sorted: Vec<f64> = samples.samples().iter().map(|y| values(y)[0]).collect();
    sorted.sort_by(f64::total_cmp);
    for (q, at) in [(0.0, 0), (0.37, 37), (0.5, 50), (1.0, 100)] {
        assert_eq!(values(&samples.quantile(q).unwrap()), [sorted[at]]);
    }
    let two = mc_samples(&Fourths, &tensor([0.0, 8.0]), 2, 1).unwrap();
    assert_eq!(values(&two.quantile(0.25).unwrap()), [0.25, 8.25]);
    assert!(two.quantile(1.5).is_err() && two.quantile(f64::NAN).is_err());
}

/// Adds the number of the sample, of the first two.
#[derive(Debug, Module)]
struct Fourths;
impl Module for Fourths {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let key = take_key(Mode::Eval, &Generator::new(0)).unwrap();
        let first = Generator::new(1).fork("monte carlo sample 0").seed();
        Ok(x.add_scalar(f64::from(u8::from(key.seed != first)))?)
    }
}

#[test]
fn entropies_of_a_classifier() {
    let mut classes = McClasses::new();
    assert_eq!(classes.entropy().unwrap_err(), Error::NoSamples);
    // Probabilities 1/4, 3/4 and 3/4, 1/4; and one row that is sure.
    let third = 3.0_f64.ln();
    classes
        .add(&tensor([[0.0, third], [0.0, f64::NEG_INFINITY]]))
        .unwrap();
    classes
        .add(&tensor([[third, 0.0], [0.0, f64::NEG_INFINITY]]))
        .unwrap();
    let close = |x: Result<Tensor>, expected: [f64; 2]| {
        let values = values(&x.unwrap());
        let near = values
            .iter()
            .zip(expected)
            .all(|(x, y)| (x - y).abs() < 1e-12);
        assert!(near, "{values:?}, not {expected:?}");
    };
    let each = -(0.25 * 0.25_f64.ln() + 0.75 * 0.75_f64.ln());
    let both = 2.0_f64.ln();
    close(classes.entropy(), [both, 0.0]);
    close(classes.expected_entropy(), [each, 0.0]);
    close(classes.mutual_information(), [both - each, 0.0]);
    assert_eq!(
        values(&classes.probabilities().unwrap()),
        [0.5, 0.5, 1.0, 0.0]
    );
    assert!(classes.add(&tensor(1.0)).is_err());
}

#[test]
fn errors() {
    let dropout = Dropout::new(0.5).unwrap();
    let error = mc_samples(&dropout, &tensor([1.0]), 0, 1).unwrap_err();
    assert_eq!(error, Error::NoSamples);
    assert_eq!(
        error.to_string(),
        "mc_samples: expected at least one sample, got n = 0"
    );
}
