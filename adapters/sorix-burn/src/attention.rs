//! [`softmax_dropout`] and [`scaled_dot_product_attention`], in burn's graph.
//!
//! sorix's own operations on its own tensors do the work, forward and backward. So inputs, output and gradients are copied
//! once each, which is little beside the products of attention.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, DispatchKindConversion, DispatchTensor, Flex};
use burn::tensor::{
    Bytes, DType, Element as BurnElement, FloatDType, Int, Tensor, TensorData, bf16, f16,
};
use sorix::adapter::{Recorded, SliceDropout};
use sorix::kernels::{DropRate, MaskKey, MaskRegion};
use sorix::{SaveMask, Scalar, TensorResult};

use crate::error::{Error, Result};
use crate::op::{
    by_dtype, by_strategy, by_uploaded_mask, describe, elements, has_kernels, place, primitive,
    row_major,
};

const SOFTMAX: &str = "softmax_dropout";
const ATTENTION: &str = "scaled_dot_product_attention";

/// What [`scaled_dot_product_attention`] may be given beside query, key and value. By default nothing: no mask, no dropout,
/// every query sees every key. `attn_mask` has as many axes as the query.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use sorix_burn::{AttentionOptions, DropRate, MaskKey, scaled_dot_product_attention};
///
/// let device = Device::flex();
/// let attn_mask = Tensor::<2>::from_data([[0.0, f32::NEG_INFINITY]], &device);
/// let options = AttentionOptions::new()
///     .attn_mask(attn_mask)
///     .scale(1.0)
///     .dropout(DropRate::new(0.0)?, MaskKey::new(7, 0));
/// let x = Tensor::<2>::from_data([[1.0, 2.0], [3.0, 4.0]], &device);
/// // Each query sees the first key alone.
/// let y = scaled_dot_product_attention(x.clone(), x.clone(), x, options)?;
/// assert_eq!(y.into_data().try_to_vec::<f32>().unwrap(), [1.0, 2.0, 1.0, 2.0]);
/// # Ok::<(), sorix_burn::Error>(())
/// ```
pub type AttentionOptions<const D: usize> = sorix::AttentionOptions<Tensor<D>>;

/// `dropout(softmax(scale * x + attn_mask))` over the last axis. The mask, if there is one, broadcasts to the shape of x and has
/// its dtype or the one that it is computed in; minus infinity masks an element out.
///
/// On `flex` it is [`sorix::Tensor::softmax_dropout`] on copies of the elements: the same bits, 16 bits are rounded once, and
/// a row all of which is masked out becomes zeros, with zeros as its gradient. Until backward are kept copies of x, of the mask
/// and of the output, the probabilities (not for 16 bits), and the dropout's mask. The mask that is added gets a gradient, too,
/// if one is asked of it.
///
/// # Errors
///
/// [`Error::Operand`] for a mask that does not fit; [`Error::Layer`] for a region of another length, and if allocation fails;
/// [`Error::Device`] as for a layer.
///
/// ```
/// use burn::tensor::{Device, Tensor, activation};
/// use sorix_burn::{DropRate, MaskKey, softmax_dropout};
///
/// let x = Tensor::<2>::from_data([[0.0, 1.0, 2.0], [5.0, 7.0, 6.0]], &Device::flex());
/// let y = softmax_dropout(x.clone(), None, 2.0, DropRate::new(0.0)?, MaskKey::new(42, 7))?;
/// let apart = activation::softmax(x * 2.0, 1);
/// assert!((y - apart).abs().max().into_scalar::<f32>() < 1e-6);
/// # Ok::<(), sorix_burn::Error>(())
/// ```
pub fn softmax_dropout<const D: usize>(
    x: Tensor<D>,
    attn_mask: Option<Tensor<D>>,
    scale: f64,
    rate: DropRate,
    at: impl Into<MaskRegion>,
) -> Result<Tensor<D>> {
    let at = at.into();
    if let Some(mask) = &attn_mask {
        check_mask(SOFTMAX, &x, x.dims(), mask)?;
    }
    let draw = draw_of(&x.dims(), rate, at)?;
    if !has_kernels(&x) {
        return softmax_by_uploaded_mask(x, attn_mask, scale, &draw);
    }
    match attn_mask {
        None => run([x], &draw, |[x]| {
            x.softmax_dropout(None, scale, rate, at, SaveMask::default())
        }),
        Some(mask) => run([x, mask], &draw, |[x, mask]| {
            x.softmax_dropout(Some(mask), scale, rate, at, SaveMask::default())
        }),
    }
}

