//! [`CheckpointError`]: why a file could not be written, read or used.

use std::path::PathBuf;

/// Why a [`Checkpoint`](crate::Checkpoint) could not be written, read or used.
///
/// ```
/// use sorix_nn::{Checkpoint, CheckpointError, Error, Generator, Linear};
/// let linear = Linear::new(2, 3, &Generator::new(1))?;
/// let bytes = Checkpoint::new().parameters("", &linear.clone().without_bias()).to_bytes()?;
/// let error = Checkpoint::new().parameters("", &linear).load_bytes(&bytes).unwrap_err();
/// assert_eq!(error.to_string(), "checkpoint: there is no \"bias\"");
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file system refused.
    #[error("checkpoint: {path:?}: {reason}")]
    Io {
        /// The file that was to be written or read.
        path: PathBuf,
        /// The kind of the refusal: whether nothing is there, for instance.
        kind: std::io::ErrorKind,
        /// What it said.
        reason: String,
    },
    /// The file is not in the safetensors format.
    #[error("checkpoint: not a safetensors file: {reason}")]
    Format {
        /// What is wrong.
        reason: String,
    },
    /// The file is of another version of sorix' layout.
    #[error("checkpoint: expected version 1, got {got:?}")]
    Version {
        /// The version that came.
        got: String,
    },
    /// Something is not in the file.
    #[error("checkpoint: there is no {name:?}")]
    Missing {
        /// Its name.
        name: String,
    },
    /// Something is in a section of the file that does not belong there.
    #[error("checkpoint: {name:?} is not expected")]
    Unexpected {
        /// Its name.
        name: String,
    },
    /// Something has another shape or dtype.
    #[error("checkpoint: expected {name:?} to be {expected}, got {got}")]
    Mismatch {
        /// Its name.
        name: String,
        /// The dtype and shape it has to have.
        expected: String,
        /// The dtype and shape it has.
        got: String,
    },
    /// The data of an entry is not what was written: it has another checksum.
    #[error("checkpoint: the data of {name:?} is damaged")]
    Damaged {
        /// Its name.
        name: String,
    },
    /// The data of an entry is not what it was when it was checked: somebody writes to the file.
    #[error("checkpoint: the data of {name:?} has changed while it was loaded")]
    Changed {
        /// Its name.
        name: String,
    },
    /// A tensor or generator of two names, and the file has other elements, or another state, under each.
    #[error("checkpoint: {first:?} and {second:?} are one, and differ in the file")]
    Tied {
        /// The first name.
        first: String,
        /// The other one.
        second: String,
    },
    /// Two entries of one name.
    #[error("checkpoint: there are two of {name:?}")]
    Repeated {
        /// The name.
        name: String,
    },
    /// An entry of a name that means something else in the format.
    #[error("checkpoint: the format keeps the name {name:?} for itself")]
    Reserved {
        /// The name.
        name: String,
    },
    /// A section that could be taken for another.
    #[error(
        "checkpoint: expected sections of different names, without a dot, and the empty name only \
         for one that is alone; got {section:?}"
    )]
    Section {
        /// The name of the section.
        section: String,
    },
}
