//! Portable vectors, from the `wide` crate: whatever the build's target has for certain.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use wide::{f32x8, f64x4, u8x16, u32x8, u64x4, u64x8};

use crate::simd::floats::{One, SIGN, UPPER_HALF, one_by_one};
use crate::simd::half_lanes::{half_lanes, round_to_bf16, round_to_bf16_or_nan};
use crate::simd::row_lanes::{full_rows, half_rows};
use crate::simd::{Doubles, Floats, Formula, GROUP, Kernel, Lanes, Simd, Streaming};

/// The token that needs no check.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

impl Streaming for Portable {}

impl Simd for Portable {
    const NAME: &'static str = "portable";
    // Byte by byte, in baseline x86-64.
    const LOOKS_UP_FAST: bool = false;
    // It would make forward at p = 0.1 a tenth faster in cache, with a fifth of this crate's code.
    const INTERLEAVES: bool = false;
    type Words = u64x8;
    type Bytes = u64x8;

    // As with the other instruction sets, so that a kernel with two callers is there once.
    #[inline(never)]
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
    fn look_up(self, table: u64x8, index: u64x8) -> u64x8 {
        each_of_bytes(table, index, |table, index| {
            // Baseline x86-64 has no shuffle of bytes; where there is one, the compiler finds it.
            let (table, index) = (table.to_array(), index.to_array());
            u8x16::new(index.map(|i| table[usize::from(i & 15)]))
        })
    }

    #[inline(always)]
    fn look_up_both(self, a: u64x8, b: u64x8, index: u64x8) -> (u64x8, u64x8) {
        // One load for both: half of what looking up costs without a shuffle of bytes.
        let [a, b, index]: [[u8; 64]; 3] = [a, b, index].map(bytemuck::cast);
        let table: [u16; 16] = core::array::from_fn(|i| u16::from_le_bytes([a[i], b[i]]));
        let found = index.map(|i| table[usize::from(i & 15)]);
        let (a, b) = (found.map(|x| x as u8), found.map(|x| (x >> 8) as u8));
        (bytemuck::cast(a), bytemuck::cast(b))
    }

    #[inline(always)]
    fn bytes_less(self, a: u64x8, b: u64x8) -> u64x8 {
        each_of_bytes(a, b, |a, b| !a.max(b).simd_eq(a))
    }

    #[inline(always)]
    fn bytes_equal(self, a: u64x8, b: u64x8) -> u64x8 {
        each_of_bytes(a, b, u8x16::simd_eq)
    }

    #[inline(always)]
    fn both(self, a: u64x8, b: u64x8) -> u64x8 {
        a & b
    }

    #[inline(always)]
    fn either(self, a: u64x8, b: u64x8) -> u64x8 {
        a | b
    }

    #[inline(always)]
    fn any(self, a: u64x8) -> bool {
        a.to_array().iter().fold(0, |any, word| any | word) != 0
    }

    #[inline(always)]
    fn select_bytes(self, which: u64x8, yes: u64x8, no: u64x8) -> u64x8 {
        yes & which | no & !which
    }
}

/// `f` in each sixteen bytes.
#[inline(always)]
fn each_of_bytes(a: u64x8, b: u64x8, f: impl Fn(u8x16, u8x16) -> u8x16) -> u64x8 {
    let (a, b): ([u8x16; 4], [u8x16; 4]) = (bytemuck::cast(a), bytemuck::cast(b));
    bytemuck::cast([f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])])
}

/// The `N` elements of a group from `at` on.
#[inline(always)]
fn part<T: Copy, const N: usize>(x: &[T; GROUP], at: usize) -> [T; N] {
    core::array::from_fn(|i| x[at + i])
}

/// All ones in the 32-bit lanes whose own bits, of the eight bits from bit `at` of `bits` on, are
/// set.
#[inline(always)]
fn spread(bits: u64, at: usize, own: [u32; 8]) -> u32x8 {
    let own = u32x8::new(own);
    (u32x8::splat((bits >> at) as u32) & own).simd_eq(own)
}

impl Floats for Portable {
    type Vector = f32x8;

    #[inline(always)]
    fn splat(self, x: f32) -> f32x8 {
        f32x8::splat(x)
    }

    #[inline(always)]
    fn plus(self, a: f32x8, b: f32x8) -> f32x8 {
        a + b
    }

    #[inline(always)]
    fn minus(self, a: f32x8, b: f32x8) -> f32x8 {
        a - b
    }

