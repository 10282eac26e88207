//! Many passes of one input through a model, by several threads.

use core::ops::{Range, RangeInclusive};

use sorix_core::autograd::no_grad;
use sorix_core::{Tensor, batch_invariant, is_batch_invariant};

use crate::error::{Error, Result};
use crate::module::Module;
use crate::monte_carlo::{McClasses, McMoments, McSamples, monte_carlo, monte_carlo_rows};

/// `n` stochastic passes of `x` through a model: [`monte_carlo`] samples 0 to n - 1 of `seed`.
///
/// The model may be in eval mode and may be used by others meanwhile. No pass records a graph or
/// keeps a mask. The calling thread runs passes, and with the feature `parallel` threads of the current
/// rayon pool help it; [`MonteCarlo`] chooses others. What a sample is depends neither on the number of
/// threads nor on `n`.
///
/// A call from a thread of a pool, as for each of many requests, takes up no other request while it
/// waits for its last passes, but for what may come up in the moment in which its helpers go: requests
/// are answered in the order in which they were begun, and do not pile up on a stack.
///
/// # Errors
///
/// If `n` is 0, and if a pass fails; of several that fail, the first one is reported.
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
    MonteCarlo::new(seed).samples(model, x, n)
}

/// Passes of one input through a model, and who runs them.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{Dropout, MonteCarlo, mc_samples};
///
/// let (model, x) = (Dropout::new(0.5)?, tensor([1.0; 64]));
/// let here = MonteCarlo::new(42).on_this_thread().samples(&model, &x, 10)?;
/// let shared_out = mc_samples(&model, &x, 10, 42)?;
/// assert_eq!(here.mean()?.to_vec::<f64>()?, shared_out.mean()?.to_vec::<f64>()?);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct MonteCarlo<'p> {
    seeds: Seeds<'p>,
    helpers: Helpers<'p>,
}

#[derive(Clone, Copy, Debug)]
enum Seeds<'p> {
    /// Of the whole input.
    One(u64),
    /// Of each row.
    Rows(&'p [u64]),
}

/// The threads that run passes beside the calling one.
#[derive(Clone, Copy, Debug)]
enum Helpers<'p> {
    None,
    #[cfg(feature = "parallel")]
    CurrentPool,
    #[cfg(feature = "parallel")]
    Pool(&'p rayon::ThreadPool),
    #[cfg(not(feature = "parallel"))]
    #[expect(
        dead_code,
        reason = "the type has a lifetime with the feature and without"
    )]
    Never(core::convert::Infallible, core::marker::PhantomData<&'p ()>),
}

