//! Which of Python's exceptions each error of sorix becomes; the text stays.

use numpy::BorrowError;
use pyo3::PyErr;
use pyo3::exceptions::{
    PyIndexError, PyMemoryError, PyOSError, PyRuntimeError, PyTypeError, PyValueError,
};
use sorix::kernels;
use sorix::nn::CheckpointError;
use sorix::{ErrorKind, TensorError};

/// An error on its way to Python.
#[derive(Debug)]
pub(crate) struct Raised(PyErr);

/// What a function called from Python returns.
pub(crate) type Result<T, E = Raised> = core::result::Result<T, E>;

impl Raised {
    pub(crate) fn value(text: impl Into<String>) -> Self {
        Self(PyValueError::new_err(text.into()))
    }

    pub(crate) fn type_(text: impl Into<String>) -> Self {
        Self(PyTypeError::new_err(text.into()))
    }

    pub(crate) fn index(text: impl Into<String>) -> Self {
        Self(PyIndexError::new_err(text.into()))
    }
}

impl From<Raised> for PyErr {
    fn from(raised: Raised) -> Self {
        raised.0
    }
}

impl From<PyErr> for Raised {
    fn from(error: PyErr) -> Self {
        Self(error)
    }
}

impl From<pyo3::CastError<'_, '_>> for Raised {
    fn from(error: pyo3::CastError<'_, '_>) -> Self {
        Self(error.into())
    }
}

impl From<pyo3::CastIntoError<'_>> for Raised {
    fn from(error: pyo3::CastIntoError<'_>) -> Self {
        Self(error.into())
    }
}

impl From<BorrowError> for Raised {
    fn from(error: BorrowError) -> Self {
        Self::value(match error {
            BorrowError::AlreadyBorrowed => {
                "an array is read while it is written, or written twice"
            }
            _ => "expected an array that can be written, got a read-only one",
        })
    }
}

impl From<kernels::Error> for Raised {
    fn from(error: kernels::Error) -> Self {
        let text = error.to_string();
        Self(match error {
            kernels::Error::Allocation(_) => PyMemoryError::new_err(text),
            kernels::Error::Backend(_) => PyRuntimeError::new_err(text),
            _ => PyValueError::new_err(text),
        })
    }
}

impl From<kernels::InvalidRate> for Raised {
    fn from(error: kernels::InvalidRate) -> Self {
        Self::value(error.to_string())
    }
}

impl From<kernels::AllocationError> for Raised {
    fn from(error: kernels::AllocationError) -> Self {
        Self(PyMemoryError::new_err(error.to_string()))
    }
}

impl From<kernels::MaskError> for Raised {
    fn from(error: kernels::MaskError) -> Self {
        Self::value(error.to_string())
    }
}

impl From<kernels::ShardError> for Raised {
    fn from(error: kernels::ShardError) -> Self {
        Self::value(error.to_string())
    }
}

impl From<TensorError> for Raised {
    fn from(error: TensorError) -> Self {
        let text = error.to_string();
        Self(match error.kind() {
            ErrorKind::Allocation { .. } | ErrorKind::TooLarge { .. } => {
                PyMemoryError::new_err(text)
            }
            ErrorKind::Axis { .. } | ErrorKind::Index { .. } | ErrorKind::Range { .. } => {
                PyIndexError::new_err(text)
            }
            ErrorKind::DType { .. } | ErrorKind::MixedDTypes => PyTypeError::new_err(text),
            ErrorKind::GraphFreed { .. }
            | ErrorKind::NoGradient
            | ErrorKind::RecordedElsewhere { .. }
            | ErrorKind::SavedTensorWritten { .. }
            | ErrorKind::WriteNeedsNoGrad => PyRuntimeError::new_err(text),
            ErrorKind::Kernel(kernels::Error::Allocation(_)) => PyMemoryError::new_err(text),
            _ => PyValueError::new_err(text),
        })
    }
}

impl From<sorix::Error> for Raised {
    fn from(error: sorix::Error) -> Self {
        let text = error.to_string();
        match error {
            sorix::Error::Tensor(error) => error.into(),
            sorix::Error::Index { .. } => Self(PyIndexError::new_err(text)),
            sorix::Error::IndexType { .. } => Self(PyTypeError::new_err(text)),
            sorix::Error::Backend(_)
            | sorix::Error::Entropy { .. }
            | sorix::Error::Threads { .. } => Self(PyRuntimeError::new_err(text)),
            sorix::Error::Checkpoint(CheckpointError::Io { .. }) => Self(PyOSError::new_err(text)),
            _ => Self::value(text),
        }
    }
}