    #[inline(always)]
    fn times(self, a: f32x8, b: f32x8) -> f32x8 {
        a * b
    }

    #[inline(always)]
    fn over(self, a: f32x8, b: f32x8) -> f32x8 {
        a / b
    }

    // Not the maximum and the minimum of `wide`, which treat NaN in a way of their own.
    #[inline(always)]
    fn greater(self, a: f32x8, b: f32x8) -> f32x8 {
        a.simd_gt(b).select(a, b)
    }

    #[inline(always)]
    fn lesser(self, a: f32x8, b: f32x8) -> f32x8 {
        a.simd_lt(b).select(a, b)
    }

    #[inline(always)]
    fn select_less(self, a: f32x8, b: f32x8, yes: f32x8, no: f32x8) -> f32x8 {
        a.simd_lt(b).select(yes, no)
    }

    #[inline(always)]
    fn magnitude(self, x: f32x8) -> f32x8 {
        bytemuck::cast(bytemuck::cast::<_, u32x8>(x) & u32x8::splat(!SIGN))
    }

    #[inline(always)]
    fn with_sign(self, x: f32x8, sign: f32x8) -> f32x8 {
        let (x, sign): (u32x8, u32x8) = (bytemuck::cast(x), bytemuck::cast(sign));
        bytemuck::cast(x | sign & u32x8::splat(SIGN))
    }

    #[inline(always)]
    fn upper_half(self, x: f32x8) -> f32x8 {
        bytemuck::cast(bytemuck::cast::<_, u32x8>(x) & u32x8::splat(UPPER_HALF))
    }

    #[inline(always)]
    fn power(self, n: f32x8) -> f32x8 {
        // In the last bits of the sum, n stands as a whole number, which the shift takes to the exponent.
        let n: u32x8 = bytemuck::cast(n + f32x8::splat(ROUND));
        bytemuck::cast((n << 23_u32) + u32x8::splat(0x3F80_0000))
    }

    #[inline(always)]
    fn times_power(self, x: f32x8, n: f32x8) -> f32x8 {
        let round = f32x8::splat(ROUND);
        let half = (n * f32x8::splat(0.5) + round) - round;
        x * self.power(half) * self.power(n - half)
    }
}

/// Numbers that are small beside it, added to it, are rounded to whole ones.
const ROUND: f32 = 12_582_912.0;

impl Lanes<f32> for Portable {
    const LANES: usize = 8;
    type Stored = f32x8;
    type Wide = f32x8;

    #[inline(always)]
    fn load(self, x: &[f32; GROUP], at: usize) -> f32x8 {
        f32x8::new(part(x, at))
    }

    #[inline(always)]
    fn store(self, x: f32x8, y: &mut [f32; GROUP], at: usize) {
        y[at..at + 8].copy_from_slice(x.as_array());
    }

    #[inline(always)]
    fn splat_stored(self, x: f32) -> f32x8 {
        f32x8::splat(x)
    }

    #[inline(always)]
    fn splat_wide(self, x: f32) -> f32x8 {
        f32x8::splat(x)
    }

    #[inline(always)]
    fn widen(self, x: f32x8) -> f32x8 {
        x
    }

    #[inline(always)]
    fn narrow(self, x: f32x8, _: bool) -> f32x8 {
        x
    }

    #[inline(always)]
    fn times(self, a: f32x8, b: f32x8) -> f32x8 {
        a * b
    }

    #[inline(always)]
    fn plus(self, a: f32x8, b: f32x8) -> f32x8 {
        a + b
    }

    #[inline(always)]
    fn function(self, formula: impl Formula, x: f32x8) -> f32x8 {
        formula.f32(self, x)
    }

    #[inline(always)]
    fn function_of_one(self, formula: impl Formula, x: f32) -> f32 {
        formula.f32(One, x)
    }

    #[inline(always)]
    fn keep(self, x: f32x8, bits: u64, at: usize) -> f32x8 {
        let kept = spread(bits, at, [1, 2, 4, 8, 16, 32, 64, 128]);
        bytemuck::cast(bytemuck::cast::<_, u32x8>(x) & kept)
    }

    #[inline(always)]
    fn select(self, bits: u64, at: usize, kept: f32x8, dropped: f32x8) -> f32x8 {
        let which = spread(bits, at, [1, 2, 4, 8, 16, 32, 64, 128]);
        let (kept, dropped): (u32x8, u32x8) = (bytemuck::cast(kept), bytemuck::cast(dropped));
        bytemuck::cast(kept & which | dropped & !which)
    }

