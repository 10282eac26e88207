//! Softmax and attention with dropout, in candle's graph.
//!
//! sorix's own operations on its own tensors do the work, forward and backward. So inputs, output and gradients are copied
//! once each, which is little beside the products of attention.

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, D, DType, Device, Error, Layout, Result, Shape,
    Tensor, WithDType,
};
use sorix::adapter::{Recorded, SliceDropout};
use sorix::kernels::{DropRate, MaskRegion};
use sorix::{SaveMask, Scalar, TensorResult};

use crate::elements::{laid_out, with_elements};
use crate::op;

const SOFTMAX: &str = "sorix-softmax-dropout";
const ATTENTION: &str = "sorix-attention";

/// What [`DropoutExt::scaled_dot_product_attention`](crate::DropoutExt::scaled_dot_product_attention) may be given beside
/// query, key and value. By default nothing: no mask, no dropout, every query sees every key.
///
/// If a gradient is asked of `attn_mask`, the matrix of scores is made: candle has operations of at most three tensors.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use sorix_candle::{AttentionOptions, DropRate, DropoutExt, MaskKey};
///
/// let attn_mask = Tensor::new(&[0f64, f64::NEG_INFINITY], &Device::Cpu)?;
/// let options = AttentionOptions::new()
///     .attn_mask(&attn_mask)
///     .scale(1.0)
///     .dropout(DropRate::new(0.0).unwrap(), MaskKey::new(7, 0));
/// let xs = Tensor::new(&[[1f64, 2.], [3., 4.]], &Device::Cpu)?;
/// // Each query sees the first key alone.
/// let ys = xs.scaled_dot_product_attention(&xs, &xs, options)?;
/// assert_eq!(ys.to_vec2::<f64>()?, [[1.0, 2.0], [1.0, 2.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub type AttentionOptions<'t> = sorix::AttentionOptions<&'t Tensor>;

/// `dropout(softmax(scale * xs + attn_mask))` over the last axis.
pub(crate) fn softmax_dropout(
    xs: &Tensor,
    attn_mask: Option<&Tensor>,
    scale: f64,
    rate: DropRate,
    at: MaskRegion,
    save: SaveMask,
) -> Result<Tensor> {
    check(SOFTMAX, xs, attn_mask)?;
    if !xs.device().is_cpu() {
        let draw = draw_of(xs.dims(), rate, at)?;
        return softmax_by_uploaded_mask(xs, attn_mask, scale, &draw)?.to_dtype(xs.dtype());
    }
    match attn_mask {
        None => {
            let run = |[x]: &[sorix::Tensor; 1]| x.softmax_dropout(None, scale, rate, at, save);
            xs.apply_op1(Op::new(SOFTMAX, [xs], run)?)
        }
        Some(mask) => {
            let run = |[x, mask]: &[sorix::Tensor; 2]| {
                x.softmax_dropout(Some(mask), scale, rate, at, save)
            };
            xs.apply_op2(mask, Op::new(SOFTMAX, [xs, mask], run)?)
        }
    }
}

/// `dropout(softmax(scale * query keyᵀ + attn_mask)) value`.
pub(crate) fn attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    options: AttentionOptions<'_>,
) -> Result<Tensor> {
    check(ATTENTION, query, [key, value])?;
    check(ATTENTION, query, options.attn_mask)?;
    let mask_in_graph = options.attn_mask.is_some_and(Tensor::track_op);
    if mask_in_graph || !query.device().is_cpu() {
        return attention_by_matrix(query, key, value, options);
    }
    let attn_mask = options.attn_mask.map(to_sorix).transpose()?;
    let own_options = options.with_mask(attn_mask.as_ref());
    let op = Op::new(ATTENTION, [query, key, value], |[query, key, value]| {
        query.scaled_dot_product_attention(key, value, own_options)
    })?;
    query.apply_op3(key, value, op)
}

/// Whether all are of dtypes that sorix has, on one device. Shapes are sorix's to check.
fn check<'t>(
    op: &'static str,
    xs: &Tensor,
    others: impl IntoIterator<Item = &'t Tensor>,
) -> Result<()> {
    op::check_dtype(xs)?;
    for other in others {
        op::check_dtype(other)?;
        op::check_device(op, xs, other)?;
    }
    Ok(())
}

