//! Attention that never holds its matrix: tiles of scores, normalised as they come, with the bits of
//! dropout's mask made where they are needed.
//!
//! Source: Dao, *FlashAttention-2*, arXiv:2307.08691, for the order of the computation; Milakov and
//! Gimelshein, *Online normalizer calculation for softmax*, arXiv:1805.02867.

mod backward;
mod forward;
mod mask_gradient;
mod tiles;

use sorix_kernels::{DropRate, MaskRegion};

use self::backward::AttentionBackward;
use self::tiles::{Inputs, Sizes};
use crate::autograd::{SavedTensor, is_recorded, record, tape_mask};
use crate::dtype::DType;
use crate::error::{Call, ErrorKind, Operand, Operands, Result};
use crate::ops::dropout::softmax::expect_additive;
use crate::tensor::{Tensor, operands};

/// What [`Tensor::scaled_dot_product_attention`] may be given beside query, key and value. By default
/// nothing: no mask, no dropout, every query sees every key.
///
/// `M` is what the additive mask is: `&Tensor`, and in adapters a tensor of another library's.
///
/// ```
/// use sorix_core::{AttentionOptions, DropRate, MaskKey, tensor};
///
/// let attn_mask = tensor([0.0, f64::NEG_INFINITY]);
/// let options = AttentionOptions::new()
///     .attn_mask(&attn_mask)
///     .scale(1.0)
///     .dropout(DropRate::new(0.0)?, MaskKey::new(7, 0));
/// let x = tensor([[1.0, 2.0], [3.0, 4.0]]);
/// // Each query sees the first key alone.
/// let y = x.scaled_dot_product_attention(&x, &x, options)?;
/// assert_eq!(y.to_vec::<f64>()?, [1.0, 2.0, 1.0, 2.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct AttentionOptions<M> {
    /// What is [added to the scores](Self::attn_mask).
    pub attn_mask: Option<M>,
    /// Which [probabilities are dropped](Self::dropout).
    pub dropout: Option<(DropRate, MaskRegion)>,
    /// Whether [later keys are hidden](Self::is_causal).
    pub is_causal: bool,
    /// Which query of its sequence [the first one is](Self::first_query).
    pub first_query: usize,
    /// What products are [multiplied with](Self::scale), if not 1/√E.
    pub scale: Option<f64>,
    /// Whether key and value [may have fewer heads](Self::enable_gqa).
    pub enable_gqa: bool,
}

impl<M> Default for AttentionOptions<M> {
    fn default() -> Self {
        Self {
            attn_mask: None,
            dropout: None,
            is_causal: false,
            first_query: 0,
            scale: None,
            enable_gqa: false,
        }
    }
}

impl<M> AttentionOptions<M> {
    /// Without anything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with this in place of the additive mask, which may be one of another kind.
    ///
    /// ```
    /// use sorix_core::{AttentionOptions, Tensor};
    /// let options = AttentionOptions::new().attn_mask("of another library").is_causal(true);
    /// let options: AttentionOptions<&Tensor> = options.with_mask(None);
    /// assert!(options.is_causal && options.attn_mask.is_none());
    /// ```
    #[must_use]
    pub fn with_mask<N>(self, attn_mask: Option<N>) -> AttentionOptions<N> {
        AttentionOptions {
            attn_mask,
            dropout: self.dropout,
            is_causal: self.is_causal,
            first_query: self.first_query,
            scale: self.scale,
            enable_gqa: self.enable_gqa,
        }
    }

    /// Adds this to the scores, to whose shape `[.., H, L, S]` it broadcasts; minus infinity masks a key out
    /// for a query. It has the dtype of the query or the one that this is computed in.
    #[must_use]
    pub fn attn_mask(self, attn_mask: M) -> Self {
        let attn_mask = Some(attn_mask);
        Self { attn_mask, ..self }
    }

    /// Drops probabilities at this rate, by the mask of a tensor of the shape of the scores,
    /// `[.., H, L, S]`: the one that [`Tensor::dropout`] would give them. If queries or heads are cut among
    /// workers, a [shard](crate::MaskKey::shard) of that shape. Rate 0, or no dropout, is what to give in
    /// eval.
    #[must_use]
    pub fn dropout(self, rate: DropRate, at: impl Into<MaskRegion>) -> Self {
        let dropout = Some((rate, at.into()));
        Self { dropout, ..self }
    }

