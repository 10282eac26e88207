//! What is measured: which kernel, on which activation tensor, by which backend.

use std::fmt;

use sorix_kernels::backend::Backend;
use sorix_kernels::dispatch;

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
    /// Forward and then backward, by the kernels alone.
    ForwardBackward,
    /// Forward and backward of the `Dropout` module on a tensor, which also allocates and records:
    /// what that costs is the distance to [`Op::ForwardBackward`]. On the active backend, f32.
    TensorForwardBackward,
}

impl Op {
    /// Every kernel, in the order of the tables.
    pub const ALL: [Self; 10] = [
        Self::FillMask,
        Self::Forward,
        Self::Backward,
        Self::Replay,
        Self::BroadcastChannelsFirst,
        Self::BroadcastChannelsLast,
        Self::BroadcastSamples,
        Self::ReplayShard,
        Self::ForwardBackward,
        Self::TensorForwardBackward,
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
            Self::ForwardBackward => "forward_backward",
            Self::TensorForwardBackward => "tensor_forward_backward",
        }
    }

    /// The drop probabilities worth a row. A general one needs ten random bits per element, one
    /// half needs a single bit. Backward draws nothing, so one probability stands for all; for the
    /// pairs one is enough to compare them.
    #[must_use]
    pub fn rates(self) -> &'static [f64] {
        match self {
            Self::FillMask | Self::Forward | Self::Replay => &[0.1, 0.5],
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
            | Self::ReplayShard => &[Shape::ALL[0], Shape::ALL[2]],
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
            | Self::BroadcastSamples => true,
            Self::FillMask
            | Self::Forward
            | Self::Replay
            | Self::ReplayShard
            | Self::ForwardBackward
            | Self::TensorForwardBackward => false,
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
            Self::Forward | Self::Backward => 2 * tensor + mask,
            Self::Replay
            | Self::BroadcastChannelsFirst
            | Self::BroadcastChannelsLast
            | Self::BroadcastSamples
            | Self::ReplayShard => 2 * tensor,
            Self::ForwardBackward | Self::TensorForwardBackward => 4 * tensor + 2 * mask,
        }
    }
}

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// bfloat16.
    Bf16,
    /// IEEE 754 half precision.
    F16,
}

impl Dtype {
    /// Every type, in the order of the tables.
    pub const ALL: [Self; 4] = [Self::F32, Self::F64, Self::Bf16, Self::F16];

    /// The name in ids, tables and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// The size of an element in bytes.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

/// The shape of an activation tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape(pub &'static [usize]);

impl Shape {
    /// The shapes measured, smallest first: from one that the second-level cache holds in every
    /// dtype to one that no last-level cache holds.
    pub const ALL: [Self; 5] = [
        Self(&[64, 1024]),
        Self(&[8, 128, 768]),
        Self(&[4, 256, 1024]),
        Self(&[32, 512, 1024]),
        Self(&[64, 1024, 1024]),
    ];

    /// The number of elements.
    #[must_use]
    pub fn elements(self) -> usize {
        self.0.iter().product()
    }

