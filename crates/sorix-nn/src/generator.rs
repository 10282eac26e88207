//! [`Generator`]: where the keys of masks come from.
//!
//! A generator holds no random state, only a name and a count: `seed` and `offset`. What is random
//! is the [mask](sorix_core::MaskKey) that a pair of them names, and that is the same on every
//! machine. So a run can be repeated from its seed, continued from a checkpoint of sixteen bytes,
//! and any single call of it made again from its key.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use siphasher::sip::SipHasher24;
use sorix_core::MaskKey;
use sorix_core::autograd::taped_key;

use crate::error::{Error, Result};

/// A stream of mask keys: call number `offset` of the stream `seed`.
///
/// Every call of a dropout in training takes one key and so advances the offset by exactly one,
/// whatever p and the shape; a call in eval takes nothing. Threads may share a generator; each key
/// is given once.
///
/// A generator cannot be cloned: two copies would give the same masks to two layers, which nobody
/// wants and nobody notices. For the same reason do not give `Generator::new` of one seed to two
/// layers: make one generator and [`fork`](Generator::fork) it for each layer, or let layers share
/// it in an [`Arc`](std::sync::Arc). A copy on purpose is [`Generator::from_state`] of
/// [`state`](Generator::state).
///
/// ```
/// use sorix_core::MaskKey;
/// use sorix_nn::Generator;
///
/// let generator = Generator::new(42);
/// assert_eq!(generator.next_key(), MaskKey { seed: 42, offset: 0 });
/// assert_eq!(generator.next_key(), MaskKey { seed: 42, offset: 1 });
/// assert_eq!(generator.state().offset, 2);
/// ```
#[derive(Debug)]
pub struct Generator {
    // Both numbers under one lock: a key never mixes the seed of one moment with the offset of
    // another.
    state: Mutex<GeneratorState>,
}

/// What a [`Generator`] is at one moment, for a checkpoint.
///
/// With the feature `serde` it can be serialised.
///
/// ```
/// use sorix_nn::{Generator, GeneratorState};
///
/// let generator = Generator::new(42);
/// generator.next_key();
/// let state = generator.state();
/// assert_eq!(state, GeneratorState { seed: 42, offset: 1 });
///
/// let next = generator.next_key();
/// generator.set_state(state);
/// assert_eq!(generator.next_key(), next);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GeneratorState {
    /// The seed of every key of the stream.
    pub seed: u64,
    /// The offset of the next key.
    pub offset: u64,
}

