//! [`LrSchedule`]: a learning rate that changes during training.

use core::f64::consts::PI;

use crate::error::Result;
use crate::hyperparameter::{at_least_one, non_negative};

/// A learning rate for each step of a training.
///
/// A schedule is a function and keeps no count: the training loop knows its step, which a checkpoint keeps as
/// a counter, and gives [the rate of the step](LrSchedule::at) to the optimiser. The values are the same on
/// every machine.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{LrSchedule, Optimizer, Sgd};
///
/// let w = tensor([0.0]).requires_grad(true);
/// let mut sgd = Sgd::new([("w".to_owned(), w.clone())], 0.0)?;
/// let schedule = LrSchedule::step(1.0, 2, 0.5)?;
/// for step in 0..5 {
///     sgd.set_learning_rate(schedule.at(step))?;
///     sgd.zero_grad();
///     w.sum()?.backward()?; // a gradient of 1
///     sgd.step()?;
/// }
/// assert_eq!(w.item::<f64>()?, -(1.0 + 1.0 + 0.5 + 0.5 + 0.25));
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LrSchedule {
    learning_rate: f64,
    warm_up: u64,
    curve: Curve,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Curve {
    Constant,
    Step { size: u64, gamma: f64 },
    Cosine { steps: u64, minimum: f64 },
}

/// For errors.
const NAME: &str = "LrSchedule";

impl LrSchedule {
    /// The same in every step, for a [warm-up](LrSchedule::warm_up) alone.
    ///
    /// # Errors
    ///
    /// If the learning rate is negative or not finite.
    ///
    /// ```
    /// use sorix_nn::LrSchedule;
    /// assert_eq!(LrSchedule::constant(0.1)?.at(1000), 0.1);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn constant(learning_rate: f64) -> Result<Self> {
        Self::new(learning_rate, Curve::Constant)
    }

    /// `learning_rate · gammaᵏ` after k times `step_size` steps: PyTorch's `StepLR`.
    ///
    /// # Errors
    ///
    /// If the learning rate or `gamma` is negative or not finite, or `step_size` is 0. For an example see
    /// [`LrSchedule`].
    pub fn step(learning_rate: f64, step_size: u64, gamma: f64) -> Result<Self> {
        non_negative(NAME, "gamma", gamma)?;
        at_least_one(NAME, "step size", step_size)?;
        let size = step_size;
        Self::new(learning_rate, Curve::Step { size, gamma })
    }

    /// From `learning_rate` at step 0 to `minimum` at step `steps` along half a cosine, and `minimum` after
    /// that: PyTorch's `CosineAnnealingLR`, which would rise again.
    ///
    /// Source: Loshchilov and Hutter, *SGDR: stochastic gradient descent with warm restarts*, ICLR 2017,
    /// without the restarts.
    ///
    /// # Errors
    ///
    /// If one of the two is negative or not finite.
    ///
    /// ```
    /// use sorix_nn::LrSchedule;
    /// let schedule = LrSchedule::cosine(1.0, 0.5, 100)?;
    /// assert_eq!([0, 100, 1000].map(|step| schedule.at(step)), [1.0, 0.5, 0.5]);
    /// assert!((schedule.at(50) - 0.75).abs() < 1e-15);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn cosine(learning_rate: f64, minimum: f64, steps: u64) -> Result<Self> {
        non_negative(NAME, "minimum", minimum)?;
        Self::new(learning_rate, Curve::Cosine { steps, minimum })
    }

    fn new(learning_rate: f64, curve: Curve) -> Result<Self> {
        non_negative(NAME, "learning rate", learning_rate)?;
        Ok(Self {
            learning_rate,
            warm_up: 0,
            curve,
        })
    }

    /// Rises to the learning rate by equal amounts in the first `steps` steps, whose last one has it; the
    /// rest begins after them.
    ///
    /// Source: Goyal et al., *Accurate, large minibatch SGD: training ImageNet in 1 hour*, 2017, section 2.2.
    ///
    /// ```
    /// use sorix_nn::LrSchedule;
    /// let schedule = LrSchedule::step(1.0, 1, 0.5)?.warm_up(4);
    /// let rates: Vec<f64> = (0..7).map(|step| schedule.at(step)).collect();
    /// assert_eq!(rates, [0.25, 0.5, 0.75, 1.0, 1.0, 0.5, 0.25]);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn warm_up(self, steps: u64) -> Self {
        let warm_up = steps;
        Self { warm_up, ..self }
    }

    /// The learning rate of step number `step`, counted from 0.
    #[must_use]
    pub fn at(&self, step: u64) -> f64 {
        let rate = self.learning_rate;
        let Some(step) = step.checked_sub(self.warm_up) else {
            return rate * ((step + 1) as f64 / self.warm_up as f64);
        };
        match self.curve {
            Curve::Constant => rate,
            // Not those of the system, whose last bits differ from one to the next.
            Curve::Step { size, gamma } => rate * libm::pow(gamma, (step / size) as f64),
            Curve::Cosine { steps, minimum } if step >= steps => minimum,
            Curve::Cosine { steps, minimum } => {
                let left = 0.5 + 0.5 * libm::cos(PI * (step as f64 / steps as f64));
                minimum + (rate - minimum) * left
            }
        }
    }
}