    /// The number of elements as ids and tables write it: `64Ki`, `1Mi`.
    #[must_use]
    pub fn size(self) -> String {
        size_label(self.elements())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (axis, extent) in self.0.iter().enumerate() {
            let separator = if axis == 0 { "" } else { "x" };
            write!(f, "{separator}{extent}")?;
        }
        Ok(())
    }
}

/// Writes a number of elements in binary units where it is a whole number of them.
///
/// ```
/// assert_eq!(sorix_benches::case::size_label(786_432), "768Ki");
/// assert_eq!(sorix_benches::case::size_label(1 << 20), "1Mi");
/// assert_eq!(sorix_benches::case::size_label(1000), "1000");
/// ```
#[must_use]
pub fn size_label(elements: usize) -> String {
    const KI: usize = 1 << 10;
    const MI: usize = 1 << 20;
    match elements {
        n if n >= MI && n.is_multiple_of(MI) => format!("{}Mi", n / MI),
        n if n >= KI && n.is_multiple_of(KI) => format!("{}Ki", n / KI),
        n => n.to_string(),
    }
}

/// The id of a row: `op/dtype/backend/size`.
///
/// ```
/// use sorix_benches::case::{Dtype, Op, Shape, id};
///
/// assert_eq!(id(Op::Forward, Dtype::F32, "avx2", Shape(&[64, 1024])), "forward/f32/avx2/64Ki");
/// ```
#[must_use]
pub fn id(op: Op, dtype: Dtype, backend: &str, shape: Shape) -> String {
    format!("{}/{}/{backend}/{}", op.name(), dtype.name(), shape.size())
}

/// Whether `filter` selects a row: it is part of the row's id, with the size written either as a
/// number of elements or as a shape. No filter selects everything.
///
/// ```
/// use sorix_benches::case::{Dtype, Op, Shape, selected};
///
/// let row = |filter| selected(Some(filter), Op::Forward, Dtype::F32, "avx2", Shape(&[8, 128, 768]));
/// assert!(row("forward/f32"));
/// assert!(row("avx2/768Ki"));
/// assert!(row("8x128x768"));
/// assert!(!row("backward"));
/// ```
#[must_use]
pub fn selected(filter: Option<&str>, op: Op, dtype: Dtype, backend: &str, shape: Shape) -> bool {
    filter.is_none_or(|filter| {
        let id = id(op, dtype, backend, shape);
        let by_shape = format!("{}/{}/{backend}/{shape}", op.name(), dtype.name());
        id.contains(filter) || by_shape.contains(filter)
    })
}

/// One row to measure: a kernel of sorix on one tensor.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The kernel.
    pub op: Op,
    /// The type of the tensor's elements.
    pub dtype: Dtype,
    /// The tensor's shape.
    pub shape: Shape,
    /// The backend that runs the kernel.
    pub backend: &'static dyn Backend,
    /// The number of threads.
    pub threads: usize,
    /// The drop probability.
    pub p: f64,
}

impl Case {
    /// The row's id, see [`id`].
    #[must_use]
    pub fn id(&self) -> String {
        id(self.op, self.dtype, self.backend.name(), self.shape)
    }

    /// Whether there is a row for this kernel, dtype and shape on this backend.
    fn exists(op: Op, dtype: Dtype, shape: Shape, backend: &dyn Backend) -> bool {
        let active = || dispatch::active().is_ok_and(|active| active.name() == backend.name());
        let dtype = match op {
            Op::TensorForwardBackward => dtype == Dtype::F32 && active(),
            Op::BroadcastChannelsFirst
            | Op::BroadcastChannelsLast
            | Op::BroadcastSamples
            | Op::ReplayShard => dtype == Dtype::F32,
            _ => true,
        };
        dtype && op.shapes().contains(&shape)
    }

    /// Every combination of the given backends and thread counts with all kernels, dtypes, shapes
    /// and probabilities that the filter selects, ordered so that neighbours share their tensors.
    #[must_use]
    pub fn all(
        backends: &[&'static dyn Backend],
        threads: &[usize],
        filter: Option<&str>,
    ) -> Vec<Self> {
        let mut cases = Vec::new();
        for dtype in Dtype::ALL {
            for shape in Shape::ALL {
                for &backend in backends {
                    for op in Op::ALL {
                        if !Self::exists(op, dtype, shape, backend)
                            || !selected(filter, op, dtype, backend.name(), shape)
                        {
                            continue;
                        }
                        for &p in op.rates() {
                            for &threads in threads {
                                cases.push(Self {
                                    op,
                                    dtype,
                                    shape,
                                    backend,
                                    threads,
                                    p,
                                });
                            }
                        }
                    }
                }
            }
        }
        cases
    }
}
