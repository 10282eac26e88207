//! [`Softmax`]: numbers to probabilities along an axis.

use sorix_core::Tensor;

use crate::dropout::check_whole;
use crate::error::Result;
use crate::module::Module;

/// `exp(x) / sum(exp(x))` along an axis.
///
/// For a loss give the input of this layer to [`cross_entropy`](crate::loss::cross_entropy), which
/// computes the logarithm without it and loses no digits.
///
/// Source: Bridle, *Probabilistic interpretation of feedforward classification network outputs, with
/// relationships to statistical pattern recognition*, Neurocomputing, 1990.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{Module, Softmax};
/// let y = Softmax::new(-1).forward(&tensor([[0.0, 0.0], [1000.0, 0.0]]))?;
/// assert_eq!(y.to_vec::<f64>()?, [0.5, 0.5, 1.0, 0.0]);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Module)]
pub struct Softmax {
    axis: isize,
}

impl Softmax {
    /// Along `axis`; a negative one counts from the last.
    #[must_use]
    pub fn new(axis: isize) -> Self {
        Self { axis }
    }
}

impl Module for Softmax {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let own = |axis: usize| {
            let own = self.axis.checked_add_unsigned(x.ndim());
            let own = if self.axis < 0 { own } else { Some(self.axis) };
            own == isize::try_from(axis).ok()
        };
        check_whole("Softmax", x.shape(), own)?;
        Ok(x.softmax(self.axis)?)
    }
}
