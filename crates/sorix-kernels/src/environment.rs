//! The environment variables by which a user says how sorix runs.

use std::sync::OnceLock;

use crate::error::BackendError;

/// The environment variable that forces a backend by name.
pub(crate) const BACKEND_VARIABLE: &str = "SORIX_BACKEND";

/// The environment variable that says from how many bytes of output on stores go around the cache.
const STREAMING_VARIABLE: &str = "SORIX_STREAMING_ABOVE";

/// The value of an environment variable that is set and not empty. One that is not Unicode means
/// nothing to us; it is shown as well as it can be.
pub(crate) fn variable(name: &str) -> Option<String> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty())?;
    Some(value.to_string_lossy().into_owned())
}

/// What `SORIX_STREAMING_ABOVE` says, if anything.
///
/// # Errors
///
/// As [`parse_streaming_above`]; an error is not kept.
pub fn streaming_above() -> Result<Option<usize>, BackendError> {
    static BYTES: OnceLock<Option<usize>> = OnceLock::new();
    if let Some(&bytes) = BYTES.get() {
        return Ok(bytes);
    }
    let value = variable(STREAMING_VARIABLE);
    let bytes = value.as_deref().map(parse_streaming_above).transpose()?;
    Ok(*BYTES.get_or_init(|| bytes))
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
