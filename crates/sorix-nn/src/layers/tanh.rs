//! [`Tanh`]: the hyperbolic tangent.

use sorix_core::Tensor;

use crate::error::Result;
use crate::module::Module;

/// The hyperbolic tangent of each element; any shape, any dtype.
///
/// Source, as an activation: LeCun, Bottou, Orr and Müller, *Efficient BackProp*, 1998, section 4.4.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{Module, Tanh};
/// let y = Tanh.forward(&tensor([0.0, 0.5, 100.0]))?.to_vec::<f64>()?;
/// assert_eq!((y[0], y[2]), (0.0, 1.0));
/// assert!((y[1] - 0.46211715726000975).abs() < 1e-15);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, Module)]
pub struct Tanh;

impl Module for Tanh {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.tanh()?)
    }
}
