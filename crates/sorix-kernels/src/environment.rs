//! `SORIX_STREAMING_ABOVE`: how large an output is to be written around the cache.

use std::ffi::OsStr;
use std::sync::LazyLock;

use crate::error::BackendError;

/// The environment variable that says from how many bytes of output on stores go around the cache.
const STREAMING_VARIABLE: &str = "SORIX_STREAMING_ABOVE";

/// What the variable says, if anything.
pub(crate) fn streaming_above() -> Result<Option<usize>, BackendError> {
    static BYTES: LazyLock<Result<Option<usize>, BackendError>> = LazyLock::new(|| {
        let value = std::env::var_os(STREAMING_VARIABLE);
        let value = value.as_deref().map(OsStr::to_string_lossy);
        value.as_deref().map(parse_streaming_above).transpose()
    });
    BYTES.clone()
}

/// What a value of `SORIX_STREAMING_ABOVE` means: a number of bytes, for
/// [`Engine::streaming_above`](crate::Engine::streaming_above).
///
/// # Errors
///
/// [`BackendError::Variable`], with the value, if it is not a number that a `usize` can hold.
///
/// ```
/// use sorix_kernels::internal::parse_streaming_above;
/// assert_eq!(parse_streaming_above("1048576")?, 1 << 20);
/// assert_eq!(
///     parse_streaming_above("1 MiB").unwrap_err().to_string(),
///     r#"environment variable SORIX_STREAMING_ABOVE: expected a number of bytes, got "1 MiB""#
/// );
/// # Ok::<(), sorix_kernels::BackendError>(())
/// ```
pub fn parse_streaming_above(value: &str) -> Result<usize, BackendError> {
    value.parse().map_err(|_| BackendError::Variable {
        variable: STREAMING_VARIABLE,
        value: value.to_owned(),
        expected: "a number of bytes",
    })
}
