//! AVX2: the eight lanes of a mask are two registers, and keep bits are spread over lanes.

use core::arch::x86_64::*;

use half::{bf16, f16};

use crate::simd::bf16_scale::Bf16Scale;
use crate::simd::{GROUP, Kernel, Lanes, Simd, Streaming, memory_ops, token, value_ops};

token!(
    /// AVX2 with F16C (half precision conversion): every x86-64 CPU since Haswell and Excavator.
    Avx2, detected by is_x86_feature_detected, "avx2", "f16c"
);

impl Streaming for Avx2 {
    value_ops! {
        fn fence(self) -> () { _mm_sfence() }
    }
}

impl Simd for Avx2 {
    const NAME: &'static str = "avx2";
    const TILES: usize = 1;
    type Words = [__m256i; 2];

    #[inline(always)]
    fn vectorize(self, kernel: impl Kernel<Self>) {
        // SAFETY: `self` exists only because `detect` saw the features that `run` enables.
        unsafe { self.run(kernel) }
    }

    #[inline(always)]
    fn load_words(self, words: &[u64; 8]) -> [__m256i; 2] {
        let words = words.as_ptr().cast::<__m256i>();
        // SAFETY: the array is twice 32 readable bytes and the loads need no alignment; `detect`
        // saw the feature.
        unsafe { [_mm256_loadu_si256(words), _mm256_loadu_si256(words.add(1))] }
    }

    #[inline(always)]
    fn store_words(self, [a, b]: [__m256i; 2], words: &mut [u64; 8]) {
        let words = words.as_mut_ptr().cast::<__m256i>();
        // SAFETY: the array is twice 32 writable bytes and the stores need no alignment; `detect`
        // saw the feature.
        unsafe {
            _mm256_storeu_si256(words, a);
            _mm256_storeu_si256(words.add(1), b);
        }
    }

    #[inline(always)]
    fn rotate(self, a: [__m256i; 2], n: u32) -> [__m256i; 2] {
        self.or(self.shl(a, n), self.shr(a, 64 - n))
    }

    value_ops! {
        fn splat(self, word: u64) -> [__m256i; 2] { [_mm256_set1_epi64x(word.cast_signed()); 2] }
        fn add(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
            [_mm256_add_epi64(a[0], b[0]), _mm256_add_epi64(a[1], b[1])]
        }
        fn sub(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
            [_mm256_sub_epi64(a[0], b[0]), _mm256_sub_epi64(a[1], b[1])]
        }
        fn and(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
            [_mm256_and_si256(a[0], b[0]), _mm256_and_si256(a[1], b[1])]
        }
        fn and_not(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
            [_mm256_andnot_si256(b[0], a[0]), _mm256_andnot_si256(b[1], a[1])]
        }
        fn or(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
            [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])]
        }
        fn xor(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
            [_mm256_xor_si256(a[0], b[0]), _mm256_xor_si256(a[1], b[1])]
        }
        fn shl(self, a: [__m256i; 2], n: u32) -> [__m256i; 2] {
            let n = _mm_cvtsi32_si128(n.cast_signed());
            [_mm256_sll_epi64(a[0], n), _mm256_sll_epi64(a[1], n)]
        }
        fn shr(self, a: [__m256i; 2], n: u32) -> [__m256i; 2] {
            let n = _mm_cvtsi32_si128(n.cast_signed());
            [_mm256_srl_epi64(a[0], n), _mm256_srl_epi64(a[1], n)]
        }
        fn mul_low_halves(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
            [_mm256_mul_epu32(a[0], b[0]), _mm256_mul_epu32(a[1], b[1])]
        }
        fn where_less(self, a: [__m256i; 2], b: [__m256i; 2], bits: [__m256i; 2]) -> [__m256i; 2] {
            // The comparison is signed: flipping the top bits turns the unsigned order into it.
            let top = self.splat(1 << 63);
            let ([a0, a1], [b0, b1]) = (self.xor(a, top), self.xor(b, top));
            self.and([_mm256_cmpgt_epi64(b0, a0), _mm256_cmpgt_epi64(b1, a1)], bits)
        }
        fn all_zero(self, a: [__m256i; 2]) -> bool {
            let any = _mm256_or_si256(a[0], a[1]);
            _mm256_testz_si256(any, any) == 1
        }
    }
}

/// All ones in the 32-bit lanes whose bit is set in bits `at` to `at + 7` of `bits`.
#[inline]
#[target_feature(enable = "avx2")]
fn spread_32(bits: u64, at: usize) -> __m256i {
    spread(bits, at, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
}

/// All ones in the 64-bit lanes whose bit is set in bits `at` to `at + 3` of `bits`: both halves of
/// a lane look at its bit.
#[inline]
#[target_feature(enable = "avx2")]
fn spread_64(bits: u64, at: usize) -> __m256i {
    spread(bits, at, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3))
}

/// All ones in the 32-bit lanes whose bit, `own` bits after bit `at` of `bits`, is set.
///
/// The half of the word that holds the bits goes to every lane, and each lane looks at its own bit;
/// `at` being a constant, the bit patterns are constants too.
#[inline]
#[target_feature(enable = "avx2")]
fn spread(bits: u64, at: usize, own: __m256i) -> __m256i {
    let half = (bits >> (at / 32 * 32)) as u32;
    let own = _mm256_sllv_epi32(_mm256_set1_epi32(1 << (at % 32)), own);
    _mm256_cmpeq_epi32(
        _mm256_and_si256(_mm256_set1_epi32(half.cast_signed()), own),
        own,
    )
}