    /// With `true`, query i sees keys 0 to i alone, from the upper left corner of the scores, as in PyTorch
    /// also if there are more keys than queries. A mask may be given, too.
    #[must_use]
    pub fn is_causal(self, is_causal: bool) -> Self {
        Self { is_causal, ..self }
    }

    /// That the first query is number `first_query` of its sequence: query i sees keys 0 to `first_query + i`
    /// if the attention is causal. For queries that are cut among workers, and for those that follow cached
    /// keys.
    ///
    /// ```
    /// use sorix_core::{AttentionOptions, tensor};
    /// let x = tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]);
    /// let causal = AttentionOptions::new().is_causal(true);
    /// let whole = x.scaled_dot_product_attention(&x, &x, causal)?;
    /// let last = x.slice(0, 2..)?.scaled_dot_product_attention(&x, &x, causal.first_query(2))?;
    /// let whole = whole.slice(0, 2..)?.to_vec::<f64>()?;
    /// assert!(whole.iter().zip(last.to_vec::<f64>()?).all(|(a, b)| (a - b).abs() < 1e-12));
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    #[must_use]
    pub fn first_query(self, first_query: usize) -> Self {
        Self {
            first_query,
            ..self
        }
    }

    /// What products of queries and keys are multiplied with; by default 1/√E.
    #[must_use]
    pub fn scale(self, scale: f64) -> Self {
        let scale = Some(scale);
        Self { scale, ..self }
    }

    /// With `true`, key and value may have fewer heads, by which the number of the query's is divisible:
    /// as many neighbouring heads of the query share one.
    ///
    /// Source: Ainslie et al., *GQA*, arXiv:2305.13245.
    #[must_use]
    pub fn enable_gqa(self, enable_gqa: bool) -> Self {
        Self { enable_gqa, ..self }
    }
}

impl AttentionOptions<&Tensor> {
    /// [`Tensor::scaled_dot_product_attention`] without a graph, and what its backward wants beside the result: for
    /// libraries that have a graph of their own, and for those that put the results of several blocks of keys together.
    ///
    /// Returns, in the dtype that is computed in, the result, `[.., H, L, Ev]`, and `logsumexp`, `[.., H, L]`: of each query
    /// the logarithm of the sum of the exponentials of its scores, minus infinity if it sees nothing. Of 16-bit tensors the
    /// result is to be rounded by [`to_dtype`](Tensor::to_dtype), and kept for backward as it is.
    ///
    /// # Errors
    ///
    /// As the operation.
    ///
    /// ```
    /// use sorix_core::{AttentionOptions, tensor};
    /// let (query, key) = (tensor([[1.0]]), tensor([[0.0], [0.0]]));
    /// let (y, logsumexp) = AttentionOptions::new().forward(&query, &key, &tensor([[1.0], [3.0]]))?;
    /// assert_eq!(y.to_vec::<f64>()?, [2.0]);
    /// assert_eq!(logsumexp.to_vec::<f64>()?, [2.0_f64.ln()]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn forward(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let inputs = [query, key, value];
        let specs = specs_of(inputs, self);
        let call = Call::new("scaled_dot_product_attention", Operands::Several(&specs));
        let dtype = query.dtype().arithmetic();
        Plan::new(call, inputs, self)?.forward(call, inputs, self.attn_mask, dtype)
    }

    /// The gradients of query, key, value and `attn_mask`, each if it is `wanted`, from those of the result: what
    /// [`forward`](Self::forward) of the same options returned, and its gradient, of its shape and the dtype of the query or
    /// the one that is computed in. They are of the latter. Without a mask there is none of it.
    ///
    /// # Errors
    ///
    /// As the operation; and if `output`, `logsumexp` or `grad` have another shape or dtype.
    ///
    /// ```
    /// use sorix_core::{AttentionOptions, tensor};
    /// let (query, key, value) = (tensor([[1.0]]), tensor([[0.0], [0.0]]), tensor([[1.0], [3.0]]));
    /// let options = AttentionOptions::new();
    /// let (y, logsumexp) = options.forward(&query, &key, &value)?;
    /// let inputs = [&query, &key, &value];
    /// let wanted = [false, true, true, false];
    /// let gradients = options.backward(inputs, &y, &logsumexp, &tensor([[1.0]]), wanted)?;
    /// let [None, Some(of_key), Some(of_value), None] = gradients else { panic!("two are wanted") };
    /// assert_eq!(of_value.to_vec::<f64>()?, [0.5, 0.5]);
    /// // Each has half of the probability, and its value is 1 off the result.
    /// assert_eq!(of_key.to_vec::<f64>()?, [-0.5, 0.5]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn backward(
        &self,
        inputs: [&Tensor; 3],
        output: &Tensor,
        logsumexp: &Tensor,
        grad: &Tensor,
        wanted: [bool; 4],
    ) -> Result<[Option<Tensor>; 4]> {
        let mut specs = specs_of(inputs, self);
        specs.extend(operands(&[output, logsumexp, grad]));
        let call = Call::new(
            "scaled_dot_product_attention_backward",
            Operands::Several(&specs),
        );
        let plan = Plan::new(call, inputs, self)?;
        let dtype = inputs[0].dtype();
        let rows = &plan.scores[..plan.scores.len() - 1];
        let shape = [rows, &[plan.sizes.ev]].concat();
        call.expect(output, &shape, dtype.arithmetic())?;
        call.expect(logsumexp, rows, dtype.arithmetic())?;
        let of_grad = [dtype, dtype.arithmetic()];
        let of_grad = of_grad.into_iter().find(|&dtype| dtype == grad.dtype());
        call.expect(grad, &shape, of_grad.unwrap_or(dtype))?;
        let result = [output, logsumexp, grad].map(Tensor::detach);
        plan.backward(call, inputs, self.attn_mask, &result, wanted)
    }
}

