//! [`Floats`]: the arithmetic on f32 that functions such as exp are computed with.
//!
//! A [`Formula`] is written once over it, and [`Lanes`] hands it the vectors of each element type. Every
//! operation is exact or rounds once, as IEEE 754 says, so that a formula has the same bits in a register of
//! any width and in one number, which is what [`One`] is for. There is no fused multiply-add: an
//! instruction set without one could not give its bits.

use crate::simd::{GROUP, Lanes};

/// Arithmetic on vectors of f32.
pub(crate) trait Floats: Copy {
    /// A vector.
    type Vector: Copy;

    /// The same number in every lane.
    fn splat(self, x: f32) -> Self::Vector;
    /// `a + b`.
    fn plus(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a - b`.
    fn minus(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a * b`.
    fn times(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a / b`.
    fn over(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a` where `a > b`, and `b` elsewhere: also where either is NaN.
    fn greater(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a` where `a < b`, and `b` elsewhere: also where either is NaN.
    fn lesser(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `yes` where `a < b`, and `no` elsewhere: also where either is NaN.
    fn select_less(
        self,
        a: Self::Vector,
        b: Self::Vector,
        yes: Self::Vector,
        no: Self::Vector,
    ) -> Self::Vector;
    /// Without the sign.
    fn magnitude(self, x: Self::Vector) -> Self::Vector;
    /// `x`, whose sign bit is 0, with that of `sign`.
    fn with_sign(self, x: Self::Vector, sign: Self::Vector) -> Self::Vector;
    /// The first twelve binary digits, towards zero: the product of two such numbers is exact.
    fn upper_half(self, x: Self::Vector) -> Self::Vector;
    /// 2^n for a whole number `n` from -126 to 127, anything for NaN.
    fn power(self, n: Self::Vector) -> Self::Vector;
    /// `x * 2^n`, rounded once, for a whole number `n` from -252 to 252 and an `x` of which `x * 2^(n/2)`
    /// is a normal number, zero, infinite or NaN. A NaN stays one, whatever `n` is.
    fn times_power(self, x: Self::Vector, n: Self::Vector) -> Self::Vector;
}

/// A function of one number.
pub(crate) trait Formula: Copy {
    /// For elements that are computed in f32. Mark the implementation `#[inline(always)]`.
    fn f32<F: Floats>(self, floats: F, x: F::Vector) -> F::Vector;
    /// For f64.
    fn f64(self, x: f64) -> f64;
}

/// One number at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct One;

/// 2^n for a whole number from -126 to 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n << 23).wrapping_add(0x3F80_0000).cast_unsigned())
}

impl Floats for One {
    type Vector = f32;

    #[inline(always)]
    fn splat(self, x: f32) -> f32 {
        x
    }

    #[inline(always)]
    fn plus(self, a: f32, b: f32) -> f32 {
        a + b
    }

    #[inline(always)]
    fn minus(self, a: f32, b: f32) -> f32 {
        a - b
    }

    #[inline(always)]
    fn times(self, a: f32, b: f32) -> f32 {
        a * b
    }

    #[inline(always)]
    fn over(self, a: f32, b: f32) -> f32 {
        a / b
    }

    #[inline(always)]
    fn greater(self, a: f32, b: f32) -> f32 {
        if a > b { a } else { b }
    }

    #[inline(always)]
    fn lesser(self, a: f32, b: f32) -> f32 {
        if a < b { a } else { b }
    }

    #[inline(always)]
    fn select_less(self, a: f32, b: f32, yes: f32, no: f32) -> f32 {
        if a < b { yes } else { no }
    }

    #[inline(always)]
    fn magnitude(self, x: f32) -> f32 {
        x.abs()
    }

    #[inline(always)]
    fn with_sign(self, x: f32, sign: f32) -> f32 {
        f32::from_bits(x.to_bits() | sign.to_bits() & SIGN)
    }

    #[inline(always)]
    fn upper_half(self, x: f32) -> f32 {
        f32::from_bits(x.to_bits() & UPPER_HALF)
    }

    #[inline(always)]
    fn power(self, n: f32) -> f32 {
        power_of_two(n as i32)
    }

    #[inline(always)]
    fn times_power(self, x: f32, n: f32) -> f32 {
        let n = n as i32;
        let half = n >> 1;
        x * power_of_two(half) * power_of_two(n - half)
    }
}

/// The bit of the sign.
pub(super) const SIGN: u32 = 0x8000_0000;

/// The bits of the sign, the exponent and the first eleven binary digits after the leading one.
pub(super) const UPPER_HALF: u32 = 0xFFFF_F000;

/// `formula` of each lane of f64, one by one.
#[inline(always)]
pub(super) fn one_by_one<S: Lanes<f64>>(
    simd: S,
    formula: impl Formula,
    x: <S as Lanes<f64>>::Wide,
) -> <S as Lanes<f64>>::Wide {
    let mut group = [0.0; GROUP];
    simd.store(simd.narrow(x, true), &mut group, 0);
    for x in &mut group[..S::LANES] {
        *x = formula.f64(*x);
    }
    simd.widen(simd.load(&group, 0))
}

/// `formula` of the group of f32 that a 16-bit type without vectors of its own is widened to.
#[inline(always)]
pub(super) fn by_vectors<V: Copy, S>(
    simd: S,
    formula: impl Formula,
    mut x: [f32; GROUP],
) -> [f32; GROUP]
where
    S: Floats<Vector = V> + Lanes<f32, Stored = V, Wide = V>,
{
    for at in (0..GROUP).step_by(<S as Lanes<f32>>::LANES) {
        let y = formula.f32(simd, Lanes::<f32>::load(simd, &x, at));
        Lanes::<f32>::store(simd, y, &mut x, at);
    }
    x
}
