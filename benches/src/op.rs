//! The kernels that are measured: their names, which rows they have, and how they are called.

use std::hint::black_box;

use sorix_kernels::{
    Activation, BitMask, BitSlice, Broadcast, Buffers, DropRate, Engine, Error, Function, MaskKey,
};

use crate::case::{Dtype, Shape};
use crate::tensors::{Operands, Value};

/// The seed of every mask measured.
const SEED: u64 = 42;

/// A kernel, under the name its rows carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Makes the mask of a tensor and nothing else.
    FillMask,
    /// Makes the mask and applies it to the input.
    Forward,
    /// Applies a stored mask to a gradient.
    Backward,
    /// Makes the mask again from its key and applies it to a gradient.
    Replay,
    /// Applies a mask with a bit for each channel to `[n, 64, 32, 32]`: runs of 1,024 elements.
    BroadcastChannelsFirst,
    /// Applies a mask with a bit for each channel to `[n, 32, 32, 64]`: the same 64 bits for 1,024
    /// rows.
    BroadcastChannelsLast,
    /// Applies a mask with a bit for each of 64 samples, as stochastic depth does.
    BroadcastSamples,
    /// [`Op::Replay`] of a shard: columns 2,048 to 4,095 of a tensor of 4,096 columns. Every tile
    /// is half the shard's, so twice as many bits are made as are applied.
    ReplayShard,
    /// Forward, and then a sum of the output: what streaming stores cost the next reader.
    ForwardSum,
    /// The same with ordinary stores, whatever the size.
    ForwardSumCached,
    /// A residual plus forward of the second input.
    DropoutAdd,
    /// The same with a bias on the second input, a row of 1,024 elements.
    BiasDropoutAdd,
    /// A residual plus the second input by a mask with a bit for each of 64 samples: stochastic depth.
    DropPathAdd,
    /// Forward of the rectifier of the input. Its backward is [`Op::Backward`].
    ReluDropout,
    /// The same with a bias, a row of 1,024 elements.
    BiasReluDropout,
    /// Forward of the GELU of the input, in the exact form.
    GeluDropout,
    /// Forward of SiLU of the input times the second input.
    SwigluDropout,
    /// The layer norm of a residual, f32 for 16 bits, plus forward, over rows of 768.
    DropoutAddNorm768,
    /// The same over rows of 4,096.
    DropoutAddNorm4096,
    /// Forward and then backward, by the kernels alone.
    ForwardBackward,
    /// Forward and backward of the `Dropout` module on a tensor, which also allocates and records:
    /// what that costs is the distance to [`Op::ForwardBackward`]. On the active backend, f32.
    TensorForwardBackward,
    /// e to the power of each element. This and the following know no mask.
    Exp,
    /// The hyperbolic tangent of each element.
    Tanh,
    /// The logistic function of each element.
    Sigmoid,
    /// The GELU of each element, in the exact form.
    Gelu,
    /// The GELU of each element, by tanh.
    GeluTanh,
}

/// What the time of a call is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Roof {
    /// A memory copy of the input.
    Copy,
    /// The same call at p = 0: what dropout is fused with, alone.
    WithoutDropout,
}

impl Roof {
    /// The name in tables and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::WithoutDropout => "p=0",
        }
    }
}

impl Op {
    /// Every kernel, in the order of the tables.
    pub const ALL: [Self; 26] = [
        Self::FillMask,
        Self::Forward,
        Self::Backward,
        Self::Replay,
        Self::BroadcastChannelsFirst,
        Self::BroadcastChannelsLast,
        Self::BroadcastSamples,
        Self::ReplayShard,
        Self::ForwardSum,
        Self::ForwardSumCached,
        Self::DropoutAdd,
        Self::BiasDropoutAdd,
        Self::DropPathAdd,
        Self::ReluDropout,
        Self::BiasReluDropout,
        Self::GeluDropout,
        Self::SwigluDropout,
        Self::DropoutAddNorm768,
        Self::DropoutAddNorm4096,
        Self::ForwardBackward,
        Self::TensorForwardBackward,
        Self::Exp,
        Self::Tanh,
        Self::Sigmoid,
        Self::Gelu,
        Self::GeluTanh,
    ];

