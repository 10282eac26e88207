//! Dropout as an operation of burn's graph.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::{
    BalancedCheckpointing, CheckpointStrategy, NoCheckpointing,
};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::{Autodiff, DispatchDevice, DispatchKindConversion, DispatchTensor, Flex};
use burn::tensor::{
    Bool, Bytes, DType, Element as BurnElement, GradientCheckpointingStrategy, Tensor, TensorData,
    bf16, f16,
};
use sorix::adapter::{Saved, SliceDropout};
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
    let device = x.device();
    let plain = device.clone().inner();
    if dtype_of(&x).is_none() || !matches!(plain.as_dispatch(), DispatchDevice::Flex(_)) {
        return by_uploaded_mask(x, &draw);
    }
    match device.gradient_checkpointing_strategy() {
        None => {
            let x = x
                .try_into_primitive::<Flex>()
                .map_err(|error| unconverted(&draw, &error))?;
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

fn unconverted(draw: &SliceDropout, error: &impl core::fmt::Debug) -> Error {
    Error::Device {
        shape: draw.mask_shape().to_vec(),
        reason: format!("{error:?}"),
    }
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
    let x = x
        .try_into_primitive::<Autodiff<Flex, C>>()
        .map_err(|error| unconverted(&draw, &error))?;
    let (x, node) = x.into_parts();
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
        let State { draw, saved } = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, gradients, |gradient| {
            on_elements(gradient, &Backprop { draw, saved })
                // burn's backward has no way to return an error; forward had the same lengths, dtype and
                // backend, so what is left is failed allocation.
                .unwrap_or_else(|error| panic!("backward of dropout: {error}"))
                .0
        });
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

fn on_typed<T: Scalar + BurnElement>(
    x: FlexTensor,
    op: &impl OnElements,
) -> KernelResult<(FlexTensor, Option<Saved>)> {
    // In row-major order, which is what an element's place in the mask counts.
    let mut x = if x.is_contiguous() {
        x
    } else {
        x.to_contiguous()
    };
    let len = x.layout().num_elements();
    // A tensor that nobody else holds is written over: it need not be allocated again.
    if let Some(elements) = x.try_storage_mut::<T>()
        && elements.len() == len
    {
        let saved = op.run_in_place(elements)?;
        return Ok((x, saved));
    }
    let begin = x.layout().start_offset();
    let (y, saved) = op.run(&x.storage::<T>()[begin..begin + len])?;
    let layout = Layout::contiguous(x.layout().shape().clone());
    Ok((
        FlexTensor::new(Bytes::from_elems(y), layout, x.dtype()),
        saved,
    ))
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
