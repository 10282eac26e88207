//! [`SiLU`]: the sigmoid linear unit.

use sorix_core::Tensor;

use crate::error::Result;
use crate::module::Module;

/// `x / (1 + exp(-x))` of each element, also called swish; any shape, any dtype.
///
/// Source: Ramachandran, Zoph and Le, *Searching for activation functions*, 2017.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{Module, SiLU};
/// let y = SiLU.forward(&tensor([-1000.0, 0.0, 1000.0]))?;
/// assert_eq!(y.to_vec::<f64>()?, [0.0, 0.0, 1000.0]);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, Module)]
pub struct SiLU;

impl Module for SiLU {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.silu()?)
    }
}
