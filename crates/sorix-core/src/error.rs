//! [`Error`]: what can be wrong with an operation on tensors.
//!
//! An operand is its shape and dtype here; what takes them from a tensor is in [`tensor`](crate::tensor).

use core::fmt;

use crate::dtype::DType;

/// What an operation on tensors could not do, and why.
///
/// The message names the operation, the dtype and shape of each tensor it was given, what it
/// expected and what it got. An operation that makes a tensor names the shape and dtype asked for. An
/// operation that returns an error has changed nothing.
///
/// ```
/// use sorix_core::{ErrorKind, tensor};
/// let error = tensor([1.0, 2.0]).add(&tensor([1.0, 2.0, 3.0])).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "add(float64[2], float64[3]): shapes [2] and [3] do not broadcast"
/// );
/// assert_eq!((error.op(), error.operands()[1].shape()), ("add", &[3][..]));
/// assert!(matches!(error.kind(), ErrorKind::Broadcast { .. }));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    op: &'static str,
    operands: Box<[TensorSpec]>,
    kind: ErrorKind,
}

impl Error {
    /// The operation; in backward, the name of its [`Function`](crate::autograd::Function).
    #[must_use]
    pub fn op(&self) -> &'static str {
        self.op
    }

    /// The shape and dtype of each tensor that the operation was given, or of the tensor that it was to
    /// make.
    #[must_use]
    pub fn operands(&self) -> &[TensorSpec] {
        &self.operands
    }

    /// What was wrong.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// As many operands as are shown.
        const SHOWN: usize = 4;

        f.write_str(self.op)?;
        for (k, operand) in self.operands.iter().take(SHOWN).enumerate() {
            write!(f, "{}{operand}", if k == 0 { "(" } else { ", " })?;
        }
        match self.operands.len() {
            0 => {}
            1..=SHOWN => f.write_str(")")?,
            count => write!(f, " and {} more)", count - SHOWN)?,
        }
        write!(f, ": {}", self.kind)
    }
}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        self.kind.source()
    }
}

/// The dtype and shape of a tensor.
///
/// ```
/// use sorix_core::{DType, Tensor, TensorSpec};
/// let spec = TensorSpec::of(&Tensor::zeros([2, 3], DType::F16)?);
/// assert_eq!(spec.to_string(), "float16[2, 3]");
/// # Ok::<(), sorix_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorSpec {
    dtype: DType,
    shape: Box<[usize]>,
}

impl TensorSpec {
    pub(crate) fn new(shape: &[usize], dtype: DType) -> Self {
        Self {
            dtype,
            shape: shape.into(),
        }
    }

    /// The dtype.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The length of each axis.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype.name(), self.shape)
    }
}

