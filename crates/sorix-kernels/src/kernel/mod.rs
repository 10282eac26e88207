//! The kernels, each written once over `S: Simd`.
//!
//! [`tile`] makes random bits, in blocks of 512; [`fill_mask`] stores them, [`mask_scale`] applies
//! stored ones, [`dropout`] makes and applies them in one pass. [`elements`] is what the latter two
//! share.

mod dropout;
mod elements;
mod fill_mask;
mod mask_scale;
mod tile;