impl Generator {
    /// The stream of this seed, from its beginning.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self::from_state(GeneratorState { seed, offset: 0 })
    }

    /// The stream of a seed from the operating system, which [`seed`](Generator::seed) tells.
    ///
    /// # Errors
    ///
    /// [`Error::Entropy`] if the operating system has none to give.
    ///
    /// ```
    /// use sorix_nn::Generator;
    /// let generator = Generator::from_os()?;
    /// let again = Generator::new(generator.seed());
    /// assert_eq!(again.next_key(), generator.next_key());
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn from_os() -> Result<Self> {
        let seed = getrandom::u64().map_err(|error| Error::Entropy {
            reason: error.to_string(),
        })?;
        Ok(Self::new(seed))
    }

    /// The stream at the point where `state` was taken.
    ///
    /// ```
    /// use sorix_core::MaskKey;
    /// use sorix_nn::{Generator, GeneratorState};
    /// let generator = Generator::from_state(GeneratorState { seed: 42, offset: 7 });
    /// assert_eq!(generator.next_key(), MaskKey { seed: 42, offset: 7 });
    /// ```
    #[must_use]
    pub const fn from_state(state: GeneratorState) -> Self {
        Self {
            state: Mutex::new(state),
        }
    }

    /// The seed.
    ///
    /// ```
    /// assert_eq!(sorix_nn::Generator::new(42).seed(), 42);
    /// ```
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.lock().seed
    }

    /// Begins the stream of another seed.
    ///
    /// ```
    /// let generator = sorix_nn::Generator::new(1);
    /// let first = generator.next_key();
    /// generator.manual_seed(1);
    /// assert_eq!(generator.next_key(), first);
    /// ```
    pub fn manual_seed(&self, seed: u64) {
        self.set_state(GeneratorState { seed, offset: 0 });
    }

    /// The next key; the offset advances by one. After 2^64 keys they begin again.
    ///
    /// When backward computes a [checkpoint](sorix_core::autograd::checkpoint) again, this is the key of
    /// the first time, and the offset stays.
    ///
    /// ```
    /// use sorix_core::{DType, Tensor};
    /// use sorix_nn::Generator;
    ///
    /// let draw = |generator: &Generator| -> sorix_nn::Result<_> {
    ///     let x = Tensor::randn([2, 3], DType::F32, generator.next_key())?;
    ///     let y = Tensor::uniform([2, 3], 0.0, 1.0, DType::F32, generator.next_key())?;
    ///     Ok([x.to_vec::<f32>()?, y.to_vec::<f32>()?])
    /// };
    /// let generator = Generator::new(42);
    /// let first = draw(&generator)?;
    /// assert_ne!(draw(&generator)?, first);
    /// assert_eq!(draw(&Generator::new(42))?, first); // on every machine
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn next_key(&self) -> MaskKey {
        taped_key(|| {
            let mut state = self.lock();
            let key = MaskKey {
                seed: state.seed,
                offset: state.offset,
            };
            state.offset = state.offset.wrapping_add(1);
            key
        })
    }

    /// The seed and the offset of the next key.
    #[must_use]
    pub fn state(&self) -> GeneratorState {
        *self.lock()
    }

    /// Continues where `state` was taken.
    pub fn set_state(&self, state: GeneratorState) {
        *self.lock() = state;
    }

    /// The beginning of an independent stream of this name.
    ///
    /// Its seed depends on this generator's seed and on the name, and on nothing else: the same
    /// name gives the same stream however many keys were taken before and in whatever order layers
    /// are built. Forks can be forked.
    ///
    /// The new seed is SipHash-2-4 of the name's UTF-8 bytes under the 128-bit key whose first
    /// eight bytes are the seed and whose last eight are the ASCII letters `sorix v1`, both
    /// little-endian. That is a pseudorandom function (Aumasson and Bernstein, *SipHash: a fast
    /// short-input PRF*, INDOCRYPT 2012): different names, or seeds, give unrelated seeds, two of
    /// which are equal with probability 2^-64. It will not change.
    ///
    /// ```
    /// use sorix_nn::Generator;
    ///
    /// let generator = Generator::new(42);
    /// let encoder = generator.fork("encoder");
    /// generator.next_key();
    /// assert_eq!(generator.fork("encoder").next_key(), encoder.next_key());
    /// assert_ne!(generator.fork("decoder").seed(), encoder.seed());
    /// ```
    #[must_use]
    pub fn fork(&self, name: &str) -> Self {
        const VERSION: u64 = u64::from_le_bytes(*b"sorix v1");
        Self::new(SipHasher24::new_with_keys(self.seed(), VERSION).hash(name.as_bytes()))
    }

    /// The fork by each of the names in `path`, which dots join, in turn.
    pub(crate) fn fork_path(&self, path: &str) -> Self {
        let (first, rest) = path
            .split_once('.')
            .map_or((path, None), |(a, b)| (a, Some(b)));
        let fork = self.fork(first);
        rest.into_iter()
            .flat_map(|rest| rest.split('.'))
            .fold(fork, |fork, name| fork.fork(name))
    }

    fn lock(&self) -> MutexGuard<'_, GeneratorState> {
        // The state is replaced whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The generator of the process: modules and functions use it if they were given no other.
///
/// Unless [`manual_seed`] came first, it is seeded from the operating system when it is first used;
/// log its [`seed`](Generator::seed) to repeat the run.
///
/// # Errors
///
/// [`Error::Entropy`] if the operating system has no seed to give; a [`manual_seed`] before
/// it avoids that.
///
/// ```
/// use sorix_nn::{default_generator, manual_seed};
///
/// let generator = default_generator()?;
/// let (seed, first) = (generator.seed(), generator.next_key());
/// println!("repeat this run with seed {seed}");
///
/// manual_seed(seed);
/// assert_eq!(generator.next_key(), first);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn default_generator() -> Result<&'static Generator> {
    match DEFAULT.get() {
        Some(generator) => Ok(generator),
        None => {
            let seeded = Generator::from_os()?;
            Ok(DEFAULT.get_or_init(|| seeded))
        }
    }
}

/// Begins the stream of `seed` in the generator of the process.
///
/// ```
/// sorix_nn::manual_seed(42);
/// assert_eq!(sorix_nn::default_generator()?.seed(), 42);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn manual_seed(seed: u64) {
    DEFAULT
        .get_or_init(|| Generator::new(seed))
        .manual_seed(seed);
}

static DEFAULT: OnceLock<Generator> = OnceLock::new();
