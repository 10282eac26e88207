//! What can be wrong with a call, one type per cause.
//!
//! Every message names what was expected and what came. A call that returns an error has written
//! nothing.

use core::fmt;
use core::ops::Range;

/// Defines an error of one cause: its fields, and the message that they are put into.
macro_rules! cause {
    (
        $(#[$about:meta])*
        $name:ident { $($(#[$field_about:meta])* $field:ident: $type:ty,)* }
        $message:literal $(, $argument:expr)*
    ) => {
        $(#[$about])*
        #[non_exhaustive]
        pub struct $name {
            $($(#[$field_about])* pub $field: $type,)*
        }

        impl $name {
            /// The error of these fields, in the order of their declaration.
            #[must_use]
            pub fn new($($field: $type),*) -> Self {
                Self { $($field),* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Self { $($field),* } = self;
                write!(f, $message $(, $argument)*)
            }
        }

        impl core::error::Error for $name {}
    };
}

/// Defines [`Error`], the sum of the causes.
macro_rules! sum {
    ($($variant:ident($cause:ident))*) => {
        /// Any of the errors of a kernel call.
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum Error {
            $(
                #[doc = concat!("See [`", stringify!($cause), "`].")]
                $variant($cause),
            )*
        }

        impl fmt::Display for Error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant(error) => error.fmt(f),)*
                }
            }
        }

        impl core::error::Error for Error {}

        $(
            impl From<$cause> for Error {
                fn from(error: $cause) -> Self {
                    Self::$variant(error)
                }
            }
        )*
    };
}

sum! {
    Rate(InvalidRate)
    Length(LengthError)
    Backend(BackendError)
    Mask(MaskError)
    Window(WindowError)
    Allocation(AllocationError)
    Broadcast(BroadcastError)
    Shard(ShardError)
    Epsilon(InvalidEpsilon)
}

cause! {
    /// A drop probability outside [0, 1], or NaN.
    #[derive(Clone, Copy, Debug)]
    InvalidRate {
        /// The value that was given.
        p: f64,
    }
    "drop probability must be a number in [0, 1], got p = {p}"
}

/// Equal when the same value was rejected; NaN equals NaN here, so that tests can compare.
impl PartialEq for InvalidRate {
    fn eq(&self, other: &Self) -> bool {
        self.p.to_bits() == other.p.to_bits()
    }
}

cause! {
    /// A negative number, an infinity or NaN, where a normalisation is told what to add to the variance.
    #[derive(Clone, Copy, Debug)]
    InvalidEpsilon {
        /// The value that was given.
        epsilon: f64,
    }
    "epsilon must be a finite number, at least 0, got {epsilon}"
}

/// As for [`InvalidRate`].
impl PartialEq for InvalidEpsilon {
    fn eq(&self, other: &Self) -> bool {
        self.epsilon.to_bits() == other.epsilon.to_bits()
    }
}

cause! {
    /// Two lengths that should be equal and are not.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    LengthError {
        /// The argument whose length is wrong.
        what: &'static str,
        /// The length it should have: a number of elements, unless `what` says bytes or words.
        expected: usize,
        /// The length it has.
        got: usize,
    }
    "length of {what}: expected {expected}, got {got}"
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

cause! {
    /// A window that reaches beyond element 2^64 - 1.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    WindowError {
        /// Index of the first element of the window.
        first: u64,
        /// Number of elements of the window.
        len: usize,
    }
    "a window must end at or before element 2^64 - 1: got {len} elements from element {first}"
}

cause! {
    /// A shape of a mask that does not cover a tensor's.
    #[derive(Clone, Debug, PartialEq, Eq)]
    BroadcastError {
        /// The shape of the tensor.
        shape: Vec<usize>,
        /// The shape that was given for the mask.
        mask_shape: Vec<usize>,
    }
    "mask shape for a tensor of shape {shape:?}: expected {} axes, each 1 or the tensor's, got {mask_shape:?}",
    shape.len()
}

cause! {
    /// A part of a tensor that the tensor does not have.
    #[derive(Clone, Debug, PartialEq, Eq)]
    ShardError {
        /// The shape of the whole tensor.
        shape: Vec<usize>,
        /// The axis that it was to be cut along.
        axis: usize,
        /// The indices of the part.
        range: Range<usize>,
    }
    "a shard must be a range of an axis of the whole tensor, of shape {shape:?}, with at most 2^64 \
     elements: got {range:?} of axis {axis}"
}

cause! {
    /// An allocation that failed.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    AllocationError {
        /// The number of bytes that were asked for.
        bytes: u64,
    }
    "cannot allocate {bytes} bytes"
}

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
