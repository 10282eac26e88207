//! [`ReLUDropout`] and its like: an activation and dropout in one pass.

use sorix_core::{Activation, DropRate, MaskKey, SaveMask, Tensor};

use crate::dropout::{Draw, DropoutLayer, Form};
use crate::error::Result;
use crate::layers::swiglu;

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
        apply(Activation::Relu, x, draw)
    }

    fn pass(&self, x: &Tensor) -> Result<Tensor> {
        activate(Activation::Relu, x)
    }
}

/// [`GELU`](crate::GELU) and then [`Dropout`](crate::Dropout), in one pass over memory. In eval it is the GELU.
///
/// Works on any shape and dtype, and takes one key for each call in training, so that it gives what the two
/// layers give one after the other, with the same mask. For backward it keeps its input, and the mask as
/// [`save_mask`](DropoutLayer::save_mask) says. In f16 and bf16 the result is rounded once.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{Dropout, GELU, GELUDropout, Generator, Module, Sequential};
///
/// let fused = GELUDropout::new(0.5)?.generator(Generator::new(42));
/// let apart = Sequential::new()
///     .with(GELU::new())
///     .with(Dropout::new(0.5)?.generator(Generator::new(42)));
/// let x = tensor([[-1.0, 2.0]; 50]);
/// assert_eq!(fused.forward(&x)?.to_vec::<f64>()?, apart.forward(&x)?.to_vec::<f64>()?);
///
/// let mut fused = GELUDropout::with_tanh(0.5)?;
/// fused.eval();
/// assert_eq!(fused.forward(&x)?.to_vec::<f64>()?, x.gelu_tanh()?.to_vec::<f64>()?);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub type GELUDropout = DropoutLayer<GeluElements>;

/// The form of [`GELUDropout`]: each element of a GELU's output by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GeluElements {
    with_tanh: bool,
}

impl GeluElements {
    /// Those of the approximation by tanh, as [`GELU::with_tanh`](crate::GELU::with_tanh) is.
    #[must_use]
    pub fn with_tanh() -> Self {
        Self { with_tanh: true }
    }

    /// The activation that it is.
    ///
    /// ```
    /// use sorix_core::Activation;
    /// use sorix_nn::dropout::GeluElements;
    /// assert_eq!(GeluElements::default().activation(), Activation::Gelu);
    /// assert_eq!(GeluElements::with_tanh().activation(), Activation::GeluTanh);
    /// ```
    #[must_use]
    pub fn activation(self) -> Activation {
        if self.with_tanh {
            Activation::GeluTanh
        } else {
            Activation::Gelu
        }
    }
}

impl GELUDropout {
    /// Of the approximation by tanh, as [`GELU::with_tanh`](crate::GELU::with_tanh) is.
    ///
    /// # Errors
    ///
    /// If p is NaN or outside [0, 1].
    pub fn with_tanh(p: f64) -> Result<Self> {
        Self::with_form(GeluElements::with_tanh(), p)
    }
}

impl Form for GeluElements {
    fn layer(&self) -> &'static str {
        "GELUDropout"
    }

    fn mask_shape(&self, shape: &[usize]) -> Result<Vec<usize>> {
        Ok(shape.to_vec())
    }

    fn apply(&self, x: &Tensor, draw: &Draw) -> Result<Tensor> {
        apply(self.activation(), x, draw)
    }

    fn pass(&self, x: &Tensor) -> Result<Tensor> {
        activate(self.activation(), x)
    }
}

/// [`SiLU`](crate::SiLU) and then [`Dropout`](crate::Dropout), in one pass over memory, as [`GELUDropout`] has it.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{Dropout, Generator, Module, Sequential, SiLU, SiLUDropout};
///
/// let mut fused = SiLUDropout::new(0.5)?.generator(Generator::new(42));
/// let apart = Sequential::new()
///     .with(SiLU)
///     .with(Dropout::new(0.5)?.generator(Generator::new(42)));
/// let x = tensor([[-1.0, 2.0]; 50]);
/// assert_eq!(fused.forward(&x)?.to_vec::<f64>()?, apart.forward(&x)?.to_vec::<f64>()?);
///
/// fused.eval();
/// assert_eq!(fused.forward(&x)?.to_vec::<f64>()?, x.silu()?.to_vec::<f64>()?);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub type SiLUDropout = DropoutLayer<SiluElements>;