/// `dropout(softmax(scale * query keyᵀ + attn_mask)) value`, on `flex` without the matrix of probabilities ever being in
/// memory, forward and backward.
///
/// The query is of shape `[.., H, L, E]`, the key `[.., H, S, E]`, the value `[.., H, S, Ev]`, the result `[.., H, L, Ev]`, all of
/// one dtype and on one device. On `flex` it is [`sorix::Tensor::scaled_dot_product_attention`] on copies of the elements: the
/// same bits, which agree with burn's operations one after another to rounding, and in what is dropped exactly. A query
/// that sees no key gets zeros. Until backward copies of the inputs and of the result are kept, and a number for each
/// query. The mask that is added gets a gradient, too, if one is asked of it.
///
/// # Errors
///
/// [`Error::Operand`] for fewer than two axes, and for shapes, dtypes or devices that do not fit; [`Error::Layer`] for a region
/// of another length, and if allocation fails; [`Error::Device`] as for a layer.
///
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use sorix_burn::{
///     AttentionOptions, DropRate, MaskKey, scaled_dot_product_attention, softmax_dropout,
/// };
///
/// let device = Device::flex();
/// let of = || Tensor::<4>::random([2, 4, 10, 8], Distribution::Default, &device);
/// let (query, key, value) = (of(), of(), of());
/// let (rate, mask) = (DropRate::new(0.1)?, MaskKey::new(42, 7));
/// let options = AttentionOptions::new().dropout(rate, mask);
/// let y = scaled_dot_product_attention(query.clone(), key.clone(), value.clone(), options)?;
///
/// let scores = query.matmul(key.transpose());
/// let p = softmax_dropout(scores, None, 8f64.sqrt().recip(), rate, mask)?;
/// assert!((y - p.matmul(value)).abs().max().into_scalar::<f32>() < 1e-5);
/// # Ok::<(), sorix_burn::Error>(())
/// ```
pub fn scaled_dot_product_attention<const D: usize>(
    query: Tensor<D>,
    key: Tensor<D>,
    value: Tensor<D>,
    options: AttentionOptions<D>,
) -> Result<Tensor<D>> {
    let scores = check(&query, &key, &value, &options)?;
    let (rate, at) = match options.dropout {
        Some(dropout) => dropout,
        None => (DropRate::new(0.0)?, MaskKey::new(0, 0).into()),
    };
    let draw = draw_of(&scores, rate, at)?;
    if !has_kernels(&query) {
        return attention_by_uploaded_mask(query, key, value, options, &draw);
    }
    let (mask, options) = (options.attn_mask.clone(), options.with_mask(None));
    match mask {
        None => run([query, key, value], &draw, |[query, key, value]| {
            query.scaled_dot_product_attention(key, value, options)
        }),
        Some(mask) => run(
            [query, key, value, mask],
            &draw,
            |[query, key, value, mask]| {
                query.scaled_dot_product_attention(key, value, options.attn_mask(mask))
            },
        ),
    }
}

fn operand<const D: usize>(
    operation: &'static str,
    what: &'static str,
    expected: String,
    got: &Tensor<D>,
) -> Error {
    Error::Operand {
        operation,
        what,
        expected,
        got: describe(got),
    }
}

/// Whether a mask that is added fits scores of this shape, made of `x`.
fn check_mask<const D: usize>(
    operation: &'static str,
    x: &Tensor<D>,
    scores: [usize; D],
    mask: &Tensor<D>,
) -> Result<()> {
    let (dtype, autodiff, strategy, device) = place(mask);
    let (own, own_autodiff, own_strategy, own_device) = place(x);
    let fits = |(length, own): (&usize, &usize)| length == own || *length == 1;
    if mask.dims().iter().zip(&scores).all(fits)
        && (dtype == own || dtype == wide(own))
        && (autodiff, strategy, device) == (own_autodiff, own_strategy, own_device)
    {
        return Ok(());
    }
    let expected = format!(
        "that broadcasts to {scores:?}, of the dtype of the input or the one it is computed in, where that is: {}",
        describe(x)
    );
    Err(operand(operation, "a mask", expected, mask))
}

/// The shape of the scores, if all fits.
fn check<const D: usize>(
    query: &Tensor<D>,
    key: &Tensor<D>,
    value: &Tensor<D>,
    options: &AttentionOptions<D>,
) -> Result<[usize; D]> {
    if D < 2 {
        let expected = "with at least two axes".to_owned();
        return Err(operand(ATTENTION, "a query", expected, query));
    }
    let mut expected = query.dims();
    expected[D - 2] = key.dims()[D - 2];
    if D > 2 && options.enable_gqa {
        let (all, heads) = (expected[D - 3], key.dims()[D - 3]);
        if heads > 0 && all.is_multiple_of(heads) {
            expected[D - 3] = heads;
        }
    }
    let as_query =
        |shape: [usize; D]| format!("of shape {shape:?}, as the query, {}", describe(query));
    if key.dims() != expected || place(key) != place(query) {
        return Err(operand(ATTENTION, "a key", as_query(expected), key));
    }
    expected[D - 1] = value.dims()[D - 1];
    if value.dims() != expected || place(value) != place(query) {
        return Err(operand(ATTENTION, "a value", as_query(expected), value));
    }
    let mut scores = query.dims();
    scores[D - 1] = key.dims()[D - 2];
    if let Some(mask) = &options.attn_mask {
        check_mask(ATTENTION, query, scores, mask)?;
    }
    Ok(scores)
}

/// The dtype that is computed in.
fn wide(dtype: DType) -> DType {
    match dtype {
        DType::F64 => dtype,
        _ => DType::F32,
    }
}

/// Inverted dropout of something of this shape.
fn draw_of(dims: &[usize], rate: DropRate, at: MaskRegion) -> Result<SliceDropout> {
    Ok(SliceDropout::broadcast(rate, at, dims, dims)?)
}

fn of_layer(error: sorix::TensorError) -> Error {
    Error::Layer(error.into())
}

/// The elements of a tensor of `flex`.
fn to_sorix(x: FlexTensor) -> TensorResult<sorix::Tensor> {
    let x = row_major(x);
    let shape = x.layout().shape().to_vec();
    by_dtype!(x, T => sorix::Tensor::from_slice(elements::<T>(&x), shape))
}

/// The elements of a tensor of sorix's.
fn from_sorix(own: &sorix::Tensor) -> TensorResult<FlexTensor> {
    fn typed<T: Scalar + BurnElement>(own: &sorix::Tensor) -> TensorResult<FlexTensor> {
        let bytes = Bytes::from_elems(own.to_vec::<T>()?);
        let layout = Layout::contiguous(own.shape().to_vec().into());
        Ok(FlexTensor::new(bytes, layout, T::dtype()))
    }
    match own.dtype() {
        sorix::DType::F64 => typed::<f64>(own),
        sorix::DType::F16 => typed::<f16>(own),
        sorix::DType::BF16 => typed::<bf16>(own),
        _ => typed::<f32>(own),
    }
}

/// An operation of sorix's tensors on the CPU, in the graph if the inputs are in one.
fn run<const N: usize, const D: usize>(
    inputs: [Tensor<D>; N],
    draw: &SliceDropout,
    f: impl FnOnce(&[sorix::Tensor; N]) -> TensorResult<sorix::Tensor>,
) -> Result<Tensor<D>> {
    by_strategy!(inputs[0], C => tracked::<C, N, D>(inputs, draw, f), plain => {
        let plain = primitives::<Flex, N, D>(inputs, draw)?;
        let recorded = record(plain, [false; N], f)?;
        let y = from_sorix(recorded.output()).map_err(of_layer)?;
        Ok(Tensor::from_primitive::<Flex>(y))
    })
}

fn primitives<B: Backend, const N: usize, const D: usize>(
    inputs: [Tensor<D>; N],
    draw: &SliceDropout,
) -> Result<Vec<FloatTensor<B>>>
where
    DispatchTensor: DispatchKindConversion<B>,
{
    let of = |input| primitive::<B, D>(input, draw);
    inputs.into_iter().map(of).collect()
}

fn record<const N: usize>(
    inputs: Vec<FlexTensor>,
    wanted: [bool; N],
    f: impl FnOnce(&[sorix::Tensor; N]) -> TensorResult<sorix::Tensor>,
) -> Result<Recorded<N>> {
    let own: TensorResult<Vec<sorix::Tensor>> = inputs.into_iter().map(to_sorix).collect();
    let own = own.map_err(of_layer)?;
    let own = own
        .try_into()
        .expect("as many tensors as there were inputs");
    Recorded::new(own, wanted, f).map_err(of_layer)
}

fn tracked<C: CheckpointStrategy, const N: usize, const D: usize>(
    inputs: [Tensor<D>; N],
    draw: &SliceDropout,
    f: impl FnOnce(&[sorix::Tensor; N]) -> TensorResult<sorix::Tensor>,
) -> Result<Tensor<D>>
where
    DispatchTensor: DispatchKindConversion<Autodiff<Flex, C>>,
{
    let inputs = primitives::<Autodiff<Flex, C>, N, D>(inputs, draw)?;
    let mut wanted = [false; N];
    for (wanted, input) in wanted.iter_mut().zip(&inputs) {
        *wanted = input.is_tracked();
    }
    let nodes: Vec<_> = inputs.iter().map(|input| input.node()).collect();
    let nodes = nodes
        .try_into()
        .expect("as many nodes as there were inputs");
    let inputs = inputs.into_iter().map(|input| input.into_primitive());
    let inputs: Vec<FlexTensor> = inputs.collect();
    let prepared = RecordedBackward
        .prepare::<C>(nodes)
        .compute_bound()
        .stateful();
    let y = match prepared {
        OpsKind::Tracked(prep) => {
            let recorded = record(inputs, wanted, f)?;
            let y = from_sorix(recorded.output()).map_err(of_layer)?;
            prep.finish(recorded, y)
        }
        // If nobody asks for a gradient there is nothing to keep.
        OpsKind::UnTracked(prep) => {
            let recorded = record(inputs, [false; N], f)?;
            prep.finish(from_sorix(recorded.output()).map_err(of_layer)?)
        }
    };
    Ok(Tensor::from_primitive::<Autodiff<Flex, C>>(y))
}

/// Of an operation of sorix's tensors.
#[derive(Debug)]
struct RecordedBackward;

impl<const N: usize> Backward<Flex, N> for RecordedBackward {
    type State = Recorded<N>;

    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let found = to_sorix(gradient).and_then(|gradient| ops.state.gradients(&gradient));
        let found = found.unwrap_or_else(|error| panic!("backward of dropout: {error}"));
        for (node, found) in ops.parents.into_iter().zip(found) {
            if let (Some(node), Some(found)) = (node, found) {
                let found = from_sorix(&found);
                let found = found.unwrap_or_else(|error| panic!("backward of dropout: {error}"));
                gradients.register::<Flex>(node.id, found);
            }
        }
    }
}

