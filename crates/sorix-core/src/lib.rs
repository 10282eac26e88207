//! A tensor with reverse-mode automatic differentiation, made for dropout on CPUs.
//!
//! ```
//! use sorix_core::{DropRate, MaskKey, SaveMask, tensor};
//!
//! let x = tensor([10.0, 20.0, 30.0, 40.0, 50.0]).requires_grad(true);
//! let y = x.dropout(DropRate::new(0.5)?, MaskKey::new(42, 0), SaveMask::Bits)?;
//! y.sum()?.backward()?;
//!
//! // An entry of y is 0 or 2x, and the gradient says which.
//! let expected = x.mul(&x.grad().unwrap())?;
//! assert_eq!(y.to_vec::<f64>()?, expected.to_vec::<f64>()?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Map
//!
//! * [`Tensor`]: a handle to elements of a [`DType`] under a shape, cheap to clone, `Send + Sync`.
//!   Made by [`tensor()`] from Rust values, by [`Tensor::from_slice`], [`Tensor::from_vec`],
//!   [`Tensor::from_ndarray`],
//!   [`Tensor::zeros`], [`Tensor::randn`] and their like. Every operation is a method and returns a [`Result`].
//! * [`Axes`]: what [`sum_over`](Tensor::sum_over) and the other reductions go over.
//! * [`autograd`]: the graph that operations record and [`Tensor::backward`] runs; `no_grad`; the
//!   trait for functions of your own.
//! * [`pool`]: where tensors take their memory from, and what it holds.
//! * [`Error`]: what can go wrong, with which operation on which tensors.
//!
//! # Operators
//!
//! `+`, `-`, `*` and `/` between two tensors, or a tensor and an `f64` on either side, and `-` before a
//! tensor, are the methods [`add`](Tensor::add), [`add_scalar`](Tensor::add_scalar) and so on. They
//! return a [`Result`] as these do, so that a `?` follows each:
//!
//! ```
//! use sorix_core::tensor;
//! let (x, y) = (tensor([1.0, 2.0]), tensor([10.0, 20.0]));
//! let z = (((&x + &y)? * 0.5)? - (-&x)?)?;
//! assert_eq!(z.to_vec::<f64>()?, [6.5, 13.0]);
//! assert_eq!((1.0 - &x)?.to_vec::<f64>()?, [0.0, -1.0]);
//! # Ok::<(), sorix_core::Error>(())
//! ```
//!
//! # What is a view
//!
//! [`permute`](Tensor::permute), [`transpose`](Tensor::transpose), [`slice`](Tensor::slice),
//! [`squeeze`](Tensor::squeeze), [`unsqueeze`](Tensor::unsqueeze), [`expand`](Tensor::expand) and
//! [`detach`](Tensor::detach) share the memory of the tensor they come from; so do
//! [`reshape`](Tensor::reshape) and [`flatten`](Tensor::flatten) if strides can express it. The
//! elements of a tensor do not change, except by [`Tensor::assign`] and [`Tensor::update`], which are
//! there for optimisers; views see such a write, as in PyTorch.
//!
//! # Other crates in signatures
//!
//! [`half`] (the elements of f16 and bf16), [`ndarray`] (arrays in and out), [`num_traits`] and
//! [`bytemuck`] (bounds of [`Scalar`]) are re-exported here, in the versions that the signatures mean.
#![forbid(unsafe_code)]

mod arange;
pub mod autograd;
mod axes;
mod bytes;
mod conversion;
mod data;
mod display;
mod dtype;
mod error;
#[cfg(feature = "npy")]
mod npy;
mod ops;
pub mod pool;
mod random;
mod shape;
mod storage;
mod tensor;
mod waiting;

pub use axes::Axes;
pub use data::{Rectangular, TensorData};
pub use dtype::{DType, Scalar};
pub use error::{Error, ErrorKind, Result, TensorSpec};
#[cfg(feature = "npy")]
pub use npy::NpyError;
pub use ops::attention::AttentionOptions;
pub use ops::batch_invariant::{batch_invariant, is_batch_invariant};
pub use ops::dropout::{NormOptions, SaveMask};
pub use ops::update::UpdateRule;
pub use sorix_kernels::{
    Activation, Affine, BitMask, DropRate, InvalidRate, MaskKey, MaskRegion, MaskWindow, NormKind,
    ShardError,
};
pub use tensor::{Tensor, tensor};
pub use waiting::waiting;
#[doc(no_inline)]
pub use {bytemuck, half, ndarray, num_traits};