/// What was wrong with an operation; an [`Error`] says with which.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Two operands of different dtypes; sorix converts only when told to.
    #[error("operands must have one dtype")]
    MixedDTypes,
    /// A tensor, or a Rust type, of the wrong dtype.
    #[error("expected dtype {expected}, got {got}")]
    DType {
        /// The dtype it has to be.
        expected: DType,
        /// The dtype that came.
        got: DType,
    },
    /// Two shapes that do not broadcast by NumPy's rules.
    #[error("shapes {left:?} and {right:?} do not broadcast")]
    Broadcast {
        /// The first shape.
        left: Vec<usize>,
        /// The second shape.
        right: Vec<usize>,
    },
    /// An operand that is neither a matrix nor a vector, or columns and rows that do not match.
    #[error(
        "expected matrices or vectors, the left one with as many columns as the right one has rows"
    )]
    MatrixShapes,
    /// A tensor of the wrong shape.
    #[error("expected shape {expected:?}, got {got:?}")]
    Shape {
        /// The shape it has to be.
        expected: Vec<usize>,
        /// The shape that came.
        got: Vec<usize>,
    },
    /// A number of elements that does not fill a shape.
    #[error("shape {shape:?} has {expected} elements, got {got}")]
    Length {
        /// The shape to fill.
        shape: Vec<usize>,
        /// The number of elements of that shape.
        expected: usize,
        /// The number of elements that came.
        got: usize,
    },
    /// Lengths of axes, one of which may be left open as -1, that no shape of so many elements has.
    #[error("expected lengths of {numel} elements, at most one of them -1, got {lengths:?}")]
    Lengths {
        /// The number of elements.
        numel: usize,
        /// The lengths that came.
        lengths: Vec<isize>,
    },
    /// A number of bytes that does not fill a shape.
    #[error("shape {shape:?} has {expected} bytes, got {got}")]
    Bytes {
        /// The shape to fill.
        shape: Vec<usize>,
        /// The number of bytes of that shape.
        expected: usize,
        /// The number of bytes that came.
        got: usize,
    },
    /// An axis that the tensor does not have.
    #[error("axis {axis} is out of range")]
    Axis {
        /// The axis; a negative one counts from the last.
        axis: isize,
    },
    /// A list of axes with repetitions, or that lacks one although all are needed.
    #[error("expected {expected}, got {axes:?}")]
    Axes {
        /// What the list has to be.
        expected: &'static str,
        /// The axes that came.
        axes: Vec<isize>,
    },
    /// Bounds in the wrong order, or not numbers, or too far apart.
    #[error("expected {expected}, got {low:?} and {high:?}")]
    Bounds {
        /// What the bounds have to be.
        expected: &'static str,
        /// The lower bound that came.
        low: f64,
        /// The upper bound that came.
        high: f64,
    },
    /// A mean or a standard deviation that no normal distribution has.
    #[error(
        "expected a finite mean and a finite standard deviation >= 0, got {mean:?} and {std:?}"
    )]
    Moments {
        /// The mean that came.
        mean: f64,
        /// The standard deviation that came.
        std: f64,
    },
    /// A number that is to keep a divisor from 0 and cannot.
    #[error("expected a finite epsilon of at least 0, got {epsilon:?}")]
    Epsilon {
        /// The number that came.
        epsilon: f64,
    },
    /// A range that does not lie within an axis, or that ends before it starts.
    #[error("{start}..{end} is not a range within axis {axis} of length {length}")]
    Range {
        /// The axis, counted from the first.
        axis: usize,
        /// The first index of the range.
        start: usize,
        /// One more than its last index.
        end: usize,
        /// The length of the axis.
        length: usize,
    },
    /// A step that never reaches `end` from `start`.
    #[error("steps of {step:?} do not lead from {start:?} to {end:?} (dtype {dtype})")]
    Step {
        /// The first number.
        start: f64,
        /// The number to stop before.
        end: f64,
        /// The step.
        step: f64,
        /// The dtype asked for.
        dtype: DType,
    },
    /// A step of 0 through the elements of an axis.
    #[error("expected a step of at least 1, got 0")]
    ZeroStep,
    /// An index that an axis does not have.
    #[error("index {index} is out of range for axis {axis} of length {length}")]
    Index {
        /// The axis, counted from the first.
        axis: usize,
        /// The index.
        index: usize,
        /// The length of the axis.
        length: usize,
    },
    /// A number that is no index, or that the dtype may have rounded.
    #[error("expected whole numbers in 0..={limit}, got {got} at position {position}")]
    NotAnIndex {
        /// Where it is, in row-major order.
        position: usize,
        /// The largest that the dtype has without a gap below it.
        limit: u64,
        /// The number that came.
        got: String,
    },
    /// An empty list of tensors.
    #[error("expected at least one tensor, got none")]
    NoTensors,
    /// A shape whose elements or bytes are too many to count in an `isize`.
    #[error("a tensor of shape {shape:?} and dtype {dtype} is too large to address")]
    TooLarge {
        /// The shape.
        shape: Vec<usize>,
        /// The dtype.
        dtype: DType,
    },
    /// An allocation that failed.
    #[error("cannot allocate {bytes} bytes")]
    Allocation {
        /// The number of bytes asked for.
        bytes: usize,
    },
    /// The largest or smallest of no elements.
    #[error("no elements to choose from over axes {axes:?}")]
    EmptyReduction {
        /// The axes, counted from the first.
        axes: Vec<usize>,
    },
    /// A tensor of more or fewer than one element.
    #[error("expected a tensor of one element")]
    NotOneElement,
    /// `backward` on a tensor that was not computed from a leaf that requires a gradient.
    #[error("the tensor does not require a gradient")]
    NoGradient,
    /// `backward` through a part of the graph that an earlier `backward` freed.
    #[error(
        "the graph at {function} was freed by an earlier backward; \
         to go through it twice, use backward_retain_graph the first time"
    )]
    GraphFreed {
        /// The function whose saved state is gone.
        function: &'static str,
    },
    /// A [`Function`](crate::autograd::Function) that returned the wrong number of gradients.
    #[error("expected a gradient slot for each of {expected} inputs, got {got}")]
    GradientCount {
        /// The number of inputs it was recorded with.
        expected: usize,
        /// The number of gradients it returned.
        got: usize,
    },
    /// Another number of gradients than of outputs for [`grad_with`](crate::autograd::grad_with).
    #[error("expected a gradient for each of {expected} outputs, got {got}")]
    OutputCount {
        /// The number of outputs.
        expected: usize,
        /// The number of gradients that came.
        got: usize,
    },
    /// A tensor that is no leaf, of which something was asked that leaves alone have.
    #[error("the tensor is not a leaf that requires a gradient")]
    NotALeaf,
    /// A tensor that was saved for `backward` and has been written since.
    #[error(
        "a tensor it saved for backward was written since \
         (at version {saved} then, {current} now), as by an optimiser's step after forward"
    )]
    SavedTensorWritten {
        /// The count of writes when it was saved.
        saved: u64,
        /// The count of writes now.
        current: u64,
    },
    /// A [checkpoint](crate::autograd::checkpoint) whose output depends on an operation that another
    /// thread recorded for it.
    #[error(
        "{function} was recorded on another thread while the closure ran; \
         the closure must compute everything on the calling thread"
    )]
    RecordedElsewhere {
        /// The function that computed it.
        function: &'static str,
    },
    /// A [checkpoint](crate::autograd::checkpoint) that, computed again in backward, took another key,
    /// mode or mask than the first time.
    #[error(
        "draw {number} was {expected} in forward and {got} when computed again in backward; \
         was a module switched between train and eval, or its p changed?"
    )]
    RecomputedDraw {
        /// The draw, counted from 0.
        number: usize,
        /// What the first run took.
        expected: String,
        /// What the second run took.
        got: String,
    },
    /// A [checkpoint](crate::autograd::checkpoint) whose closure failed when it was called again in
    /// backward.
    #[error("computed again in backward: {reason}")]
    Recomputation {
        /// The message of the closure's error.
        reason: String,
    },
    /// A write in place that is not recorded, though operations are, with a tensor that requires a
    /// gradient.
    #[error("with a tensor that requires a gradient it can be used only within no_grad")]
    WriteNeedsNoGrad,
    /// A write in place to an expanded view, whose elements share memory.
    #[error(
        "an expanded tensor (strides {strides:?}) cannot be written: its elements share memory"
    )]
    WriteToExpanded {
        /// The strides of the tensor.
        strides: Vec<usize>,
    },
    /// A dropout kernel refused.
    #[error(transparent)]
    Kernel(#[from] sorix_kernels::Error),
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// An operation at work: what its errors begin with. It is handed down to whatever may fail.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    op: &'static str,
    operands: Operands<'a>,
}

