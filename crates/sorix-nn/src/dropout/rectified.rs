//! [`ReLUDropout`]: the rectifier and dropout in one pass.

use sorix_core::{Activation, DropRate, MaskKey, SaveMask, Tensor};

use crate::dropout::{Draw, DropoutLayer, Form};
use crate::error::Result;

/// [`ReLU`](crate::ReLU) and then [`Dropout`](crate::Dropout), in one pass over memory: `max(x, 0) / (1 - p)` of
/// the elements that are kept. In eval it is the rectifier.
///
/// Works on any shape and dtype, and takes one key for each call in training, so that it gives what the two
/// layers give one after the other, with the same mask. For backward it keeps one bit for each element,
/// whether it was kept and greater than 0 (or NaN), where the two layers keep a tensor and a mask. It keeps
/// that bit whatever [`save_mask`](DropoutLayer::save_mask) says: from the key alone backward would need the
/// input, too.
///
/// In f16 and bf16 the result is rounded once.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{Dropout, Generator, Module, ReLU, ReLUDropout, Sequential};
///
/// let mut fused = ReLUDropout::new(0.5)?.generator(Generator::new(42));
/// let apart = Sequential::new()
///     .with(ReLU)
///     .with(Dropout::new(0.5)?.generator(Generator::new(42)));
/// let x = tensor([[-1.0, 2.0]; 50]);
/// assert_eq!(fused.forward(&x)?.to_vec::<f64>()?, apart.forward(&x)?.to_vec::<f64>()?);
///
/// fused.eval();
/// assert!(fused.forward(&x)?.to_vec::<f64>()?.chunks(2).all(|y| y == [0.0, 2.0]));
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub type ReLUDropout = DropoutLayer<Rectified>;

/// The form of [`ReLUDropout`]: each element of a rectifier's output by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rectified;

impl Form for Rectified {
    fn layer(&self) -> &'static str {
        "ReLUDropout"
    }

    fn mask_shape(&self, shape: &[usize]) -> Result<Vec<usize>> {
        Ok(shape.to_vec())
    }

    fn apply(&self, x: &Tensor, draw: &Draw) -> Result<Tensor> {
        let Draw { rate, at, save, .. } = *draw;
        Ok(x.act_dropout(Activation::Relu, None, rate, at, save)?)
    }

    fn pass(&self, x: &Tensor) -> Result<Tensor> {
        let (rate, key) = (DropRate::new(0.0)?, MaskKey::default());
        Ok(x.act_dropout(Activation::Relu, None, rate, key, SaveMask::Bits)?)
    }
}
