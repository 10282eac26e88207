//! [`Schedule`]: a drop probability that changes during training.

use core::f64::consts::PI;

use sorix_core::DropRate;

use crate::error::Result;

/// A drop probability for each step of a training, or for each layer of a network.
///
/// A schedule is a function and keeps no count: the training loop knows its step, asks for the
/// [rate](Schedule::at) and gives it to a layer or to a whole model by
/// [`set_drop_rate`](crate::Module::set_drop_rate). Both ends are checked when it is made, and every
/// value lies between them, so no step of a long run can fail.
///
/// The values are the same on every machine, as the masks are.
///
/// ```
/// use sorix_nn::{Dropout, Module, Schedule, Sequential};
///
/// let mut net = Sequential::new().with(Dropout::new(0.0)?).with(Dropout::new(0.0)?);
/// let schedule = Schedule::linear(0.0, 0.5, 100)?;
/// for (step, p) in [(0, 0.0), (50, 0.25), (100, 0.5), (1000, 0.5)] {
///     net.set_drop_rate(schedule.at(step));
///     assert_eq!(net.named_drop_rates()[1].1.p(), p);
/// }
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    from: DropRate,
    to: DropRate,
    steps: u64,
    curve: Curve,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curve {
    Linear,
    Cosine,
}

impl Schedule {
    /// From `from` at step 0 to `to` at step `steps`, by the same amount each step; `to` after that.
    ///
    /// Without steps it is `to` from the beginning.
    ///
    /// Growing p is curriculum dropout (Morerio et al., *Curriculum dropout*, ICCV 2017), shrinking
    /// it early dropout (Liu et al., *Dropout reduces underfitting*, ICML 2023). Over the layers of
    /// a network it is the linear decay rule of stochastic depth (Huang et al., *Deep networks with
    /// stochastic depth*, ECCV 2016).
    ///
    /// # Errors
    ///
    /// If one of the two is NaN or outside [0, 1].
    ///
    /// ```
    /// use sorix_nn::Schedule;
    /// let by_depth = Schedule::linear(0.0, 0.2, 4)?;
    /// let rates: Vec<f64> = (0..=4).map(|layer| by_depth.at(layer).p()).collect();
    /// assert_eq!(rates[..3], [0.0, 0.05, 0.1]);
    /// assert!(Schedule::linear(0.0, 1.5, 4).is_err());
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn linear(from: f64, to: f64, steps: u64) -> Result<Self> {
        Self::new(from, to, steps, Curve::Linear)
    }

    /// The same from `from` to `to` along half a cosine: slow at both ends (Loshchilov and Hutter,
    /// *SGDR: stochastic gradient descent with warm restarts*, ICLR 2017, without the restarts).
    ///
    /// # Errors
    ///
    /// If one of the two is NaN or outside [0, 1].
    ///
    /// ```
    /// use sorix_nn::Schedule;
    /// let schedule = Schedule::cosine(0.5, 0.0, 100)?;
    /// assert_eq!(schedule.at(0).p(), 0.5);
    /// assert!((schedule.at(50).p() - 0.25).abs() < 1e-15);
    /// assert!(schedule.at(10).p() > 0.48);
    /// assert_eq!(schedule.at(100).p(), 0.0);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn cosine(from: f64, to: f64, steps: u64) -> Result<Self> {
        Self::new(from, to, steps, Curve::Cosine)
    }

    fn new(from: f64, to: f64, steps: u64, curve: Curve) -> Result<Self> {
        Ok(Self {
            from: DropRate::new(from)?,
            to: DropRate::new(to)?,
            steps,
            curve,
        })
    }

    /// The rate of step number `step`.
    #[must_use]
    pub fn at(&self, step: u64) -> DropRate {
        if step >= self.steps {
            return self.to;
        }
        let time = step as f64 / self.steps as f64;
        let way = match self.curve {
            Curve::Linear => time,
            // Not that of the system, whose last bit differs from one to the next.
            Curve::Cosine => 0.5 - 0.5 * libm::cos(PI * time),
        };
        let (from, to) = (self.from.p(), self.to.p());
        let p = (from + (to - from) * way).clamp(from.min(to), from.max(to));
        DropRate::new(p).expect("a number between two probabilities is one")
    }
}
