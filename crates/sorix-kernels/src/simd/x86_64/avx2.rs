//! AVX2: the eight lanes of a mask are two registers, and keep bits are spread over lanes.

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
    /// AVX2 with F16C (half precision conversion): every x86-64 CPU since Haswell and Excavator.
    Avx2, detected by is_x86_feature_detected, "avx2", "f16c"
);

impl Streaming for Avx2 {
    #[inline(always)]
    fn prefetch_write<T>(self, y: &mut [T; GROUP]) {
        super::prefetch_write(y);
    }

    value_ops! {
        fn fence(self) -> () { _mm_sfence() }
    }
}

/// Eight 64-bit lanes, or 64 bytes.
type Words = [__m256i; 2];

impl Simd for Avx2 {
    const NAME: &'static str = "avx2";
    type Words = Words;
    type Bytes = Words;

    #[inline(always)]
    fn vectorize(self, kernel: impl Kernel<Self>) {
        self.run(kernel);
    }

    #[inline(always)]
    fn load_words(self, words: &[u64; 8]) -> Words {
        let words = words.as_ptr().cast::<__m256i>();
        // SAFETY: the array is twice 32 readable bytes and the loads need no alignment; `detect`
        // saw the feature.
        unsafe { [_mm256_loadu_si256(words), _mm256_loadu_si256(words.add(1))] }
    }

    #[inline(always)]
    fn store_words(self, [a, b]: Words, words: &mut [u64; 8]) {
        let words = words.as_mut_ptr().cast::<__m256i>();
        // SAFETY: the array is twice 32 writable bytes and the stores need no alignment; `detect`
        // saw the feature.
        unsafe {
            _mm256_storeu_si256(words, a);
            _mm256_storeu_si256(words.add(1), b);
        }
    }

    #[inline(always)]
    fn rotate(self, a: Words, n: u32) -> Words {
        self.or(self.shl(a, n), self.shr(a, 64 - n))
    }

    #[inline(always)]
    fn both(self, a: Words, b: Words) -> Words {
        self.and(a, b)
    }

    #[inline(always)]
    fn either(self, a: Words, b: Words) -> Words {
        self.or(a, b)
    }

    value_ops! {
        fn splat(self, word: u64) -> Words { [_mm256_set1_epi64x(word.cast_signed()); 2] }
        fn add(self, a: Words, b: Words) -> Words {
            [_mm256_add_epi64(a[0], b[0]), _mm256_add_epi64(a[1], b[1])]
        }
        fn sub(self, a: Words, b: Words) -> Words {
            [_mm256_sub_epi64(a[0], b[0]), _mm256_sub_epi64(a[1], b[1])]
        }
        fn and(self, a: Words, b: Words) -> Words {
            [_mm256_and_si256(a[0], b[0]), _mm256_and_si256(a[1], b[1])]
        }
        fn and_not(self, a: Words, b: Words) -> Words {
            [_mm256_andnot_si256(b[0], a[0]), _mm256_andnot_si256(b[1], a[1])]
        }
        fn or(self, a: Words, b: Words) -> Words {
            [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])]
        }
        fn xor(self, a: Words, b: Words) -> Words {
            [_mm256_xor_si256(a[0], b[0]), _mm256_xor_si256(a[1], b[1])]
        }
        fn shl(self, a: Words, n: u32) -> Words {
            let n = _mm_cvtsi32_si128(n.cast_signed());
            [_mm256_sll_epi64(a[0], n), _mm256_sll_epi64(a[1], n)]
        }
        fn shr(self, a: Words, n: u32) -> Words {
            let n = _mm_cvtsi32_si128(n.cast_signed());
            [_mm256_srl_epi64(a[0], n), _mm256_srl_epi64(a[1], n)]
        }
        fn mul_low_halves(self, a: Words, b: Words) -> Words {
            [_mm256_mul_epu32(a[0], b[0]), _mm256_mul_epu32(a[1], b[1])]
        }
        fn look_up(self, table: Words, index: Words) -> Words {
            [_mm256_shuffle_epi8(table[0], index[0]), _mm256_shuffle_epi8(table[1], index[1])]
        }
        fn bytes_less(self, a: Words, b: Words) -> Words {
            [less_bytes(a[0], b[0]), less_bytes(a[1], b[1])]
        }
        fn bytes_equal(self, a: Words, b: Words) -> Words {
            [_mm256_cmpeq_epi8(a[0], b[0]), _mm256_cmpeq_epi8(a[1], b[1])]
        }
        fn any(self, a: Words) -> bool {
            let any = _mm256_or_si256(a[0], a[1]);
            _mm256_testz_si256(any, any) == 0
        }
        fn select_bytes(self, which: Words, yes: Words, no: Words) -> Words {
            [
                _mm256_blendv_epi8(no[0], yes[0], which[0]),
                _mm256_blendv_epi8(no[1], yes[1], which[1]),
            ]
        }
    }
}