/// The elements of a tensor of the CPU, apart from the graph.
fn to_sorix(tensor: &Tensor) -> Result<sorix::Tensor> {
    fn typed<T: Scalar + WithDType>(tensor: &Tensor) -> Result<sorix::Tensor> {
        with_elements::<T, _, 1>(ATTENTION, [Some(&laid_out::<T>(tensor)?)], |[elements]| {
            let own = sorix::Tensor::from_slice(elements.unwrap_or_default(), tensor.dims());
            own.map_err(Error::wrap)
        })
    }
    match tensor.dtype() {
        DType::F64 => typed::<f64>(tensor),
        DType::F16 => typed::<half::f16>(tensor),
        DType::BF16 => typed::<half::bf16>(tensor),
        _ => typed::<f32>(tensor),
    }
}

/// A recorded operation of sorix's tensors. Its gradients have none themselves.
#[derive(Debug)]
struct Op<const N: usize> {
    name: &'static str,
    recorded: Recorded<N>,
}

impl<const N: usize> Op<N> {
    /// `f` of the inputs, which are the elements of candle's.
    fn new(
        name: &'static str,
        inputs: [&Tensor; N],
        f: impl FnOnce(&[sorix::Tensor; N]) -> TensorResult<sorix::Tensor>,
    ) -> Result<Self> {
        let mut own = Vec::with_capacity(N);
        for input in inputs {
            own.push(to_sorix(input)?);
        }
        let Ok(own) = own.try_into() else {
            return Err(Error::Msg(format!("{name}: expected {N} inputs")).bt());
        };
        let wanted = inputs.map(Tensor::track_op);
        let recorded = Recorded::new(own, wanted, f).map_err(Error::wrap)?;
        Ok(Self { name, recorded })
    }

    fn forward(&self) -> Result<(CpuStorage, Shape)> {
        fn elements<T: Scalar>(own: &sorix::Tensor) -> Result<Vec<T>> {
            own.to_vec().map_err(Error::wrap)
        }
        let output = self.recorded.output();
        let storage = match output.dtype() {
            sorix::DType::F64 => CpuStorage::F64(elements(output)?),
            sorix::DType::F16 => CpuStorage::F16(elements(output)?),
            sorix::DType::BF16 => CpuStorage::BF16(elements(output)?),
            _ => CpuStorage::F32(elements(output)?),
        };
        Ok((storage, output.shape().into()))
    }

    fn gradients(&self, gradient: &Tensor) -> Result<[Option<Tensor>; N]> {
        let found = self.recorded.gradients(&to_sorix(gradient)?);
        let mut gradients = [const { None }; N];
        for (gradient, found) in gradients.iter_mut().zip(found.map_err(Error::wrap)?) {
            *gradient = found.as_ref().map(from_sorix).transpose()?;
        }
        Ok(gradients)
    }
}

/// The elements of a tensor of sorix's as a tensor of candle's.
fn from_sorix(own: &sorix::Tensor) -> Result<Tensor> {
    fn typed<T: Scalar + WithDType>(own: &sorix::Tensor) -> Result<Tensor> {
        let elements = own.to_vec::<T>().map_err(Error::wrap)?;
        Tensor::from_vec(elements, own.shape(), &Device::Cpu)
    }
    match own.dtype() {
        sorix::DType::F64 => typed::<f64>(own),
        sorix::DType::F16 => typed::<half::f16>(own),
        sorix::DType::BF16 => typed::<half::bf16>(own),
        _ => typed::<f32>(own),
    }
}

impl CustomOp1 for Op<1> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward()
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let [of_xs] = self.gradients(gradient)?;
        Ok(of_xs)
    }
}

impl CustomOp2 for Op<2> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward()
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok(self.gradients(gradient)?.into())
    }
}

impl CustomOp3 for Op<3> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward()
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        Ok(self.gradients(gradient)?.into())
    }
}

