//! [`Sigmoid`]: the logistic function.

use sorix_core::Tensor;

use crate::error::Result;
use crate::module::Module;

/// `1 / (1 + exp(-x))` of each element, the logistic function; any shape, any dtype.
///
/// Source: Verhulst, *Recherches mathématiques sur la loi d’accroissement de la population*, 1845.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{Module, Sigmoid};
/// let y = Sigmoid.forward(&tensor([-1000.0, 0.0, 1000.0]))?;
/// assert_eq!(y.to_vec::<f64>()?, [0.0, 0.5, 1.0]);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, Module)]
pub struct Sigmoid;

impl Module for Sigmoid {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.sigmoid()?)
    }
}
