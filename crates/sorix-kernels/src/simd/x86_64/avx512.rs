//! AVX-512: the eight lanes of a mask are one register, and keep bits are mask registers.

use core::arch::x86_64::*;

use half::{bf16, f16};

use crate::simd::bf16_scale;
use crate::simd::floats::{One, SIGN, UPPER_HALF, one_by_one};
use crate::simd::row_lanes::{full_rows, half_rows};
use crate::simd::{
    Doubles, Floats, Formula, GROUP, Kernel, Lanes, Simd, Streaming, check_inside, memory_ops,
    token,
};

token!(
    ($)
    /// AVX-512 with the foundation, byte and word, doubleword and quadword, and vector length
    /// extensions: every server CPU since Skylake-SP and Zen 4.
    Avx512, detected by is_x86_feature_detected, "avx512f", "avx512bw", "avx512dq", "avx512vl"
);

impl Streaming for Avx512 {
    #[inline(always)]
    fn prefetch_write<T>(self, y: &mut [T; GROUP]) {
        super::prefetch_write(y);
    }

    value_ops! {
        fn fence(self) -> () { _mm_sfence() }
    }
}

impl Simd for Avx512 {
    const NAME: &'static str = "avx512";
    type Words = __m512i;
    type Bytes = __mmask64;

    #[inline(always)]
    fn vectorize(self, kernel: impl Kernel<Self>) {
        self.run(kernel);
    }

