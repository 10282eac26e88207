//! What the modules of `sorix.nn` compute; they themselves are Python.

use pyo3::prelude::*;
use sorix::autograd::no_grad;
use sorix::kernels::MaskKey;
use sorix::nn::dropout::{
    Alpha, Blocks, Channels, DropoutLayer, Elements, FeatureAlpha, Form, Gaussian, GeluElements,
    Locked, NoiseShape, Paths, Rectified, Rows, SiluElements, SwigluElements,
};
use sorix::nn::loss::{self, CrossEntropy, Reduction};
use sorix::nn::visit::Visit;
use sorix::nn::{
    self, AttentionMasks, Dropout, DropoutAddNorm, Embedding, EmbeddingDropout, LayerNorm, Linear,
    Mode, Module, MultiHeadAttention, SwiGLU, WeightDropout, functional,
};
use sorix::{DropRate, Generator, GeneratorState, SaveMask, Tensor};

use crate::draws::Shard;
use crate::dtype::AnyDType;
use crate::error::{Raised, Result};
use crate::generator::PyGenerator;
use crate::tensor::{Given, PyTensor, bytes, from_array};
use crate::threads;

/// Which decisions a dropout makes, and what becomes of the elements.
#[pyclass(module = "sorix._sorix", frozen)]
#[derive(Clone, Debug)]
pub(crate) struct DropoutForm(AnyForm);

#[derive(Clone, Debug)]
enum AnyForm {
    Elements(Elements),
    Channels1(Channels<1>),
    Channels2(Channels<2>),
    Channels3(Channels<3>),
    Alpha(Alpha),
    FeatureAlpha(FeatureAlpha),
    Gaussian(Gaussian),
    Paths(Paths),
    Locked(Locked),
    NoiseShape(NoiseShape),
    Blocks(Blocks),
    Rectified(Rectified),
    Gelu(GeluElements),
    Silu(SiluElements),
    Swiglu(SwigluElements),
}

/// Runs the block with `$form` as the form.
macro_rules! with_form {
    ($any:expr, $form:ident => $block:expr) => {
        match $any {
            AnyForm::Elements($form) => $block,
            AnyForm::Channels1($form) => $block,
            AnyForm::Channels2($form) => $block,
            AnyForm::Channels3($form) => $block,
            AnyForm::Alpha($form) => $block,
            AnyForm::FeatureAlpha($form) => $block,
            AnyForm::Gaussian($form) => $block,
            AnyForm::Paths($form) => $block,
            AnyForm::Locked($form) => $block,
            AnyForm::NoiseShape($form) => $block,
            AnyForm::Blocks($form) => $block,
            AnyForm::Rectified($form) => $block,
            AnyForm::Gelu($form) => $block,
            AnyForm::Silu($form) => $block,
            AnyForm::Swiglu($form) => $block,
        }
    };
}

#[pymethods]
impl DropoutForm {
    #[staticmethod]
    fn elements() -> Self {
        Self(AnyForm::Elements(Elements))
    }

    #[staticmethod]
    fn channels(spatial: usize, last: bool) -> Result<Self> {
        Ok(Self(match spatial {
            1 if last => AnyForm::Channels1(Channels::last()),
            1 => AnyForm::Channels1(Channels::first()),
            2 if last => AnyForm::Channels2(Channels::last()),
            2 => AnyForm::Channels2(Channels::first()),
            3 if last => AnyForm::Channels3(Channels::last()),
            3 => AnyForm::Channels3(Channels::first()),
            _ => {
                return Err(Raised::value(format!(
                    "expected 1, 2 or 3 spatial axes, got {spatial}"
                )));
            }
        }))
    }

    #[staticmethod]
    fn alpha() -> Self {
        Self(AnyForm::Alpha(Alpha))
    }

    #[staticmethod]
    fn feature_alpha() -> Self {
        Self(AnyForm::FeatureAlpha(FeatureAlpha))
    }

    #[staticmethod]
    fn gaussian() -> Self {
        Self(AnyForm::Gaussian(Gaussian))
    }

