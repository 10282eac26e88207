//! [`Activation`]: what a kernel makes of an element before it drops.

use crate::function::Function;

/// A function of one number, made in the same pass as dropout: see
/// [`act_dropout`](crate::dropout::act_dropout).
///
/// ```
/// use sorix_kernels::Activation;
/// assert_eq!(Activation::ALL[0].name(), "relu");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Activation {
    /// x if it is greater than 0, else `+0.0`; NaN stays NaN.
    ///
    /// Source: Nair and Hinton, *Rectified linear units improve restricted Boltzmann machines*, ICML 2010.
    Relu,
    /// [`Function::Gelu`]: `x Φ(x)`, the exact form.
    Gelu,
    /// [`Function::GeluTanh`]: the approximation of the GELU by tanh.
    GeluTanh,
    /// [`Function::Silu`]: `x / (1 + e^-x)`.
    Silu,
}

impl Activation {
    /// Every activation there is.
    pub const ALL: &'static [Self] = &[Self::Relu, Self::Gelu, Self::GeluTanh, Self::Silu];

    /// The name in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_tanh",
            Self::Silu => "silu",
        }
    }

    /// The function that it is.
    ///
    /// ```
    /// use sorix_kernels::{Activation, Function};
    /// assert_eq!(Activation::Silu.function(), Function::Silu);
    /// ```
    #[must_use]
    pub fn function(self) -> Function {
        match self {
            Self::Relu => Function::Relu,
            Self::Gelu => Function::Gelu,
            Self::GeluTanh => Function::GeluTanh,
            Self::Silu => Function::Silu,
        }
    }

    /// The derivative of [`function`](Self::function).
    ///
    /// ```
    /// use sorix_kernels::{Activation, Function};
    /// assert_eq!(Activation::Relu.derivative(), Function::ReluDerivative);
    /// ```
    #[must_use]
    pub fn derivative(self) -> Function {
        match self {
            Self::Relu => Function::ReluDerivative,
            Self::Gelu => Function::GeluDerivative,
            Self::GeluTanh => Function::GeluTanhDerivative,
            Self::Silu => Function::SiluDerivative,
        }
    }
}
