//! Dropout as an operation of candle's graph.

use core::ops::Range;
use std::sync::{Arc, OnceLock};

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Device, Error, Layout, Result, Shape,
    Tensor, WithDType,
};
use sorix::adapter::{Saved, SliceDropout, SliceSwiglu, bias_gradient};
use sorix::kernels::{Activation, Affine};
use sorix::{SaveMask, Scalar};

/// The names in candle's errors.
const NAME: &str = "sorix-dropout";
const ADD: &str = "sorix-dropout-add";
const BIAS_ADD: &str = "sorix-bias-dropout-add";
const SWIGLU: &str = "sorix-swiglu-dropout";

/// Drops from `xs` by one draw.
pub(crate) fn dropout(xs: &Tensor, draw: SliceDropout, save: SaveMask) -> Result<Tensor> {
    check_dtype(xs)?;
    if draw.is_identity() {
        return Ok(xs.clone());
    }
    if !xs.device().is_cpu() {
        return by_uploaded_mask(xs, &draw);
    }
    let call = Call::new(&[xs], draw, save);
    xs.contiguous()?.apply_op1(Forward(call))
}

/// Drops from `xs` by one draw and adds a residual. The draw is asked for once the residual is seen to fit; if there is none
/// nothing is dropped.
pub(crate) fn dropout_add(
    xs: &Tensor,
    residual: &Tensor,
    draw: impl FnOnce() -> Result<Option<SliceDropout>>,
    save: SaveMask,
) -> Result<Tensor> {
    check_same(ADD, xs, residual)?;
    match draw()? {
        Some(draw) => add_to_fitting(xs, residual, draw, save),
        None => residual + xs,
    }
}

/// [`dropout_add`] of a residual that fits.
fn add_to_fitting(
    xs: &Tensor,
    residual: &Tensor,
    draw: SliceDropout,
    save: SaveMask,
) -> Result<Tensor> {
    if !xs.device().is_cpu() {
        return residual + dropout(xs, draw, save)?;
    }
    let call = Call::new(&[xs], draw, save);
    xs.contiguous()?
        .apply_op2(&residual.contiguous()?, ForwardAdd(call))
}

/// Drops from `xs` plus a bias by one draw, which is asked for once the others are seen to fit, and adds a residual.
pub(crate) fn bias_dropout_add(
    xs: &Tensor,
    bias: &Tensor,
    residual: &Tensor,
    draw: impl FnOnce() -> Result<SliceDropout>,
    save: SaveMask,
) -> Result<Tensor> {
    check_same(BIAS_ADD, xs, residual)?;
    check_bias(xs, bias)?;
    let draw = draw()?;
    if !xs.device().is_cpu() {
        return add_to_fitting(&xs.broadcast_add(bias)?, residual, draw, save);
    }
    if !draw.adds_in_one_pass() {
        let sum = xs.contiguous()?.apply_op2(&bias.contiguous()?, BiasAdd)?;
        return add_to_fitting(&sum, residual, draw, save);
    }
    let call = Call::new(&[xs, bias], draw, save);
    let (bias, residual) = (bias.contiguous()?, residual.contiguous()?);
    xs.contiguous()?
        .apply_op3(&bias, &residual, ForwardBiasAdd(call))
}

/// Drops by one draw, of inverted dropout with a bit for each element, from `silu(gate) * up`. The draw is
/// asked for once the two are seen to fit.
pub(crate) fn swiglu_dropout(
    gate: &Tensor,
    up: &Tensor,
    draw: impl FnOnce() -> Result<SliceDropout>,
    save: SaveMask,
) -> Result<Tensor> {
    check_same(SWIGLU, gate, up)?;
    let draw = draw()?;
    if !gate.device().is_cpu() {
        return swiglu_by_uploaded_mask(gate, up, &draw);
    }
    let call = Call::new(&[gate, up], draw, save);
    gate.contiguous()?
        .apply_op2(&up.contiguous()?, Swiglu(call))
}

