//! [`Affine`]: what kept and dropped elements become in a dropout that is not the inverted one.

/// What a mask makes of an element: `scale * x + shift` where it keeps, `dropped` elsewhere.
///
/// Inverted dropout is the case `scale = 1/(1-p)`, with `shift` and `dropped` zero. Alpha dropout
/// needs all three; stochastic depth without rescaling needs a scale of 1.
///
/// `scale` and `shift` are rounded once to the type computed in (f32 for f32, f16 and bf16, f64 for
/// f64); product and sum are rounded each in that type, and the sum once more to the element type.
/// `dropped` is rounded to the type computed in and to the element type. It is selected, so NaN and
/// infinity do not leak. With a shift of zero and a dropped value of `+0.0` it is a multiplication
/// and nothing is added: a product of `-0.0` stays what it is.
///
/// ```
/// use sorix_kernels::{Affine, BitMask, Broadcast, dropout};
///
/// let mask = BitMask::from_bools(&[true, false]);
/// let affine = Affine { scale: 2.0, shift: 1.0, dropped: -3.0 };
/// let mut y = [0.0; 2];
/// dropout::apply_affine(affine, &mask, &Broadcast::full(2), &[10.0, f64::NAN], &mut y)?;
/// assert_eq!(y, [21.0, -3.0]);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// What a kept element is multiplied by.
    pub scale: f64,
    /// What is added to the product.
    pub shift: f64,
    /// What a dropped element becomes.
    pub dropped: f64,
}

impl Affine {
    /// `scale * x` where kept, `+0.0` elsewhere.
    #[must_use]
    pub fn scale(scale: f64) -> Self {
        Self {
            scale,
            shift: 0.0,
            dropped: 0.0,
        }
    }

    /// What the gradient is multiplied by: `scale` where kept, and `+0.0` elsewhere.
    ///
    /// ```
    /// use sorix_kernels::Affine;
    /// let affine = Affine { scale: 2.0, shift: 1.0, dropped: -3.0 };
    /// assert_eq!(affine.derivative(), Affine::scale(2.0));
    /// ```
    #[must_use]
    pub fn derivative(self) -> Self {
        Self::scale(self.scale)
    }

    /// Whether it is a multiplication and nothing else: no shift, and `+0.0` for what is dropped.
    pub(crate) fn is_scale(self) -> bool {
        self.shift == 0.0 && self.dropped.to_bits() == 0
    }
}
