//! Monte Carlo dropout: a trained network that drops at inference, repeatably.

use core::cell::RefCell;
use core::convert::Infallible;
use core::marker::PhantomData;
use std::rc::Rc;

use sorix_core::autograd::{no_grad, taped_mode};
use sorix_core::{DType, MaskKey, Tensor};
use sorix_kernels::parallel::TaskValue;

use crate::error::{Error, Result};
use crate::generator::Generator;
use crate::mode::Mode;
use crate::module::Module;

thread_local! {
    /// Where the keys come from while a scope is open on this thread.
    static SCOPE: RefCell<Option<TaskValue<Rc<Generator>>>> = const { RefCell::new(None) };
}

/// Runs `f`, normally the forward pass of a model in eval mode, as Monte Carlo sample number
/// `sample` of the stream `seed`: every dropout in it drops, whatever its mode.
///
/// Within `f` dropouts take their keys, in the order of their calls, from a generator of the scope,
/// `Generator::new(seed).fork("monte carlo sample 7")` for sample 7. Their own generators and the one
/// of the process do not advance. So the result depends on the model, its input, `seed` and `sample`
/// alone, and one model serves many threads at once, each in a scope of its own. A scope within a
/// scope replaces it until it ends. It ends also where `f` panics.
///
/// Source: Gal and Ghahramani, *Dropout as a Bayesian approximation*, ICML 2016.
///
/// # Limits
///
/// The scope belongs to the calling thread. A model that runs dropouts on other threads has to enter
/// it there too, with samples of its own numbering. Tasks that rayon runs on this thread while one of
/// sorix's operations waits are not in the scope; but those that it runs while `f` waits for a pool
/// by itself, by `rayon::join` or `yield_now`, are. Where such tasks run models too, use
/// [`mc_samples`], whose threads run nothing else.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{Dropout, Module, Result, monte_carlo};
///
/// let mut dropout = Dropout::new(0.5)?;
/// dropout.eval();
/// let x = tensor([1.0; 64]);
/// let sample = |i| -> Result<Vec<f64>> {
///     Ok(monte_carlo(1234, i, || dropout.forward(&x))?.to_vec()?)
/// };
/// assert_eq!(sample(0)?, sample(0)?);
/// assert_ne!(sample(0)?, sample(1)?);
/// assert!(dropout.forward(&x)?.same_storage(&x));
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn monte_carlo<R>(seed: u64, sample: u64, f: impl FnOnce() -> R) -> R {
    let keys = Generator::new(seed).fork(&format!("monte carlo sample {sample}"));
    let _scope = Scope::enter(keys);
    f()
}

/// Closes the scope, and opens again the one it replaced, when dropped.
struct Scope {
    previous: Option<TaskValue<Rc<Generator>>>,
    // The scope is the thread's, so the guard has to stay there.
    not_send: PhantomData<*const ()>,
}

impl Scope {
    fn enter(keys: Generator) -> Self {
        Self {
            previous: SCOPE.replace(Some(TaskValue::new(Rc::new(keys)))),
            not_send: PhantomData,
        }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        SCOPE.replace(self.previous.take());
    }
}

/// The key for one call of a dropout, or `None` where the call drops nothing: what a layer of one's
/// own asks before it draws.
///
/// Within [`monte_carlo`] it is a key of the scope. Otherwise it is one of `generator` in training,
/// and there is none in eval.
///
/// ```
/// use sorix_nn::{Generator, Mode, monte_carlo, take_key};
///
/// let generator = Generator::new(42);
/// assert_eq!(take_key(Mode::Train, &generator), Some(Generator::new(42).next_key()));
/// assert_eq!(take_key(Mode::Eval, &generator), None);
/// assert!(monte_carlo(1, 0, || take_key(Mode::Eval, &generator)).is_some());
/// assert_eq!(generator.state().offset, 1);
/// ```
#[must_use = "a key that is taken names one mask, and is not given again"]
pub fn take_key(mode: Mode, generator: &Generator) -> Option<MaskKey> {
    let Ok(key) = key_source(mode, || Ok::<_, Infallible>(generator))?();
    Some(key)
}

/// [`take_key`] in two steps: whether the call drops, and what takes its key once that is due.
/// `generator` is called only if no scope gives the key.
pub(crate) fn key_source<'a, E>(
    mode: Mode,
    generator: impl FnOnce() -> Result<&'a Generator, E>,
) -> Option<impl FnOnce() -> Result<MaskKey, E>> {
    let drops = mode == Mode::Train || is_monte_carlo();
    drops.then_some(|| match scope() {
        Some(keys) => Ok(keys.next_key()),
        None => Ok(generator()?.next_key()),
    })
}

/// Whether [`monte_carlo`] is open on this thread, so that dropouts drop in either mode. When backward
/// computes a [checkpoint](sorix_core::autograd::checkpoint) again: whether it was the first time.
///
/// ```
/// use sorix_nn::{is_monte_carlo, monte_carlo};
/// assert!(!is_monte_carlo());
/// assert!(monte_carlo(42, 0, is_monte_carlo));
/// ```
#[must_use]
pub fn is_monte_carlo() -> bool {
    taped_mode(|| scope().is_some())
}

/// The scope of the task that runs on this thread, not that of one which waits meanwhile.
fn scope() -> Option<Rc<Generator>> {
    SCOPE.with_borrow(|scope| scope.as_ref()?.get().cloned())
}

