//! [`PyGenerator`]: where the keys of masks and of random tensors come from.

use core::fmt;
use std::sync::Arc;

use pyo3::prelude::*;
use sorix::{Generator, GeneratorState};

use crate::error::Result;

/// A stream of keys: each call of a dropout in training takes one, and so advances the offset by one.
///
/// Parameters
/// ----------
/// seed : int, optional
///     In [0, 2**64); by default one from the operating system, which ``seed`` tells.
/// offset : int
///     Of the next key.
///
/// Examples
/// --------
/// >>> import sorix
/// >>> generator = sorix.Generator(42)
/// >>> generator.next_key()
/// (42, 0)
/// >>> generator
/// Generator(seed=42, offset=1)
#[pyclass(name = "Generator", module = "sorix", frozen, from_py_object)]
#[derive(Clone)]
pub(crate) struct PyGenerator(Source);

#[derive(Clone)]
enum Source {
    Own(Arc<Generator>),
    Default,
}

impl fmt::Debug for PyGenerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PyGenerator")
    }
}

impl PyGenerator {
    /// The generator of the process.
    pub(crate) fn default() -> Self {
        Self(Source::Default)
    }

    /// The generator, unless it is that of the process.
    pub(crate) fn own(&self) -> Option<Arc<Generator>> {
        match &self.0 {
            Source::Own(generator) => Some(Arc::clone(generator)),
            Source::Default => None,
        }
    }

    pub(crate) fn get(&self) -> Result<&Generator, sorix::Error> {
        match &self.0 {
            Source::Own(generator) => Ok(generator),
            Source::Default => sorix::default_generator(),
        }
    }
}

#[pymethods]
impl PyGenerator {
    #[new]
    #[pyo3(signature = (seed=None, offset=0))]
    fn new(seed: Option<u64>, offset: u64) -> Result<Self> {
        let seed = match seed {
            Some(seed) => seed,
            None => Generator::from_os()?.seed(),
        };
        let generator = Generator::from_state(GeneratorState { seed, offset });
        Ok(Self(Source::Own(Arc::new(generator))))
    }

    /// The seed.
    #[getter]
    fn seed(&self) -> Result<u64> {
        Ok(self.get()?.seed())
    }

    /// The offset of the next key.
    #[getter]
    fn offset(&self) -> Result<u64> {
        Ok(self.get()?.state().offset)
    }

    /// The next key as ``(seed, offset)``; the offset advances by one.
    fn next_key(&self) -> Result<(u64, u64)> {
        let key = self.get()?.next_key();
        Ok((key.seed, key.offset))
    }

    /// Begins the stream of another seed.
    fn manual_seed(&self, seed: u64) -> Result<()> {
        self.get()?.manual_seed(seed);
        Ok(())
    }

    /// ``(seed, offset)``, for :meth:`set_state`.
    fn get_state(&self) -> Result<(u64, u64)> {
        let state = self.get()?.state();
        Ok((state.seed, state.offset))
    }

    /// Continues where the state was taken.
    fn set_state(&self, state: (u64, u64)) -> Result<()> {
        let (seed, offset) = state;
        self.get()?.set_state(GeneratorState { seed, offset });
        Ok(())
    }

    /// An independent stream of this name, which depends on the seed and the name alone.
    ///
    /// Examples
    /// --------
    /// >>> import sorix
    /// >>> sorix.Generator(42).fork("encoder").seed == sorix.Generator(42).fork("encoder").seed
    /// True
    fn fork(&self, name: &str) -> Result<Self> {
        let fork = self.get()?.fork(name);
        Ok(Self(Source::Own(Arc::new(fork))))
    }

    fn __repr__(&self) -> Result<String> {
        let state = self.get()?.state();
        Ok(format!(
            "Generator(seed={}, offset={})",
            state.seed, state.offset
        ))
    }

    fn __getnewargs__(&self) -> Result<(u64, u64)> {
        self.get_state()
    }
}

/// Begins the stream of ``seed`` in the generator of the process, which modules and functions use if they
/// were given no other.
#[pyfunction]
pub(crate) fn manual_seed(seed: u64) {
    sorix::manual_seed(seed);
}

/// The generator of the process; seeded from the operating system, unless :func:`manual_seed` came first.
#[pyfunction]
pub(crate) fn default_generator() -> PyGenerator {
    PyGenerator::default()
}
