//! [`AlphaDropout`] and [`FeatureAlphaDropout`]: dropout that keeps mean and variance.

use sorix_core::{Affine, DropRate, Tensor};

use crate::dropout::{Draw, DropoutLayer, Form, shared_outside};
use crate::error::{Error, Result};

/// Dropout for self-normalising networks: an input of mean 0 and variance 1 keeps both.
///
/// What is dropped becomes `α' = -λα ≈ -1.758`, the value that SELU tends to on the left, and then
/// everything goes through `a x + b`:
///
/// * `a = ((1 - p)(1 + p α'²))^(-1/2)` and `b = -a p α'`,
/// * a kept element becomes `a x + b`, a dropped one `a α' + b = a (1 - p) α'`,
/// * the gradient is multiplied by `a` where kept and is 0 elsewhere.
///
/// At p = 1, where `a` would be infinite, everything becomes `+0.0`, as in the whole family.
///
/// Source: Klambauer et al., *Self-normalizing neural networks*, NeurIPS 2017, "Dropout".
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{AlphaDropout, Generator, Module};
///
/// let dropout = AlphaDropout::new(0.5)?.generator(Generator::new(42));
/// let y = dropout.forward(&tensor([1.0; 100]))?.to_vec::<f64>()?;
/// // a = 0.8864, b = 0.7792: kept 1.6656, dropped -0.7792.
/// assert!(y.iter().all(|y| (y - 1.6656).abs() < 1e-4 || (y + 0.7792).abs() < 1e-4));
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub type AlphaDropout = DropoutLayer<Alpha>;

/// [`AlphaDropout`] of whole channels: the second axis of `(N, C, …)`, with one decision for each
/// channel of each sample.
///
/// Source: the layer of this name in PyTorch; the formula is that of [`AlphaDropout`].
///
/// ```
/// use sorix_core::{DType, Tensor};
/// use sorix_nn::{FeatureAlphaDropout, Generator, Module};
///
/// let dropout = FeatureAlphaDropout::new(0.5)?.generator(Generator::new(42));
/// let y = dropout.forward(&Tensor::ones([4, 8, 3], DType::F64)?)?.to_vec::<f64>()?;
/// assert!(y.chunks(3).all(|channel| channel == [channel[0]; 3]));
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub type FeatureAlphaDropout = DropoutLayer<FeatureAlpha>;

/// The form of [`AlphaDropout`]: each element by itself, replaced and not zeroed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alpha;

/// The form of [`FeatureAlphaDropout`]: whole channels, replaced and not zeroed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeatureAlpha;

impl Form for Alpha {
    fn layer(&self) -> &'static str {
        "AlphaDropout"
    }

    fn mask_shape(&self, shape: &[usize]) -> Result<Vec<usize>> {
        Ok(shape.to_vec())
    }

    fn apply(&self, x: &Tensor, draw: &Draw) -> Result<Tensor> {
        alpha_dropout(x, draw)
    }
}

impl Form for FeatureAlpha {
    fn layer(&self) -> &'static str {
        "FeatureAlphaDropout"
    }

    fn mask_shape(&self, shape: &[usize]) -> Result<Vec<usize>> {
        if shape.len() < 2 {
            return Err(Error::shape("FeatureAlphaDropout", "(N, C, …)", shape));
        }
        Ok(shared_outside(shape, |axis| axis < 2))
    }

    fn apply(&self, x: &Tensor, draw: &Draw) -> Result<Tensor> {
        alpha_dropout(x, draw)
    }
}

fn alpha_dropout(x: &Tensor, draw: &Draw) -> Result<Tensor> {
    let Draw { rate, at, save, .. } = *draw;
    Ok(match Alpha::affine(rate) {
        Some(affine) => x.dropout_affine(rate, at, &draw.mask_shape, affine, save)?,
        None => x.dropout_broadcast(rate, at, &draw.mask_shape, save)?,
    })
}

impl Alpha {
    /// The map that keeps mean 0 and variance 1 at this rate, see [`AlphaDropout`]. None at p = 0 and
    /// p = 1, where it is plain dropout.
    ///
    /// ```
    /// use sorix_nn::dropout::Alpha;
    /// let affine = Alpha::affine(0.5.try_into()?).unwrap();
    /// assert!((affine.scale - 0.8864).abs() < 1e-4 && (affine.dropped + 0.7792).abs() < 1e-4);
    /// assert_eq!(Alpha::affine(1.0.try_into()?), None);
    /// # Ok::<(), sorix_core::InvalidRate>(())
    /// ```
    #[must_use]
    pub fn affine(rate: DropRate) -> Option<Affine> {
        // -λα for the λ and α of SELU.
        const ALPHA: f64 = -1.758_099_340_847_376_9;
        let p = rate.p();
        if p == 0.0 || p == 1.0 {
            return None;
        }
        let scale = 1.0 / ((1.0 - p) * (1.0 + p * ALPHA * ALPHA)).sqrt();
        Some(Affine {
            scale,
            shift: -scale * p * ALPHA,
            dropped: scale * (1.0 - p) * ALPHA,
        })
    }
}
