//! [`Error`]: what a layer could not do.

/// What a layer could not do, and why.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A drop probability outside [0, 1] or NaN, a shape that the form does not fit, or no seed from the
    /// operating system.
    #[error(transparent)]
    Layer(#[from] sorix::Error),
    /// Failed allocation, or a `SORIX_BACKEND` that cannot run here.
    #[error(transparent)]
    Kernel(#[from] sorix::kernels::Error),
    /// A tensor of which the device does not say the truth.
    #[error("dropout by a mask of shape {shape:?}: {reason}")]
    Device {
        /// The shape of the mask.
        shape: Vec<usize>,
        /// What burn said.
        reason: String,
    },
    /// A residual, a bias or another second input that does not fit the first in shape, dtype or device.
    #[error("{operation}: expected {what} {expected}, got {got}")]
    Operand {
        /// The operation.
        operation: &'static str,
        /// Which input it is.
        what: &'static str,
        /// What fits: shape, dtype and device of the first input, and how the other one is to be as it.
        expected: String,
        /// Shape, dtype and device of what came.
        got: String,
    },
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = core::result::Result<T, E>;

impl From<sorix::InvalidRate> for Error {
    fn from(error: sorix::InvalidRate) -> Self {
        Self::Layer(error.into())
    }
}