impl Tensor {
    /// `dropout(softmax(scale * query keyᵀ + attn_mask)) value`, with this tensor as the query, without the
    /// matrix of probabilities ever being in memory.
    ///
    /// The query is of shape `[.., H, L, E]`, the key `[.., H, S, E]`, the value `[.., H, S, Ev]`; the result
    /// `[.., H, L, Ev]`. All have one dtype and the same leading axes, of which there may be none. They are read
    /// where they lie, whatever the strides of their leading axes: `[B, L, H, E]` with axes 1 and 2 transposed
    /// costs no copy. Names, shapes and defaults are those of `torch.nn.functional.scaled_dot_product_attention`.
    ///
    /// A query for which every key is masked out gets zeros, and so do the gradients that go through it. The
    /// dropout's mask is the one that a tensor of probabilities would get, bit for bit; backward makes it again
    /// from the key, as it makes the probabilities. As bits it would be a 32nd of the matrix that is not to be
    /// in memory, so there is no [`SaveMask`](crate::SaveMask).
    ///
    /// # Arithmetic
    ///
    /// f16 and bf16 are widened a tile at a time, computed in f32, and rounded once; their gradients are f32, from
    /// the result as it was before it was rounded.
    /// Scores are computed 64 queries times 512 keys at a time, with running maximum and sum. The result does
    /// not depend on the number of threads, nor on how many samples and heads there are. It may differ in the
    /// last bits from that of [`matmul`](Tensor::matmul) and [`softmax`](Tensor::softmax), and in the cases in
    /// which `matmul` does.
    ///
    /// # Memory
    ///
    /// For backward: query, key, value and mask, the result (of 16-bit tensors in f32), and the logarithm of the sum
    /// for each query. A thread takes some 400 KiB while it works, and a bit for each key of 64 queries; and what
    /// `matmul` takes. Only a tensor whose last two axes have no neighbours in memory is copied.
    ///
    /// Threads share out samples, heads and, forward, tiles of queries; backward, heads of the key alone, so
    /// that the gradients of a key and value are added up in a fixed order. If `attn_mask` requires a gradient, too,
    /// that is a pass of its own, two products more, for which threads share out the mask.
    ///
    /// # Errors
    ///
    /// If there are fewer than two axes; if shapes or dtypes do not fit; if a shard has not as many elements as
    /// there are scores; and as [`dropout`](Tensor::dropout) and `matmul`.
    ///
    /// ```
    /// use sorix_core::{AttentionOptions, DType, DropRate, MaskKey, SaveMask, Tensor};
    ///
    /// let of = |seed| Tensor::randn([2, 4, 10, 8], DType::F64, MaskKey::new(seed, 0));
    /// let (query, key, value) = (of(1)?, of(2)?, of(3)?);
    /// let (rate, mask) = (DropRate::new(0.1)?, MaskKey::new(7, 0));
    /// let options = AttentionOptions::new().dropout(rate, mask);
    /// let y = query.scaled_dot_product_attention(&key, &value, options)?;
    ///
    /// let scores = query.matmul(&key.transpose(-1, -2)?)?;
    /// let scale = 8.0_f64.sqrt().recip();
    /// let p = scores.softmax_dropout(None, scale, rate, mask, SaveMask::Replay)?;
    /// let apart = p.matmul(&value)?.to_vec::<f64>()?;
    /// assert!(y.to_vec::<f64>()?.iter().zip(apart).all(|(a, b)| (a - b).abs() < 1e-12));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn scaled_dot_product_attention(
        &self,
        key: &Self,
        value: &Self,
        options: AttentionOptions<&Self>,
    ) -> Result<Self> {
        let inputs = [self, key, value];
        let specs = specs_of(inputs, &options);
        let call = Call::new("scaled_dot_product_attention", Operands::Several(&specs));
        let plan = Plan::new(call, inputs, &options)?;
        if let Some((rate, at)) = options.dropout {
            tape_mask(rate, at, plan.elements);
        }
        let of_graph: Vec<&Self> = inputs.into_iter().chain(options.attn_mask).collect();
        let saved = inputs.map(SavedTensor::new);
        let saved_mask = options.attn_mask.map(SavedTensor::new);
        let dtype = self.dtype();
        let kept = match is_recorded(&of_graph) {
            true => dtype.arithmetic(),
            false => dtype,
        };
        let (output, sums) = plan.forward(call, inputs, options.attn_mask, kept)?;
        let saved_output = SavedTensor::new(&output);
        let output = output.to_dtype(dtype)?;
        let needs_grad = |x: Option<&Self>| x.is_some_and(Self::needs_grad);
        let [query, key, value] = inputs.map(Some);
        Ok(record(output, &of_graph, || AttentionBackward {
            plan,
            saved,
            attn_mask: saved_mask,
            output: saved_output,
            sums,
            wanted: [query, key, value, options.attn_mask].map(needs_grad),
        }))
    }
}

