//! Monte Carlo dropout: a trained network that drops at inference, repeatably.

mod passes;
mod samples;

use core::cell::RefCell;
use core::convert::Infallible;
use core::marker::PhantomData;
use std::rc::Rc;

use sorix_core::MaskKey;
use sorix_core::autograd::taped_mode;
use sorix_kernels::parallel::TaskValue;

pub use self::passes::{MonteCarlo, mc_samples};
pub use self::samples::McSamples;
use crate::error::Result;
use crate::generator::Generator;
use crate::mode::Mode;

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
/// [`parallel::waiting`](sorix_kernels::parallel::waiting), which hides the scope from all of them.
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
