//! [`Activation`]: what a kernel makes of an element before it drops.

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
}

impl Activation {
    /// Every activation there is.
    pub const ALL: &'static [Self] = &[Self::Relu];

    /// The name in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
        }
    }
}
