//! Monte Carlo dropout: a trained network that drops at inference, repeatably.

mod moments;
mod passes;
mod samples;

use core::cell::{Cell, RefCell};
use std::rc::Rc;

use sorix_core::autograd::{Scopes, taped_mode};
use sorix_core::{MaskKey, batch_invariant};

pub use self::moments::{McClasses, McMoments};
pub use self::passes::{MonteCarlo, mc_samples};
pub use self::samples::McSamples;
use crate::error::{Error, Result};
use crate::generator::Generator;
use crate::mode::Mode;

thread_local! {
    /// Where the keys come from within the scopes that are open on this thread.
    static SCOPES: RefCell<Scopes<Rc<Keys>>> = const { RefCell::new(Scopes::new()) };
}

/// What gives keys in a scope.
#[derive(Debug)]
enum Keys {
    /// One for each call.
    Whole(Generator),
    /// One for each row of each call.
    Rows {
        rows: Vec<Generator>,
        /// Whether a call wanted one for all rows, which is an error.
        shared: Cell<bool>,
    },
}

/// Where sample number `sample` of the stream `seed` takes its keys from.
fn keys_of(seed: u64, sample: u64) -> Generator {
    Generator::new(seed).fork(&format!("monte carlo sample {sample}"))
}

/// Runs `f`, normally the forward pass of a model in eval mode, as Monte Carlo sample number
/// `sample` of the stream `seed`: every dropout in it drops, whatever its mode.
///
/// Within `f` dropouts take their keys, in the order of their calls, from a generator of the scope,
/// `Generator::new(seed).fork("monte carlo sample 7")` for sample 7. Their own generators and the one
/// of the process do not advance. So the result depends on the model, its input, `seed` and `sample`
/// alone, and one model serves many threads at once, each in a scope of its own. A scope within a
/// scope replaces it until it ends. It ends also if `f` panics.
///
/// Source: Gal and Ghahramani, *Dropout as a Bayesian approximation*, ICML 2016.
///
/// # Limits
///
/// The scope belongs to the calling thread. A model that runs dropouts on other threads has to enter
/// it there too, with samples of its own numbering. Tasks that rayon runs on this thread while one of
/// sorix's operations waits are not in the scope; but those that it runs while `f` waits for a pool
/// by itself, by `rayon::join` or `yield_now`, are. If such tasks run models too, wait within
/// [`parallel::waiting`](sorix_kernels::internal::parallel::waiting), which hides the scope from all of them.
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
    let keys = Keys::Whole(keys_of(seed, sample));
    let _scope = Scopes::open(&SCOPES, Rc::new(keys));
    f()
}

/// [`monte_carlo`] for a batch of requests, each with a seed of its own: what comes out for a request has
/// the same bits alone and in any batch, at any place in it.
///
/// Every dropout in `f` drops. The first axis of its input is cut into as many equal parts as there are
/// seeds, and each part is dropped from as if it came alone, by keys from `Generator::new(seed).fork("monte
/// carlo sample 7")` with the seed of its request. So a model whose input has one row for each request may
/// fold other axes into the first one, behind it. Products of matrices are
/// [`batch_invariant`]. A mask costs what one for the whole batch does, and a call of the kernel for each request.
///
/// # Errors
///
/// Those of `f`; if the first axis of a dropout's input has not as many equal parts; if a dropout shares its
/// mask among all rows, as [`WeightDropout`](crate::WeightDropout) and
/// [`EmbeddingDropout`](crate::EmbeddingDropout) do, or if `f` [takes a key](take_key) itself.
///
/// # Limits
///
/// As [`monte_carlo`]. A model whose first axis is not that of the batch gives something else than each
/// request alone, without an error unless the lengths tell; so does one whose layers mix rows.
///
/// ```
/// use sorix_core::{DType, MaskKey, Tensor};
/// use sorix_nn::{Dropout, Generator, Linear, Module, Result, Sequential, monte_carlo_rows};
///
/// let generator = Generator::new(1);
/// let mut net = Sequential::new()
///     .with(Linear::new(8, 16, &generator)?)
///     .with(Dropout::new(0.5)?)
///     .with(Linear::new(16, 2, &generator)?);
/// net.eval();
/// let x = Tensor::randn([3, 8], DType::F32, MaskKey { seed: 2, offset: 0 })?;
///
/// let batch = monte_carlo_rows(&[70, 71, 72], 0, || net.forward(&x))?;
/// let alone = monte_carlo_rows(&[71], 0, || net.forward(&x.slice(0, 1..2)?))?;
/// assert_eq!(alone.to_vec::<f32>()?, batch.slice(0, 1..2)?.to_vec::<f32>()?);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn monte_carlo_rows<R>(seeds: &[u64], sample: u64, f: impl FnOnce() -> Result<R>) -> Result<R> {
    let keys = Rc::new(Keys::Rows {
        rows: seeds.iter().map(|&seed| keys_of(seed, sample)).collect(),
        shared: Cell::new(false),
    });
    let _scope = Scopes::open(&SCOPES, Rc::clone(&keys));
    let output = batch_invariant(f)?;
    match &*keys {
        Keys::Rows { shared, .. } if shared.get() => Err(Error::SharedKey),
        _ => Ok(output),
    }
}

/// The key for one call of a dropout, or `None` where the call drops nothing: what a layer of one's
/// own asks before it draws.
///
/// Within [`monte_carlo`] it is a key of the scope. Otherwise it is one of `generator` in training,
/// and there is none in eval. Within [`monte_carlo_rows`], which has no key for all rows, it is the one
/// of the first row, and the scope ends in an error.
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
    let draws = key_source(mode)?;
    Some(match &draws.scope {
        None => generator.next_key(),
        Some(keys) => match &**keys {
            Keys::Whole(keys) => keys.next_key(),
            Keys::Rows { rows, shared } => {
                shared.set(true);
                rows.first().unwrap_or(generator).next_key()
            }
        },
    })
}

/// [`take_key`] in two steps: whether the call drops, and what takes its key once that is due.
pub(crate) fn key_source(mode: Mode) -> Option<KeySource> {
    let drops = mode == Mode::Train || is_monte_carlo();
    drops.then(|| KeySource { scope: scope() })
}

/// What a call takes its key from: the scope, if there is one.
pub(crate) struct KeySource {
    scope: Option<Rc<Keys>>,
}

impl KeySource {
    /// The number of keys, if each row has its own.
    pub(crate) fn rows(&self) -> Option<usize> {
        match self.scope.as_deref() {
            Some(Keys::Rows { rows, .. }) => Some(rows.len()),
            _ => None,
        }
    }

    /// A key for the whole call. `generator` is called only if no scope gives one.
    pub(crate) fn take<'a>(
        self,
        generator: impl FnOnce() -> Result<&'a Generator>,
    ) -> Result<MaskKey> {
        match self.scope.as_deref() {
            None => Ok(generator()?.next_key()),
            Some(Keys::Whole(keys)) => Ok(keys.next_key()),
            Some(Keys::Rows { .. }) => Err(Error::SharedKey),
        }
    }

    /// A key for each row.
    pub(crate) fn take_rows(self) -> Vec<MaskKey> {
        match self.scope.as_deref() {
            Some(Keys::Rows { rows, .. }) => rows.iter().map(Generator::next_key).collect(),
            _ => Vec::new(),
        }
    }
}

/// Whether [`monte_carlo`] or [`monte_carlo_rows`] is open on this thread, so that dropouts drop in either mode. When backward
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
fn scope() -> Option<Rc<Keys>> {
    SCOPES.with_borrow_mut(|scopes| scopes.of_task().next().cloned())
}
