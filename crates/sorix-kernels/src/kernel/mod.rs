//! The kernels, each written once over `S: Simd`.
//!
//! [`fill_mask`] makes the bits of a mask, in blocks of 512 that come from [`tile`]; [`mask_scale`]
//! and [`mask_affine`] apply bits to [`elements`]; [`dropout`], which is forward and replay, does the
//! first two at the same time.

mod dropout;
mod elements;
mod fill_mask;
mod mask_affine;
mod mask_scale;
mod tile;
