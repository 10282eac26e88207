//! What the kernels over rows ask beside [`Lanes`]: elements in order, as numbers of the type computed
//! in, and these as doubles.
//!
//! The lanes of a [wide](Lanes::Wide) vector of 16-bit elements lie in an order of the token's own, which
//! does not matter if they are stored again as they were loaded. A row of 16 bits that is added to one
//! of f32 has to lie in order, so it is widened a group at a time.

use crate::element::Element;
use crate::simd::{GROUP, Lanes};

/// Numbers that are computed with, as doubles.
pub(crate) trait Doubles<S: Element<Scale = S>>: Lanes<S> + Lanes<f64> {
    /// Elements `at` to `at + LANES - 1` of a group, where the lanes are those of f64. Exact.
    fn doubles(self, x: &[S; GROUP], at: usize) -> <Self as Lanes<f64>>::Wide;
}

/// Groups of `T` as groups of the type computed in, in order.
pub(crate) trait RowLanes<T: Element>: Doubles<T::Scale> {
    /// The same numbers: `x` itself, or what they are in `scratch`. Exact.
    fn widen_group<'a>(
        self,
        x: &'a [T; GROUP],
        scratch: &'a mut [T::Scale; GROUP],
    ) -> &'a [T::Scale; GROUP];

    /// Where to put the numbers that `y` is made of: `y` itself, or `scratch`.
    fn place<'a>(
        self,
        y: &'a mut [T; GROUP],
        scratch: &'a mut [T::Scale; GROUP],
    ) -> &'a mut [T::Scale; GROUP];

    /// Rounds what was put into `scratch`, if that was the [place](RowLanes::place): to nearest, ties to
    /// even. A NaN stays a NaN, whatever its bits.
    fn finish(self, y: &mut [T; GROUP], scratch: &[T::Scale; GROUP]);
}

/// Implements [`RowLanes`] of f32 and f64, and [`Doubles`] of f64, for a token.
macro_rules! full_rows {
    ($token:ty) => {
        impl $crate::simd::Doubles<f64> for $token {
            #[inline(always)]
            fn doubles(
                self,
                x: &[f64; $crate::simd::GROUP],
                at: usize,
            ) -> <Self as $crate::simd::Lanes<f64>>::Wide {
                let x = $crate::simd::Lanes::<f64>::load(self, x, at);
                $crate::simd::Lanes::<f64>::widen(self, x)
            }
        }

        $crate::simd::row_lanes::full_rows!($token, f32);
        $crate::simd::row_lanes::full_rows!($token, f64);
    };
    ($token:ty, $t:ty) => {
        impl $crate::simd::RowLanes<$t> for $token {
            #[inline(always)]
            fn widen_group<'a>(
                self,
                x: &'a [$t; $crate::simd::GROUP],
                _: &'a mut [$t; $crate::simd::GROUP],
            ) -> &'a [$t; $crate::simd::GROUP] {
                x
            }

            #[inline(always)]
            fn place<'a>(
                self,
                y: &'a mut [$t; $crate::simd::GROUP],
                _: &'a mut [$t; $crate::simd::GROUP],
            ) -> &'a mut [$t; $crate::simd::GROUP] {
                y
            }

            #[inline(always)]
            fn finish(self, _: &mut [$t; $crate::simd::GROUP], _: &[$t; $crate::simd::GROUP]) {}
        }
    };
}

/// Implements [`RowLanes`] of a 16-bit type for a token, from a way to widen a group and one to round it.
macro_rules! half_rows {
    (
        $token:ty, $t:ty,
        widen: |$simd:ident, $from:ident, $wide:ident| $widen:expr,
        narrow: |$simd_too:ident, $x:ident, $to:ident| $narrow:expr
    ) => {
        impl $crate::simd::RowLanes<$t> for $token {
            #[inline(always)]
            fn widen_group<'a>(
                self,
                $from: &'a [$t; $crate::simd::GROUP],
                $wide: &'a mut [f32; $crate::simd::GROUP],
            ) -> &'a [f32; $crate::simd::GROUP] {
                let $simd = self;
                $widen;
                $wide
            }

            #[inline(always)]
            fn place<'a>(
                self,
                _: &'a mut [$t; $crate::simd::GROUP],
                scratch: &'a mut [f32; $crate::simd::GROUP],
            ) -> &'a mut [f32; $crate::simd::GROUP] {
                scratch
            }

            #[inline(always)]
            fn finish(self, $to: &mut [$t; $crate::simd::GROUP], $x: &[f32; $crate::simd::GROUP]) {
                let $simd_too = self;
                $narrow;
            }
        }
    };
}

pub(crate) use {full_rows, half_rows};
