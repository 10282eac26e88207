//! Backends by name.

use sorix_kernels::{BackendError, dispatch};

#[test]
fn every_available_backend_is_found_by_its_name() {
    for &backend in dispatch::available() {
        let found = dispatch::by_name(backend.name()).unwrap();
        assert_eq!(found.name(), backend.name());
    }
    assert_eq!(dispatch::best().name(), dispatch::available()[0].name());
}

#[test]
fn other_names_are_errors_that_say_what_there_is() {
    let available: Vec<_> = dispatch::available()
        .iter()
        .map(|backend| backend.name())
        .collect();
    for name in ["nonsense", "", "AVX2", " avx2"] {
        let error = dispatch::by_name(name).unwrap_err();
        let expected = BackendError::Unknown {
            name: name.into(),
            available: available.clone(),
        };
        assert_eq!(error, expected);
        assert_eq!(
            error.to_string(),
            format!(
                "unknown backend {name:?}; this machine has: {}",
                available.join(", ")
            )
        );
    }
    let elsewhere = if cfg!(target_arch = "aarch64") {
        "avx2"
    } else {
        "neon"
    };
    let error = dispatch::by_name(elsewhere).unwrap_err();
    assert_eq!(
        error,
        BackendError::Unsupported {
            name: elsewhere.into(),
            available
        }
    );
}