/// `n` stochastic passes of `x` through a model: [`monte_carlo`] samples 0 to n - 1 of `seed`.
///
/// The model may be in eval mode and may be used by others meanwhile. No pass records a graph or
/// keeps a mask. With the feature `parallel` the passes share threads of their own, as many as rayon
/// takes by default; what a sample is depends neither on the number of threads nor on `n`.
///
/// # Errors
///
/// Where `n` is 0, where a pass fails, and where threads cannot be started.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{Dropout, Module, mc_samples};
///
/// let mut dropout = Dropout::new(0.5)?;
/// dropout.eval();
/// let samples = mc_samples(&dropout, &tensor([3.0]), 1000, 42)?;
/// // Each sample is 0 or 6, half of them 6: the mean is 3, the variance 9.
/// assert!((samples.mean()?.item::<f64>()? - 3.0).abs() < 0.5);
/// assert!((samples.variance()?.item::<f64>()? - 9.0).abs() < 0.5);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn mc_samples<M: Module + ?Sized>(
    model: &M,
    x: &Tensor,
    n: usize,
    seed: u64,
) -> Result<McSamples> {
    if n == 0 {
        return Err(Error::NoSamples);
    }
    let sample = |i: usize| no_grad(|| monte_carlo(seed, i as u64, || model.forward(x)));
    Ok(McSamples {
        samples: run(n, sample)?,
    })
}

#[cfg(feature = "parallel")]
fn run(n: usize, sample: impl Fn(usize) -> Result<Tensor> + Sync) -> Result<Vec<Tensor>> {
    use rayon::prelude::*;
    use sorix_kernels::parallel::waiting;

    let pool = pool()?;
    waiting(|| pool.install(|| (0..n).into_par_iter().map(&sample).collect()))
}

#[cfg(not(feature = "parallel"))]
fn run(n: usize, sample: impl Fn(usize) -> Result<Tensor>) -> Result<Vec<Tensor>> {
    (0..n).map(sample).collect()
}

/// The threads that run samples. A pool of its own, because a worker that waits for a part of one
/// task runs another of its pool in between: here that is another sample, which brings its own
/// scope, and not some pass that should drop nothing.
#[cfg(feature = "parallel")]
fn pool() -> Result<&'static rayon::ThreadPool> {
    static POOL: std::sync::OnceLock<Result<rayon::ThreadPool, String>> =
        std::sync::OnceLock::new();
    POOL.get_or_init(|| {
        rayon::ThreadPoolBuilder::new()
            .thread_name(|i| format!("sorix-mc-{i}"))
            .build()
            .map_err(|error| error.to_string())
    })
    .as_ref()
    .map_err(|reason| Error::Threads {
        reason: reason.clone(),
    })
}

/// What [`mc_samples`] drew: one output of the model for each sample, and at least one.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{Dropout, mc_samples};
///
/// let dropout = Dropout::new(0.5)?;
/// let samples = mc_samples(&dropout, &tensor([1.0, 1.0]), 10, 42)?;
/// assert_eq!(samples.samples().len(), 10);
/// assert_eq!(samples.mean()?.shape(), [2]);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct McSamples {
    samples: Vec<Tensor>,
}

impl McSamples {
    /// The outputs, by their number.
    #[must_use]
    pub fn samples(&self) -> &[Tensor] {
        &self.samples
    }

    /// The outputs, to keep.
    #[must_use]
    pub fn into_samples(self) -> Vec<Tensor> {
        self.samples
    }

    /// The mean of each element over the samples: the prediction. Computed in f64, in the order of
    /// the samples, and rounded to their dtype.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    pub fn mean(&self) -> Result<Tensor> {
        self.rounded(self.mean_f64()?)
    }

    /// The unbiased variance (divided by n - 1) of each element over the samples: how sure the model
    /// is. NaN where there is a single sample.
    ///
    /// Computed in f64 from the squared distances to the mean, so nothing cancels, and rounded to
    /// the dtype of the samples.
    ///
    /// # Errors
    ///
    /// As [`mean`](McSamples::mean).
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Dropout, mc_samples};
    /// // Far from zero, where the mean of squares less the square of the mean would be off by 10^4.
    /// let samples = mc_samples(&Dropout::new(0.0)?, &tensor([1e10]), 3, 42)?;
    /// assert_eq!(samples.variance()?.item::<f64>()?, 0.0);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn variance(&self) -> Result<Tensor> {
        let mean = self.mean_f64()?;
        let distances = self.sum_f64(|sample| {
            let distance = sample.sub(&mean)?;
            distance.mul(&distance)
        })?;
        self.rounded(distances.mul_scalar(1.0 / (self.samples.len() as f64 - 1.0))?)
    }

    fn mean_f64(&self) -> Result<Tensor> {
        let sum = self.sum_f64(|sample| Ok(sample.clone()))?;
        Ok(sum.mul_scalar(1.0 / self.samples.len() as f64)?)
    }

    /// The sum of `f` of each sample.
    fn sum_f64(&self, f: impl Fn(&Tensor) -> sorix_core::Result<Tensor>) -> Result<Tensor> {
        let term = |sample: &Tensor| f(&sample.to_dtype(DType::F64)?);
        let (first, rest) = self
            .samples
            .split_first()
            .expect("there is at least one sample");
        let sum = rest
            .iter()
            .try_fold(term(first)?, |sum, sample| sum.add(&term(sample)?))?;
        Ok(sum)
    }

    fn rounded(&self, x: Tensor) -> Result<Tensor> {
        Ok(x.to_dtype(self.samples[0].dtype())?)
    }
}
