//! Dropout kernels for CPUs: slices in, slices out, one bit per element, and the same mask on every
//! instruction set, thread count, element type and shard.
//!
//! ```
//! use sorix_kernels::{BitMask, DropRate, MaskKey, dropout};
//!
//! let x = vec![1.0_f32; 100_000];
//! let (mut y, mut mask) = (vec![0.0; x.len()], BitMask::new(x.len()));
//! let (rate, key) = (DropRate::new(0.2)?, MaskKey { seed: 42, offset: 7 });
//!
//! dropout::forward(rate, key, &x, &mut y, &mut mask)?; // y and the mask
//! assert!(y.iter().all(|&y| y == 0.0 || y == 1.25));
//!
//! let mut dx = vec![0.0; x.len()];
//! dropout::backward(rate, &mask, &x, &mut dx)?; // from the stored mask
//! assert_eq!(dx, y);
//! dropout::replay_in_place(rate, key, &mut dx)?; // from the key: no mask stored at all
//! assert_eq!(dx.iter().sum::<f32>(), 1.5625 * mask.count_kept() as f32);
//! # Ok::<(), sorix_kernels::Error>(())
//! ```
//!
//! # Map
//!
//! * [`dropout`]: the functions most callers need. [`Engine`]: the same with a chosen backend, or
//!   without threads.
//! * [`DropRate`], [`MaskKey`], [`BitMask`]: p, the name of a mask, and a mask.
//! * [`Norm`], [`AddNorm`], [`NormGradient`]: layer and RMS normalisation beside dropout.
//! * [`MaskRegion`]: a worker's part of the mask of a tensor that is cut along an axis.
//! * [`Broadcast`], [`Affine`]: a mask of a smaller shape, and another map of the elements than inverted
//!   dropout's.
//! * [`function`]: exp, tanh, the logistic function, erf, silu and gelu of slices.
//! * [`dispatch`]: the backends of this machine, by name.
//! * [`stream`]: mask format v1 in scalar form, for those who make the same masks elsewhere.
//! * [`half`], [`bytemuck`]: the crates of the element types `bf16` and `f16`, and of the casts to and from
//!   bytes that every [`Element`] has.
//!
//! Authors of backends find all they need in [`backend`]: the trait, the jobs, the oracle, and the kit
//! that holds a backend to it.
//!
//! # Guarantees
//!
//! * Which elements are kept is a function of seed, offset, element index and p alone, frozen as
//!   mask format v1 (`docs/mask-format.md` in the repository), exact to 2^-64 in p.
//! * A kept element is `x * scale`, with `scale = 1/(1-p)` computed in f64 and rounded once to the
//!   type computed in: f32 for f32, f16 and bf16, f64 for f64. f16 and bf16 are widened, multiplied
//!   and rounded once. A dropped element is `+0.0`, selected and not multiplied, so NaN and
//!   infinity do not leak.
//! * p = 0 copies and p = 1 writes zeros; neither draws a random bit.
//! * Every backend writes the same bits.
//!
//! # Features
//!
//! * `parallel` (default): large calls are split over the current rayon thread pool, those from a thread
//!   of the pool (as in `ThreadPool::install`) from a smaller size on than those from outside, for which
//!   its threads have to be woken first.
//! * `conformance`: `backend::conformance::check_backend`, for authors of backends.
#![deny(missing_docs, unsafe_code)]

mod activation;
mod affine;
pub mod backend;
mod broadcast;
mod buffers;
mod cache;
pub mod dispatch;
pub mod dropout;
mod element;
mod engine;
mod environment;
mod error;
pub mod function;
mod keep;
mod kernel;
mod key;
mod lane;
mod mask;
mod norm;
mod parallel;
mod pass;
mod rate;
mod region;
#[allow(unsafe_code, reason = "intrinsics; nothing else in sorix needs it")]
mod simd;
pub mod stream;
#[cfg(feature = "parallel")]
mod threads;

// A short path for the modules of this crate.
use backend::job;

pub use activation::Activation;
pub use affine::Affine;
pub use broadcast::Broadcast;
pub use buffers::Buffers;
pub use element::Element;
pub use engine::Engine;
pub use error::{
    AllocationError, BackendError, BroadcastError, Error, InvalidEpsilon, InvalidRate, LengthError,
    MaskError, ShardError, WindowError,
};
pub use function::Function;
pub use key::{MaskKey, MaskWindow};
pub use mask::{BitMask, BitSlice, Bits};
pub use norm::{AddNorm, Norm, NormGradient, NormKind, RowMoments};
pub use rate::{DropRate, Keep};
pub use region::MaskRegion;
pub use {bytemuck, half};

/// What the other crates of sorix need of this one, and nobody else: it may change in any release, and they
/// ask for the release that they came with.
#[doc(hidden)]
pub mod internal {
    pub use crate::cache::{last_level_bytes, output_bytes};
    pub use crate::engine::fill_part;
    pub use crate::environment::{parse_streaming_above, streaming_above};
    pub use crate::lane::{Lane, philox4x32};

    /// When a loop is worth threads, and thread-local state that survives them.
    pub mod parallel {
        #[cfg(feature = "parallel")]
        pub use crate::parallel::{ThreadsError, may_wait_for, threads};
        pub use crate::parallel::{may_wait, threads_pay, waiting, waits};
    }
}
