//! Modules over [`sorix_core`] tensors: dropout with train and eval modes, the generators that
//! name its masks, and the layers, losses and optimisers of a small network.
//!
//! ```
//! use sorix_core::tensor;
//! use sorix_nn::{Dropout, Generator, Module, Sequential};
//!
//! let mut net = Sequential::new().with(Dropout::new(0.5)?).with(Dropout::new(0.2)?);
//! net.fork_generators(&Generator::new(42)); // each layer its own
//! let x = tensor([1.0; 8]);
//!
//! // 1 / (0.5 * 0.8) where both keep.
//! assert!(net.forward(&x)?.to_vec::<f64>()?.iter().all(|&y| y == 0.0 || y == 2.5));
//!
//! net.eval();
//! assert!(net.forward(&x)?.same_storage(&x));
//! # Ok::<(), sorix_nn::Error>(())
//! ```
//!
//! # Map
//!
//! * [`Module`]: what a layer is, with a derive for your own; [`Mode`]: whether it trains.
//! * [`Linear`], [`Embedding`], [`LayerNorm`], [`ReLU`], [`GELU`], [`SiLU`], [`SwiGLU`], [`Tanh`], [`Sigmoid`],
//!   [`Softmax`], [`Dropout`], [`DropoutAddNorm`], [`MultiHeadAttention`], [`TransformerEncoderLayer`],
//!   [`TransformerDecoderLayer`], [`Sequential`]: the layers. [`functional`]: some of them without an
//!   object.
//! * [`loss`]: mean squared error, cross entropy, of two classes too. [`mod@init`]: first values of parameters.
//! * [`optim`]: [`Sgd`], [`Adam`], [`AdamW`], clipping of gradients, [`LrSchedule`], [`ParameterAverage`].
//! * [`Batches`], [`permutation`]: examples in a random order that a checkpoint continues.
//! * `Checkpoint` (feature `safetensors`): all of that in a file, to continue bit for bit.
//! * [`Schedule`]: a drop probability that changes during training.
//! * [`monte_carlo`], [`mc_samples`], [`MonteCarlo`]: dropout at inference, repeatably.
//! * [`freeze`], [`copy_parameters`], [`deep_copy`]: all parameters of a module at once.
//! * [`init()`]: what may be wrong with a machine, said at the start.
//! * [`Generator`]: where the keys of masks come from; [`manual_seed`], [`default_generator`] for
//!   the one of the process.
#![forbid(unsafe_code)]

// What `#[derive(Module)]` writes names this crate; so can it here.
extern crate self as sorix_nn;

mod batches;
#[cfg(feature = "safetensors")]
mod checkpoint;
pub mod dropout;
mod error;
pub mod functional;
mod generator;
mod hyperparameter;
pub mod init;
mod layers;
pub mod loss;
mod mode;
mod module;
mod monte_carlo;
pub mod optim;
mod parameters;
mod schedule;
mod sequential;
mod startup;
pub mod visit;

pub use batches::{Batches, BatchesState, permutation};
#[cfg(feature = "safetensors")]
pub use checkpoint::{Checkpoint, CheckpointEntry, error::CheckpointError};
pub use dropout::{
    AlphaDropout, BroadcastDropout, DropBlock2d, DropPath, Dropout, Dropout1d, Dropout2d,
    Dropout3d, EmbeddingDropout, FeatureAlphaDropout, GELUDropout, GaussianDropout, LockedDropout,
    ReLUDropout, Residual, Shard, SiLUDropout, SwiGLUDropout, WeightDropout,
};
pub use error::{Error, Result};
pub use generator::{Generator, GeneratorState, default_generator, manual_seed};
pub use layers::{
    AttentionMasks, DropoutAddNorm, Embedding, GELU, LayerNorm, Linear, MultiHeadAttention, ReLU,
    SiLU, Sigmoid, Softmax, SwiGLU, Tanh, TransformerDecoderLayer, TransformerEncoderLayer,
};
pub use loss::Reduction;
pub use mode::Mode;
pub use module::Module;
pub use monte_carlo::{
    McClasses, McMoments, McSamples, MonteCarlo, is_monte_carlo, mc_samples, monte_carlo,
    monte_carlo_rows, take_key,
};
pub use optim::{
    Adam, AdamW, LrSchedule, Optimizer, OptimizerState, ParameterAverage, ParameterState, Sgd,
    clip_grad_norm, clip_grad_value,
};
pub use parameters::{copy_parameters, deep_copy, freeze, unfreeze, widen_gradients};
pub use schedule::Schedule;
pub use sequential::Sequential;
pub use startup::{Startup, init};