/// Inverted dropout of something of this shape.
fn draw_of(dims: &[usize], rate: DropRate, at: MaskRegion) -> Result<SliceDropout> {
    SliceDropout::broadcast(rate, at, dims, dims).map_err(Error::wrap)
}

/// [`softmax_dropout`] by candle's own operations, in the dtype that it is computed in.
fn softmax_by_uploaded_mask(
    xs: &Tensor,
    attn_mask: Option<&Tensor>,
    scale: f64,
    draw: &SliceDropout,
) -> Result<Tensor> {
    let wide = xs.to_dtype(op::wide(xs))?;
    let scores = wide.broadcast_mul(&op::number(scale, &wide)?)?;
    let scores = match attn_mask {
        Some(mask) => scores.broadcast_add(&mask.to_dtype(op::wide(xs))?)?,
        None => scores,
    };
    op::by_uploaded_mask(&softmax(&scores)?, draw)
}

/// With zeros, and not NaN, for a row all of whose scores are minus infinity.
fn softmax(scores: &Tensor) -> Result<Tensor> {
    let least = match scores.dtype() {
        DType::F64 => f64::MIN,
        _ => f64::from(f32::MIN),
    };
    let largest = scores.detach().max_keepdim(D::Minus1)?.maximum(least)?;
    let exponentials = scores.broadcast_sub(&largest)?.exp()?;
    // The largest of a row is 1, unless there is none.
    let sums = exponentials.sum_keepdim(D::Minus1)?.maximum(0.5)?;
    exponentials.broadcast_div(&sums)
}

/// [`attention`] as [`softmax_dropout`] between two products of candle's.
fn attention_by_matrix(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    options: AttentionOptions<'_>,
) -> Result<Tensor> {
    op::check_dtype_and_device(ATTENTION, query, key)?;
    op::check_dtype_and_device(ATTENTION, query, value)?;
    let wide = |tensor: &Tensor| tensor.to_dtype(op::wide(query));
    let (_, width) = matrix(query)?;
    let key = repeated(&wide(key)?, query, options.enable_gqa)?;
    let value = repeated(&wide(value)?, query, options.enable_gqa)?;
    let scores = wide(query)?.contiguous()?.matmul(&key.t()?.contiguous()?)?;
    let (queries, keys) = matrix(&scores)?;
    let mut hidden = options.attn_mask.map(wide).transpose()?;
    if options.is_causal {
        let seen = |i: usize| options.first_query.saturating_add(i);
        let row = |i| (0..keys).map(move |j| if j <= seen(i) { 0.0 } else { f64::NEG_INFINITY });
        let elements: Vec<f64> = (0..queries).flat_map(row).collect();
        let causal = Tensor::from_vec(elements, (queries, keys), &Device::Cpu)?;
        let causal = wide(&causal)?.to_device(query.device())?;
        hidden = Some(match hidden {
            Some(mask) => mask.broadcast_add(&causal)?,
            None => causal,
        });
    }
    let scale = (width.max(1) as f64).sqrt().recip();
    let none = DropRate::new(0.0).map_err(Error::wrap)?;
    let (rate, at) = match options.dropout {
        Some(dropout) => dropout,
        None => (none, sorix::kernels::MaskKey::new(0, 0).into()),
    };
    let scale = options.scale.unwrap_or(scale);
    let (hidden, save) = (hidden.as_ref(), SaveMask::default());
    let probabilities = softmax_dropout(&scores, hidden, scale, rate, at, save)?;
    probabilities
        .matmul(&value.contiguous()?)?
        .to_dtype(query.dtype())
}

/// Each head of a key or value as often as the query needs it.
fn repeated(tensor: &Tensor, query: &Tensor, enable_gqa: bool) -> Result<Tensor> {
    let (&[ref leading @ .., heads, length, width], &[.., all, _, _]) =
        (tensor.dims(), query.dims())
    else {
        return Ok(tensor.clone());
    };
    if !enable_gqa || heads == 0 || heads == all || all % heads != 0 {
        return Ok(tensor.clone());
    }
    let repeated = [leading, &[heads, all / heads, length, width]].concat();
    tensor
        .unsqueeze(leading.len() + 1)?
        .broadcast_as(repeated)?
        .reshape([leading, &[all, length, width]].concat())
}

