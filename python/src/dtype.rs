//! [`PyDType`]: the element types, and those of numpy that they are.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyType};
use sorix::DType;

use crate::error::{Raised, Result};

/// The type of a tensor's elements: ``sorix.float16``, ``bfloat16``, ``float32`` or ``float64``.
#[pyclass(name = "dtype", module = "sorix", frozen, eq, hash)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PyDType(pub(crate) DType);

#[pymethods]
impl PyDType {
    /// ``"float32"``.
    #[getter]
    fn name(&self) -> &'static str {
        self.0.name()
    }

    /// Bytes of an element.
    #[getter]
    fn itemsize(&self) -> usize {
        self.0.size()
    }

    fn __repr__(&self) -> String {
        self.0.to_string()
    }

    /// As the attribute of the module ``sorix`` of this name.
    fn __reduce__(&self) -> &'static str {
        self.0.name()
    }
}

/// The object of a dtype: there is one for each, so that users may compare by ``is``.
pub(crate) fn object(py: Python<'_>, dtype: DType) -> PyResult<Bound<'_, PyDType>> {
    static OBJECTS: PyOnceLock<[Py<PyDType>; 4]> = PyOnceLock::new();
    let objects = OBJECTS.get_or_try_init(py, || -> PyResult<_> {
        let [a, b, c, d] = ALL.map(|dtype| Py::new(py, PyDType(dtype)));
        Ok([a?, b?, c?, d?])
    })?;
    let found = ALL.iter().position(|&known| known == dtype);
    match found {
        Some(index) => Ok(objects[index].bind(py).clone()),
        None => Bound::new(py, PyDType(dtype)),
    }
}

/// All of them.
pub(crate) const ALL: [DType; 4] = [DType::F16, DType::BF16, DType::F32, DType::F64];

/// A dtype as users give it: one of ours, one of numpy's, or a name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AnyDType(pub(crate) DType);

impl FromPyObject<'_, '_> for AnyDType {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        if let Ok(dtype) = object.cast::<PyDType>() {
            return Ok(Self(dtype.get().0));
        }
        Ok(Self(foreign(&object)?))
    }
}

fn foreign(object: &Bound<'_, PyAny>) -> Result<DType> {
    let py = object.py();
    let wrong = || {
        let got = object
            .repr()
            .map_or_else(|_| "?".into(), |text| text.to_string());
        Raised::type_(format!(
            "expected a dtype: float16, bfloat16, float32 or float64, got {got}"
        ))
    };
    if let Ok(name) = object.cast::<PyString>()
        && name == "bfloat16"
    {
        // numpy knows it only after ml_dtypes was imported.
        return Ok(DType::BF16);
    }
    if !object.is_instance_of::<PyType>()
        && !object.is_instance_of::<PyString>()
        && !object.is_instance(numpy(py, "dtype")?)?
    {
        return Err(wrong());
    }
    let dtype = numpy(py, "dtype")?.call1((object,)).map_err(|_| wrong())?;
    let name = dtype.getattr("name")?;
    let name = name.cast::<PyString>()?;
    let native = dtype.getattr("isnative")?.extract::<bool>()?;
    ALL.into_iter()
        .find(|ours| native && name == ours.name())
        .ok_or_else(wrong)
}

/// An attribute of numpy.
pub(crate) fn numpy<'py>(py: Python<'py>, name: &'static str) -> PyResult<&'py Bound<'py, PyAny>> {
    macro_rules! cached {
        ($($name:literal)*) => {
            match name {
                $($name => {
                    static CELL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
                    let made = CELL.get_or_try_init(py, || -> PyResult<Py<PyAny>> {
                        Ok(py.import("numpy")?.getattr($name)?.unbind())
                    })?;
                    Ok(made.bind(py))
                })*
                _ => unreachable!("an attribute that is not in the list"),
            }
        };
    }
    cached!("asarray" "ascontiguousarray" "empty_like" "empty" "dtype" "uint16" "uint8" "bool_" "int64" "float64")
}

/// numpy's bfloat16, of the package ml_dtypes.
pub(crate) fn bfloat16(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static CELL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let made = CELL.get_or_try_init(py, || -> PyResult<Py<PyAny>> {
        let module = py.import("ml_dtypes").map_err(|error| {
            let text = "numpy has no bfloat16 of its own: install ml_dtypes, as `pip install sorix-rs[bfloat16]` does";
            let told = pyo3::exceptions::PyImportError::new_err(text);
            told.set_cause(py, Some(error));
            told
        })?;
        let scalar = module.getattr("bfloat16")?;
        Ok(numpy(py, "dtype")?.call1((scalar,))?.unbind())
    })?;
    Ok(made.bind(py))
}