    #[staticmethod]
    fn paths(per_batch: bool, scale_by_keep: bool) -> Self {
        let paths = if per_batch {
            Paths::per_batch()
        } else {
            Paths::per_sample()
        };
        Self(AnyForm::Paths(paths.scale_by_keep(scale_by_keep)))
    }

    #[staticmethod]
    fn locked(time_axis: isize) -> Self {
        Self(AnyForm::Locked(Locked::over(time_axis)))
    }

    #[staticmethod]
    fn noise_shape(shape: Vec<Option<usize>>) -> Self {
        Self(AnyForm::NoiseShape(NoiseShape::of(shape)))
    }

    #[staticmethod]
    fn shared_along(axes: Vec<isize>) -> Self {
        Self(AnyForm::NoiseShape(NoiseShape::shared_along(axes)))
    }

    #[staticmethod]
    fn relu() -> Self {
        Self(AnyForm::Rectified(Rectified))
    }

    #[staticmethod]
    fn gelu(approximate: &str) -> Result<Self> {
        match approximate {
            "none" => Ok(Self(AnyForm::Gelu(GeluElements::default()))),
            "tanh" => Ok(Self(AnyForm::Gelu(GeluElements::with_tanh()))),
            _ => Err(Raised::value(format!(
                "approximate: expected \"none\" or \"tanh\", got {approximate:?}"
            ))),
        }
    }

    #[staticmethod]
    fn silu() -> Self {
        Self(AnyForm::Silu(SiluElements))
    }

    #[staticmethod]
    fn swiglu() -> Self {
        Self(AnyForm::Swiglu(SwigluElements))
    }

    #[staticmethod]
    fn blocks(block_size: usize) -> Result<Self> {
        Ok(Self(AnyForm::Blocks(Blocks::new(block_size)?)))
    }
}

/// Where the mask of a call comes from.
#[derive(Debug)]
enum At {
    Generator,
    Key(MaskKey),
    Shard(nn::Shard),
}

/// What is added in the pass of a dropout: a residual, and to the input a bias.
#[derive(Debug)]
struct Added {
    bias: Option<Tensor>,
    residual: Tensor,
}

/// Drops from a tensor, and adds that to a residual if there is one.
#[pyfunction]
#[pyo3(signature = (x, form, p, training, generator, replay, key, shard, bias=None, residual=None))]
#[expect(
    clippy::too_many_arguments,
    reason = "one crossing into Rust for all of it"
)]
pub(crate) fn _dropout(
    py: Python<'_>,
    x: Given<'_>,
    form: &DropoutForm,
    p: f64,
    training: bool,
    generator: Option<PyRef<'_, PyGenerator>>,
    replay: bool,
    key: Option<(u64, u64)>,
    shard: Option<PyRef<'_, Shard>>,
    bias: Option<Given<'_>>,
    residual: Option<Given<'_>>,
) -> Result<PyTensor> {
    let bias = bias.map(|bias| bias.0.clone());
    let added = residual.map(|residual| Added {
        bias,
        residual: residual.0.clone(),
    });
    let key = key.map(|(seed, offset)| GeneratorState { seed, offset });
    let at = match (shard, key) {
        (Some(shard), _) => At::Shard(shard.of_tensor()?),
        (None, Some(key)) => At::Key(MaskKey::new(key.seed, key.offset)),
        (None, None) => At::Generator,
    };
    let save = if replay {
        SaveMask::Replay
    } else {
        SaveMask::Bits
    };
    let mode = if training || key.is_some() {
        Mode::Train
    } else {
        Mode::Eval
    };
    let generator = match key {
        // A shard of the mask of a key: the key is the next one of a generator.
        Some(key) => Some(Generator::from_state(key).into()),
        None => generator.and_then(|generator| generator.own()),
    };
    let x = &x.0;
    let work = || {
        with_form!(&form.0, form => {
            let mut layer = DropoutLayer::with_form(form.to_owned(), p)?.save_mask(save);
            if let Some(generator) = generator {
                layer = layer.generator(generator);
            }
            layer.set_mode(mode);
            drop_by(&layer, x, &at, added.as_ref())
        })
    };
    Ok(PyTensor(threads::operation(py, bytes(x), work)?))
}

