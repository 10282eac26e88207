//! [`permutation`], and [`Batches`] of examples in such an order.

use sorix_core::MaskKey;
use sorix_core::{Error as TensorError, ErrorKind};
use sorix_kernels::internal::philox4x32;

use crate::error::{Error, Result};
use crate::hyperparameter::at_least_one;

/// The numbers below `count` in a random order, each order with the same probability (up to 2^-128, the
/// state of the generator): NumPy's `permutation`, PyTorch's `randperm`.
///
/// It depends on `count` and the key alone, and is the same on every machine. It has nothing to do with the
/// mask of the key, nor with the random numbers of it.
///
/// Source: Fisher and Yates' shuffle, as Durstenfeld, *Algorithm 235*, Communications of the ACM 7 (1964),
/// has it; numbers below a bound after Lemire, *Fast random integer generation in an interval*, ACM
/// Transactions on Modeling and Computer Simulation 29 (2019); bits of Philox4x32-10.
///
/// # Errors
///
/// If allocation fails.
///
/// ```
/// use sorix_core::MaskKey;
/// use sorix_nn::permutation;
///
/// let order = permutation(5, MaskKey { seed: 42, offset: 0 })?;
/// assert_eq!(order, [3, 0, 2, 4, 1]);
/// assert_ne!(permutation(5, MaskKey { seed: 42, offset: 1 })?, order);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn permutation(count: usize, key: MaskKey) -> Result<Vec<usize>> {
    let mut order = in_order(count)?;
    shuffle(&mut order, key);
    Ok(order)
}

fn in_order(count: usize) -> Result<Vec<usize>> {
    let mut order = Vec::new();
    order.try_reserve_exact(count).map_err(|_| {
        let bytes = count.saturating_mul(size_of::<usize>());
        TensorError::new("permutation", &[], ErrorKind::Allocation { bytes })
    })?;
    order.extend(0..count);
    Ok(order)
}

fn shuffle(order: &mut [usize], key: MaskKey) {
    let mut words = words(key);
    for last in (1..order.len()).rev() {
        order.swap(last, below(last as u64 + 1, &mut words) as usize);
    }
}

/// 64 random bits each, of a key.
fn words(key: MaskKey) -> impl Iterator<Item = u64> {
    // The two highest bits of Philox's key say what the bits are for: 0 is masks, 2 and 3 are numbers.
    const PERMUTATION: u64 = 1;
    let blocks = (0..1 << 62).map(|j| PERMUTATION << 62 | j);
    blocks.flat_map(move |j| philox4x32([key.seed, key.offset], j))
}

/// A number below `bound`, which is not 0, each with the same probability.
fn below(bound: u64, words: &mut impl Iterator<Item = u64>) -> u64 {
    let product = |word: u64| u128::from(word) * u128::from(bound);
    // Of the 2^64 words so many are too many for equal shares.
    let excess = bound.wrapping_neg() % bound;
    let mut products = words.map(product);
    let fair = products.find(|product| *product as u64 >= excess);
    (fair.expect("2^63 words are more than will be asked for") >> 64) as u64
}

/// Batches of examples, by their numbers: in their order, or [shuffled](Self::shuffle) anew in each epoch.
///
/// As an iterator it gives the batches of an epoch, and then `None`, once; the next call begins the next
/// epoch. The order of an epoch is a function of the seed and the number of the epoch, so where an iterator
/// is takes a few numbers, which a [checkpoint keeps](crate::Checkpoint::batches).
///
/// ```
/// use sorix_core::{DType, Tensor};
/// use sorix_nn::Batches;
///
/// let examples = Tensor::ones([10, 3], DType::F32)?;
/// let mut batches = Batches::new(10, 4)?.shuffle(42);
/// for epoch in 0..2 {
///     assert_eq!(batches.epoch(), epoch);
///     let mut seen = Vec::new();
///     for batch in &mut batches {
///         let x = examples.index_select(0, &batch)?;
///         assert!(x.shape() == [4, 3] || x.shape() == [2, 3]); // the last one
///         seen.extend(batch);
///     }
///     seen.sort();
///     assert!(seen.into_iter().eq(0..10));
/// }
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Batches {
    batch_size: usize,
    drop_last: bool,
    state: BatchesState,
    /// The numbers of the examples, in the order of the epoch `ordered` if they are shuffled.
    order: Vec<usize>,
    shuffles: bool,
    ordered: Option<MaskKey>,
}

