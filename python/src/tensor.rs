//! [`PyTensor`]: sorix's tensor under the names of numpy and PyTorch.

mod create;
mod index;
mod reduce;

use core::hash::{Hash, Hasher};
use core::ops::Deref;

use numpy::PyUntypedArray;
use pyo3::IntoPyObjectExt;
use pyo3::basic::CompareOp;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyFloat, PyInt, PyTuple, PyType};
use sorix::kernels::{DropRate, MaskKey, MaskRegion};
use sorix::{AttentionOptions, DType, NormOptions, SaveMask, Tensor, TensorResult};

pub(crate) use self::create::{
    arange, concatenate, from_array, full, normal, ones, randn, stack, tensor, uniform, where_,
    zeros,
};
use self::reduce::Over;
use crate::array::with_item;
use crate::draws::{Shard, region};
use crate::dtype::{self, AnyDType, PyDType, bfloat16, numpy};
use crate::error::{Raised, Result};
use crate::fused;
use crate::threads;

/// An array that knows how it was computed.
///
/// Operations return new tensors, and record themselves for :meth:`backward` if an input requires a gradient.
///
/// Parameters
/// ----------
/// data : Tensor or array_like
///     The elements: those of a tensor are shared, others are copied. See :func:`sorix.tensor`.
/// dtype : dtype, optional
///     By default that of the data; of Python's numbers and of numpy's integers it is float64.
/// requires_grad : bool
///     Whether the tensor is to gather a gradient.
#[pyclass(name = "Tensor", module = "sorix", subclass, from_py_object)]
#[derive(Clone, Debug)]
pub(crate) struct PyTensor(pub(crate) Tensor);

impl PyTensor {
    /// Bytes of the elements, for deciding where to work.
    pub(crate) fn bytes(&self) -> usize {
        bytes(&self.0)
    }

    /// Runs an operation on this tensor.
    fn unary(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&Tensor) -> TensorResult<Tensor> + Send,
    ) -> Result<Self> {
        let x = &self.0;
        Ok(Self(threads::operation(py, self.bytes(), || f(x))?))
    }

    /// Runs an operation on this tensor and another.
    fn binary(
        &self,
        py: Python<'_>,
        other: &Tensor,
        f: impl FnOnce(&Tensor, &Tensor) -> TensorResult<Tensor> + Send,
    ) -> Result<Self> {
        let (x, bytes) = (&self.0, self.bytes().max(bytes(other)));
        Ok(Self(threads::operation(py, bytes, || f(x, other))?))
    }

    /// How an operation on this tensor that is given a key drops.
    fn draw(
        &self,
        p: f64,
        (seed, offset): (u64, u64),
        shard: Option<&Bound<'_, Shard>>,
        save_mask: &str,
    ) -> Result<(DropRate, MaskRegion, SaveMask)> {
        let rate = DropRate::new(p)?;
        let save = match save_mask {
            "bits" => SaveMask::Bits,
            "key" => SaveMask::Replay,
            _ => {
                return Err(Raised::value(format!(
                    "save_mask: expected 'bits' or 'key', got {save_mask:?}"
                )));
            }
        };
        let key = MaskKey::new(seed, offset);
        let at = region(key, 0, shard.map(Bound::get), self.0.shape())?;
        Ok((rate, at, save))
    }

    /// Runs an operation on this tensor and what stands on the other side of an operator.
    fn with_operand<'py>(
        &self,
        other: &Bound<'py, PyAny>,
        on_tensor: impl FnOnce(&Tensor, &Tensor) -> TensorResult<Tensor> + Send,
        on_number: impl FnOnce(&Tensor, f64) -> TensorResult<Tensor> + Send,
    ) -> Result<Bound<'py, PyAny>> {
        let py = other.py();
        let result = match operand(other)? {
            Some(Operand::Tensor(other)) => self.binary(py, &other, on_tensor)?,
            Some(Operand::Number(number)) => self.unary(py, |x| on_number(x, number))?,
            None => return Ok(py.NotImplemented().into_bound(py)),
        };
        Ok(result.into_bound_py_any(py)?)
    }
}

/// Bytes of the elements of a tensor.
pub(crate) fn bytes(x: &Tensor) -> usize {
    x.numel().saturating_mul(x.dtype().size())
}

/// What stands on the other side of an operator.
enum Operand {
    Tensor(Tensor),
    Number(f64),
}

/// `None` if it is nothing that a tensor can be combined with.
fn operand(object: &Bound<'_, PyAny>) -> Result<Option<Operand>> {
    if let Ok(tensor) = object.cast::<PyTensor>() {
        return Ok(Some(Operand::Tensor(tensor.borrow().0.clone())));
    }
    if object.is_instance_of::<PyFloat>() || object.is_instance_of::<PyInt>() {
        return Ok(Some(Operand::Number(object.extract()?)));
    }
    if let Ok(array) = object.cast::<PyUntypedArray>() {
        return Ok(Some(Operand::Tensor(from_array(array.as_any())?)));
    }
    // numpy's scalars, of any dtype.
    Ok(object.extract().ok().map(Operand::Number))
}

#[pymethods]
impl PyTensor {
    #[new]
    #[pyo3(signature = (data, dtype=None, requires_grad=false))]
    fn new(data: &Bound<'_, PyAny>, dtype: Option<AnyDType>, requires_grad: bool) -> Result<Self> {
        let py = data.py();
        let x = match data.cast::<PyTensor>() {
            Ok(tensor) => tensor.borrow().0.detach(),
            Err(_) => from_array(data)?,
        };
        let x = match dtype {
            Some(AnyDType(dtype)) if dtype != x.dtype() => {
                Self(x).unary(py, |x| x.to_dtype(dtype))?.0
            }
            _ => x,
        };
        Ok(Self(x.requires_grad(requires_grad)))
    }

