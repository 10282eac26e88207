//! NEON: the eight lanes of a mask are four registers, and keep bits are spread over lanes.

use core::arch::aarch64::*;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::simd::floats::{One, SIGN, UPPER_HALF, one_by_one};
use crate::simd::half_lanes::half_lanes;
use crate::simd::row_lanes::{full_rows, half_rows};
use crate::simd::{
    Doubles, Floats, Formula, GROUP, Kernel, Lanes, Simd, Streaming, check_inside, memory_ops,
    token,
};

token!(
    ($)
    /// NEON (Advanced SIMD): every AArch64 CPU.
    Neon, detected by is_aarch64_feature_detected, "neon"
);

/// Eight 64-bit lanes.
type Words = [uint64x2_t; 4];

impl Streaming for Neon {}

impl Simd for Neon {
    const NAME: &'static str = "neon";
    type Words = Words;
    type Bytes = Words;

    #[inline(always)]
    fn vectorize(self, kernel: impl Kernel<Self>) {
        self.run(kernel);
    }

    #[inline(always)]
    fn load_words(self, words: &[u64; 8]) -> Words {
        let words = words.as_ptr();
        // SAFETY: the array is four times two readable words; `detect` saw the feature.
        unsafe {
            [
                vld1q_u64(words),
                vld1q_u64(words.add(2)),
                vld1q_u64(words.add(4)),
                vld1q_u64(words.add(6)),
            ]
        }
    }

    #[inline(always)]
    fn store_words(self, a: Words, words: &mut [u64; 8]) {
        let words = words.as_mut_ptr();
        // SAFETY: the array is four times two writable words; `detect` saw the feature.
        unsafe {
            vst1q_u64(words, a[0]);
            vst1q_u64(words.add(2), a[1]);
            vst1q_u64(words.add(4), a[2]);
            vst1q_u64(words.add(6), a[3]);
        }
    }

    #[inline(always)]
    fn rotate(self, a: Words, n: u32) -> Words {
        self.or(self.shl(a, n), self.shr(a, 64 - n))
    }

    value_ops! {
        fn splat(self, word: u64) -> Words { [vdupq_n_u64(word); 4] }
        fn add(self, a: Words, b: Words) -> Words { each(a, b, |a, b| vaddq_u64(a, b)) }
        fn sub(self, a: Words, b: Words) -> Words { each(a, b, |a, b| vsubq_u64(a, b)) }
        fn and(self, a: Words, b: Words) -> Words { each(a, b, |a, b| vandq_u64(a, b)) }
        fn and_not(self, a: Words, b: Words) -> Words { each(a, b, |a, b| vbicq_u64(a, b)) }
        fn or(self, a: Words, b: Words) -> Words { each(a, b, |a, b| vorrq_u64(a, b)) }
        fn xor(self, a: Words, b: Words) -> Words { each(a, b, |a, b| veorq_u64(a, b)) }
        fn shl(self, a: Words, n: u32) -> Words {
            let n = vdupq_n_s64(i64::from(n));
            a.map(|a| vshlq_u64(a, n))
        }
        fn shr(self, a: Words, n: u32) -> Words {
            // NEON shifts right by shifting left by a negative number.
            let n = vdupq_n_s64(-i64::from(n));
            a.map(|a| vshlq_u64(a, n))
        }
        fn mul_low_halves(self, a: Words, b: Words) -> Words {
            each(a, b, |a, b| vmull_u32(vmovn_u64(a), vmovn_u64(b)))
        }
        fn look_up(self, table: Words, index: Words) -> Words {
            each_of_bytes(table, index, |table, index| vqtbl1q_u8(table, index))
        }
        fn bytes_less(self, a: Words, b: Words) -> Words {
            each_of_bytes(a, b, |a, b| vcltq_u8(a, b))
        }
        fn bytes_equal(self, a: Words, b: Words) -> Words {
            each_of_bytes(a, b, |a, b| vceqq_u8(a, b))
        }
        fn any(self, a: Words) -> bool {
            let any = vorrq_u64(vorrq_u64(a[0], a[1]), vorrq_u64(a[2], a[3]));
            vmaxvq_u32(vreinterpretq_u32_u64(any)) != 0
        }
        fn select_bytes(self, which: Words, yes: Words, no: Words) -> Words {
            [0, 1, 2, 3].map(|i| vbslq_u64(which[i], yes[i], no[i]))
        }
    }

    #[inline(always)]
    fn both(self, a: Words, b: Words) -> Words {
        self.and(a, b)
    }

