//! Dropout as an operation of burn's graph.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, binary, unary};
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, Backend, DispatchDevice, DispatchKindConversion, DispatchTensor, Flex,
};
use burn::tensor::{
    Bool, Bytes, DType, Device, Element as BurnElement, GradientCheckpointingStrategy, Tensor,
    TensorData, activation, bf16, f16,
};
use sorix::adapter::{Saved, SliceDropout, SliceSwiglu, bias_gradient};
use sorix::kernels::{Activation, Affine, Buffers};
use sorix::{SaveMask, Scalar};

use crate::error::{Error, Result};

/// What is done in the graph, with `C` as the strategy by which the device of a tensor keeps or makes again what backward
/// needs; or what is done without a graph.
macro_rules! by_strategy {
    ($x:expr, $C:ident => $tracked:expr, plain => $plain:expr) => {
        match $x.device().gradient_checkpointing_strategy() {
            None => $plain,
            Some(burn::tensor::GradientCheckpointingStrategy::Balanced) => {
                type $C = burn::backend::autodiff::checkpoint::strategy::BalancedCheckpointing;
                $tracked
            }
            Some(burn::tensor::GradientCheckpointingStrategy::Disabled) => {
                type $C = burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
                $tracked
            }
        }
    };
}

pub(crate) use by_strategy;

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
    by_strategy!(x, C => tracked::<C, D>(x, draw, save), plain => {
        let x = primitive::<Flex, D>(x, &draw)?;
        let (y, _) = forward(x, &draw, SaveMask::Replay)?;
        Ok(Tensor::from_primitive::<Flex>(y))
    })
}

/// Drops from `x` by one draw and adds a residual. The draw is asked for once the residual is seen to fit; if there is
/// none nothing is dropped.
pub(crate) fn dropout_add<const D: usize>(
    x: Tensor<D>,
    residual: Tensor<D>,
    draw: impl FnOnce(&Tensor<D>) -> Result<Option<SliceDropout>>,
    save: SaveMask,
) -> Result<Tensor<D>> {
    check_same("dropout_add", "a residual", &x, &residual)?;
    match draw(&x)? {
        Some(draw) => add_to_fitting(x, residual, draw, save),
        None => Ok(residual + x),
    }
}

/// [`dropout_add`] of a residual that fits.
fn add_to_fitting<const D: usize>(
    x: Tensor<D>,
    residual: Tensor<D>,
    draw: SliceDropout,
    save: SaveMask,
) -> Result<Tensor<D>> {
    if !has_kernels(&x) {
        return Ok(residual + by_uploaded_mask(x, &draw)?);
    }
    by_strategy!(x, C => tracked_add::<C, D>(x, residual, draw, save), plain => {
        let x = primitive::<Flex, D>(x, &draw)?;
        let residual = primitive::<Flex, D>(residual, &draw)?;
        let (y, _) = forward_add(x, None, residual, &draw, SaveMask::Replay)?;
        Ok(Tensor::from_primitive::<Flex>(y))
    })
}

/// Drops from `x` plus a bias by one draw, which is asked for once the others are seen to fit, and adds a residual.
pub(crate) fn bias_dropout_add<const D: usize>(
    x: Tensor<D>,
    bias: Tensor<1>,
    residual: Tensor<D>,
    draw: impl FnOnce(&Tensor<D>) -> Result<SliceDropout>,
    save: SaveMask,
) -> Result<Tensor<D>> {
    check_same("bias_dropout_add", "a residual", &x, &residual)?;
    check_bias(&x, &bias)?;
    let draw = draw(&x)?;
    if !has_kernels(&x) || !draw.adds_in_one_pass() {
        return add_to_fitting(x + bias.unsqueeze(), residual, draw, save);
    }
    by_strategy!(x, C => tracked_bias_add::<C, D>(x, bias, residual, draw, save), plain => {
        let x = primitive::<Flex, D>(x, &draw)?;
        let bias = primitive::<Flex, 1>(bias, &draw)?;
        let residual = primitive::<Flex, D>(residual, &draw)?;
        let (y, _) = forward_add(x, Some(bias), residual, &draw, SaveMask::Replay)?;
        Ok(Tensor::from_primitive::<Flex>(y))
    })
}