/// Whether the kernels have the dtype, and the other tensor is as `xs` in all that counts.
fn check_same(op: &'static str, xs: &Tensor, other: &Tensor) -> Result<()> {
    check_dtype(xs)?;
    if xs.dims() != other.dims() {
        let (lhs, rhs) = (xs.shape().clone(), other.shape().clone());
        return Err(Error::ShapeMismatchBinaryOp { lhs, rhs, op }.bt());
    }
    check_dtype_and_device(op, xs, other)
}

/// Whether the bias is a row as long as the last axis of `xs`.
fn check_bias(xs: &Tensor, bias: &Tensor) -> Result<()> {
    let last = &xs.dims()[xs.rank().saturating_sub(1)..];
    if bias.dims() != last {
        let error = Error::UnexpectedShape {
            msg: format!("{BIAS_ADD}: a bias as long as the last axis"),
            expected: last.into(),
            got: bias.shape().clone(),
        };
        return Err(error.bt());
    }
    check_dtype_and_device(BIAS_ADD, xs, bias)
}

pub(crate) fn check_dtype_and_device(op: &'static str, xs: &Tensor, other: &Tensor) -> Result<()> {
    if xs.dtype() != other.dtype() {
        let (lhs, rhs) = (xs.dtype(), other.dtype());
        return Err(Error::DTypeMismatchBinaryOp { lhs, rhs, op }.bt());
    }
    check_device(op, xs, other)
}

pub(crate) fn check_device(op: &'static str, xs: &Tensor, other: &Tensor) -> Result<()> {
    if !xs.device().same_device(other.device()) {
        let (lhs, rhs) = (xs.device().location(), other.device().location());
        return Err(Error::DeviceMismatchBinaryOp { lhs, rhs, op }.bt());
    }
    Ok(())
}

/// Whether the kernels have the dtype; on other devices no more is taken.
pub(crate) fn check_dtype(xs: &Tensor) -> Result<()> {
    dtype_of(xs).map(drop)
}

/// sorix' name of the dtype.
fn dtype_of(xs: &Tensor) -> Result<sorix::DType> {
    match xs.dtype() {
        DType::F16 => Ok(sorix::DType::F16),
        DType::BF16 => Ok(sorix::DType::BF16),
        DType::F32 => Ok(sorix::DType::F32),
        DType::F64 => Ok(sorix::DType::F64),
        other => Err(Error::UnsupportedDTypeForOp(other, NAME).bt()),
    }
}

/// The dtype that is computed in: a result is rounded once, so a half is widened before.
pub(crate) fn wide(xs: &Tensor) -> DType {
    match xs.dtype() {
        DType::F64 => DType::F64,
        _ => DType::F32,
    }
}

/// The activation by candle's own operations.
fn activate(xs: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Relu => xs.relu(),
        Activation::Gelu => xs.gelu_erf(),
        Activation::GeluTanh => xs.gelu(),
        Activation::Silu => xs.silu(),
        other => Err(Error::Msg(format!("{NAME}: no activation {other:?} on this device")).bt()),
    }
}

/// [`swiglu_dropout`] by candle's own operations.
fn swiglu_by_uploaded_mask(gate: &Tensor, up: &Tensor, draw: &SliceDropout) -> Result<Tensor> {
    let unscaled = draw.clone().with_affine(Some(Affine::scale(1.0)));
    // Dropped before, so that a NaN comes no further: `silu(0) * 0` is 0.
    let kept = |xs: &Tensor| by_uploaded_mask(&xs.to_dtype(wide(xs))?, &unscaled);
    let product = (kept(gate)?.silu()? * kept(up)?)?;
    scaled(&product, draw)?.to_dtype(gate.dtype())
}

