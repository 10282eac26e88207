//! What sorix is fuzzed with.
//!
//! A target is an ordinary function of bytes that panics where sorix is wrong. `fuzz_targets/` hands
//! each to libFuzzer (`cargo xtask fuzz`); `tests/seeds.rs` replays the inputs in `corpus-seeds/` on
//! any compiler. An input that once found a bug belongs there.

use arbitrary::{Arbitrary, Unstructured};

pub mod attention;
pub mod autograd;
pub mod bitmask;
pub mod environment;
pub mod fused;
mod inputs;
pub mod json;
pub mod kernels;
mod model;
pub mod modules;
pub mod npy;
mod patches;
pub mod rows;
pub mod safetensors;
pub mod shapes;
pub mod softmax;
pub mod windows;

/// A target: its name, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("attention", attention::run),
    ("autograd", autograd::run),
    ("bitmask", bitmask::run),
    ("environment", environment::run),
    ("fused", fused::run),
    ("json", json::run),
    ("kernels", kernels::run),
    ("modules", modules::run),
    ("npy", npy::run),
    ("rows", rows::run),
    ("safetensors", safetensors::run),
    ("shapes", shapes::run),
    ("softmax", softmax::run),
    ("windows", windows::run),
];

/// Runs `check` on what `data` describes. Any bytes describe something: where they run out, zeros
/// follow.
fn with_arbitrary<T: for<'a> Arbitrary<'a>>(data: &[u8], check: impl FnOnce(T)) {
    if let Ok(input) = T::arbitrary_take_rest(Unstructured::new(data)) {
        check(input);
    }
}
