//! [`Sgd`]: stochastic gradient descent, with momentum if wanted.

use num_traits::Float;
use sorix_core::{Scalar, Tensor, UpdateRule};

use super::slots::Slots;
use super::{Optimizer, OptimizerState};
use crate::error::Result;
use crate::hyperparameter::{flag, in_order, named, non_negative};

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
    /// If the learning rate is negative or not finite; if there is no parameter, one was
    /// computed by an operation or is [expanded](Tensor::is_expanded), or a name comes twice.
    pub fn new(
        parameters: impl IntoIterator<Item = (String, Tensor)>,
        learning_rate: f64,
    ) -> Result<Self> {
        let rule = SgdRule {
            learning_rate,
            weight_decay: 0.0,
            momentum: 0.0,
            nesterov: false,
        };
        Ok(Self {
            rule: rule.check()?,
            slots: Slots::new(NAME, parameters)?,
        })
    }

    /// With momentum; 0 is none. For an example see [`Sgd`].
    ///
    /// # Errors
    ///
    /// If it is negative or not finite. If steps were made already: if allocation fails for what is
    /// kept from now on.
    pub fn momentum(self, momentum: f64) -> Result<Self> {
        self.with_momentum(momentum, false)
    }

    /// With Nesterov's momentum; 0 is none.
    ///
    /// # Errors
    ///
    /// As [`momentum`](Self::momentum).
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
    pub fn nesterov_momentum(self, momentum: f64) -> Result<Self> {
        self.with_momentum(momentum, true)
    }

    fn with_momentum(mut self, momentum: f64, nesterov: bool) -> Result<Self> {
        let rule = SgdRule {
            momentum,
            nesterov,
            ..self.rule
        };
        self.rule = rule.check()?;
        self.slots.keep(self.rule.state_names().len())?;
        Ok(self)
    }

    /// With weight decay, as a term of the gradient.
    ///
    /// # Errors
    ///
    /// If it is negative or not finite.
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
        let rule = SgdRule {
            weight_decay,
            ..self.rule
        };
        self.rule = rule.check()?;
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
        let rule = SgdRule {
            learning_rate,
            ..self.rule
        };
        self.rule = rule.check()?;
        Ok(())
    }

    fn named_parameters(&self) -> Vec<(String, Tensor)> {
        self.slots.named_parameters()
    }

    fn state_names(&self, hyperparameters: &[(String, f64)]) -> Result<&'static [&'static str]> {
        Ok(SgdRule::from_hyperparameters(hyperparameters)?.state_names())
    }

    fn state(&self) -> OptimizerState {
        OptimizerState {
            hyperparameters: self.rule.hyperparameters(),
            parameters: self.slots.state(self.rule.state_names()),
        }
    }

    fn set_state(&mut self, state: OptimizerState) -> Result<()> {
        let rule = SgdRule::from_hyperparameters(&state.hyperparameters)?;
        self.slots.set_state(rule.state_names(), state.parameters)?;
        self.rule = rule;
        Ok(())
    }
}

/// For errors.
const NAME: &str = "Sgd";

const HYPERPARAMETERS: [&str; 4] = ["learning_rate", "momentum", "weight_decay", "nesterov"];

#[derive(Clone, Copy, Debug)]
struct SgdRule {
    learning_rate: f64,
    weight_decay: f64,
    momentum: f64,
    nesterov: bool,
}

impl SgdRule {
    /// The rule, if its numbers are in range.
    fn check(self) -> Result<Self> {
        non_negative(NAME, "learning rate", self.learning_rate)?;
        non_negative(NAME, "momentum", self.momentum)?;
        non_negative(NAME, "weight decay", self.weight_decay)?;
        Ok(self)
    }

    fn from_hyperparameters(given: &[(String, f64)]) -> Result<Self> {
        let [learning_rate, momentum, weight_decay, nesterov] =
            in_order(NAME, HYPERPARAMETERS, given)?;
        let rule = Self {
            learning_rate,
            weight_decay,
            momentum,
            nesterov: flag(NAME, "nesterov", nesterov)?,
        };
        rule.check()
    }

    fn hyperparameters(self) -> Vec<(String, f64)> {
        let nesterov = f64::from(u8::from(self.nesterov));
        named(
            HYPERPARAMETERS,
            [
                self.learning_rate,
                self.momentum,
                self.weight_decay,
                nesterov,
            ],
        )
    }

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
