//! The element types: f32, f64, bf16 and f16.

use half::{bf16, f16};

use crate::backend::reference::{value_f32, value_f64};
use crate::backend::{Backend, Kernels};
use crate::function::Function;
use crate::rate::DropRate;

mod sealed {
    pub trait Sealed {}
}

/// An element type that the kernels handle: `f32`, `f64`, [`half::bf16`] and [`half::f16`].
///
/// Sealed: the trait says what a kept element becomes, which is part of what every backend must
/// reproduce bit for bit.
///
/// ```
/// use half::bf16;
/// use sorix_kernels::{DropRate, Element};
///
/// let rate = DropRate::new(0.1)?;
/// let y = bf16::from_f32(3.0).times(bf16::scale(rate));
/// // One rounding, of the f32 product; the scale itself stays an f32.
/// assert_eq!(y, bf16::from_f32(3.0 * (1.0 / 0.9)));
/// # Ok::<(), sorix_kernels::InvalidRate>(())
/// ```
pub trait Element:
    sealed::Sealed
    + bytemuck::Pod
    + Default
    + PartialEq
    + PartialOrd
    + core::fmt::Debug
    + core::fmt::Display
    + Send
    + Sync
{
    /// The type a kernel computes in: f64 for f64, f32 for the others.
    type Scale: Element<Scale = Self::Scale>
        + PartialOrd
        + core::ops::Add<Output = Self::Scale>
        + core::ops::Mul<Output = Self::Scale>;

    /// NumPy's name of the type: `"float32"`, `"float64"`, `"bfloat16"`, `"float16"`.
    const NAME: &'static str;

    /// `+0.0`, what a dropped element becomes.
    const ZERO: Self;

    /// The scale of `rate`, rounded once from f64 to the type the kernel computes in.
    fn scale(rate: DropRate) -> Self::Scale;

    /// What a kept element becomes: widened, multiplied, and rounded once, to nearest, ties to
    /// even. A NaN stays a NaN, quiet.
    #[must_use]
    fn times(self, scale: Self::Scale) -> Self;

    /// What a kept element becomes in an [`Affine`](crate::Affine) form: widened, multiplied, the
    /// product rounded, the shift added, and rounded once, to nearest, ties to even.
    #[must_use]
    fn times_plus(self, scale: Self::Scale, shift: Self::Scale) -> Self;

    /// The number of the type computed in that is nearest to `value`.
    #[must_use]
    fn factor(value: f64) -> Self::Scale;

    /// The same number in the type a kernel computes in.
    #[must_use]
    fn widened(self) -> Self::Scale;

    /// The element nearest to `value`.
    #[must_use]
    fn narrow(value: Self::Scale) -> Self;

    /// The same number as a double; exact.
    #[must_use]
    fn to_double(self) -> f64;

    /// A [`Function`] of a number, in the type computed in.
    ///
    /// ```
    /// use sorix_kernels::{Element, Function};
    /// assert_eq!(f32::value(Function::Tanh, 0.5), 0.46211717);
    /// assert_eq!(f64::value(Function::Exp, 0.0), 1.0);
    /// ```
    #[must_use]
    fn value(function: Function, x: Self::Scale) -> Self::Scale;

    /// The kernels of `backend` for this type.
    #[doc(hidden)]
    fn kernels(backend: &dyn Backend) -> &dyn Kernels<Self>;
}

macro_rules! element {
    ($t:ty, $name:literal, $scale:ty, $value:path, $zero:expr, |$x:ident| $widen:expr, |$y:ident| $narrow:expr) => {
        impl sealed::Sealed for $t {}

        impl Element for $t {
            type Scale = $scale;
            const NAME: &'static str = $name;
            const ZERO: Self = $zero;

            fn scale(rate: DropRate) -> $scale {
                rate.scale() as $scale
            }

            #[inline(always)]
            fn times(self, scale: $scale) -> Self {
                Self::narrow(self.widened() * scale)
            }

            #[inline(always)]
            fn times_plus(self, scale: $scale, shift: $scale) -> Self {
                Self::narrow(self.widened() * scale + shift)
            }

            fn factor(value: f64) -> $scale {
                // One NaN for all: with bits of another one's payload in the lower half, rounding a
                // product to 16 bits could carry up to the sign.
                if value.is_nan() {
                    <$scale>::NAN
                } else {
                    value as $scale
                }
            }

            #[inline(always)]
            fn widened(self) -> $scale {
                let $x = self;
                $widen
            }

            #[inline(always)]
            fn narrow($y: $scale) -> Self {
                $narrow
            }

            #[inline(always)]
            #[allow(
                trivial_numeric_casts,
                clippy::cast_lossless,
                reason = "one line for both"
            )]
            fn to_double(self) -> f64 {
                self.widened() as f64
            }

            fn value(function: Function, x: $scale) -> $scale {
                $value(function, x)
            }

            fn kernels(backend: &dyn Backend) -> &dyn Kernels<Self> {
                backend
            }
        }
    };
}

element!(f32, "float32", f32, value_f32, 0.0, |x| x, |y| y);
element!(f64, "float64", f64, value_f64, 0.0, |x| x, |y| y);
element!(
    bf16,
    "bfloat16",
    f32,
    value_f32,
    bf16::ZERO,
    |x| x.to_f32(),
    |y| bf16::from_f32(y)
);
element!(
    f16,
    "float16",
    f32,
    value_f32,
    f16::ZERO,
    |x| x.to_f32(),
    |y| f16::from_f32(y)
);
