//! [`MultiHeadAttention`]: queries look for keys, in several heads.

use sorix_core::{AttentionOptions, DType, DropRate, ErrorKind, MaskKey, SaveMask, Tensor};

use crate::dropout::{Dropout, Fused, check_whole};
use crate::error::{Error, Result};
use crate::functional;
use crate::generator::Generator;
use crate::init;
use crate::layers::Linear;
use crate::module::Module;

const NAME: &str = "MultiHeadAttention";

/// What an attention may not see.
///
/// The masks are added to the scores: 0 lets a query see a key, minus infinity does not, and anything else
/// is a bias, which may have a gradient. (PyTorch's masks of booleans are these with `true` turned to minus
/// infinity.) They have the dtype of the input or the one that it is computed in.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::AttentionMasks;
/// // Two samples, of which the second has one key less.
/// let padding = tensor([[0.0_f32, 0.0, 0.0], [0.0, 0.0, f32::NEG_INFINITY]]);
/// let masks = AttentionMasks::new().key_padding_mask(&padding).is_causal(true);
/// # let _ = masks;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct AttentionMasks<'t> {
    key_padding_mask: Option<&'t Tensor>,
    attn_mask: Option<&'t Tensor>,
    is_causal: bool,
}

impl<'t> AttentionMasks<'t> {
    /// Every query sees every key.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Added to the scores of every query with the keys of its sample: `[N, S]`, or `[S]` without a batch.
    #[must_use]
    pub fn key_padding_mask(self, key_padding_mask: &'t Tensor) -> Self {
        let key_padding_mask = Some(key_padding_mask);
        Self {
            key_padding_mask,
            ..self
        }
    }

    /// Added to the scores, to whose shape `[N, heads, L, S]` it broadcasts: `[L, S]` for instance.
    #[must_use]
    pub fn attn_mask(self, attn_mask: &'t Tensor) -> Self {
        let attn_mask = Some(attn_mask);
        Self { attn_mask, ..self }
    }

    /// With `true`, query i sees keys 0 to i alone.
    #[must_use]
    pub fn is_causal(self, is_causal: bool) -> Self {
        Self { is_causal, ..self }
    }
}

/// Attention in several heads, as in a transformer: projections of queries, keys and values, the attention
/// of each head with dropout of its probabilities, and a projection of what the heads found.
///
/// [`attend`](Self::attend) takes query, key and value; as a [`Module`] of one input it is
/// self-attention without masks. Inputs are `[N, L, E]`, batch first, or `[L, E]`.
///
/// The matrix of probabilities is not in memory: see
/// [`scaled_dot_product_attention`](Tensor::scaled_dot_product_attention). Only where each row of a batch has
/// a key of its own ([`monte_carlo_rows`](crate::monte_carlo_rows)) or a worker has a part of the batch
/// ([`forward_sharded`](Module::forward_sharded)) is it made. A worker cannot have a part of the other
/// axes, as a query looks at all keys.
///
/// The parameters have the names and shapes of `torch.nn.MultiheadAttention`, so that its safetensors
/// load: `in_proj_weight` `[3 E, E]`, `in_proj_bias` `[3 E]`, `out_proj.weight` `[E, E]`, `out_proj.bias`
/// `[E]`. Keys and values are as wide as queries (no `kdim` and `vdim`), and there is no `bias_kv`. p, the
/// generator of masks and the mode are those of a [`Dropout`], the child `"dropout"`.
///
/// Source: Vaswani et al., *Attention is all you need*, NeurIPS 2017.
///
/// ```
/// use sorix_core::{DType, MaskKey, Tensor};
/// use sorix_nn::{AttentionMasks, Generator, Module, MultiHeadAttention};
///
/// let mut attention = MultiHeadAttention::new(8, 2, 0.1, &Generator::new(42))?;
/// let x = Tensor::randn([3, 5, 8], DType::F32, MaskKey::new(1, 0))?;
/// let memory = Tensor::randn([3, 7, 8], DType::F32, MaskKey::new(2, 0))?;
/// assert_eq!(attention.forward(&x)?.shape(), [3, 5, 8]);
/// assert_eq!(attention.attend(&x, &memory, &memory, AttentionMasks::new())?.shape(), [3, 5, 8]);
///
/// // What comes first does not depend on what comes later.
/// attention.eval();
/// let causal = AttentionMasks::new().is_causal(true);
/// let all = attention.attend(&x, &x, &x, causal)?.slice(1, 0..1)?;
/// let first = x.slice(1, 0..1)?;
/// let alone = attention.attend(&first, &first, &first, causal)?;
/// assert!(all.sub(&alone)?.abs()?.max()?.item::<f32>()? < 1e-6);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct MultiHeadAttention {
    #[module(parameter)]
    in_proj_weight: Tensor,
    #[module(parameter)]
    in_proj_bias: Option<Tensor>,
    out_proj: Linear,
    dropout: Dropout,
    num_heads: usize,
}

