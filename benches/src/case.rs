//! What is measured: which [kernel](Op), on which activation tensor, by which backend.

use std::fmt;

use sorix_kernels::backend::Backend;
use sorix_kernels::dispatch;

use crate::op::Op;

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
    pub const ALL: [Self; 6] = [
        Self(&[64, 1024]),
        Self(&[8, 128, 768]),
        Self(&[4, 256, 1024]),
        Self(&[16, 256, 1024]),
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
/// use sorix_benches::case::{Dtype, Shape, id};
/// use sorix_benches::op::Op;
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
/// use sorix_benches::case::{Dtype, Shape, selected};
/// use sorix_benches::op::Op;
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
            | Op::DropPathAdd
            | Op::ReplayShard
            | Op::ForwardSum
            | Op::ForwardSumCached => dtype == Dtype::F32,
            Op::DropoutAddNorm768 | Op::DropoutAddNorm4096 => {
                matches!(dtype, Dtype::F32 | Dtype::Bf16)
            }
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