    /// The length of each axis.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.0.shape())
    }

    /// How many elements further in memory the next index of each axis is.
    #[getter]
    fn strides<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.0.strides())
    }

    /// The type of the elements.
    #[getter]
    fn dtype<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDType>> {
        dtype::object(py, self.0.dtype())
    }

    /// The number of axes.
    #[getter]
    fn ndim(&self) -> usize {
        self.0.ndim()
    }

    /// The number of elements.
    #[getter]
    fn size(&self) -> usize {
        self.0.numel()
    }

    /// The number of elements.
    fn numel(&self) -> usize {
        self.0.numel()
    }

    /// With the axes in reverse order.
    #[getter(T)]
    fn t(&self, py: Python<'_>) -> Result<Self> {
        let axes: Vec<isize> = (0..self.0.ndim() as isize).rev().collect();
        self.unary(py, |x| x.permute(&axes))
    }

    /// The elements as a read-only array of numpy, without a copy. It shows them as they are now: where an
    /// optimiser changes them later, it keeps the old ones.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        let shown = Elements(self.0.snapshot());
        let array = numpy(py, "asarray")?.call1((shown,))?;
        match self.0.dtype() {
            DType::BF16 => Ok(array.call_method1("view", (bfloat16(py)?,))?),
            _ => Ok(array),
        }
    }

    /// The elements as a read-only array of numpy, without a copy, as :attr:`data`.
    fn numpy<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        self.data(py)
    }

    #[pyo3(signature = (dtype=None, copy=None))]
    fn __array__<'py>(
        &self,
        py: Python<'py>,
        dtype: Option<&Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> Result<Bound<'py, PyAny>> {
        let array = self.data(py)?;
        let changes = match dtype {
            Some(dtype) => !array.getattr("dtype")?.eq(dtype)?,
            None => false,
        };
        if changes && copy == Some(false) {
            let text = "expected a conversion that needs no copy, got another dtype";
            return Err(Raised::value(text));
        }
        if let (Some(dtype), true) = (dtype, changes) {
            return Ok(array.call_method1("astype", (dtype,))?);
        }
        if copy == Some(true) {
            return Ok(array.call_method0("copy")?);
        }
        Ok(array)
    }

    /// numpy leaves operators between its arrays and tensors to the tensors.
    #[classattr]
    fn __array_ufunc__() -> Option<bool> {
        None
    }

    /// The only element as a number.
    fn item(&self) -> Result<f64> {
        item(&self.0)
    }

    /// The elements as nested lists of numbers.
    fn tolist<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        Ok(numpy(py, "asarray")?
            .call1((self.data(py)?, numpy(py, "float64")?))?
            .call_method0("tolist")?)
    }

    /// The gradient that :meth:`backward` has gathered, or None. Setting it to None clears it.
    #[getter]
    fn grad(&self) -> Option<Self> {
        self.0.grad().map(Self)
    }

    #[setter]
    fn set_grad(&self, grad: Option<&Bound<'_, PyAny>>) -> Result<()> {
        if grad.is_some() {
            return Err(Raised::type_("grad: expected None, which clears it"));
        }
        self.0.zero_grad();
        Ok(())
    }

    /// Clears the gradient.
    fn zero_grad(&self) {
        self.0.zero_grad();
    }

    /// Whether the tensor gathers a gradient, or was computed from one that does.
    #[getter]
    fn requires_grad(&self) -> bool {
        self.0.needs_grad()
    }

    #[setter]
    fn set_requires_grad(&mut self, requires_grad: bool) -> Result<()> {
        if !self.0.is_leaf() {
            return if requires_grad {
                Ok(())
            } else {
                let text = "requires_grad: a tensor that was computed cannot do without a gradient; detach() gives one that can";
                Err(PyRuntimeError::new_err(text).into())
            };
        }
        if requires_grad {
            // The same leaf again, if it was one and was frozen.
            self.0.unfreeze();
            self.0 = self.0.requires_grad(true);
        } else {
            self.0.freeze();
        }
        Ok(())
    }

    /// Sets :attr:`requires_grad` and returns the tensor itself.
    #[pyo3(signature = (requires_grad=true))]
    fn requires_grad_(
        mut slf: PyRefMut<'_, Self>,
        requires_grad: bool,
    ) -> Result<PyRefMut<'_, Self>> {
        slf.set_requires_grad(requires_grad)?;
        Ok(slf)
    }

    /// Whether the tensor was not computed from one that requires a gradient.
    #[getter]
    fn is_leaf(&self) -> bool {
        self.0.is_leaf()
    }

    /// Whether the elements lie in memory in row-major order.
    fn is_contiguous(&self) -> bool {
        self.0.is_contiguous()
    }

    /// Computes the gradients of all leaves that this tensor depends on, and adds them to theirs.
    ///
    /// Parameters
    /// ----------
    /// gradient : Tensor, optional
    ///     That of this tensor; needed unless it has one element.
    /// retain_graph : bool
    ///     Whether to keep what a second call needs.
    #[pyo3(signature = (gradient=None, *, retain_graph=false))]
    fn backward(
        &self,
        py: Python<'_>,
        gradient: Option<PyRef<'_, Self>>,
        retain_graph: bool,
    ) -> Result<()> {
        let gradient = gradient.map(|gradient| gradient.0.clone());
        let x = &self.0;
        // What was recorded may be large though this is one number.
        threads::operation(py, usize::MAX, || match gradient {
            gradient if retain_graph => x.backward_retain_graph(gradient.as_ref()),
            Some(gradient) => x.backward_with(&gradient),
            None => x.backward(),
        })?;
        Ok(())
    }

    /// The same elements, apart from the graph.
    fn detach(&self) -> Self {
        Self(self.0.detach())
    }

    /// A copy, through which the gradient passes.
    fn clone(&self, py: Python<'_>) -> Result<Self> {
        self.unary(py, Tensor::copy)
    }

    /// Writes the elements of another tensor of the same shape and dtype over those of this one; within
    /// :class:`sorix.no_grad`, if this one requires a gradient. Returns the tensor itself.
    fn copy_<'py>(
        slf: PyRef<'py, Self>,
        py: Python<'_>,
        other: PyRef<'py, Self>,
    ) -> Result<PyRef<'py, Self>> {
        let (x, other) = (slf.0.clone(), other.0.clone());
        threads::operation(py, slf.bytes(), || x.assign(&other))?;
        Ok(slf)
    }

    /// The tensor in another dtype, each element rounded once; the tensor itself if it has that dtype.
    fn astype(&self, py: Python<'_>, dtype: AnyDType) -> Result<Self> {
        self.unary(py, |x| x.to_dtype(dtype.0))
    }

    /// The same as :meth:`astype`.
    fn to(&self, py: Python<'_>, dtype: AnyDType) -> Result<Self> {
        self.astype(py, dtype)
    }

    fn __repr__(&self) -> String {
        self.0.to_string()
    }

    fn __len__(&self) -> Result<usize> {
        let first = self.0.shape().first();
        first
            .copied()
            .ok_or_else(|| Raised::type_("len() of a tensor without axes"))
    }

    fn __bool__(&self) -> Result<bool> {
        if self.0.numel() != 1 {
            let text = "the truth of a tensor that does not have one element is ambiguous";
            return Err(Raised::value(text));
        }
        Ok(item(&self.0)? != 0.0)
    }

    fn __float__(&self) -> Result<f64> {
        item(&self.0)
    }

    fn __int__<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        Ok(PyFloat::new(py, item(&self.0)?).call_method0("__int__")?)
    }

    fn __iter__<'py>(slf: &Bound<'py, Self>) -> Result<Bound<'py, PyAny>> {
        let x = slf.borrow();
        let rows = (0..x.__len__()?).map(|row| x.row(slf.py(), row));
        let rows = rows.collect::<Result<Vec<_>>>()?;
        Ok(rows.into_bound_py_any(slf.py())?.try_iter()?.into_any())
    }

    fn __hash__(slf: &Bound<'_, Self>) -> u64 {
        // As objects of Python are by default.
        let mut hasher = std::hash::DefaultHasher::new();
        slf.as_ptr().hash(&mut hasher);
        hasher.finish()
    }

    fn __richcmp__<'py>(
        &self,
        other: &Bound<'py, PyAny>,
        op: CompareOp,
    ) -> Result<Bound<'py, PyAny>> {
        let compare = match op {
            CompareOp::Lt => Tensor::lt,
            CompareOp::Le => Tensor::le,
            CompareOp::Eq => Tensor::eq,
            CompareOp::Ne => Tensor::ne,
            CompareOp::Gt => Tensor::gt,
            CompareOp::Ge => Tensor::ge,
        };
        self.with_operand(other, compare, |x, number| {
            compare(x, &Tensor::full([], number, x.dtype())?)
        })
    }

    fn __neg__(&self, py: Python<'_>) -> Result<Self> {
        self.unary(py, Tensor::neg)
    }

    fn __pos__(&self) -> Self {
        Clone::clone(self)
    }

    fn __abs__(&self, py: Python<'_>) -> Result<Self> {
        self.unary(py, Tensor::abs)
    }

    fn __add__<'py>(&self, other: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        self.with_operand(other, Tensor::add, Tensor::add_scalar)
    }

    fn __radd__<'py>(&self, other: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        self.with_operand(other, |x, y| y.add(x), Tensor::add_scalar)
    }

    fn __sub__<'py>(&self, other: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        self.with_operand(other, Tensor::sub, |x, number| x.add_scalar(-number))
    }

    fn __rsub__<'py>(&self, other: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        self.with_operand(other, |x, y| y.sub(x), Tensor::rsub_scalar)
    }

    fn __mul__<'py>(&self, other: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        self.with_operand(other, Tensor::mul, Tensor::mul_scalar)
    }

    fn __rmul__<'py>(&self, other: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        self.with_operand(other, |x, y| y.mul(x), Tensor::mul_scalar)
    }

    fn __truediv__<'py>(&self, other: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        self.with_operand(other, Tensor::div, Tensor::div_scalar)
    }

    fn __rtruediv__<'py>(&self, other: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        self.with_operand(other, |x, y| y.div(x), Tensor::rdiv_scalar)
    }

    fn __matmul__<'py>(&self, other: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        let py = other.py();
        match operand(other)? {
            Some(Operand::Tensor(other)) => {
                let product = self.binary(py, &other, Tensor::matmul)?;
                Ok(product.into_bound_py_any(py)?)
            }
            _ => Ok(py.NotImplemented().into_bound(py)),
        }
    }

    fn __rmatmul__<'py>(&self, other: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        let py = other.py();
        match operand(other)? {
            Some(Operand::Tensor(other)) => {
                let product = self.binary(py, &other, |x, y| y.matmul(x))?;
                Ok(product.into_bound_py_any(py)?)
            }
            _ => Ok(py.NotImplemented().into_bound(py)),
        }
    }

    fn __pow__<'py>(
        &self,
        exponent: &Bound<'py, PyAny>,
        modulo: Option<&Bound<'py, PyAny>>,
    ) -> Result<Bound<'py, PyAny>> {
        let py = exponent.py();
        match operand(exponent)? {
            Some(Operand::Number(exponent)) if modulo.is_none() => {
                let power = self.unary(py, |x| x.powf(exponent))?;
                Ok(power.into_bound_py_any(py)?)
            }
            _ => Ok(py.NotImplemented().into_bound(py)),
        }
    }

    /// To the power of a number.
    fn pow(&self, py: Python<'_>, exponent: f64) -> Result<Self> {
        self.unary(py, |x| x.powf(exponent))
    }

    /// The product of matrices.
    fn matmul(&self, py: Python<'_>, other: PyRef<'_, Self>) -> Result<Self> {
        self.binary(py, &other.0, Tensor::matmul)
    }

    /// The larger one of each two elements.
    fn maximum(&self, py: Python<'_>, other: PyRef<'_, Self>) -> Result<Self> {
        self.binary(py, &other.0, Tensor::maximum)
    }

    /// The smaller one of each two elements.
    fn minimum(&self, py: Python<'_>, other: PyRef<'_, Self>) -> Result<Self> {
        self.binary(py, &other.0, Tensor::minimum)
    }

    /// ``value`` where ``mask`` is not zero, else the element.
    fn masked_fill(&self, py: Python<'_>, mask: PyRef<'_, Self>, value: f64) -> Result<Self> {
        self.binary(py, &mask.0, |x, mask| x.masked_fill(mask, value))
    }

    /// ``residual + dropout(x)`` in one pass over memory, by the mask of a key.
    ///
    /// Product and sum are rounded to the dtype together, where two operations round 16 bits twice. The gradient
    /// of the residual is that of the result itself.
    ///
    /// Parameters
    /// ----------
    /// residual : Tensor
    ///     Of the shape and dtype of this tensor.
    /// p : float
    ///     The probability of dropping, in [0, 1].
    /// seed, offset : int
    ///     The name of the mask, each in [0, 2**64), as for :func:`sorix.dropout`.
    /// shard : Shard, optional
    ///     Which part of a larger tensor this one is: it gets the part of the mask of that one.
    /// save_mask : {"bits", "key"}
    ///     What is kept for backward: a bit for each element, or the 16 bytes from which they are made again.
    ///
    /// Examples
    /// --------
    /// >>> import sorix
    /// >>> x, residual = sorix.ones(4, requires_grad=True), sorix.full(4, 10.0, requires_grad=True)
    /// >>> y = x.dropout_add(residual, 0.5, seed=42)
    /// >>> y
    /// tensor([12., 12., 10., 12.], dtype=sorix.float32)
    /// >>> y.sum().backward()
    /// >>> x.grad, residual.grad
    /// (tensor([2., 2., 0., 2.], dtype=sorix.float32), tensor([1., 1., 1., 1.], dtype=sorix.float32))
    #[pyo3(signature = (residual, p, *, seed, offset=0, shard=None, save_mask="bits"))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn dropout_add(
        &self,
        py: Python<'_>,
        residual: PyRef<'_, Self>,
        p: f64,
        seed: u64,
        offset: u64,
        shard: Option<&Bound<'_, Shard>>,
        save_mask: &str,
    ) -> Result<Self> {
        let (rate, at, save) = self.draw(p, (seed, offset), shard, save_mask)?;
        self.binary(py, &residual.0, |x, residual| {
            x.dropout_add(residual, rate, at, save)
        })
    }

    /// ``dropout(activation(x + bias))`` in one pass over memory, by the mask of a key.
    ///
    /// 16 bits are rounded once. Of ``"relu"`` one bit for each element is kept for backward, whatever
    /// ``save_mask`` says; of the others this tensor, the bias and the mask.
    ///
    /// Parameters
    /// ----------
    /// activation : {"relu", "gelu", "gelu_tanh", "silu"}
    ///     What is computed; ``"gelu"`` is the exact form, ``"gelu_tanh"`` the approximation.
    /// p : float
    ///     The probability of dropping, in [0, 1].
    /// bias : Tensor, optional
    ///     Of the dtype of this tensor, as long as its last axis.
    /// seed, offset, shard, save_mask
    ///     As for :meth:`dropout_add`.
    ///
    /// Examples
    /// --------
    /// >>> import sorix
    /// >>> x = sorix.tensor([1.0, -1.0, 3.0, 4.0], requires_grad=True)
    /// >>> y = x.act_dropout("relu", 0.5, seed=42)
    /// >>> y
    /// tensor([2., 0., 0., 8.], dtype=sorix.float64)
    /// >>> y.sum().backward()
    /// >>> x.grad
    /// tensor([2., 0., 0., 2.], dtype=sorix.float64)
    #[pyo3(signature = (activation, p, *, bias=None, seed, offset=0, shard=None, save_mask="bits"))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn act_dropout(
        &self,
        py: Python<'_>,
        activation: &str,
        p: f64,
        bias: Option<PyRef<'_, Self>>,
        seed: u64,
        offset: u64,
        shard: Option<&Bound<'_, Shard>>,
        save_mask: &str,
    ) -> Result<Self> {
        let activation = fused::activation(activation)?;
        let (rate, at, save) = self.draw(p, (seed, offset), shard, save_mask)?;
        let bias = bias.map(|bias| bias.0.clone());
        self.unary(py, |x| {
            x.act_dropout(activation, bias.as_ref(), rate, at, save)
        })
    }

    /// ``dropout(silu(gate) * up)`` in one pass over memory, by the mask of a key; this tensor is the gate.
    ///
    /// 16 bits are rounded once. Both tensors are kept for backward, and the mask.
    ///
    /// Parameters
    /// ----------
    /// up : Tensor
    ///     Of the shape and dtype of this tensor.
    /// p, seed, offset, shard, save_mask
    ///     As for :meth:`dropout_add`.
    ///
    /// Examples
    /// --------
    /// >>> import sorix
    /// >>> gate, up = sorix.full(4, 800.0), sorix.tensor([1.0, 2.0, 3.0, 4.0], dtype="float32")
    /// >>> gate.swiglu_dropout(up, 0.5, seed=42)
    /// tensor([1600., 3200.,    0., 6400.], dtype=sorix.float32)
    #[pyo3(signature = (up, p, *, seed, offset=0, shard=None, save_mask="bits"))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn swiglu_dropout(
        &self,
        py: Python<'_>,
        up: PyRef<'_, Self>,
        p: f64,
        seed: u64,
        offset: u64,
        shard: Option<&Bound<'_, Shard>>,
        save_mask: &str,
    ) -> Result<Self> {
        let (rate, at, save) = self.draw(p, (seed, offset), shard, save_mask)?;
        self.binary(py, &up.0, |gate, up| {
            gate.swiglu_dropout(up, rate, at, save)
        })
    }

    /// ``residual + dropout(x + bias)`` in one pass over memory, by the mask of a key.
    ///
    /// 16 bits are rounded once. The gradient of the bias is the sum of that of this tensor over all axes but
    /// the last, in an order that no number of threads changes.
    ///
    /// Parameters
    /// ----------
    /// bias : Tensor
    ///     Of the dtype of this tensor, as long as its last axis.
    /// residual : Tensor
    ///     Of the shape and dtype of this tensor.
    /// p, seed, offset, shard, save_mask
    ///     As for :meth:`dropout_add`.
    ///
    /// Examples
    /// --------
    /// >>> import sorix
    /// >>> x, residual = sorix.ones((2, 2)), sorix.full((2, 2), 10.0)
    /// >>> bias = sorix.tensor([0.5, -0.5], dtype="float32", requires_grad=True)
    /// >>> y = x.bias_dropout_add(bias, residual, 0.5, seed=42)
    /// >>> y.flatten()
    /// tensor([13., 11., 10., 11.], dtype=sorix.float32)
    /// >>> y.sum().backward()
    /// >>> bias.grad
    /// tensor([2., 4.], dtype=sorix.float32)
    #[pyo3(signature = (bias, residual, p, *, seed, offset=0, shard=None, save_mask="bits"))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn bias_dropout_add(
        &self,
        py: Python<'_>,
        bias: PyRef<'_, Self>,
        residual: PyRef<'_, Self>,
        p: f64,
        seed: u64,
        offset: u64,
        shard: Option<&Bound<'_, Shard>>,
        save_mask: &str,
    ) -> Result<Self> {
        let (rate, at, save) = self.draw(p, (seed, offset), shard, save_mask)?;
        let bias = &bias.0;
        self.binary(py, &residual.0, |x, residual| {
            x.bias_dropout_add(bias, residual, rate, at, save)
        })
    }

    /// The rows of ``residual + dropout(x + bias)``, normalised, and that sum, in one pass over memory, by the
    /// mask of a key.
    ///
    /// In the prenorm form of a transformer the sum is the next residual; in the postnorm form the normalised
    /// rows are. The sum, and all gradients, are float32 for float16 and bfloat16.
    ///
    /// Parameters
    /// ----------
    /// residual : Tensor
    ///     Of the shape of this tensor, and of its dtype, or float32 for 16 bits.
    /// p : float
    ///     The probability of dropping, in [0, 1]; 0 in use.
    /// norm : {"layer", "rms"}
    ///     Mean 0 and variance 1, or a mean of squares of 1.
    /// weight, shift : Tensor, optional
    ///     What each normalised row is multiplied by, and what is added then; of the shape of the normalised axes.
    /// bias : Tensor, optional
    ///     What is added to each row of this tensor, before dropout.
    /// eps : float
    ///     Is added to the variance, or to the mean of squares.
    /// axes : int
    ///     How many of the last axes make a row.
    /// seed, offset, shard, save_mask
    ///     As for :meth:`dropout_add`.
    ///
    /// Returns
    /// -------
    /// z, sum : Tensor
    ///     The normalised rows, of the dtype of this tensor, and the sum.
    ///
    /// Examples
    /// --------
    /// >>> import sorix
    /// >>> x, residual = sorix.tensor([[1.0, 3.0]]), sorix.tensor([[10.0, 20.0]])
    /// >>> z, total = x.dropout_add_norm(residual, 0.5, seed=42, eps=0.0)
    /// >>> z, total
    /// (tensor([[-1.,  1.]], dtype=sorix.float64), tensor([[12., 26.]], dtype=sorix.float64))
    #[pyo3(signature = (residual, p, *, norm="layer", weight=None, shift=None, bias=None, eps=1e-5, axes=1, seed, offset=0, shard=None, save_mask="bits"))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn dropout_add_norm(
        &self,
        py: Python<'_>,
        residual: PyRef<'_, Self>,
        p: f64,
        norm: &str,
        weight: Option<PyRef<'_, Self>>,
        shift: Option<PyRef<'_, Self>>,
        bias: Option<PyRef<'_, Self>>,
        eps: f64,
        axes: usize,
        seed: u64,
        offset: u64,
        shard: Option<&Bound<'_, Shard>>,
        save_mask: &str,
    ) -> Result<(Self, Self)> {
        let mut options = match norm {
            "layer" => NormOptions::layer(eps),
            "rms" => NormOptions::rms(eps),
            _ => {
                let text = format!("norm: expected \"layer\" or \"rms\", got {norm:?}");
                return Err(Raised::value(text));
            }
        }
        .axes(axes);
        if let Some(weight) = &weight {
            options = options.weight(&weight.0);
        }
        if let Some(shift) = &shift {
            options = options.shift(&shift.0);
        }
        if let Some(bias) = &bias {
            options = options.bias(&bias.0);
        }
        let (rate, at, save) = self.draw(p, (seed, offset), shard, save_mask)?;
        let (x, residual) = (&self.0, &residual.0);
        let bytes = self.bytes().max(bytes(residual));
        let work = || x.dropout_add_norm(residual, options, rate, at, save);
        let (z, sum) = threads::operation(py, bytes, work)?;
        Ok((Self(z), Self(sum)))
    }

    /// ``dropout(softmax(scale * x + attn_mask))`` over the last axis, by the mask of a key.
    ///
    /// A row all of which is masked out becomes zeros, and has zeros as its gradient.
    ///
    /// Parameters
    /// ----------
    /// p : float
    ///     The probability of dropping, in [0, 1]; 0 in use.
    /// attn_mask : Tensor, optional
    ///     Is added; broadcasts to the shape of this tensor, and has its dtype, or float32 for 16 bits. Minus
    ///     infinity masks an element out.
    /// scale : float
    ///     What this tensor is multiplied by.
    /// seed, offset, shard, save_mask
    ///     As for :meth:`dropout_add`.
    ///
    /// Examples
    /// --------
    /// >>> import sorix
    /// >>> x = sorix.tensor([[0.0, 0.0], [1.0, 1.0]])
    /// >>> attn_mask = sorix.tensor([0.0, float("-inf")])
    /// >>> x.softmax_dropout(0.0, attn_mask=attn_mask, seed=42)
    /// tensor([[1., 0.],
    ///         [1., 0.]], dtype=sorix.float64)
    #[pyo3(signature = (p, *, attn_mask=None, scale=1.0, seed, offset=0, shard=None, save_mask="bits"))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn softmax_dropout(
        &self,
        py: Python<'_>,
        p: f64,
        attn_mask: Option<PyRef<'_, Self>>,
        scale: f64,
        seed: u64,
        offset: u64,
        shard: Option<&Bound<'_, Shard>>,
        save_mask: &str,
    ) -> Result<Self> {
        let (rate, at, save) = self.draw(p, (seed, offset), shard, save_mask)?;
        let attn_mask = attn_mask.as_ref().map(|mask| &mask.0);
        self.unary(py, |x| x.softmax_dropout(attn_mask, scale, rate, at, save))
    }

    /// ``dropout(softmax(scale * query @ key.T + attn_mask)) @ value`` with this tensor as the query, without the
    /// matrix of probabilities ever being in memory: names and shapes as in PyTorch.
    ///
    /// A query for which every key is masked out gets zeros. The dropout's mask is the one that a tensor of
    /// probabilities, of shape ``(..., L, S)``, gets by the same key; backward makes it again.
    ///
    /// Parameters
    /// ----------
    /// key, value : Tensor
    ///     Of shapes ``(..., S, E)`` and ``(..., S, Ev)``, for a query of shape ``(..., L, E)``; of one dtype.
    /// attn_mask : Tensor, optional
    ///     Is added to the scores, to whose shape it broadcasts; minus infinity masks a key out. It
    ///     may require a gradient.
    /// dropout_p : float
    ///     The probability of dropping, in [0, 1]; 0 in use.
    /// is_causal : bool
    ///     Whether query i sees keys 0 to i alone.
    /// scale : float, optional
    ///     By default one over the square root of E.
    /// enable_gqa : bool
    ///     Whether neighbouring heads of the query may share a head of key and value.
    /// seed, offset, shard
    ///     As for :meth:`dropout_add`, of the shape of the scores; without a seed nothing may be dropped.
    ///
    /// Examples
    /// --------
    /// >>> import sorix
    /// >>> x = sorix.tensor([[1.0, 2.0], [3.0, 4.0]])
    /// >>> x.scaled_dot_product_attention(x, x, is_causal=True)[0]
    /// tensor([1., 2.], dtype=sorix.float64)
    #[pyo3(signature = (key, value, attn_mask=None, dropout_p=0.0, is_causal=false, *, scale=None, enable_gqa=false, seed=None, offset=0, shard=None))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn scaled_dot_product_attention(
        &self,
        py: Python<'_>,
        key: PyRef<'_, Self>,
        value: PyRef<'_, Self>,
        attn_mask: Option<PyRef<'_, Self>>,
        dropout_p: f64,
        is_causal: bool,
        scale: Option<f64>,
        enable_gqa: bool,
        seed: Option<u64>,
        offset: u64,
        shard: Option<&Bound<'_, Shard>>,
    ) -> Result<Self> {
        let mut options = AttentionOptions::new()
            .is_causal(is_causal)
            .enable_gqa(enable_gqa);
        if let Some(scale) = scale {
            options = options.scale(scale);
        }
        let attn_mask = attn_mask.as_ref().map(|mask| &mask.0);
        if let Some(attn_mask) = attn_mask {
            options = options.attn_mask(attn_mask);
        }
        let rate = DropRate::new(dropout_p)?;
        if let Some(seed) = seed {
            let mut scores = self.0.shape().to_vec();
            // What has fewer axes is an error of the operation.
            if let (Some(last), [.., keys, _]) = (scores.last_mut(), key.0.shape()) {
                *last = *keys;
            }
            let at = region(
                MaskKey::new(seed, offset),
                0,
                shard.map(Bound::get),
                &scores,
            )?;
            options = options.dropout(rate, at);
        } else if rate.p() > 0.0 {
            let text = format!("seed: expected a number, as dropout_p is {dropout_p}, got None");
            return Err(Raised::value(text));
        }
        let (query, key, value) = (&self.0, &key.0, &value.0);
        let bytes = self.bytes().max(bytes(key)).max(bytes(value));
        let work = || query.scaled_dot_product_attention(key, value, options);
        Ok(Self(threads::operation(py, bytes, work)?))
    }

    /// The absolute value.
    fn abs(&self, py: Python<'_>) -> Result<Self> {
        self.unary(py, Tensor::abs)
    }

    /// e to the power of each element.
    fn exp(&self, py: Python<'_>) -> Result<Self> {
        self.unary(py, Tensor::exp)
    }

    /// ``exp(x) - 1``, exact near 0.
    fn expm1(&self, py: Python<'_>) -> Result<Self> {
        self.unary(py, Tensor::expm1)
    }

    /// The natural logarithm.
    fn log(&self, py: Python<'_>) -> Result<Self> {
        self.unary(py, Tensor::log)
    }

    /// ``log(1 + x)``, exact near 0.
    fn log1p(&self, py: Python<'_>) -> Result<Self> {
        self.unary(py, Tensor::log1p)
    }

    /// The square root.
    fn sqrt(&self, py: Python<'_>) -> Result<Self> {
        self.unary(py, Tensor::sqrt)
    }

    /// The hyperbolic tangent.
    fn tanh(&self, py: Python<'_>) -> Result<Self> {
        self.unary(py, Tensor::tanh)
    }

    /// ``1 / (1 + exp(-x))``.
    fn sigmoid(&self, py: Python<'_>) -> Result<Self> {
        self.unary(py, Tensor::sigmoid)
    }

    /// The larger one of 0 and each element.
    fn relu(&self, py: Python<'_>) -> Result<Self> {
        self.unary(py, Tensor::relu)
    }

    /// The Gaussian error linear unit: exact (``"none"``), or by a formula with ``"tanh"``.
    #[pyo3(signature = (approximate="none"))]
    fn gelu(&self, py: Python<'_>, approximate: &str) -> Result<Self> {
        match approximate {
            "none" => self.unary(py, Tensor::gelu),
            "tanh" => self.unary(py, Tensor::gelu_tanh),
            _ => Err(Raised::value(format!(
                "approximate: expected \"none\" or \"tanh\", got {approximate:?}"
            ))),
        }
    }

    /// ``x / (1 + exp(-x))``, the sigmoid linear unit.
    fn silu(&self, py: Python<'_>) -> Result<Self> {
        self.unary(py, Tensor::silu)
    }

    /// The scaled exponential linear unit.
    fn selu(&self, py: Python<'_>) -> Result<Self> {
        self.unary(py, Tensor::selu)
    }

    /// ``log(1 + exp(x))``.
    fn softplus(&self, py: Python<'_>) -> Result<Self> {
        self.unary(py, Tensor::softplus)
    }

    /// ``exp(x)`` divided by its sum along an axis.
    fn softmax(&self, py: Python<'_>, axis: isize) -> Result<Self> {
        self.unary(py, |x| x.softmax(axis))
    }

    /// The logarithm of :meth:`softmax`.
    fn log_softmax(&self, py: Python<'_>, axis: isize) -> Result<Self> {
        self.unary(py, |x| x.log_softmax(axis))
    }

    /// Each element, or the bound that it is beyond.
    #[pyo3(signature = (min=None, max=None))]
    fn clip(&self, py: Python<'_>, min: Option<f64>, max: Option<f64>) -> Result<Self> {
        let low = min.unwrap_or(f64::NEG_INFINITY);
        let high = max.unwrap_or(f64::INFINITY);
        self.unary(py, |x| x.clamp(low, high))
    }

    /// The elements below a diagonal, and on it; zero elsewhere. Of the last two axes.
    #[pyo3(signature = (k=0))]
    fn tril(&self, py: Python<'_>, k: isize) -> Result<Self> {
        self.unary(py, |x| x.tril(k))
    }

    /// The same elements under another shape; one length may be -1.
    #[pyo3(signature = (*shape))]
    fn reshape(&self, py: Python<'_>, shape: Lengths) -> Result<Self> {
        self.unary(py, |x| x.reshape_infer(&shape.0))
    }

    /// The axes from ``start`` to ``end`` as one.
    #[pyo3(signature = (start=0, end=-1))]
    fn flatten(&self, py: Python<'_>, start: isize, end: isize) -> Result<Self> {
        self.unary(py, |x| x.flatten(start, end))
    }

    /// Without an axis of length 1, or without all of them.
    #[pyo3(signature = (axis=None))]
    fn squeeze(&self, py: Python<'_>, axis: Option<isize>) -> Result<Self> {
        match axis {
            Some(axis) => self.unary(py, |x| x.squeeze(axis)),
            None => self.unary(py, Tensor::squeeze_all),
        }
    }

    /// With a new axis of length 1.
    fn unsqueeze(&self, py: Python<'_>, axis: isize) -> Result<Self> {
        self.unary(py, |x| x.unsqueeze(axis))
    }

    /// With two axes exchanged.
    fn transpose(&self, py: Python<'_>, axis0: isize, axis1: isize) -> Result<Self> {
        self.unary(py, |x| x.transpose(axis0, axis1))
    }

    /// With the axes in another order.
    #[pyo3(signature = (*axes))]
    fn permute(&self, py: Python<'_>, axes: Lengths) -> Result<Self> {
        self.unary(py, |x| x.permute(&axes.0))
    }

    /// Repeated along axes of length 1, and along new first axes, without a copy.
    #[pyo3(signature = (*shape))]
    fn expand(&self, py: Python<'_>, shape: Lengths) -> Result<Self> {
        let lengths = shape.0.iter().map(|&length| usize::try_from(length));
        let Ok(shape) = lengths.collect::<Result<Vec<_>, _>>() else {
            let got = shape.0;
            return Err(Raised::value(format!(
                "expand: expected lengths, got {got:?}"
            )));
        };
        self.unary(py, |x| x.expand(shape))
    }

    /// The tensor in row-major order: itself if it is.
    fn contiguous(&self, py: Python<'_>) -> Result<Self> {
        self.unary(py, Tensor::contiguous)
    }

    /// The sum.
    #[pyo3(signature = (axis=None, keepdims=false))]
    fn sum(&self, py: Python<'_>, axis: Option<Over>, keepdims: bool) -> Result<Self> {
        self.unary(py, |x| x.sum_over(reduce::axes(axis, keepdims)))
    }

    /// The mean.
    #[pyo3(signature = (axis=None, keepdims=false))]
    fn mean(&self, py: Python<'_>, axis: Option<Over>, keepdims: bool) -> Result<Self> {
        self.unary(py, |x| x.mean_over(reduce::axes(axis, keepdims)))
    }

    /// The largest element.
    #[pyo3(signature = (axis=None, keepdims=false))]
    fn max(&self, py: Python<'_>, axis: Option<Over>, keepdims: bool) -> Result<Self> {
        self.unary(py, |x| x.max_over(reduce::axes(axis, keepdims)))
    }

    /// The smallest element.
    #[pyo3(signature = (axis=None, keepdims=false))]
    fn min(&self, py: Python<'_>, axis: Option<Over>, keepdims: bool) -> Result<Self> {
        self.unary(py, |x| x.min_over(reduce::axes(axis, keepdims)))
    }

    /// The variance: the sum of squares divided by the number less ``ddof``.
    #[pyo3(signature = (axis=None, ddof=0, keepdims=false))]
    fn var(&self, py: Python<'_>, axis: Option<Over>, ddof: usize, keepdims: bool) -> Result<Self> {
        self.unary(py, |x| x.var_over(reduce::axes(axis, keepdims), ddof))
    }

    /// The standard deviation, the root of :meth:`var`.
    #[pyo3(signature = (axis=None, ddof=0, keepdims=false))]
    fn std(&self, py: Python<'_>, axis: Option<Over>, ddof: usize, keepdims: bool) -> Result<Self> {
        self.unary(py, |x| x.std_over(reduce::axes(axis, keepdims), ddof))
    }

    /// The root of the sum of squares.
    #[pyo3(signature = (axis=None, keepdims=false))]
    fn norm(&self, py: Python<'_>, axis: Option<Over>, keepdims: bool) -> Result<Self> {
        self.unary(py, |x| x.norm_over(reduce::axes(axis, keepdims)))
    }

    /// The logarithm of the sum of ``exp(x)``.
    #[pyo3(signature = (axis=None, keepdims=false))]
    fn logsumexp(&self, py: Python<'_>, axis: Option<Over>, keepdims: bool) -> Result<Self> {
        self.unary(py, |x| x.logsumexp_over(reduce::axes(axis, keepdims)))
    }

    /// The index along an axis of the largest element, as an array of numpy.
    fn argmax<'py>(&self, py: Python<'py>, axis: isize) -> Result<Bound<'py, PyAny>> {
        reduce::argmax(py, &self.0, axis)
    }

    /// The parts of an axis with these indices, one after another.
    fn index_select(
        &self,
        py: Python<'_>,
        axis: isize,
        indices: &Bound<'_, PyAny>,
    ) -> Result<Self> {
        let indices = index::integers::<usize>(indices).ok_or_else(|| {
            Raised::type_("indices: expected a sequence of whole numbers, at least 0")
        })?;
        self.unary(py, |x| x.index_select(axis, &indices))
    }

    fn __getitem__(&self, py: Python<'_>, index: &Bound<'_, PyAny>) -> Result<Self> {
        index::get(py, self, index)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> Result<Bound<'py, PyTuple>> {
        let py = slf.py();
        let x = slf.borrow();
        let elements = PyBytes::new(py, &x.0.to_le_bytes()?);
        let state = (
            slf.get_type(),
            elements,
            x.0.shape(),
            x.dtype(py)?,
            x.0.needs_grad() && x.0.is_leaf(),
        );
        let rebuild = py.import("sorix._sorix")?.getattr("_rebuild_tensor")?;
        Ok((rebuild, state).into_pyobject(py)?)
    }

    fn __deepcopy__<'py>(
        slf: &Bound<'py, Self>,
        _memo: &Bound<'py, PyAny>,
    ) -> Result<Bound<'py, PyAny>> {
        let py = slf.py();
        let x = slf.borrow();
        if !x.0.is_leaf() {
            let text =
                "a tensor that was computed cannot be copied with its graph; detach() it first";
            return Err(PyRuntimeError::new_err(text).into());
        }
        let copy = Self(x.0.detach()).unary(py, Tensor::copy)?;
        rebuilt(&slf.get_type(), copy, x.0.needs_grad())
    }
}