functions! {
    /// All ones in the bytes where `a < b`, unsigned: where the greater of `a` and `b` is not `a`.
    fn less_bytes(a: __m256i, b: __m256i) -> __m256i {
        let not_less = _mm256_cmpeq_epi8(_mm256_max_epu8(a, b), a);
        _mm256_andnot_si256(not_less, _mm256_set1_epi8(-1))
    }

    /// All ones in the 32-bit lanes whose bit is set in bits `at` to `at + 7` of `bits`.
    fn spread_32(bits: u64, at: usize) -> __m256i {
        spread(bits, at, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
    }

    /// All ones in the 64-bit lanes whose bit is set in bits `at` to `at + 3` of `bits`: both
    /// halves of a lane look at its bit.
    fn spread_64(bits: u64, at: usize) -> __m256i {
        spread(bits, at, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3))
    }

    /// All ones in the 32-bit lanes whose bit, `own` bits after bit `at` of `bits`, is set.
    ///
    /// The half of the word that holds the bits goes to every lane, and each lane looks at its own
    /// bit; `at` being a constant, the bit patterns are constants too.
    fn spread(bits: u64, at: usize, own: __m256i) -> __m256i {
        let half = (bits >> (at / 32 * 32)) as u32;
        let own = _mm256_sllv_epi32(_mm256_set1_epi32(1 << (at % 32)), own);
        let half = _mm256_set1_epi32(half.cast_signed());
        _mm256_cmpeq_epi32(_mm256_and_si256(half, own), own)
    }

    /// All ones in the 16-bit lanes whose bit is set in bits `at` to `at + 15` of `bits`.
    fn spread_16(bits: u64, at: usize) -> __m256i {
        #[rustfmt::skip]
        let own = _mm256_setr_epi16(
            1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5, 1 << 6, 1 << 7,
            1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, i16::MIN,
        );
        let quarter = _mm256_set1_epi16((bits >> at) as u16 as i16);
        _mm256_cmpeq_epi16(_mm256_and_si256(quarter, own), own)
    }

    /// The same for bits `at` to `at + 7`.
    fn spread_8_of_16(bits: u64, at: usize) -> __m128i {
        let own = _mm_setr_epi16(1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5, 1 << 6, 1 << 7);
        let eighth = _mm_set1_epi16((bits >> at) as u8 as i16);
        _mm_cmpeq_epi16(_mm_and_si128(eighth, own), own)
    }
}

impl Floats for Avx2 {
    type Vector = __m256;

    value_ops! {
        fn splat(self, x: f32) -> __m256 { _mm256_set1_ps(x) }
        fn plus(self, a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        fn minus(self, a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
        fn times(self, a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        fn over(self, a: __m256, b: __m256) -> __m256 { _mm256_div_ps(a, b) }
        // The instructions give the second operand unless the comparison holds.
        fn greater(self, a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) }
        fn lesser(self, a: __m256, b: __m256) -> __m256 { _mm256_min_ps(a, b) }
        fn select_less(self, a: __m256, b: __m256, yes: __m256, no: __m256) -> __m256 {
            _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b))
        }
        fn magnitude(self, x: __m256) -> __m256 { _mm256_andnot_ps(_mm256_set1_ps(-0.0), x) }
        fn with_sign(self, x: __m256, sign: __m256) -> __m256 {
            _mm256_or_ps(x, _mm256_and_ps(sign, of_bits(SIGN)))
        }
        fn upper_half(self, x: __m256) -> __m256 { _mm256_and_ps(x, of_bits(UPPER_HALF)) }
        fn power(self, n: __m256) -> __m256 { power_of_two(_mm256_cvtps_epi32(n)) }
        fn times_power(self, x: __m256, n: __m256) -> __m256 {
            let n = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(n);
            let rest = _mm256_sub_epi32(n, half);
            _mm256_mul_ps(_mm256_mul_ps(x, power_of_two(half)), power_of_two(rest))
        }
    }
}

