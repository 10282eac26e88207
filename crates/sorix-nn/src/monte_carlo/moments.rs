//! What many outputs say together, without keeping them.

use sorix_core::autograd::no_grad;
use sorix_core::{DType, Tensor};

use crate::error::{Error, Result};

/// The mean and the variance of outputs that come one after another, of which none is kept.
///
/// Computed in f64, in the order in which they come: the same bits as those of
/// [`McSamples`](crate::McSamples).
///
/// Source of the variance: Welford, *Note on a method for calculating corrected sums of squares and
/// products*, Technometrics 4 (1962).
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::McMoments;
///
/// let mut moments = McMoments::new();
/// for y in [1.0, 2.0, 6.0] {
///     moments.add(&tensor([y]))?;
/// }
/// assert_eq!(moments.mean()?.item::<f64>()?, 3.0);
/// assert_eq!(moments.variance()?.item::<f64>()?, 7.0);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct McMoments {
    count: usize,
    state: Option<State>,
}

#[derive(Clone, Debug)]
struct State {
    /// The dtype of the outputs; what is kept of them is f64.
    dtype: DType,
    sum: Tensor,
    mean: Tensor,
    /// The sum of the squared distances to the mean.
    squares: Tensor,
}

impl McMoments {
    /// Of none yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one more output into account. It is not recorded.
    ///
    /// # Errors
    ///
    /// If it has another shape or dtype than those before, and if allocation fails.
    pub fn add(&mut self, y: &Tensor) -> Result<()> {
        if let Some(state) = &self.state {
            let (shape, dtype) = (state.sum.shape(), state.dtype);
            if y.shape() != shape || y.dtype() != dtype {
                let expected = format!("{dtype} of shape {shape:?} as before");
                return Err(Error::shape("McMoments", expected, y.shape()));
            }
        }
        let (count, dtype) = (self.count + 1, y.dtype());
        let y = y.detach().to_dtype(DType::F64)?;
        let state = no_grad(|| -> Result<State> {
            match &self.state {
                None => Ok(State {
                    dtype,
                    squares: Tensor::zeros(y.shape(), DType::F64)?,
                    sum: y.clone(),
                    mean: y,
                }),
                Some(before) => {
                    let distance = y.sub(&before.mean)?;
                    let mean = before.mean.add(&distance.mul_scalar(1.0 / count as f64)?)?;
                    let square = distance.mul(&y.sub(&mean)?)?;
                    Ok(State {
                        dtype,
                        sum: before.sum.add(&y)?,
                        squares: before.squares.add(&square)?,
                        mean,
                    })
                }
            }
        })?;
        (self.count, self.state) = (count, Some(state));
        Ok(())
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The mean of each element, in the dtype of the outputs.
    ///
    /// # Errors
    ///
    /// If there was none, and if allocation fails.
    pub fn mean(&self) -> Result<Tensor> {
        let state = self.state()?;
        Ok(state.mean_of_sum(self.count)?.to_dtype(state.dtype)?)
    }

    /// The unbiased variance (divided by n - 1) of each element, in the dtype of the outputs. NaN of a
    /// single one.
    ///
    /// # Errors
    ///
    /// As [`mean`](Self::mean).
    pub fn variance(&self) -> Result<Tensor> {
        Ok(self.variance_f64()?.to_dtype(self.state()?.dtype)?)
    }

    /// The standard error of the mean of each element: the square root of the variance over the number
    /// of outputs.
    ///
    /// # Errors
    ///
    /// As [`mean`](Self::mean).
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::McMoments;
    /// let mut moments = McMoments::new();
    /// for y in [0.0, 4.0, 0.0, 4.0] {
    ///     moments.add(&tensor([y]))?;
    /// }
    /// let expected = (16.0_f64 / 3.0 / 4.0).sqrt();
    /// assert!((moments.standard_error()?.item::<f64>()? - expected).abs() < 1e-12);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn standard_error(&self) -> Result<Tensor> {
        Ok(self.standard_error_f64()?.to_dtype(self.state()?.dtype)?)
    }

    pub(super) fn standard_error_f64(&self) -> Result<Tensor> {
        let of_mean = self.variance_f64()?.mul_scalar(1.0 / self.count as f64)?;
        Ok(of_mean.sqrt()?)
    }

