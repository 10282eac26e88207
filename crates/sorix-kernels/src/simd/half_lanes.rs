//! The 16-bit types if the instruction set has nothing for them: a group at a time, as f32.
//!
//! f16 goes through the slice conversions of the `half` crate, which ask the CPU once per group and
//! use what it has. bf16 is the upper half of an f32, so widening is a shift and rounding an
//! addition, which the compiler turns into vectors.

use crate::simd::GROUP;

/// A group, widened.
pub(crate) type Wide = [f32; GROUP];

/// `f` of each pair.
#[inline(always)]
pub(crate) fn each(mut a: Wide, b: &Wide, f: impl Fn(f32, f32) -> f32) -> Wide {
    for (a, &b) in a.iter_mut().zip(b) {
        *a = f(*a, b);
    }
    a
}

/// The bits of `kept` in the elements whose bit is set, those of `dropped` elsewhere.
#[inline(always)]
pub(crate) fn select(bits: u64, kept: &[u16; GROUP], dropped: &[u16; GROUP]) -> [u16; GROUP] {
    core::array::from_fn(|i| {
        // All ones if the bit is set.
        let mask = (bits >> i & 1).wrapping_neg() as u16;
        kept[i] & mask | dropped[i] & !mask
    })
}

/// Bit `i` if element `i` is not `<= 0`, as integers: what is negative and no NaN is at most minus infinity,
/// whose bits are `negative`.
#[inline(always)]
pub(crate) fn not_at_most_zero(x: &[i16; GROUP], negative: i16) -> u64 {
    let bits = x.iter().enumerate();
    bits.fold(0, |bits, (i, &x)| {
        bits | u64::from(x > negative && x != 0) << i
    })
}

/// Rounds to bf16, to nearest, ties to even.
///
/// Adding 0x7FFF, or 0x8000 where the upper half is odd, carries into the upper half exactly when
/// the lower half rounds up. A NaN or an infinity that was computed from bf16 has a zero lower half,
/// so nothing carries and it stays what it is.
#[inline(always)]
pub(crate) fn round_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    (bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16) as u16
}

/// [`round_to_bf16`] of any number: of a NaN whose lower half would carry up to the sign, too.
#[inline(always)]
pub(crate) fn round_to_bf16_or_nan(x: f32) -> u16 {
    if x.is_nan() { 0x7FC0 } else { round_to_bf16(x) }
}

/// Implements `Lanes<$t>` for a token, with a group for a vector, from a way to widen a group and
/// one to round it.
macro_rules! half_lanes {
    ($token:ty, $t:ty, widen: |$from:ident, $wide:ident| $widen:expr, narrow: |$x:ident, $to:ident| $narrow:expr) => {
        impl $crate::simd::Lanes<$t> for $token {
            const LANES: usize = $crate::simd::GROUP;
            type Stored = [$t; $crate::simd::GROUP];
            type Wide = $crate::simd::half_lanes::Wide;

            #[inline(always)]
            fn load(self, x: &[$t; $crate::simd::GROUP], _: usize) -> Self::Stored {
                *x
            }

            #[inline(always)]
            fn store(self, x: Self::Stored, y: &mut [$t; $crate::simd::GROUP], _: usize) {
                *y = x;
            }

            #[inline(always)]
            fn splat_stored(self, x: $t) -> Self::Stored {
                [x; $crate::simd::GROUP]
            }

            #[inline(always)]
            fn splat_wide(self, x: f32) -> Self::Wide {
                [x; $crate::simd::GROUP]
            }

            #[inline(always)]
            fn widen(self, $from: Self::Stored) -> Self::Wide {
                let mut $wide = [0.0; $crate::simd::GROUP];
                $widen;
                $wide
            }

            #[inline(always)]
            fn narrow(self, $x: Self::Wide, _: bool) -> Self::Stored {
                let mut $to = [<$t>::ZERO; $crate::simd::GROUP];
                $narrow;
                $to
            }

            #[inline(always)]
            fn times(self, a: Self::Wide, b: Self::Wide) -> Self::Wide {
                $crate::simd::half_lanes::each(a, &b, |a, b| a * b)
            }

            #[inline(always)]
            fn plus(self, a: Self::Wide, b: Self::Wide) -> Self::Wide {
                $crate::simd::half_lanes::each(a, &b, |a, b| a + b)
            }

            #[inline(always)]
            fn function(self, formula: impl $crate::simd::Formula, x: Self::Wide) -> Self::Wide {
                $crate::simd::floats::by_vectors(self, formula, x)
            }

            #[inline(always)]
            fn function_of_one(self, formula: impl $crate::simd::Formula, x: f32) -> f32 {
                formula.f32($crate::simd::floats::One, x)
            }

            #[inline(always)]
            fn keep(self, x: Self::Stored, bits: u64, at: usize) -> Self::Stored {
                <Self as $crate::simd::Lanes<$t>>::select(
                    self,
                    bits,
                    at,
                    x,
                    [<$t>::ZERO; $crate::simd::GROUP],
                )
            }

            #[inline(always)]
            fn select(
                self,
                bits: u64,
                _: usize,
                kept: Self::Stored,
                dropped: Self::Stored,
            ) -> Self::Stored {
                let (kept, dropped) = (bytemuck::cast_ref(&kept), bytemuck::cast_ref(&dropped));
                bytemuck::cast($crate::simd::half_lanes::select(bits, kept, dropped))
            }

            #[inline(always)]
            fn not_at_most_zero(self, x: Self::Stored, _: usize) -> u64 {
                let negative = <$t>::NEG_INFINITY.to_bits().cast_signed();
                $crate::simd::half_lanes::not_at_most_zero(bytemuck::cast_ref(&x), negative)
            }
        }
    };
}
pub(crate) use half_lanes;
