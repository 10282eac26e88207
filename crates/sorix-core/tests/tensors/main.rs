//! Tensors, operations and the graph, as a user sees them: one program, of which each module is about one
//! thing. Tests that need a process of their own lie beside it.

#[path = "../common/mod.rs"]
mod common;

mod arange;
mod attention;
mod autograd;
mod batch_invariant;
mod checkpoint;
mod choices;
mod conversion;
mod display;
mod dropout;
mod dropout_add_norm;
mod dropout_forms;
mod dropout_fused;
mod grad;
mod gradients;
mod in_place;
mod matmul;
#[cfg(feature = "npy")]
mod npy;
mod properties;
mod random;
mod range;
mod rows;
mod shards;
mod softmax_dropout;
mod sums;
mod tensor;
#[cfg(feature = "parallel")]
mod threads;
mod tiles;
mod unary;
mod update;
mod views;
mod widths;
