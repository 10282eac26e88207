//! sorix's dropout for [candle](candle_core): one `use` to change, masks that can be seeded, forward and
//! backward at about the speed of a memory copy.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use sorix_candle::Dropout; // was: candle_nn::Dropout
//!
//! sorix_candle::manual_seed(42);
//! let dropout = Dropout::new(0.5);
//! let xs = Tensor::ones((4, 8), candle_core::DType::F32, &Device::Cpu)?;
//! let ys = dropout.forward(&xs, true)?; // training: each entry is 0 or 2
//! assert!(ys.flatten_all()?.to_vec1::<f32>()?.iter().all(|&y| y == 0.0 || y == 2.0));
//!
//! sorix_candle::manual_seed(42); // the same masks again, on every machine
//! assert_eq!(dropout.forward(&xs, true)?.to_vec2::<f32>()?, ys.to_vec2::<f32>()?);
//! assert_eq!(dropout.forward(&xs, false)?.to_vec2::<f32>()?, xs.to_vec2::<f32>()?); // eval
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! # What it means
//!
//! Which elements are dropped is a function of seed, offset, an element's row-major index and p alone:
//! the same for every dtype (f16, bf16, f32, f64), number of threads, memory layout and device, and the
//! same as in every other part of sorix. What is dropped is exactly `+0.0` whatever it was, so that NaN
//! and infinity do not leak. p = 0 keeps everything and p = 1 drops everything. Until backward a bit for
//! each element is kept, or with [`SaveMask::Replay`] the key of the mask alone; where no gradient is
//! asked for, nothing.
//!
//! # Generators
//!
//! A layer draws from the generator of the process ([`manual_seed`]), or from one of its own
//! ([`DropoutLayer::generator`]), which layers may share. A [`Generator`] is two numbers, which
//! checkpoints can save: [`Generator::state`].
//!
//! # Devices
//!
//! On the CPU dropout is one operation of candle's graph. On another device the mask is made by the CPU
//! and uploaded, and candle's own operations apply it: the same elements are dropped.

mod attention;
mod elements;
mod layer;
mod norm;
mod op;
mod tensor;

pub use attention::AttentionOptions;
pub use layer::{
    AlphaDropout, BroadcastDropout, DropPath, Dropout, Dropout1d, Dropout2d, Dropout3d,
    DropoutAddNorm, DropoutLayer, FeatureAlphaDropout, GaussianDropout, GeluDropout, LockedDropout,
    ReluDropout, SiluDropout,
};
pub use norm::NormOptions;
pub use sorix::adapter::SliceForm;
pub use sorix::kernels::{Activation, DropRate, MaskKey, MaskRegion};
pub use sorix::nn::dropout as forms;
pub use sorix::{Generator, GeneratorState, SaveMask, default_generator, manual_seed};
pub use tensor::DropoutExt;

/// The examples of the README run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