    #[inline(always)]
    fn either(self, a: Words, b: Words) -> Words {
        self.or(a, b)
    }
}

/// `f` in each pair of registers.
#[inline(always)]
fn each(a: Words, b: Words, f: impl Fn(uint64x2_t, uint64x2_t) -> uint64x2_t) -> Words {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

functions! {
    /// `f` in each pair of registers, seen as bytes.
    fn each_of_bytes(
        a: Words,
        b: Words,
        f: impl Fn(uint8x16_t, uint8x16_t) -> uint8x16_t
    ) -> Words {
        [0, 1, 2, 3].map(|i| {
            vreinterpretq_u64_u8(f(vreinterpretq_u8_u64(a[i]), vreinterpretq_u8_u64(b[i])))
        })
    }

    /// All ones in the 32-bit lanes whose bit is set in bits `at` to `at + 3` of `bits`.
    fn spread_32(bits: u64, at: usize) -> uint32x4_t {
        vtstq_u32(vdupq_n_u32((bits >> at) as u32), own_32())
    }

    /// All ones in the 64-bit lanes whose bit is set in bits `at` and `at + 1` of `bits`.
    fn spread_64(bits: u64, at: usize) -> uint64x2_t {
        vtstq_u64(vdupq_n_u64(bits >> at), own_64())
    }

    /// All ones in the 16-bit lanes whose bit is set in bits `at` to `at + 7` of `bits`.
    fn spread_16(bits: u64, at: usize) -> uint16x8_t {
        vtstq_u16(vdupq_n_u16((bits >> at) as u16), own_16())
    }

    /// The bit of each lane, from bit 0 on.
    fn own_32() -> uint32x4_t {
        vcombine_u32(vcreate_u32(0x2_0000_0001), vcreate_u32(0x8_0000_0004))
    }

    /// The bit of each lane, from bit 0 on.
    fn own_64() -> uint64x2_t {
        vcombine_u64(vcreate_u64(1), vcreate_u64(2))
    }

    /// The bit of each lane, from bit 0 on.
    fn own_16() -> uint16x8_t {
        vcombine_u16(
            vcreate_u16(0x0008_0004_0002_0001),
            vcreate_u16(0x0080_0040_0020_0010),
        )
    }
}

impl Floats for Neon {
    type Vector = float32x4_t;

    value_ops! {
        fn splat(self, x: f32) -> float32x4_t { vdupq_n_f32(x) }
        fn plus(self, a: float32x4_t, b: float32x4_t) -> float32x4_t { vaddq_f32(a, b) }
        fn minus(self, a: float32x4_t, b: float32x4_t) -> float32x4_t { vsubq_f32(a, b) }
        fn times(self, a: float32x4_t, b: float32x4_t) -> float32x4_t { vmulq_f32(a, b) }
        fn over(self, a: float32x4_t, b: float32x4_t) -> float32x4_t { vdivq_f32(a, b) }
        // Not the instructions for maximum and minimum: they give NaN if either operand is one.
        fn greater(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
            vbslq_f32(vcgtq_f32(a, b), a, b)
        }
        fn lesser(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
            vbslq_f32(vcltq_f32(a, b), a, b)
        }
        fn select_less(
            self,
            a: float32x4_t,
            b: float32x4_t,
            yes: float32x4_t,
            no: float32x4_t
        ) -> float32x4_t {
            vbslq_f32(vcltq_f32(a, b), yes, no)
        }
        fn magnitude(self, x: float32x4_t) -> float32x4_t { vabsq_f32(x) }
        fn with_sign(self, x: float32x4_t, sign: float32x4_t) -> float32x4_t {
            vbslq_f32(vdupq_n_u32(SIGN), sign, x)
        }
        fn upper_half(self, x: float32x4_t) -> float32x4_t {
            vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(UPPER_HALF)))
        }
        fn power(self, n: float32x4_t) -> float32x4_t { power_of_two(vcvtnq_s32_f32(n)) }
        fn times_power(self, x: float32x4_t, n: float32x4_t) -> float32x4_t {
            let n = vcvtnq_s32_f32(n);
            let half = vshrq_n_s32::<1>(n);
            let rest = vsubq_s32(n, half);
            vmulq_f32(vmulq_f32(x, power_of_two(half)), power_of_two(rest))
        }
    }
}

functions! {
    /// 2^n for whole numbers from -126 to 127.
    fn power_of_two(n: int32x4_t) -> float32x4_t {
        let one = vdupq_n_s32(0x3F80_0000);
        vreinterpretq_f32_s32(vaddq_s32(vshlq_n_s32::<23>(n), one))
    }
}

