//! [`TransformerEncoderLayer`] and [`TransformerDecoderLayer`]: attention and a network for each position,
//! with what stands between them in one pass.

use sorix_core::{Activation, DType, Tensor};

use crate::dropout::{Dropout, Fused, activate};
use crate::error::Result;
use crate::generator::Generator;
use crate::layers::{AttentionMasks, DropoutAddNorm, LayerNorm, Linear, MultiHeadAttention};
use crate::module::Module;

/// A layer of a transformer's encoder: self-attention, and a network of two [`Linear`]s for each position,
/// each with dropout, a residual and a [`LayerNorm`].
///
/// Postnorm, as in the paper and by default: `x = norm1(x + dropout1(attention(x)))` and `x = norm2(x +
/// dropout2(network(x)))`; prenorm, by [`norm_first`](Self::norm_first): `x += dropout1(attention(norm1(x)))` and
/// `x += dropout2(network(norm2(x)))`. In both, dropout, residual and normalisation are one pass
/// ([`DropoutAddNorm`]), and so are activation and dropout within the network.
///
/// Inputs are `[N, L, E]`, batch first, or `[L, E]`. [`encode`](Self::encode) takes masks, too. The parameters
/// have the names and shapes of `torch.nn.TransformerEncoderLayer`, so that its safetensors load:
/// `self_attn.in_proj_weight`, `linear1.weight`, `linear2.bias`, `norm1.weight` and so on. For 16-bit inputs
/// the residual is f32 within the layer.
///
/// Source: Vaswani et al., *Attention is all you need*, NeurIPS 2017; for prenorm Xiong et al., *On layer
/// normalization in the transformer architecture*, ICML 2020.
///
/// ```
/// use sorix_core::{DType, MaskKey, Tensor};
/// use sorix_nn::{AttentionMasks, Generator, Module, TransformerEncoderLayer};
///
/// let mut layer = TransformerEncoderLayer::new(8, 2, 32, 0.1, &Generator::new(42))?.norm_first(true);
/// let x = Tensor::randn([3, 5, 8], DType::F32, MaskKey::new(1, 0))?;
/// let y = layer.encode(&x, AttentionMasks::new().is_causal(true))?;
/// assert_eq!(y.shape(), [3, 5, 8]);
///
/// layer.eval();
/// assert_eq!(layer.forward(&x)?.to_vec::<f32>()?, layer.forward(&x)?.to_vec::<f32>()?);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct TransformerEncoderLayer {
    self_attn: MultiHeadAttention,
    linear1: Linear,
    /// Of the activation.
    dropout: Dropout,
    linear2: Linear,
    norm1: LayerNorm,
    norm2: LayerNorm,
    dropout1: Dropout,
    dropout2: Dropout,
    norm_first: bool,
    #[module(skip)]
    activation: Activation,
}

impl TransformerEncoderLayer {
    /// Of f32: inputs as wide as `d_model`, `nhead` heads, `dim_feedforward` numbers for each position between the
    /// two linear layers, and dropout everywhere with probability `p`; postnorm, with ReLU.
    ///
    /// The generator gives the keys of the first values, and each dropout draws from a fork by its name.
    ///
    /// # Errors
    ///
    /// If `nhead` is 0 or `d_model` is 0 or not divisible by it, if p is NaN or outside [0, 1], and if allocation
    /// fails.
    pub fn new(
        d_model: usize,
        nhead: usize,
        dim_feedforward: usize,
        p: f64,
        generator: &Generator,
    ) -> Result<Self> {
        Self::with_dtype(d_model, nhead, dim_feedforward, p, DType::F32, generator)
    }

    /// [`new`](Self::new), of another dtype.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    ///
    /// ```
    /// use sorix_core::DType;
    /// use sorix_nn::{Generator, Module, TransformerEncoderLayer};
    /// let generator = Generator::new(42);
    /// let layer = TransformerEncoderLayer::with_dtype(4, 2, 8, 0.1, DType::F64, &generator)?;
    /// let names = layer.named_generators().into_iter().map(|(name, _)| name);
    /// assert!(names.eq([
    ///     "self_attn.dropout.generator",
    ///     "dropout.generator",
    ///     "dropout1.generator",
    ///     "dropout2.generator",
    /// ]));
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn with_dtype(
        d_model: usize,
        nhead: usize,
        dim_feedforward: usize,
        p: f64,
        dtype: DType,
        generator: &Generator,
    ) -> Result<Self> {
        let attention = MultiHeadAttention::with_dtype(d_model, nhead, p, dtype, generator)?;
        let linear = |inputs, outputs| Linear::with_dtype(inputs, outputs, dtype, generator);
        let mut layer = Self {
            self_attn: attention,
            linear1: linear(d_model, dim_feedforward)?,
            dropout: Dropout::new(p)?,
            linear2: linear(dim_feedforward, d_model)?,
            norm1: LayerNorm::with_dtype([d_model], dtype)?,
            norm2: LayerNorm::with_dtype([d_model], dtype)?,
            dropout1: Dropout::new(p)?,
            dropout2: Dropout::new(p)?,
            norm_first: false,
            activation: Activation::Relu,
        };
        layer.fork_generators(generator);
        Ok(layer)
    }