fn drop_by<F: Form>(
    layer: &DropoutLayer<F>,
    x: &Tensor,
    at: &At,
    added: Option<&Added>,
) -> nn::Result<Tensor> {
    if let Some(Added { bias, residual }) = added {
        return match bias {
            Some(bias) => layer.forward_bias_add(x, bias, residual),
            None => layer.forward_add(x, residual),
        };
    }
    match at {
        At::Generator => layer.forward(x),
        At::Key(key) => layer.forward_with_key(x, *key),
        At::Shard(shard) => layer.forward_sharded(x, shard),
    }
}

/// A layer that drops from one of its parameters.
fn dropping<F: Form>(
    form: F,
    p: f64,
    training: bool,
    generator: Option<PyRef<'_, PyGenerator>>,
) -> Result<DropoutLayer<F>> {
    let mut layer = DropoutLayer::with_form(form, p)?;
    if let Some(generator) = generator.and_then(|generator| generator.own()) {
        layer = layer.generator(generator);
    }
    layer.set_mode(if training { Mode::Train } else { Mode::Eval });
    Ok(layer)
}

fn forward(py: Python<'_>, module: &dyn Module, x: &Tensor, bytes: usize) -> Result<PyTensor> {
    Ok(PyTensor(threads::operation(py, bytes, || {
        module.forward(x)
    })?))
}

/// ``x @ weight.T + bias``.
#[pyfunction]
#[pyo3(signature = (x, weight, bias=None))]
pub(crate) fn linear(
    py: Python<'_>,
    x: Given<'_>,
    weight: Given<'_>,
    bias: Option<Given<'_>>,
) -> Result<PyTensor> {
    let (x, weight, bias) = (&x.0, &weight.0, bias.map(|bias| bias.0.clone()));
    let bytes = bytes(x).max(bytes(weight));
    let y = threads::operation(py, bytes, || functional::linear(x, weight, bias.as_ref()))?;
    Ok(PyTensor(y))
}

/// :func:`linear` with a dropout of the weight.
#[pyfunction]
#[pyo3(signature = (x, weight, bias, p, training, generator))]
pub(crate) fn _weight_dropout(
    py: Python<'_>,
    x: Given<'_>,
    weight: Given<'_>,
    bias: Option<Given<'_>>,
    p: f64,
    training: bool,
    generator: Option<PyRef<'_, PyGenerator>>,
) -> Result<PyTensor> {
    let dropout: Dropout = dropping(Elements, p, training, generator)?;
    let linear = Linear::from_tensors(parameter(&weight), bias.as_deref().map(parameter))?;
    let bytes = bytes(&x.0).max(weight.bytes());
    forward(py, &WeightDropout::new(linear, dropout), &x.0, bytes)
}

/// The rows of a table, by their numbers.
#[pyfunction]
#[pyo3(signature = (x, weight))]
pub(crate) fn embedding(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    weight: Given<'_>,
) -> Result<PyTensor> {
    let embedding = Embedding::from_tensor(parameter(&weight))?;
    forward(py, &embedding, &rows(x)?, weight.bytes())
}

/// :func:`embedding` with a dropout of whole rows of the table.
#[pyfunction]
#[pyo3(signature = (x, weight, p, training, generator))]
pub(crate) fn _embedding_dropout(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    weight: Given<'_>,
    p: f64,
    training: bool,
    generator: Option<PyRef<'_, PyGenerator>>,
) -> Result<PyTensor> {
    let dropout = dropping(Rows, p, training, generator)?;
    let embedding = Embedding::from_tensor(parameter(&weight))?;
    let layer = EmbeddingDropout::new(embedding, dropout);
    forward(py, &layer, &rows(x)?, weight.bytes())
}

