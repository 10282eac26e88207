//! Optimisers: what changes the parameters of a network by their gradients.
//!
//! ```
//! use sorix_core::{DType, Tensor};
//! use sorix_nn::{Adam, Generator, Linear, Module, Optimizer, Reduction, loss};
//!
//! // y = 2 x, from examples.
//! let x = Tensor::from_slice(&[-1.0_f32, 0.0, 1.0, 2.0], [4, 1])?;
//! let y = x.mul_scalar(2.0)?;
//! let net = Linear::new(1, 1, &Generator::new(42))?;
//! let mut optimizer = Adam::new(net.named_parameters(), 0.1)?;
//! for _ in 0..200 {
//!     optimizer.zero_grad();
//!     loss::mse_loss(&net.forward(&x)?, &y, Reduction::Mean)?.backward()?;
//!     optimizer.step()?;
//! }
//! assert!((net.weight().item::<f32>()? - 2.0).abs() < 0.01);
//! # Ok::<(), sorix_nn::Error>(())
//! ```

mod adam;
mod adamw;
mod average;
mod clip;
mod groups;
mod lr_schedule;
mod sgd;
mod slots;

use core::fmt::Debug;

pub use adam::{Adam, AdamWith};
pub use adamw::AdamW;
pub use average::ParameterAverage;
pub use clip::{clip_grad_norm, clip_grad_value};
pub use lr_schedule::LrSchedule;
pub use sgd::Sgd;
use sorix_core::Tensor;

use crate::error::Result;

/// What changes parameters by their gradients.
///
/// It is made over [named parameters](crate::Module::named_parameters): handles to the tensors that
/// the network itself uses. A parameter that appears twice is changed once, under its first name. A
/// parameter without a gradient stays as it is.
///
/// For an example see the [module](self).
pub trait Optimizer: Debug + Send + Sync {
    /// Changes each parameter that has a gradient.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    fn step(&mut self) -> Result<()>;

    /// Forgets the gradients of all parameters.
    fn zero_grad(&self);

    /// The learning rate, that of the first group of parameters.
    fn learning_rate(&self) -> f64;

    /// Sets the learning rate of later steps; that of further groups changes in proportion. For one that
    /// follows a plan see [`LrSchedule`].
    ///
    /// # Errors
    ///
    /// If it is negative or not finite; the one before remains.
    fn set_learning_rate(&mut self, learning_rate: f64) -> Result<()>;

    /// The parameters, under the names that they were given under.
    fn named_parameters(&self) -> Vec<(String, Tensor)>;

    /// The names of the tensors that steps with these hyperparameters keep for each parameter, of the first
    /// group. Such a
    /// tensor has the shape of the parameter and the
    /// [arithmetic dtype](sorix_core::DType::arithmetic) of its dtype. Names are without a dot.
    ///
    /// # Errors
    ///
    /// If the hyperparameters are not those of this optimiser, or one is out of its range.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Optimizer, Sgd};
    ///
    /// let parameters = [("w".to_owned(), tensor([1.0]).requires_grad(true))];
    /// let sgd = Sgd::new(parameters, 0.1)?.momentum(0.9)?;
    /// let hyperparameters = sgd.state().hyperparameters;
    /// assert_eq!(sgd.state_names(&hyperparameters)?, ["momentum_buffer"]);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    fn state_names(&self, hyperparameters: &[(String, f64)]) -> Result<&'static [&'static str]>;

    /// [`state_names`](Optimizer::state_names) of one parameter, where not all keep the same: groups may
    /// differ, and parameters of 16 bits may have [master numbers](Sgd::master_weights).
    ///
    /// # Errors
    ///
    /// As [`state_names`](Optimizer::state_names), and if there is no such parameter.
    fn state_names_of(
        &self,
        parameter: &str,
        hyperparameters: &[(String, f64)],
    ) -> Result<Vec<&'static str>> {
        let _ = parameter;
        Ok(self.state_names(hyperparameters)?.to_vec())
    }

    /// The hyperparameters, and what the steps so far keep beside the parameters themselves.
    fn state(&self) -> OptimizerState;

    /// Continues where `state` was taken, with its hyperparameters. A parameter that it does not
    /// name counts as never changed.
    ///
    /// # Errors
    ///
    /// If the hyperparameters are not those of this optimiser, or one is out of its range; if
    /// it names an unknown parameter, or does not fit one. Nothing has changed then.
    fn set_state(&mut self, state: OptimizerState) -> Result<()>;
}

/// What an [`Optimizer`] is at one moment: its hyperparameters, and for each parameter that was
/// changed the number of steps and the tensors kept.
///
/// The tensors are handles; the optimiser does not write to them while they are held.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{Adam, Optimizer};
///
/// let w = tensor([1.0]).requires_grad(true);
/// let mut adam = Adam::new([("w".to_owned(), w.clone())], 0.1)?;
/// w.sum()?.backward()?;
/// adam.step()?;
/// let state = adam.state();
/// let names: Vec<_> = state.hyperparameters.iter().map(|(name, _)| &**name).collect();
/// assert_eq!(names, ["learning_rate", "beta1", "beta2", "eps", "weight_decay"]);
/// assert_eq!((&*state.parameters[0].name, state.parameters[0].steps), ("w", 1));
/// let names: Vec<_> = state.parameters[0].tensors.iter().map(|(name, _)| &**name).collect();
/// assert_eq!(names, ["exp_avg", "exp_avg_sq"]);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct OptimizerState {
    /// The numbers that a step is computed with, under the names they have in a checkpoint; a yes is
    /// 1, a no is 0.
    pub hyperparameters: Vec<(String, f64)>,
    /// The parameters that were changed.
    pub parameters: Vec<ParameterState>,
}

/// What an [`Optimizer`] keeps for one parameter.
#[derive(Clone, Debug)]
pub struct ParameterState {
    /// The name of the parameter.
    pub name: String,
    /// How often it was changed.
    pub steps: u64,
    /// The tensors kept, under their [names](Optimizer::state_names).
    pub tensors: Vec<(String, Tensor)>,
}