    /// The name in ids, tables and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FillMask => "fill_mask",
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::Replay => "replay",
            Self::BroadcastChannelsFirst => "broadcast_channels_first",
            Self::BroadcastChannelsLast => "broadcast_channels_last",
            Self::BroadcastSamples => "broadcast_samples",
            Self::ReplayShard => "replay_shard",
            Self::ForwardSum => "forward_sum",
            Self::ForwardSumCached => "forward_sum_cached",
            Self::DropoutAdd => "dropout_add",
            Self::BiasDropoutAdd => "bias_dropout_add",
            Self::DropPathAdd => "drop_path_add",
            Self::ReluDropout => "relu_dropout",
            Self::BiasReluDropout => "bias_relu_dropout",
            Self::GeluDropout => "gelu_dropout",
            Self::SwigluDropout => "swiglu_dropout",
            Self::DropoutAddNorm768 => "dropout_add_norm_768",
            Self::DropoutAddNorm4096 => "dropout_add_norm_4096",
            Self::ForwardBackward => "forward_backward",
            Self::TensorForwardBackward => "tensor_forward_backward",
            Self::Exp => "exp",
            Self::Tanh => "tanh",
            Self::Sigmoid => "sigmoid",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_tanh",
        }
    }

    /// What it is compared with.
    #[must_use]
    pub fn roof(self) -> Roof {
        match self {
            Self::DropoutAdd
            | Self::BiasDropoutAdd
            | Self::GeluDropout
            | Self::SwigluDropout
            | Self::DropoutAddNorm768
            | Self::DropoutAddNorm4096 => Roof::WithoutDropout,
            _ => Roof::Copy,
        }
    }

    /// The drop probabilities worth a row. A general one needs four random bits per element, one
    /// half needs a single bit. Backward draws nothing, so one probability stands for all; for the
    /// pairs one is enough to compare them. A function drops nothing.
    #[must_use]
    pub fn rates(self) -> &'static [f64] {
        match self {
            Self::FillMask | Self::Forward | Self::Replay => &[0.1, 0.5],
            Self::Exp | Self::Tanh | Self::Sigmoid | Self::Gelu | Self::GeluTanh => &[0.0],
            _ => &[0.1],
        }
    }

    /// The shapes worth a row. How a mask covers a tensor, and how it is cut, shows in the caches.
    #[must_use]
    pub fn shapes(self) -> &'static [Shape] {
        match self {
            Self::BroadcastChannelsFirst
            | Self::BroadcastChannelsLast
            | Self::BroadcastSamples
            | Self::DropPathAdd
            | Self::ReplayShard => &[Shape::ALL[0], Shape::ALL[2]],
            Self::ForwardSum | Self::ForwardSumCached => &Shape::ALL[1..],
            _ => &Shape::ALL,
        }
    }

    /// Whether the kernel reads a mask that was there before.
    #[must_use]
    pub fn reads_mask(self) -> bool {
        match self {
            Self::Backward
            | Self::BroadcastChannelsFirst
            | Self::BroadcastChannelsLast
            | Self::BroadcastSamples
            | Self::DropPathAdd => true,
            Self::FillMask
            | Self::Forward
            | Self::Replay
            | Self::ReplayShard
            | Self::ForwardSum
            | Self::ForwardSumCached
            | Self::DropoutAdd
            | Self::BiasDropoutAdd
            | Self::ReluDropout
            | Self::BiasReluDropout
            | Self::GeluDropout
            | Self::SwigluDropout
            | Self::DropoutAddNorm768
            | Self::DropoutAddNorm4096
            | Self::ForwardBackward
            | Self::TensorForwardBackward
            | Self::Exp
            | Self::Tanh
            | Self::Sigmoid
            | Self::Gelu
            | Self::GeluTanh => false,
        }
    }

    /// The bytes one call must read or write: input, output and mask, as far as the kernel touches
    /// them.
    #[must_use]
    pub fn bytes(self, dtype: Dtype, elements: usize) -> u64 {
        let tensor = (elements * dtype.size()) as u64;
        let mask = (elements as u64).div_ceil(64) * 8;
        match self {
            Self::FillMask => mask,
            Self::Forward
            | Self::Backward
            | Self::ReluDropout
            | Self::BiasReluDropout
            | Self::GeluDropout => 2 * tensor + mask,
            Self::ForwardSum
            | Self::ForwardSumCached
            | Self::DropoutAdd
            | Self::BiasDropoutAdd
            | Self::SwigluDropout => 3 * tensor + mask,
            Self::DropPathAdd => 3 * tensor,
            Self::Replay
            | Self::BroadcastChannelsFirst
            | Self::BroadcastChannelsLast
            | Self::BroadcastSamples
            | Self::ReplayShard
            | Self::Exp
            | Self::Tanh
            | Self::Sigmoid
            | Self::Gelu
            | Self::GeluTanh => 2 * tensor,
            Self::DropoutAddNorm768 | Self::DropoutAddNorm4096 => {
                2 * tensor + 2 * (elements * dtype.size().max(4)) as u64 + mask
            }
            Self::ForwardBackward | Self::TensorForwardBackward => 4 * tensor + 2 * mask,
        }
    }
}

