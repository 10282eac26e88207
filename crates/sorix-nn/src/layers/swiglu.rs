//! [`SwiGLU`]: the gated linear unit of SiLU.

use sorix_core::{DropRate, MaskKey, SaveMask, Tensor};

use crate::error::{Error, Result};
use crate::module::Module;

/// `silu(gate) * up`, where the gate is the first half of the last axis and up the second; any dtype.
///
/// Source: Shazeer, *GLU variants improve transformer*, 2020; the halves as in PyTorch's `GLU`.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{Module, SwiGLU};
/// let y = SwiGLU.forward(&tensor([[0.0, 800.0, 5.0, 2.0]]))?;
/// assert_eq!((y.shape(), y.to_vec::<f64>()?), (&[1, 2][..], vec![0.0, 1600.0]));
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, Module)]
pub struct SwiGLU;

impl Module for SwiGLU {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        swiglu("SwiGLU", x)
    }
}

pub(crate) fn swiglu(layer: &'static str, x: &Tensor) -> Result<Tensor> {
    let [gate, up] = halves(layer, x)?;
    let (rate, key) = (DropRate::new(0.0)?, MaskKey::default());
    Ok(gate.swiglu_dropout(&up, rate, key, SaveMask::Replay)?)
}

/// Gate and up.
pub(crate) fn halves(layer: &'static str, x: &Tensor) -> Result<[Tensor; 2]> {
    let half = output_shape(layer, x.shape())?[x.ndim() - 1];
    Ok([x.slice(-1, ..half)?, x.slice(-1, half..)?])
}

/// The shape of the halves.
pub(crate) fn output_shape(layer: &'static str, shape: &[usize]) -> Result<Vec<usize>> {
    let mut halved = shape.to_vec();
    match halved.last_mut() {
        Some(last) if last.is_multiple_of(2) => *last /= 2,
        _ => return Err(Error::shape(layer, "a last axis of even length", shape)),
    }
    Ok(halved)
}
