//! The tests of the kernels by their public functions. One program, so that it is linked once; what
//! needs a process of its own, or is run under an interpreter, lies beside it.

mod act_dropout;
#[cfg(feature = "conformance")]
mod backends;
mod broadcast;
mod common;
#[cfg(feature = "conformance")]
mod conformance;
mod dispatch;
mod dropout_add;
mod dropout_add_norm;
mod functions;
mod mask_format;
mod meaning;
mod properties;
mod shards;
