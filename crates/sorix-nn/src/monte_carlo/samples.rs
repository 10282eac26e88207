//! [`McSamples`]: outputs of a model, and what they say together.

use sorix_core::{DType, Tensor};

use crate::error::Result;

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
    /// Computed in f64 from the squared distances to the mean, so nothing cancels, and rounded to
    /// the dtype of the samples.
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
        let mean = self.mean_f64()?;
        let distances = self.sum_f64(|sample| {
            let distance = sample.sub(&mean)?;
            distance.mul(&distance)
        })?;
        self.rounded(distances.mul_scalar(1.0 / (self.samples.len() as f64 - 1.0))?)
    }

    fn mean_f64(&self) -> Result<Tensor> {
        let sum = self.sum_f64(|sample| Ok(sample.clone()))?;
        Ok(sum.mul_scalar(1.0 / self.samples.len() as f64)?)
    }

    /// The sum of `f` of each sample.
    fn sum_f64(&self, f: impl Fn(&Tensor) -> sorix_core::Result<Tensor>) -> Result<Tensor> {
        let term = |sample: &Tensor| f(&sample.to_dtype(DType::F64)?);
        let (first, rest) = self
            .samples
            .split_first()
            .expect("there is at least one sample");
        let sum = rest
            .iter()
            .try_fold(term(first)?, |sum, sample| sum.add(&term(sample)?))?;
        Ok(sum)
    }

    fn rounded(&self, x: Tensor) -> Result<Tensor> {
        Ok(x.to_dtype(self.samples[0].dtype())?)
    }
}