    #[inline(always)]
    fn not_at_most_zero(self, x: f32x8, at: usize) -> u64 {
        u64::from(!x.simd_le(f32x8::ZERO).to_bitmask() & 0xFF) << at
    }
}

impl Lanes<f64> for Portable {
    const LANES: usize = 4;
    type Stored = f64x4;
    type Wide = f64x4;

    #[inline(always)]
    fn load(self, x: &[f64; GROUP], at: usize) -> f64x4 {
        f64x4::new(part(x, at))
    }

    #[inline(always)]
    fn store(self, x: f64x4, y: &mut [f64; GROUP], at: usize) {
        y[at..at + 4].copy_from_slice(x.as_array());
    }

    #[inline(always)]
    fn splat_stored(self, x: f64) -> f64x4 {
        f64x4::splat(x)
    }

    #[inline(always)]
    fn splat_wide(self, x: f64) -> f64x4 {
        f64x4::splat(x)
    }

    #[inline(always)]
    fn widen(self, x: f64x4) -> f64x4 {
        x
    }

    #[inline(always)]
    fn narrow(self, x: f64x4, _: bool) -> f64x4 {
        x
    }

    #[inline(always)]
    fn times(self, a: f64x4, b: f64x4) -> f64x4 {
        a * b
    }

    #[inline(always)]
    fn plus(self, a: f64x4, b: f64x4) -> f64x4 {
        a + b
    }

    #[inline(always)]
    fn function(self, formula: impl Formula, x: f64x4) -> f64x4 {
        one_by_one(self, formula, x)
    }

    #[inline(always)]
    fn function_of_one(self, formula: impl Formula, x: f64) -> f64 {
        formula.f64(x)
    }

    #[inline(always)]
    fn keep(self, x: f64x4, bits: u64, at: usize) -> f64x4 {
        // Pairs of 32-bit lanes: baseline x86-64 compares 32 bits, not 64.
        let kept = spread(bits, at, [1, 1, 2, 2, 4, 4, 8, 8]);
        bytemuck::cast(bytemuck::cast::<_, u64x4>(x) & bytemuck::cast::<_, u64x4>(kept))
    }

    #[inline(always)]
    fn select(self, bits: u64, at: usize, kept: f64x4, dropped: f64x4) -> f64x4 {
        let which: u64x4 = bytemuck::cast(spread(bits, at, [1, 1, 2, 2, 4, 4, 8, 8]));
        let (kept, dropped): (u64x4, u64x4) = (bytemuck::cast(kept), bytemuck::cast(dropped));
        bytemuck::cast(kept & which | dropped & !which)
    }

    #[inline(always)]
    fn not_at_most_zero(self, x: f64x4, at: usize) -> u64 {
        u64::from(!x.simd_le(f64x4::ZERO).to_bitmask() & 0xF) << at
    }
}

half_lanes!(
    Portable,
    bf16,
    widen: |from, wide| for (wide, x) in wide.iter_mut().zip(from) {
        *wide = f32::from_bits(u32::from(x.to_bits()) << 16);
    },
    narrow: |x, to| for (to, x) in to.iter_mut().zip(x) {
        *to = bf16::from_bits(round_to_bf16(x));
    }
);

half_lanes!(
    Portable,
    f16,
    widen: |from, wide| from.convert_to_f32_slice(&mut wide),
    narrow: |x, to| to.convert_from_f32_slice(&x)
);

impl Doubles<f32> for Portable {
    #[inline(always)]
    fn doubles(self, x: &[f32; GROUP], at: usize) -> f64x4 {
        f64x4::new(part::<f32, 4>(x, at).map(f64::from))
    }
}

full_rows!(Portable);

half_rows!(
    Portable,
    bf16,
    widen: |simd, from, wide| *wide = Lanes::<bf16>::widen(simd, *from),
    narrow: |_simd, x, to| for (to, &x) in to.iter_mut().zip(x) {
        *to = bf16::from_bits(round_to_bf16_or_nan(x));
    }
);

half_rows!(
    Portable,
    f16,
    widen: |_simd, from, wide| from.convert_to_f32_slice(wide),
    narrow: |_simd, x, to| to.convert_from_f32_slice(x)
);