    #[inline(always)]
    fn load_words(self, words: &[u64; 8]) -> __m512i {
        // SAFETY: the array is 64 readable bytes and the load needs no alignment; `detect` saw the
        // feature.
        unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store_words(self, a: __m512i, words: &mut [u64; 8]) {
        // SAFETY: the array is 64 writable bytes and the store needs no alignment; `detect` saw the
        // feature.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), a) }
    }

    value_ops! {
        fn splat(self, word: u64) -> __m512i { _mm512_set1_epi64(word.cast_signed()) }
        fn add(self, a: __m512i, b: __m512i) -> __m512i { _mm512_add_epi64(a, b) }
        fn sub(self, a: __m512i, b: __m512i) -> __m512i { _mm512_sub_epi64(a, b) }
        fn and(self, a: __m512i, b: __m512i) -> __m512i { _mm512_and_si512(a, b) }
        fn and_not(self, a: __m512i, b: __m512i) -> __m512i { _mm512_andnot_si512(b, a) }
        fn or(self, a: __m512i, b: __m512i) -> __m512i { _mm512_or_si512(a, b) }
        fn xor(self, a: __m512i, b: __m512i) -> __m512i { _mm512_xor_si512(a, b) }
        fn xor3(self, a: __m512i, b: __m512i, c: __m512i) -> __m512i {
            _mm512_ternarylogic_epi64::<0b1001_0110>(a, b, c)
        }
        fn or_and_not(self, a: __m512i, b: __m512i, c: __m512i) -> __m512i {
            // Bit `4 a + 2 b + c` of the constant is the result for these inputs.
            _mm512_ternarylogic_epi64::<0b1111_0100>(a, b, c)
        }
        fn shl(self, a: __m512i, n: u32) -> __m512i {
            _mm512_sll_epi64(a, _mm_cvtsi32_si128(n.cast_signed()))
        }
        fn shr(self, a: __m512i, n: u32) -> __m512i {
            _mm512_srl_epi64(a, _mm_cvtsi32_si128(n.cast_signed()))
        }
        fn rotate(self, a: __m512i, n: u32) -> __m512i {
            _mm512_rolv_epi64(a, _mm512_set1_epi64(i64::from(n)))
        }
        fn mul_low_halves(self, a: __m512i, b: __m512i) -> __m512i { _mm512_mul_epu32(a, b) }
        fn look_up(self, table: __m512i, index: __m512i) -> __m512i {
            _mm512_shuffle_epi8(table, index)
        }
        fn bytes_less(self, a: __m512i, b: __m512i) -> __mmask64 { _mm512_cmplt_epu8_mask(a, b) }
        fn bytes_equal(self, a: __m512i, b: __m512i) -> __mmask64 { _mm512_cmpeq_epu8_mask(a, b) }
        fn both(self, a: __mmask64, b: __mmask64) -> __mmask64 { a & b }
        fn either(self, a: __mmask64, b: __mmask64) -> __mmask64 { a | b }
        fn any(self, a: __mmask64) -> bool { a != 0 }
        fn select_bytes(self, which: __mmask64, yes: __m512i, no: __m512i) -> __m512i {
            _mm512_mask_mov_epi8(no, which, yes)
        }
    }
}

/// Loads 64 bytes, in an instruction of its own.
///
/// Written with the intrinsic, the load becomes the memory operand of the masked multiplication
/// after it. On Zen 5 the prefetchers do not see loads under a mask: beyond the caches a pass then
/// takes 1.3 to 1.5 copies, and 0.7 with the load apart.
///
/// # Safety
///
/// `x` must point to 64 readable bytes.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load_ps(x: *const f32) -> __m512 {
    let loaded;
    // SAFETY: the caller vouches for the bytes; no alignment is needed.
    unsafe {
        core::arch::asm!(
            "vmovups {loaded}, zmmword ptr [{x}]",
            loaded = lateout(zmm_reg) loaded,
            x = in(reg) x,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    loaded
}

/// Stores 64 bytes around the cache, as two halves.
///
/// # Safety
///
/// `to` must point to 64 writable bytes, aligned to 32.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
unsafe fn stream_ps(to: *mut f32, x: __m512) {
    // SAFETY: the caller vouches for the bytes and their alignment.
    unsafe {
        _mm256_stream_ps(to, _mm512_castps512_ps256(x));
        _mm256_stream_ps(to.add(8), _mm512_extractf32x8_ps::<1>(x));
    }
}

impl Floats for Avx512 {
    type Vector = __m512;

    value_ops! {
        fn splat(self, x: f32) -> __m512 { _mm512_set1_ps(x) }
        fn plus(self, a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn minus(self, a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn times(self, a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn over(self, a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        // The instructions give the second operand unless the comparison holds.
        fn greater(self, a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn lesser(self, a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        fn select_less(self, a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
            _mm512_mask_mov_ps(no, _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), yes)
        }
        fn magnitude(self, x: __m512) -> __m512 { _mm512_abs_ps(x) }
        fn with_sign(self, x: __m512, sign: __m512) -> __m512 {
            // Bit `4 a + 2 b + c` of the constant is the result for these bits: `a & b | c`.
            _mm512_castsi512_ps(_mm512_ternarylogic_epi32::<0b1110_1010>(
                _mm512_castps_si512(sign),
                _mm512_set1_epi32(SIGN.cast_signed()),
                _mm512_castps_si512(x),
            ))
        }
        fn upper_half(self, x: __m512) -> __m512 {
            let bits = _mm512_set1_epi32(UPPER_HALF.cast_signed());
            _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x), bits))
        }
        fn power(self, n: __m512) -> __m512 { _mm512_scalef_ps(_mm512_set1_ps(1.0), n) }
        // One instruction, which rounds once.
        fn times_power(self, x: __m512, n: __m512) -> __m512 { _mm512_scalef_ps(x, n) }
    }
}

impl Lanes<f32> for Avx512 {
    const LANES: usize = 16;
    type Stored = __m512;
    type Wide = __m512;

    value_ops! {
        fn splat_stored(self, x: f32) -> __m512 { _mm512_set1_ps(x) }
        fn splat_wide(self, x: f32) -> __m512 { _mm512_set1_ps(x) }
        fn widen(self, x: __m512) -> __m512 { x }
        fn narrow(self, x: __m512, _ties: bool) -> __m512 { x }
        fn times(self, a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn plus(self, a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn keep(self, x: __m512, bits: u64, at: usize) -> __m512 {
            _mm512_maskz_mov_ps((bits >> at) as __mmask16, x)
        }
        fn select(self, bits: u64, at: usize, kept: __m512, dropped: __m512) -> __m512 {
            _mm512_mask_mov_ps(dropped, (bits >> at) as __mmask16, kept)
        }
        fn not_at_most_zero(self, x: __m512, at: usize) -> u64 {
            u64::from(_mm512_cmp_ps_mask::<_CMP_NLE_UQ>(x, _mm512_setzero_ps())) << at
        }
    }

    #[inline(always)]
    fn function(self, formula: impl Formula, x: __m512) -> __m512 {
        formula.f32(self, x)
    }

    #[inline(always)]
    fn function_of_one(self, formula: impl Formula, x: f32) -> f32 {
        formula.f32(One, x)
    }

    memory_ops! {
        16 of f32 as __m512;
        load: |from| load_ps(from);
        store: |to, x| _mm512_storeu_ps(to, x);
        stream: |to, x| stream_ps(to, x);
    }
}

impl Lanes<f64> for Avx512 {
    const LANES: usize = 8;
    type Stored = __m512d;
    type Wide = __m512d;

    value_ops! {
        fn splat_stored(self, x: f64) -> __m512d { _mm512_set1_pd(x) }
        fn splat_wide(self, x: f64) -> __m512d { _mm512_set1_pd(x) }
        fn widen(self, x: __m512d) -> __m512d { x }
        fn narrow(self, x: __m512d, _ties: bool) -> __m512d { x }
        fn times(self, a: __m512d, b: __m512d) -> __m512d { _mm512_mul_pd(a, b) }
        fn plus(self, a: __m512d, b: __m512d) -> __m512d { _mm512_add_pd(a, b) }
        fn keep(self, x: __m512d, bits: u64, at: usize) -> __m512d {
            _mm512_maskz_mov_pd((bits >> at) as __mmask8, x)
        }
        fn select(self, bits: u64, at: usize, kept: __m512d, dropped: __m512d) -> __m512d {
            _mm512_mask_mov_pd(dropped, (bits >> at) as __mmask8, kept)
        }
        fn not_at_most_zero(self, x: __m512d, at: usize) -> u64 {
            u64::from(_mm512_cmp_pd_mask::<_CMP_NLE_UQ>(x, _mm512_setzero_pd())) << at
        }
    }

    #[inline(always)]
    fn function(self, formula: impl Formula, x: __m512d) -> __m512d {
        one_by_one(self, formula, x)
    }

    #[inline(always)]
    fn function_of_one(self, formula: impl Formula, x: f64) -> f64 {
        formula.f64(x)
    }

    memory_ops! {
        8 of f64 as __m512d;
        load: |from| _mm512_castps_pd(load_ps(from.cast()));
        store: |to, x| _mm512_storeu_pd(to, x);
        stream: |to, x| stream_ps(to.cast(), _mm512_castpd_ps(x));
    }
}

/// bf16 is the upper half of an f32, so a register of 32 is two of 16 f32 without any shuffle: the
/// even ones shifted up, and the odd elements as they are, with the lower half cleared.
impl Lanes<bf16> for Avx512 {
    const LANES: usize = 32;
    type Stored = __m512i;
    /// The even elements and the odd ones.
    type Wide = [__m512; 2];

    value_ops! {
        fn splat_stored(self, x: bf16) -> __m512i {
            _mm512_set1_epi16(x.to_bits().cast_signed())
        }
        fn splat_wide(self, x: f32) -> [__m512; 2] { [_mm512_set1_ps(x); 2] }
        fn widen(self, x: __m512i) -> [__m512; 2] {
            let upper = _mm512_set1_epi32(0xFFFF_0000_u32.cast_signed());
            [
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(x)),
                _mm512_castsi512_ps(_mm512_and_si512(x, upper)),
            ]
        }
        fn narrow(self, x: [__m512; 2], ties: bool) -> __m512i {
            let [even, odd] = [round_to_bf16(x[0], ties), round_to_bf16(x[1], ties)];
            _mm512_mask_mov_epi16(_mm512_srli_epi32::<16>(even), 0xAAAA_AAAA, odd)
        }
        fn times(self, a: [__m512; 2], b: [__m512; 2]) -> [__m512; 2] {
            [_mm512_mul_ps(a[0], b[0]), _mm512_mul_ps(a[1], b[1])]
        }
        fn plus(self, a: [__m512; 2], b: [__m512; 2]) -> [__m512; 2] {
            [_mm512_add_ps(a[0], b[0]), _mm512_add_ps(a[1], b[1])]
        }
        fn keep(self, x: __m512i, bits: u64, at: usize) -> __m512i {
            _mm512_maskz_mov_epi16((bits >> at) as __mmask32, x)
        }
        fn select(self, bits: u64, at: usize, kept: __m512i, dropped: __m512i) -> __m512i {
            _mm512_mask_mov_epi16(dropped, (bits >> at) as __mmask32, kept)
        }
        // As integers: what is negative and no NaN is at most minus infinity.
        fn not_at_most_zero(self, x: __m512i, at: usize) -> u64 {
            let negative = _mm512_set1_epi16(bf16::NEG_INFINITY.to_bits().cast_signed());
            let others = _mm512_cmpgt_epi16_mask(x, negative);
            u64::from(_mm512_mask_test_epi16_mask(others, x, x)) << at
        }
    }

    #[inline(always)]
    fn can_tie(self, scale: f32) -> bool {
        bf16_scale::can_tie(scale)
    }

    #[inline(always)]
    fn function(self, formula: impl Formula, x: [__m512; 2]) -> [__m512; 2] {
        [formula.f32(self, x[0]), formula.f32(self, x[1])]
    }

    #[inline(always)]
    fn function_of_one(self, formula: impl Formula, x: f32) -> f32 {
        formula.f32(One, x)
    }

    memory_ops! {
        32 of bf16 as __m512i;
        load: |from| _mm512_loadu_si512(from.cast());
        store: |to, x| _mm512_storeu_si512(to.cast(), x);
        stream: |to, x| stream_ps(to.cast(), _mm512_castsi512_ps(x));
    }
}

functions! {
    /// Rounds to bf16, ties to even if there can be any, in the upper half of each lane; the lower
    /// half is left dirty.
    ///
    /// Adding 0x8000 carries into the upper half when the lower half is the middle or more. If ties
    /// have to go to even, it is 0x7FFF, or 0x8000 where the upper half is odd. A NaN or an infinity
    /// that was computed from bf16 has a zero lower half, so nothing carries and it stays what it
    /// is.
    fn round_to_bf16(x: __m512, ties: bool) -> __m512i {
        let x = _mm512_castps_si512(x);
        if !ties {
            return _mm512_add_epi32(x, _mm512_set1_epi32(0x8000));
        }
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(x), _mm512_set1_epi32(1));
        _mm512_add_epi32(_mm512_add_epi32(x, _mm512_set1_epi32(0x7FFF)), odd)
    }
}

impl Lanes<f16> for Avx512 {
    const LANES: usize = 16;
    type Stored = __m256i;
    type Wide = __m512;

    value_ops! {
        fn splat_stored(self, x: f16) -> __m256i { _mm256_set1_epi16(x.to_bits().cast_signed()) }
        fn splat_wide(self, x: f32) -> __m512 { _mm512_set1_ps(x) }
        fn widen(self, x: __m256i) -> __m512 { _mm512_cvtph_ps(x) }
        fn narrow(self, x: __m512, _ties: bool) -> __m256i {
            _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x)
        }
        fn times(self, a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn plus(self, a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn keep(self, x: __m256i, bits: u64, at: usize) -> __m256i {
            _mm256_maskz_mov_epi16((bits >> at) as __mmask16, x)
        }
        // The product is masked by the instruction that makes it, and rounding, the last step, goes
        // together with the store.
        fn narrow_kept(self, x: __m512, _ties: bool, bits: u64, at: usize) -> __m256i {
            let kept = _mm512_maskz_mov_ps((bits >> at) as __mmask16, x);
            _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(kept)
        }
        fn select(self, bits: u64, at: usize, kept: __m256i, dropped: __m256i) -> __m256i {
            _mm256_mask_mov_epi16(dropped, (bits >> at) as __mmask16, kept)
        }
        // As for bf16.
        fn not_at_most_zero(self, x: __m256i, at: usize) -> u64 {
            let negative = _mm256_set1_epi16(f16::NEG_INFINITY.to_bits().cast_signed());
            let others = _mm256_cmpgt_epi16_mask(x, negative);
            u64::from(_mm256_mask_test_epi16_mask(others, x, x)) << at
        }
    }

    #[inline(always)]
    fn function(self, formula: impl Formula, x: __m512) -> __m512 {
        formula.f32(self, x)
    }

    #[inline(always)]
    fn function_of_one(self, formula: impl Formula, x: f32) -> f32 {
        formula.f32(One, x)
    }

    memory_ops! {
        16 of f16 as __m256i;
        load: |from| _mm256_loadu_si256(from.cast());
        store: |to, x| _mm256_storeu_si256(to.cast(), x);
        stream: |to, x| _mm256_stream_si256(to.cast(), x);
    }
}

impl Doubles<f32> for Avx512 {
    #[inline(always)]
    fn doubles(self, x: &[f32; GROUP], at: usize) -> __m512d {
        check_inside(at, 8);
        // SAFETY: `check_inside` put the eight elements inside the array, and the load needs no
        // alignment; `self` exists only because `detect` saw the features.
        unsafe { _mm512_cvtps_pd(_mm256_loadu_ps(x.as_ptr().add(at))) }
    }
}

full_rows!(Avx512);

half_rows!(
    Avx512,
    bf16,
    widen: |simd, from, wide| for at in (0..GROUP).step_by(32) {
        let [low, high] = simd.halves_of_bf16(Lanes::<bf16>::load(simd, from, at));
        Lanes::<f32>::store(simd, low, wide, at);
        Lanes::<f32>::store(simd, high, wide, at + 16);
    },
    narrow: |simd, x, to| for at in (0..GROUP).step_by(32) {
        let low = Lanes::<f32>::load(simd, x, at);
        let high = Lanes::<f32>::load(simd, x, at + 16);
        Lanes::<bf16>::store(simd, simd.join_to_bf16(low, high), to, at);
    }
);

half_rows!(
    Avx512,
    f16,
    widen: |simd, from, wide| for at in (0..GROUP).step_by(16) {
        let x = Lanes::<f16>::widen(simd, Lanes::<f16>::load(simd, from, at));
        Lanes::<f32>::store(simd, x, wide, at);
    },
    narrow: |simd, x, to| for at in (0..GROUP).step_by(16) {
        let y = Lanes::<f16>::narrow(simd, Lanes::<f32>::load(simd, x, at), true);
        Lanes::<f16>::store(simd, y, to, at);
    }
);

impl Avx512 {
    value_ops! {
        /// The lower elements and the upper ones, in order.
        fn halves_of_bf16(self, x: __m512i) -> [__m512; 2] {
            [bf16_in_order(_mm512_castsi512_si256(x)), bf16_in_order(_mm512_extracti64x4_epi64::<1>(x))]
        }
        /// Rounds the lower elements and the upper ones, which are in order.
        fn join_to_bf16(self, low: __m512, high: __m512) -> __m512i {
            let [low, high] = [rounded_to_bf16(low), rounded_to_bf16(high)];
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
        }
    }
}

functions! {
    fn bf16_in_order(x: __m256i) -> __m512 {
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(x)))
    }

    /// Rounds to bf16, ties to even, in order. NaNs become the plain one, whose lower half is zero.
    fn rounded_to_bf16(x: __m512) -> __m256i {
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
        let x = _mm512_mask_mov_ps(x, nan, _mm512_set1_ps(f32::NAN));
        _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(round_to_bf16(x, true)))
    }
}
