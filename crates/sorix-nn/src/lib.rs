//! Modules over [`sorix_core`] tensors: dropout with train and eval modes, and the generators that
//! name its masks.
//!
//! ```
//! use sorix_core::tensor;
//! use sorix_nn::{Dropout, Generator, Module, Sequential};
//!
//! let mut net = Sequential::new()
//!     .with(Dropout::new(0.5)?.generator(Generator::new(1)))
//!     .with(Dropout::new(0.2)?.generator(Generator::new(2)));
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
//! * [`Module`]: what a layer is; [`Mode`]: whether it trains.
//! * [`Dropout`], [`Sequential`]: the layers. [`functional`]: the same without an object.
//! * [`Schedule`]: a drop probability that changes during training.
//! * [`monte_carlo`], [`mc_samples`]: dropout at inference, repeatably.
//! * [`Generator`]: where the keys of masks come from; [`manual_seed`], [`default_generator`] for
//!   the one of the process.
#![forbid(unsafe_code)]

pub mod dropout;
mod error;
pub mod functional;
mod generator;
mod mode;
mod module;
mod monte_carlo;
mod schedule;
mod sequential;

pub use dropout::{
    AlphaDropout, BroadcastDropout, DropBlock2d, DropPath, Dropout, Dropout1d, Dropout2d,
    Dropout3d, FeatureAlphaDropout, GaussianDropout, LockedDropout, Shard,
};
pub use error::{Error, Result};
pub use generator::{Generator, GeneratorState, default_generator, manual_seed};
pub use mode::Mode;
pub use module::Module;
pub use monte_carlo::{McSamples, is_monte_carlo, mc_samples, monte_carlo, take_key};
pub use schedule::Schedule;
pub use sequential::Sequential;
pub use sorix_core::{DropRate, InvalidRate, MaskKey, MaskRegion, MaskWindow, SaveMask};
