//! The 16-bit types where the instruction set has nothing for them: a group at a time, as f32.
//!
//! f16 goes through the slice conversions of the `half` crate, which ask the CPU once per group and
//! use what it has. bf16 is the upper half of an f32, so widening is a shift and rounding an
//! addition, which the compiler turns into vectors.

use crate::simd::GROUP;

/// A group, widened.
pub(crate) type Wide = [f32; GROUP];

/// Multiplies, element by element.
#[inline(always)]
pub(crate) fn times(mut x: Wide, scale: f32) -> Wide {
    for x in &mut x {
        *x *= scale;
    }
    x
}

/// The elements whose bit is set; `+0.0` for the others.
#[inline(always)]
pub(crate) fn keep(mut x: Wide, bits: u64) -> Wide {
    for (i, x) in x.iter_mut().enumerate() {
        // All ones where the bit is set.
        let mask = (bits >> i & 1).wrapping_neg() as u32;
        *x = f32::from_bits(x.to_bits() & mask);
    }
    x
}

/// Rounds a product of a bf16 to nearest, ties to even.
///
/// Adding 0x7FFF, or 0x8000 where the upper half is odd, carries into the upper half exactly when
/// the lower half rounds up. A NaN or an infinity that came from a bf16 by a multiplication has a
/// zero lower half, so nothing carries and it stays what it is.
#[inline(always)]
pub(crate) fn round_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    (bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16) as u16
}

/// Implements `Lanes<$t>` for a token, with a group for a vector, from a way to widen a group and
/// one to round it.
macro_rules! half_lanes {
    ($token:ty, $t:ty, load: |$from:ident, $wide:ident| $load:expr, store: |$x:ident, $to:ident| $store:expr) => {
        impl $crate::simd::Lanes<$t> for $token {
            const LANES: usize = $crate::simd::GROUP;
            type Vector = $crate::simd::half_lanes::Wide;
            type Scale = f32;

            #[inline(always)]
            fn splat_scale(self, scale: f32) -> f32 {
                scale
            }

            #[inline(always)]
            fn load(self, $from: &[$t; $crate::simd::GROUP], _: usize) -> Self::Vector {
                let mut $wide = [0.0; $crate::simd::GROUP];
                $load;
                $wide
            }

            #[inline(always)]
            fn times(self, x: Self::Vector, scale: f32) -> Self::Vector {
                $crate::simd::half_lanes::times(x, scale)
            }

            #[inline(always)]
            fn keep(self, x: Self::Vector, bits: u64, _: usize) -> Self::Vector {
                $crate::simd::half_lanes::keep(x, bits)
            }

            #[inline(always)]
            fn store(self, $x: Self::Vector, $to: &mut [$t; $crate::simd::GROUP], _: usize) {
                $store;
            }
        }
    };
}
pub(crate) use half_lanes;