/// All ones in the 16-bit lanes whose bit is set in bits `at` to `at + 15` of `bits`.
#[inline]
#[target_feature(enable = "avx2")]
fn spread_16(bits: u64, at: usize) -> __m256i {
    #[rustfmt::skip]
    let own = _mm256_setr_epi16(
        1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5, 1 << 6, 1 << 7,
        1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, i16::MIN,
    );
    let quarter = _mm256_set1_epi16((bits >> at) as u16 as i16);
    _mm256_cmpeq_epi16(_mm256_and_si256(quarter, own), own)
}

impl Lanes<f32> for Avx2 {
    const LANES: usize = 8;
    type Vector = __m256;
    type Scale = __m256;

    value_ops! {
        fn splat_scale(self, scale: f32) -> __m256 { _mm256_set1_ps(scale) }
        fn times(self, x: __m256, scale: __m256) -> __m256 { _mm256_mul_ps(x, scale) }
        fn keep(self, x: __m256, bits: u64, at: usize) -> __m256 {
            _mm256_and_ps(x, _mm256_castsi256_ps(spread_32(bits, at)))
        }
    }

    memory_ops! {
        8 of f32 as __m256;
        load: |from| _mm256_loadu_ps(from);
        store: |to, x| _mm256_storeu_ps(to, x);
        stream: |to, x| _mm256_stream_ps(to, x);
    }
}

impl Lanes<f64> for Avx2 {
    const LANES: usize = 4;
    type Vector = __m256d;
    type Scale = __m256d;

    value_ops! {
        fn splat_scale(self, scale: f64) -> __m256d { _mm256_set1_pd(scale) }
        fn times(self, x: __m256d, scale: __m256d) -> __m256d { _mm256_mul_pd(x, scale) }
        fn keep(self, x: __m256d, bits: u64, at: usize) -> __m256d {
            _mm256_and_pd(x, _mm256_castsi256_pd(spread_64(bits, at)))
        }
    }

    memory_ops! {
        4 of f64 as __m256d;
        load: |from| _mm256_loadu_pd(from);
        store: |to, x| _mm256_storeu_pd(to, x);
        stream: |to, x| _mm256_stream_pd(to, x);
    }
}

/// bf16 is the upper half of an f32, so a register of 16 is two of 8 f32 without any shuffle: the
/// odd elements as they are, with the lower half cleared, and the even ones shifted up.
impl Lanes<bf16> for Avx2 {
    const LANES: usize = 16;
    type Vector = __m256i;
    type Scale = Bf16Scale<__m256>;

    value_ops! {
        fn splat_scale(self, scale: f32) -> Bf16Scale<__m256> {
            Bf16Scale::new(scale, _mm256_set1_ps(scale))
        }
        fn times(self, x: __m256i, scale: Bf16Scale<__m256>) -> __m256i {
            let upper = _mm256_set1_epi32(0xFFFF_0000_u32.cast_signed());
            let even = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(x));
            let odd = _mm256_castsi256_ps(_mm256_and_si256(x, upper));
            let even = round_to_bf16(_mm256_mul_ps(even, scale.lanes), scale.ties);
            let odd = round_to_bf16(_mm256_mul_ps(odd, scale.lanes), scale.ties);
            _mm256_blend_epi16::<0xAA>(_mm256_srli_epi32::<16>(even), odd)
        }
        fn keep(self, x: __m256i, bits: u64, at: usize) -> __m256i {
            _mm256_and_si256(x, spread_16(bits, at))
        }
    }

    memory_ops! {
        16 of bf16 as __m256i;
        load: |from| _mm256_loadu_si256(from.cast());
        store: |to, x| _mm256_storeu_si256(to.cast(), x);
        stream: |to, x| _mm256_stream_si256(to.cast(), x);
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
#[target_feature(enable = "avx2")]
fn round_to_bf16(x: __m256, ties: bool) -> __m256i {
    let x = _mm256_castps_si256(x);
    if !ties {
        return _mm256_add_epi32(x, _mm256_set1_epi32(0x8000));
    }
    let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(x), _mm256_set1_epi32(1));
    _mm256_add_epi32(_mm256_add_epi32(x, _mm256_set1_epi32(0x7FFF)), odd)
}

#[inline]
#[target_feature(enable = "avx,f16c")]
fn round_to_f16(x: __m256) -> __m128i {
    _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x)
}

impl Lanes<f16> for Avx2 {
    const LANES: usize = 8;
    type Vector = __m256;
    type Scale = __m256;

    value_ops! {
        fn splat_scale(self, scale: f32) -> __m256 { _mm256_set1_ps(scale) }
        fn times(self, x: __m256, scale: __m256) -> __m256 { _mm256_mul_ps(x, scale) }
        fn keep(self, x: __m256, bits: u64, at: usize) -> __m256 {
            _mm256_and_ps(x, _mm256_castsi256_ps(spread_32(bits, at)))
        }
    }

    memory_ops! {
        8 of f16 as __m256;
        load: |from| _mm256_cvtph_ps(_mm_loadu_si128(from.cast()));
        store: |to, x| _mm_storeu_si128(to.cast(), round_to_f16(x));
        stream: |to, x| _mm_stream_si128(to.cast(), round_to_f16(x));
    }
}
