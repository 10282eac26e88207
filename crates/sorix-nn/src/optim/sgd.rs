//! [`Sgd`]: stochastic gradient descent, with momentum if wanted.

use num_traits::Float;
use sorix_core::{Scalar, Tensor, UpdateRule};

use super::groups::{Groups, Numbers, by_groups};
use super::slots::Slot;
use super::{Optimizer, OptimizerState};
use crate::error::Result;
use crate::hyperparameter::{flag, non_negative};

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
    groups: Groups<SgdNumbers>,
}

by_groups!([] Sgd);

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
        let numbers = SgdNumbers {
            weight_decay: 0.0,
            momentum: 0.0,
            nesterov: false,
        };
        let groups = Groups::new(parameters, learning_rate, numbers)?;
        Ok(Self { groups })
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
        self.groups.set_last(SgdNumbers {
            momentum,
            nesterov,
            ..self.groups.last()
        })?;
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
        self.groups.set_last(SgdNumbers {
            weight_decay,
            ..self.groups.last()
        })?;
        Ok(self)
    }
}

/// The hyperparameters beside the learning rate.
#[derive(Clone, Copy, Debug)]
struct SgdNumbers {
    weight_decay: f64,
    momentum: f64,
    nesterov: bool,
}

impl Numbers for SgdNumbers {
    const OPTIMIZER: &'static str = "Sgd";

    const NAMES: &'static [&'static str] = &["momentum", "weight_decay", "nesterov"];

    fn numbers(self) -> Vec<f64> {
        let nesterov = f64::from(u8::from(self.nesterov));
        vec![self.momentum, self.weight_decay, nesterov]
    }

    fn from_numbers(numbers: &[f64]) -> Result<Self> {
        let [momentum, weight_decay, nesterov] = *numbers.first_chunk().expect("one for each name");
        non_negative(Self::OPTIMIZER, "momentum", momentum)?;
        non_negative(Self::OPTIMIZER, "weight decay", weight_decay)?;
        Ok(Self {
            weight_decay,
            momentum,
            nesterov: flag(Self::OPTIMIZER, "nesterov", nesterov)?,
        })
    }

    fn kept(self) -> &'static [&'static str] {
        if self.momentum == 0.0 {
            &[]
        } else {
            &["momentum_buffer"]
        }
    }

    fn update(self, learning_rate: f64, slot: &mut Slot, gradient: &Tensor) -> Result<()> {
        let rule = SgdRule {
            learning_rate,
            numbers: self,
        };
        if self.momentum == 0.0 {
            slot.update::<0, _>(gradient, |_| rule)
        } else {
            slot.update::<1, _>(gradient, |_| rule)
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct SgdRule {
    learning_rate: f64,
    numbers: SgdNumbers,
}

impl SgdRule {
    fn decayed<A: Scalar + Float>(&self, w: A, g: A) -> A {
        g + w * A::nearest(self.numbers.weight_decay)
    }
}

impl UpdateRule<0> for SgdRule {
    fn apply<A: Scalar + Float>(&self, w: A, g: A, _: [A; 0]) -> (A, [A; 0]) {
        (w - self.decayed(w, g) * A::nearest(self.learning_rate), [])
    }
}

impl UpdateRule<1> for SgdRule {
    fn apply<A: Scalar + Float>(&self, w: A, g: A, [b]: [A; 1]) -> (A, [A; 1]) {
        let momentum = A::nearest(self.numbers.momentum);
        let g = self.decayed(w, g);
        let b = b * momentum + g;
        let direction = if self.numbers.nesterov {
            g + b * momentum
        } else {
            b
        };
        (w - direction * A::nearest(self.learning_rate), [b])
    }
}
