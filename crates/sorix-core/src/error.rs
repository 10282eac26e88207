//! [`Error`]: what can be wrong with an operation on tensors.

use crate::dtype::DType;

/// What an operation on tensors could not do, and why.
///
/// The message names the operation, what it expected and what came. An operation that returns an
/// error has changed nothing.
///
/// ```
/// use sorix_core::{Error, tensor};
/// let error = tensor([1.0, 2.0]).add(&tensor([1.0, 2.0, 3.0])).unwrap_err();
/// assert_eq!(error.to_string(), "add: shapes [2] and [3] do not broadcast");
/// ```
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two operands of different dtypes; sorix converts only when told to.
    #[error("{op}: operands must have one dtype, got {left} and {right}")]
    MixedDTypes {
        /// The operation.
        op: &'static str,
        /// Of the first operand.
        left: DType,
        /// Of the second operand.
        right: DType,
    },
    /// A tensor, or a Rust type, of the wrong dtype.
    #[error("{op}: expected dtype {expected}, got {got}")]
    DType {
        /// The operation.
        op: &'static str,
        /// The dtype it has to be.
        expected: DType,
        /// The dtype that came.
        got: DType,
    },
    /// Two shapes that NumPy's rules of broadcasting do not reconcile.
    #[error("{op}: shapes {left:?} and {right:?} do not broadcast")]
    Broadcast {
        /// The operation.
        op: &'static str,
        /// Of the first operand.
        left: Vec<usize>,
        /// Of the second operand.
        right: Vec<usize>,
    },
    /// Two operands of which one has no matrix or vector, or whose columns and rows do not fit.
    #[error("{op}: a matrix of shape {left:?} and one of shape {right:?} cannot be multiplied")]
    MatrixShapes {
        /// The operation.
        op: &'static str,
        /// Of the left operand.
        left: Vec<usize>,
        /// Of the right operand.
        right: Vec<usize>,
    },
    /// A tensor of the wrong shape.
    #[error("{op}: expected shape {expected:?}, got {got:?}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The shape it has to be.
        expected: Vec<usize>,
        /// The shape that came.
        got: Vec<usize>,
    },
    /// A number of elements that does not fill a shape.
    #[error("{op}: shape {shape:?} has {expected} elements, got {got}")]
    Length {
        /// The operation.
        op: &'static str,
        /// The shape to fill.
        shape: Vec<usize>,
        /// The number of elements of that shape.
        expected: usize,
        /// The number of elements that came.
        got: usize,
    },
    /// A number of bytes that does not fill a shape.
    #[error("{op}: shape {shape:?} has {expected} bytes, got {got}")]
    Bytes {
        /// The operation.
        op: &'static str,
        /// The shape to fill.
        shape: Vec<usize>,
        /// The number of bytes of that shape.
        expected: usize,
        /// The number of bytes that came.
        got: usize,
    },
    /// An axis that the tensor does not have.
    #[error("{op}: axis {axis} is out of range for shape {shape:?}")]
    Axis {
        /// The operation.
        op: &'static str,
        /// The axis; a negative one counts from the last.
        axis: isize,
        /// The shape of the tensor.
        shape: Vec<usize>,
    },
    /// Axes that repeat, or that are not all of them where all are needed.
    #[error("{op}: expected {expected} of shape {shape:?}, got {axes:?}")]
    Axes {
        /// The operation.
        op: &'static str,
        /// What the list has to be.
        expected: &'static str,
        /// The axes that came.
        axes: Vec<isize>,
        /// The shape of the tensor.
        shape: Vec<usize>,
    },
    /// Bounds in the wrong order, or not numbers.
    #[error("{op}: expected {expected}, got {low} and {high}")]
    Bounds {
        /// The operation.
        op: &'static str,
        /// What the bounds have to be.
        expected: &'static str,
        /// The lower bound that came.
        low: f64,
        /// The upper bound that came.
        high: f64,
    },
    /// A mean or a standard deviation that no normal distribution has.
    #[error(
        "{op}: expected a finite mean and a finite standard deviation >= 0, got {mean} and {std}"
    )]
    Moments {
        /// The operation.
        op: &'static str,
        /// The mean that came.
        mean: f64,
        /// The standard deviation that came.
        std: f64,
    },
    /// A range that does not lie within an axis, or that ends before it starts.
    #[error("{op}: {start}..{end} is not a range within axis {axis} of length {length}")]
    Range {
        /// The operation.
        op: &'static str,
        /// The axis, counted from the first.
        axis: usize,
        /// The first index of the range.
        start: usize,
        /// The index after its last.
        end: usize,
        /// The length of the axis.
        length: usize,
    },
    /// A distance of which no number leads from one number to another.
    #[error("{op}: steps of {step} do not lead from {start} to {end}")]
    Step {
        /// The operation.
        op: &'static str,
        /// The first number.
        start: f64,
        /// The number to stop before.
        end: f64,
        /// The distance.
        step: f64,
    },
    /// A step of 0 through the elements of an axis.
    #[error("{op}: expected a step of at least 1, got 0")]
    ZeroStep {
        /// The operation.
        op: &'static str,
    },
    /// An index that an axis does not have.
    #[error("{op}: index {index} is out of range for axis {axis} of length {length}")]
    Index {
        /// The operation.
        op: &'static str,
        /// The axis, counted from the first.
        axis: usize,
        /// The index.
        index: usize,
        /// The length of the axis.
        length: usize,
    },
    /// An empty list of tensors where at least one is needed.
    #[error("{op}: expected at least one tensor, got none")]
    NoTensors {
        /// The operation.
        op: &'static str,
    },
    /// A shape whose elements or bytes are too many to count in an `isize`.
    #[error("{op}: a tensor of shape {shape:?} and dtype {dtype} is too large to address")]
    TooLarge {
        /// The operation.
        op: &'static str,
        /// The shape.
        shape: Vec<usize>,
        /// The dtype.
        dtype: DType,
    },
    /// Memory that could not be had.
    #[error("{op}: cannot allocate {bytes} bytes")]
    Allocation {
        /// The operation.
        op: &'static str,
        /// The number of bytes asked for.
        bytes: usize,
    },
    /// A choice among no elements.
    #[error("{op}: nothing to choose from over axes {axes:?} of shape {shape:?}")]
    EmptyReduction {
        /// The operation.
        op: &'static str,
        /// The shape of the tensor.
        shape: Vec<usize>,
        /// The axes, counted from the first.
        axes: Vec<usize>,
    },
    /// A tensor that has not exactly one element.
    #[error("{op}: expected a tensor of one element, got shape {shape:?}")]
    NotOneElement {
        /// The operation.
        op: &'static str,
        /// The shape of the tensor.
        shape: Vec<usize>,
    },
    /// `backward` on a tensor that no leaf requiring a gradient leads to.
    #[error("backward: the tensor does not require a gradient")]
    NoGradient,
    /// `backward` through a part of the graph that an earlier `backward` freed.
    #[error(
        "backward: the graph at {function} was freed by an earlier backward; \
         use backward_retain_graph for that one to go through it again"
    )]
    GraphFreed {
        /// The function whose saved state is gone.
        function: &'static str,
    },
    /// A [`Function`](crate::autograd::Function) that returned the wrong number of gradients.
    #[error("{function}: expected a gradient slot for each of {expected} inputs, got {got}")]
    GradientCount {
        /// The function.
        function: &'static str,
        /// The number of inputs it was recorded with.
        expected: usize,
        /// The number of gradients it returned.
        got: usize,
    },
    /// A tensor that was saved for `backward` and has been written since.
    #[error(
        "{function}: a tensor it saved for backward was written since \
         (at version {saved} then, {current} now)"
    )]
    SavedTensorWritten {
        /// The function that saved it.
        function: &'static str,
        /// The count of writes when it was saved.
        saved: u64,
        /// The count of writes now.
        current: u64,
    },
    /// A [checkpoint](crate::autograd::checkpoint) that, computed again in backward, took another
    /// number of mask keys than the first time.
    #[error(
        "checkpoint: took {expected} mask keys in forward and {got} when computed again in backward; \
         was a module switched between train and eval?"
    )]
    RecomputedKeys {
        /// The number of keys of the first run.
        expected: usize,
        /// The number of keys of the second run.
        got: usize,
    },
    /// A [checkpoint](crate::autograd::checkpoint) whose closure failed when it was called again in
    /// backward.
    #[error("checkpoint, computed again in backward: {reason}")]
    Recomputation {
        /// The message of the closure's error.
        reason: String,
    },
    /// A write in place that autograd would not see.
    #[error("{op}: with a tensor that requires a gradient it can be used only within no_grad")]
    WriteNeedsNoGrad {
        /// The operation.
        op: &'static str,
    },
    /// A write in place to a view whose elements share memory.
    #[error("{op}: elements of an expanded tensor (strides {strides:?}) share memory")]
    WriteToExpanded {
        /// The operation.
        op: &'static str,
        /// The strides of the tensor.
        strides: Vec<usize>,
    },
    /// A shape of a mask that does not cover the tensor.
    #[error("{op}: {error}")]
    MaskShape {
        /// The operation.
        op: &'static str,
        /// Which shapes, and what was expected.
        error: sorix_kernels::BroadcastError,
    },
    /// A dropout kernel refused.
    #[error(transparent)]
    Kernel(#[from] sorix_kernels::Error),
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = core::result::Result<T, E>;