/// Calls `op` once; of the tensor's forward and backward, the kernels that it calls.
///
/// # Errors
///
/// Those of the kernel.
pub fn call<T: Value>(
    op: Op,
    engine: Engine<'_>,
    rate: DropRate,
    operands: &mut Operands<'_, T>,
) -> Result<(), Error> {
    operands.calls += 1;
    let key = MaskKey {
        seed: SEED,
        offset: operands.calls,
    };
    let Operands {
        input,
        second,
        output,
        rows,
        mask,
        ..
    } = operands;
    match op {
        Op::FillMask => engine.fill_mask(rate, key, mask),
        Op::Forward => engine.forward(rate, key, Buffers::new(input, output)?, mask),
        Op::Backward => engine.apply(rate, &**mask, Buffers::new(input, output)?),
        Op::Replay => engine.replay(rate, key, Buffers::new(input, output)?),
        Op::BroadcastChannelsFirst | Op::BroadcastChannelsLast | Op::BroadcastSamples => {
            let cover = cover(op, input.len())?;
            let bits = some_bits(mask, cover.mask_len(), operands.calls)?;
            engine.apply_broadcast(rate, bits, &cover, Buffers::new(input, output)?)
        }
        Op::ReplayShard => {
            let shard = key.shard(&[input.len() / 2048, 4096], 1, 2048..4096)?;
            engine.replay(rate, shard, Buffers::new(input, output)?)
        }
        Op::ForwardSum | Op::ForwardSumCached => {
            let engine = if op == Op::ForwardSumCached {
                engine.streaming_above(usize::MAX)
            } else {
                engine
            };
            engine.forward(rate, key, Buffers::new(input, output)?, mask)?;
            let words: &[u64] = bytemuck::cast_slice(output);
            black_box(
                words
                    .iter()
                    .fold(0, |sum: u64, word| sum.wrapping_add(*word)),
            );
            Ok(())
        }
        Op::DropoutAdd => {
            let buffers = Buffers::new(input, output)?.with_elements(second)?;
            engine.dropout_add(rate, key, buffers, Some(mask))
        }
        Op::BiasDropoutAdd => {
            let buffers = Buffers::new(input, output)?.with_elements(second)?;
            engine.dropout_add(rate, key, buffers.with_row(bias(input))?, Some(mask))
        }
        Op::DropPathAdd => {
            let cover = cover(op, input.len())?;
            let bits = some_bits(mask, cover.mask_len(), operands.calls)?;
            let buffers = Buffers::new(input, output)?.with_elements(second)?;
            engine.dropout_add_broadcast(rate, bits, &cover, buffers)
        }
        Op::ReluDropout | Op::BiasReluDropout => {
            let mut buffers = Buffers::new(input, output)?;
            if op == Op::BiasReluDropout {
                buffers = buffers.with_row(bias(second))?;
            }
            engine.act_dropout(Activation::Relu, rate, key, buffers, Some(mask))
        }
        // Without dropout it is the function, and draws nothing that would be dropped.
        Op::GeluDropout if rate.p() == 0.0 => map(engine, Function::Gelu, input, output),
        Op::GeluDropout => {
            let buffers = Buffers::new(input, output)?;
            engine.act_dropout(Activation::Gelu, rate, key, buffers, Some(mask))
        }
        Op::SwigluDropout if rate.p() == 0.0 => {
            let buffers = Buffers::new(input, output)?.with_elements(second)?;
            engine.map(Function::Silu, buffers);
            Ok(())
        }
        Op::SwigluDropout => {
            let buffers = Buffers::new(input, output)?.with_elements(second)?;
            engine.map_dropout(Function::Silu, rate, key, buffers, Some(mask))
        }
        Op::DropoutAddNorm768 => rows.dropout_add_norm(engine, rate, key, 768, input, output),
        Op::DropoutAddNorm4096 => rows.dropout_add_norm(engine, rate, key, 4096, input, output),
        Op::ForwardBackward | Op::TensorForwardBackward => {
            engine.forward(rate, key, Buffers::new(input, output)?, mask)?;
            engine.apply(rate, &**mask, Buffers::new(input, output)?)
        }
        Op::Exp => map(engine, Function::Exp, input, output),
        Op::Tanh => map(engine, Function::Tanh, input, output),
        Op::Sigmoid => map(engine, Function::Sigmoid, input, output),
        Op::Gelu => map(engine, Function::Gelu, input, output),
        Op::GeluTanh => map(engine, Function::GeluTanh, input, output),
    }
}

/// A bias of 1,024 elements, or of as many as there are.
fn bias<T>(elements: &[T]) -> &[T] {
    &elements[..elements.len().min(1024)]
}

/// `function` of every element.
fn map<T: Value>(
    engine: Engine<'_>,
    function: Function,
    input: &[T],
    output: &mut [T],
) -> Result<(), Error> {
    engine.map(function, Buffers::new(input, output)?);
    Ok(())
}

/// How the small mask of `op` covers a tensor of so many elements.
fn cover(op: Op, elements: usize) -> Result<Broadcast, Error> {
    let samples = elements / (64 * 1024);
    Ok(match op {
        Op::BroadcastChannelsFirst => Broadcast::new(&[samples, 64, 1024], &[samples, 64, 1]),
        Op::BroadcastChannelsLast => Broadcast::new(&[samples, 1024, 64], &[samples, 1, 64]),
        _ => Broadcast::new(&[64, elements / 64], &[64, 1]),
    }?)
}

/// `len` bits of `mask`, other ones for each call, so that no branch predictor learns them.
fn some_bits(mask: &BitMask, len: usize, call: u64) -> Result<BitSlice<'_>, Error> {
    let begin = call as usize * 131 % (mask.len() - len + 1);
    Ok(mask.slice(begin..begin + len)?)
}