/// Times `1 / (1 - p)`, or 0 at p = 1: by a tensor, since for the number 0 candle has no gradient at all.
fn scaled(xs: &Tensor, draw: &SliceDropout) -> Result<Tensor> {
    xs.broadcast_mul(&number(draw.rate().scale(), xs)?)
}

/// A number of the dtype of a tensor, where that is.
pub(crate) fn number(value: f64, like: &Tensor) -> Result<Tensor> {
    Tensor::new(value, &Device::Cpu)?
        .to_dtype(like.dtype())?
        .to_device(like.device())
}

/// By candle's own operations, on any device: the mask comes from the CPU.
pub(crate) fn by_uploaded_mask(xs: &Tensor, draw: &SliceDropout) -> Result<Tensor> {
    let device = xs.device();
    let wide = wide(xs);
    if let Some(activation) = draw.activation() {
        // Dropped before, so that a NaN comes no further: each activation makes 0 of 0.
        let unscaled = draw.clone().with_affine(Some(Affine::scale(1.0)));
        let kept = by_uploaded_mask(&xs.to_dtype(wide)?, &unscaled)?;
        return scaled(&activate(&kept, activation)?, draw)?.to_dtype(xs.dtype());
    }
    let Some(affine) = draw.affine() else {
        let noise = draw.noise(dtype_of(xs)?).map_err(Error::wrap)?;
        let noise = noise
            .to_dtype(sorix::DType::F64)
            .and_then(sorix::Tensor::into_vec::<f64>);
        let noise = Tensor::from_vec(noise.map_err(Error::wrap)?, xs.shape(), &Device::Cpu)?;
        let noise = noise.to_dtype(wide)?.to_device(device)?;
        return (xs.to_dtype(wide)? * noise)?.to_dtype(xs.dtype());
    };
    let keep: Vec<u8> = draw
        .mask()
        .map_err(Error::wrap)?
        .iter()
        .map(u8::from)
        .collect();
    let keep = Tensor::from_vec(keep, draw.mask_shape(), device)?.broadcast_as(xs.shape())?;
    let xs_wide = xs.to_dtype(wide)?;
    let mut kept = xs_wide.broadcast_mul(&number(affine.scale, &xs_wide)?)?;
    if affine.shift != 0.0 {
        kept = kept.broadcast_add(&number(affine.shift, &xs_wide)?)?;
    }
    let dropped = number(affine.dropped, &xs_wide)?.broadcast_as(xs.shape())?;
    keep.where_cond(&kept, &dropped)?.to_dtype(xs.dtype())
}

/// What forward and backward share.
#[derive(Debug)]
struct Call {
    draw: SliceDropout,
    save: SaveMask,
    /// Written by forward, if it saves anything.
    saved: OnceLock<Saved>,
}

impl Call {
    /// A call by one draw. `inputs` are those whose gradients need the mask.
    fn new(inputs: &[&Tensor], draw: SliceDropout, save: SaveMask) -> Arc<Self> {
        let gradient_is_wanted = inputs.iter().any(|xs| xs.track_op());
        Arc::new(Self {
            save: draw.saving(gradient_is_wanted, save),
            draw,
            saved: OnceLock::new(),
        })
    }

    /// The output, of which is kept what is saved.
    fn forward<T>(&self, made: KernelResult<(Vec<T>, Option<Saved>)>) -> Result<Vec<T>> {
        let (ys, saved) = made.map_err(Error::wrap)?;
        if let Some(saved) = saved {
            // Another call of this very operation would have written the same.
            let _ = self.saved.set(saved);
        }
        Ok(ys)
    }

    /// The gradient of `xs` for that of the output.
    fn backward(self: &Arc<Self>, xs: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        let gradient = gradient.contiguous()?;
        if self.draw.needs_input(self.saved.get()) {
            return xs.apply_op2(&gradient, BackwardAt(self.clone()));
        }
        gradient.apply_op1(Backward(self.clone()))
    }