functions! {
    /// These bits in every lane.
    fn of_bits(bits: u32) -> __m256 {
        _mm256_castsi256_ps(_mm256_set1_epi32(bits.cast_signed()))
    }

    /// 2^n for whole numbers from -126 to 127.
    fn power_of_two(n: __m256i) -> __m256 {
        let one = _mm256_set1_epi32(0x3F80_0000);
        _mm256_castsi256_ps(_mm256_add_epi32(_mm256_slli_epi32::<23>(n), one))
    }
}

impl Lanes<f32> for Avx2 {
    const LANES: usize = 8;
    type Stored = __m256;
    type Wide = __m256;

    value_ops! {
        fn splat_stored(self, x: f32) -> __m256 { _mm256_set1_ps(x) }
        fn splat_wide(self, x: f32) -> __m256 { _mm256_set1_ps(x) }
        fn widen(self, x: __m256) -> __m256 { x }
        fn narrow(self, x: __m256, _ties: bool) -> __m256 { x }
        fn times(self, a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        fn plus(self, a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        fn keep(self, x: __m256, bits: u64, at: usize) -> __m256 {
            _mm256_and_ps(x, _mm256_castsi256_ps(spread_32(bits, at)))
        }
        fn select(self, bits: u64, at: usize, kept: __m256, dropped: __m256) -> __m256 {
            _mm256_blendv_ps(dropped, kept, _mm256_castsi256_ps(spread_32(bits, at)))
        }
        fn not_at_most_zero(self, x: __m256, at: usize) -> u64 {
            let lanes = _mm256_cmp_ps::<_CMP_NLE_UQ>(x, _mm256_setzero_ps());
            u64::from(_mm256_movemask_ps(lanes).cast_unsigned()) << at
        }
    }

    #[inline(always)]
    fn function(self, formula: impl Formula, x: __m256) -> __m256 {
        formula.f32(self, x)
    }

    #[inline(always)]
    fn function_of_one(self, formula: impl Formula, x: f32) -> f32 {
        formula.f32(One, x)
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
    type Stored = __m256d;
    type Wide = __m256d;

    value_ops! {
        fn splat_stored(self, x: f64) -> __m256d { _mm256_set1_pd(x) }
        fn splat_wide(self, x: f64) -> __m256d { _mm256_set1_pd(x) }
        fn widen(self, x: __m256d) -> __m256d { x }
        fn narrow(self, x: __m256d, _ties: bool) -> __m256d { x }
        fn times(self, a: __m256d, b: __m256d) -> __m256d { _mm256_mul_pd(a, b) }
        fn plus(self, a: __m256d, b: __m256d) -> __m256d { _mm256_add_pd(a, b) }
        fn keep(self, x: __m256d, bits: u64, at: usize) -> __m256d {
            _mm256_and_pd(x, _mm256_castsi256_pd(spread_64(bits, at)))
        }
        fn select(self, bits: u64, at: usize, kept: __m256d, dropped: __m256d) -> __m256d {
            _mm256_blendv_pd(dropped, kept, _mm256_castsi256_pd(spread_64(bits, at)))
        }
        fn not_at_most_zero(self, x: __m256d, at: usize) -> u64 {
            let lanes = _mm256_cmp_pd::<_CMP_NLE_UQ>(x, _mm256_setzero_pd());
            u64::from(_mm256_movemask_pd(lanes).cast_unsigned()) << at
        }
    }

    #[inline(always)]
    fn function(self, formula: impl Formula, x: __m256d) -> __m256d {
        one_by_one(self, formula, x)
    }

    #[inline(always)]
    fn function_of_one(self, formula: impl Formula, x: f64) -> f64 {
        formula.f64(x)
    }

    memory_ops! {
        4 of f64 as __m256d;
        load: |from| _mm256_loadu_pd(from);
        store: |to, x| _mm256_storeu_pd(to, x);
        stream: |to, x| _mm256_stream_pd(to, x);
    }
}

/// bf16 is the upper half of an f32, so a register of 16 is two of 8 f32 without any shuffle: the
/// even ones shifted up, and the odd elements as they are, with the lower half cleared.
impl Lanes<bf16> for Avx2 {
    const LANES: usize = 16;
    type Stored = __m256i;
    /// The even elements and the odd ones.
    type Wide = [__m256; 2];

    value_ops! {
        fn splat_stored(self, x: bf16) -> __m256i {
            _mm256_set1_epi16(x.to_bits().cast_signed())
        }
        fn splat_wide(self, x: f32) -> [__m256; 2] { [_mm256_set1_ps(x); 2] }
        fn widen(self, x: __m256i) -> [__m256; 2] {
            let upper = _mm256_set1_epi32(0xFFFF_0000_u32.cast_signed());
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(x)),
                _mm256_castsi256_ps(_mm256_and_si256(x, upper)),
            ]
        }
        fn narrow(self, x: [__m256; 2], ties: bool) -> __m256i {
            let [even, odd] = [round_to_bf16(x[0], ties), round_to_bf16(x[1], ties)];
            _mm256_blend_epi16::<0xAA>(_mm256_srli_epi32::<16>(even), odd)
        }
        fn times(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])]
        }
        fn plus(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])]
        }
        fn keep(self, x: __m256i, bits: u64, at: usize) -> __m256i {
            _mm256_and_si256(x, spread_16(bits, at))
        }
        fn select(self, bits: u64, at: usize, kept: __m256i, dropped: __m256i) -> __m256i {
            _mm256_blendv_epi8(dropped, kept, spread_16(bits, at))
        }
        // As integers: what is negative and no NaN is at most minus infinity.
        fn not_at_most_zero(self, x: __m256i, at: usize) -> u64 {
            let negative = _mm256_set1_epi16(bf16::NEG_INFINITY.to_bits().cast_signed());
            let zero = _mm256_cmpeq_epi16(x, _mm256_setzero_si256());
            let lanes = _mm256_andnot_si256(zero, _mm256_cmpgt_epi16(x, negative));
            let halves = (_mm256_castsi256_si128(lanes), _mm256_extracti128_si256::<1>(lanes));
            let bytes = _mm_packs_epi16(halves.0, halves.1);
            u64::from(_mm_movemask_epi8(bytes).cast_unsigned()) << at
        }
    }

    #[inline(always)]
    fn can_tie(self, scale: f32) -> bool {
        bf16_scale::can_tie(scale)
    }

    #[inline(always)]
    fn function(self, formula: impl Formula, x: [__m256; 2]) -> [__m256; 2] {
        [formula.f32(self, x[0]), formula.f32(self, x[1])]
    }

    #[inline(always)]
    fn function_of_one(self, formula: impl Formula, x: f32) -> f32 {
        formula.f32(One, x)
    }

    memory_ops! {
        16 of bf16 as __m256i;
        load: |from| _mm256_loadu_si256(from.cast());
        store: |to, x| _mm256_storeu_si256(to.cast(), x);
        stream: |to, x| _mm256_stream_si256(to.cast(), x);
    }
}