/// What unpickles a tensor.
#[pyfunction]
#[pyo3(signature = (class_, elements, shape, dtype, requires_grad))]
pub(crate) fn _rebuild_tensor<'py>(
    class_: &Bound<'py, PyType>,
    elements: &[u8],
    shape: Vec<usize>,
    dtype: AnyDType,
    requires_grad: bool,
) -> Result<Bound<'py, PyAny>> {
    let x = Tensor::from_le_bytes(elements, shape, dtype.0)?;
    rebuilt(class_, PyTensor(x), requires_grad)
}

/// An object of a class that may be derived from `Tensor`.
fn rebuilt<'py>(
    class: &Bound<'py, PyType>,
    x: PyTensor,
    requires_grad: bool,
) -> Result<Bound<'py, PyAny>> {
    let py = class.py();
    let options = PyDict::new(py);
    options.set_item("requires_grad", requires_grad)?;
    Ok(class.call((x,), Some(&options))?)
}

fn item(x: &Tensor) -> Result<f64> {
    Ok(x.to_dtype(DType::F64)?.item::<f64>()?)
}

/// Lengths or axes, as several arguments or as one sequence.
#[derive(Debug)]
pub(crate) struct Lengths(Vec<isize>);

impl FromPyObject<'_, '_> for Lengths {
    type Error = PyErr;