    /// With `true`, prenorm: attention and network get what is normalised, and their results are added to what
    /// is not.
    #[must_use]
    pub fn norm_first(self, norm_first: bool) -> Self {
        Self { norm_first, ..self }
    }

    /// With this activation in place of ReLU.
    ///
    /// ```
    /// use sorix_core::Activation;
    /// use sorix_nn::{Generator, TransformerEncoderLayer};
    /// let layer = TransformerEncoderLayer::new(8, 2, 32, 0.1, &Generator::new(42))?;
    /// let layer = layer.activation(Activation::Gelu);
    /// # let _ = layer;
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    /// With another `eps` of the two norms; it is 1e-5.
    ///
    /// # Errors
    ///
    /// As [`LayerNorm::eps`].
    pub fn layer_norm_eps(self, eps: f64) -> Result<Self> {
        Ok(Self {
            norm1: self.norm1.eps(eps)?,
            norm2: self.norm2.eps(eps)?,
            ..self
        })
    }

    /// What the layer makes of `x`, if the attention may not see everything.
    ///
    /// # Errors
    ///
    /// As [`MultiHeadAttention::attend`]. For an example see [`TransformerEncoderLayer`].
    pub fn encode(&self, x: &Tensor, masks: AttentionMasks<'_>) -> Result<Tensor> {
        let attend = |x: &Tensor| self.self_attn.attend(x, x, x, masks);
        if self.norm_first {
            let found = attend(&self.norm1.forward(x)?)?;
            let (z, sum) = add_norm(&self.dropout1, &self.norm2, &found, x)?;
            add(&self.dropout2, &self.network().forward(&z)?, &sum)
        } else {
            let (x, _) = add_norm(&self.dropout1, &self.norm1, &attend(x)?, x)?;
            let made = self.network().forward(&x)?;
            Ok(add_norm(&self.dropout2, &self.norm2, &made, &x)?.0)
        }
    }

    fn network(&self) -> Network<'_> {
        Network {
            linear1: &self.linear1,
            dropout: &self.dropout,
            linear2: &self.linear2,
            activation: self.activation,
        }
    }
}

impl Module for TransformerEncoderLayer {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.encode(x, AttentionMasks::new())
    }
}

/// A layer of a transformer's decoder: self-attention, attention to a memory, and a network of two
/// [`Linear`]s for each position, each with dropout, a residual and a [`LayerNorm`], as in a
/// [`TransformerEncoderLayer`].
///
/// [`decode`](Self::decode) takes x, the memory and masks. As a [`Module`] of one input it is that of x with
/// itself as the memory, without masks. The parameters have the names and shapes of
/// `torch.nn.TransformerDecoderLayer`: those of the encoder's layer, `multihead_attn` and `norm3`.
///
/// Source: Vaswani et al., *Attention is all you need*, NeurIPS 2017.
///
/// ```
/// use sorix_core::{DType, MaskKey, Tensor};
/// use sorix_nn::{AttentionMasks, Generator, Module, TransformerDecoderLayer};
///
/// let layer = TransformerDecoderLayer::new(8, 2, 32, 0.1, &Generator::new(42))?;
/// let x = Tensor::randn([3, 5, 8], DType::F32, MaskKey::new(1, 0))?;
/// let memory = Tensor::randn([3, 7, 8], DType::F32, MaskKey::new(2, 0))?;
/// let causal = AttentionMasks::new().is_causal(true);
/// let y = layer.decode(&x, &memory, causal, AttentionMasks::new())?;
/// assert_eq!(y.shape(), [3, 5, 8]);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct TransformerDecoderLayer {
    self_attn: MultiHeadAttention,
    multihead_attn: MultiHeadAttention,
    linear1: Linear,
    /// Of the activation.
    dropout: Dropout,
    linear2: Linear,
    norm1: LayerNorm,
    norm2: LayerNorm,
    norm3: LayerNorm,
    dropout1: Dropout,
    dropout2: Dropout,
    dropout3: Dropout,
    norm_first: bool,
    #[module(skip)]
    activation: Activation,
}