/// The shape and dtype of a tensor.
pub(crate) type Operand<'a> = (&'a [usize], DType);

#[derive(Clone, Copy)]
pub(crate) enum Operands<'a> {
    One(Operand<'a>),
    Two(Operand<'a>, Operand<'a>),
    Several(&'a [Operand<'a>]),
}

impl<'a> Call<'a> {
    pub(crate) fn new(op: &'static str, operands: Operands<'a>) -> Self {
        Self { op, operands }
    }

    /// Of an operation that makes a tensor of this shape and dtype.
    pub(crate) fn making(op: &'static str, shape: &'a [usize], dtype: DType) -> Self {
        Self::new(op, Operands::One((shape, dtype)))
    }

    /// The error of this call.
    pub(crate) fn error(self, kind: ErrorKind) -> Error {
        let operands = match &self.operands {
            Operands::One(operand) => core::slice::from_ref(operand),
            Operands::Two(left, right) => &[*left, *right],
            Operands::Several(operands) => operands,
        };
        let specs = operands
            .iter()
            .map(|&(shape, dtype)| TensorSpec::new(shape, dtype));
        Error {
            op: self.op,
            operands: specs.collect(),
            kind,
        }
    }

    /// An error unless an operand has this shape and dtype.
    pub(crate) fn expect_operand(
        self,
        (shape, dtype): Operand<'_>,
        expected_shape: &[usize],
        expected_dtype: DType,
    ) -> Result<()> {
        if shape != expected_shape {
            let (expected, got) = (expected_shape.to_vec(), shape.to_vec());
            return Err(self.error(ErrorKind::Shape { expected, got }));
        }
        if dtype != expected_dtype {
            let (expected, got) = (expected_dtype, dtype);
            return Err(self.error(ErrorKind::DType { expected, got }));
        }
        Ok(())
    }

    /// The error of this call by what a kernel says.
    pub(crate) fn kernel_error(self, error: impl Into<sorix_kernels::Error>) -> Error {
        self.error(ErrorKind::Kernel(error.into()))
    }
}
