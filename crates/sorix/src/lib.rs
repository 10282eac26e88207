//! Inverted dropout for CPUs: SIMD kernels with a bit-packed mask, a tensor with an autograd graph
//! that uses them, and modules with train and eval modes.
//!
//! Which elements are dropped depends on the seed, the number of the call, the index of the element
//! and p, and on nothing else: the mask is the same on every instruction set, thread count, dtype,
//! memory layout and shard, today and in ten years. With AVX-512 it costs one to two memory copies
//! forward and about one backward.
//!
//! ```
//! use sorix::nn::{Dropout, Module};
//!
//! sorix::manual_seed(42);
//! let mut dropout = Dropout::new(0.5)?;
//! let x = sorix::tensor([10.0, 20.0, 30.0, 40.0, 50.0]).requires_grad(true);
//! let y = dropout.forward(&x)?; // each entry is 0 or 2x
//! y.sum()?.backward()?; // the gradient is 0 or 2 by the same mask
//! assert_eq!(x.grad().unwrap().mul(&x)?.to_vec::<f64>()?, y.to_vec::<f64>()?);
//!
//! dropout.eval();
//! assert!(dropout.forward(&x)?.same_storage(&x)); // no copy, no draw
//! # Ok::<(), sorix::nn::Error>(())
//! ```
//!
//! # Map
//!
//! * [`prelude`]: what most programs use, for one line of `use`.
//! * Here: [`Tensor`], [`tensor()`], [`DType`], [`DropRate`], [`MaskKey`], [`autograd`], [`pool`],
//!   from `sorix-core`; and the crates whose types are in its signatures: [`half`], [`mod@ndarray`],
//!   [`num_traits`], [`bytemuck`].
//! * [`nn`]: modules, generators of masks, and the [`Error`] of all of these, from `sorix-nn`.
//! * [`kernels`]: dropout over slices, for those who have tensors of their own, from
//!   `sorix-kernels`.
//! * [`mod@ndarray`]: the crate, and with the feature `ndarray` dropout of its arrays.
//! * [`adapter`]: the family over slices, for adapters to other tensor libraries; those to candle and
//!   burn are crates of their own, `sorix-candle` and `sorix-burn`.
//!
//! Programs may `use sorix::*` and `use sorix::nn::*` side by side: a name that is in both is the same
//! thing. [`kernels`] has an `Error` and types of masks of its own; name what is taken from there.
//!
//! # Errors
//!
//! [`Error`] is the error of modules, optimisers and checkpoints. An operation on tensors fails with a
//! [`TensorError`], which `?` turns into an [`Error`].
//!
//! # Features
//!
//! * `faer` (default): matrices are multiplied by faer, else by ndarray, which takes up to four times as
//!   long and compiles 32 crates less.
//! * `parallel` (default): large calls run on the current rayon thread pool.
//! * `ndarray`: `sorix::ndarray::DropoutExt`.
//! * `npy`: tensors can be read from and written to the `.npy` files of NumPy.
//! * `safetensors`: `nn::Checkpoint` saves and loads parameters, optimisers and generators.
//! * `serde`: [`GeneratorState`] can be serialised.
//! * `conformance`: `kernels::backend::conformance::check_backend`, for authors of backends.
#![forbid(unsafe_code)]

extern crate self as sorix;

pub mod adapter;
pub mod ndarray;
pub mod nn;
pub mod prelude;

// The names that are given one by one take the place of those of the same name that `*` brings.
pub use sorix_core::*;
pub use sorix_core::{Error as TensorError, Result as TensorResult};
#[doc(no_inline)]
pub use sorix_kernels as kernels;
#[doc(no_inline)]
pub use sorix_nn::{
    Error, Generator, GeneratorState, Result, Startup, default_generator, init, manual_seed,
};

/// The examples of the README run as tests.
#[cfg(all(doctest, feature = "ndarray"))]
#[doc = include_str!("../../../README.md")]
pub struct Readme;

/// The examples of the page on the dropout family run as tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/dropout-family.md")]
pub struct DropoutFamily;

/// The examples of the page on fused operations run as tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/fused.md")]
pub struct Fused;

/// The examples of the page on services run as tests.
#[cfg(all(doctest, feature = "parallel"))]
#[doc = include_str!("../../../docs/serving.md")]
pub struct Serving;
