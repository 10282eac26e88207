//! [`ReLU`]: what is negative becomes zero.

use sorix_core::Tensor;

use crate::error::Result;
use crate::module::Module;

/// `max(x, 0)` of each element.
///
/// Source: Nair and Hinton, *Rectified linear units improve restricted Boltzmann machines*, ICML
/// 2010.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{Module, ReLU};
/// assert_eq!(ReLU.forward(&tensor([-1.0, 0.0, 2.0]))?.to_vec::<f64>()?, [0.0, 0.0, 2.0]);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, Module)]
pub struct ReLU;

impl Module for ReLU {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.relu()?)
    }
}
