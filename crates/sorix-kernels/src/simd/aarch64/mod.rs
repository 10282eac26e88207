//! The instruction sets of AArch64.

mod neon;

pub(crate) use neon::Neon;
