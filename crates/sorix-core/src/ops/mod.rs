//! The operations on tensors, each with its derivative beside it.
//!
//! Each file is one operation: a method of [`Tensor`](crate::Tensor) and the
//! [`Function`](crate::autograd::Function) it records. Loops over elements are in
//! [`elementwise`], those of products, by faer or ndarray, in [`matrices`]; [`folds`] and [`sums`] are of runs in
//! memory; a row at a time goes through [`rows`]; those of [`dropout`] are kernels of sorix-kernels.
//! Operators, in [`operators`], call these methods.

mod accumulate;
mod add;
mod assign;
pub(crate) mod attention;
pub(crate) mod batch_invariant;
mod compare;
mod concat;
mod contiguous;
mod copy;
mod div;
pub(crate) mod dropout;
pub(crate) mod elementwise;
mod expand;
mod extremes;
mod factor;
mod flatten;
mod folds;
mod gather_last;
mod in_order;
mod index_select;
mod matmul;
mod matrices;
mod mean;
mod mul;
mod neg;
mod operators;
mod permute;
mod reshape;
mod rows;
mod select;
mod slice;
mod squeeze;
mod stacks;
mod sub;
mod sum;
mod sums;
mod to_dtype;
mod tril;
mod unary;
pub(crate) mod update;
