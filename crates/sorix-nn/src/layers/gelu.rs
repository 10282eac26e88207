//! [`GELU`]: the Gaussian error linear unit.

use sorix_core::Tensor;

use crate::error::Result;
use crate::module::Module;

/// `x Φ(x)` of each element, where Φ is the distribution function of the standard normal
/// distribution; exact, or by its approximation with tanh.
///
/// Source: Hendrycks and Gimpel, *Gaussian error linear units (GELUs)*, arXiv:1606.08415.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{GELU, Module};
/// let one = tensor(1.0);
/// assert!((GELU::new().forward(&one)?.item::<f64>()? - 0.8413447).abs() < 1e-7);
/// assert!((GELU::with_tanh().forward(&one)?.item::<f64>()? - 0.8411920).abs() < 1e-7);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, Module)]
pub struct GELU {
    with_tanh: bool,
}

impl GELU {
    /// The exact one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The approximation `x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2`, which GPT-2 and BERT's first
    /// release use.
    #[must_use]
    pub fn with_tanh() -> Self {
        Self { with_tanh: true }
    }
}

impl Module for GELU {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(if self.with_tanh {
            x.gelu_tanh()?
        } else {
            x.gelu()?
        })
    }
}