    fn swiglu(&self) -> SliceSwiglu {
        let len = self.draw.mask_shape().iter().product();
        SliceSwiglu::new(self.draw.rate(), self.draw.at(), len)
    }
}

type KernelResult<T> = core::result::Result<T, sorix::kernels::Error>;

/// `xs` to `ys`.
#[derive(Debug)]
struct Forward(Arc<Call>);

/// `xs` and a residual to the residual plus `ys`.
#[derive(Debug)]
struct ForwardAdd(Arc<Call>);

/// `xs`, a bias and a residual to the residual plus `ys` of `xs` plus the bias.
#[derive(Debug)]
struct ForwardBiasAdd(Arc<Call>);

/// The gradient of `ys` to that of `xs`.
#[derive(Debug)]
struct Backward(Arc<Call>);

/// `xs` and the gradient of `ys` to that of `xs`. It is not linear in `xs`, and has no gradient.
#[derive(Debug)]
struct BackwardAt(Arc<Call>);

/// The gradient of `xs` plus a bias to that of the bias.
#[derive(Debug)]
struct SumOfRows;

/// Gate and up to `ys`.
#[derive(Debug)]
struct Swiglu(Arc<Call>);

/// Gate, up and the gradient of `ys` to that of one of the first two. It has no gradient.
#[derive(Debug)]
struct SwigluBackward {
    call: Arc<Call>,
    of_gate: bool,
}

impl CustomOp1 for Forward {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        on_elements(self.name(), [(storage, layout)], self)
    }

    fn bwd(&self, xs: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        self.0.backward(xs, gradient).map(Some)
    }
}

impl OnElements<1> for Forward {
    fn run<T: Scalar>(&self, [xs]: [&[T]; 1]) -> Result<Vec<T>> {
        self.0.forward(self.0.draw.forward(xs, self.0.save))
    }
}

impl CustomOp1 for Backward {
    fn name(&self) -> &'static str {
        "sorix-dropout-backward"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        on_elements(self.name(), [(storage, layout)], self)
    }

    // It is linear, so its gradient is itself; for those who keep the graph of gradients.
    fn bwd(&self, xs: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        self.0.backward(xs, gradient).map(Some)
    }
}

impl OnElements<1> for Backward {
    fn run<T: Scalar>(&self, [gradient]: [&[T]; 1]) -> Result<Vec<T>> {
        let saved = self.0.saved.get();
        self.0.draw.backward(saved, gradient).map_err(Error::wrap)
    }
}

impl CustomOp2 for BackwardAt {
    fn name(&self) -> &'static str {
        "sorix-act-dropout-backward"
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        xs_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let inputs = [(xs, xs_layout), (gradient, gradient_layout)];
        on_elements(self.name(), inputs, self)
    }
}

impl OnElements<2> for BackwardAt {
    fn run<T: Scalar>(&self, [xs, gradient]: [&[T]; 2]) -> Result<Vec<T>> {
        let (draw, saved) = (&self.0.draw, self.0.saved.get());
        draw.backward_at(saved, xs, gradient).map_err(Error::wrap)
    }
}

impl CustomOp2 for ForwardAdd {
    fn name(&self) -> &'static str {
        ADD
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        xs_layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let inputs = [(xs, xs_layout), (residual, residual_layout)];
        on_elements(self.name(), inputs, self)
    }

    fn bwd(
        &self,
        xs: &Tensor,
        residual: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let of_xs = xs.track_op().then(|| self.0.backward(xs, gradient));
        Ok((
            of_xs.transpose()?,
            residual.track_op().then(|| gradient.clone()),
        ))
    }
}

impl OnElements<2> for ForwardAdd {
    fn run<T: Scalar>(&self, [xs, residual]: [&[T]; 2]) -> Result<Vec<T>> {
        let made = self.0.draw.forward_add(xs, residual, self.0.save);
        self.0.forward(made)
    }
}