impl TransformerDecoderLayer {
    /// Of f32; as [`TransformerEncoderLayer::new`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn new(
        d_model: usize,
        nhead: usize,
        dim_feedforward: usize,
        p: f64,
        generator: &Generator,
    ) -> Result<Self> {
        Self::with_dtype(d_model, nhead, dim_feedforward, p, DType::F32, generator)
    }

    /// [`new`](Self::new), of another dtype.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_dtype(
        d_model: usize,
        nhead: usize,
        dim_feedforward: usize,
        p: f64,
        dtype: DType,
        generator: &Generator,
    ) -> Result<Self> {
        let attention = || MultiHeadAttention::with_dtype(d_model, nhead, p, dtype, generator);
        let linear = |inputs, outputs| Linear::with_dtype(inputs, outputs, dtype, generator);
        let norm = || LayerNorm::with_dtype([d_model], dtype);
        let mut layer = Self {
            self_attn: attention()?,
            multihead_attn: attention()?,
            linear1: linear(d_model, dim_feedforward)?,
            dropout: Dropout::new(p)?,
            linear2: linear(dim_feedforward, d_model)?,
            norm1: norm()?,
            norm2: norm()?,
            norm3: norm()?,
            dropout1: Dropout::new(p)?,
            dropout2: Dropout::new(p)?,
            dropout3: Dropout::new(p)?,
            norm_first: false,
            activation: Activation::Relu,
        };
        layer.fork_generators(generator);
        Ok(layer)
    }

    /// With `true`, prenorm; see [`TransformerEncoderLayer::norm_first`].
    #[must_use]
    pub fn norm_first(self, norm_first: bool) -> Self {
        Self { norm_first, ..self }
    }

    /// With this activation in place of ReLU.
    #[must_use]
    pub fn activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    /// With another `eps` of the three norms; it is 1e-5.
    ///
    /// # Errors
    ///
    /// As [`LayerNorm::eps`].
    pub fn layer_norm_eps(self, eps: f64) -> Result<Self> {
        Ok(Self {
            norm1: self.norm1.eps(eps)?,
            norm2: self.norm2.eps(eps)?,
            norm3: self.norm3.eps(eps)?,
            ..self
        })
    }

    /// What the layer makes of `x` and `memory`: `masks` are those of the self-attention, `memory_masks` those
    /// of the attention to the memory.
    ///
    /// # Errors
    ///
    /// As [`MultiHeadAttention::attend`]. For an example see [`TransformerDecoderLayer`].
    pub fn decode(
        &self,
        x: &Tensor,
        memory: &Tensor,
        masks: AttentionMasks<'_>,
        memory_masks: AttentionMasks<'_>,
    ) -> Result<Tensor> {
        let attend = |x: &Tensor| self.self_attn.attend(x, x, x, masks);
        let look_up = |x: &Tensor| self.multihead_attn.attend(x, memory, memory, memory_masks);
        if self.norm_first {
            let found = attend(&self.norm1.forward(x)?)?;
            let (z, sum) = add_norm(&self.dropout1, &self.norm2, &found, x)?;
            let (z, sum) = add_norm(&self.dropout2, &self.norm3, &look_up(&z)?, &sum)?;
            add(&self.dropout3, &self.network().forward(&z)?, &sum)
        } else {
            let (x, _) = add_norm(&self.dropout1, &self.norm1, &attend(x)?, x)?;
            let (x, _) = add_norm(&self.dropout2, &self.norm2, &look_up(&x)?, &x)?;
            let made = self.network().forward(&x)?;
            Ok(add_norm(&self.dropout3, &self.norm3, &made, &x)?.0)
        }
    }

    fn network(&self) -> Network<'_> {
        Network {
            linear1: &self.linear1,
            dropout: &self.dropout,
            linear2: &self.linear2,
            activation: self.activation,
        }
    }
}

impl Module for TransformerDecoderLayer {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.decode(x, x, AttentionMasks::new(), AttentionMasks::new())
    }
}

/// The network for each position.
struct Network<'l> {
    linear1: &'l Linear,
    dropout: &'l Dropout,
    linear2: &'l Linear,
    activation: Activation,
}

impl Network<'_> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.linear1.forward(x)?;
        let dropped = match self.dropout.fused(x.shape())? {
            Fused::Nothing => activate(self.activation, &x),
            Fused::By { rate, at, save } => {
                Ok(x.act_dropout(self.activation, None, rate, at, save)?)
            }
            Fused::Apart => self.dropout.forward(&activate(self.activation, &x)?),
        };
        self.linear2.forward(&dropped?)
    }
}

/// The normalised `residual + dropout(x)`, and that sum, in one pass.
fn add_norm(
    dropout: &Dropout,
    norm: &LayerNorm,
    x: &Tensor,
    residual: &Tensor,
) -> Result<(Tensor, Tensor)> {
    // Handles to the same parameters and the same generator.
    DropoutAddNorm::new(norm.clone(), dropout.clone()).add(x, residual)
}

/// `residual + dropout(x)`, in the dtype of x.
fn add(dropout: &Dropout, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
    dropout.forward_add(x, &residual.to_dtype(x.dtype())?)
}
