//! [`AdamWith`]: [`Adam`], and with its weight decay elsewhere [`AdamW`](super::AdamW).

use num_traits::Float;
use sorix_core::{Scalar, Tensor, UpdateRule};

use super::groups::{Groups, Numbers, by_groups};
use super::slots::Slot;
use super::{Optimizer, OptimizerState};
use crate::error::Result;
use crate::hyperparameter::{below_one, non_negative, positive_in_f32};

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
/// let mut adam = Adam::new([("w".to_owned(), w.clone())], 0.25)?.eps(1e-30)?;
/// w.mul(&tensor([100.0, -0.01]))?.sum()?.backward()?;
/// adam.step()?;
/// // The first step is the learning rate, whatever the gradient's size.
/// let w = w.to_vec::<f64>()?;
/// assert!((w[0] - 0.75).abs() < 1e-12 && (w[1] - 2.25).abs() < 1e-12);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub type Adam = AdamWith<false>;

/// [`Adam`] or [`AdamW`](super::AdamW), which differ in weight decay alone: it is a term of the gradient,
/// and so part of the moments, or decoupled, beside the step.
///
/// For examples see the two.
#[derive(Debug)]
pub struct AdamWith<const DECOUPLED_DECAY: bool> {
    groups: Groups<AdamNumbers<DECOUPLED_DECAY>>,
}

by_groups!([<const DECOUPLED_DECAY: bool>] AdamWith<DECOUPLED_DECAY>);

impl<const DECOUPLED_DECAY: bool> AdamWith<DECOUPLED_DECAY> {
    /// Over these parameters, with this learning rate (1e-3 is usual), betas 0.9 and 0.999, `eps`
    /// 1e-8 and weight decay 0, or for [`AdamW`](super::AdamW) 0.01.
    ///
    /// # Errors
    ///
    /// If the learning rate is negative or not finite; if there is no parameter, one was
    /// computed by an operation or is [expanded](Tensor::is_expanded), or a name comes twice.
    pub fn new(
        parameters: impl IntoIterator<Item = (String, Tensor)>,
        learning_rate: f64,
    ) -> Result<Self> {
        let numbers = AdamNumbers {
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: if DECOUPLED_DECAY { 0.01 } else { 0.0 },
        };
        let groups = Groups::new(parameters, learning_rate, numbers)?;
        Ok(Self { groups })
    }

    /// With other decay rates of the two moments.
    ///
    /// # Errors
    ///
    /// If one is not in [0, 1).
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Adam, Optimizer};
    ///
    /// let w = tensor([1.0]).requires_grad(true);
    /// // Without memory each step is the learning rate in the direction of its gradient.
    /// let mut adam = Adam::new([("w".to_owned(), w.clone())], 0.25)?.betas(0.0, 0.0)?.eps(1e-30)?;
    /// for gradient in [8.0, -0.5] {
    ///     adam.zero_grad();
    ///     w.mul_scalar(gradient)?.sum()?.backward()?;
    ///     adam.step()?;
    /// }
    /// assert_eq!(w.item::<f64>()?, 1.0 - 0.25 + 0.25);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn betas(mut self, first: f64, second: f64) -> Result<Self> {
        self.groups.set_last(AdamNumbers {
            betas: [first, second],
            ..self.groups.last()
        })?;
        Ok(self)
    }

    /// With another number to add to the denominator. It cannot be 0: an element whose gradient was 0 in
    /// every step has a denominator of `eps`, and would become NaN.
    ///
    /// # Errors
    ///
    /// If it is negative, 0 or not finite, or if it is so small that rounding to f32 gives 0.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Adam, Optimizer};
    ///
    /// let w = tensor([1.0]).requires_grad(true);
    /// let mut adam = Adam::new([("w".to_owned(), w.clone())], 0.25)?.eps(1.0)?;
    /// w.sum()?.backward()?; // a gradient of 1
    /// adam.step()?;
    /// // 0.25 * 1 / (1 + eps), but for the rounding of the moments.
    /// assert!((w.item::<f64>()? - (1.0 - 0.125)).abs() < 1e-12);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn eps(mut self, eps: f64) -> Result<Self> {
        self.groups.set_last(AdamNumbers {
            eps,
            ..self.groups.last()
        })?;
        Ok(self)
    }

    /// With another weight decay. Most people who want one with Adam want
    /// [`AdamW`](super::AdamW)'s.
    ///
    /// # Errors
    ///
    /// If it is negative or not finite.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Adam, AdamW, Optimizer};
    ///
    /// let w = tensor([4.0]).requires_grad(true);
    /// let parameters = || [("w".to_owned(), w.clone())];
    /// w.mul_scalar(0.0)?.sum()?.backward()?; // a gradient of 0
    ///
    /// // Beside the step: a share of the parameter, here 0.25 * 0.5.
    /// AdamW::new(parameters(), 0.25)?.weight_decay(0.5)?.step()?;
    /// assert_eq!(w.item::<f64>()?, 4.0 - 4.0 * 0.125);
    ///
    /// // In the gradient: Adam's first step takes its sign alone.
    /// Adam::new(parameters(), 0.25)?.weight_decay(0.5)?.step()?;
    /// assert!((w.item::<f64>()? - (3.5 - 0.25)).abs() < 1e-7);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn weight_decay(mut self, weight_decay: f64) -> Result<Self> {
        self.groups.set_last(AdamNumbers {
            weight_decay,
            ..self.groups.last()
        })?;
        Ok(self)
    }
}

/// The hyperparameters beside the learning rate.
#[derive(Clone, Copy, Debug)]
struct AdamNumbers<const DECOUPLED_DECAY: bool> {
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
}

impl<const DECOUPLED_DECAY: bool> Numbers for AdamNumbers<DECOUPLED_DECAY> {
    const OPTIMIZER: &'static str = if DECOUPLED_DECAY { "AdamW" } else { "Adam" };

    /// Of different names in the two, so that neither takes the other's state for its own.
    const NAMES: &'static [&'static str] = &[
        "beta1",
        "beta2",
        "eps",
        if DECOUPLED_DECAY {
            "decoupled_weight_decay"
        } else {
            "weight_decay"
        },
    ];

    fn numbers(self) -> Vec<f64> {
        let [beta1, beta2] = self.betas;
        vec![beta1, beta2, self.eps, self.weight_decay]
    }

    fn from_numbers(numbers: &[f64]) -> Result<Self> {
        let [first, second, eps, weight_decay] = *numbers.first_chunk().expect("one for each name");
        below_one(Self::OPTIMIZER, "first beta", first)?;
        below_one(Self::OPTIMIZER, "second beta", second)?;
        positive_in_f32(Self::OPTIMIZER, "eps", eps)?;
        non_negative(Self::OPTIMIZER, "weight decay", weight_decay)?;
        Ok(Self {
            betas: [first, second],
            eps,
            weight_decay,
        })
    }

    fn kept(self) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_sq"]
    }

    fn update(self, learning_rate: f64, slot: &mut Slot, gradient: &Tensor) -> Result<()> {
        let Self {
            betas: [beta1, beta2],
            eps,
            weight_decay,
        } = self;
        let (decay, keep) = if DECOUPLED_DECAY {
            (0.0, 1.0 - learning_rate * weight_decay)
        } else {
            (weight_decay, 1.0)
        };
        slot.update(gradient, |step| {
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
}

/// One step, with what does not depend on the element worked out.
#[derive(Clone, Copy, Debug)]
struct AdamRule {
    /// What the gradient gets of the parameter.
    decay: f64,
    /// What stays of the parameter beside the step.
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
