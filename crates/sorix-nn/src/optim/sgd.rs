//! [`Sgd`]: stochastic gradient descent, with momentum where wanted.

use num_traits::Float;
use sorix_core::{Scalar, Tensor, UpdateRule};

use super::slots::Slots;
use super::{Optimizer, OptimizerState};
use crate::error::Result;
use crate::hyperparameter::non_negative;

/// Stochastic gradient descent, as `torch.optim.SGD` computes it.
///
/// With gradient `g`, learning rate `η`, weight decay `λ` and momentum `μ`, each step is
///
/// ```text
/// g ← g + λ w
/// b ← μ b + g                 (b = 0 at first)
/// w ← w - η b                 w ← w - η (g + μ b), for Nesterov's
/// ```
///
/// Without momentum `b` is `g`, and nothing is kept.
///
/// Source: Sutskever, Martens, Dahl and Hinton, *On the importance of initialization and momentum in
/// deep learning*, ICML 2013, with the learning rate outside of `b`, as in PyTorch.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{Optimizer, Sgd};
///
/// let w = tensor([1.0, 2.0]).requires_grad(true);
/// let mut sgd = Sgd::new([("w".to_owned(), w.clone())], 0.5)?.momentum(0.9)?;
/// for _ in 0..2 {
///     sgd.zero_grad();
///     w.sum()?.backward()?; // a gradient of ones
///     sgd.step()?;
/// }
/// // 0.5 * 1, then 0.5 * (0.9 + 1).
/// assert_eq!(w.to_vec::<f64>()?, [1.0 - 1.45, 2.0 - 1.45]);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Debug)]
pub struct Sgd {
    slots: Slots,
    rule: SgdRule,
}

impl Sgd {
    /// Over these parameters, with this learning rate and neither momentum nor weight decay.
    ///
    /// # Errors
    ///
    /// Where the learning rate is negative or not finite; where there is no parameter, one was
    /// computed by an operation or is [expanded](Tensor::is_expanded), or a name comes twice.
    pub fn new(
        parameters: impl IntoIterator<Item = (String, Tensor)>,
        learning_rate: f64,
    ) -> Result<Self> {
        non_negative("Sgd", "learning rate", learning_rate)?;
        Ok(Self {
            slots: Slots::new("Sgd", parameters)?,
            rule: SgdRule {
                learning_rate,
                weight_decay: 0.0,
                momentum: 0.0,
                nesterov: false,
            },
        })
    }

    /// With momentum; 0 is none. For an example see [`Sgd`].
    ///
    /// # Errors
    ///
    /// Where it is negative or not finite.
    pub fn momentum(mut self, momentum: f64) -> Result<Self> {
        non_negative("Sgd", "momentum", momentum)?;
        (self.rule.momentum, self.rule.nesterov) = (momentum, false);
        Ok(self)
    }

    /// With Nesterov's momentum; 0 is none.
    ///
    /// # Errors
    ///
    /// Where it is negative or not finite.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Optimizer, Sgd};
    ///
    /// let w = tensor([1.0]).requires_grad(true);
    /// let mut sgd = Sgd::new([("w".to_owned(), w.clone())], 0.5)?.nesterov_momentum(0.5)?;
    /// w.sum()?.backward()?; // a gradient of 1
    /// sgd.step()?;
    /// // 0.5 * (1 + 0.5 * 1)
    /// assert_eq!(w.item::<f64>()?, 1.0 - 0.75);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn nesterov_momentum(mut self, momentum: f64) -> Result<Self> {
        self = self.momentum(momentum)?;
        self.rule.nesterov = true;
        Ok(self)
    }

    /// With weight decay, as a term of the gradient.
    ///
    /// # Errors
    ///
    /// Where it is negative or not finite.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Optimizer, Sgd};
    ///
    /// let w = tensor([4.0]).requires_grad(true);
    /// let mut sgd = Sgd::new([("w".to_owned(), w.clone())], 0.5)?.weight_decay(0.25)?;
    /// w.sum()?.backward()?; // a gradient of 1
    /// sgd.step()?;
    /// // 0.5 * (1 + 0.25 * 4)
    /// assert_eq!(w.item::<f64>()?, 4.0 - 1.0);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn weight_decay(mut self, weight_decay: f64) -> Result<Self> {
        non_negative("Sgd", "weight decay", weight_decay)?;
        self.rule.weight_decay = weight_decay;
        Ok(self)
    }
}

impl Optimizer for Sgd {
    fn step(&mut self) -> Result<()> {
        let rule = self.rule;
        if rule.momentum == 0.0 {
            self.slots.step::<0, _>(|_| rule)
        } else {
            self.slots.step::<1, _>(|_| rule)
        }
    }

    fn zero_grad(&self) {
        self.slots.zero_grad();
    }

    fn learning_rate(&self) -> f64 {
        self.rule.learning_rate
    }

    fn set_learning_rate(&mut self, learning_rate: f64) -> Result<()> {
        non_negative("Sgd", "learning rate", learning_rate)?;
        self.rule.learning_rate = learning_rate;
        Ok(())
    }

    fn named_parameters(&self) -> Vec<(String, Tensor)> {
        self.slots.named_parameters()
    }

    fn state_names(&self) -> &[&'static str] {
        self.rule.state_names()
    }

    fn state(&self) -> OptimizerState {
        OptimizerState {
            learning_rate: self.rule.learning_rate,
            parameters: self.slots.state(self.rule.state_names()),
        }
    }

    fn set_state(&mut self, state: OptimizerState) -> Result<()> {
        non_negative("Sgd", "learning rate", state.learning_rate)?;
        let names = self.rule.state_names();
        self.slots.set_state(names, state.parameters)?;
        self.rule.learning_rate = state.learning_rate;
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
struct SgdRule {
    learning_rate: f64,
    weight_decay: f64,
    momentum: f64,
    nesterov: bool,
}

impl SgdRule {
    /// What is kept per parameter.
    fn state_names(self) -> &'static [&'static str] {
        if self.momentum == 0.0 {
            &[]
        } else {
            &["momentum_buffer"]
        }
    }

    fn decayed<A: Scalar + Float>(&self, w: A, g: A) -> A {
        g + w * A::nearest(self.weight_decay)
    }
}

impl UpdateRule<0> for SgdRule {
    fn apply<A: Scalar + Float>(&self, w: A, g: A, _: [A; 0]) -> (A, [A; 0]) {
        (w - self.decayed(w, g) * A::nearest(self.learning_rate), [])
    }
}

impl UpdateRule<1> for SgdRule {
    fn apply<A: Scalar + Float>(&self, w: A, g: A, [b]: [A; 1]) -> (A, [A; 1]) {
        let momentum = A::nearest(self.momentum);
        let g = self.decayed(w, g);
        let b = b * momentum + g;
        let direction = if self.nesterov { g + b * momentum } else { b };
        (w - direction * A::nearest(self.learning_rate), [b])
    }
}