impl Lanes<f32> for Neon {
    const LANES: usize = 4;
    type Stored = float32x4_t;
    type Wide = float32x4_t;

    value_ops! {
        fn splat_stored(self, x: f32) -> float32x4_t { vdupq_n_f32(x) }
        fn splat_wide(self, x: f32) -> float32x4_t { vdupq_n_f32(x) }
        fn widen(self, x: float32x4_t) -> float32x4_t { x }
        fn narrow(self, x: float32x4_t, _ties: bool) -> float32x4_t { x }
        fn times(self, a: float32x4_t, b: float32x4_t) -> float32x4_t { vmulq_f32(a, b) }
        fn plus(self, a: float32x4_t, b: float32x4_t) -> float32x4_t { vaddq_f32(a, b) }
        fn keep(self, x: float32x4_t, bits: u64, at: usize) -> float32x4_t {
            vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), spread_32(bits, at)))
        }
        fn select(
            self,
            bits: u64,
            at: usize,
            kept: float32x4_t,
            dropped: float32x4_t
        ) -> float32x4_t {
            vbslq_f32(spread_32(bits, at), kept, dropped)
        }
        fn not_at_most_zero(self, x: float32x4_t, at: usize) -> u64 {
            u64::from(vaddvq_u32(vbicq_u32(own_32(), vclezq_f32(x)))) << at
        }
    }

    #[inline(always)]
    fn function(self, formula: impl Formula, x: float32x4_t) -> float32x4_t {
        formula.f32(self, x)
    }

    #[inline(always)]
    fn function_of_one(self, formula: impl Formula, x: f32) -> f32 {
        formula.f32(One, x)
    }

    memory_ops! {
        4 of f32 as float32x4_t;
        load: |from| vld1q_f32(from);
        store: |to, x| vst1q_f32(to, x);
    }
}

impl Lanes<f64> for Neon {
    const LANES: usize = 2;
    type Stored = float64x2_t;
    type Wide = float64x2_t;

    value_ops! {
        fn splat_stored(self, x: f64) -> float64x2_t { vdupq_n_f64(x) }
        fn splat_wide(self, x: f64) -> float64x2_t { vdupq_n_f64(x) }
        fn widen(self, x: float64x2_t) -> float64x2_t { x }
        fn narrow(self, x: float64x2_t, _ties: bool) -> float64x2_t { x }
        fn times(self, a: float64x2_t, b: float64x2_t) -> float64x2_t { vmulq_f64(a, b) }
        fn plus(self, a: float64x2_t, b: float64x2_t) -> float64x2_t { vaddq_f64(a, b) }
        fn keep(self, x: float64x2_t, bits: u64, at: usize) -> float64x2_t {
            vreinterpretq_f64_u64(vandq_u64(vreinterpretq_u64_f64(x), spread_64(bits, at)))
        }
        fn select(
            self,
            bits: u64,
            at: usize,
            kept: float64x2_t,
            dropped: float64x2_t
        ) -> float64x2_t {
            vbslq_f64(spread_64(bits, at), kept, dropped)
        }
        fn not_at_most_zero(self, x: float64x2_t, at: usize) -> u64 {
            vaddvq_u64(vbicq_u64(own_64(), vclezq_f64(x))) << at
        }
    }

    #[inline(always)]
    fn function(self, formula: impl Formula, x: float64x2_t) -> float64x2_t {
        one_by_one(self, formula, x)
    }

    #[inline(always)]
    fn function_of_one(self, formula: impl Formula, x: f64) -> f64 {
        formula.f64(x)
    }

    memory_ops! {
        2 of f64 as float64x2_t;
        load: |from| vld1q_f64(from);
        store: |to, x| vst1q_f64(to, x);
    }
}

/// bf16 is the upper half of an f32, so widening is a shift and rounding an addition.
impl Lanes<bf16> for Neon {
    const LANES: usize = 8;
    type Stored = uint16x8_t;
    /// The lower half of the elements and the upper one.
    type Wide = [float32x4_t; 2];

