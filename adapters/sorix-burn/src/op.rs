//! Dropout as an operation of burn's graph.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::{
    BalancedCheckpointing, CheckpointStrategy, NoCheckpointing,
};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, binary, unary};
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, Backend, DispatchDevice, DispatchKindConversion, DispatchTensor, Flex,
};
use burn::tensor::{
    Bool, Bytes, DType, Element as BurnElement, GradientCheckpointingStrategy, Tensor, TensorData,
    bf16, f16,
};
use sorix::adapter::{Saved, SliceDropout};
use sorix::kernels::Buffers;
use sorix::{SaveMask, Scalar};

use crate::error::{Error, Result};

/// Drops from `x` by one draw.
pub(crate) fn dropout<const D: usize>(
    x: Tensor<D>,
    draw: SliceDropout,
    save: SaveMask,
) -> Result<Tensor<D>> {
    if draw.is_identity() {
        return Ok(x);
    }
    if !has_kernels(&x) {
        return by_uploaded_mask(x, &draw);
    }
    match x.device().gradient_checkpointing_strategy() {
        None => {
            let x = primitive::<Flex, D>(x, &draw)?;
            let (y, _) = forward(x, &draw, SaveMask::Replay)?;
            Ok(Tensor::from_primitive::<Flex>(y))
        }
        Some(GradientCheckpointingStrategy::Balanced) => {
            tracked::<BalancedCheckpointing, D>(x, draw, save)
        }
        Some(GradientCheckpointingStrategy::Disabled) => {
            tracked::<NoCheckpointing, D>(x, draw, save)
        }
    }
}

/// Drops from `x` by one draw and adds a residual.
pub(crate) fn dropout_add<const D: usize>(
    x: Tensor<D>,
    residual: Tensor<D>,
    draw: SliceDropout,
    save: SaveMask,
) -> Result<Tensor<D>> {
    check_residual(&x, &residual)?;
    if !has_kernels(&x) {
        return Ok(residual + by_uploaded_mask(x, &draw)?);
    }
    match x.device().gradient_checkpointing_strategy() {
        None => {
            let x = primitive::<Flex, D>(x, &draw)?;
            let residual = primitive::<Flex, D>(residual, &draw)?;
            let (y, _) = forward_add(x, residual, &draw, SaveMask::Replay)?;
            Ok(Tensor::from_primitive::<Flex>(y))
        }
        Some(GradientCheckpointingStrategy::Balanced) => {
            tracked_add::<BalancedCheckpointing, D>(x, residual, draw, save)
        }
        Some(GradientCheckpointingStrategy::Disabled) => {
            tracked_add::<NoCheckpointing, D>(x, residual, draw, save)
        }
    }
}

/// Whether the residual is as `x` in all that counts.
pub(crate) fn check_residual<const D: usize>(x: &Tensor<D>, residual: &Tensor<D>) -> Result<()> {
    let facts = |tensor: &Tensor<D>| {
        let device = tensor.device();
        // Devices with and without it are equal to burn.
        let autodiff = (
            device.is_autodiff(),
            device.gradient_checkpointing_strategy(),
        );
        (tensor.dims(), tensor.dtype(), device, autodiff)
    };
    if facts(x) == facts(residual) {
        return Ok(());
    }
    let describe = |tensor: &Tensor<D>| {
        let (dims, dtype, device, _) = facts(tensor);
        format!("{dtype:?} of shape {dims:?} on {device:?}")
    };
    Err(Error::Residual {
        expected: describe(x),
        got: describe(residual),
    })
}

/// Whether the kernels can read the tensor where it lies.
fn has_kernels<const D: usize>(x: &Tensor<D>) -> bool {
    let plain = x.device().inner();
    dtype_of(x).is_some() && matches!(plain.as_dispatch(), DispatchDevice::Flex(_))
}

