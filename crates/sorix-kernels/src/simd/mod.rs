//! The instruction sets: one zero-sized token each, all behind the sealed trait [`Simd`].
//!
//! A token is proof that this CPU has the instructions: it can only be made by its `detect`, which
//! asks the CPU. That check is what makes the calls of intrinsics in the token's methods sound, and
//! is why the methods themselves are safe. The kernels in [`kernel`](crate::kernel) are written
//! once, over `S: Simd`, without any `unsafe`; [`Simd::vectorize`] compiles them for the token's
//! instruction set.
//!
//! The vocabulary is small. For masks: [`Simd::Words`], eight 64-bit lanes, which is one 512-bit
//! register, two of 256 or four of 128. For elements: [`Lanes`], one vector at a time of a group of
//! [`GROUP`] elements, whose keep bits are one word of the mask.
//!
//! This directory is the only place in sorix with `unsafe` code. Nobody outside this crate can name
//! a token, let alone make one,
//!
//! ```compile_fail,E0603
//! use sorix_kernels::simd::Simd;
//! ```
//!
//! ```compile_fail,E0603
//! let token = sorix_kernels::simd::portable::Portable;
//! ```
//!
//! and within it a token's only field is private to the file of its instruction set. This is the
//! road from outside:
//!
//! ```
//! use sorix_kernels::dispatch;
//! assert_eq!(dispatch::by_name("portable")?.name(), "portable");
//! # Ok::<(), sorix_kernels::BackendError>(())
//! ```

#[cfg(target_arch = "x86_64")]
mod bf16_scale;
mod half_lanes;
mod portable;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use core::fmt::Debug;

use half::{bf16, f16};

use crate::backend::{Backend, SimdBackend};
use crate::element::Element;

/// Elements in a group: as many as a word of a mask has bits.
pub(crate) const GROUP: usize = 64;

/// Bytes to which a streaming store must be aligned: a cache line.
pub(crate) const ALIGN: usize = 64;

/// The backends over the tokens that this CPU has, best first.
pub(crate) fn backends() -> Vec<&'static dyn Backend> {
    fn backend<S: Simd>(token: Option<S>) -> Option<&'static dyn Backend> {
        // One allocation of a byte or none, once per process: a `static` cannot hold what is only
        // known once the CPU has been asked.
        token.map(|token| &*Box::leak(Box::new(SimdBackend::new(token))) as &'static dyn Backend)
    }
    let mut backends = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        backends.extend(backend(x86_64::Avx512::detect()));
        backends.extend(backend(x86_64::Avx2::detect()));
    }
    #[cfg(target_arch = "aarch64")]
    backends.extend(backend(aarch64::Neon::detect()));
    backends.extend(backend(Some(portable::Portable)));
    backends
}

/// The most tiles that any instruction set makes side by side.
pub(crate) const MAX_TILES: usize = 2;

mod sealed {
    pub(crate) trait Sealed {}
}