/// Numbers of rows: a tensor of whole numbers, or an array of integers, which is exact as float64.
fn rows(x: &Bound<'_, PyAny>) -> Result<Tensor> {
    match x.cast::<PyTensor>() {
        Ok(x) => Ok(x.borrow().0.clone()),
        Err(_) => {
            let array = crate::dtype::numpy(x.py(), "asarray")?.call1((x,))?;
            if array.getattr("dtype")?.getattr("kind")?.eq("b")? {
                return Err(Raised::type_("expected the numbers of rows, got truths"));
            }
            from_array(&array)
        }
    }
}

/// Mean 0 and variance 1 over the last axes, of lengths ``shape``; then scaled and shifted.
#[pyfunction]
#[pyo3(signature = (x, shape, weight=None, bias=None, eps=1e-5))]
pub(crate) fn layer_norm(
    py: Python<'_>,
    x: Given<'_>,
    shape: Vec<usize>,
    weight: Option<Given<'_>>,
    bias: Option<Given<'_>>,
    eps: f64,
) -> Result<PyTensor> {
    let norm = match (weight, bias) {
        (Some(weight), Some(bias)) => {
            if weight.0.shape() != shape {
                let got = weight.0.shape();
                let text = format!("layer_norm: expected a weight of shape {shape:?}, got {got:?}");
                return Err(Raised::value(text));
            }
            LayerNorm::from_tensors(parameter(&weight), parameter(&bias))?
        }
        (None, None) => LayerNorm::new(&shape)?.without_affine(),
        _ => {
            return Err(Raised::value(
                "layer_norm: expected weight and bias, or neither",
            ));
        }
    };
    forward(py, &norm.eps(eps)?, &x.0, x.bytes())
}

/// ``silu(gate) * up`` of the two halves of the last axis.
#[pyfunction]
pub(crate) fn _swiglu(py: Python<'_>, x: Given<'_>) -> Result<PyTensor> {
    forward(py, &SwiGLU, &x.0, x.bytes())
}

/// The normalised ``residual + dropout(x)``, and that sum: a layer norm, or without a shift RMS.
#[pyfunction]
#[pyo3(signature = (x, residual, rms, shape, weight, bias, eps, p, training, generator, replay))]
#[expect(
    clippy::too_many_arguments,
    reason = "one crossing into Rust for all of it"
)]
pub(crate) fn _dropout_add_norm(
    py: Python<'_>,
    x: Given<'_>,
    residual: Given<'_>,
    rms: bool,
    shape: Vec<usize>,
    weight: Option<Given<'_>>,
    bias: Option<Given<'_>>,
    eps: f64,
    p: f64,
    training: bool,
    generator: Option<PyRef<'_, PyGenerator>>,
    replay: bool,
) -> Result<(PyTensor, PyTensor)> {
    let dropout = dropping(Elements, p, training, generator)?;
    let dropout: Dropout = dropout.save_mask(if replay {
        SaveMask::Replay
    } else {
        SaveMask::Bits
    });
    let layer = if rms {
        let mut layer = DropoutAddNorm::rms(&shape, x.0.dtype(), dropout)?;
        if let Some(given) = weight {
            layer.visit_own_parameters_mut(&mut |_, weight| *weight = given.0.clone());
        }
        layer.eps(eps)?
    } else {
        let norm = match (weight, bias) {
            (Some(weight), Some(bias)) => {
                LayerNorm::from_tensors(parameter(&weight), parameter(&bias))?
            }
            _ => LayerNorm::new(&shape)?.without_affine(),
        };
        DropoutAddNorm::new(norm.eps(eps)?, dropout)
    };
    let (x, residual) = (&x.0, &residual.0);
    let work = || layer.add(x, residual);
    let (z, sum) = threads::operation(py, bytes(x).max(bytes(residual)), work)?;
    Ok((PyTensor(z), PyTensor(sum)))
}