/// sorix' name of the dtype, if the kernels have it.
fn dtype_of<const D: usize>(x: &Tensor<D>) -> Option<sorix::DType> {
    match x.dtype() {
        DType::F16 => Some(sorix::DType::F16),
        DType::BF16 => Some(sorix::DType::BF16),
        DType::F32 => Some(sorix::DType::F32),
        DType::F64 => Some(sorix::DType::F64),
        _ => None,
    }
}

/// The tensor as its backend has it.
fn primitive<B: Backend, const D: usize>(
    x: Tensor<D>,
    draw: &SliceDropout,
) -> Result<FloatTensor<B>>
where
    DispatchTensor: DispatchKindConversion<B>,
{
    x.try_into_primitive::<B>().map_err(|error| Error::Device {
        shape: draw.mask_shape().to_vec(),
        reason: format!("{error:?}"),
    })
}

/// On the CPU, in the graph.
fn tracked<C: CheckpointStrategy, const D: usize>(
    x: Tensor<D>,
    draw: SliceDropout,
    save: SaveMask,
) -> Result<Tensor<D>>
where
    DispatchTensor: DispatchKindConversion<Autodiff<Flex, C>>,
{
    let (x, node) = primitive::<Autodiff<Flex, C>, D>(x, &draw)?.into_parts();
    let y = match DropoutBackward
        .prepare::<C>([node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => {
            let (y, saved) = forward(x, &draw, save)?;
            prep.finish(State { draw, saved }, y)
        }
        // If nobody asks for a gradient there is nothing to save a mask for.
        OpsKind::UnTracked(prep) => prep.finish(forward(x, &draw, SaveMask::Replay)?.0),
    };
    Ok(Tensor::from_primitive::<Autodiff<Flex, C>>(y))
}

fn tracked_add<C: CheckpointStrategy, const D: usize>(
    x: Tensor<D>,
    residual: Tensor<D>,
    draw: SliceDropout,
    save: SaveMask,
) -> Result<Tensor<D>>
where
    DispatchTensor: DispatchKindConversion<Autodiff<Flex, C>>,
{
    let (x, x_node) = primitive::<Autodiff<Flex, C>, D>(x, &draw)?.into_parts();
    let (residual, residual_node) =
        primitive::<Autodiff<Flex, C>, D>(residual, &draw)?.into_parts();
    let y = match DropoutAddBackward
        .prepare::<C>([x_node, residual_node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => {
            let (y, saved) = forward_add(x, residual, &draw, save)?;
            prep.finish(State { draw, saved }, y)
        }
        OpsKind::UnTracked(prep) => {
            prep.finish(forward_add(x, residual, &draw, SaveMask::Replay)?.0)
        }
    };
    Ok(Tensor::from_primitive::<Autodiff<Flex, C>>(y))
}

/// What is kept until backward.
#[derive(Clone, Debug)]
struct State {
    draw: SliceDropout,
    saved: Option<Saved>,
}

#[derive(Debug)]
struct DropoutBackward;

impl Backward<Flex, 1> for DropoutBackward {
    type State = State;

    fn backward(
        self,
        ops: Ops<State, 1>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        unary::<Flex, _>(ops.parents, ops.node, gradients, |gradient| {
            ops.state.gradient(gradient)
        });
    }
}

#[derive(Debug)]
struct DropoutAddBackward;

impl Backward<Flex, 2> for DropoutAddBackward {
    type State = State;

    fn backward(
        self,
        ops: Ops<State, 2>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let of_x = |gradient| ops.state.gradient(gradient);
        binary::<Flex, _, _>(ops.parents, ops.node, gradients, of_x, |gradient| gradient);
    }
}

impl State {
    /// The gradient of what is dropped from.
    fn gradient(self, gradient: FlexTensor) -> FlexTensor {
        let State { draw, saved } = self;
        on_elements(gradient, &Backprop { draw, saved })
            // burn's backward has no way to return an error; forward had the same lengths, dtype and
            // backend, so what is left is failed allocation.
            .unwrap_or_else(|error| panic!("backward of dropout: {error}"))
            .0
    }
}

/// What is done to the elements, whatever their type.
trait OnElements {
    fn run<T: Scalar>(&self, x: &[T]) -> KernelResult<(Vec<T>, Option<Saved>)>;

    fn run_in_place<T: Scalar>(&self, x: &mut [T]) -> KernelResult<Option<Saved>>;
}

type KernelResult<T> = core::result::Result<T, sorix::kernels::Error>;

struct Forward<'a> {
    draw: &'a SliceDropout,
    save: SaveMask,
}

impl OnElements for Forward<'_> {
    fn run<T: Scalar>(&self, x: &[T]) -> KernelResult<(Vec<T>, Option<Saved>)> {
        self.draw.forward(x, self.save)
    }

    fn run_in_place<T: Scalar>(&self, x: &mut [T]) -> KernelResult<Option<Saved>> {
        self.draw.forward_in_place(x, self.save)
    }
}

