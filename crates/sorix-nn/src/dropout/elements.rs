//! [`Dropout`]: each element by itself.

use sorix_core::Tensor;

use crate::dropout::{Draw, DropoutLayer, Form};
use crate::error::Result;

/// Inverted dropout: in training each element becomes 0 with probability p and `x / (1 - p)`
/// otherwise, so that its expected value stays; in eval the input itself comes back.
///
/// Works on any shape and dtype.
///
/// Source: Srivastava et al., *Dropout: a simple way to prevent neural networks from overfitting*,
/// JMLR 15 (2014), section 10.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{Dropout, Generator, Module};
///
/// let mut dropout = Dropout::new(0.5)?.generator(Generator::new(42));
/// let x = tensor([1.0, 2.0, 3.0]).requires_grad(true);
/// let y = dropout.forward(&x)?;
/// y.sum()?.backward()?;
///
/// // The gradient is 2 where the element was kept and 0 where it was not.
/// assert_eq!(x.mul(&x.grad().unwrap())?.to_vec::<f64>()?, y.to_vec::<f64>()?);
///
/// dropout.eval();
/// assert!(dropout.forward(&x)?.same_storage(&x));
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub type Dropout = DropoutLayer<Elements>;

/// The form of [`Dropout`]: each element by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Elements;

impl Form for Elements {
    fn layer(&self) -> &'static str {
        "Dropout"
    }

    fn mask_shape(&self, shape: &[usize]) -> Result<Vec<usize>> {
        Ok(shape.to_vec())
    }

    fn apply(&self, x: &Tensor, draw: &Draw) -> Result<Tensor> {
        Ok(x.dropout(draw.rate, draw.at, draw.save)?)
    }

    fn apply_add(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        residual: &Tensor,
        draw: &Draw,
    ) -> Result<Tensor> {
        let Draw { rate, at, save, .. } = *draw;
        Ok(match bias {
            Some(bias) => x.bias_dropout_add(bias, residual, rate, at, save)?,
            None => x.dropout_add(residual, rate, at, save)?,
        })
    }
}
