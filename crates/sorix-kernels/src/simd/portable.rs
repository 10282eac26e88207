//! Portable vectors, from the `wide` crate: whatever the build's target has for certain.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use wide::{f32x8, f64x4, u32x8, u64x4, u64x8};

use crate::simd::half_lanes::{half_lanes, round_to_bf16};
use crate::simd::{GROUP, Kernel, Lanes, Simd, Streaming, sealed};

/// The token that needs no check.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

impl sealed::Sealed for Portable {}

impl Streaming for Portable {}

impl Simd for Portable {
    const NAME: &'static str = "portable";
    const TILES: usize = 1;
    type Words = u64x8;

    #[inline(always)]
    fn vectorize(self, kernel: impl Kernel<Self>) {
        kernel.run(self);
    }

    #[inline(always)]
    fn splat(self, word: u64) -> u64x8 {
        u64x8::splat(word)
    }

    #[inline(always)]
    fn load_words(self, words: &[u64; 8]) -> u64x8 {
        u64x8::new(*words)
    }

    #[inline(always)]
    fn store_words(self, a: u64x8, words: &mut [u64; 8]) {
        *words = a.to_array();
    }

    #[inline(always)]
    fn add(self, a: u64x8, b: u64x8) -> u64x8 {
        a + b
    }

    #[inline(always)]
    fn sub(self, a: u64x8, b: u64x8) -> u64x8 {
        a - b
    }

    #[inline(always)]
    fn and(self, a: u64x8, b: u64x8) -> u64x8 {
        a & b
    }

    #[inline(always)]
    fn and_not(self, a: u64x8, b: u64x8) -> u64x8 {
        a & !b
    }

    #[inline(always)]
    fn or(self, a: u64x8, b: u64x8) -> u64x8 {
        a | b
    }

    #[inline(always)]
    fn xor(self, a: u64x8, b: u64x8) -> u64x8 {
        a ^ b
    }

    #[inline(always)]
    fn shl(self, a: u64x8, n: u32) -> u64x8 {
        a << n
    }

    #[inline(always)]
    fn shr(self, a: u64x8, n: u32) -> u64x8 {
        a >> n
    }

    #[inline(always)]
    fn rotate(self, a: u64x8, n: u32) -> u64x8 {
        a << n | a >> (64 - n)
    }

    #[inline(always)]
    fn mul_low_halves(self, a: u64x8, b: u64x8) -> u64x8 {
        // `wide` has no widening product of every other half; the compiler finds the instruction.
        let (a, b) = (a.to_array(), b.to_array());
        u64x8::new(core::array::from_fn(|i| {
            u64::from(a[i] as u32) * u64::from(b[i] as u32)
        }))
    }

    #[inline(always)]
    fn where_less(self, a: u64x8, b: u64x8, bits: u64x8) -> u64x8 {
        a.simd_lt(b) & bits
    }

    #[inline(always)]
    fn all_zero(self, a: u64x8) -> bool {
        a.to_array().iter().fold(0, |any, word| any | word) == 0
    }
}

/// The `N` elements of a group from `at` on.
#[inline(always)]
fn part<T: Copy, const N: usize>(x: &[T; GROUP], at: usize) -> [T; N] {
    core::array::from_fn(|i| x[at + i])
}

impl Lanes<f32> for Portable {
    const LANES: usize = 8;
    type Vector = f32x8;
    type Scale = f32x8;

    #[inline(always)]
    fn splat_scale(self, scale: f32) -> f32x8 {
        f32x8::splat(scale)
    }

    #[inline(always)]
    fn load(self, x: &[f32; GROUP], at: usize) -> f32x8 {
        f32x8::new(part(x, at))
    }

    #[inline(always)]
    fn times(self, x: f32x8, scale: f32x8) -> f32x8 {
        x * scale
    }

    #[inline(always)]
    fn keep(self, x: f32x8, bits: u64, at: usize) -> f32x8 {
        let own = u32x8::new([1, 2, 4, 8, 16, 32, 64, 128]);
        let kept = (u32x8::splat((bits >> at) as u32) & own).simd_eq(own);
        bytemuck::cast(bytemuck::cast::<_, u32x8>(x) & kept)
    }

    #[inline(always)]
    fn store(self, x: f32x8, y: &mut [f32; GROUP], at: usize) {
        y[at..at + 8].copy_from_slice(x.as_array());
    }
}

impl Lanes<f64> for Portable {
    const LANES: usize = 4;
    type Vector = f64x4;
    type Scale = f64x4;

    #[inline(always)]
    fn splat_scale(self, scale: f64) -> f64x4 {
        f64x4::splat(scale)
    }

    #[inline(always)]
    fn load(self, x: &[f64; GROUP], at: usize) -> f64x4 {
        f64x4::new(part(x, at))
    }

    #[inline(always)]
    fn times(self, x: f64x4, scale: f64x4) -> f64x4 {
        x * scale
    }

    #[inline(always)]
    fn keep(self, x: f64x4, bits: u64, at: usize) -> f64x4 {
        // Pairs of 32-bit lanes: baseline x86-64 compares 32 bits, not 64.
        let own = u32x8::new([1, 1, 2, 2, 4, 4, 8, 8]);
        let kept = (u32x8::splat((bits >> at) as u32) & own).simd_eq(own);
        bytemuck::cast(bytemuck::cast::<_, u64x4>(x) & bytemuck::cast::<_, u64x4>(kept))
    }

    #[inline(always)]
    fn store(self, x: f64x4, y: &mut [f64; GROUP], at: usize) {
        y[at..at + 4].copy_from_slice(x.as_array());
    }
}

half_lanes!(
    Portable,
    bf16,
    load: |from, wide| for (wide, x) in wide.iter_mut().zip(from) {
        *wide = f32::from_bits(u32::from(x.to_bits()) << 16);
    },
    store: |x, to| for (to, x) in to.iter_mut().zip(x) {
        *to = bf16::from_bits(round_to_bf16(x));
    }
);

half_lanes!(
    Portable,
    f16,
    load: |from, wide| from.convert_to_f32_slice(&mut wide),
    store: |x, to| to.convert_from_f32_slice(&x)
);
