//! Which backends there are, and which one is used.
//!
//! The choice is made once, at first use: the one given to [`set_active`], else the one named by
//! the environment variable `SORIX_BACKEND`, else the best one this CPU can run. A name that is
//! unknown or not supported here is an error, never a silent fallback. An empty variable counts as
//! one that is not set.

use std::sync::{LazyLock, OnceLock};

use crate::backend::Backend;
use crate::backend::reference::Reference;
use crate::environment::{BACKEND_VARIABLE, variable};
use crate::error::BackendError;
use crate::kernel::SimdBackend;
use crate::simd::{self, Simd};

/// Defines [`NAMES`] and [`simd_backends`] from one list of tokens: those of every instruction set
/// that sorix has a backend for, best first.
macro_rules! simd_backends {
    ($($(#[$attribute:meta])* $name:literal => $token:expr;)*) => {
        /// Every name a backend over an instruction set can have, whether or not this CPU has it.
        const SIMD_NAMES: &[&str] = &[$($name),*];

        /// The backends over the instruction sets that this CPU has, best first.
        fn simd_backends() -> Vec<&'static dyn Backend> {
            let mut backends = Vec::new();
            $(
                $(#[$attribute])*
                backends.extend(backend($name, $token));
            )*
            backends
        }
    };
}

simd_backends! {
    #[cfg(target_arch = "x86_64")]
    "avx512" => simd::Avx512::detect();
    #[cfg(target_arch = "x86_64")]
    "avx2" => simd::Avx2::detect();
    #[cfg(target_arch = "aarch64")]
    "neon" => simd::Neon::detect();
    "portable" => Some(simd::Portable);
}

/// The backend over a token, if there is one.
fn backend<S: Simd>(name: &str, token: Option<S>) -> Option<&'static dyn Backend> {
    assert_eq!(
        name,
        S::NAME,
        "the list of backends names the token otherwise"
    );
    // One allocation of a byte or none, once per process: a `static` cannot hold what is only
    // known once the CPU has been asked.
    token.map(|token| &*Box::leak(Box::new(SimdBackend(token))) as &'static dyn Backend)
}

/// The backends this CPU can run, best first; the last two are always `portable` and `reference`.
///
/// ```
/// let names: Vec<_> = sorix_kernels::dispatch::available().iter().map(|b| b.name()).collect();
/// assert!(names.ends_with(&["portable", "reference"]));
/// ```
#[must_use]
pub fn available() -> &'static [&'static dyn Backend] {
    static AVAILABLE: LazyLock<Vec<&'static dyn Backend>> = LazyLock::new(|| {
        let mut backends = simd_backends();
        backends.push(&Reference);
        backends
    });
    &AVAILABLE
}

/// The backend of this name.
///
/// # Errors
///
/// [`BackendError`], with the names that are available, if sorix has no such backend or this CPU
/// cannot run it.
///
/// ```
/// use sorix_kernels::dispatch;
/// assert_eq!(dispatch::by_name("portable").unwrap().name(), "portable");
/// let error = dispatch::by_name("nonsense").unwrap_err();
/// assert!(error.to_string().starts_with(r#"unknown backend "nonsense"; this machine has: "#));
/// ```
pub fn by_name(name: &str) -> Result<&'static dyn Backend, BackendError> {
    if let Some(&backend) = available().iter().find(|backend| backend.name() == name) {
        return Ok(backend);
    }
    let available = available().iter().map(|backend| backend.name()).collect();
    let name = name.to_owned();
    Err(if SIMD_NAMES.contains(&name.as_str()) {
        BackendError::Unsupported { name, available }
    } else {
        BackendError::Unknown { name, available }
    })
}

/// The fastest backend this CPU can run, whatever the environment says.
#[must_use]
pub fn best() -> &'static dyn Backend {
    available()[0]
}

/// The backend that [`dropout`](crate::dropout) uses.
///
/// # Errors
///
/// [`BackendError::Environment`] if `SORIX_BACKEND` names one that is unknown or not supported here.
pub fn active() -> Result<&'static dyn Backend, BackendError> {
    if let Some(&backend) = ACTIVE.get() {
        return Ok(backend);
    }
    // An error is not kept: `set_active` sets it right.
    let backend = from_environment()?;
    Ok(*ACTIVE.get_or_init(|| backend))
}

/// Makes `backend`, which may be one of your own, the one that [`dropout`](crate::dropout) uses in
/// this process, whatever the environment says.
///
/// # Errors
///
/// [`BackendError::AlreadyChosen`] if the choice was made before, by an earlier call or by the first call of
/// a kernel: call this first.
pub fn set_active(backend: &'static dyn Backend) -> Result<(), BackendError> {
    ACTIVE
        .set(backend)
        .map_err(|_| BackendError::AlreadyChosen {
            chosen: ACTIVE.get().map_or("", |chosen| chosen.name()).to_owned(),
        })
}

static ACTIVE: OnceLock<&'static dyn Backend> = OnceLock::new();

fn from_environment() -> Result<&'static dyn Backend, BackendError> {
    let Some(name) = variable(BACKEND_VARIABLE) else {
        return Ok(best());
    };
    by_name(&name).map_err(|error| BackendError::Environment {
        variable: BACKEND_VARIABLE,
        error: Box::new(error),
    })
}
