//! [`LockedDropout`]: the same features at every step of a sequence.

use sorix_core::Tensor;

use crate::dropout::{Draw, DropoutLayer, Form, index_of, shared_outside};
use crate::error::Result;

/// Drops the same features at every step of a sequence: one mask for each sample, locked over time.
///
/// A recurrent network that loses different features at each step hardly remembers anything; one that
/// loses the same ones throughout still does. The mask has one bit for each feature of each
/// sample. Also called variational dropout.
///
/// Time is the last axis but one, as in `(N, T, C)` and, without a batch, `(T, C)`; for `(T, N, C)`
/// set [`time_axis`](DropoutLayer::time_axis).
///
/// Source: Gal and Ghahramani, *A theoretically grounded application of dropout in recurrent neural
/// networks*, NeurIPS 2016; used as here by Merity et al., *Regularizing and optimizing LSTM language
/// models*, ICLR 2018.
///
/// ```
/// use sorix_core::{DType, Tensor};
/// use sorix_nn::{Generator, LockedDropout, Module};
///
/// let dropout = LockedDropout::new(0.5)?.generator(Generator::new(42));
/// let y = dropout.forward(&Tensor::ones([2, 6, 10], DType::F64)?)?.to_vec::<f64>()?;
/// assert!(y.chunks(60).all(|sample| sample.chunks(10).all(|step| step == &sample[..10])));
/// assert_ne!(y[..10], y[60..70]);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub type LockedDropout = DropoutLayer<Locked>;

/// The form of [`LockedDropout`]: the same elements at every index of the axis of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locked {
    time_axis: isize,
}

impl Locked {
    /// Time is this axis; a negative one counts from the last.
    #[must_use]
    pub const fn over(time_axis: isize) -> Self {
        Self { time_axis }
    }
}

impl Default for Locked {
    fn default() -> Self {
        Self::over(-2)
    }
}

impl DropoutLayer<Locked> {
    /// Takes this axis for time; a negative one counts from the last. An input without it is an
    /// error, in training.
    ///
    /// ```
    /// use sorix_core::{DType, Tensor};
    /// use sorix_nn::{LockedDropout, Module};
    ///
    /// let dropout = LockedDropout::new(0.5)?.time_axis(0);
    /// let y = dropout.forward(&Tensor::ones([6, 2, 10], DType::F64)?)?.to_vec::<f64>()?;
    /// assert!(y.chunks(20).all(|step| step == &y[..20]));
    ///
    /// let error = LockedDropout::new(0.5)?.forward(&Tensor::ones([6], DType::F64)?).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "LockedDropout: expected a shape with axis -2 of time, got shape [6]"
    /// );
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn time_axis(mut self, time_axis: isize) -> Self {
        self.form = Locked::over(time_axis).into();
        self
    }
}

impl Form for Locked {
    fn layer(&self) -> &'static str {
        "LockedDropout"
    }

    fn mask_shape(&self, shape: &[usize]) -> Result<Vec<usize>> {
        let time = index_of("LockedDropout", self.time_axis, " of time", shape)?;
        Ok(shared_outside(shape, |axis| axis != time))
    }

    fn keeps_rows_apart(&self, shape: &[usize]) -> bool {
        // The first axis is not both time and the batch.
        index_of("LockedDropout", self.time_axis, " of time", shape) != Ok(0)
    }

    fn apply(&self, x: &Tensor, draw: &Draw) -> Result<Tensor> {
        Ok(x.dropout_broadcast(draw.rate, draw.at, &draw.mask_shape, draw.save)?)
    }
}