/// What an error says of the tensors.
fn specs_of<'t>(
    inputs: [&'t Tensor; 3],
    options: &AttentionOptions<&'t Tensor>,
) -> Vec<Operand<'t>> {
    let tensors: Vec<&'t Tensor> = inputs.into_iter().chain(options.attn_mask).collect();
    operands(&tensors)
}

/// Checked shapes, dtypes and options.
#[derive(Debug)]
struct Plan {
    sizes: Sizes,
    /// The shape of the scores, and how many there are.
    scores: Vec<usize>,
    elements: usize,
}

impl Plan {
    fn new(
        call: Call<'_>,
        [query, key, value]: [&Tensor; 3],
        options: &AttentionOptions<&Tensor>,
    ) -> Result<Self> {
        let sizes = Sizes::new(call, query, key, value, options)?;
        let scores = [&query.shape()[..query.ndim() - 1], &[sizes.keys]].concat();
        if let Some(mask) = options.attn_mask {
            expect_additive(call, mask, &scores, query.dtype())?;
        }
        let elements = scores
            .iter()
            .try_fold(1_usize, |all, &length| all.checked_mul(length));
        let Some(elements) = elements else {
            let (shape, dtype) = (scores, query.dtype());
            return Err(call.error(ErrorKind::TooLarge { shape, dtype }));
        };
        if let Some((_, at)) = options.dropout {
            let checked = at.check_len(elements);
            checked.map_err(|error| call.kernel_error(error))?;
        }
        Ok(Self {
            sizes,
            scores,
            elements,
        })
    }

    /// The output, in this dtype, and for each query the logarithm of the sum of the exponentials of its scores.
    fn forward(
        &self,
        call: Call<'_>,
        inputs: [&Tensor; 3],
        attn_mask: Option<&Tensor>,
        dtype: DType,
    ) -> Result<(Tensor, Tensor)> {
        let given = Inputs::new(call, inputs, attn_mask, &self.scores)?;
        match inputs[0].dtype().arithmetic() {
            DType::F64 => forward::forward::<f64>(call, self.sizes, &given, inputs[0], dtype),
            _ => forward::forward::<f32>(call, self.sizes, &given, inputs[0], dtype),
        }
    }
}