/// The form of [`SiLUDropout`]: each element of a SiLU's output by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SiluElements;

impl Form for SiluElements {
    fn layer(&self) -> &'static str {
        "SiLUDropout"
    }

    fn mask_shape(&self, shape: &[usize]) -> Result<Vec<usize>> {
        Ok(shape.to_vec())
    }

    fn apply(&self, x: &Tensor, draw: &Draw) -> Result<Tensor> {
        apply(Activation::Silu, x, draw)
    }

    fn pass(&self, x: &Tensor) -> Result<Tensor> {
        activate(Activation::Silu, x)
    }
}

/// [`SwiGLU`](crate::SwiGLU) and then [`Dropout`](crate::Dropout), in one pass over memory: `silu(gate) * up`, where
/// the gate is the first half of the last axis and up the second, as in PyTorch's `GLU`. In eval nothing is
/// dropped.
///
/// Takes one key for each call in training; the mask is that of the output. For backward it keeps both halves,
/// and the mask as [`save_mask`](DropoutLayer::save_mask) says. Where the halves come as two tensors,
/// [`Tensor::swiglu_dropout`](sorix_core::Tensor::swiglu_dropout) saves the cut.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{Generator, Module, SwiGLU, SwiGLUDropout};
///
/// let mut layer = SwiGLUDropout::new(0.5)?.generator(Generator::new(42));
/// // 30 is silu(30) in 16 digits, nearly.
/// let x = tensor([[30.0, 40.0, 1.0, 2.0]; 50]);
/// let y = layer.forward(&x)?;
/// assert_eq!(y.shape(), [50, 2]);
/// assert!(y.to_vec::<f64>()?.iter().all(|y| y.abs() < 1e-9 || [60.0, 160.0].iter().any(|z| (y - z).abs() < 1e-9)));
///
/// layer.eval();
/// assert_eq!(layer.forward(&x)?.to_vec::<f64>()?, SwiGLU.forward(&x)?.to_vec::<f64>()?);
/// let error = layer.forward(&tensor([1.0; 3])).unwrap_err();
/// assert_eq!(error.to_string(), "SwiGLUDropout: expected a last axis of even length, got shape [3]");
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub type SwiGLUDropout = DropoutLayer<SwigluElements>;

/// The form of [`SwiGLUDropout`]: each element of the output by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwigluElements;

impl Form for SwigluElements {
    fn layer(&self) -> &'static str {
        "SwiGLUDropout"
    }

    fn mask_shape(&self, shape: &[usize]) -> Result<Vec<usize>> {
        swiglu::output_shape(self.layer(), shape)
    }

    /// A part of the input is not as long as its part of the mask.
    fn is_local(&self) -> bool {
        false
    }

    fn keeps_rows_apart(&self, shape: &[usize]) -> bool {
        shape.len() > 1
    }

    fn apply(&self, x: &Tensor, draw: &Draw) -> Result<Tensor> {
        let [gate, up] = swiglu::halves(self.layer(), x)?;
        Ok(gate.swiglu_dropout(&up, draw.rate, draw.at, draw.save)?)
    }

    fn pass(&self, x: &Tensor) -> Result<Tensor> {
        swiglu::swiglu(self.layer(), x)
    }
}

fn apply(activation: Activation, x: &Tensor, draw: &Draw) -> Result<Tensor> {
    let Draw { rate, at, save, .. } = *draw;
    Ok(x.act_dropout(activation, None, rate, at, save)?)
}

/// The activation without dropout: the same function at rate 0.
pub(crate) fn activate(activation: Activation, x: &Tensor) -> Result<Tensor> {
    let (rate, key) = (DropRate::new(0.0)?, MaskKey::default());
    Ok(x.act_dropout(activation, None, rate, key, SaveMask::Replay)?)
}