impl<'p> MonteCarlo<'p> {
    /// Samples of the stream `seed`, by the calling thread and those of the current rayon pool.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::of(Seeds::One(seed))
    }

    /// Samples of a batch of requests, each with a seed of its own, as [`monte_carlo_rows`] draws them: a
    /// request gets the same bits alone and in any batch.
    ///
    /// ```
    /// use sorix_core::{DType, Tensor};
    /// use sorix_nn::{Dropout, MonteCarlo};
    ///
    /// let (model, x) = (Dropout::new(0.5)?, Tensor::ones([2, 64], DType::F32)?);
    /// let batch = MonteCarlo::of_rows(&[7, 8]).samples(&model, &x, 10)?.mean()?;
    /// let alone = MonteCarlo::of_rows(&[8]).samples(&model, &x.slice(0, 1..2)?, 10)?.mean()?;
    /// assert_eq!(batch.slice(0, 1..2)?.to_vec::<f32>()?, alone.to_vec::<f32>()?);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn of_rows(seeds: &'p [u64]) -> Self {
        Self::of(Seeds::Rows(seeds))
    }

    fn of(seeds: Seeds<'p>) -> Self {
        Self {
            seeds,
            #[cfg(feature = "parallel")]
            helpers: Helpers::CurrentPool,
            #[cfg(not(feature = "parallel"))]
            helpers: Helpers::None,
        }
    }

    /// All passes on the calling thread, one after another. For a service that has a thread for each
    /// request anyway. An operation within a pass may still be shared out.
    #[must_use]
    pub fn on_this_thread(mut self) -> Self {
        self.helpers = Helpers::None;
        self
    }

    /// The threads of this pool help the calling one, which need not belong to it.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Dropout, MonteCarlo, mc_samples};
    ///
    /// let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    /// let (model, x) = (Dropout::new(0.5)?, tensor([1.0; 64]));
    /// let samples = MonteCarlo::new(42).on_pool(&pool).samples(&model, &x, 10)?;
    /// assert_eq!(samples.samples().len(), 10);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[cfg(feature = "parallel")]
    #[must_use]
    pub fn on_pool(mut self, pool: &'p rayon::ThreadPool) -> Self {
        self.helpers = Helpers::Pool(pool);
        self
    }

    /// See [`mc_samples`].
    ///
    /// # Errors
    ///
    /// As [`mc_samples`].
    pub fn samples<M: Module + ?Sized>(self, model: &M, x: &Tensor, n: usize) -> Result<McSamples> {
        if n == 0 {
            return Err(Error::NoSamples);
        }
        self.run(0..n, &|i| self.pass(model, x, i))
            .map(McSamples::new)
    }

    /// The mean and the variance of the [`samples`](Self::samples), bit for bit, of which no more are kept at
    /// a time than two for each thread.
    ///
    /// # Errors
    ///
    /// As [`samples`](Self::samples).
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Dropout, MonteCarlo};
    ///
    /// let (model, x, passes) = (Dropout::new(0.5)?, tensor([3.0]), MonteCarlo::new(42));
    /// let moments = passes.moments(&model, &x, 1000)?;
    /// let samples = passes.samples(&model, &x, 1000)?;
    /// assert_eq!(moments.mean()?.to_vec::<f64>()?, samples.mean()?.to_vec::<f64>()?);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn moments<M: Module + ?Sized>(self, model: &M, x: &Tensor, n: usize) -> Result<McMoments> {
        let mut moments = McMoments::new();
        self.each(model, x, n, |y| moments.add(&y).map(|()| true))?;
        Ok(moments)
    }

    /// [`moments`](Self::moments) of as many samples as it takes for the standard error of the mean to be at
    /// most `standard_error` in every element: at least the start of `n`, at most its end. How many that
    /// are does not depend on the number of threads; some more passes may have run.
    ///
    /// # Errors
    ///
    /// As [`samples`](Self::samples), and if `standard_error` is NaN or negative.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Dropout, MonteCarlo};
    ///
    /// let (model, x) = (Dropout::new(0.5)?, tensor([1.0; 4]));
    /// let moments = MonteCarlo::new(42).moments_until(&model, &x, 0.1, 10..=1000)?;
    /// // The standard deviation is 1, so it takes about a hundred.
    /// assert!((50..200).contains(&moments.count()));
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn moments_until<M: Module + ?Sized>(
        self,
        model: &M,
        x: &Tensor,
        standard_error: f64,
        n: RangeInclusive<usize>,
    ) -> Result<McMoments> {
        if standard_error.is_nan() || standard_error < 0.0 {
            return Err(Error::Hyperparameter {
                op: "moments_until",
                what: "standard_error",
                expected: "a number, at least 0",
                got: standard_error,
            });
        }
        let (least, most) = n.into_inner();
        let mut moments = McMoments::new();
        self.each(model, x, most, |y| {
            moments.add(&y)?;
            // Of one there is no variance, and of nothing no largest element.
            if moments.count() < least.max(2) || y.numel() == 0 {
                return Ok(true);
            }
            let largest = moments.standard_error_f64()?.max()?.item::<f64>()?;
            Ok(largest.is_nan() || largest > standard_error)
        })?;
        Ok(moments)
    }

    /// What the [`samples`](Self::samples) of a classifier say together, whose outputs are logits `[..,
    /// classes]`. Of them no more are kept at a time than two for each thread.
    ///
    /// # Errors
    ///
    /// As [`samples`](Self::samples), and if an output has no axes.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Dropout, MonteCarlo};
    ///
    /// let classes = MonteCarlo::new(42).classes(&Dropout::new(0.5)?, &tensor([1.0, -1.0]), 100)?;
    /// let probabilities = classes.probabilities()?.to_vec::<f64>()?;
    /// assert!(probabilities[0] > 0.5 && probabilities[1] < 0.5);
    /// assert!(classes.mutual_information()?.item::<f64>()? > 0.0);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn classes<M: Module + ?Sized>(self, model: &M, x: &Tensor, n: usize) -> Result<McClasses> {
        let mut classes = McClasses::new();
        self.each(model, x, n, |y| classes.add(&y).map(|()| true))?;
        Ok(classes)
    }

    /// Calls `take` with each sample, in their order, as long as it says `true`.
    fn each<M: Module + ?Sized>(
        self,
        model: &M,
        x: &Tensor,
        n: usize,
        mut take: impl FnMut(Tensor) -> Result<bool>,
    ) -> Result<()> {
        if n == 0 {
            return Err(Error::NoSamples);
        }
        // One for each thread, and one to begin while others end.
        let at_once = 2 * self.threads();
        for first in (0..n).step_by(at_once) {
            let numbers = first..n.min(first + at_once);
            for y in self.run(numbers, &|i| self.pass(model, x, i))? {
                if !take(y)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The threads that run passes, the calling one among them.
    fn threads(self) -> usize {
        #[cfg(feature = "parallel")]
        use sorix_kernels::parallel::{may_wait, may_wait_for};

        match self.helpers {
            #[cfg(feature = "parallel")]
            Helpers::CurrentPool if may_wait() => rayon::current_num_threads(),
            #[cfg(feature = "parallel")]
            Helpers::Pool(pool) if may_wait_for(pool) => pool.current_num_threads() + 1,
            _ => 1,
        }
    }

    fn pass<M: Module + ?Sized>(self, model: &M, x: &Tensor, i: usize) -> Result<Tensor> {
        no_grad(|| match self.seeds {
            Seeds::One(seed) => monte_carlo(seed, i as u64, || model.forward(x)),
            Seeds::Rows(seeds) => monte_carlo_rows(seeds, i as u64, || model.forward(x)),
        })
    }

    /// What passes of these numbers return, or the error of the first one that fails.
    fn run(
        self,
        numbers: Range<usize>,
        pass: &(impl Fn(usize) -> Result<Tensor> + Sync),
    ) -> Result<Vec<Tensor>> {
        let alike = is_batch_invariant();
        let (first, n) = (numbers.start, numbers.len());
        let pass = |i: usize| match alike {
            true => batch_invariant(|| pass(first + i)),
            false => pass(first + i),
        };
        #[cfg(feature = "parallel")]
        {
            use sorix_kernels::parallel::waiting;

            let threads = self.threads();
            if n > 1 && threads > 1 {
                let passes = shared::Passes::new(n);
                let help = n.min(threads) - 1;
                return waiting(|| match self.helpers {
                    Helpers::Pool(pool) => {
                        pool.in_place_scope(|scope| passes.run(scope, help, &pass));
                        passes.into_outputs()
                    }
                    _ => {
                        rayon::in_place_scope(|scope| passes.run(scope, help, &pass));
                        passes.into_outputs()
                    }
                });
            }
        }
        (0..n).map(pass).collect()
    }
}

#[cfg(feature = "parallel")]
mod shared {
    use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

    use sorix_core::Tensor;

    use crate::error::Result;

    /// Passes that several threads run, each taking the next one that nobody has begun.
    ///
    /// The thread that wants the outputs works too, and then sleeps until the passes that others have begun
    /// are done. It does not wait for them by rayon, which would have it run other tasks meanwhile, each
    /// of which may want passes of its own: they would pile up on its stack, and the first to come would
    /// be the last to go on.
    ///
    /// Nobody waits in a circle: a pass is begun by a call that began before it, and on top of a
    /// waiting task there is only what began later.
    #[derive(Debug)]
    pub(super) struct Passes {
        state: Mutex<State>,
        ended: Condvar,
    }

    /// How often a thread looks whether the passes of others are done before it sleeps.
    const SPINS: usize = 64;

    #[derive(Debug)]
    struct State {
        /// The next one to begin.
        next: usize,
        /// Those that have begun and not ended.
        running: usize,
        outputs: Vec<Option<Result<Tensor>>>,
    }

    impl Passes {
        pub(super) fn new(n: usize) -> Self {
            Self {
                state: Mutex::new(State {
                    next: 0,
                    running: 0,
                    outputs: (0..n).map(|_| None).collect(),
                }),
                ended: Condvar::new(),
            }
        }

        /// Runs all of them, with so many tasks that help.
        pub(super) fn run<'s>(
            &'s self,
            scope: &rayon::Scope<'s>,
            help: usize,
            pass: &'s (impl Fn(usize) -> Result<Tensor> + Sync),
        ) {
            for _ in 0..help {
                scope.spawn(|_| self.work(pass));
            }
            self.work(pass);
            // To sleep and to be woken takes as long as many a pass.
            for _ in 0..SPINS {
                if self.lock().running == 0 {
                    return;
                }
                std::thread::yield_now();
            }
            let mut state = self.lock();
            while state.running > 0 {
                state = self
                    .ended
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }

        /// In the order of passes. After one that failed or panicked none was begun.
        pub(super) fn into_outputs(self) -> Result<Vec<Tensor>> {
            let state = self.state.into_inner();
            let state = state.unwrap_or_else(PoisonError::into_inner);
            state.outputs.into_iter().flatten().collect()
        }

        fn work(&self, pass: &impl Fn(usize) -> Result<Tensor>) {
            while let Some(running) = self.begin() {
                let output = pass(running.number);
                running.end(output);
            }
        }

        fn begin(&self) -> Option<Running<'_>> {
            let mut state = self.lock();
            let number = state.next;
            if number == state.outputs.len() {
                return None;
            }
            state.next += 1;
            state.running += 1;
            Some(Running {
                passes: self,
                number,
            })
        }

        fn lock(&self) -> MutexGuard<'_, State> {
            self.state.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    /// A pass that has begun. It ends also if it panics.
    struct Running<'s> {
        passes: &'s Passes,
        number: usize,
    }

    impl Running<'_> {
        fn end(self, output: Result<Tensor>) {
            self.passes.lock().outputs[self.number] = Some(output);
        }
    }

    impl Drop for Running<'_> {
        fn drop(&mut self) {
            let mut state = self.passes.lock();
            state.running -= 1;
            if !matches!(state.outputs[self.number], Some(Ok(_))) {
                // No other one is begun. Those before have begun, so which error is the first does not
                // depend on the threads.
                state.next = state.outputs.len();
            }
            self.passes.ended.notify_all();
        }
    }
}
