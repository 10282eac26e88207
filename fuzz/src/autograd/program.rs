//! What a program of tensor operations can be.

use arbitrary::{Arbitrary, Result, Unstructured};
use sorix::SaveMask;

use crate::inputs::{Rarely, Rate, bounded};

/// Leaves, and operations on them and on each other's results.
#[derive(Arbitrary, Debug)]
pub(super) struct Program {
    pub(super) leaves: [Leaf; 3],
    #[arbitrary(with = |u: &mut Unstructured<'_>| bounded(u, 24, Step::arbitrary))]
    pub(super) steps: Vec<Step>,
    /// Steps that are run once more, as a checkpoint.
    pub(super) segment: Option<Segment>,
    /// Of the masks.
    pub(super) seed: u8,
    /// The gradient that backward begins with.
    pub(super) weights: u8,
    pub(super) then: Then,
}

#[derive(Arbitrary, Debug)]
pub(super) struct Leaf {
    pub(super) shape: Shape,
    pub(super) elements: u8,
    pub(super) requires_grad: bool,
}

/// An operation, and the values it is applied to, by number, counted around. Most take one.
#[derive(Arbitrary, Clone, Debug)]
pub(super) struct Step {
    pub(super) op: Op,
    pub(super) operands: [u8; 2],
}

impl Step {
    /// The places of the operands among so many values.
    pub(super) fn places(&self, values: usize) -> [usize; 2] {
        self.operands.map(|i| usize::from(i) % values)
    }
}

#[derive(Arbitrary, Clone, Debug)]
pub(super) enum Op {
    Binary(Binary),
    /// With a number, in eighths.
    Scalar(Binary, i8),
    Unary(Unary),
    /// Bounds, in eighths.
    Clamp(i8, i8),
    /// An exponent, in halves.
    Powf(i8),
    Reduce(Reduction, Over),
    Softmax(Axis),
    LogSoftmax(Axis),
    Argmax(Axis),
    Standardize(Axes),
    Reshape(Shape),
    Permute(Axes),
    Transpose(Axis, Axis),
    Expand(Shape),
    /// Begin, end and step.
    Slice(Axis, [u8; 3]),
    /// Indices, and how many of them.
    IndexSelect(Axis, [u8; 3], u8),
    /// Indices, over and over, and whether there is one too many.
    GatherLast([u8; 4], Rarely),
    Concat(Axis),
    Stack(Axis),
    Squeeze(Axis),
    SqueezeAll,
    Unsqueeze(Axis),
    Flatten(Axis, Axis),
    Matmul,
    Dropout(Rate, Save),
    DropoutBroadcast(Rate, Save, Cover),
    /// Scale, shift and what is dropped, in eighths.
    DropoutAffine(Rate, Save, Cover, [i8; 3]),
    /// The bits, over and over, whether there is one too many, and the scale, in eighths.
    ApplyMask(Cover, u64, Rarely, i8),
    /// Added to the other operand.
    DropoutAdd(Rate, Save),
    /// Added to the other operand.
    DropoutAddBroadcast(Rate, Save, Cover),
    /// With the other operand as the bias, added to itself.
    BiasDropoutAdd(Rate, Save),
    /// With the other operand as the bias, or without.
    ReluDropout(Rate, Save, bool),
    /// With the other operand as the bias, or without.
    ActDropout(Rate, Save, Smooth, bool),
    /// Gated by this, times the other operand.
    SwigluDropout(Rate, Save),
    DropoutAddNorm(Rate, Save, AddNorm),
}

/// How a residual plus dropout is normalised.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) struct AddNorm {
    pub(super) rms: bool,
    pub(super) other: Other,
    /// The result is the normalised sum plus the sum, as if both went on.
    pub(super) prenorm: bool,
}

/// What the other operand is. Without a residual it is the operand itself.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Other {
    Residual,
    Weight,
    Shift,
    Bias,
}

/// An activation that has a derivative everywhere.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Smooth {
    Gelu,
    GeluTanh,
    Silu,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Unary {
    Neg,
    Abs,
    Exp,
    Gelu,
    GeluTanh,
    Log,
    Relu,
    Sigmoid,
    Sqrt,
    Tanh,
    Contiguous,
    Detach,
    ToDType,
}

/// With its correction, for those that have one.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Reduction {
    Sum,
    Mean,
    Max,
    Min,
    LogSumExp,
    Var(Correction),
    Std(Correction),
}

/// None, or one for an unbiased variance. With more, rounding decides between NaN and infinity.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) struct Correction(bool);

impl From<Correction> for usize {
    fn from(Correction(one): Correction) -> Self {
        one.into()
    }
}

/// What a reduction takes together.
#[derive(Arbitrary, Clone, Debug)]
pub(super) enum Over {
    All,
    Axes(Axes),
    Keepdim(Axes),
}

/// Up to three axes of up to four elements.
#[derive(Clone, Debug)]
pub(super) struct Shape(pub(super) Vec<usize>);

impl<'a> Arbitrary<'a> for Shape {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        bounded(u, 3, |u| u.int_in_range(0..=4)).map(Self)
    }
}

/// An axis, most often in range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis(pub(super) isize);

impl<'a> Arbitrary<'a> for Axis {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        u.int_in_range(-3..=3).map(Self)
    }
}

/// Up to three axes.
#[derive(Clone, Debug)]
pub(super) struct Axes(pub(super) Vec<isize>);

impl<'a> Arbitrary<'a> for Axes {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        bounded(u, 3, |u| u.int_in_range(-3..=3)).map(Self)
    }
}

/// Along which axes elements share a bit of a mask; and whether the mask's shape has an axis too
/// many.
#[derive(Arbitrary, Clone, Debug)]
pub(super) struct Cover {
    shared: [bool; 4],
    wrong: Rarely,
}

impl Cover {
    pub(super) fn mask_shape(&self, shape: &[usize]) -> Vec<usize> {
        let axes = shape.iter().zip(self.shared.iter().cycle());
        axes.map(|(&length, &shared)| if shared { 1 } else { length })
            .chain(self.wrong.0.then_some(1))
            .collect()
    }
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Save {
    Bits,
    Replay,
}

impl From<Save> for SaveMask {
    fn from(save: Save) -> Self {
        match save {
            Save::Bits => Self::Bits,
            Save::Replay => Self::Replay,
        }
    }
}

/// Which steps, and how they get the leaves.
#[derive(Arbitrary, Debug)]
pub(super) struct Segment {
    pub(super) begin: u8,
    pub(super) steps: u8,
    /// The closure holds the leaves, rather than being given them.
    pub(super) holds_leaves: bool,
    /// A checkpoint within a checkpoint.
    pub(super) nested: bool,
}

/// What comes after backward.
#[derive(Arbitrary, Debug)]
pub(super) enum Then {
    Nothing,
    /// Backward, again.
    Again,
    /// A value is written, and then backward again.
    Write(u8, Write),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Write {
    Assign,
    Update,
}