impl MultiHeadAttention {
    /// Of f32, with biases, and dropout with probability `p`.
    ///
    /// First values are those of PyTorch: `in_proj_weight` by
    /// [`xavier_uniform`](crate::init::xavier_uniform), `out_proj.weight` uniform within ±1/√E, biases 0. The
    /// generator gives a key for each weight, and one for a bias that is then set to 0; the dropout draws from
    /// its fork `"dropout"`.
    ///
    /// # Errors
    ///
    /// If `embed_dim` or `num_heads` is 0 or the former is not divisible by the latter, if p is NaN or outside [0, 1], and if
    /// allocation fails.
    pub fn new(embed_dim: usize, num_heads: usize, p: f64, generator: &Generator) -> Result<Self> {
        Self::with_dtype(embed_dim, num_heads, p, DType::F32, generator)
    }

    /// [`new`](Self::new), of another dtype.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    ///
    /// ```
    /// use sorix_core::DType;
    /// use sorix_nn::{Generator, Module, MultiHeadAttention};
    /// let attention = MultiHeadAttention::with_dtype(8, 2, 0.1, DType::F64, &Generator::new(42))?;
    /// let names = attention.named_parameters().into_iter().map(|(name, _)| name);
    /// let expected = ["in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"];
    /// assert!(names.eq(expected));
    ///
    /// let error = MultiHeadAttention::new(8, 3, 0.1, &Generator::new(42)).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "MultiHeadAttention: num_heads: expected a divisor of the width, at least 1, got 3"
    /// );
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn with_dtype(
        embed_dim: usize,
        num_heads: usize,
        p: f64,
        dtype: DType,
        generator: &Generator,
    ) -> Result<Self> {
        let dropout = Dropout::new(p)?.generator(generator.fork("dropout"));
        check_heads(embed_dim, num_heads)?;
        let weight = Tensor::zeros([3 * embed_dim, embed_dim], dtype)?;
        if embed_dim > 0 {
            init::xavier_uniform(&weight, 1.0, generator)?;
        }
        let bias = Tensor::zeros([3 * embed_dim], dtype)?;
        let out_proj = Linear::with_dtype(embed_dim, embed_dim, dtype, generator)?;
        if let Some(bias) = out_proj.bias() {
            init::zeros(bias)?;
        }
        Self::from_tensors(weight, Some(bias), out_proj, num_heads, dropout)
    }