/// The lengths of the last two axes.
fn matrix(tensor: &Tensor) -> Result<(usize, usize)> {
    match *tensor.dims() {
        [.., rows, columns] => Ok((rows, columns)),
        _ => {
            let error = Error::UnexpectedNumberOfDims {
                expected: 2,
                got: tensor.rank(),
                shape: tensor.shape().clone(),
            };
            Err(error.bt())
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;
    use sorix::kernels::MaskKey;

    use super::*;

    const KEY: MaskKey = MaskKey {
        seed: 42,
        offset: 7,
    };

    fn leaf(shape: &[usize], salt: usize) -> Result<Var> {
        let count: usize = shape.iter().product();
        let number = |i: usize| ((i + salt) * 37 % 61) as f64 * 0.0625 - 2.0;
        Var::from_vec(
            (0..count).map(number).collect::<Vec<f64>>(),
            shape,
            &Device::Cpu,
        )
    }

    /// Outputs and the gradients of the leaves are close, and the same elements are 0.
    fn agree(ours: &Tensor, uploaded: &Tensor, leaves: &[&Var], what: &str) -> Result<()> {
        let mut pairs = vec![(ours.clone(), uploaded.clone())];
        let upstream = leaf(ours.dims(), 5)?;
        let gradients = [ours, uploaded].map(|ys| (ys * upstream.as_tensor())?.backward());
        let [of_ours, of_uploaded] = gradients;
        let (of_ours, of_uploaded) = (of_ours?, of_uploaded?);
        for leaf in leaves {
            let gradient = |all: &candle_core::backprop::GradStore| all.get(leaf).unwrap().clone();
            pairs.push((gradient(&of_ours), gradient(&of_uploaded)));
        }
        for (i, (a, b)) in pairs.into_iter().enumerate() {
            let numbers = |x: Tensor| x.flatten_all()?.to_vec1::<f64>();
            for (a, b) in numbers(a)?.into_iter().zip(numbers(b)?) {
                assert!((a - b).abs() < 1e-12, "{what}: {i}: {a}, {b}");
                assert!(i > 0 || (a == 0.0) == (b == 0.0), "{what}: {a}, {b}");
            }
        }
        Ok(())
    }

    #[test]
    fn an_uploaded_mask_and_the_matrix_drop_the_same_probabilities() -> Result<()> {
        let mut hidden = vec![0.0; 5 * 9];
        hidden[9..18].fill(f64::NEG_INFINITY);
        hidden[20] = f64::NEG_INFINITY;
        let hidden = Tensor::from_vec(hidden, (5, 9), &Device::Cpu)?;
        for p in [0.0, 0.4, 1.0] {
            let rate = DropRate::new(p).unwrap();
            let xs = leaf(&[2, 5, 9], 1)?;
            let draw = draw_of(xs.dims(), rate, KEY.into())?;
            let ours = softmax_dropout(&xs, Some(&hidden), -0.7, rate, KEY.into(), SaveMask::Bits)?;
            let uploaded = softmax_by_uploaded_mask(&xs, Some(&hidden), -0.7, &draw)?;
            agree(&ours, &uploaded, &[&xs], &format!("softmax, p = {p}"))?;

            let query = leaf(&[2, 4, 5, 8], 1)?;
            let (key, value) = (leaf(&[2, 2, 9, 8], 2)?, leaf(&[2, 2, 9, 6], 3)?);
            let plain = AttentionOptions::new().enable_gqa(true).dropout(rate, KEY);
            for options in [
                plain,
                plain.attn_mask(&hidden).scale(0.3),
                plain.attn_mask(&hidden).is_causal(true).first_query(2),
            ] {
                let ours = attention(&query, &key, &value, options)?;
                let by_matrix = attention_by_matrix(&query, &key, &value, options)?;
                agree(
                    &ours,
                    &by_matrix,
                    &[&query, &key, &value],
                    &format!("{options:?}"),
                )?;
            }
        }
        Ok(())
    }
}