    fn extract(arguments: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        if let Ok((list,)) = arguments.extract::<(Vec<isize>,)>() {
            return Ok(Self(list));
        }
        Ok(Self(arguments.extract()?))
    }
}

/// A tensor that was given: one of sorix, as other libraries have a class of that name, too.
pub(crate) struct Given<'py> {
    tensor: PyRef<'py, PyTensor>,
}

impl Deref for Given<'_> {
    type Target = PyTensor;

    fn deref(&self) -> &PyTensor {
        &self.tensor
    }
}

impl<'py> FromPyObject<'_, 'py> for Given<'py> {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(tensor) = object.cast::<PyTensor>() {
            let tensor = tensor.try_borrow()?;
            return Ok(Self { tensor });
        }
        let got = object.get_type().fully_qualified_name()?;
        let text = format!("expected a tensor of sorix, which sorix.tensor makes, got {got}");
        Err(Raised::type_(text).into())
    }
}

/// Shows numpy where the elements of a tensor are. The array keeps this alive, and this the memory, which
/// is not written while it is shared.
#[pyclass(module = "sorix._sorix", frozen)]
#[derive(Debug)]
struct Elements(Tensor);

#[pymethods]
impl Elements {
    /// Version 3 of numpy's protocol.
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyDict>> {
        let x = &self.0;
        let size = x.dtype().size();
        let strides = x.strides().iter().map(|stride| stride * size);
        // bfloat16 is made of integers afterwards: the protocol has no name for it.
        let kind = if x.dtype() == DType::BF16 { "u" } else { "f" };
        let interface = PyDict::new(py);
        interface.set_item("version", 3)?;
        interface.set_item("shape", PyTuple::new(py, x.shape())?)?;
        interface.set_item("strides", PyTuple::new(py, strides)?)?;
        interface.set_item(
            "typestr",
            format!(
                "{}{kind}{size}",
                if cfg!(target_endian = "little") {
                    "<"
                } else {
                    ">"
                }
            ),
        )?;
        interface.set_item("data", (address(x)?, true))?;
        Ok(interface)
    }
}

fn address(x: &Tensor) -> Result<usize> {
    with_item!(x.dtype(), T => Ok(x.with_view::<T, _>(|view| view.as_ptr() as usize)?))
}
