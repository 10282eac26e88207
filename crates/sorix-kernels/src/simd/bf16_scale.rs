//! Which scales of bf16 have no ties.
//!
//! Rounding to nearest, ties to even, takes four instructions on f32 lanes. If no product of a
//! bf16 with the scale lies half way between two bf16, ties to even or away from zero are the same,
//! and one addition does. So it is for most scales: of the 128 mantissas of a bf16, one would have to
//! give exactly the one lower half of 65,536 that is in the middle. It is not so for scales with few
//! digits like 1.25, which is p = 0.2. With 15 ALU instructions per 32 elements on AVX-512, the
//! multiplication is bound by them, and becomes one of 9.

/// Whether some bf16 times `scale`, rounded to f32, lies half way between two bf16.
///
/// Looks at all subnormal bf16 and at the smallest binade of normal ones. The products of the other
/// binades have the mantissas of that one, since a scale of 1 or more makes no normal number subnormal,
/// and an infinity ends in zeros; for a smaller scale the answer is yes.
#[inline(always)]
pub(crate) fn can_tie(scale: f32) -> bool {
    let mut ties = scale.is_nan() || scale < 1.0;
    // No early end: this way it is sixteen vectors.
    for x in 0..256_u32 {
        let product = f32::from_bits(x << 16) * scale;
        ties |= product.to_bits() & 0xFFFF == 0x8000;
    }
    ties
}
