//! Parameters of modules of Python: copied all or none, and in files with optimisers, generators and counters.

use std::path::PathBuf;

use pyo3::prelude::*;
use sorix::nn::visit::Visit;
use sorix::nn::{self, Checkpoint, Module};
use sorix::{Generator, Tensor};

use crate::error::Result;
use crate::generator::PyGenerator;
use crate::nn::named;
use crate::optim::PyOptimizer;
use crate::tensor::PyTensor;
use crate::threads;

/// The parameters of a module of Python.
#[derive(Debug)]
struct Parameters(Vec<(String, Tensor)>);

impl Visit for Parameters {
    fn visit_own_parameters(&self, visit: &mut dyn FnMut(&str, &Tensor)) {
        self.0.iter().for_each(|(name, x)| visit(name, x));
    }
}

impl Module for Parameters {
    /// There is nothing to compute: what does is in Python.
    fn forward(&self, x: &Tensor) -> nn::Result<Tensor> {
        Ok(x.clone())
    }
}

/// Writes tensors over the parameters of the same names: all, or none if one cannot be written over. What is a
/// parameter itself is written as it was before.
#[pyfunction]
pub(crate) fn _copy_parameters(
    py: Python<'_>,
    values: Vec<(String, PyTensor)>,
    parameters: Vec<(String, PyTensor)>,
) -> Result<()> {
    let [from, to] = [values, parameters].map(|tensors| Parameters(named(tensors)));
    let copy = || nn::copy_parameters(&from, &to);
    Ok(threads::operation(py, usize::MAX, copy)?)
}

/// What is saved beside the parameters.
type Rest<'py> = (
    Option<PyRef<'py, PyOptimizer>>,
    Vec<(String, PyGenerator)>,
    Vec<(String, u64)>,
);

/// Runs `f` with a checkpoint of all of these.
fn with<R: Send>(
    py: Python<'_>,
    parameters: Vec<(String, PyTensor)>,
    rest: Rest<'_>,
    f: impl FnOnce(Checkpoint<'_>) -> nn::Result<R> + Send,
) -> Result<(R, Vec<(String, u64)>)> {
    let parameters = Parameters(named(parameters));
    let (optimizer, generators, mut counters) = rest;
    let optimizer = optimizer.as_deref();
    let generators = generators
        .iter()
        .map(|(section, generator)| Ok((section.as_str(), generator.get()?)))
        .collect::<nn::Result<Vec<(&str, &Generator)>>>()?;
    let alone = optimizer.is_none() && generators.is_empty() && counters.is_empty();
    let result = threads::operation(py, 0, || {
        let mut optimizer = optimizer.map(PyOptimizer::lock);
        // Plain names, which other programs know, where there is nothing that they could be confused with.
        let section = if alone { "" } else { "model" };
        let mut checkpoint = Checkpoint::new().parameters(section, &parameters);
        if let Some(optimizer) = &mut optimizer {
            checkpoint = checkpoint.optimizer("optimizer", &mut ***optimizer);
        }
        for (section, generator) in generators {
            checkpoint = checkpoint.generator(section, generator);
        }
        for (section, counter) in &mut counters {
            checkpoint = checkpoint.counter(section, counter);
        }
        f(checkpoint)
    })?;
    Ok((result, counters))
}

/// Writes a file.
#[pyfunction]
#[pyo3(signature = (path, parameters, optimizer, generators, counters))]
pub(crate) fn _save(
    py: Python<'_>,
    path: PathBuf,
    parameters: Vec<(String, PyTensor)>,
    optimizer: Option<PyRef<'_, PyOptimizer>>,
    generators: Vec<(String, PyGenerator)>,
    counters: Vec<(String, u64)>,
) -> Result<()> {
    let rest = (optimizer, generators, counters);
    with(py, parameters, rest, |checkpoint| checkpoint.save(path))?;
    Ok(())
}

/// Reads a file into what is given; returns the counters.
#[pyfunction]
#[pyo3(signature = (path, parameters, optimizer, generators, counters))]
pub(crate) fn _load(
    py: Python<'_>,
    path: PathBuf,
    parameters: Vec<(String, PyTensor)>,
    optimizer: Option<PyRef<'_, PyOptimizer>>,
    generators: Vec<(String, PyGenerator)>,
    counters: Vec<(String, u64)>,
) -> Result<Vec<(String, u64)>> {
    let rest = (optimizer, generators, counters);
    let ((), counters) = with(py, parameters, rest, |mut checkpoint| checkpoint.load(path))?;
    Ok(counters)
}