/// Attention in several heads, and the projections around it: weight and bias of those before it, and of that
/// after it.
#[pyfunction]
#[pyo3(signature = (inputs, projections, out, num_heads, masks, is_causal, p, training, generator))]
#[expect(
    clippy::too_many_arguments,
    reason = "one crossing into Rust for all of it"
)]
pub(crate) fn _multi_head_attention(
    py: Python<'_>,
    inputs: [Given<'_>; 3],
    projections: (Given<'_>, Option<Given<'_>>),
    out: (Given<'_>, Option<Given<'_>>),
    num_heads: usize,
    masks: [Option<Bound<'_, PyAny>>; 2],
    is_causal: bool,
    p: f64,
    training: bool,
    generator: Option<PyRef<'_, PyGenerator>>,
) -> Result<PyTensor> {
    let [key_padding_mask, attn_mask] = masks;
    let key_padding_mask = added_mask("key_padding_mask", key_padding_mask)?;
    let attn_mask = added_mask("attn_mask", attn_mask)?;
    let [query, key, value] = inputs.each_ref().map(|x| &x.0);
    let (weight, bias) = projections;
    let bytes = [query, key, value, &weight.0].map(bytes);
    let layer = MultiHeadAttention::from_tensors(
        parameter(&weight),
        bias.as_deref().map(parameter),
        Linear::from_tensors(parameter(&out.0), out.1.as_deref().map(parameter))?,
        num_heads,
        dropping(Elements, p, training, generator)?,
    )?;
    let mut masks = AttentionMasks::new().is_causal(is_causal);
    if let Some(mask) = &key_padding_mask {
        masks = masks.key_padding_mask(mask);
    }
    if let Some(mask) = &attn_mask {
        masks = masks.attn_mask(mask);
    }
    let work = || layer.attend(query, key, value, masks);
    let bytes = bytes.into_iter().fold(0, usize::max);
    Ok(PyTensor(threads::operation(py, bytes, work)?))
}

/// A mask of attention. One of truths says in PyTorch what is left out, here and in numpy it would be added as 1.
fn added_mask(name: &str, mask: Option<Bound<'_, PyAny>>) -> Result<Option<Tensor>> {
    let Some(mask) = mask else {
        return Ok(None);
    };
    match mask.cast::<PyTensor>() {
        Ok(mask) => Ok(Some(mask.borrow().0.clone())),
        Err(_) => Err(Raised::type_(format!(
            "{name}: expected a Tensor that is added to the scores, 0 where a query sees a key and minus infinity \
             where it does not, got {}",
            mask.get_type().name()?
        ))),
    }
}

/// What a layer takes for its parameter. It makes a leaf of a constant, which is frozen here: there is nobody to
/// ask for its gradient.
fn parameter(x: &PyTensor) -> Tensor {
    let leaf = x.0.requires_grad(true);
    if !x.0.needs_grad() {
        leaf.freeze();
    }
    leaf
}

/// New parameters of attention in several heads: weight and bias of the projections before it, and of that after it.
#[pyfunction]
#[pyo3(signature = (embed_dim, num_heads, dtype, generator))]
pub(crate) fn _new_multi_head_attention(
    embed_dim: usize,
    num_heads: usize,
    dtype: AnyDType,
    generator: Option<PyRef<'_, PyGenerator>>,
) -> Result<Vec<PyTensor>> {
    let generator = generator.map_or_else(PyGenerator::default, |generator| generator.clone());
    let generator = generator.get()?;
    let layer = MultiHeadAttention::with_dtype(embed_dim, num_heads, 0.0, dtype.0, generator)?;
    Ok(layer.parameters().into_iter().map(PyTensor).collect())
}

/// A new weight and bias of a linear layer.
#[pyfunction]
#[pyo3(signature = (inputs, outputs, dtype, generator))]
pub(crate) fn _new_linear(
    inputs: usize,
    outputs: usize,
    dtype: AnyDType,
    generator: Option<PyRef<'_, PyGenerator>>,
) -> Result<(PyTensor, PyTensor)> {
    let generator = generator.map_or_else(PyGenerator::default, |generator| generator.clone());
    let linear = Linear::with_dtype(inputs, outputs, dtype.0, generator.get()?)?;
    let bias = linear.bias().cloned();
    let weight = PyTensor(linear.weight().clone());
    bias.map(|bias| (weight, PyTensor(bias)))
        .ok_or_else(|| Raised::value("Linear: expected a bias"))
}

/// A new table of an embedding.
#[pyfunction]
#[pyo3(signature = (rows, width, dtype, generator))]
pub(crate) fn _new_embedding(
    rows: usize,
    width: usize,
    dtype: AnyDType,
    generator: Option<PyRef<'_, PyGenerator>>,
) -> Result<PyTensor> {
    let generator = generator.map_or_else(PyGenerator::default, |generator| generator.clone());
    let embedding = Embedding::with_dtype(rows, width, dtype.0, generator.get()?)?;
    Ok(PyTensor(embedding.weight().clone()))
}

fn reduction(name: &str) -> Result<Reduction> {
    match name {
        "mean" => Ok(Reduction::Mean),
        "sum" => Ok(Reduction::Sum),
        "none" => Ok(Reduction::None),
        _ => Err(Raised::value(format!(
            "reduction: expected \"mean\", \"sum\" or \"none\", got {name:?}"
        ))),
    }
}

/// The square of the difference.
#[pyfunction]
#[pyo3(signature = (input, target, *, reduction="mean"))]
pub(crate) fn mse_loss(
    py: Python<'_>,
    input: Given<'_>,
    target: Given<'_>,
    reduction: &str,
) -> Result<PyTensor> {
    let (x, y, reduction) = (&input.0, &target.0, self::reduction(reduction)?);
    let loss = threads::operation(py, bytes(x), || loss::mse_loss(x, y, reduction))?;
    Ok(PyTensor(loss))
}

/// Cross entropy between targets in [0, 1] and the sigmoid of ``input``.
#[pyfunction]
#[pyo3(signature = (input, target, *, reduction="mean"))]
pub(crate) fn binary_cross_entropy_with_logits(
    py: Python<'_>,
    input: Given<'_>,
    target: Given<'_>,
    reduction: &str,
) -> Result<PyTensor> {
    let (x, y, reduction) = (&input.0, &target.0, self::reduction(reduction)?);
    let work = || loss::binary_cross_entropy_with_logits(x, y, reduction);
    Ok(PyTensor(threads::operation(py, bytes(x), work)?))
}

/// Cross entropy between classes and the softmax of ``input`` along axis 1.
///
/// Parameters
/// ----------
/// input : Tensor
///     Of shape ``(examples, classes, ...)``.
/// target : array_like of int
///     The number of the class of each example.
/// weight : Tensor, optional
///     A weight for each class.
/// ignore_index : int
///     Examples of this class do not count.
/// reduction : {"mean", "sum", "none"}
/// label_smoothing : float
///     In [0, 1].
#[pyfunction]
#[pyo3(signature = (input, target, *, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0))]
pub(crate) fn cross_entropy(
    py: Python<'_>,
    input: Given<'_>,
    target: &Bound<'_, PyAny>,
    weight: Option<Given<'_>>,
    ignore_index: i64,
    reduction: &str,
    label_smoothing: f64,
) -> Result<PyTensor> {
    /// What no class is.
    const IGNORED: usize = usize::MAX;

    let (classes, given) = integers(target)?;
    // The count alone would let one pass whose axes are in another order.
    if let [examples, _, others @ ..] = input.0.shape() {
        let expected = [&[*examples], others].concat();
        if given != expected {
            let logits = input.0.shape();
            return Err(Raised::value(format!(
                "cross_entropy: expected a target of shape {expected:?}, that of the input {logits:?} without axis 1, the \
                 classes; got shape {given:?}"
            )));
        }
    }
    let classes = classes.into_iter().map(|class| {
        if class == ignore_index {
            return Ok(IGNORED);
        }
        usize::try_from(class).map_err(|_| {
            Raised::index(format!(
                "cross_entropy: expected classes from 0 on, got {class}"
            ))
        })
    });
    let classes = classes.collect::<Result<Vec<_>>>()?;
    let mut loss = CrossEntropy::new()
        .ignore_index(IGNORED)
        .label_smoothing(label_smoothing)?
        .reduction(self::reduction(reduction)?);
    if let Some(weight) = weight {
        loss = loss.class_weights(&weight.0);
    }
    let x = &input.0;
    Ok(PyTensor(threads::operation(py, bytes(x), || {
        loss.loss(x, &classes)
    })?))
}

/// The elements of an array of whole numbers, in row-major order, and its shape.
fn integers(array: &Bound<'_, PyAny>) -> Result<(Vec<i64>, Vec<usize>)> {
    let array = crate::dtype::numpy(array.py(), "asarray")?.call1((array,))?;
    let kind: char = array.getattr("dtype")?.getattr("kind")?.extract()?;
    let shape: Vec<usize> = array.getattr("shape")?.extract()?;
    // A list without elements is one of floats to numpy.
    if !matches!(kind, 'i' | 'u') && !shape.contains(&0) {
        let got = array.getattr("dtype")?;
        return Err(Raised::type_(format!(
            "expected an array of integers, got one of {got}"
        )));
    }
    let flat = array.call_method0("ravel")?.call_method0("tolist")?;
    Ok((flat.extract()?, shape))
}

/// Scales gradients so that their norm, of all together, is at most ``max_norm``; returns what it was.
#[pyfunction]
#[pyo3(signature = (parameters, max_norm))]
pub(crate) fn _clip_grad_norm(
    py: Python<'_>,
    parameters: Vec<(String, PyTensor)>,
    max_norm: f64,
) -> Result<f64> {
    let parameters = named(parameters);
    let clip = || no_grad(|| nn::clip_grad_norm(&parameters, max_norm));
    Ok(threads::operation(py, usize::MAX, clip)?)
}

/// Puts each element of the gradients within ``-clip_value`` and ``clip_value``.
#[pyfunction]
#[pyo3(signature = (parameters, clip_value))]
pub(crate) fn _clip_grad_value(
    py: Python<'_>,
    parameters: Vec<(String, PyTensor)>,
    clip_value: f64,
) -> Result<()> {
    let parameters = named(parameters);
    let clip = || no_grad(|| nn::clip_grad_value(&parameters, clip_value));
    Ok(threads::operation(py, usize::MAX, clip)?)
}

pub(crate) fn named(parameters: Vec<(String, PyTensor)>) -> Vec<(String, Tensor)> {
    let parameters = parameters.into_iter();
    parameters.map(|(name, x)| (name, x.0)).collect()
}

/// Calls ``function()`` as Monte Carlo sample number ``sample`` of the stream ``seed``: every dropout of
/// :mod:`sorix.nn` in it drops, whatever its mode, by keys that depend on ``seed`` and ``sample`` alone.
///
/// Examples
/// --------
/// >>> import sorix
/// >>> from sorix.nn import Dropout
/// >>> dropout, x = Dropout(0.5).eval(), sorix.ones(4)
/// >>> draws = [sorix.nn.monte_carlo(lambda: dropout(x), seed=1, sample=i).tolist() for i in (0, 0)]
/// >>> draws[0] == draws[1]
/// True
#[pyfunction]
#[pyo3(signature = (function, *, seed, sample=0))]
pub(crate) fn monte_carlo<'py>(
    function: &Bound<'py, PyAny>,
    seed: u64,
    sample: u64,
) -> PyResult<Bound<'py, PyAny>> {
    threads::in_scope(|| nn::monte_carlo(seed, sample, || function.call0()))
}

/// The probability of dropping, if it is one.
#[pyfunction]
pub(crate) fn _check_rate(p: f64) -> Result<f64> {
    Ok(DropRate::new(p)?.p())
}
