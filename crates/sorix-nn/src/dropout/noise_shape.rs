//! [`BroadcastDropout`]: decisions shared along any axes.

use sorix_core::Tensor;

use crate::dropout::{Draw, DropoutLayer, Form, index_of, shared_outside};
use crate::error::{Error, Result};

/// Dropout with decisions shared along any axes: the general form, in the two notations that are in
/// use. Only the small mask is made and kept.
///
/// * [`noise_shape`](DropoutLayer::noise_shape): the shape of the mask, as in Keras.
/// * [`shared_along`](DropoutLayer::shared_along): the axes along which one decision holds, as
///   `broadcast_dims` in Flax.
///
/// ```
/// use sorix_core::{DType, Tensor};
/// use sorix_nn::{BroadcastDropout, Generator, Module};
///
/// let x = Tensor::ones([2, 4, 3], DType::F64)?;
/// let keras = BroadcastDropout::noise_shape(0.5, [None, Some(1), None])?;
/// let flax = BroadcastDropout::shared_along(0.5, [1])?;
/// let y = keras.generator(Generator::new(42)).forward(&x)?.to_vec::<f64>()?;
/// assert_eq!(flax.generator(Generator::new(42)).forward(&x)?.to_vec::<f64>()?, y);
/// // Each of the four rows of a sample has the same zeros.
/// assert!(y.chunks(12).all(|sample| sample.chunks(3).all(|row| row == &sample[..3])));
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub type BroadcastDropout = DropoutLayer<NoiseShape>;

/// The form of [`BroadcastDropout`]: elements that share one decision along some axes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoiseShape(Notation);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Notation {
    Shape(Vec<Option<usize>>),
    Axes(Vec<isize>),
}

impl NoiseShape {
    /// The mask has this shape: for each axis of the input 1, or its length, or `None` for its
    /// length whatever that is.
    #[must_use]
    pub fn of(shape: impl Into<Vec<Option<usize>>>) -> Self {
        Self(Notation::Shape(shape.into()))
    }

    /// One decision holds along all of these axes; a negative one counts from the last.
    #[must_use]
    pub fn shared_along(axes: impl Into<Vec<isize>>) -> Self {
        Self(Notation::Axes(axes.into()))
    }
}

impl DropoutLayer<NoiseShape> {
    /// Drops with probability `p` by a mask of this shape: for each axis of the input 1, or its
    /// length, or `None` for its length whatever that is.
    ///
    /// # Errors
    ///
    /// If p is NaN or outside [0, 1]. Whether the shape fits an input is checked in each call.
    ///
    /// ```
    /// use sorix_core::{DType, Tensor};
    /// use sorix_nn::{BroadcastDropout, Module};
    ///
    /// let dropout = BroadcastDropout::noise_shape(0.5, [Some(2), Some(1)])?;
    /// let error = dropout.forward(&Tensor::ones([3, 4], DType::F32)?).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "BroadcastDropout: expected a shape that [2, 1] covers, got shape [3, 4]"
    /// );
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn noise_shape(p: f64, shape: impl Into<Vec<Option<usize>>>) -> Result<Self> {
        Self::with_form(NoiseShape::of(shape), p)
    }

    /// Drops with probability `p` so that one decision holds along all of these axes; a negative
    /// one counts from the last. Without axes it is [`Dropout`](crate::Dropout).
    ///
    /// # Errors
    ///
    /// If p is NaN or outside [0, 1]. Whether an input has the axes is checked in each call.
    ///
    /// ```
    /// use sorix_core::{DType, Tensor};
    /// use sorix_nn::{BroadcastDropout, Module};
    ///
    /// let dropout = BroadcastDropout::shared_along(0.5, [-1])?;
    /// assert!(dropout.forward(&Tensor::ones([3, 4], DType::F32)?).is_ok());
    /// let error = dropout.forward(&Tensor::ones([], DType::F32)?).unwrap_err();
    /// assert_eq!(error.to_string(), "BroadcastDropout: expected a shape with axis -1, got shape []");
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn shared_along(p: f64, axes: impl Into<Vec<isize>>) -> Result<Self> {
        Self::with_form(NoiseShape::shared_along(axes), p)
    }
}

impl Form for NoiseShape {
    fn layer(&self) -> &'static str {
        "BroadcastDropout"
    }

    fn mask_shape(&self, shape: &[usize]) -> Result<Vec<usize>> {
        let layer = "BroadcastDropout";
        match &self.0 {
            Notation::Shape(noise) => {
                let fits = |(noise, &len): (&Option<usize>, &usize)| match *noise {
                    None => Some(len),
                    Some(noise) => (noise == 1 || noise == len).then_some(noise),
                };
                Some(noise)
                    .filter(|noise| noise.len() == shape.len())
                    .and_then(|noise| noise.iter().zip(shape).map(fits).collect())
                    .ok_or_else(|| {
                        let noise: Vec<String> = noise
                            .iter()
                            .map(|noise| noise.map_or("None".to_owned(), |noise| noise.to_string()))
                            .collect();
                        let expected = format!("a shape that [{}] covers", noise.join(", "));
                        Error::shape(layer, expected, shape)
                    })
            }
            Notation::Axes(axes) => {
                let shared: Vec<usize> = axes
                    .iter()
                    .map(|&axis| index_of(layer, axis, "", shape))
                    .collect::<Result<_>>()?;
                Ok(shared_outside(shape, |axis| !shared.contains(&axis)))
            }
        }
    }

    fn apply(&self, x: &Tensor, draw: &Draw) -> Result<Tensor> {
        Ok(x.dropout_broadcast(draw.rate, draw.at, &draw.mask_shape, draw.save)?)
    }
}
