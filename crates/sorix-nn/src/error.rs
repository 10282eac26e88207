//! [`Error`]: what can go wrong in a module.

/// What a module could not do, and why.
///
/// ```
/// use sorix_nn::Dropout;
/// let error = Dropout::new(1.5).unwrap_err();
/// assert_eq!(error.to_string(), "drop probability must be a number in [0, 1], got p = 1.5");
/// ```
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operation on tensors failed.
    #[error(transparent)]
    Tensor(#[from] sorix_core::Error),
    /// A drop probability outside [0, 1], or NaN.
    #[error(transparent)]
    Rate(#[from] sorix_core::InvalidRate),
    /// A tensor of the wrong shape for a layer, a loss or an initialiser.
    #[error("{layer}: expected {expected}, got shape {got:?}")]
    Shape {
        /// The layer or function.
        layer: &'static str,
        /// What it needs.
        expected: String,
        /// The shape that came.
        got: Vec<usize>,
    },
    /// A part of a tensor for a dropout that works on whole tensors only.
    #[error("{layer}: expected a whole tensor, got a part: what it drops depends on the whole")]
    Part {
        /// The layer.
        layer: &'static str,
    },
    /// A [`DropBlock2d`](crate::DropBlock2d) with a block size of 0.
    #[error("DropBlock2d: expected a block size of at least 1, got 0")]
    BlockSize,
    /// A number that names no row of a table, or no class.
    #[error("{layer}: expected whole numbers in 0..{count}, got {got}")]
    Index {
        /// The layer or function.
        layer: &'static str,
        /// How many there are.
        count: usize,
        /// The number that came.
        got: String,
    },
    /// Indices of a dtype that cannot hold the number of every row.
    #[error("{layer}: expected indices of a dtype that holds all of 0..{count}, got {dtype}")]
    IndexType {
        /// The layer.
        layer: &'static str,
        /// How many there are.
        count: usize,
        /// The dtype that came.
        dtype: sorix_core::DType,
    },
    /// A hyperparameter or an argument out of its range.
    #[error("{op}: {what}: expected {expected}, got {}", short(*got))]
    Hyperparameter {
        /// The layer, optimiser or function.
        op: &'static str,
        /// The number.
        what: &'static str,
        /// Its range.
        expected: &'static str,
        /// The number that came.
        got: f64,
    },
    /// A state of [`Batches`](crate::Batches) of other examples.
    #[error(
        "Batches: expected a state within {expected} examples, got position {position} of {got}"
    )]
    BatchesState {
        /// The number of examples.
        expected: u64,
        /// That of the state.
        got: u64,
        /// How many of them were given.
        position: u64,
    },
    /// A module that cannot be copied.
    #[error("deep_copy: {module} cannot be copied: {reason}")]
    NoCopy {
        /// The module, or its type.
        module: String,
        /// Why.
        reason: &'static str,
    },
    /// A parameter for an optimiser that is the result of an operation.
    #[error("{optimizer}: parameter {name:?} is not a leaf: an operation computed it")]
    NotALeaf {
        /// The optimiser.
        optimizer: &'static str,
        /// The name it was given under.
        name: String,
    },
    /// A parameter for an optimiser whose elements share memory.
    #[error("{optimizer}: parameter {name:?} is expanded: its elements share memory")]
    ExpandedParameter {
        /// The optimiser.
        optimizer: &'static str,
        /// The name it was given under.
        name: String,
    },
    /// An optimiser without parameters.
    #[error("{optimizer}: expected at least one parameter, got none")]
    NoParameters {
        /// The optimiser.
        optimizer: &'static str,
    },
    /// Two parameters of one name for an optimiser.
    #[error("{optimizer}: parameter {name:?} is given twice")]
    RepeatedName {
        /// The optimiser.
        optimizer: &'static str,
        /// The name.
        name: String,
    },
    /// A state with the hyperparameters of another optimiser.
    #[error("{optimizer}: expected the hyperparameters {expected:?}, got {got:?}")]
    HyperparameterNames {
        /// The optimiser.
        optimizer: &'static str,
        /// Their names.
        expected: Vec<String>,
        /// The names that came.
        got: Vec<String>,
    },
    /// A state that does not fit the parameters of an optimiser.
    #[error("{optimizer}: state of parameter {parameter:?}: {reason}")]
    OptimizerState {
        /// The optimiser.
        optimizer: &'static str,
        /// The name that the state gives.
        parameter: String,
        /// What does not fit.
        reason: String,
    },
    /// The gradient norm is infinite or NaN and cannot be clipped.
    #[error(
        "clip_grad_norm: the gradient norm is {norm} and cannot be clipped: {}",
        match parameter {
            Some(name) => format!("see parameter {name:?}"),
            None => "each gradient by itself is finite".to_owned(),
        }
    )]
    GradientNorm {
        /// Infinite, or NaN.
        norm: f64,
        /// The first parameter whose gradient has an element that is infinite or NaN; `None` if all
        /// are finite and their norm is above the largest f64.
        parameter: Option<String>,
    },
    /// A checkpoint that could not be written, read or used.
    #[cfg(feature = "safetensors")]
    #[error(transparent)]
    Checkpoint(#[from] crate::checkpoint::error::CheckpointError),
    /// Two sets of parameters that are not the same.
    #[error("{op}: expected parameter {name:?} {expected}")]
    OtherParameters {
        /// The function.
        op: &'static str,
        /// The name.
        name: String,
        /// What it has to be.
        expected: String,
    },
    /// A dropout within [`monte_carlo_rows`](crate::monte_carlo_rows) whose mask is for all rows.
    #[error("monte_carlo_rows: a dropout shares its mask among all rows of the batch")]
    SharedKey,
    /// Monte Carlo dropout without samples.
    #[error("mc_samples: expected at least one sample, got n = 0")]
    NoSamples,
    /// The environment chooses a backend that cannot be used, or says something that means nothing.
    #[error(transparent)]
    Backend(#[from] sorix_kernels::BackendError),
    /// The threads of the current pool could not be started.
    #[error("cannot start threads: {reason}")]
    Threads {
        /// What the operating system said.
        reason: String,
    },
    /// The operating system gave no random seed; one can be set with
    /// [`manual_seed`](crate::manual_seed).
    #[error("cannot seed a generator from the operating system: {reason}")]
    Entropy {
        /// What the operating system said.
        reason: String,
    },
}

impl Error {
    pub(crate) fn shape(layer: &'static str, expected: impl Into<String>, got: &[usize]) -> Self {
        Self::Shape {
            layer,
            expected: expected.into(),
            got: got.to_vec(),
        }
    }
}

/// A number in few characters, however large or small it is.
pub(crate) fn short(number: f64) -> String {
    match number.abs() {
        size if size != 0.0 && size.is_finite() && !(1e-5..1e16).contains(&size) => {
            format!("{number:e}")
        }
        _ => number.to_string(),
    }
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = core::result::Result<T, E>;