/// Where [`Batches`] are, for a checkpoint.
///
/// With the feature `serde` it can be serialised. For an example see [`Batches::set_state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BatchesState {
    /// The seed of the orders; 0 for examples in their own order.
    pub seed: u64,
    /// The number of the epoch.
    pub epoch: u64,
    /// The examples of the epoch that were given.
    pub position: u64,
    /// The examples that there are.
    pub examples: u64,
}

impl Batches {
    /// Of so many examples, so many in a batch; the last one of an epoch may have fewer.
    ///
    /// # Errors
    ///
    /// If `batch_size` is 0, or if allocation fails.
    ///
    /// ```
    /// use sorix_nn::Batches;
    /// let batches: Vec<_> = Batches::new(5, 2)?.collect();
    /// assert_eq!(batches, [vec![0, 1], vec![2, 3], vec![4]]);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn new(examples: usize, batch_size: usize) -> Result<Self> {
        at_least_one(NAME, "batch size", batch_size as u64)?;
        Ok(Self {
            batch_size,
            drop_last: false,
            state: BatchesState {
                seed: 0,
                epoch: 0,
                position: 0,
                examples: examples as u64,
            },
            order: in_order(examples)?,
            shuffles: false,
            ordered: None,
        })
    }

    /// In another order in each epoch: epoch `e` is [`permutation`] by the key of this seed and offset `e`.
    /// Give it the seed of a [fork](crate::Generator::fork) of the generator that the run has. It begins with
    /// the first epoch.
    ///
    /// ```
    /// use sorix_core::MaskKey;
    /// use sorix_nn::{Batches, Generator, permutation};
    /// let seed = Generator::new(42).fork("shuffle").seed();
    /// let mut batches = Batches::new(100, 100)?.shuffle(seed);
    /// let expected = permutation(100, MaskKey { seed, offset: 0 })?;
    /// assert_eq!(batches.next(), Some(expected));
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn shuffle(mut self, seed: u64) -> Self {
        self.shuffles = true;
        self.state = BatchesState {
            seed,
            epoch: 0,
            position: 0,
            ..self.state
        };
        self
    }

    /// Leaves a last batch out that would have fewer examples than the others.
    ///
    /// ```
    /// use sorix_nn::Batches;
    /// let batches: Vec<_> = Batches::new(5, 2)?.drop_last().collect();
    /// assert_eq!(batches, [[0, 1], [2, 3]]);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn drop_last(self) -> Self {
        let drop_last = true;
        Self { drop_last, ..self }
    }

    /// The number of the epoch, counted from 0: of that which the next call of `next` goes on with or begins.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.state.epoch
    }

    /// Where it is.
    #[must_use]
    pub fn state(&self) -> BatchesState {
        self.state
    }

    /// Goes on where `state` was taken.
    ///
    /// # Errors
    ///
    /// If it is that of another number of examples, or a position beyond them; nothing has changed then.
    ///
    /// ```
    /// use sorix_nn::Batches;
    /// let mut batches = Batches::new(10, 3)?.shuffle(1);
    /// batches.next();
    /// let state = batches.state();
    /// let expected: Vec<_> = batches.collect();
    ///
    /// let mut again = Batches::new(10, 3)?.shuffle(2);
    /// again.set_state(state)?;
    /// assert_eq!(again.collect::<Vec<_>>(), expected);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn set_state(&mut self, state: BatchesState) -> Result<()> {
        let examples = self.state.examples;
        if state.examples != examples || state.position > examples {
            let BatchesState {
                position,
                examples: got,
                ..
            } = state;
            return Err(Error::BatchesState {
                expected: examples,
                got,
                position,
            });
        }
        self.state = state;
        Ok(())
    }
}

const NAME: &str = "Batches";

impl Iterator for Batches {
    type Item = Vec<usize>;

    fn next(&mut self) -> Option<Vec<usize>> {
        let from = self.state.position as usize;
        let length = self.batch_size.min(self.order.len() - from);
        if length == 0 || (self.drop_last && length < self.batch_size) {
            self.state.epoch = self.state.epoch.wrapping_add(1);
            self.state.position = 0;
            return None;
        }
        let key = MaskKey {
            seed: self.state.seed,
            offset: self.state.epoch,
        };
        if self.shuffles && self.ordered != Some(key) {
            let count = self.order.len();
            self.order.clear();
            self.order.extend(0..count);
            shuffle(&mut self.order, key);
            self.ordered = Some(key);
        }
        self.state.position += length as u64;
        Some(self.order[from..from + length].to_vec())
    }
}
