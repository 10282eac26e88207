//! The kernels, each written once over `S: Simd`.
//!
//! [`fill_mask`] makes the bits of a mask, in blocks of 512 that come from [`tile`]; [`mask_scale`]
//! and [`mask_affine`] apply bits to [`elements`]. Forward and replay are the two of them in turn, see
//! [`Dropout::compose`](crate::job::Dropout::compose).

mod elements;
mod fill_mask;
mod mask_affine;
mod mask_scale;
mod tile;