    fn variance_f64(&self) -> Result<Tensor> {
        let degrees = self.count as f64 - 1.0;
        Ok(self.state()?.squares.mul_scalar(1.0 / degrees)?)
    }

    fn mean_f64(&self) -> Result<Tensor> {
        Ok(self.state()?.mean_of_sum(self.count)?)
    }

    fn state(&self) -> Result<&State> {
        self.state.as_ref().ok_or(Error::NoSamples)
    }
}

impl State {
    /// Not Welford's mean, which is NaN once an output was infinite.
    fn mean_of_sum(&self, count: usize) -> sorix_core::Result<Tensor> {
        self.sum.mul_scalar(1.0 / count as f64)
    }
}

/// What many outputs of a classifier say together: how likely each class is, how unsure the prediction is,
/// and how much of that is the model's doing. None of them is kept.
///
/// Entropies are in nats, f64, of the shape of an output without its last axis.
///
/// Source: Houlsby, Huszar, Ghahramani and Lengyel, *Bayesian active learning for classification and
/// preference learning*, 2011 (mutual information); Gal, *Uncertainty in deep learning*, 2016, section 3.3.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::McClasses;
///
/// // Two samples that are sure, and of different classes.
/// let mut classes = McClasses::new();
/// classes.add(&tensor([[1000.0, 0.0]]))?;
/// classes.add(&tensor([[0.0, 1000.0]]))?;
/// assert_eq!(classes.probabilities()?.to_vec::<f64>()?, [0.5, 0.5]);
/// assert!((classes.entropy()?.item::<f64>()? - 2.0_f64.ln()).abs() < 1e-12);
/// assert_eq!(classes.expected_entropy()?.item::<f64>()?, 0.0);
/// assert!((classes.mutual_information()?.item::<f64>()? - 2.0_f64.ln()).abs() < 1e-12);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct McClasses {
    probabilities: McMoments,
    entropies: McMoments,
}

impl McClasses {
    /// Of none yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one more output into account: logits `[.., classes]`.
    ///
    /// # Errors
    ///
    /// As [`McMoments::add`], and if it has no axes.
    pub fn add(&mut self, logits: &Tensor) -> Result<()> {
        let logits = logits.detach().to_dtype(DType::F64)?;
        let (probabilities, entropy) = no_grad(|| -> Result<_> {
            let logs = logits.log_softmax(-1)?;
            let probabilities = logs.exp()?;
            let entropy = entropy(&probabilities, &logs)?;
            Ok((probabilities, entropy))
        })?;
        self.probabilities.add(&probabilities)?;
        self.entropies.add(&entropy)
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> usize {
        self.probabilities.count()
    }

    /// The mean probability of each class, f64: the prediction.
    ///
    /// # Errors
    ///
    /// If there was no output, and if allocation fails.
    pub fn probabilities(&self) -> Result<Tensor> {
        self.probabilities.mean()
    }

    /// The entropy of the [`probabilities`](Self::probabilities): how unsure the prediction is.
    ///
    /// # Errors
    ///
    /// As [`probabilities`](Self::probabilities).
    pub fn entropy(&self) -> Result<Tensor> {
        let mean = self.probabilities.mean_f64()?;
        Ok(no_grad(|| entropy(&mean, &mean.log()?))?)
    }

    /// The mean entropy of an output: how unsure each sample of the model is, which more data of the same
    /// kind does not change.
    ///
    /// # Errors
    ///
    /// As [`probabilities`](Self::probabilities).
    pub fn expected_entropy(&self) -> Result<Tensor> {
        self.entropies.mean()
    }

    /// The mutual information of the prediction and the model, the [`entropy`](Self::entropy) less the
    /// [`expected_entropy`](Self::expected_entropy): how much the samples contradict each other.
    ///
    /// # Errors
    ///
    /// As [`probabilities`](Self::probabilities).
    pub fn mutual_information(&self) -> Result<Tensor> {
        Ok(self.entropy()?.sub(&self.expected_entropy()?)?)
    }
}

/// Of probabilities and their logarithms, along the last axis. What is impossible adds nothing.
fn entropy(probabilities: &Tensor, logs: &Tensor) -> sorix_core::Result<Tensor> {
    // Zero times minus infinity would be NaN.
    let logs = logs.clamp(-1e300, 0.0)?;
    probabilities.mul(&logs)?.sum_over([-1])?.mul_scalar(-1.0)
}
