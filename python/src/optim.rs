//! [`PyOptimizer`]: what the optimisers of `sorix.nn` do.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyDict;
use sorix::nn::optim::{OptimizerState, ParameterState};
use sorix::nn::{Adam, AdamW, Optimizer, Sgd};

use crate::error::{Raised, Result};
use crate::nn::named;
use crate::tensor::PyTensor;
use crate::threads;

/// An optimiser of Rust.
#[pyclass(name = "RustOptimizer", module = "sorix._sorix", frozen)]
#[derive(Debug)]
pub(crate) struct PyOptimizer(Mutex<Box<dyn Optimizer>>);

impl PyOptimizer {
    fn of(optimizer: impl Optimizer + 'static) -> Self {
        Self(Mutex::new(Box::new(optimizer)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Box<dyn Optimizer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for another thread's step without the interpreter, which that thread may want.
    fn with<R: Send>(&self, py: Python<'_>, f: impl FnOnce(&mut dyn Optimizer) -> R + Send) -> R {
        threads::operation(py, usize::MAX, || f(&mut **self.lock()))
    }
}

#[pymethods]
impl PyOptimizer {
    #[staticmethod]
    fn sgd(
        parameters: Vec<(String, PyTensor)>,
        lr: f64,
        momentum: f64,
        nesterov: bool,
        weight_decay: f64,
    ) -> Result<Self> {
        if nesterov && momentum == 0.0 {
            return Err(Raised::value(
                "nesterov: expected a momentum above 0 beside it, got 0",
            ));
        }
        let sgd = Sgd::new(named(parameters), lr)?.weight_decay(weight_decay)?;
        Ok(Self::of(match (momentum, nesterov) {
            (0.0, false) => sgd,
            (_, false) => sgd.momentum(momentum)?,
            (_, true) => sgd.nesterov_momentum(momentum)?,
        }))
    }

    #[staticmethod]
    fn adam(
        parameters: Vec<(String, PyTensor)>,
        lr: f64,
        betas: (f64, f64),
        eps: f64,
        weight_decay: f64,
        decoupled: bool,
    ) -> Result<Self> {
        let parameters = named(parameters);
        Ok(if decoupled {
            let adam = AdamW::new(parameters, lr)?.betas(betas.0, betas.1)?;
            Self::of(adam.eps(eps)?.weight_decay(weight_decay)?)
        } else {
            let adam = Adam::new(parameters, lr)?.betas(betas.0, betas.1)?;
            Self::of(adam.eps(eps)?.weight_decay(weight_decay)?)
        })
    }

    fn step(&self, py: Python<'_>) -> Result<()> {
        Ok(self.with(py, |optimizer| optimizer.step())?)
    }

    fn zero_grad(&self, py: Python<'_>) {
        self.with(py, |optimizer| optimizer.zero_grad());
    }

    #[getter]
    fn lr(&self, py: Python<'_>) -> f64 {
        self.with(py, |optimizer| optimizer.learning_rate())
    }

    #[setter]
    fn set_lr(&self, py: Python<'_>, lr: f64) -> Result<()> {
        Ok(self.with(py, |optimizer| optimizer.set_learning_rate(lr))?)
    }

    fn state<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyDict>> {
        let state = self.with(py, |optimizer| optimizer.state());
        let hyperparameters = PyDict::new(py);
        for (name, number) in state.hyperparameters {
            hyperparameters.set_item(name, number)?;
        }
        let parameters = PyDict::new(py);
        for parameter in state.parameters {
            let kept = PyDict::new(py);
            kept.set_item("steps", parameter.steps)?;
            for (name, x) in parameter.tensors {
                kept.set_item(name, PyTensor(x))?;
            }
            parameters.set_item(parameter.name, kept)?;
        }
        let dict = PyDict::new(py);
        dict.set_item("hyperparameters", hyperparameters)?;
        dict.set_item("state", parameters)?;
        Ok(dict)
    }

    fn set_state(&self, py: Python<'_>, state: &Bound<'_, PyDict>) -> Result<()> {
        let part = |name| -> Result<Bound<'_, PyDict>> {
            let part = state.get_item(name)?;
            let part =
                part.ok_or_else(|| Raised::value(format!("expected the key {name:?} in a state")))?;
            Ok(part.cast_into().map_err(PyErr::from)?)
        };
        let hyperparameters = part("hyperparameters")?.iter();
        let hyperparameters = hyperparameters
            .map(|(name, number)| Ok((name.extract()?, number.extract()?)))
            .collect::<PyResult<_>>()?;
        let parameters = part("state")?.iter();
        let parameters = parameters.map(|(name, kept)| parameter(&name, &kept));
        let state = OptimizerState {
            hyperparameters,
            parameters: parameters.collect::<Result<_>>()?,
        };
        Ok(self.with(py, |optimizer| optimizer.set_state(state))?)
    }
}

fn parameter(name: &Bound<'_, PyAny>, kept: &Bound<'_, PyAny>) -> Result<ParameterState> {
    let mut state = ParameterState {
        name: name.extract()?,
        steps: 0,
        tensors: Vec::new(),
    };
    for (name, value) in kept.cast::<PyDict>()?.iter() {
        let name: String = name.extract()?;
        if name == "steps" {
            state.steps = value.extract()?;
        } else {
            let tensor = value.cast::<PyTensor>()?.borrow().0.clone();
            state.tensors.push((name, tensor));
        }
    }
    Ok(state)
}
