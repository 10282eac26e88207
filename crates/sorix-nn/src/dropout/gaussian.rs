//! [`GaussianDropout`]: multiplicative noise.

use sorix_core::{DropRate, SaveMask, Tensor};

use crate::dropout::replay::replayed;
use crate::dropout::{Draw, DropoutLayer, Form};
use crate::error::Result;

/// Multiplies each element by a number from the normal distribution of mean 1 and variance
/// `p / (1 - p)`: what [`Dropout`](crate::Dropout) does to mean and variance, without zeros.
///
/// At p = 1, where the variance would be infinite, everything becomes `+0.0`, as in the whole family.
/// No element is dropped otherwise, so a NaN or an infinity of the input stays one.
///
/// There is no mask of bits. With [`SaveMask::Bits`] the noise itself is kept until backward, as many
/// elements as the tensor has and of its dtype; with [`SaveMask::Replay`] the key alone is kept, and
/// backward draws the noise again.
///
/// The noise is what [`Tensor::normal`] draws by the same key; it is independent of the key's mask.
///
/// Source: Srivastava et al., *Dropout: a simple way to prevent neural networks from overfitting*,
/// JMLR 15 (2014), section 10; the rate as in Keras.
///
/// ```
/// use sorix_core::{DType, Tensor};
/// use sorix_nn::{GaussianDropout, Generator, Module};
///
/// let dropout = GaussianDropout::new(0.2)?.generator(Generator::new(42));
/// let noise = dropout.forward(&Tensor::ones([10_000], DType::F64)?)?;
/// let deviation = noise.add_scalar(-1.0)?;
/// assert!(deviation.mean()?.item::<f64>()?.abs() < 0.02);
/// let variance = deviation.mul(&deviation)?.mean()?.item::<f64>()?;
/// assert!((variance - 0.25).abs() < 0.02);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub type GaussianDropout = DropoutLayer<Gaussian>;

/// The form of [`GaussianDropout`]: noise on each element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gaussian;

impl Form for Gaussian {
    fn layer(&self) -> &'static str {
        "GaussianDropout"
    }

    fn mask_shape(&self, shape: &[usize]) -> Result<Vec<usize>> {
        Ok(shape.to_vec())
    }

    fn apply(&self, x: &Tensor, draw: &Draw) -> Result<Tensor> {
        let Draw { rate, at, save, .. } = *draw;
        let Some(deviation) = Self::deviation(rate) else {
            return Ok(x.dropout(rate, at, save)?);
        };
        let add_noise =
            move |x: &Tensor| x.mul(&Tensor::normal(x.shape(), 1.0, deviation, x.dtype(), at)?);
        Ok(match save {
            SaveMask::Replay => replayed("GaussianDropoutBackward", x, add_noise)?,
            _ => add_noise(x)?,
        })
    }
}

impl Gaussian {
    /// The standard deviation of the noise at this rate, see [`GaussianDropout`]. None at p = 0 and p = 1,
    /// where it is plain dropout.
    ///
    /// ```
    /// use sorix_nn::dropout::Gaussian;
    /// assert_eq!(Gaussian::deviation(0.5.try_into()?), Some(1.0));
    /// assert_eq!(Gaussian::deviation(1.0.try_into()?), None);
    /// # Ok::<(), sorix_core::InvalidRate>(())
    /// ```
    #[must_use]
    pub fn deviation(rate: DropRate) -> Option<f64> {
        let p = rate.p();
        (p != 0.0 && p != 1.0).then(|| (p / (1.0 - p)).sqrt())
    }
}
