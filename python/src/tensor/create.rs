//! Tensors from numbers, from arrays, from other tensors.

use numpy::PyUntypedArray;
use pyo3::prelude::*;
use sorix::kernels::MaskKey;
use sorix::{DType, Tensor};

use super::{Given, PyTensor, bytes};
use crate::array::{Input, with_item};
use crate::draws::Shape;
use crate::dtype::{AnyDType, numpy};
use crate::error::Result;
use crate::generator::PyGenerator;
use crate::threads;

/// The elements of an array, or of anything that numpy makes one of, copied once.
pub(crate) fn from_array(data: &Bound<'_, PyAny>) -> Result<Tensor> {
    let py = data.py();
    let array = numpy(py, "asarray")?.call1((data,))?;
    let kind = array.getattr("dtype")?.getattr("kind")?;
    let kind: char = kind.extract()?;
    let array = match kind {
        // Whole numbers and truths have no dtype of their own here.
        'b' | 'i' | 'u' => array.call_method1("astype", (numpy(py, "float64")?,))?,
        _ => array,
    };
    let input = Input::of(array.cast_into::<PyUntypedArray>()?)?;
    with_item!(input.dtype, T => {
        let lent = input.lend::<T>()?;
        let (slice, shape) = (lent.slice()?, input.shape());
        Ok(threads::operation(py, input.bytes(), || Tensor::from_slice(slice, shape))?)
    })
}

/// A tensor of one number, of nested lists of numbers or of an array, copied once.
///
/// Parameters
/// ----------
/// data : Tensor or array_like
///     The elements.
/// dtype : dtype, optional
///     By default that of the data; of Python's numbers, of integers and of bools it is float64.
/// requires_grad : bool
///     Whether the tensor is to gather a gradient.
///
/// Examples
/// --------
/// >>> from sorix import tensor
/// >>> x = tensor([1.0, 2.0], requires_grad=True)
/// >>> (x * x).sum().backward()
/// >>> x.grad
/// tensor([2., 4.], dtype=sorix.float64)
#[pyfunction]
#[pyo3(signature = (data, *, dtype=None, requires_grad=false))]
pub(crate) fn tensor(
    data: &Bound<'_, PyAny>,
    dtype: Option<AnyDType>,
    requires_grad: bool,
) -> Result<PyTensor> {
    let py = data.py();
    let (mut x, shared) = match data.cast::<PyTensor>() {
        Ok(tensor) => (tensor.borrow().0.detach(), true),
        Err(_) => (from_array(data)?, false),
    };
    let from = x.dtype();
    match dtype {
        Some(AnyDType(dtype)) if dtype != from => {
            x = threads::operation(py, bytes(&x), || x.to_dtype(dtype))?;
        }
        _ if shared => x = threads::operation(py, bytes(&x), || x.copy())?,
        _ => {}
    }
    Ok(PyTensor(x.requires_grad(requires_grad)))
}

fn chosen(dtype: Option<AnyDType>) -> DType {
    dtype.map_or(DType::F32, |AnyDType(dtype)| dtype)
}

/// A tensor of zeros; of float32, unless another dtype is given.
#[pyfunction]
#[pyo3(signature = (shape, *, dtype=None, requires_grad=false))]
pub(crate) fn zeros(
    shape: Shape,
    dtype: Option<AnyDType>,
    requires_grad: bool,
) -> Result<PyTensor> {
    let x = Tensor::zeros(shape.list(), chosen(dtype))?;
    Ok(PyTensor(x.requires_grad(requires_grad)))
}

/// A tensor of ones; of float32, unless another dtype is given.
#[pyfunction]
#[pyo3(signature = (shape, *, dtype=None, requires_grad=false))]
pub(crate) fn ones(shape: Shape, dtype: Option<AnyDType>, requires_grad: bool) -> Result<PyTensor> {
    let x = Tensor::ones(shape.list(), chosen(dtype))?;
    Ok(PyTensor(x.requires_grad(requires_grad)))
}

/// A tensor with every element ``value``; of float32, unless another dtype is given.
#[pyfunction]
#[pyo3(signature = (shape, value, *, dtype=None, requires_grad=false))]
pub(crate) fn full(
    shape: Shape,
    value: f64,
    dtype: Option<AnyDType>,
    requires_grad: bool,
) -> Result<PyTensor> {
    let x = Tensor::full(shape.list(), value, chosen(dtype))?;
    Ok(PyTensor(x.requires_grad(requires_grad)))
}