functions! {
    /// Rounds to bf16, in the upper half of each lane; the lower half is left dirty. The AVX-512 one
    /// says why this is right.
    fn round_to_bf16(x: __m256, ties: bool) -> __m256i {
        let x = _mm256_castps_si256(x);
        if !ties {
            return _mm256_add_epi32(x, _mm256_set1_epi32(0x8000));
        }
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(x), _mm256_set1_epi32(1));
        _mm256_add_epi32(_mm256_add_epi32(x, _mm256_set1_epi32(0x7FFF)), odd)
    }
}

impl Lanes<f16> for Avx2 {
    const LANES: usize = 8;
    type Stored = __m128i;
    type Wide = __m256;

    value_ops! {
        fn splat_stored(self, x: f16) -> __m128i { _mm_set1_epi16(x.to_bits().cast_signed()) }
        fn splat_wide(self, x: f32) -> __m256 { _mm256_set1_ps(x) }
        fn widen(self, x: __m128i) -> __m256 { _mm256_cvtph_ps(x) }
        fn narrow(self, x: __m256, _ties: bool) -> __m128i {
            _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x)
        }
        fn times(self, a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        fn plus(self, a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        fn keep(self, x: __m128i, bits: u64, at: usize) -> __m128i {
            _mm_and_si128(x, spread_8_of_16(bits, at))
        }
        // Rounding is then the last step, which an instruction does together with the store.
        fn narrow_kept(self, x: __m256, _ties: bool, bits: u64, at: usize) -> __m128i {
            let kept = _mm256_and_ps(x, _mm256_castsi256_ps(spread_32(bits, at)));
            _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(kept)
        }
        fn select(self, bits: u64, at: usize, kept: __m128i, dropped: __m128i) -> __m128i {
            _mm_blendv_epi8(dropped, kept, spread_8_of_16(bits, at))
        }
        // As for bf16.
        fn not_at_most_zero(self, x: __m128i, at: usize) -> u64 {
            let negative = _mm_set1_epi16(f16::NEG_INFINITY.to_bits().cast_signed());
            let zero = _mm_cmpeq_epi16(x, _mm_setzero_si128());
            let lanes = _mm_andnot_si128(zero, _mm_cmpgt_epi16(x, negative));
            let bytes = _mm_packs_epi16(lanes, _mm_setzero_si128());
            u64::from(_mm_movemask_epi8(bytes).cast_unsigned()) << at
        }
    }

    #[inline(always)]
    fn function(self, formula: impl Formula, x: __m256) -> __m256 {
        formula.f32(self, x)
    }

    #[inline(always)]
    fn function_of_one(self, formula: impl Formula, x: f32) -> f32 {
        formula.f32(One, x)
    }

    memory_ops! {
        8 of f16 as __m128i;
        load: |from| _mm_loadu_si128(from.cast());
        store: |to, x| _mm_storeu_si128(to.cast(), x);
        stream: |to, x| _mm_stream_si128(to.cast(), x);
    }
}

impl Doubles<f32> for Avx2 {
    #[inline(always)]
    fn doubles(self, x: &[f32; GROUP], at: usize) -> __m256d {
        check_inside(at, 4);
        // SAFETY: `check_inside` put the four elements inside the array, and the load needs no
        // alignment; `self` exists only because `detect` saw the features.
        unsafe { _mm256_cvtps_pd(_mm_loadu_ps(x.as_ptr().add(at))) }
    }
}

full_rows!(Avx2);

half_rows!(
    Avx2,
    bf16,
    widen: |simd, from, wide| for at in (0..GROUP).step_by(16) {
        let [low, high] = simd.halves_of_bf16(Lanes::<bf16>::load(simd, from, at));
        Lanes::<f32>::store(simd, low, wide, at);
        Lanes::<f32>::store(simd, high, wide, at + 8);
    },
    narrow: |simd, x, to| for at in (0..GROUP).step_by(16) {
        let low = Lanes::<f32>::load(simd, x, at);
        let high = Lanes::<f32>::load(simd, x, at + 8);
        Lanes::<bf16>::store(simd, simd.join_to_bf16(low, high), to, at);
    }
);

half_rows!(
    Avx2,
    f16,
    widen: |simd, from, wide| for at in (0..GROUP).step_by(8) {
        let x = Lanes::<f16>::widen(simd, Lanes::<f16>::load(simd, from, at));
        Lanes::<f32>::store(simd, x, wide, at);
    },
    narrow: |simd, x, to| for at in (0..GROUP).step_by(8) {
        let y = Lanes::<f16>::narrow(simd, Lanes::<f32>::load(simd, x, at), true);
        Lanes::<f16>::store(simd, y, to, at);
    }
);

impl Avx2 {
    value_ops! {
        /// The lower elements and the upper ones, in order.
        fn halves_of_bf16(self, x: __m256i) -> [__m256; 2] {
            [bf16_in_order(_mm256_castsi256_si128(x)), bf16_in_order(_mm256_extracti128_si256::<1>(x))]
        }
        /// Rounds the lower elements and the upper ones, which are in order.
        fn join_to_bf16(self, low: __m256, high: __m256) -> __m256i {
            // Packed within each half of the registers, and then the quarters in order.
            let packed = _mm256_packus_epi32(rounded_to_bf16(low), rounded_to_bf16(high));
            _mm256_permute4x64_epi64::<0b11_01_10_00>(packed)
        }
    }
}

functions! {
    fn bf16_in_order(x: __m128i) -> __m256 {
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(x)))
    }

    /// Rounds to bf16, ties to even, in the lower half of each lane. NaNs become the plain one, whose
    /// lower half is zero.
    fn rounded_to_bf16(x: __m256) -> __m256i {
        let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(x, x);
        let x = _mm256_blendv_ps(x, _mm256_set1_ps(f32::NAN), nan);
        _mm256_srli_epi32::<16>(round_to_bf16(x, true))
    }
}
