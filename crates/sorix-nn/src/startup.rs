//! [`init`]: what may be wrong with a machine or its environment, said at the start.

use core::fmt;

use sorix_kernels::dispatch;

use crate::error::Result;
use crate::generator::default_generator;

/// Makes every choice that is made once in a process, and says what was chosen. What a first dropout
/// would find wrong hours later, this finds at the start.
///
/// It reads the environment variables `SORIX_BACKEND` and `SORIX_STREAMING_ABOVE`, chooses the backend,
/// starts the threads of rayon's current pool (feature `parallel`), and seeds the [generator of the
/// process](default_generator) unless [`manual_seed`](crate::manual_seed) came first. To call it again
/// costs nothing, and not to call it changes nothing.
///
/// # Errors
///
/// If a variable has a value that means nothing or names a backend that this CPU cannot run; if the
/// threads cannot be started, without which a program still works, on one thread; if the operating
/// system has no seed to give.
///
/// ```
/// let startup = sorix_nn::init()?;
/// println!("{startup}");
/// assert!(startup.threads >= 1);
/// assert_eq!(startup.seed, sorix_nn::default_generator()?.seed());
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn init() -> Result<Startup> {
    let backend = dispatch::active()?.name();
    let streaming_above = sorix_kernels::internal::streaming_above()?;
    #[cfg(feature = "parallel")]
    let threads =
        sorix_kernels::internal::parallel::threads().map_err(|error| crate::Error::Threads {
            reason: error.to_string(),
        })?;
    #[cfg(not(feature = "parallel"))]
    let threads = 1;
    Ok(Startup {
        backend,
        streaming_above,
        threads,
        seed: default_generator()?.seed(),
    })
}

/// What [`init`] chose. Printed, it is a line for a log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Startup {
    /// The name of the backend.
    pub backend: &'static str,
    /// From how many bytes of output on stores go around the cache, if `SORIX_STREAMING_ABOVE` says so.
    pub streaming_above: Option<usize>,
    /// The threads of the current rayon pool; 1 without the feature `parallel`.
    pub threads: usize,
    /// The seed of the generator of the process, to repeat its draws.
    pub seed: u64,
}

impl fmt::Display for Startup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = env!("CARGO_PKG_VERSION");
        write!(f, "sorix {version}: backend {}, ", self.backend)?;
        match self.threads {
            1 => write!(f, "1 thread")?,
            threads => write!(f, "{threads} threads")?,
        }
        if let Some(bytes) = self.streaming_above {
            write!(f, ", streaming stores above {bytes} bytes")?;
        }
        write!(f, ", seed {}", self.seed)
    }
}