    /// With these parameters: a weight of shape `[3 E, E]`, for queries, keys and values one after another,
    /// its bias of shape `[3 E]`, and the layer that makes E of E.
    ///
    /// # Errors
    ///
    /// If shapes or dtypes do not fit each other, or as [`new`](Self::new).
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Dropout, Linear, Module, MultiHeadAttention};
    ///
    /// let out = Linear::from_tensors(tensor([[10.0]]), None)?;
    /// let weight = tensor([[0.0], [0.0], [1.0]]);
    /// let attention = MultiHeadAttention::from_tensors(weight, None, out, 1, Dropout::new(0.0)?)?;
    /// // Queries and keys are 0, and each value counts as much as any.
    /// let y = attention.forward(&tensor([[1.0], [2.0], [6.0]]))?;
    /// assert_eq!(y.to_vec::<f64>()?, [30.0; 3]);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn from_tensors(
        in_proj_weight: Tensor,
        in_proj_bias: Option<Tensor>,
        out_proj: Linear,
        num_heads: usize,
        dropout: Dropout,
    ) -> Result<Self> {
        let width = match *in_proj_weight.shape() {
            [rows, width] if rows == 3 * width => width,
            _ => {
                let expected = "an in_proj_weight of shape [3 E, E]";
                return Err(Error::shape(NAME, expected, in_proj_weight.shape()));
            }
        };
        check_heads(width, num_heads)?;
        let out = out_proj.weight();
        if out.shape() != [width, width] {
            let expected = format!("an out_proj.weight of shape [{width}, {width}]");
            return Err(Error::shape(NAME, expected, out.shape()));
        }
        if let Some(bias) = &in_proj_bias
            && bias.shape() != [3 * width]
        {
            let expected = format!("an in_proj_bias of shape [{}]", 3 * width);
            return Err(Error::shape(NAME, expected, bias.shape()));
        }
        for tensor in [Some(out), in_proj_bias.as_ref()].into_iter().flatten() {
            if tensor.dtype() != in_proj_weight.dtype() {
                let operands = [&in_proj_weight, tensor];
                let kind = ErrorKind::MixedDTypes;
                return Err(sorix_core::Error::new(NAME, &operands, kind).into());
            }
        }
        Ok(Self {
            in_proj_weight: in_proj_weight.requires_grad(true),
            in_proj_bias: in_proj_bias.map(|bias| bias.requires_grad(true)),
            out_proj,
            dropout,
            num_heads,
        })
    }

    /// Without biases.
    #[must_use]
    pub fn without_bias(self) -> Self {
        Self {
            in_proj_bias: None,
            out_proj: self.out_proj.without_bias(),
            ..self
        }
    }

    /// The number of heads.
    #[must_use]
    pub fn num_heads(&self) -> usize {
        self.num_heads
    }

    /// The length of the last axis of inputs and outputs.
    #[must_use]
    pub fn embed_dim(&self) -> usize {
        self.in_proj_weight.shape()[1]
    }

    /// The dropout of probabilities.
    #[must_use]
    pub fn dropout(&self) -> &Dropout {
        &self.dropout
    }

    /// What the queries find: of `query` `[N, L, E]`, `key` and `value` `[N, S, E]`, or of all without N.
    ///
    /// If key and value are one tensor, or all three are, their projections are one product. In training,
    /// and within [`monte_carlo`](crate::monte_carlo), one key is taken.
    ///
    /// A query that sees no key gets the bias of the projection alone.
    ///
    /// # Errors
    ///
    /// If shapes or dtypes do not fit, and those of
    /// [`scaled_dot_product_attention`](Tensor::scaled_dot_product_attention). No key is taken if an input
    /// has the wrong shape. For an example see [`MultiHeadAttention`].
    pub fn attend(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        masks: AttentionMasks<'_>,
    ) -> Result<Tensor> {
        let width = self.embed_dim();
        let (batch, queries) = match *query.shape() {
            [n, l, e] if e == width => (Some(n), l),
            [l, e] if e == width => (None, l),
            _ => {
                let expected = format!("a query of shape [N, L, {width}] or [L, {width}]");
                return Err(Error::shape(NAME, expected, query.shape()));
            }
        };
        let keys = match *key.shape() {
            [n, s, e] if Some(n) == batch && e == width => s,
            [s, e] if batch.is_none() && e == width => s,
            _ => {
                let expected = match batch {
                    Some(n) => format!("a key of shape [{n}, S, {width}]"),
                    None => format!("a key of shape [S, {width}]"),
                };
                return Err(Error::shape(NAME, expected, key.shape()));
            }
        };
        if value.shape() != key.shape() {
            let expected = format!("a value of shape {:?}", key.shape());
            return Err(Error::shape(NAME, expected, value.shape()));
        }
        check_whole(NAME, query.shape(), |axis| batch.is_none() || axis > 0)?;
        let n = batch.unwrap_or(1);
        let scores = [n, self.num_heads, queries, keys];
        let mask = mask_of(&masks, batch, keys)?;

        let [query_of, key_of, value_of] = self.projections(query, key, value, n)?;
        let mut options = AttentionOptions::new().is_causal(masks.is_causal);
        if let Some(mask) = &mask {
            options = options.attn_mask(mask);
        }
        let found = match self.dropout.fused(&scores)? {
            Fused::Nothing => query_of.scaled_dot_product_attention(&key_of, &value_of, options)?,
            Fused::By { rate, at, .. } => {
                let options = options.dropout(rate, at);
                query_of.scaled_dot_product_attention(&key_of, &value_of, options)?
            }
            Fused::Apart => {
                let mask = match (masks.is_causal, mask) {
                    (true, mask) => {
                        let causal = causal_mask(queries, keys, query.dtype().arithmetic())?;
                        let wide = |mask: Tensor| mask.to_dtype(causal.dtype());
                        let mask = mask.map(wide).transpose()?;
                        Some(mask.map_or_else(|| Ok(causal.clone()), |mask| mask.add(&causal))?)
                    }
                    (false, mask) => mask,
                };
                let scale = ((width / self.num_heads).max(1) as f64).sqrt().recip();
                let products = query_of.matmul(&key_of.transpose(-1, -2)?)?;
                let none = DropRate::new(0.0)?;
                let (at, save) = (MaskKey::default(), SaveMask::Replay);
                let probabilities =
                    products.softmax_dropout(mask.as_ref(), scale, none, at, save)?;
                self.dropout.forward(&probabilities)?.matmul(&value_of)?
            }
        };
        let found = found.transpose(1, 2)?.reshape([n, queries, width])?;
        let y = self.out_proj.forward(&found)?;
        match batch {
            Some(_) => Ok(y),
            None => Ok(y.squeeze(0)?),
        }
    }

    /// Query, key and value in heads: `[N, heads, L, E / heads]`, views of the projections.
    fn projections(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        n: usize,
    ) -> Result<[Tensor; 3]> {
        let width = self.embed_dim();
        let (heads, each) = (self.num_heads, width / self.num_heads);
        // Projections `range` of the three of one input.
        let of = |x: &Tensor, range: core::ops::Range<usize>| -> Result<Vec<Tensor>> {
            let (count, rows) = (range.len(), range.start * width..range.end * width);
            let weight = self.in_proj_weight.slice(0, rows.clone())?;
            let bias = self.in_proj_bias.as_ref();
            let bias = bias.map(|bias| bias.slice(0, rows)).transpose()?;
            let length = x.shape()[x.ndim() - 2];
            let x = x.reshape([n, length, width])?;
            let all = functional::linear(&x, &weight, bias.as_ref())?;
            let all = all.reshape([n, length, count, heads, each])?;
            let all = all.permute(&[2, 0, 3, 1, 4])?;
            let one = |k: usize| all.slice(0, k..k + 1)?.squeeze(0);
            Ok((0..count).map(one).collect::<Result<_, _>>()?)
        };
        let mut projections = Vec::with_capacity(3);
        if query.is_same(key) && key.is_same(value) {
            projections.extend(of(query, 0..3)?);
        } else {
            projections.extend(of(query, 0..1)?);
            if key.is_same(value) {
                projections.extend(of(key, 1..3)?);
            } else {
                projections.extend(of(key, 1..2)?);
                projections.extend(of(value, 2..3)?);
            }
        }
        let mut projections = projections.into_iter();
        let mut next = || projections.next().expect("three, whatever is one tensor");
        Ok([next(), next(), next()])
    }
}

