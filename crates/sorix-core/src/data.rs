//! [`TensorData`]: the Rust values that [`tensor`](crate::tensor()) makes a tensor of.

use core::slice;

use half::{bf16, f16};

use crate::dtype::Scalar;

/// A value that [`tensor`](crate::tensor()) makes a tensor of: a number, an array of any depth, or
/// a slice or `Vec` of either.
///
/// Arrays are rectangular by their type, so there is no shape to get wrong. The element type is that
/// of the numbers: a literal like `1.0` is an `f64`.
///
/// ```
/// use sorix_core::tensor;
/// assert_eq!(tensor(1.5).shape(), []);
/// assert_eq!(tensor([1.0, 2.0]).shape(), [2]);
/// assert_eq!(tensor([[1.0_f32, 2.0, 3.0], [4.0, 5.0, 6.0]]).shape(), [2, 3]);
/// assert_eq!(tensor(vec![[1.0; 4]; 3]).shape(), [3, 4]);
/// assert_eq!(tensor([[0.0; 2]; 0]).shape(), [0, 2]);
/// ```
///
/// Sealed.
pub trait TensorData: sealed::Sealed {
    /// The element type.
    type Elem: Scalar;

    /// The shape of the tensor.
    fn shape(&self) -> Vec<usize>;

    /// The elements in row-major order.
    fn elements(&self) -> &[Self::Elem];
}

/// A number or a nested array of numbers: what lies in one piece and has its shape in its type.
///
/// Sealed.
pub trait Rectangular: Sized + sealed::Sealed {
    /// The element type.
    type Elem: Scalar;

    /// The shape of one such value.
    fn shape() -> Vec<usize>;

    /// The numbers of all of them, in order.
    fn flatten(values: &[Self]) -> &[Self::Elem];
}

mod sealed {
    pub trait Sealed {}
    impl<A: super::Rectangular, const N: usize> Sealed for [A; N] {}
    impl<A: super::Rectangular> Sealed for [A] {}
    impl<A: super::Rectangular> Sealed for Vec<A> {}
    impl<D: super::TensorData + ?Sized> Sealed for &D {}
}

macro_rules! scalar_data {
    ($($t:ty),*) => {$(
        impl sealed::Sealed for $t {}

        impl Rectangular for $t {
            type Elem = $t;

            fn shape() -> Vec<usize> {
                Vec::new()
            }

            fn flatten(values: &[Self]) -> &[$t] {
                values
            }
        }

        impl TensorData for $t {
            type Elem = $t;

            fn shape(&self) -> Vec<usize> {
                Vec::new()
            }

            fn elements(&self) -> &[$t] {
                slice::from_ref(self)
            }
        }
    )*};
}

scalar_data!(f16, bf16, f32, f64);

impl<A: Rectangular, const N: usize> Rectangular for [A; N] {
    type Elem = A::Elem;

    fn shape() -> Vec<usize> {
        [N].into_iter().chain(A::shape()).collect()
    }

    fn flatten(values: &[Self]) -> &[A::Elem] {
        A::flatten(values.as_flattened())
    }
}

impl<A: Rectangular> TensorData for [A] {
    type Elem = A::Elem;

    fn shape(&self) -> Vec<usize> {
        [self.len()].into_iter().chain(A::shape()).collect()
    }

    fn elements(&self) -> &[A::Elem] {
        A::flatten(self)
    }
}

impl<A: Rectangular, const N: usize> TensorData for [A; N] {
    type Elem = A::Elem;

    fn shape(&self) -> Vec<usize> {
        self.as_slice().shape()
    }

    fn elements(&self) -> &[A::Elem] {
        self.as_slice().elements()
    }
}

impl<A: Rectangular> TensorData for Vec<A> {
    type Elem = A::Elem;

    fn shape(&self) -> Vec<usize> {
        self.as_slice().shape()
    }

    fn elements(&self) -> &[A::Elem] {
        self.as_slice().elements()
    }
}

impl<D: TensorData + ?Sized> TensorData for &D {
    type Elem = D::Elem;

    fn shape(&self) -> Vec<usize> {
        (**self).shape()
    }

    fn elements(&self) -> &[D::Elem] {
        (**self).elements()
    }
}