/// Drops by one draw, of inverted dropout with a bit for each element, from `silu(gate) * up`. The draw is
/// asked for once the two are seen to fit.
pub(crate) fn swiglu_dropout<const D: usize>(
    gate: Tensor<D>,
    up: Tensor<D>,
    draw: impl FnOnce(&Tensor<D>) -> Result<SliceDropout>,
    save: SaveMask,
) -> Result<Tensor<D>> {
    check_same("swiglu_dropout", "up", &gate, &up)?;
    let draw = draw(&gate)?;
    if !has_kernels(&gate) {
        return swiglu_by_uploaded_mask(gate, up, &draw);
    }
    by_strategy!(gate, C => tracked_swiglu::<C, D>(gate, up, draw, save), plain => {
        let gate = primitive::<Flex, D>(gate, &draw)?;
        let up = primitive::<Flex, D>(up, &draw)?;
        let (y, _) = forward_swiglu(gate, up, &draw, SaveMask::Replay)?;
        Ok(Tensor::from_primitive::<Flex>(y))
    })
}

/// Whether the other tensor is as `x` in all that counts.
fn check_same<const D: usize>(
    operation: &'static str,
    what: &'static str,
    x: &Tensor<D>,
    other: &Tensor<D>,
) -> Result<()> {
    if x.dims() == other.dims() && place(x) == place(other) {
        return Ok(());
    }
    Err(Error::Operand {
        operation,
        what,
        expected: format!("as the input, {}", describe(x)),
        got: describe(other),
    })
}

/// Whether the bias is as long as the last axis of `x`.
fn check_bias<const D: usize>(x: &Tensor<D>, bias: &Tensor<1>) -> Result<()> {
    let last = x.dims().last().copied();
    if last == Some(bias.dims()[0]) && place(x) == place(bias) {
        return Ok(());
    }
    Err(Error::Operand {
        operation: "bias_dropout_add",
        what: "a bias",
        expected: format!("as long as the last axis of the input, {}", describe(x)),
        got: describe(bias),
    })
}

/// The dtype of a tensor and where it is.
pub(crate) fn place<const D: usize>(tensor: &Tensor<D>) -> Place {
    let device = tensor.device();
    (
        tensor.dtype(),
        device.is_autodiff(),
        device.gradient_checkpointing_strategy(),
        device,
    )
}

/// Devices with and without autodiff are equal to burn, so it is beside them.
pub(crate) type Place = (DType, bool, Option<GradientCheckpointingStrategy>, Device);

pub(crate) fn describe<const D: usize>(tensor: &Tensor<D>) -> String {
    let (dtype, dims, device) = (tensor.dtype(), tensor.dims(), tensor.device());
    format!("{dtype:?} of shape {dims:?} on {device:?}")
}

/// Whether the kernels can read the tensor where it lies.
pub(crate) fn has_kernels<const D: usize>(x: &Tensor<D>) -> bool {
    let plain = x.device().inner();
    dtype_of(x).is_some() && matches!(plain.as_dispatch(), DispatchDevice::Flex(_))
}

/// sorix' name of the dtype, if the kernels have it.
pub(crate) fn dtype_of<const D: usize>(x: &Tensor<D>) -> Option<sorix::DType> {
    match x.dtype() {
        DType::F16 => Some(sorix::DType::F16),
        DType::BF16 => Some(sorix::DType::BF16),
        DType::F32 => Some(sorix::DType::F32),
        DType::F64 => Some(sorix::DType::F64),
        _ => None,
    }
}

