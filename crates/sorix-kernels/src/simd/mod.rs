//! The instruction sets: one zero-sized token each, all behind the trait [`Simd`].
//!
//! A token is proof that this CPU has the instructions: it can only be made by its `detect`, which
//! asks the CPU. That check is what makes the calls of intrinsics in the token's methods sound, and
//! is why the methods themselves are safe. The kernels in [`kernel`](crate::kernel) are written
//! once, over `S: Simd`, without any `unsafe`; [`Simd::vectorize`] compiles them for the token's
//! instruction set.
//!
//! The vocabulary is small. For masks: [`Simd::Words`], eight 64-bit lanes, which is one 512-bit
//! register, two of 256 or four of 128, and which is also 64 bytes. For elements: [`Lanes`], one
//! vector at a time of a group of [`GROUP`] elements, whose keep bits are one word of the mask.
//!
//! # unsafe
//!
//! This directory is the only place in sorix with `unsafe` code, and most of it is in three macros.
//! `value_ops!` makes a method of a token from a body that is compiled as a *safe* function with the
//! token's CPU features: an intrinsic that takes a pointer does not compile in it, so that its one
//! `unsafe` is the call of that function. `memory_ops!` makes loads and stores, whose bodies do take
//! a pointer. `token!` makes the token, its `detect` and its `vectorize`.
//!
//! Nobody outside this crate can name a token, let alone make one,
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
mod floats;
mod half_lanes;
mod portable;
mod row_lanes;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use core::fmt::Debug;

use half::{bf16, f16};

use crate::element::Element;

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::Neon;
pub(crate) use floats::{Floats, Formula};
pub(crate) use portable::Portable;
pub(crate) use row_lanes::{Doubles, RowLanes};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{Avx2, Avx512};

/// Elements in a group: as many as a word of a mask has bits.
pub(crate) const GROUP: usize = 64;

/// Bytes to which a streaming store must be aligned: a cache line.
pub(crate) const ALIGN: usize = 64;

