//! [`AdamW`]: Adam with weight decay beside the gradient.

use sorix_core::Tensor;

use super::adam::{Decay, Moments, STATE_NAMES};
use super::{Optimizer, OptimizerState};
use crate::error::Result;
use crate::hyperparameter::non_negative;

/// Adam with decoupled weight decay, as `torch.optim.AdamW` computes it: [`Adam`](super::Adam)
/// without decay in the gradient, and `w ← w - η λ w` in the same step.
///
/// Source: Loshchilov and Hutter, *Decoupled weight decay regularization*, ICLR 2019.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{AdamW, Optimizer};
///
/// let w = tensor([1.0]).requires_grad(true);
/// let mut adamw = AdamW::new([("w".to_owned(), w.clone())], 0.25)?.weight_decay(0.5)?.eps(0.0)?;
/// w.sum()?.backward()?;
/// adamw.step()?;
/// assert!((w.item::<f64>()? - (1.0 - 0.25 * 0.5 - 0.25)).abs() < 1e-12);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Debug)]
pub struct AdamW {
    moments: Moments,
}

impl AdamW {
    /// Over these parameters, with this learning rate (1e-3 is usual), betas 0.9 and 0.999, `eps`
    /// 1e-8 and weight decay 0.01.
    ///
    /// # Errors
    ///
    /// Where the learning rate is negative or not finite, a parameter was computed by an operation,
    /// or a name comes twice.
    pub fn new(
        parameters: impl IntoIterator<Item = (String, Tensor)>,
        learning_rate: f64,
    ) -> Result<Self> {
        let moments = Moments::new("AdamW", Decay::Parameter(0.01), parameters, learning_rate)?;
        Ok(Self { moments })
    }

    /// With other decay rates of the two moments.
    ///
    /// # Errors
    ///
    /// Where one is not in [0, 1).
    pub fn betas(mut self, first: f64, second: f64) -> Result<Self> {
        self.moments.set_betas(first, second)?;
        Ok(self)
    }

    /// With another number to add to the denominator.
    ///
    /// # Errors
    ///
    /// Where it is negative or not finite.
    pub fn eps(mut self, eps: f64) -> Result<Self> {
        self.moments.set_eps(eps)?;
        Ok(self)
    }

    /// With another weight decay.
    ///
    /// # Errors
    ///
    /// Where it is negative or not finite.
    pub fn weight_decay(mut self, weight_decay: f64) -> Result<Self> {
        non_negative("AdamW", "weight decay", weight_decay)?;
        self.moments.decay = Decay::Parameter(weight_decay);
        Ok(self)
    }
}

impl Optimizer for AdamW {
    fn step(&mut self) -> Result<()> {
        self.moments.step()
    }

    fn zero_grad(&self) {
        self.moments.zero_grad();
    }

    fn learning_rate(&self) -> f64 {
        self.moments.learning_rate
    }

    fn set_learning_rate(&mut self, learning_rate: f64) -> Result<()> {
        self.moments.set_learning_rate(learning_rate)
    }

    fn named_parameters(&self) -> Vec<(String, Tensor)> {
        self.moments.slots.named_parameters()
    }

    fn state_names(&self) -> &[&'static str] {
        &STATE_NAMES
    }

    fn state(&self) -> OptimizerState {
        self.moments.state()
    }

    fn set_state(&mut self, state: OptimizerState) -> Result<()> {
        self.moments.set_state(state)
    }
}