impl CustomOp3 for ForwardBiasAdd {
    fn name(&self) -> &'static str {
        BIAS_ADD
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        xs_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let inputs = [
            (xs, xs_layout),
            (bias, bias_layout),
            (residual, residual_layout),
        ];
        on_elements(self.name(), inputs, self)
    }

    fn bwd(
        &self,
        xs: &Tensor,
        bias: &Tensor,
        residual: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let of_sum = (xs.track_op() || bias.track_op()).then(|| self.0.backward(xs, gradient));
        let of_sum = of_sum.transpose()?;
        let of_bias = match &of_sum {
            Some(of_sum) if bias.track_op() => Some(sum_of_rows(of_sum, bias)?),
            _ => None,
        };
        let of_residual = residual.track_op().then(|| gradient.clone());
        Ok((of_sum.filter(|_| xs.track_op()), of_bias, of_residual))
    }
}

impl OnElements<3> for ForwardBiasAdd {
    fn run<T: Scalar>(&self, [xs, bias, residual]: [&[T]; 3]) -> Result<Vec<T>> {
        let (draw, save) = (&self.0.draw, self.0.save);
        self.0
            .forward(draw.forward_bias_add(xs, bias, residual, save))
    }
}

/// The sum of the input and a bias, by itself: candle would sum the gradient of the bias in 16 bits, if that is what
/// the elements have.
struct BiasAdd;

impl CustomOp2 for BiasAdd {
    fn name(&self) -> &'static str {
        BIAS_ADD
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        xs_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        on_elements(self.name(), [(xs, xs_layout), (bias, bias_layout)], self)
    }

    fn bwd(
        &self,
        xs: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let of_bias = bias.track_op().then(|| sum_of_rows(gradient, bias));
        Ok((
            xs.track_op().then(|| gradient.clone()),
            of_bias.transpose()?,
        ))
    }
}

impl OnElements<2> for BiasAdd {
    fn run<T: Scalar>(&self, [xs, bias]: [&[T]; 2]) -> Result<Vec<T>> {
        let sums = xs.iter().zip(bias.iter().cycle());
        let sums = sums.map(|(x, bias)| T::from_acc(x.to_acc() + bias.to_acc()));
        Ok(sums.collect())
    }
}

/// The gradient of a bias for that of what it was added to.
fn sum_of_rows(gradient: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let len = bias.elem_count();
    let rows = gradient.elem_count().checked_div(len).unwrap_or(0);
    let sum = gradient.reshape((rows, len))?.apply_op1(SumOfRows)?;
    sum.reshape(bias.shape())
}

impl CustomOp1 for SumOfRows {
    fn name(&self) -> &'static str {
        "sorix-sum-of-rows"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (sum, _) = on_elements(self.name(), [(storage, layout)], &OfBias(layout.dims()[1]))?;
        Ok((sum, layout.dims()[1].into()))
    }

    fn bwd(&self, rows: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        gradient.broadcast_as(rows.shape()).map(Some)
    }
}

/// The sum of rows of this length.
struct OfBias(usize);

impl OnElements<1> for OfBias {
    fn run<T: Scalar>(&self, [gradient]: [&[T]; 1]) -> Result<Vec<T>> {
        bias_gradient(gradient, self.0).map_err(Error::wrap)
    }
}

impl CustomOp2 for Swiglu {
    fn name(&self) -> &'static str {
        SWIGLU
    }

    fn cpu_fwd(
        &self,
        gate: &CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        on_elements(self.name(), [(gate, gate_layout), (up, up_layout)], self)
    }

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let of = |of_gate: bool, input: &Tensor| {
            let call = self.0.clone();
            let backward = SwigluBackward { call, of_gate };
            input
                .track_op()
                .then(|| gate.apply_op3(up, &gradient, backward))
                .transpose()
        };
        Ok((of(true, gate)?, of(false, up)?))
    }
}

