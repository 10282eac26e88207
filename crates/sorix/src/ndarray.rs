//! The crate `ndarray`, whose arrays tensors are read as and made of; and, with
//! the feature `ndarray`, dropout of its arrays.

pub use sorix_core::ndarray::*;

#[cfg(feature = "ndarray")]
mod dropout;
#[cfg(feature = "ndarray")]
pub use dropout::{DropoutExt, DropoutMask, Error};