/// The numbers from ``start`` on in steps of ``step``, before ``stop``; with one bound, from 0 to it. Of
/// float32, unless another dtype is given.
#[pyfunction]
#[pyo3(signature = (start, stop=None, step=1.0, *, dtype=None))]
pub(crate) fn arange(
    start: f64,
    stop: Option<f64>,
    step: f64,
    dtype: Option<AnyDType>,
) -> Result<PyTensor> {
    let (start, stop) = stop.map_or((0.0, start), |stop| (start, stop));
    Ok(PyTensor(Tensor::arange(start, stop, step, chosen(dtype))?))
}

/// A generator, or that of the process.
fn next_key(generator: Option<PyRef<'_, PyGenerator>>) -> Result<MaskKey> {
    let generator = generator.map_or_else(PyGenerator::default, |generator| generator.clone());
    Ok(generator.get()?.next_key())
}

/// Numbers from the normal distribution of mean 0 and variance 1; the same for a key on every machine.
#[pyfunction]
#[pyo3(signature = (shape, *, dtype=None, generator=None))]
pub(crate) fn randn(
    py: Python<'_>,
    shape: Shape,
    dtype: Option<AnyDType>,
    generator: Option<PyRef<'_, PyGenerator>>,
) -> Result<PyTensor> {
    normal(py, 0.0, 1.0, shape, dtype, generator)
}

/// Numbers from the normal distribution of this mean and standard deviation.
#[pyfunction]
#[pyo3(signature = (mean, std, shape, *, dtype=None, generator=None))]
pub(crate) fn normal(
    py: Python<'_>,
    mean: f64,
    std: f64,
    shape: Shape,
    dtype: Option<AnyDType>,
    generator: Option<PyRef<'_, PyGenerator>>,
) -> Result<PyTensor> {
    let (shape, dtype, key) = (shape.list(), chosen(dtype), next_key(generator)?);
    let draw = || Tensor::normal(shape, mean, std, dtype, key);
    Ok(PyTensor(threads::operation(py, usize::MAX, draw)?))
}

/// Numbers from the uniform distribution over ``low <= x < high``.
#[pyfunction]
#[pyo3(signature = (low, high, shape, *, dtype=None, generator=None))]
pub(crate) fn uniform(
    py: Python<'_>,
    low: f64,
    high: f64,
    shape: Shape,
    dtype: Option<AnyDType>,
    generator: Option<PyRef<'_, PyGenerator>>,
) -> Result<PyTensor> {
    let (shape, dtype, key) = (shape.list(), chosen(dtype), next_key(generator)?);
    let draw = || Tensor::uniform(shape, low, high, dtype, key);
    Ok(PyTensor(threads::operation(py, usize::MAX, draw)?))
}

/// Tensors one after another along an axis that they have.
#[pyfunction]
#[pyo3(signature = (tensors, axis=0))]
pub(crate) fn concatenate(py: Python<'_>, tensors: Vec<PyTensor>, axis: isize) -> Result<PyTensor> {
    joined(py, &tensors, |tensors| Tensor::concat(tensors, axis))
}

/// Tensors of one shape one after another along a new axis.
#[pyfunction]
#[pyo3(signature = (tensors, axis=0))]
pub(crate) fn stack(py: Python<'_>, tensors: Vec<PyTensor>, axis: isize) -> Result<PyTensor> {
    joined(py, &tensors, |tensors| Tensor::stack(tensors, axis))
}

fn joined(
    py: Python<'_>,
    tensors: &[PyTensor],
    join: impl FnOnce(&[&Tensor]) -> sorix::TensorResult<Tensor> + Send,
) -> Result<PyTensor> {
    let bytes = tensors.iter().map(PyTensor::bytes).sum();
    let tensors: Vec<_> = tensors.iter().map(|tensor| &tensor.0).collect();
    Ok(PyTensor(threads::operation(py, bytes, || join(&tensors))?))
}

/// The element of ``x`` where ``condition`` is not zero, else that of ``y``.
#[pyfunction]
#[pyo3(name = "where")]
pub(crate) fn where_(
    py: Python<'_>,
    condition: Given<'_>,
    x: Given<'_>,
    y: Given<'_>,
) -> Result<PyTensor> {
    let [condition, x, y] = [&condition, &x, &y].map(|given| &given.0);
    let bytes = bytes(condition).max(bytes(x)).max(bytes(y));
    let chosen = threads::operation(py, bytes, || condition.where_cond(x, y))?;
    Ok(PyTensor(chosen))
}