/// An instruction set, as a token that proves that the CPU has it.
pub(crate) trait Simd:
    Copy
    + Debug
    + Send
    + Sync
    + 'static
    + Lanes<f32>
    + Lanes<f64>
    + Lanes<bf16>
    + Lanes<f16>
    + RowLanes<f32>
    + RowLanes<f64>
    + RowLanes<bf16>
    + RowLanes<f16>
{
    /// The name of the backend over this token.
    const NAME: &'static str;
    /// Whether [`Simd::look_up`] costs less than a branch that is mispredicted now and then.
    const LOOKS_UP_FAST: bool = true;
    /// Whether the bits of a mask are made between the elements: `kernel/dropout.rs`.
    const INTERLEAVES: bool = true;

    /// Eight 64-bit lanes, or 64 bytes.
    type Words: Copy;
    /// A yes or no for each byte of [`Simd::Words`].
    type Bytes: Copy;

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

    /// Sixteen bytes, again and again: what [`Simd::look_up`] looks up in.
    #[inline(always)]
    fn splat_table(self, table: &[u8; 16]) -> Self::Words {
        let table = u128::from_le_bytes(*table);
        let (low, high) = (table as u64, (table >> 64) as u64);
        self.load_words(&[low, high, low, high, low, high, low, high])
    }
    /// In each byte, the byte of `table` whose number `index` has there, 0 to 15.
    fn look_up(self, table: Self::Words, index: Self::Words) -> Self::Words;
    /// [`look_up`](Simd::look_up) in two tables.
    #[inline(always)]
    fn look_up_both(
        self,
        a: Self::Words,
        b: Self::Words,
        index: Self::Words,
    ) -> (Self::Words, Self::Words) {
        (self.look_up(a, index), self.look_up(b, index))
    }
    /// In which bytes `a < b`, unsigned.
    fn bytes_less(self, a: Self::Words, b: Self::Words) -> Self::Bytes;
    /// In which bytes `a == b`.
    fn bytes_equal(self, a: Self::Words, b: Self::Words) -> Self::Bytes;
    /// The bytes that are in both.
    fn both(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// The bytes that are in either.
    fn either(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Whether there is any byte in it.
    fn any(self, a: Self::Bytes) -> bool;
    /// The bytes of `yes` that are in `which`, those of `no` elsewhere.
    fn select_bytes(self, which: Self::Bytes, yes: Self::Words, no: Self::Words) -> Self::Words;
}

/// How far ahead of a store [`Streaming::prefetch_write`] asks for lines, in bytes.
#[cfg(target_arch = "x86_64")]
const PREFETCH_AHEAD: usize = 1024;

/// Whatever can be said of stores that are to come, or nothing.
pub(crate) trait Streaming: Copy {
    /// Asks for the cache lines that will be written some groups after `y`, so that an ordinary store
    /// there does not wait for them. Nothing is written, and it does not matter whether `y` has groups
    /// after it.
    ///
    /// In the level 2 cache of a Granite Rapids it takes backward from 1.17 to 1.08 copies, and forward
    /// at p = 0.1 from 1.31 to 1.21: the processor finds these lines itself only as far as it looks
    /// ahead, which the arithmetic shortens. The lines that are read it does find.
    #[inline(always)]
    fn prefetch_write<T>(self, _y: &mut [T; GROUP]) {}

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
/// multiple of `LANES`; bit `at + i` of a word of the mask belongs to lane `i`. It comes in two
/// forms: [stored](Lanes::Stored), as in memory, and [wide](Lanes::Wide), in the type computed in.
/// What arithmetic there is, is on wide vectors; what is selected by bits is stored.
pub(crate) trait Lanes<T: Element>: Streaming {
    /// Elements in a vector; divides [`GROUP`].
    const LANES: usize;

    /// Elements as they lie in memory.
    type Stored: Copy;
    /// The same numbers in the type computed in. Which lane holds which of them is the token's
    /// business.
    type Wide: Copy;

    /// Reads a vector.
    fn load(self, x: &[T; GROUP], at: usize) -> Self::Stored;
    /// Writes a vector.
    fn store(self, x: Self::Stored, y: &mut [T; GROUP], at: usize);
    /// Writes a vector around the cache, if the instruction set can; it is there for others to
    /// see once the fence is dropped.
    ///
    /// # Panics
    ///
    /// If it can and `y` is not aligned to [`ALIGN`].
    #[inline(always)]
    fn stream(self, x: Self::Stored, y: &mut [T; GROUP], at: usize, _: &Fence<Self>) {
        self.store(x, y, at);
    }

    /// The same element in every lane.
    fn splat_stored(self, x: T) -> Self::Stored;
    /// The same number in every lane.
    fn splat_wide(self, x: T::Scale) -> Self::Wide;
    /// Exact.
    fn widen(self, x: Self::Stored) -> Self::Wide;
    /// Rounded once, to nearest; ties to even, if `ties`. Without, the caller says that no number in
    /// it is a tie ([`Lanes::can_tie`]), which costs less for bf16.
    ///
    /// A NaN that was computed from widened elements and from [`Element::factor`]s stays a NaN.
    fn narrow(self, x: Self::Wide, ties: bool) -> Self::Stored;
    /// `a * b`, rounded once in the type computed in.
    fn times(self, a: Self::Wide, b: Self::Wide) -> Self::Wide;
    /// `a + b`, rounded once in the type computed in.
    fn plus(self, a: Self::Wide, b: Self::Wide) -> Self::Wide;
    /// The lanes whose bit is set; `+0.0` in the others.
    fn keep(self, x: Self::Stored, bits: u64, at: usize) -> Self::Stored;
    /// [`keep`](Lanes::keep) of [`narrow`](Lanes::narrow), in the order that costs less.
    #[inline(always)]
    fn narrow_kept(self, x: Self::Wide, ties: bool, bits: u64, at: usize) -> Self::Stored {
        self.keep(self.narrow(x, ties), bits, at)
    }
    /// The lanes of `kept` whose bit is set, those of `dropped` elsewhere.
    fn select(
        self,
        bits: u64,
        at: usize,
        kept: Self::Stored,
        dropped: Self::Stored,
    ) -> Self::Stored;

    /// The bits `at` and up of the lanes that are not `<= 0`: of those that are greater, and of NaN. All
    /// others are zero.
    fn not_at_most_zero(self, x: Self::Stored, at: usize) -> u64;
    /// `formula` of each lane.
    fn function(self, formula: impl Formula, x: Self::Wide) -> Self::Wide;
    /// `formula` of one number: bit for bit what it is in a lane.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "no pass has a formula yet; the tests do")
    )]
    fn function_of_one(self, formula: impl Formula, x: T::Scale) -> T::Scale;

    /// Whether an element times `scale` can lie half way between two elements.
    #[inline(always)]
    fn can_tie(self, _scale: T::Scale) -> bool {
        true
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

/// Defines a token from one list of CPU features: its detection, how it runs a kernel, and two macros
/// for the rest of its file.
///
/// `value_ops!` defines methods whose bodies are calls of intrinsics on values. A body becomes a safe
/// function with the token's features, in which such calls are safe and those that take a pointer do
/// not compile. `functions!` defines free functions of that kind, for what several bodies share.
///
/// The `$` is given as an argument, since a macro cannot write one into the macros that it defines.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! token {
    (($d:tt) $(#[$doc:meta])* $token:ident, detected by $detected:ident, $($feature:tt),*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $token(());

        impl $token {
            /// The token, if this CPU has the features.
            pub(crate) fn detect() -> Option<Self> {
                (true $(&& std::arch::$detected!($feature))*).then_some(Self(()))
            }

            /// Runs `kernel`, compiled with the features.
            #[inline(always)]
            fn run(self, kernel: impl $crate::simd::Kernel<Self>) {
                #[target_feature($(enable = $feature),*)]
                fn with_features(token: $token, kernel: impl $crate::simd::Kernel<$token>) {
                    kernel.run(token);
                }
                // SAFETY: `self` exists only because `detect` saw the features.
                unsafe { with_features(self, kernel) }
            }
        }

        macro_rules! value_ops {
            ($d(
                $d(#[$d attribute:meta])*
                fn $d name:ident(self $d(, $d arg:ident: $d type:ty)*) -> $d result:ty $d body:block
            )*) => {$d(
                $d(#[$d attribute])*
                #[inline(always)]
                fn $d name(self $d(, $d arg: $d type)*) -> $d result {
                    #[inline]
                    #[target_feature($(enable = $feature),*)]
                    fn with_features($d($d arg: $d type),*) -> $d result $d body
                    // SAFETY: `self` exists only because `detect` saw the features.
                    unsafe { with_features($d($d arg),*) }
                }
            )*};
        }

        macro_rules! functions {
            ($d(
                $d(#[$d attribute:meta])*
                fn $d name:ident($d($d arg:ident: $d type:ty),*) -> $d result:ty $d body:block
            )*) => {$d(
                $d(#[$d attribute])*
                #[inline]
                #[target_feature($(enable = $feature),*)]
                fn $d name($d($d arg: $d type),*) -> $d result $d body
            )*};
        }
    };
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use {memory_ops, token};