struct Backprop {
    draw: SliceDropout,
    saved: Option<Saved>,
}

impl OnElements for Backprop {
    fn run<T: Scalar>(&self, dy: &[T]) -> KernelResult<(Vec<T>, Option<Saved>)> {
        Ok((self.draw.backward(self.saved.as_ref(), dy)?, None))
    }

    fn run_in_place<T: Scalar>(&self, dy: &mut [T]) -> KernelResult<Option<Saved>> {
        self.draw.backward_in_place(self.saved.as_ref(), dy)?;
        Ok(None)
    }
}

fn forward(
    x: FlexTensor,
    draw: &SliceDropout,
    save: SaveMask,
) -> Result<(FlexTensor, Option<Saved>)> {
    Ok(on_elements(x, &Forward { draw, save })?)
}

fn on_elements(x: FlexTensor, op: &impl OnElements) -> KernelResult<(FlexTensor, Option<Saved>)> {
    match x.dtype() {
        DType::F64 => on_typed::<f64>(x, op),
        DType::F16 => on_typed::<f16>(x, op),
        DType::BF16 => on_typed::<bf16>(x, op),
        _ => on_typed::<f32>(x, op),
    }
}

/// In row-major order, which is what an element's place in the mask counts.
fn row_major(x: FlexTensor) -> FlexTensor {
    if x.is_contiguous() {
        x
    } else {
        x.to_contiguous()
    }
}

/// The elements of a tensor in row-major order.
fn elements<T: Scalar + BurnElement>(x: &FlexTensor) -> &[T] {
    let begin = x.layout().start_offset();
    &x.storage::<T>()[begin..begin + x.layout().num_elements()]
}

/// A tensor of the shape and dtype of another one.
fn like<T: BurnElement>(x: &FlexTensor, elements: Vec<T>) -> FlexTensor {
    let layout = Layout::contiguous(x.layout().shape().clone());
    FlexTensor::new(Bytes::from_elems(elements), layout, x.dtype())
}

fn on_typed<T: Scalar + BurnElement>(
    x: FlexTensor,
    op: &impl OnElements,
) -> KernelResult<(FlexTensor, Option<Saved>)> {
    let mut x = row_major(x);
    let len = x.layout().num_elements();
    // A tensor that nobody else holds is written over: it need not be allocated again.
    if let Some(elements) = x.try_storage_mut::<T>()
        && elements.len() == len
    {
        let saved = op.run_in_place(elements)?;
        return Ok((x, saved));
    }
    let (y, saved) = op.run(elements::<T>(&x))?;
    Ok((like(&x, y), saved))
}

fn forward_add(
    x: FlexTensor,
    residual: FlexTensor,
    draw: &SliceDropout,
    save: SaveMask,
) -> KernelResult<(FlexTensor, Option<Saved>)> {
    match x.dtype() {
        DType::F64 => add_typed::<f64>(x, residual, draw, save),
        DType::F16 => add_typed::<f16>(x, residual, draw, save),
        DType::BF16 => add_typed::<bf16>(x, residual, draw, save),
        _ => add_typed::<f32>(x, residual, draw, save),
    }
}

