//! Tests the statistics of sorix's masks: `cargo xtask stats`.
//!
//! `docs/statistics.md` says what is tested, what was found and what it cannot show.

#![forbid(unsafe_code)]

pub mod battery;
#[cfg(test)]
mod broken;
pub mod check;
pub mod emit;
pub mod finding;
mod joint;
pub mod keep;
pub mod law;
pub mod pairs;
pub mod plan;
pub mod report;
pub mod stream;