impl OnElements<2> for Swiglu {
    fn run<T: Scalar>(&self, [gate, up]: [&[T]; 2]) -> Result<Vec<T>> {
        let made = self.0.swiglu().forward(gate, up, self.0.save);
        self.0.forward(made)
    }
}

impl CustomOp3 for SwigluBackward {
    fn name(&self) -> &'static str {
        "sorix-swiglu-dropout-backward"
    }

    fn cpu_fwd(
        &self,
        gate: &CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let inputs = [
            (gate, gate_layout),
            (up, up_layout),
            (gradient, gradient_layout),
        ];
        on_elements(self.name(), inputs, self)
    }
}

impl OnElements<3> for SwigluBackward {
    fn run<T: Scalar>(&self, [gate, up, gradient]: [&[T]; 3]) -> Result<Vec<T>> {
        let (swiglu, saved) = (self.call.swiglu(), self.call.saved.get());
        let wanted = [self.of_gate, !self.of_gate];
        let made = swiglu.backward(saved, gate, up, gradient, wanted);
        let [of_gate, of_up] = made.map_err(Error::wrap)?;
        // One of the two was made.
        Ok(of_gate.or(of_up).unwrap_or_default())
    }
}

/// What an operation makes of the elements of its inputs, whatever their type.
trait OnElements<const N: usize> {
    fn run<T: Scalar>(&self, inputs: [&[T]; N]) -> Result<Vec<T>>;
}

/// The output, of the shape of the first input.
fn on_elements<const N: usize>(
    name: &'static str,
    inputs: [(&CpuStorage, &Layout); N],
    op: &impl OnElements<N>,
) -> Result<(CpuStorage, Shape)> {
    let (first, layout) = inputs[0];
    let out = match first.dtype() {
        DType::F32 => CpuStorage::F32(op.run(elements(name, inputs)?)?),
        DType::F64 => CpuStorage::F64(op.run(elements(name, inputs)?)?),
        DType::F16 => CpuStorage::F16(op.run(elements(name, inputs)?)?),
        DType::BF16 => CpuStorage::BF16(op.run(elements(name, inputs)?)?),
        other => return Err(Error::UnsupportedDTypeForOp(other, name).bt()),
    };
    Ok((out, layout.shape().clone()))
}

