//! Measures sorix's kernels against the roof they can reach, a memory copy.
//!
//! The tables of `cargo xtask bench` (the binary `sorix-bench`) and the criterion benches of
//! `cargo bench` measure the same [cases](case) by the same [calls](op). Every figure of the
//! tables is a ratio to a copy of the same bytes by the same threads, sampled in turn with it, so
//! that a busy machine slows both: see [`sample`].

#![forbid(unsafe_code)]

pub mod attention;
pub mod case;
pub mod chain;
pub mod html;
pub mod kernel;
pub mod layers;
pub mod machine;
pub mod op;
pub mod peers;
pub mod program;
pub mod record;
pub mod report;
pub mod rest;
pub mod rows;
pub mod runner;
pub mod sample;
pub mod scaling;
pub mod step;
pub mod tensors;
