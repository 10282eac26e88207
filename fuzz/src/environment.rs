//! What a user may write into `SORIX_BACKEND` and `SORIX_STREAMING_ABOVE`.

use sorix::kernels::internal::parse_streaming_above;
use sorix::kernels::{BackendError, dispatch};

/// The target: the bytes are the value of a variable.
pub fn run(data: &[u8]) {
    let value = String::from_utf8_lossy(data);
    match dispatch::by_name(&value) {
        Ok(backend) => assert_eq!(backend.name(), value),
        Err(error) => {
            assert!(dispatch::available().iter().all(|b| b.name() != value));
            assert!(error.to_string().contains(&format!("{value:?}")), "{error}");
        }
    }
    match parse_streaming_above(&value) {
        Ok(bytes) => {
            let digits = value.strip_prefix('+').unwrap_or(&value);
            assert!(!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
            assert_eq!(
                digits.trim_start_matches('0'),
                if bytes == 0 {
                    String::new()
                } else {
                    bytes.to_string()
                }
            );
        }
        Err(error) => {
            assert!(value.parse::<usize>().is_err());
            assert!(matches!(error, BackendError::Variable { .. }), "{error:?}");
            assert!(error.to_string().contains(&format!("{value:?}")), "{error}");
        }
    }
}
