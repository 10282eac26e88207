//! [`DropPath`]: stochastic depth.

use std::sync::Arc;

use sorix_core::{Affine, Tensor};

use crate::dropout::{Draw, DropoutLayer, Form, shared_outside};
use crate::error::{Error, Result};

/// Stochastic depth: drops the whole input for some samples, so that a residual block
/// `x + drop_path(f(x))` is skipped for them and the network is shallower in training.
///
/// The first axis is the batch; each sample is dropped with probability p and scaled by
/// `1 / (1 - p)` otherwise. The mask has one bit for each sample. Options:
/// [`per_batch`](DropoutLayer::per_batch), [`scale_by_keep`](DropoutLayer::scale_by_keep).
///
/// Source: Huang et al., *Deep networks with stochastic depth*, ECCV 2016. The name and
/// `scale_by_keep` are those of timm; in torchvision it is `StochasticDepth`, with the modes `row` and
/// `batch`.
///
/// ```
/// use sorix_core::{DType, Tensor};
/// use sorix_nn::{DropPath, Generator, Module};
///
/// let drop_path = DropPath::new(0.5)?.generator(Generator::new(42));
/// let y = drop_path.forward(&Tensor::ones([100, 3], DType::F64)?)?.to_vec::<f64>()?;
/// assert!(y.chunks(3).all(|sample| sample == [0.0; 3] || sample == [2.0; 3]));
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub type DropPath = DropoutLayer<Paths>;

/// The form of [`DropPath`]: whole samples, or the whole batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paths {
    per_batch: bool,
    scale_by_keep: bool,
}

impl Paths {
    /// Each sample is dropped by itself.
    ///
    /// ```
    /// use sorix_nn::dropout::{Form, Paths};
    /// assert_eq!(Paths::per_sample().mask_shape(&[8, 3])?, [8, 1]);
    /// assert_eq!(Paths::per_batch().mask_shape(&[8, 3])?, [1, 1]);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub const fn per_sample() -> Self {
        Self {
            per_batch: false,
            scale_by_keep: true,
        }
    }

    /// All samples are dropped, or none. For an example see [`per_sample`](Self::per_sample).
    #[must_use]
    pub const fn per_batch() -> Self {
        Self {
            per_batch: true,
            scale_by_keep: true,
        }
    }

    /// Whether what is kept is multiplied by `1 / (1 - p)`; `true` unless set.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::dropout::Paths;
    /// use sorix_nn::{Generator, Mode, functional};
    ///
    /// let (paths, generator) = (Paths::per_sample().scale_by_keep(false), Generator::new(42));
    /// let y = functional::dropout_form(&paths, &tensor([3.0; 100]), 0.5, Mode::Train, &generator)?;
    /// assert!(y.to_vec::<f64>()?.iter().all(|&y| y == 0.0 || y == 3.0));
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub const fn scale_by_keep(self, scale_by_keep: bool) -> Self {
        Self {
            scale_by_keep,
            ..self
        }
    }

    /// Whether what is kept is multiplied by `1 / (1 - p)`.
    ///
    /// ```
    /// use sorix_nn::dropout::Paths;
    /// assert!(!Paths::per_batch().scale_by_keep(false).scales_by_keep());
    /// ```
    #[must_use]
    pub const fn scales_by_keep(self) -> bool {
        self.scale_by_keep
    }
}

impl Default for Paths {
    fn default() -> Self {
        Self::per_sample()
    }
}

impl DropoutLayer<Paths> {
    /// Drops all samples of a call or none, as the paper does.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{DropPath, Module};
    ///
    /// let y = DropPath::new(0.5)?.per_batch().forward(&tensor([1.0; 100]))?.to_vec::<f64>()?;
    /// assert!(y == [0.0; 100] || y == [2.0; 100]);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn per_batch(mut self) -> Self {
        Arc::make_mut(&mut self.form).per_batch = true;
        self
    }

    /// Whether what is kept is multiplied by `1 / (1 - p)`, so that the expected value stays; `true`
    /// unless set.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{DropPath, Module};
    ///
    /// let drop_path = DropPath::new(0.5)?.scale_by_keep(false);
    /// let y = drop_path.forward(&tensor([3.0; 100]))?.to_vec::<f64>()?;
    /// assert!(y.iter().all(|&y| y == 0.0 || y == 3.0));
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn scale_by_keep(mut self, scale_by_keep: bool) -> Self {
        Arc::make_mut(&mut self.form).scale_by_keep = scale_by_keep;
        self
    }
}

impl Form for Paths {
    fn layer(&self) -> &'static str {
        "DropPath"
    }

    fn mask_shape(&self, shape: &[usize]) -> Result<Vec<usize>> {
        if shape.is_empty() && !self.per_batch {
            return Err(Error::shape("DropPath", "(N, …)", shape));
        }
        Ok(shared_outside(shape, |axis| axis == 0 && !self.per_batch))
    }

    fn apply(&self, x: &Tensor, draw: &Draw) -> Result<Tensor> {
        let Draw { rate, at, save, .. } = *draw;
        Ok(if self.scale_by_keep || rate.p() == 0.0 {
            x.dropout_broadcast(rate, at, &draw.mask_shape, save)?
        } else {
            x.dropout_affine(rate, at, &draw.mask_shape, Affine::scale(1.0), save)?
        })
    }

    fn apply_add(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        residual: &Tensor,
        draw: &Draw,
    ) -> Result<Tensor> {
        let Draw { rate, at, save, .. } = *draw;
        let x = bias.map_or_else(|| Ok(x.clone()), |bias| x.add(bias))?;
        Ok(if self.scale_by_keep || rate.p() == 0.0 {
            x.dropout_add_broadcast(residual, rate, at, &draw.mask_shape, save)?
        } else {
            residual.add(&self.apply(&x, draw)?)?
        })
    }
}