impl Module for MultiHeadAttention {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.attend(x, x, x, AttentionMasks::new())
    }
}

fn check_heads(width: usize, num_heads: usize) -> Result<()> {
    if width == 0 {
        return Err(Error::Hyperparameter {
            op: NAME,
            what: "embed_dim",
            expected: "at least 1",
            got: 0.0,
        });
    }
    if num_heads > 0 && width.is_multiple_of(num_heads) {
        return Ok(());
    }
    Err(Error::Hyperparameter {
        op: NAME,
        what: "num_heads",
        expected: "a divisor of the width, at least 1",
        got: num_heads as f64,
    })
}

/// What is added to the scores of so many samples, or of one without a batch, but for what is causal.
fn mask_of(
    masks: &AttentionMasks<'_>,
    batch: Option<usize>,
    keys: usize,
) -> Result<Option<Tensor>> {
    let padding = masks.key_padding_mask.map(|padding| -> Result<Tensor> {
        let of_all = [batch.unwrap_or(1), keys];
        let expected = if batch.is_some() {
            &of_all[..]
        } else {
            &of_all[1..]
        };
        if padding.shape() != expected {
            let expected = format!("a key_padding_mask of shape {expected:?}");
            return Err(Error::shape(NAME, expected, padding.shape()));
        }
        Ok(padding.reshape([of_all[0], 1, 1, keys])?)
    });
    match (padding.transpose()?, masks.attn_mask) {
        (Some(padding), Some(mask)) => {
            let dtype = mask.dtype().arithmetic();
            let sum = mask.to_dtype(dtype)?.add(&padding.to_dtype(dtype)?)?;
            Ok(Some(sum))
        }
        (padding, mask) => Ok(padding.or_else(|| mask.cloned())),
    }
}

/// Minus infinity where key j comes after query i.
fn causal_mask(queries: usize, keys: usize, dtype: DType) -> Result<Tensor> {
    let ones = Tensor::ones([queries, keys], dtype)?;
    let zeros = Tensor::zeros([queries, keys], dtype)?;
    Ok(zeros.masked_fill(&ones.sub(&ones.tril(0)?)?, f64::NEG_INFINITY)?)
}