fn add_typed<T: Scalar + BurnElement>(
    x: FlexTensor,
    residual: FlexTensor,
    draw: &SliceDropout,
    save: SaveMask,
) -> KernelResult<(FlexTensor, Option<Saved>)> {
    let (x, mut residual) = (row_major(x), row_major(residual));
    let x = elements::<T>(&x);
    // As above: a residual that nobody else holds becomes the sum.
    if let Some(sum) = residual.try_storage_mut::<T>()
        && sum.len() == x.len()
    {
        let buffers = Buffers::in_place(sum).with_elements(x)?;
        let saved = draw.forward_add_buffers(buffers, save)?;
        return Ok((residual, saved));
    }
    let (sum, saved) = draw.forward_add(x, elements::<T>(&residual), save)?;
    Ok((like(&residual, sum), saved))
}

/// By burn's own operations, on any device: the mask comes from the CPU.
fn by_uploaded_mask<const D: usize>(x: Tensor<D>, draw: &SliceDropout) -> Result<Tensor<D>> {
    let Some(affine) = draw.affine() else {
        let noise = draw.noise(dtype_of(&x).unwrap_or(sorix::DType::F32))?;
        let noise = noise
            .to_dtype(sorix::DType::F64)
            .and_then(sorix::Tensor::into_vec::<f64>);
        let noise = TensorData::new(noise.map_err(sorix::Error::from)?, x.shape());
        return Ok(x.clone() * Tensor::from_data(noise, (&x.device(), x.dtype())));
    };
    let drop: Vec<bool> = draw.mask()?.iter().map(|keep| !keep).collect();
    let shape = x.shape();
    let drop = TensorData::new(drop, draw.mask_shape().to_vec());
    let drop = Tensor::<D, Bool>::from_data(drop, &x.device()).expand(shape);
    let kept = x * affine.scale;
    let kept = if affine.shift == 0.0 {
        kept
    } else {
        kept + affine.shift
    };
    Ok(kept.mask_fill(drop, affine.dropped))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use sorix::kernels::{DropRate, MaskKey};
    use sorix::nn::dropout::{Alpha, Channels, Elements, Gaussian};

    use super::*;

    /// What is uploaded to another device gives what the operation of the CPU gives.
    #[test]
    fn an_uploaded_mask_drops_the_same_elements() {
        const SHAPE: [usize; 3] = [3, 5, 70];
        let device = Device::flex().autodiff();
        let numbers: Vec<f64> = (0..1050).map(|i| f64::from(i) * 0.25 - 100.0).collect();
        for p in [0.1, 0.5, 1.0] {
            let (rate, key) = (DropRate::new(p).unwrap(), MaskKey::new(42, 7));
            let draws = [
                SliceDropout::new(&Elements, rate, key, &SHAPE),
                SliceDropout::new(&Channels::<1>::default(), rate, key, &SHAPE),
                SliceDropout::new(&Alpha, rate, key, &SHAPE),
                SliceDropout::new(&Gaussian, rate, key, &SHAPE),
            ];
            for draw in draws.map(|draw| draw.unwrap()) {
                let both = [true, false].map(|uploaded| {
                    let data = TensorData::new(numbers.clone(), SHAPE);
                    let x = Tensor::<3>::from_data(data, (&device, DType::F64)).require_grad();
                    let y = if uploaded {
                        by_uploaded_mask(x.clone(), &draw)
                    } else {
                        dropout(x.clone(), draw.clone(), SaveMask::Bits)
                    };
                    let y = y.unwrap();
                    let gradient = x.grad(&y.backward()).unwrap();
                    [y.inner(), gradient]
                        .map(|tensor| tensor.into_data().try_to_vec::<f64>().unwrap())
                });
                assert_eq!(both[0], both[1], "p = {p}, {:?}", draw.mask_shape());
            }
        }
    }
}
