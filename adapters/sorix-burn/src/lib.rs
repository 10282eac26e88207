//! sorix's dropout for [burn]: one `use` to change, masks that can be seeded layer by layer, forward
//! and backward at about the speed of a memory copy on burn's CPU backend.
//!
//! ```
//! use burn::module::Module;
//! use burn::tensor::{Device, Tensor};
//! use sorix_burn::{Dropout, DropoutConfig}; // was: burn::nn::{Dropout, DropoutConfig}
//!
//! sorix_burn::manual_seed(42);
//! let dropout: Dropout = DropoutConfig::new(0.5).init();
//! let x = Tensor::<2>::ones([4, 8], &Device::flex().autodiff());
//! let y = dropout.forward(x.clone()).into_data().try_to_vec::<f32>().unwrap(); // training
//! assert!(y.iter().all(|&y| y == 0.0 || y == 2.0));
//!
//! sorix_burn::manual_seed(42); // the same masks again, on every machine
//! assert_eq!(dropout.forward(x.clone()).into_data().try_to_vec::<f32>().unwrap(), y);
//! assert_eq!(dropout.valid().forward(x.clone()).into_data(), x.into_data()); // no longer training
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
//! # Devices
//!
//! On the backend `flex` dropout is one operation of burn's graph. On another one the mask is made by the
//! CPU and uploaded, and burn's own operations apply it: the same elements are dropped. What is kept is
//! then as that backend rounds it.

mod attention;
mod error;
mod layer;
mod norm;
mod op;

pub use attention::{AttentionOptions, scaled_dot_product_attention, softmax_dropout};
pub use error::{Error, Result};
pub use layer::{
    AlphaDropout, BroadcastDropout, DropPath, Dropout, Dropout1d, Dropout2d, Dropout3d,
    DropoutConfig, DropoutLayer, FeatureAlphaDropout, Form, GaussianDropout, GeluDropout,
    LockedDropout, ReluDropout, SiluDropout,
};
pub use norm::DropoutAddNorm;
pub use sorix::adapter::SliceForm;
pub use sorix::kernels::{DropRate, MaskKey, MaskRegion};
pub use sorix::nn::dropout as forms;
pub use sorix::{Generator, GeneratorState, SaveMask, default_generator, manual_seed};

/// The examples of the README run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
