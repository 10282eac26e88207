//! The operators `+`, `-`, `*` and `/`: other names of methods.

use core::ops;

use crate::error::Result;
use crate::tensor::Tensor;

/// An operator of a tensor with a tensor, and with a number; each tensor owned or borrowed.
macro_rules! operator {
    ($Trait:ident, $method:ident, $of_number:expr; $($left:ty),*) => {$(
        impl ops::$Trait<&Tensor> for $left {
            type Output = Result<Tensor>;

            fn $method(self, other: &Tensor) -> Self::Output {
                Tensor::$method(&self, other)
            }
        }

        impl ops::$Trait<Tensor> for $left {
            type Output = Result<Tensor>;

            fn $method(self, other: Tensor) -> Self::Output {
                Tensor::$method(&self, &other)
            }
        }

        impl ops::$Trait<f64> for $left {
            type Output = Result<Tensor>;

            fn $method(self, number: f64) -> Self::Output {
                $of_number(&self, number)
            }
        }
    )*};
}

operator!(Add, add, Tensor::add_scalar; Tensor, &Tensor);
operator!(Sub, sub, |x: &Tensor, number: f64| x.add_scalar(-number); Tensor, &Tensor);
operator!(Mul, mul, Tensor::mul_scalar; Tensor, &Tensor);
operator!(Div, div, Tensor::div_scalar; Tensor, &Tensor);

/// An operator of a number with a tensor.
macro_rules! operator_of_number {
    ($Trait:ident, $method:ident, $of_tensor:expr; $($right:ty),*) => {$(
        impl ops::$Trait<$right> for f64 {
            type Output = Result<Tensor>;

            fn $method(self, x: $right) -> Self::Output {
                $of_tensor(&x, self)
            }
        }
    )*};
}

operator_of_number!(Add, add, Tensor::add_scalar; Tensor, &Tensor);
operator_of_number!(Sub, sub, Tensor::rsub_scalar; Tensor, &Tensor);
operator_of_number!(Mul, mul, Tensor::mul_scalar; Tensor, &Tensor);
operator_of_number!(Div, div, Tensor::rdiv_scalar; Tensor, &Tensor);

impl ops::Neg for Tensor {
    type Output = Result<Self>;

    fn neg(self) -> Self::Output {
        Self::neg(&self)
    }
}

impl ops::Neg for &Tensor {
    type Output = Result<Tensor>;

    fn neg(self) -> Self::Output {
        Tensor::neg(self)
    }
}
