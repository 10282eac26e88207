//! What can be wrong with a call, one type per cause.
//!
//! Every message names what was expected and what came. A call that returns an error has written
//! nothing.

use core::fmt;
use core::ops::Range;

/// A drop probability outside [0, 1], or NaN.
#[derive(Clone, Copy, Debug)]
pub struct InvalidRate {
    /// The value that was given.
    pub p: f64,
}

/// Equal when the same value was rejected; NaN equals NaN here, so that tests can compare.
impl PartialEq for InvalidRate {
    fn eq(&self, other: &Self) -> bool {
        self.p.to_bits() == other.p.to_bits()
    }
}

impl fmt::Display for InvalidRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "drop probability must be a number in [0, 1], got p = {}",
            self.p
        )
    }
}

impl core::error::Error for InvalidRate {}

/// Two lengths that have to agree and do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LengthError {
    /// The argument whose length is wrong.
    pub what: &'static str,
    /// The length it should have, in the unit that `what` names (elements unless it says bytes or
    /// words).
    pub expected: usize,
    /// The length it has.
    pub got: usize,
}

impl LengthError {
    pub(crate) fn check(
        what: &'static str,
        expected: usize,
        got: usize,
    ) -> Result<(), LengthError> {
        if expected == got {
            Ok(())
        } else {
            Err(LengthError {
                what,
                expected,
                got,
            })
        }
    }
}

impl fmt::Display for LengthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "length of {}: expected {}, got {}",
            self.what, self.expected, self.got
        )
    }
}

impl core::error::Error for LengthError {}

/// A backend that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendError {
    /// sorix has no backend of this name.
    Unknown {
        /// The name asked for.
        name: String,
        /// The names this machine can run, best first.
        available: Vec<&'static str>,
    },
    /// sorix has it, but this CPU or this build does not.
    Unsupported {
        /// The name asked for.
        name: String,
        /// The names this machine can run, best first.
        available: Vec<&'static str>,
    },
    /// An environment variable names a backend that cannot be used.
    Environment {
        /// The variable.
        variable: &'static str,
        /// What is wrong with the name.
        error: Box<BackendError>,
    },
    /// An environment variable that says how to run has a value that means nothing.
    Variable {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// The default backend was already chosen, by an earlier call or by its first use.
    AlreadyChosen {
        /// The name of the one in use.
        chosen: String,
    },
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name, available } => {
                write!(
                    f,
                    "unknown backend {name:?}; this machine has: {}",
                    available.join(", ")
                )
            }
            Self::Unsupported { name, available } => write!(
                f,
                "backend {name:?} is not supported by this CPU; this machine has: {}",
                available.join(", ")
            ),
            Self::Variable {
                variable,
                value,
                expected,
            } => {
                write!(
                    f,
                    "environment variable {variable}: expected {expected}, got {value:?}"
                )
            }
            Self::Environment { variable, error } => {
                write!(f, "environment variable {variable}: {error}")
            }
            Self::AlreadyChosen { chosen } => {
                write!(f, "the default backend is already chosen: {chosen:?}")
            }
        }
    }
}

impl core::error::Error for BackendError {}

/// Bits given as a mask that are not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MaskError {
    /// The words or bytes are too many or too few for the number of elements.
    Length(LengthError),
    /// A bit beyond the last element is set.
    SurplusBits {
        /// The number of elements of the mask.
        len: usize,
        /// The index of the lowest bit that is set and should not be.
        bit: usize,
    },
}

impl fmt::Display for MaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(error) => error.fmt(f),
            Self::SurplusBits { len, bit } => write!(
                f,
                "bits beyond the last element must be zero: the mask has {len} elements, bit {bit} is set"
            ),
        }
    }
}

impl core::error::Error for MaskError {}

impl From<LengthError> for MaskError {
    fn from(error: LengthError) -> Self {
        Self::Length(error)
    }
}

/// A window that reaches beyond element 2^64 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowError {
    /// Index of the first element of the window.
    pub first: u64,
    /// Number of elements of the window.
    pub len: usize,
}

impl fmt::Display for WindowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a window must end at or before element 2^64 - 1: got {} elements from element {}",
            self.len, self.first
        )
    }
}

impl core::error::Error for WindowError {}

/// A shape of a mask that does not cover a tensor's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BroadcastError {
    /// The shape of the tensor.
    pub shape: Vec<usize>,
    /// The shape that was given for the mask.
    pub mask_shape: Vec<usize>,
}

impl fmt::Display for BroadcastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "mask shape for a tensor of shape {:?}: expected {} axes, each 1 or the tensor's, got {:?}",
            self.shape,
            self.shape.len(),
            self.mask_shape
        )
    }
}

impl core::error::Error for BroadcastError {}

/// A part of a tensor that the tensor does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardError {
    /// The shape of the whole tensor.
    pub shape: Vec<usize>,
    /// The axis that it was to be cut along.
    pub axis: usize,
    /// The indices of the part.
    pub range: Range<usize>,
}

impl fmt::Display for ShardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a shard must be a range of an axis of the whole tensor, of shape {:?}, with at most 2^64 \
             elements: got {:?} of axis {}",
            self.shape, self.range, self.axis
        )
    }
}

impl core::error::Error for ShardError {}

/// Memory that cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocationError {
    /// The number of bytes that were asked for.
    pub bytes: u64,
}

impl fmt::Display for AllocationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot allocate {} bytes", self.bytes)
    }
}

impl core::error::Error for AllocationError {}

/// Any of the errors of a kernel call.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// See [`InvalidRate`].
    Rate(InvalidRate),
    /// See [`LengthError`].
    Length(LengthError),
    /// See [`BackendError`].
    Backend(BackendError),
    /// See [`MaskError`].
    Mask(MaskError),
    /// See [`WindowError`].
    Window(WindowError),
    /// See [`AllocationError`].
    Allocation(AllocationError),
    /// See [`BroadcastError`].
    Broadcast(BroadcastError),
    /// See [`ShardError`].
    Shard(ShardError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(error) => error.fmt(f),
            Self::Length(error) => error.fmt(f),
            Self::Backend(error) => error.fmt(f),
            Self::Mask(error) => error.fmt(f),
            Self::Window(error) => error.fmt(f),
            Self::Allocation(error) => error.fmt(f),
            Self::Broadcast(error) => error.fmt(f),
            Self::Shard(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Error {}

macro_rules! error_from {
    ($($variant:ident($cause:ty)),*) => {$(
        impl From<$cause> for Error {
            fn from(error: $cause) -> Self {
                Self::$variant(error)
            }
        }
    )*};
}

error_from!(
    Rate(InvalidRate),
    Length(LengthError),
    Backend(BackendError),
    Mask(MaskError),
    Window(WindowError),
    Allocation(AllocationError),
    Broadcast(BroadcastError),
    Shard(ShardError)
);