/// [`softmax_dropout`] by burn's own operations, on any device.
fn softmax_by_uploaded_mask<const D: usize>(
    x: Tensor<D>,
    attn_mask: Option<Tensor<D>>,
    scale: f64,
    draw: &SliceDropout,
) -> Result<Tensor<D>> {
    let dtype = x.dtype();
    let computed_in: FloatDType = wide(dtype).into();
    let scores = x.cast(computed_in) * scale;
    let scores = match attn_mask {
        Some(mask) => scores + mask.cast(computed_in),
        None => scores,
    };
    // With zeros, and not NaN, for a row all of whose scores are minus infinity.
    let least = match dtype {
        DType::F64 => f64::MIN,
        _ => f64::from(f32::MIN),
    };
    let largest = scores.clone().detach().max_dim(D - 1).clamp_min(least);
    let exponentials = (scores - largest).exp();
    // The largest of a row is 1, unless there is none.
    let sums = exponentials.clone().sum_dim(D - 1).clamp_min(0.5);
    let dropped = by_uploaded_mask(exponentials / sums, draw)?;
    Ok(dropped.cast(FloatDType::from(dtype)))
}

/// [`scaled_dot_product_attention`] by burn's own operations, on any device.
fn attention_by_uploaded_mask<const D: usize>(
    query: Tensor<D>,
    key: Tensor<D>,
    value: Tensor<D>,
    options: AttentionOptions<D>,
    draw: &SliceDropout,
) -> Result<Tensor<D>> {
    let dtype = query.dtype();
    let computed_in: FloatDType = wide(dtype).into();
    let (device, dims) = (query.device(), query.dims());
    let (queries, keys) = (dims[D - 2], key.dims()[D - 2]);
    // Each head as often as the query needs it.
    let repeated = |x: Tensor<D>| {
        let x = x.cast(computed_in);
        if D < 3 || x.dims()[D - 3] == dims[D - 3] {
            return x;
        }
        let group = dims[D - 3] / x.dims()[D - 3].max(1);
        let heads = (0..dims[D - 3]).map(|head| (head / group) as i32);
        let heads = Tensor::<1, Int>::from_data(heads.collect::<Vec<i32>>().as_slice(), &device);
        x.select(D - 3, heads)
    };
    let scores = query.cast(computed_in).matmul(repeated(key).transpose());
    let mut attn_mask = options.attn_mask.map(|mask| mask.cast(computed_in));
    if options.is_causal {
        let seen = |i: usize| options.first_query.saturating_add(i);
        let row = |i| (0..keys).map(move |j| if j <= seen(i) { 0.0 } else { f64::NEG_INFINITY });
        let elements: Vec<f64> = (0..queries).flat_map(row).collect();
        let mut shape = [1; D];
        (shape[D - 2], shape[D - 1]) = (queries, keys);
        let data = TensorData::new(elements, shape);
        let causal = Tensor::<D>::from_data(data, (&device, wide(dtype)));
        attn_mask = Some(match attn_mask {
            Some(mask) => mask + causal,
            None => causal,
        });
    }
    let scale = (dims[D - 1].max(1) as f64).sqrt().recip();
    let scale = options.scale.unwrap_or(scale);
    let probabilities = softmax_by_uploaded_mask(scores, attn_mask, scale, draw)?;
    let y = probabilities.matmul(repeated(value));
    Ok(y.cast(FloatDType::from(dtype)))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    const KEY: MaskKey = MaskKey {
        seed: 42,
        offset: 7,
    };

    fn leaf(shape: [usize; 4], salt: usize) -> Tensor<4> {
        let count: usize = shape.iter().product();
        let number = |i: usize| ((i + salt) * 37 % 61) as f64 * 0.0625 - 2.0;
        let data = TensorData::new((0..count).map(number).collect::<Vec<f64>>(), shape);
        let device = Device::flex().autodiff();
        Tensor::from_data(data, (&device, DType::F64)).require_grad()
    }

    fn agree(ours: Tensor<4>, uploaded: Tensor<4>, leaves: &[&Tensor<4>], what: &str) {
        let upstream = leaf(ours.dims(), 5).detach();
        let all = [ours, uploaded].map(|y| {
            let gradients = (y.clone() * upstream.clone()).backward();
            let of_leaves = leaves.iter().map(|leaf| leaf.grad(&gradients).unwrap());
            let all: Vec<Tensor<4>> = [y.inner()].into_iter().chain(of_leaves).collect();
            all.into_iter()
                .map(|x| x.into_data().try_to_vec::<f64>().unwrap())
                .collect::<Vec<_>>()
        });
        for (i, (a, b)) in all[0].iter().zip(&all[1]).enumerate() {
            for (a, b) in a.iter().zip(b) {
                assert!((a - b).abs() < 1e-12, "{what}: {i}: {a}, {b}");
                assert!(i > 0 || (*a == 0.0) == (*b == 0.0), "{what}: {a}, {b}");
            }
        }
    }

    #[test]
    fn an_uploaded_mask_drops_the_same_probabilities() {
        let mut hidden = vec![0.0; 5 * 9];
        hidden[9..18].fill(f64::NEG_INFINITY);
        hidden[20] = f64::NEG_INFINITY;
        let data = TensorData::new(hidden, [1, 1, 5, 9]);
        let device = Device::flex().autodiff();
        let hidden = Tensor::<4>::from_data(data, (&device, DType::F64));
        for p in [0.0, 0.4, 1.0] {
            let rate = DropRate::new(p).unwrap();
            let x = leaf([2, 1, 5, 9], 1);
            let draw = draw_of(&x.dims(), rate, KEY.into()).unwrap();
            let mask = Some(hidden.clone());
            let ours = softmax_dropout(x.clone(), mask.clone(), -0.7, rate, KEY).unwrap();
            let uploaded = softmax_by_uploaded_mask(x.clone(), mask, -0.7, &draw).unwrap();
            agree(ours, uploaded, &[&x], &format!("softmax, p = {p}"));

            let (q, k) = (leaf([2, 4, 5, 8], 1), leaf([2, 2, 9, 8], 2));
            let v = leaf([2, 2, 9, 6], 3);
            let draw = draw_of(&[2, 4, 5, 9], rate, KEY.into()).unwrap();
            let plain = AttentionOptions::new().enable_gqa(true).dropout(rate, KEY);
            let hidden = plain.clone().attn_mask(hidden.clone());
            for options in [
                plain,
                hidden.clone().scale(0.3),
                hidden.is_causal(true).first_query(2),
            ] {
                let (q2, k2, v2) = (q.clone(), k.clone(), v.clone());
                let ours = scaled_dot_product_attention(q2, k2, v2, options.clone()).unwrap();
                let (q2, k2, v2) = (q.clone(), k.clone(), v.clone());
                let uploaded = attention_by_uploaded_mask(q2, k2, v2, options, &draw).unwrap();
                agree(
                    ours,
                    uploaded,
                    &[&q, &k, &v],
                    &format!("attention, p = {p}"),
                );
            }
        }
    }
}
