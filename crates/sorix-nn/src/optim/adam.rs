//! [`Adam`], and the arithmetic that it shares with [`AdamW`](super::AdamW).

use num_traits::Float;
use sorix_core::{Scalar, Tensor, UpdateRule};

use super::slots::Slots;
use super::{Optimizer, OptimizerState};
use crate::error::Result;
use crate::hyperparameter::{below_one, non_negative};

/// Adam, as `torch.optim.Adam` computes it.
///
/// With gradient `g`, learning rate `η`, betas `β₁` and `β₂`, weight decay `λ`, step number `t`
///
/// ```text
/// g ← g + λ w
/// m ← m + (1 - β₁) (g - m)                  v ← β₂ v + (1 - β₂) g²
/// w ← w - η / (1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + ε)
/// ```
///
/// Source: Kingma and Ba, *Adam: a method for stochastic optimization*, ICLR 2015.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{Adam, Optimizer};
///
/// let w = tensor([1.0, 2.0]).requires_grad(true);
/// let mut adam = Adam::new([("w".to_owned(), w.clone())], 0.25)?.eps(0.0)?;
/// w.mul(&tensor([100.0, -0.01]))?.sum()?.backward()?;
/// adam.step()?;
/// // The first step is the learning rate, whatever the gradient's size.
/// let w = w.to_vec::<f64>()?;
/// assert!((w[0] - 0.75).abs() < 1e-12 && (w[1] - 2.25).abs() < 1e-12);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Debug)]
pub struct Adam {
    moments: Moments,
}

impl Adam {
    /// Over these parameters, with this learning rate (1e-3 is usual), betas 0.9 and 0.999, `eps`
    /// 1e-8 and no weight decay.
    ///
    /// # Errors
    ///
    /// Where the learning rate is negative or not finite, a parameter was computed by an operation,
    /// or a name comes twice.
    pub fn new(
        parameters: impl IntoIterator<Item = (String, Tensor)>,
        learning_rate: f64,
    ) -> Result<Self> {
        let moments = Moments::new("Adam", Decay::Gradient(0.0), parameters, learning_rate)?;
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

    /// With weight decay, as a term of the gradient; what most people want is
    /// [`AdamW`](super::AdamW)'s.
    ///
    /// # Errors
    ///
    /// Where it is negative or not finite.
    pub fn weight_decay(mut self, weight_decay: f64) -> Result<Self> {
        non_negative("Adam", "weight decay", weight_decay)?;
        self.moments.decay = Decay::Gradient(weight_decay);
        Ok(self)
    }
}

impl Optimizer for Adam {
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

/// Where weight decay acts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Decay {
    /// As a term of the gradient, which the moments then contain.
    Gradient(f64),
    /// On the parameter itself, beside the step.
    Parameter(f64),
}

/// The first two moments of the gradients, and the steps they make.
#[derive(Debug)]
pub(super) struct Moments {
    pub(super) slots: Slots,
    pub(super) learning_rate: f64,
    betas: [f64; 2],
    eps: f64,
    pub(super) decay: Decay,
}

pub(super) const STATE_NAMES: [&str; 2] = ["exp_avg", "exp_avg_sq"];

impl Moments {
    pub(super) fn new(
        optimizer: &'static str,
        decay: Decay,
        parameters: impl IntoIterator<Item = (String, Tensor)>,
        learning_rate: f64,
    ) -> Result<Self> {
        non_negative(optimizer, "learning rate", learning_rate)?;
        Ok(Self {
            slots: Slots::new(optimizer, parameters)?,
            learning_rate,
            betas: [0.9, 0.999],
            eps: 1e-8,
            decay,
        })
    }

    pub(super) fn set_betas(&mut self, first: f64, second: f64) -> Result<()> {
        below_one(self.slots.optimizer(), "first beta", first)?;
        below_one(self.slots.optimizer(), "second beta", second)?;
        self.betas = [first, second];
        Ok(())
    }

    pub(super) fn set_eps(&mut self, eps: f64) -> Result<()> {
        non_negative(self.slots.optimizer(), "eps", eps)?;
        self.eps = eps;
        Ok(())
    }

    pub(super) fn set_learning_rate(&mut self, learning_rate: f64) -> Result<()> {
        non_negative(self.slots.optimizer(), "learning rate", learning_rate)?;
        self.learning_rate = learning_rate;
        Ok(())
    }

    pub(super) fn step(&mut self) -> Result<()> {
        let (learning_rate, [beta1, beta2], eps) = (self.learning_rate, self.betas, self.eps);
        let (decay, keep) = match self.decay {
            Decay::Gradient(decay) => (decay, 1.0),
            Decay::Parameter(decay) => (0.0, 1.0 - learning_rate * decay),
        };
        self.slots.step(|step| {
            // 1 - βᵗ; powf, because t may exceed an i32.
            let correction = |beta: f64| 1.0 - beta.powf(step as f64);
            AdamRule {
                decay,
                keep,
                first: 1.0 - beta1,
                second: [beta2, 1.0 - beta2],
                step_size: learning_rate / correction(beta1),
                root_correction: correction(beta2).sqrt(),
                eps,
            }
        })
    }

    pub(super) fn zero_grad(&self) {
        self.slots.zero_grad();
    }

    pub(super) fn state(&self) -> OptimizerState {
        OptimizerState {
            learning_rate: self.learning_rate,
            parameters: self.slots.state(&STATE_NAMES),
        }
    }

    pub(super) fn set_state(&mut self, state: OptimizerState) -> Result<()> {
        non_negative(self.slots.optimizer(), "learning rate", state.learning_rate)?;
        self.slots.set_state(&STATE_NAMES, state.parameters)?;
        self.learning_rate = state.learning_rate;
        Ok(())
    }
}

/// One step, with what does not depend on the element worked out.
#[derive(Clone, Copy, Debug)]
struct AdamRule {
    decay: f64,
    keep: f64,
    first: f64,
    second: [f64; 2],
    step_size: f64,
    root_correction: f64,
    eps: f64,
}

impl UpdateRule<2> for AdamRule {
    fn apply<A: Scalar + Float>(&self, w: A, g: A, [m, v]: [A; 2]) -> (A, [A; 2]) {
        let [beta2, second] = self.second.map(A::nearest);
        let g = g + w * A::nearest(self.decay);
        let m = m + (g - m) * A::nearest(self.first);
        let v = v * beta2 + g * g * second;
        let denominator = v.sqrt() / A::nearest(self.root_correction) + A::nearest(self.eps);
        let w = w * A::nearest(self.keep) - m / denominator * A::nearest(self.step_size);
        (w, [m, v])
    }
}