    value_ops! {
        fn splat_stored(self, x: bf16) -> uint16x8_t { vdupq_n_u16(x.to_bits()) }
        fn splat_wide(self, x: f32) -> [float32x4_t; 2] { [vdupq_n_f32(x); 2] }
        fn widen(self, x: uint16x8_t) -> [float32x4_t; 2] {
            [
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(x))),
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_high_u16(x))),
            ]
        }
        fn narrow(self, x: [float32x4_t; 2], _ties: bool) -> uint16x8_t {
            let [low, high] = [round_to_bf16(x[0]), round_to_bf16(x[1])];
            vcombine_u16(vshrn_n_u32::<16>(low), vshrn_n_u32::<16>(high))
        }
        fn times(self, a: [float32x4_t; 2], b: [float32x4_t; 2]) -> [float32x4_t; 2] {
            [vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1])]
        }
        fn plus(self, a: [float32x4_t; 2], b: [float32x4_t; 2]) -> [float32x4_t; 2] {
            [vaddq_f32(a[0], b[0]), vaddq_f32(a[1], b[1])]
        }
        fn keep(self, x: uint16x8_t, bits: u64, at: usize) -> uint16x8_t {
            vandq_u16(x, spread_16(bits, at))
        }
        fn select(
            self,
            bits: u64,
            at: usize,
            kept: uint16x8_t,
            dropped: uint16x8_t
        ) -> uint16x8_t {
            vbslq_u16(spread_16(bits, at), kept, dropped)
        }
        // As integers: what is negative and no NaN is at most minus infinity.
        fn not_at_most_zero(self, x: uint16x8_t, at: usize) -> u64 {
            let negative = vdupq_n_s16(bf16::NEG_INFINITY.to_bits().cast_signed());
            let others = vcgtq_s16(vreinterpretq_s16_u16(x), negative);
            let lanes = vandq_u16(others, vtstq_u16(x, x));
            u64::from(vaddvq_u16(vandq_u16(own_16(), lanes))) << at
        }
    }

    #[inline(always)]
    fn function(self, formula: impl Formula, x: [float32x4_t; 2]) -> [float32x4_t; 2] {
        [formula.f32(self, x[0]), formula.f32(self, x[1])]
    }

    #[inline(always)]
    fn function_of_one(self, formula: impl Formula, x: f32) -> f32 {
        formula.f32(One, x)
    }

    memory_ops! {
        8 of bf16 as uint16x8_t;
        load: |from| vld1q_u16(from.cast());
        store: |to, x| vst1q_u16(to.cast(), x);
    }
}

functions! {
    /// Rounds to bf16, ties to even, in the upper half of each lane; the lower half is left dirty.
    ///
    /// See the AVX-512 one for why this is right for NaN and infinity.
    fn round_to_bf16(x: float32x4_t) -> uint32x4_t {
        let x = vreinterpretq_u32_f32(x);
        let odd = vandq_u32(vshrq_n_u32::<16>(x), vdupq_n_u32(1));
        vaddq_u32(vaddq_u32(x, vdupq_n_u32(0x7FFF)), odd)
    }
}

// Rust's intrinsics for the conversion of f16 are not stable at our MSRV.
half_lanes!(
    Neon,
    f16,
    widen: |from, wide| from.convert_to_f32_slice(&mut wide),
    narrow: |x, to| to.convert_from_f32_slice(&x)
);

impl Doubles<f32> for Neon {
    #[inline(always)]
    fn doubles(self, x: &[f32; GROUP], at: usize) -> float64x2_t {
        check_inside(at, 2);
        // SAFETY: `check_inside` put the two elements inside the array; `self` exists only because
        // `detect` saw the feature.
        unsafe { vcvt_f64_f32(vld1_f32(x.as_ptr().add(at))) }
    }
}

full_rows!(Neon);

half_rows!(
    Neon,
    bf16,
    widen: |simd, from, wide| for at in (0..GROUP).step_by(8) {
        let [low, high] = Lanes::<bf16>::widen(simd, Lanes::<bf16>::load(simd, from, at));
        Lanes::<f32>::store(simd, low, wide, at);
        Lanes::<f32>::store(simd, high, wide, at + 4);
    },
    narrow: |simd, x, to| for at in (0..GROUP).step_by(8) {
        let low = simd.with_plain_nans(Lanes::<f32>::load(simd, x, at));
        let high = simd.with_plain_nans(Lanes::<f32>::load(simd, x, at + 4));
        let y = Lanes::<bf16>::narrow(simd, [low, high], true);
        Lanes::<bf16>::store(simd, y, to, at);
    }
);

half_rows!(
    Neon,
    f16,
    widen: |_simd, from, wide| from.convert_to_f32_slice(wide),
    narrow: |_simd, x, to| to.convert_from_f32_slice(x)
);

impl Neon {
    value_ops! {
        /// The same numbers, and for each NaN the plain one, whose lower half is zero.
        fn with_plain_nans(self, x: float32x4_t) -> float32x4_t {
            vbslq_f32(vceqq_f32(x, x), x, vdupq_n_f32(f32::NAN))
        }
    }
}