/// An instruction set, as a token that proves that the CPU has it.
pub(crate) trait Simd:
    sealed::Sealed
    + Copy
    + Debug
    + Send
    + Sync
    + 'static
    + Lanes<f32>
    + Lanes<f64>
    + Lanes<bf16>
    + Lanes<f16>
{
    /// The name of the backend over this token.
    const NAME: &'static str;

    /// How many tiles to make side by side, at most [`MAX_TILES`]: as many as there are registers
    /// for.
    const TILES: usize;

    /// Eight 64-bit lanes.
    type Words: Copy;

    /// Runs `kernel`, compiled for this instruction set.
    fn vectorize(self, kernel: impl Kernel<Self>);

    /// The same number in every lane.
    fn splat(self, word: u64) -> Self::Words;
    /// Lane `i` from `words[i]`.
    fn load_words(self, words: &[u64; 8]) -> Self::Words;
    /// Lane `i` to `words[i]`.
    fn store_words(self, a: Self::Words, words: &mut [u64; 8]);
    /// `a + b`, wrapping.
    fn add(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// `a - b`, wrapping.
    fn sub(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// `a & b`.
    fn and(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// `a & !b`.
    fn and_not(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// `a | b`.
    fn or(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// `a ^ b`.
    fn xor(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// `a ^ b ^ c`.
    #[inline(always)]
    fn xor3(self, a: Self::Words, b: Self::Words, c: Self::Words) -> Self::Words {
        self.xor(self.xor(a, b), c)
    }
    /// `a | (b & !c)`.
    #[inline(always)]
    fn or_and_not(self, a: Self::Words, b: Self::Words, c: Self::Words) -> Self::Words {
        self.or(a, self.and_not(b, c))
    }
    /// `a << n`, for a constant `n` below 64.
    fn shl(self, a: Self::Words, n: u32) -> Self::Words;
    /// `a >> n`, for a constant `n` below 64.
    fn shr(self, a: Self::Words, n: u32) -> Self::Words;
    /// `a` rotated left by a constant `n` below 64.
    fn rotate(self, a: Self::Words, n: u32) -> Self::Words;
    /// The 64-bit product of the lower halves of the lanes.
    fn mul_low_halves(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// `bits` in the lanes where `a < b`, unsigned; 0 in the others.
    fn where_less(self, a: Self::Words, b: Self::Words, bits: Self::Words) -> Self::Words;
    /// Whether every lane is 0.
    fn all_zero(self, a: Self::Words) -> bool;
}

/// Whatever has streaming stores, or none.
pub(crate) trait Streaming: Copy {
    /// Orders streaming stores before whatever follows. [`Fence`] calls it.
    fn fence(self) {}
}

/// Orders streaming stores before whatever comes after it, also where that comes by a panic.
///
/// The intrinsics ask for it: until the fence, nobody, this thread included, may touch what they
/// wrote. So [`Lanes::stream`] takes one, and the kernels write through a borrow that outlives it.
pub(crate) struct Fence<S: Streaming>(S);

impl<S: Streaming> Fence<S> {
    /// The fence after the stores of `simd` that follow.
    #[inline(always)]
    pub(crate) fn after(simd: S) -> Self {
        Self(simd)
    }
}

impl<S: Streaming> Drop for Fence<S> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.fence();
    }
}

/// Vectors of `T`: the lanes that a kernel handles at a time.
///
/// A vector holds elements `at` to `at + LANES - 1` of a group of [`GROUP`], where `at` is a
/// multiple of `LANES`; bit `at + i` of a word of the mask belongs to lane `i`.
pub(crate) trait Lanes<T: Element>: Streaming {
    /// Elements in a vector; divides [`GROUP`].
    const LANES: usize;

    /// Elements, as they are or widened.
    type Vector: Copy;
    /// The scale in every lane.
    type Scale: Copy;

    /// The same scale in every lane.
    fn splat_scale(self, scale: T::Scale) -> Self::Scale;
    /// Reads a vector.
    fn load(self, x: &[T; GROUP], at: usize) -> Self::Vector;
    /// [`Element::times`] in every lane.
    fn times(self, x: Self::Vector, scale: Self::Scale) -> Self::Vector;
    /// The lanes whose bit is set; `+0.0` in the others.
    fn keep(self, x: Self::Vector, bits: u64, at: usize) -> Self::Vector;
    /// Writes a vector.
    fn store(self, x: Self::Vector, y: &mut [T; GROUP], at: usize);
    /// Writes a vector around the cache, where the instruction set can; it is there for others to
    /// see once the fence is dropped.
    ///
    /// # Panics
    ///
    /// Where it can and `y` is not aligned to [`ALIGN`].
    #[inline(always)]
    fn stream(self, x: Self::Vector, y: &mut [T; GROUP], at: usize, _: &Fence<Self>) {
        self.store(x, y, at);
    }
}

/// Code that is written once for every instruction set.
///
/// A trait and not a closure, because `run` has to be inlined into [`Simd::vectorize`] to be
/// compiled for its instruction set, and a closure cannot be marked so.
pub(crate) trait Kernel<S: Simd> {
    /// The code. Mark the implementation `#[inline(always)]`, and everything it calls in a loop.
    fn run(self, simd: S);
}

/// Panics unless elements `at` to `at + lanes - 1` are inside a group, and `at` counts whole
/// vectors. With `at` known to the compiler, nothing of it is left.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
fn check_inside(at: usize, lanes: usize) {
    assert!(
        at <= GROUP - lanes && at.is_multiple_of(lanes),
        "{lanes} lanes from element {at} of a group of {GROUP}"
    );
}

/// Panics unless `y` is aligned for streaming stores. The compiler merges the checks of one group.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn check_aligned<T>(y: &[T; GROUP]) {
    assert!(
        y.as_ptr().addr().is_multiple_of(ALIGN),
        "streaming stores need aligned groups"
    );
}

/// Defines `load` and `store` of [`Lanes`], and `stream` where there is one, from expressions over
/// a pointer to the vector's first element.
///
/// The unsafe blocks are argued once, here. Expressions may touch the vector's elements and nothing
/// else; those of `load` and `store` must not need alignment, those of `stream` at most that of the
/// vector.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! memory_ops {
    (
        $lanes:literal of $t:ty as $vector:ty;
        load: |$from:ident| $load:expr;
        store: |$to:ident, $x:ident| $store:expr;
        $(stream: |$around:ident, $y:ident| $stream:expr;)?
    ) => {
        #[inline(always)]
        fn load(self, x: &[$t; GROUP], at: usize) -> $vector {
            $crate::simd::check_inside(at, $lanes);
            // SAFETY: `check_inside` put the vector's elements inside the array, from which they may
            // be read; `self` exists only because `detect` saw the features.
            unsafe {
                let $from = x.as_ptr().add(at);
                $load
            }
        }

        #[inline(always)]
        fn store(self, $x: $vector, y: &mut [$t; GROUP], at: usize) {
            $crate::simd::check_inside(at, $lanes);
            // SAFETY: `check_inside` put the vector's elements inside the array, to which they may
            // be written; `self` exists only because `detect` saw the features.
            unsafe {
                let $to = y.as_mut_ptr().add(at);
                $store
            }
        }

        $(
            #[inline(always)]
            fn stream(
                self,
                $y: $vector,
                y: &mut [$t; GROUP],
                at: usize,
                _: &$crate::simd::Fence<Self>,
            ) {
                $crate::simd::check_inside(at, $lanes);
                $crate::simd::check_aligned(y);
                // SAFETY: as for `store`; the address is aligned to the vector, as `check_aligned`
                // saw the group aligned to more and `check_inside` that `at` counts whole vectors;
                // and the caller's `Fence` comes before anyone else sees the borrow.
                unsafe {
                    let $around = y.as_mut_ptr().add(at);
                    $stream
                }
            }
        )?
    };
}

/// Defines a token: its detection and its `vectorize` from one list of CPU features.
macro_rules! token {
    ($(#[$doc:meta])* $token:ident, detected by $detected:ident, $($feature:tt),*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $token(());

        impl $token {
            /// The token, where this CPU has the features.
            pub(crate) fn detect() -> Option<Self> {
                (true $(&& std::arch::$detected!($feature))*).then_some(Self(()))
            }

            #[target_feature($(enable = $feature),*)]
            fn run(self, kernel: impl $crate::simd::Kernel<Self>) {
                kernel.run(self);
            }
        }

        impl $crate::simd::sealed::Sealed for $token {}
    };
}

/// Defines methods of a token whose bodies are calls of intrinsics on values.
///
/// The unsafe block is the same for all and is argued once, here: an intrinsic on values is unsafe
/// only on a CPU without it. Bodies must not touch memory; loads and stores are written out.
macro_rules! value_ops {
    ($($(#[$doc:meta])* fn $name:ident($self:ident $(, $arg:ident: $type:ty)*) -> $result:ty $body:block)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        fn $name($self $(, $arg: $type)*) -> $result {
            // SAFETY: `self` exists only because `detect` saw the features that these intrinsics
            // need.
            unsafe { $body }
        }
    )*};
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use {memory_ops, token, value_ops};