/// The elements of tensors of one dtype, each of which lies in row-major order.
fn elements<'a, T: WithDType, const N: usize>(
    name: &'static str,
    inputs: [(&'a CpuStorage, &Layout); N],
) -> Result<[&'a [T]; N]> {
    let mut all: [&[T]; N] = [&[]; N];
    for (elements, (storage, layout)) in all.iter_mut().zip(inputs) {
        *elements = &storage.as_slice::<T>()?[range(layout, name)?];
    }
    Ok(all)
}

/// Where in its storage a tensor's elements lie one after another.
pub(crate) fn range(layout: &Layout, op: &'static str) -> Result<Range<usize>> {
    match layout.contiguous_offsets() {
        Some((begin, end)) => Ok(begin..end),
        None => Err(Error::RequiresContiguous { op }.bt()),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;
    use sorix::kernels::{DropRate, MaskKey};
    use sorix::nn::dropout::{Alpha, Channels, Elements, Gaussian};

    use super::*;

    /// What is uploaded to another device gives what the operation of the CPU gives, bit for bit.
    #[test]
    fn an_uploaded_mask_drops_the_same_elements() -> Result<()> {
        let shape = [3, 5, 70];
        for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
            let xs = Tensor::arange(0f32, 1050f32, &Device::Cpu)?.reshape(&shape)?;
            let xs = Var::from_tensor(&((xs * 0.25)? - 100.0)?.to_dtype(dtype)?)?;
            for p in [0.1, 0.5, 1.0] {
                let (rate, key) = (DropRate::new(p).unwrap(), MaskKey::new(42, 7));
                let draws = [
                    SliceDropout::new(&Elements, rate, key, &shape),
                    SliceDropout::new(&Channels::<1>::default(), rate, key, &shape),
                    SliceDropout::new(&Alpha, rate, key, &shape),
                    SliceDropout::new(&Gaussian, rate, key, &shape),
                ];
                for draw in draws {
                    let draw = draw.map_err(Error::wrap)?;
                    let uploaded = by_uploaded_mask(&xs, &draw)?;
                    let ours = dropout(&xs, draw, SaveMask::Bits)?;
                    let both = [&uploaded, &ours].map(|ys| -> Result<_> {
                        let gradient = ys.backward()?.remove(&xs).unwrap();
                        assert_eq!((ys.dtype(), gradient.dtype()), (dtype, dtype));
                        Ok([ys, &gradient].map(bits))
                    });
                    let [uploaded, ours] = both;
                    assert_eq!(uploaded?, ours?, "{dtype:?} p = {p}");
                }
            }
        }
        Ok(())
    }

    /// Activations are those of candle there: to the digits that candle's derivatives have.
    #[test]
    fn an_uploaded_mask_drops_from_activations() -> Result<()> {
        let shape = [3, 5, 70];
        let numbers = |first: f32| Tensor::arange(first, first + 1050f32, &Device::Cpu);
        let leaf = |first| Var::from_tensor(&(numbers(first)? * 0.01)?.reshape(&shape)?);
        let [xs, up] = [-500.5, 3.0].map(leaf);
        let (xs, up) = (xs?, up?);
        let close = |uploaded: &Tensor, ours: &Tensor| -> Result<()> {
            let gradients = [uploaded.backward()?, ours.backward()?];
            let leaves = [&xs, &up];
            let leaves = leaves.map(|leaf| (gradients[0].get(leaf), gradients[1].get(leaf)));
            let pairs = leaves.into_iter().filter_map(|(a, b)| a.zip(b));
            for (a, b) in pairs.chain([(uploaded, ours)]) {
                let error = (a - b)?.abs()?.max_all()?.to_scalar::<f32>()?;
                assert!(error < 1e-4, "{error}");
            }
            Ok(())
        };
        for p in [0.0, 0.4, 1.0] {
            let (rate, key) = (DropRate::new(p).unwrap(), MaskKey::new(42, 7));
            for activation in Activation::ALL {
                let draw = SliceDropout::activated(*activation, rate, key, &shape);
                let draw = draw.map_err(Error::wrap)?;
                let uploaded = by_uploaded_mask(&xs, &draw)?;
                close(&uploaded, &dropout(&xs, draw, SaveMask::Bits)?)?;
            }
            let draw = SliceDropout::broadcast(rate, key, &shape, &shape);
            let draw = draw.map_err(Error::wrap)?;
            let uploaded = swiglu_by_uploaded_mask(&xs, &up, &draw)?;
            let ours = swiglu_dropout(&xs, &up, || Ok(draw), SaveMask::Bits)?;
            close(&uploaded, &ours)?;
        }
        // What is dropped does not leak into the gradient of an activation either.
        let nan = Var::from_tensor(&Tensor::full(f32::NAN, 100, &Device::Cpu)?)?;
        let (rate, key) = (DropRate::new(1.0).unwrap(), MaskKey::new(42, 7));
        for activation in Activation::ALL {
            let draw = SliceDropout::activated(*activation, rate, key, &[100]);
            let ys = by_uploaded_mask(&nan, &draw.map_err(Error::wrap)?)?;
            let dx = ys.backward()?.remove(&nan).unwrap();
            assert_eq!([bits(&ys), bits(&dx)], [vec![0; 100], vec![0; 100]]);
        }
        Ok(())
    }

    fn bits(tensor: &Tensor) -> Vec<u64> {
        let numbers = tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
        let numbers = numbers.to_vec1::<f64>().unwrap();
        numbers.into_iter().map(f64::to_bits).collect()
    }
}
