//! AVX-512: the eight lanes of a mask are one register, and keep bits are mask registers.

use core::arch::x86_64::*;

use half::{bf16, f16};

use crate::simd::bf16_scale::Bf16Scale;
use crate::simd::{GROUP, Kernel, Lanes, Simd, Streaming, memory_ops, token, value_ops};

token!(
    /// AVX-512 with the foundation, byte and word, doubleword and quadword, and vector length
    /// extensions: every server CPU since Skylake-SP and Zen 4.
    Avx512, detected by is_x86_feature_detected, "avx512f", "avx512bw", "avx512dq", "avx512vl"
);

impl Streaming for Avx512 {
    value_ops! {
        fn fence(self) -> () { _mm_sfence() }
    }
}

impl Simd for Avx512 {
    const NAME: &'static str = "avx512";
    const TILES: usize = 2;
    type Words = __m512i;

    #[inline(always)]
    fn vectorize(self, kernel: impl Kernel<Self>) {
        // SAFETY: `self` exists only because `detect` saw the features that `run` enables.
        unsafe { self.run(kernel) }
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
        fn where_less(self, a: __m512i, b: __m512i, bits: __m512i) -> __m512i {
            _mm512_maskz_mov_epi64(_mm512_cmplt_epu64_mask(a, b), bits)
        }
        fn all_zero(self, a: __m512i) -> bool { _mm512_test_epi64_mask(a, a) == 0 }
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

impl Lanes<f32> for Avx512 {
    const LANES: usize = 16;
    type Vector = __m512;
    type Scale = __m512;

    value_ops! {
        fn splat_scale(self, scale: f32) -> __m512 { _mm512_set1_ps(scale) }
        fn times(self, x: __m512, scale: __m512) -> __m512 { _mm512_mul_ps(x, scale) }
        fn keep(self, x: __m512, bits: u64, at: usize) -> __m512 {
            _mm512_maskz_mov_ps((bits >> at) as __mmask16, x)
        }
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
    type Vector = __m512d;
    type Scale = __m512d;

    value_ops! {
        fn splat_scale(self, scale: f64) -> __m512d { _mm512_set1_pd(scale) }
        fn times(self, x: __m512d, scale: __m512d) -> __m512d { _mm512_mul_pd(x, scale) }
        fn keep(self, x: __m512d, bits: u64, at: usize) -> __m512d {
            _mm512_maskz_mov_pd((bits >> at) as __mmask8, x)
        }
    }

    memory_ops! {
        8 of f64 as __m512d;
        load: |from| _mm512_castps_pd(load_ps(from.cast()));
        store: |to, x| _mm512_storeu_pd(to, x);
        stream: |to, x| stream_ps(to.cast(), _mm512_castpd_ps(x));
    }
}

/// bf16 is the upper half of an f32, so a register of 32 is two of 16 f32 without any shuffle: the
/// odd elements as they are, with the lower half cleared, and the even ones shifted up.
impl Lanes<bf16> for Avx512 {
    const LANES: usize = 32;
    type Vector = __m512i;
    type Scale = Bf16Scale<__m512>;

    value_ops! {
        fn splat_scale(self, scale: f32) -> Bf16Scale<__m512> {
            Bf16Scale::new(scale, _mm512_set1_ps(scale))
        }
        fn times(self, x: __m512i, scale: Bf16Scale<__m512>) -> __m512i {
            let upper = _mm512_set1_epi32(0xFFFF_0000_u32.cast_signed());
            let even = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(x));
            let odd = _mm512_castsi512_ps(_mm512_and_si512(x, upper));
            let even = round_to_bf16(_mm512_mul_ps(even, scale.lanes), scale.ties);
            let odd = round_to_bf16(_mm512_mul_ps(odd, scale.lanes), scale.ties);
            _mm512_mask_mov_epi16(_mm512_srli_epi32::<16>(even), 0xAAAA_AAAA, odd)
        }
        fn keep(self, x: __m512i, bits: u64, at: usize) -> __m512i {
            _mm512_maskz_mov_epi16((bits >> at) as __mmask32, x)
        }
    }

    memory_ops! {
        32 of bf16 as __m512i;
        load: |from| _mm512_loadu_si512(from.cast());
        store: |to, x| _mm512_storeu_si512(to.cast(), x);
        stream: |to, x| stream_ps(to.cast(), _mm512_castsi512_ps(x));
    }
}

/// Rounds to bf16, ties to even where there can be any, in the upper half of each lane; the lower
/// half is left dirty.
///
/// Adding 0x8000 carries into the upper half when the lower half is the middle or more. Where ties
/// have to go to even, it is 0x7FFF, or 0x8000 where the upper half is odd. A NaN or an infinity
/// that came from a bf16 by a multiplication has a zero lower half, so nothing carries and it stays
/// what it is.
#[inline]
#[target_feature(enable = "avx512f")]
fn round_to_bf16(x: __m512, ties: bool) -> __m512i {
    let x = _mm512_castps_si512(x);
    if !ties {
        return _mm512_add_epi32(x, _mm512_set1_epi32(0x8000));
    }
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(x), _mm512_set1_epi32(1));
    _mm512_add_epi32(_mm512_add_epi32(x, _mm512_set1_epi32(0x7FFF)), odd)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn round_to_f16(x: __m512) -> __m256i {
    _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x)
}

impl Lanes<f16> for Avx512 {
    const LANES: usize = 16;
    type Vector = __m512;
    type Scale = __m512;

    value_ops! {
        fn splat_scale(self, scale: f32) -> __m512 { _mm512_set1_ps(scale) }
        fn times(self, x: __m512, scale: __m512) -> __m512 { _mm512_mul_ps(x, scale) }
        fn keep(self, x: __m512, bits: u64, at: usize) -> __m512 {
            _mm512_maskz_mov_ps((bits >> at) as __mmask16, x)
        }
    }

    memory_ops! {
        16 of f16 as __m512;
        load: |from| _mm512_cvtph_ps(_mm256_loadu_si256(from.cast()));
        store: |to, x| _mm256_storeu_si256(to.cast(), round_to_f16(x));
        stream: |to, x| _mm256_stream_si256(to.cast(), round_to_f16(x));
    }
}
