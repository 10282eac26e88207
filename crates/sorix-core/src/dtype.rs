//! [`DType`]: the element types a tensor can have, and [`Scalar`], which ties each to its Rust type.

use core::fmt;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use sorix_kernels::Element;

/// The element type of a tensor.
///
/// ```
/// use sorix_core::{DType, tensor};
/// assert_eq!(tensor([1.0, 2.0]).dtype(), DType::F64);
/// assert_eq!(DType::BF16.size(), 2);
/// assert_eq!(DType::F64.to_string(), "sorix.float64");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// IEEE 754 binary16, [`half::f16`].
    F16,
    /// The upper half of a binary32, [`half::bf16`].
    BF16,
    /// IEEE 754 binary32, `f32`.
    F32,
    /// IEEE 754 binary64, `f64`.
    F64,
}

/// The Rust type of a tensor's elements: `f32`, `f64`, [`half::bf16`] and [`half::f16`].
///
/// Sealed, as [`Element`] is.
///
/// ```
/// use sorix_core::{DType, Scalar};
/// assert_eq!(f32::DTYPE, DType::F32);
/// assert_eq!(half::f16::nearest(0.1).to_f64(), 0.0999755859375);
/// ```
pub trait Scalar: Element {
    /// The type in which sums and products are computed before they are rounded to this one: f64
    /// for f64, f32 for the others.
    type Acc: Scalar<Acc = Self::Acc> + num_traits::Float;

    /// The dtype of tensors of this type.
    const DTYPE: DType;

    /// The value of this type nearest to `value`, ties to even.
    fn nearest(value: f64) -> Self;

    /// The same value as a double; exact.
    fn to_f64(self) -> f64;

    /// The value of this type nearest to `value`, ties to even.
    fn from_acc(value: Self::Acc) -> Self;

    /// The same value in the type that sums and products are computed in; exact.
    fn to_acc(self) -> Self::Acc;

    /// The elements as [`Scalar::Acc`]: `elements` itself if that is the same type, else
    /// converted into the front of `scratch`, which must be as long.
    #[doc(hidden)]
    fn widen<'a>(elements: &'a [Self], scratch: &'a mut [Self::Acc]) -> &'a [Self::Acc];

    /// What `write` writes as [`Scalar::Acc`], rounded to the nearest of this type, ties to even: into
    /// `elements` itself if that is the same type, else by way of the front of `scratch`, which must be
    /// as long.
    #[doc(hidden)]
    fn round(
        elements: &mut [Self],
        scratch: &mut [Self::Acc],
        write: &mut dyn FnMut(&mut [Self::Acc]),
    );
}

/// A type that is computed in: f32 or f64.
pub(crate) trait Real: Scalar<Acc = Self> + num_traits::Float {}

impl<A: Scalar<Acc = A> + num_traits::Float> Real for A {}

macro_rules! half_scalar {
    ($($half:ty, $dtype:ident;)*) => {$(
        impl Scalar for $half {
            type Acc = f32;
            const DTYPE: DType = DType::$dtype;

            fn nearest(value: f64) -> Self {
                Self::from_f32(round_to_odd(value))
            }

            fn to_f64(self) -> f64 {
                self.to_f32().into()
            }

            fn from_acc(value: f32) -> Self {
                Self::from_f32(value)
            }

            fn to_acc(self) -> f32 {
                self.to_f32()
            }

            fn widen<'a>(elements: &'a [Self], scratch: &'a mut [f32]) -> &'a [f32] {
                let scratch = &mut scratch[..elements.len()];
                elements.convert_to_f32_slice(scratch);
                scratch
            }

            fn round(
                elements: &mut [Self],
                scratch: &mut [f32],
                write: &mut dyn FnMut(&mut [f32]),
            ) {
                let scratch = &mut scratch[..elements.len()];
                write(scratch);
                elements.convert_from_f32_slice(scratch);
            }
        }
    )*};
}

macro_rules! full_scalar {
    ($($t:ty, $dtype:ident;)*) => {$(
        impl Scalar for $t {
            type Acc = $t;
            const DTYPE: DType = DType::$dtype;

            fn nearest(value: f64) -> Self {
                value as $t
            }

            fn to_f64(self) -> f64 {
                self.into()
            }

            fn from_acc(value: $t) -> Self {
                value
            }

            fn to_acc(self) -> $t {
                self
            }

            fn widen<'a>(elements: &'a [Self], _scratch: &'a mut [$t]) -> &'a [$t] {
                elements
            }

            fn round(
                elements: &mut [Self],
                _scratch: &mut [$t],
                write: &mut dyn FnMut(&mut [$t]),
            ) {
                write(elements);
            }
        }
    )*};
}

half_scalar! {
    f16, F16;
    bf16, BF16;
}

full_scalar! {
    f32, F32;
    f64, F64;
}

/// `value` if an f32 can represent it, else that one of its two neighbours whose last bit is 1.
///
/// Rounding the result to a type of at most 22 significant bits gives what rounding `value` itself
/// would: the odd last bit keeps the memory of what was cut off, where the nearest f32 could lie
/// just on a tie. (`half` converts by way of the nearest f32, or cuts off the lower 32 bits.)
///
/// Source: Boldo and Melquiond, *Emulation of a FMA and correctly rounded sums: proved algorithms
/// using rounding to odd*, IEEE Transactions on Computers 57 (2008).
fn round_to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    let bits = nearest.to_bits();
    if f64::from(nearest) == value || value.is_nan() || bits & 1 == 1 {
        nearest
    } else if f64::from(nearest).abs() > value.abs() {
        f32::from_bits(bits - 1)
    } else {
        f32::from_bits(bits + 1)
    }
}

impl DType {
    /// Bytes in an element.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// The dtype in which sums and products of this one are computed before they are rounded: f64
    /// for f64, f32 for the others. See [`Scalar::Acc`].
    ///
    /// ```
    /// use sorix_core::DType;
    /// assert_eq!(DType::BF16.arithmetic(), DType::F32);
    /// assert_eq!(DType::F64.arithmetic(), DType::F64);
    /// ```
    #[must_use]
    pub fn arithmetic(self) -> Self {
        dispatch!(self, T => <T as Scalar>::Acc::DTYPE)
    }

    /// NumPy's name of the type: `"float16"`, `"bfloat16"`, `"float32"`, `"float64"`.
    #[must_use]
    pub fn name(self) -> &'static str {
        dispatch!(self, T => T::NAME)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sorix.{}", self.name())
    }
}

/// Runs an expression with `$T` standing for the Rust type of a [`DType`]: the one place where a
/// dtype known at run time becomes a type.
macro_rules! dispatch {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::dtype::DType::F16 => {
                type $T = ::half::f16;
                $body
            }
            $crate::dtype::DType::BF16 => {
                type $T = ::half::bf16;
                $body
            }
            $crate::dtype::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::dtype::DType::F64 => {
                type $T = f64;
                $body
            }
        }
    };
}
pub(crate) use dispatch;