/// The tensor as its backend has it.
pub(crate) fn primitive<B: Backend, const D: usize>(
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
    let x = primitive::<Autodiff<Flex, C>, D>(x, &draw)?;
    let y = match DropoutBackward
        .prepare::<C>([x.node()])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(mut prep) => {
            let save = draw.saving(true, save);
            let input = input_for_backward(&draw, save).then(|| prep.checkpoint(&x));
            let (y, saved) = forward(x.into_parts().0, &draw, save)?;
            prep.finish(State { draw, saved, input }, y)
        }
        // If nobody asks for a gradient there is nothing to save a mask for.
        OpsKind::UnTracked(prep) => {
            prep.finish(forward(x.into_parts().0, &draw, SaveMask::Replay)?.0)
        }
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
    let x = primitive::<Autodiff<Flex, C>, D>(x, &draw)?;
    let (residual, residual_node) =
        primitive::<Autodiff<Flex, C>, D>(residual, &draw)?.into_parts();
    let y = match DropoutAddBackward
        .prepare::<C>([x.node(), residual_node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(mut prep) => {
            let save = draw.saving(true, save);
            let input = input_for_backward(&draw, save).then(|| prep.checkpoint(&x));
            let (y, saved) = forward_add(x.into_parts().0, None, residual, &draw, save)?;
            prep.finish(State { draw, saved, input }, y)
        }
        OpsKind::UnTracked(prep) => {
            let x = x.into_parts().0;
            prep.finish(forward_add(x, None, residual, &draw, SaveMask::Replay)?.0)
        }
    };
    Ok(Tensor::from_primitive::<Autodiff<Flex, C>>(y))
}

fn tracked_bias_add<C: CheckpointStrategy, const D: usize>(
    x: Tensor<D>,
    bias: Tensor<1>,
    residual: Tensor<D>,
    draw: SliceDropout,
    save: SaveMask,
) -> Result<Tensor<D>>
where
    DispatchTensor: DispatchKindConversion<Autodiff<Flex, C>>,
{
    let (x, x_node) = primitive::<Autodiff<Flex, C>, D>(x, &draw)?.into_parts();
    let (bias, bias_node) = primitive::<Autodiff<Flex, C>, 1>(bias, &draw)?.into_parts();
    let (residual, residual_node) =
        primitive::<Autodiff<Flex, C>, D>(residual, &draw)?.into_parts();
    let y = match BiasDropoutAddBackward
        .prepare::<C>([x_node, bias_node, residual_node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => {
            let (y, saved) = forward_add(x, Some(bias), residual, &draw, save)?;
            // The gradient is that of inverted dropout.
            let input = None;
            prep.finish(State { draw, saved, input }, y)
        }
        OpsKind::UnTracked(prep) => {
            prep.finish(forward_add(x, Some(bias), residual, &draw, SaveMask::Replay)?.0)
        }
    };
    Ok(Tensor::from_primitive::<Autodiff<Flex, C>>(y))
}

fn tracked_swiglu<C: CheckpointStrategy, const D: usize>(
    gate: Tensor<D>,
    up: Tensor<D>,
    draw: SliceDropout,
    save: SaveMask,
) -> Result<Tensor<D>>
where
    DispatchTensor: DispatchKindConversion<Autodiff<Flex, C>>,
{
    let gate = primitive::<Autodiff<Flex, C>, D>(gate, &draw)?;
    let up = primitive::<Autodiff<Flex, C>, D>(up, &draw)?;
    let y = match SwigluDropoutBackward
        .prepare::<C>([gate.node(), up.node()])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(mut prep) => {
            let inputs = [prep.checkpoint(&gate), prep.checkpoint(&up)];
            let (gate, up) = (gate.into_parts().0, up.into_parts().0);
            let (y, saved) = forward_swiglu(gate, up, &draw, save)?;
            prep.finish((draw, saved, inputs), y)
        }
        OpsKind::UnTracked(prep) => {
            let (gate, up) = (gate.into_parts().0, up.into_parts().0);
            prep.finish(forward_swiglu(gate, up, &draw, SaveMask::Replay)?.0)
        }
    };
    Ok(Tensor::from_primitive::<Autodiff<Flex, C>>(y))
}

/// Whether backward needs the input if forward saves this.
fn input_for_backward(draw: &SliceDropout, save: SaveMask) -> bool {
    draw.activation()
        .is_some_and(|activation| activation != Activation::Relu || save != SaveMask::Bits)
}

/// What is kept until backward.
#[derive(Clone, Debug)]
struct State {
    draw: SliceDropout,
    saved: Option<Saved>,
    /// Of an activation, where burn has its input.
    input: Option<NodeId>,
}

#[derive(Debug)]
struct DropoutBackward;

impl Backward<Flex, 1> for DropoutBackward {
    type State = State;

    fn backward(
        self,
        ops: Ops<State, 1>,
        gradients: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        unary::<Flex, _>(ops.parents, ops.node, gradients, |gradient| {
            ops.state.gradient(gradient, checkpointer)
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
        checkpointer: &mut Checkpointer,
    ) {
        let of_x = |gradient| ops.state.gradient(gradient, checkpointer);
        binary::<Flex, _, _>(ops.parents, ops.node, gradients, of_x, |gradient| gradient);
    }
}

#[derive(Debug)]
struct BiasDropoutAddBackward;

impl Backward<Flex, 3> for BiasDropoutAddBackward {
    type State = State;

    fn backward(
        self,
        ops: Ops<State, 3>,
        gradients: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let [of_x, of_bias, of_residual] = ops.parents;
        if let Some(node) = of_residual {
            gradients.register::<Flex>(node.id, gradient.clone());
        }
        if of_x.is_none() && of_bias.is_none() {
            return;
        }
        let dx = ops.state.gradient(gradient, checkpointer);
        if let Some(node) = of_bias {
            gradients.register::<Flex>(node.id, in_backward(sum_of_rows(&dx)));
        }
        if let Some(node) = of_x {
            gradients.register::<Flex>(node.id, dx);
        }
    }
}

#[derive(Debug)]
struct SwigluDropoutBackward;

impl Backward<Flex, 2> for SwigluDropoutBackward {
    type State = (SliceDropout, Option<Saved>, [NodeId; 2]);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        gradients: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let (draw, saved, inputs) = ops.state;
        let [gate, up] = inputs.map(|input| checkpointer.retrieve_node_output::<FlexTensor>(input));
        let backward = SwigluBackprop {
            swiglu: swiglu(&draw),
            saved,
            wanted: [0, 1].map(|i| ops.parents[i].is_some()),
        };
        let made = in_backward(backward.gradients(gate, up, gradient));
        for (parent, gradient) in ops.parents.into_iter().zip(made) {
            if let (Some(node), Some(gradient)) = (parent, gradient) {
                gradients.register::<Flex>(node.id, gradient);
            }
        }
    }
}

impl State {
    /// The gradient of what is dropped from.
    fn gradient(self, gradient: FlexTensor, checkpointer: &mut Checkpointer) -> FlexTensor {
        let State { draw, saved, input } = self;
        let backprop = Backprop { draw, saved };
        in_backward(match input {
            Some(input) => {
                let x = checkpointer.retrieve_node_output::<FlexTensor>(input);
                backprop.at(x, gradient)
            }
            None => on_elements(gradient, &backprop).map(|(dx, _)| dx),
        })
    }
}

/// burn's backward has no way to return an error; forward had the same lengths, dtype and backend, so what is left
/// is failed allocation.
pub(crate) fn in_backward<T>(made: KernelResult<T>) -> T {
    made.unwrap_or_else(|error| panic!("backward of dropout: {error}"))
}

/// What is done to the elements, whatever their type.
trait OnElements {
    fn run<T: Scalar>(&self, x: &[T]) -> KernelResult<(Vec<T>, Option<Saved>)>;

    fn run_in_place<T: Scalar>(&self, x: &mut [T]) -> KernelResult<Option<Saved>>;
}

/// The expression with `T` as the type of a tensor's elements.
macro_rules! by_dtype {
    ($tensor:expr, $T:ident => $what:expr) => {
        match $tensor.dtype() {
            DType::F64 => {
                type $T = f64;
                $what
            }
            DType::F16 => {
                type $T = f16;
                $what
            }
            DType::BF16 => {
                type $T = bf16;
                $what
            }
            _ => {
                type $T = f32;
                $what
            }
        }
    };
}

pub(crate) use by_dtype;

pub(crate) type KernelResult<T> = core::result::Result<T, sorix::kernels::Error>;

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

impl Backprop {
    /// The gradient of an activation's input.
    fn at(&self, x: FlexTensor, dy: FlexTensor) -> KernelResult<FlexTensor> {
        by_dtype!(x, T => {
            let (mut x, dy) = (row_major(x), row_major(dy));
            let dy = elements::<T>(&dy);
            // As below: an input that nobody else holds becomes its gradient.
            if let Some(dx) = x.try_storage_mut::<T>()
                && dx.len() == dy.len()
            {
                let buffers = Buffers::in_place(dx).with_elements(dy)?;
                self.draw.backward_at_buffers(self.saved.as_ref(), buffers)?;
                return Ok(x);
            }
            let dx = self.draw.backward_at(self.saved.as_ref(), elements::<T>(&x), dy)?;
            Ok(like(&x, dx))
        })
    }
}

/// The gradient of a bias for that of what it was added to.
fn sum_of_rows(dx: &FlexTensor) -> KernelResult<FlexTensor> {
    let len = dx.layout().shape().last().copied().unwrap_or(1);
    by_dtype!(dx, T => {
        let sum = bias_gradient(elements::<T>(dx), len)?;
        Ok(FlexTensor::new(Bytes::from_elems(sum), Layout::contiguous([len].into()), dx.dtype()))
    })
}

/// The draw as one of a gated activation.
fn swiglu(draw: &SliceDropout) -> SliceSwiglu {
    let len = draw.mask_shape().iter().product();
    SliceSwiglu::new(draw.rate(), draw.at(), len)
}

struct SwigluBackprop {
    swiglu: SliceSwiglu,
    saved: Option<Saved>,
    wanted: [bool; 2],
}

impl SwigluBackprop {
    fn gradients(
        &self,
        gate: FlexTensor,
        up: FlexTensor,
        dy: FlexTensor,
    ) -> KernelResult<[Option<FlexTensor>; 2]> {
        let [gate, up, dy] = [gate, up, dy].map(row_major);
        by_dtype!(gate, T => {
            let [of_gate, of_up, of_y] = [&gate, &up, &dy].map(elements::<T>);
            let saved = self.saved.as_ref();
            let made = self.swiglu.backward(saved, of_gate, of_up, of_y, self.wanted)?;
            Ok(made.map(|made| made.map(|made| like(&gate, made))))
        })
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
    by_dtype!(x, T => on_typed::<T>(x, op))
}

/// In row-major order, which is what an element's place in the mask counts.
pub(crate) fn row_major(x: FlexTensor) -> FlexTensor {
    if x.is_contiguous() {
        x
    } else {
        x.to_contiguous()
    }
}

/// The elements of a tensor in row-major order.
pub(crate) fn elements<T: Scalar + BurnElement>(x: &FlexTensor) -> &[T] {
    let begin = x.layout().start_offset();
    &x.storage::<T>()[begin..begin + x.layout().num_elements()]
}

/// A tensor of the shape and dtype of another one.
pub(crate) fn like<T: BurnElement>(x: &FlexTensor, elements: Vec<T>) -> FlexTensor {
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
    bias: Option<FlexTensor>,
    residual: FlexTensor,
    draw: &SliceDropout,
    save: SaveMask,
) -> KernelResult<(FlexTensor, Option<Saved>)> {
    let (x, mut residual) = (row_major(x), row_major(residual));
    let bias = bias.map(row_major);
    by_dtype!(x, T => {
        let x = elements::<T>(&x);
        let bias = bias.as_ref().map(elements::<T>);
        // As above: a residual that nobody else holds becomes the sum.
        if let Some(sum) = residual.try_storage_mut::<T>()
            && sum.len() == x.len()
        {
            let mut buffers = Buffers::in_place(sum).with_elements(x)?;
            if let Some(bias) = bias {
                buffers = buffers.with_row(bias)?;
            }
            let saved = draw.forward_add_buffers(buffers, save)?;
            return Ok((residual, saved));
        }
        let (sum, saved) = match bias {
            Some(bias) => draw.forward_bias_add(x, bias, elements::<T>(&residual), save)?,
            None => draw.forward_add(x, elements::<T>(&residual), save)?,
        };
        Ok((like(&residual, sum), saved))
    })
}

fn forward_swiglu(
    gate: FlexTensor,
    up: FlexTensor,
    draw: &SliceDropout,
    save: SaveMask,
) -> KernelResult<(FlexTensor, Option<Saved>)> {
    let (mut gate, up) = (row_major(gate), row_major(up));
    let swiglu = swiglu(draw);
    by_dtype!(gate, T => {
        let up = elements::<T>(&up);
        // As above: a gate that nobody else holds becomes the output.
        if let Some(y) = gate.try_storage_mut::<T>()
            && y.len() == up.len()
        {
            let saved = swiglu.forward_buffers(Buffers::in_place(y).with_elements(up)?, save)?;
            return Ok((gate, saved));
        }
        let (y, saved) = swiglu.forward(elements::<T>(&gate), up, save)?;
        Ok((like(&gate, y), saved))
    })
}

/// The activation by burn's own operations.
fn activate<const D: usize>(x: Tensor<D>, activation: Activation) -> Result<Tensor<D>> {
    Ok(match activation {
        Activation::Relu => activation::relu(x),
        Activation::Gelu => activation::gelu(x),
        Activation::GeluTanh => activation::gelu_approximate(x),
        Activation::Silu => activation::silu(x),
        other => {
            return Err(Error::Device {
                shape: x.dims().to_vec(),
                reason: format!("no activation {other:?} on {:?}", x.device()),
            });
        }
    })
}

/// [`swiglu_dropout`] by burn's own operations.
fn swiglu_by_uploaded_mask<const D: usize>(
    gate: Tensor<D>,
    up: Tensor<D>,
    draw: &SliceDropout,
) -> Result<Tensor<D>> {
    let unscaled = draw.clone().with_affine(Some(Affine::scale(1.0)));
    // Dropped before, so that a NaN comes no further: `silu(0) * 0` is 0.
    let gate = activation::silu(by_uploaded_mask(gate, &unscaled)?);
    Ok(gate * by_uploaded_mask(up, &unscaled)? * draw.rate().scale())
}

/// By burn's own operations, on any device: the mask comes from the CPU.
pub(crate) fn by_uploaded_mask<const D: usize>(
    x: Tensor<D>,
    draw: &SliceDropout,
) -> Result<Tensor<D>> {
    if let Some(activation) = draw.activation() {
        // Dropped before, so that a NaN comes no further: each activation makes 0 of 0.
        let unscaled = draw.clone().with_affine(Some(Affine::scale(1.0)));
        let kept = activate(by_uploaded_mask(x, &unscaled)?, activation)?;
        return Ok(kept * draw.rate().scale());
    }
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
    /// Activations are those of burn there.
    #[test]
    fn an_uploaded_mask_drops_from_activations() {
        const SHAPE: [usize; 2] = [15, 70];
        let device = Device::flex().autodiff();
        let leaf = |first: f64| {
            let numbers: Vec<f64> = (0..1050).map(|i| first + f64::from(i) * 0.01).collect();
            let data = TensorData::new(numbers, SHAPE);
            Tensor::<2>::from_data(data, (&device, DType::F64)).require_grad()
        };
        let (x, up) = (leaf(-5.005), leaf(0.03));
        let close = |uploaded: Tensor<2>, ours: Tensor<2>| {
            let all = |y: Tensor<2>| {
                let gradients = y.backward();
                let of_up = up.grad(&gradients);
                [Some(y.inner()), x.grad(&gradients), of_up]
            };
            for (a, b) in all(uploaded).into_iter().zip(all(ours)) {
                if let (Some(a), Some(b)) = (a, b) {
                    let error = (a - b).abs().max().into_data().try_to_vec::<f64>().unwrap()[0];
                    assert!(error < 1e-6, "{error}");
                }
            }
        };
        for p in [0.0, 0.4, 1.0] {
            let (rate, key) = (DropRate::new(p).unwrap(), MaskKey::new(42, 7));
            for activation in Activation::ALL {
                let draw = SliceDropout::activated(*activation, rate, key, &SHAPE).unwrap();
                let uploaded = by_uploaded_mask(x.clone(), &draw).unwrap();
                close(uploaded, dropout(x.clone(), draw, SaveMask::Bits).unwrap());
            }
            let draw = SliceDropout::broadcast(rate, key, &SHAPE, &SHAPE).unwrap();
            let uploaded = swiglu_by_uploaded_mask(x.clone(), up.clone(), &draw).unwrap();
            let ours = swiglu_dropout(x.clone(), up.clone(), |_| Ok(draw), SaveMask::Bits);
            close(uploaded, ours.unwrap());
        }
    }
}
