//! [`McSamples`]: outputs of a model, and what they say together.

use sorix_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::monte_carlo::McMoments;

/// What [`mc_samples`](crate::mc_samples) drew: one output of the model for each sample, and at least one.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{Dropout, mc_samples};
///
/// let dropout = Dropout::new(0.5)?;
/// let samples = mc_samples(&dropout, &tensor([1.0, 1.0]), 10, 42)?;
/// assert_eq!(samples.samples().len(), 10);
/// assert_eq!(samples.mean()?.shape(), [2]);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct McSamples {
    samples: Vec<Tensor>,
}

impl McSamples {
    /// At least one.
    pub(super) fn new(samples: Vec<Tensor>) -> Self {
        Self { samples }
    }

    /// The outputs, by their number.
    #[must_use]
    pub fn samples(&self) -> &[Tensor] {
        &self.samples
    }

    /// The outputs, to keep.
    #[must_use]
    pub fn into_samples(self) -> Vec<Tensor> {
        self.samples
    }

    /// The mean of each element over the samples: the prediction. Computed in f64, in the order of
    /// the samples, and rounded to their dtype.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    pub fn mean(&self) -> Result<Tensor> {
        self.rounded(self.mean_f64()?)
    }

    /// The unbiased variance (divided by n - 1) of each element over the samples: how sure the model
    /// is. NaN where there is a single sample.
    ///
    /// Computed in f64 from distances to the mean of those before, so nothing cancels, and rounded to the
    /// dtype of the samples.
    ///
    /// # Errors
    ///
    /// As [`mean`](McSamples::mean).
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Dropout, mc_samples};
    /// // Far from zero, where the mean of squares less the square of the mean would be off by 10^4.
    /// let samples = mc_samples(&Dropout::new(0.0)?, &tensor([1e10]), 3, 42)?;
    /// assert_eq!(samples.variance()?.item::<f64>()?, 0.0);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn variance(&self) -> Result<Tensor> {
        let mut moments = McMoments::new();
        self.samples.iter().try_for_each(|y| moments.add(y))?;
        moments.variance()
    }

    /// The quantile `q` of each element over the samples: 0 is the least, 0.5 the median, 1 the largest. In
    /// between it is interpolated linearly (type 7 of Hyndman and Fan, *Sample quantiles in statistical
    /// packages*, The American Statistician 50 (1996)). Computed in f64 and rounded to their dtype; NaN is
    /// larger than any number.
    ///
    /// # Errors
    ///
    /// If q is not in [0, 1], and if allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Dropout, mc_samples};
    /// let samples = mc_samples(&Dropout::new(0.5)?, &tensor([1.0; 8]), 100, 42)?;
    /// assert_eq!(samples.quantile(0.0)?.to_vec::<f64>()?, [0.0; 8]);
    /// assert_eq!(samples.quantile(1.0)?.to_vec::<f64>()?, [2.0; 8]);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn quantile(&self, q: f64) -> Result<Tensor> {
        if !(0.0..=1.0).contains(&q) {
            return Err(Error::Hyperparameter {
                op: "McSamples::quantile",
                what: "q",
                expected: "a number in [0, 1]",
                got: q,
            });
        }
        let to_vec = |y: &Tensor| y.to_dtype(DType::F64)?.to_vec::<f64>();
        let all = self.samples.iter().map(to_vec);
        let all = all.collect::<sorix_core::Result<Vec<_>>>()?;
        let mut quantiles = all[0].clone();
        let mut sorted = Vec::with_capacity(all.len());
        let at = q * (all.len() - 1) as f64;
        let (below, share) = (at.floor() as usize, at.fract());
        for (element, quantile) in quantiles.iter_mut().enumerate() {
            sorted.clear();
            sorted.extend(all.iter().map(|sample| sample[element]));
            sorted.sort_by(f64::total_cmp);
            let (low, high) = (sorted[below], sorted[(below + 1).min(sorted.len() - 1)]);
            // Not of what lies as far as infinity, unless it has a share.
            *quantile = if share == 0.0 {
                low
            } else {
                low + (high - low) * share
            };
        }
        self.rounded(Tensor::from_vec(quantiles, self.samples[0].shape())?)
    }

    fn mean_f64(&self) -> Result<Tensor> {
        let term = |sample: &Tensor| sample.to_dtype(DType::F64);
        let (first, rest) = self
            .samples
            .split_first()
            .expect("there is at least one sample");
        let sum = rest
            .iter()
            .try_fold(term(first)?, |sum, sample| sum.add(&term(sample)?))?;
        Ok(sum.mul_scalar(1.0 / self.samples.len() as f64)?)
    }

    fn rounded(&self, x: Tensor) -> Result<Tensor> {
        Ok(x.to_dtype(self.samples[0].dtype())?)
    }
}
