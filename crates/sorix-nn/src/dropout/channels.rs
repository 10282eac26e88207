//! [`Dropout1d`], [`Dropout2d`], [`Dropout3d`]: whole channels.

use sorix_core::Tensor;

use crate::dropout::{Draw, DropoutLayer, Form, shared_outside};
use crate::error::{Error, Result};

/// Drops whole channels of `(N, C, L)` or, without a batch, `(C, L)`.
///
/// Positions of a channel that lie beside each other say much the same, so that dropping single ones
/// takes little away; this drops a channel of a sample with all its positions, with probability p,
/// and scales the others by `1 / (1 - p)`. The mask has one bit for each channel of each sample.
///
/// For channels that come last see [`channels_last`](DropoutLayer::channels_last). An input of
/// another rank is an error, in training.
///
/// Source: Tompson et al., *Efficient object localization using convolutional networks*, CVPR 2015,
/// section 3.2.
///
/// ```
/// use sorix_core::{DType, Tensor};
/// use sorix_nn::{Dropout1d, Generator, Module};
///
/// let dropout = Dropout1d::new(0.5)?.generator(Generator::new(42));
/// let y = dropout.forward(&Tensor::ones([2, 8, 5], DType::F64)?)?.to_vec::<f64>()?;
/// assert!(y.chunks(5).all(|channel| channel == [0.0; 5] || channel == [2.0; 5]));
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub type Dropout1d = DropoutLayer<Channels<1>>;

/// Drops whole channels of `(N, C, H, W)` or, without a batch, `(C, H, W)`; otherwise as
/// [`Dropout1d`].
///
/// An input of three axes has no batch here, as PyTorch has announced for its layer of this name;
/// today that one takes it for `(N, C, L)`, which here is the business of [`Dropout1d`].
///
/// ```
/// use sorix_core::{DType, Tensor};
/// use sorix_nn::{Dropout2d, Generator, Module};
///
/// let dropout = Dropout2d::new(0.5)?.generator(Generator::new(42));
/// let y = dropout.forward(&Tensor::ones([2, 8, 3, 3], DType::F64)?)?.to_vec::<f64>()?;
/// assert!(y.chunks(9).all(|channel| channel == [0.0; 9] || channel == [2.0; 9]));
///
/// let error = dropout.forward(&Tensor::ones([8, 9], DType::F64)?).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "Dropout2d: expected (N, C, H, W) or (C, H, W), got shape [8, 9]"
/// );
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub type Dropout2d = DropoutLayer<Channels<2>>;

/// Drops whole channels of `(N, C, D, H, W)` or, without a batch, `(C, D, H, W)`; otherwise as
/// [`Dropout1d`].
///
/// ```
/// use sorix_core::{DType, Tensor};
/// use sorix_nn::{Dropout3d, Generator, Module};
///
/// let dropout = Dropout3d::new(0.5)?.generator(Generator::new(42));
/// let y = dropout.forward(&Tensor::ones([16, 2, 2, 2], DType::F64)?)?.to_vec::<f64>()?;
/// assert!(y.chunks(8).all(|channel| channel == [0.0; 8] || channel == [2.0; 8]));
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub type Dropout3d = DropoutLayer<Channels<3>>;

/// The form of [`Dropout1d`], [`Dropout2d`] and [`Dropout3d`]: whole channels of inputs with
/// `SPATIAL` axes, 1 to 3, beside those of batch and channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels<const SPATIAL: usize> {
    last: bool,
}

impl<const SPATIAL: usize> Channels<SPATIAL> {
    /// Channels come after the batch: `(N, C, H, W)`.
    #[must_use]
    pub const fn first() -> Self {
        const {
            assert!(
                1 <= SPATIAL && SPATIAL <= 3,
                "there are 1 to 3 spatial axes"
            )
        };
        Self { last: false }
    }

    /// Channels come last: `(N, H, W, C)`.
    #[must_use]
    pub const fn last() -> Self {
        let mut channels = Self::first();
        channels.last = true;
        channels
    }

    /// The name of the layer, and what it takes.
    fn expected(self) -> (&'static str, &'static str) {
        match (SPATIAL, self.last) {
            (1, false) => ("Dropout1d", "(N, C, L) or (C, L)"),
            (1, true) => ("Dropout1d", "(N, L, C) or (L, C)"),
            (2, false) => ("Dropout2d", "(N, C, H, W) or (C, H, W)"),
            (2, true) => ("Dropout2d", "(N, H, W, C) or (H, W, C)"),
            (_, false) => ("Dropout3d", "(N, C, D, H, W) or (C, D, H, W)"),
            (_, true) => ("Dropout3d", "(N, D, H, W, C) or (D, H, W, C)"),
        }
    }
}

impl<const SPATIAL: usize> Default for Channels<SPATIAL> {
    fn default() -> Self {
        Self::first()
    }
}

impl<const SPATIAL: usize> DropoutLayer<Channels<SPATIAL>> {
    /// Takes inputs whose channels come last: `(N, L, C)`, `(N, H, W, C)`, `(N, D, H, W, C)`, or
    /// those without `N`.
    ///
    /// The decisions are those for the same input with channels first.
    ///
    /// ```
    /// use sorix_core::{DType, Tensor};
    /// use sorix_nn::{Dropout2d, Generator, Module};
    ///
    /// let first = Dropout2d::new(0.5)?.generator(Generator::new(42));
    /// let last = Dropout2d::new(0.5)?.channels_last().generator(Generator::new(42));
    /// let x = Tensor::ones([2, 8, 3, 4], DType::F64)?;
    /// let y = last.forward(&x.permute(&[0, 2, 3, 1])?)?;
    /// assert_eq!(y.permute(&[0, 3, 1, 2])?.to_vec::<f64>()?, first.forward(&x)?.to_vec::<f64>()?);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn channels_last(mut self) -> Self {
        self.form = Channels::last().into();
        self
    }
}

impl<const SPATIAL: usize> Form for Channels<SPATIAL> {
    fn layer(&self) -> &'static str {
        self.expected().0
    }

    fn mask_shape(&self, shape: &[usize]) -> Result<Vec<usize>> {
        let batch = match shape.len().checked_sub(SPATIAL) {
            Some(1) => None,
            Some(2) => Some(0),
            _ => {
                let (layer, expected) = self.expected();
                return Err(Error::shape(layer, expected, shape));
            }
        };
        let channels = match (self.last, batch) {
            (true, _) => shape.len() - 1,
            (false, None) => 0,
            (false, Some(batch)) => batch + 1,
        };
        Ok(shared_outside(shape, |axis| {
            axis == channels || Some(axis) == batch
        }))
    }

    fn apply(&self, x: &Tensor, draw: &Draw) -> Result<Tensor> {
        Ok(x.dropout_broadcast(draw.rate, draw.at, &draw.mask_shape, draw.save)?)
    }
}
