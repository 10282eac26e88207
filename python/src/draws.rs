//! Dropout of numpy's arrays, and of PyTorch's tensors as such arrays.

use numpy::{
    PyArray1, PyArrayDyn, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods, ToPyArray,
};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use sorix::adapter::{Saved, SliceDropout};
use sorix::kernels::{BitMask, Buffers, DropRate, Element, LengthError, MaskKey, MaskRegion};
use sorix::nn::dropout::Alpha;
use sorix::{Affine, DType, SaveMask};

use crate::array::{Input, Item, Lent, Output, with_item};
use crate::error::{Raised, Result};
use crate::threads;

/// A worker's part of a tensor that is cut along an axis.
///
/// Parameters
/// ----------
/// shape : sequence of int
///     The shape of the whole tensor.
/// axis : int
///     The axis it is cut along.
/// start, stop : int
///     The indices of that axis that this worker has: ``start <= i < stop``.
///
/// Examples
/// --------
/// >>> import numpy as np, sorix
/// >>> x = np.ones((4, 6), dtype=np.float32)
/// >>> whole = sorix.dropout(x, 0.5, seed=42)
/// >>> shard = sorix.Shard((4, 6), axis=1, start=2, stop=5)
/// >>> part = sorix.dropout(x[:, 2:5], 0.5, seed=42, shard=shard)
/// >>> bool((part == whole[:, 2:5]).all())
/// True
#[pyclass(module = "sorix", frozen, eq, hash)]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shard {
    whole: Vec<usize>,
    axis: usize,
    start: usize,
    stop: usize,
}

#[pymethods]
impl Shard {
    #[new]
    fn new(shape: Vec<usize>, axis: isize, start: usize, stop: usize) -> Result<Self> {
        let from_last = if axis < 0 { shape.len() } else { 0 };
        let axis = axis.checked_add_unsigned(from_last);
        let axis = axis.and_then(|axis| usize::try_from(axis).ok());
        let axis = axis.filter(|&axis| axis < shape.len());
        let Some(axis) = axis else {
            return Err(Raised::index(format!(
                "Shard: expected an axis of shape {shape:?}"
            )));
        };
        let shard = Self {
            whole: shape,
            axis,
            start,
            stop,
        };
        shard.region(MaskKey::new(0, 0))?;
        Ok(shard)
    }

    /// The shape of the whole tensor.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.whole)
    }

    /// The axis it is cut along, counted from the first.
    #[getter]
    fn axis(&self) -> usize {
        self.axis
    }

    /// The first index of that axis.
    #[getter]
    fn start(&self) -> usize {
        self.start
    }

    /// One more than the last.
    #[getter]
    fn stop(&self) -> usize {
        self.stop
    }

    /// The shape of this part.
    #[getter]
    fn part<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.part_shape())
    }

    fn __repr__(&self) -> String {
        let shape: Vec<_> = self.whole.iter().map(usize::to_string).collect();
        let comma = if shape.len() == 1 { "," } else { "" };
        format!(
            "Shard(shape=({}{comma}), axis={}, start={}, stop={})",
            shape.join(", "),
            self.axis,
            self.start,
            self.stop
        )
    }

    fn __getnewargs__(&self) -> (Vec<usize>, usize, usize, usize) {
        (self.whole.clone(), self.axis, self.start, self.stop)
    }
}

impl Shard {
    /// For a tensor of ours.
    pub(crate) fn of_tensor(&self) -> Result<sorix::nn::Shard> {
        Ok(sorix::nn::Shard::new(
            self.whole.clone(),
            self.axis,
            self.start..self.stop,
        )?)
    }

    fn part_shape(&self) -> Vec<usize> {
        let mut part = self.whole.clone();
        part[self.axis] = self.stop - self.start;
        part
    }

    fn region(&self, key: MaskKey) -> Result<MaskRegion> {
        Ok(key.shard(&self.whole, self.axis, self.start..self.stop)?)
    }
}

/// Which elements of which mask.
pub(crate) fn region(
    key: MaskKey,
    first: u64,
    shard: Option<&Shard>,
    shape: &[usize],
) -> Result<MaskRegion> {
    let Some(shard) = shard else {
        return Ok(key.window(first).into());
    };
    if first != 0 {
        let text = "expected first or shard, got both: a shard says itself which elements it has";
        return Err(Raised::value(text));
    }
    if shape != shard.part_shape() {
        let (expected, got) = (shard.part_shape(), shape);
        let text = format!("shard: expected a part of shape {expected:?}, got {got:?}");
        return Err(Raised::value(text));
    }
    shard.region(key)
}

/// What is read beside an input: as many elements, and a row as long as its last axis.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Beside<'a, 'py> {
    pub(crate) elements: Option<&'a Input<'py>>,
    pub(crate) row: Option<&'a Input<'py>>,
}

/// Runs `draw` over the elements of `x` and `out`, which may be the same array, and of what is read beside `x`.
pub(crate) fn run<T: Item + Element, R: Send>(
    x: &Input<'_>,
    beside: Beside<'_, '_>,
    out: &Output<'_>,
    threads: Option<usize>,
    draw: impl FnOnce(Buffers<'_, T>) -> Result<R, sorix::kernels::Error> + Send,
) -> Result<R> {
    let py = x.given.py();
    let Beside { elements, row } = beside;
    let arrays = if elements.is_some() { 3 } else { 2 };
    let bytes = arrays * x.bytes();
    let elements = elements.map(Input::lend::<T>).transpose()?;
    let elements = elements.as_ref().map(Lent::slice).transpose()?;
    let row = row.map(Input::lend::<T>).transpose()?;
    let row = row.as_ref().map(Lent::slice).transpose()?;
    let draw = |buffers: Buffers<'_, T>| draw(beside_of(buffers, elements, row)?);
    if x.given.is(&out.given) {
        let mut lent = out.lend::<T>()?;
        let y = lent.slice()?;
        let draw = || draw(Buffers::in_place(y));
        return Ok(threads::kernel(py, bytes, threads, draw)?);
    }
    let (read, mut written) = (x.lend::<T>()?, out.lend::<T>()?);
    let (x, y) = (read.slice()?, written.slice()?);
    let draw = || draw(Buffers::new(x, y).map_err(sorix::kernels::Error::from)?);
    Ok(threads::kernel(py, bytes, threads, draw)?)
}

fn beside_of<'a, T: Element>(
    mut buffers: Buffers<'a, T>,
    elements: Option<&'a [T]>,
    row: Option<&'a [T]>,
) -> Result<Buffers<'a, T>, LengthError> {
    if let Some(elements) = elements {
        buffers = buffers.with_elements(elements)?;
    }
    if let Some(row) = row {
        buffers = buffers.with_row(row)?;
    }
    Ok(buffers)
}

pub(crate) fn output<'py>(x: &Input<'py>, out: Option<&Bound<'py, PyAny>>) -> Result<Output<'py>> {
    match out {
        Some(out) => Output::given(out, x),
        None => Output::like(x),
    }
}

/// Drops each element of an array with probability ``p`` and multiplies the others by ``1 / (1 - p)``.
///
/// Which elements are dropped depends on ``seed``, ``offset``, ``p`` and the row-major index of the element
/// alone: not on the machine, the number of threads, the dtype or the strides.
///
/// Parameters
/// ----------
/// x : array_like
///     Of float16, bfloat16 (of the package ``ml_dtypes``), float32 or float64; copied once if it is not in
///     row-major order.
/// p : float
///     The probability of dropping, in [0, 1].
/// seed, offset : int
///     The name of the mask, each in [0, 2**64). Give each call of a program another offset.
/// first : int
///     The index in the mask of the first element of ``x``, where ``x`` is a part of a longer array.
/// shard : Shard, optional
///     Where ``x`` is a part of an array that is cut along an axis.
/// out : ndarray, optional
///     Where the result goes, of the shape and dtype of ``x`` and in row-major order; may be ``x`` itself.
/// return_mask : bool
///     Whether to return the mask too.
///
/// Returns
/// -------
/// y : ndarray
///     A new array, or ``out``.
/// mask : ndarray
///     If ``return_mask``: the bits of the mask, 1 keeps, as ``uint8`` with the first element in the lowest
///     bit of the first byte.
///
/// Raises
/// ------
/// ValueError
///     If ``p`` is not in [0, 1], if ``out`` does not fit, overlaps ``x`` in part or is read-only. Nothing is
///     written then.
/// TypeError
///     If a dtype is another one.
/// MemoryError
///     If allocation fails.
///
/// Examples
/// --------
/// >>> import numpy as np, sorix
/// >>> sorix.dropout(np.ones(8, dtype=np.float32), 0.5, seed=42)
/// array([2., 2., 0., 2., 2., 0., 2., 0.], dtype=float32)
/// >>> y, mask = sorix.dropout(np.ones(8), 0.5, seed=42, return_mask=True)
/// >>> np.unpackbits(mask, count=8, bitorder="little").astype(bool)
/// array([ True,  True, False,  True,  True, False,  True, False])
#[pyfunction]
#[pyo3(signature = (x, p, *, seed, offset=0, first=0, shard=None, out=None, return_mask=false))]
#[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
pub(crate) fn dropout<'py>(
    x: &Bound<'py, PyAny>,
    p: f64,
    seed: u64,
    offset: u64,
    first: u64,
    shard: Option<&Bound<'py, Shard>>,
    out: Option<&Bound<'py, PyAny>>,
    return_mask: bool,
) -> Result<Bound<'py, PyAny>> {
    let rate = DropRate::new(p)?;
    let x = Input::new(x)?;
    let at = region(
        MaskKey::new(seed, offset),
        first,
        shard.map(Bound::get),
        x.shape(),
    )?;
    let out = output(&x, out)?;
    let save = saving(return_mask);
    let draw = SliceDropout::broadcast(rate, at, x.shape(), x.shape())?;
    let mask = with_item!(x.dtype, T => run::<T, _>(&x, Beside::default(), &out, None, |buffers| {
        draw.forward_buffers(buffers, save)
    }))?;
    returned(out, saved_bits(mask))
}

/// What Python gets: the output, and the mask if it was saved.
pub(crate) fn returned<'py>(out: Output<'py>, mask: Option<BitMask>) -> Result<Bound<'py, PyAny>> {
    let py = out.given.py();
    match mask {
        Some(mask) => {
            let mask = PyArray1::from_vec(py, mask.to_bytes());
            Ok((out.given, mask).into_pyobject(py)?.into_any())
        }
        None => Ok(out.given.into_any()),
    }
}

fn saved_bits(saved: Option<Saved>) -> Option<BitMask> {
    match saved {
        Some(Saved::Bits(mask)) => Some(mask),
        _ => None,
    }
}

/// :func:`dropout` of an array, added to a residual: ``residual + dropout(x)`` in one pass over memory.
///
/// Product and sum are rounded to the dtype together, where two operations round 16 bits twice. The gradient
/// of ``x`` is that of dropout, :func:`dropout_backward` or :func:`replay`; that of the residual is the
/// gradient itself.
///
/// Parameters
/// ----------
/// x : array_like
///     As for :func:`dropout`.
/// residual : array_like
///     Of the shape and dtype of ``x``.
/// p, seed, offset, first, shard
///     As for :func:`dropout`.
/// out : ndarray, optional
///     Where the result goes, of the shape and dtype of ``x`` and in row-major order; may be ``residual``
///     itself, and may not be ``x``.
/// return_mask : bool
///     Whether to return the mask too.
///
/// Returns
/// -------
/// y : ndarray
///     A new array, or ``out``.
/// mask : ndarray
///     If ``return_mask``: as :func:`dropout` returns it.
///
/// Raises
/// ------
/// ValueError
///     As :func:`dropout`, and if the residual has another shape. Nothing is written then.
/// TypeError
///     If a dtype is another one.
/// MemoryError
///     If allocation fails.
///
/// Examples
/// --------
/// >>> import numpy as np, sorix
/// >>> x, residual = np.ones(4, dtype=np.float32), np.full(4, 10.0, dtype=np.float32)
/// >>> sorix.dropout_add(x, residual, 0.5, seed=42)
/// array([12., 12., 10., 12.], dtype=float32)
/// >>> residual + sorix.dropout(x, 0.5, seed=42)
/// array([12., 12., 10., 12.], dtype=float32)
#[pyfunction]
#[pyo3(signature = (x, residual, p, *, seed, offset=0, first=0, shard=None, out=None, return_mask=false))]
#[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
pub(crate) fn dropout_add<'py>(
    x: &Bound<'py, PyAny>,
    residual: &Bound<'py, PyAny>,
    p: f64,
    seed: u64,
    offset: u64,
    first: u64,
    shard: Option<&Bound<'py, Shard>>,
    out: Option<&Bound<'py, PyAny>>,
    return_mask: bool,
) -> Result<Bound<'py, PyAny>> {
    let rate = DropRate::new(p)?;
    let (x, residual) = (Input::new(x)?, Input::new(residual)?);
    expect("residual", &residual, x.shape(), x.dtype)?;
    let key = MaskKey::new(seed, offset);
    let at = region(key, first, shard.map(Bound::get), x.shape())?;
    let out = output(&residual, out)?;
    let save = saving(return_mask);
    let draw = SliceDropout::broadcast(rate, at, x.shape(), x.shape())?;
    let beside = Beside {
        elements: Some(&x),
        row: None,
    };
    let mask = with_item!(x.dtype, T => run::<T, _>(&residual, beside, &out, None, |buffers| {
        draw.forward_add_buffers(buffers, save)
    }))?;
    returned(out, saved_bits(mask))
}

/// An error unless an argument has this shape and dtype.
pub(crate) fn expect(
    name: &str,
    argument: &Input<'_>,
    shape: &[usize],
    dtype: DType,
) -> Result<()> {
    if argument.dtype != dtype {
        let got = argument.dtype;
        let text = format!("{name}: expected dtype {dtype}, got {got}");
        return Err(Raised::type_(text));
    }
    if argument.shape() != shape {
        let got = argument.shape();
        let text = format!("{name}: expected shape {shape:?}, got {got:?}");
        return Err(Raised::value(text));
    }
    Ok(())
}

fn saving(bits: bool) -> SaveMask {
    if bits {
        SaveMask::Bits
    } else {
        SaveMask::Replay
    }
}

/// The gradient of dropout's input for that of its output, from the mask.
///
/// Parameters
/// ----------
/// dy : array_like
///     The gradient of the output, as the input of :func:`dropout` in dtype and order.
/// mask : ndarray
///     What :func:`dropout` returned with it, or the same as an array of bool of the shape of ``dy``.
/// p : float
///     As in forward.
/// out : ndarray, optional
///     As in forward.
///
/// Returns
/// -------
/// ndarray
///     ``dy / (1 - p)`` where the mask keeps, else ``+0.0``.
///
/// Examples
/// --------
/// >>> import numpy as np, sorix
/// >>> y, mask = sorix.dropout(np.ones(8), 0.5, seed=42, return_mask=True)
/// >>> sorix.dropout_backward(np.full(8, 3.0), mask, 0.5)
/// array([6., 6., 0., 6., 6., 0., 6., 0.])
#[pyfunction]
#[pyo3(signature = (dy, mask, p, *, out=None))]
pub(crate) fn dropout_backward<'py>(
    dy: &Bound<'py, PyAny>,
    mask: &Bound<'py, PyAny>,
    p: f64,
    out: Option<&Bound<'py, PyAny>>,
) -> Result<Bound<'py, PyUntypedArray>> {
    let rate = DropRate::new(p)?;
    let dy = Input::new(dy)?;
    let mask = Saved::Bits(bits(mask, dy.shape())?);
    let out = output(&dy, out)?;
    let draw = SliceDropout::broadcast(rate, MaskKey::new(0, 0), dy.shape(), dy.shape())?;
    with_item!(dy.dtype, T => run::<T, _>(&dy, Beside::default(), &out, None, |buffers| {
        draw.backward_buffers(Some(&mask), buffers)
    }))?;
    Ok(out.given)
}

/// A mask that a user gives for a tensor of `shape`.
pub(crate) fn bits(mask: &Bound<'_, PyAny>, shape: &[usize]) -> Result<BitMask> {
    let len = shape.iter().product();
    if let Ok(bytes) = mask.cast::<PyArray1<u8>>() {
        let bytes = bytes.to_vec().map_err(PyErr::from)?;
        return Ok(BitMask::from_bytes(&bytes, len)?);
    }
    let Ok(bools) = mask.cast::<PyArrayDyn<bool>>() else {
        let got = mask.repr()?;
        return Err(Raised::type_(format!(
            "mask: expected one axis of uint8 or an array of bool, got {got}"
        )));
    };
    if bools.shape() != shape {
        let got = bools.shape();
        return Err(Raised::value(format!(
            "mask: expected shape {shape:?}, got {got:?}"
        )));
    }
    let bools = bools.try_readonly()?;
    Ok(bools.as_array().iter().copied().collect())
}

/// The gradient of dropout's input for that of its output, from the key: the mask is made again.
///
/// Parameters
/// ----------
/// dy : array_like
///     The gradient of the output, as the input of :func:`dropout` in dtype and order.
/// p, seed, offset, first, shard
///     As in forward.
/// out : ndarray, optional
///     As in forward.
///
/// Returns
/// -------
/// ndarray
///     What :func:`dropout_backward` returns with the mask.
///
/// Examples
/// --------
/// >>> import numpy as np, sorix
/// >>> sorix.replay(np.full(8, 3.0), 0.5, seed=42)
/// array([6., 6., 0., 6., 6., 0., 6., 0.])
#[pyfunction]
#[pyo3(signature = (dy, p, *, seed, offset=0, first=0, shard=None, out=None))]
pub(crate) fn replay<'py>(
    dy: &Bound<'py, PyAny>,
    p: f64,
    seed: u64,
    offset: u64,
    first: u64,
    shard: Option<&Bound<'py, Shard>>,
    out: Option<&Bound<'py, PyAny>>,
) -> Result<Bound<'py, PyAny>> {
    dropout(dy, p, seed, offset, first, shard, out, false)
}

/// The mask itself.
///
/// Parameters
/// ----------
/// shape : int or sequence of int
///     Of the array that it is for.
/// p : float
///     The probability of dropping, in [0, 1].
/// seed, offset, first, shard
///     As in :func:`dropout`.
/// packed : bool
///     Whether to return it as bits.
///
/// Returns
/// -------
/// ndarray
///     Of bool and of this shape, True where an element is kept; or if ``packed`` of ``uint8`` with one axis,
///     eight elements in each byte, the first in the lowest bit. ``np.unpackbits(bits, count=n,
///     bitorder="little")`` of the latter gives the former.
///
/// Examples
/// --------
/// >>> import sorix
/// >>> sorix.mask((2, 4), 0.5, seed=42)
/// array([[ True,  True, False,  True],
///        [ True, False,  True, False]])
/// >>> sorix.mask((2, 4), 0.5, seed=42, packed=True)
/// array([91], dtype=uint8)
#[pyfunction]
#[pyo3(signature = (shape, p, seed, offset=0, *, first=0, shard=None, packed=false))]
#[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
pub(crate) fn mask<'py>(
    py: Python<'py>,
    shape: Shape,
    p: f64,
    seed: u64,
    offset: u64,
    first: u64,
    shard: Option<&Bound<'py, Shard>>,
    packed: bool,
) -> Result<Bound<'py, PyAny>> {
    let rate = DropRate::new(p)?;
    let shape = shape.list();
    let at = region(
        MaskKey::new(seed, offset),
        first,
        shard.map(Bound::get),
        &shape,
    )?;
    let draw = SliceDropout::broadcast(rate, at, &shape, &shape)?;
    let bits = shape
        .iter()
        .try_fold(1_usize, |len, &axis| len.checked_mul(axis));
    let bytes = bits.unwrap_or(usize::MAX) / 8;
    let mask = threads::kernel(py, bytes, None, || draw.mask())?;
    if packed {
        return Ok(PyArray1::from_vec(py, mask.to_bytes()).into_any());
    }
    let bools = mask.to_bools().to_pyarray(py);
    Ok(bools.reshape(shape)?.into_any())
}

/// A shape as numpy takes it.
#[derive(Debug, FromPyObject)]
pub(crate) enum Shape {
    /// Of one axis.
    #[pyo3(transparent)]
    One(usize),
    /// Of any number.
    #[pyo3(transparent)]
    Many(Vec<usize>),
}

impl Shape {
    pub(crate) fn list(self) -> Vec<usize> {
        match self {
            Self::One(len) => vec![len],
            Self::Many(list) => list,
        }
    }
}

/// For ``sorix.torch``: what becomes of kept and dropped elements.
fn affine(form: u8, rate: DropRate) -> Result<Option<Affine>> {
    match form {
        // Inverted dropout.
        0 => Ok(None),
        // To alpha' and back to mean 0 and variance 1, as in a self-normalising network; and its derivative.
        1 => Ok(Alpha::affine(rate)),
        2 => Ok(Alpha::affine(rate).map(Affine::derivative)),
        // Not scaled.
        3 => Ok(Some(Affine::scale(1.0))),
        _ => Err(Raised::value(format!("expected a form 0 to 3, got {form}"))),
    }
}

/// For ``sorix.torch``: draws a mask of `mask_shape` and writes `x` under it to `out`, or to `x` itself; if
/// there is a residual, the sum of the two to `out`.
///
/// `bfloat16` goes as `uint16`, and `shard` is axis, start, stop and the shape of the whole mask, or empty.
/// Returns the bits in whole words of eight bytes, if they are asked for.
#[pyfunction]
#[pyo3(signature = (x, residual, out, p, seed, offset, mask_shape, form, shard, save, threads))]
#[expect(
    clippy::too_many_arguments,
    reason = "one crossing into Rust for all of it"
)]
pub(crate) fn _draw<'py>(
    x: &Bound<'py, PyAny>,
    residual: Option<&Bound<'py, PyAny>>,
    out: Option<&Bound<'py, PyAny>>,
    p: f64,
    seed: i64,
    offset: i64,
    mask_shape: Option<Vec<usize>>,
    form: u8,
    shard: Option<Vec<usize>>,
    save: bool,
    threads: usize,
) -> Result<Option<Bound<'py, PyArray1<u8>>>> {
    let py = x.py();
    let rate = DropRate::new(p)?;
    let (x, out) = of_torch(x, out)?;
    let key = MaskKey::new(seed.cast_unsigned(), offset.cast_unsigned());
    let mask_shape = mask_shape.as_deref().unwrap_or(x.shape());
    let at = match shard.as_deref() {
        Some(&[axis, start, stop, ref whole @ ..]) => key.shard(whole, axis, start..stop)?,
        _ => key.into(),
    };
    let draw = SliceDropout::broadcast(rate, at, x.shape(), mask_shape)?;
    let draw = draw.with_affine(affine(form, rate)?);
    let save = saving(save);
    let residual = residual.map(|residual| Input::of_torch(residual.cast()?));
    let mask = match residual.transpose()? {
        None => {
            with_item!(x.dtype, T => run::<T, _>(&x, Beside::default(), &out, Some(threads), |buffers| {
                draw.forward_buffers(buffers, save)
            }))
        }
        Some(residual) => {
            let beside = Beside {
                elements: Some(&x),
                row: None,
            };
            with_item!(x.dtype, T => run::<T, _>(&residual, beside, &out, Some(threads), |buffers| {
                draw.forward_add_buffers(buffers, save)
            }))
        }
    }?;
    Ok(saved_bits(mask).map(|mask| words(py, &mask)))
}

/// For ``sorix.torch``: the gradient by the bits of [`_draw`], of `x` to `out`, or to `x` itself.
#[pyfunction]
#[pyo3(signature = (x, out, p, bits, mask_shape, form, threads))]
pub(crate) fn _apply<'py>(
    x: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
    p: f64,
    bits: &Bound<'py, PyArray1<u8>>,
    mask_shape: Option<Vec<usize>>,
    form: u8,
    threads: usize,
) -> Result<()> {
    let rate = DropRate::new(p)?;
    let (x, out) = of_torch(x, out)?;
    let mask_shape = mask_shape.as_deref().unwrap_or(x.shape());
    let mask = Saved::Bits(of_words(bits, mask_shape.iter().product())?);
    let draw = SliceDropout::broadcast(rate, MaskKey::new(0, 0), x.shape(), mask_shape)?;
    let draw = draw.with_affine(affine(form, rate)?);
    with_item!(x.dtype, T => run::<T, _>(&x, Beside::default(), &out, Some(threads), |buffers| {
        draw.backward_buffers(Some(&mask), buffers)
    }))
}

/// The arrays of PyTorch's tensors, the second of which may be the first.
pub(crate) fn of_torch<'py>(
    x: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
) -> Result<(Input<'py>, Output<'py>)> {
    let x = Input::of_torch(x.cast::<PyUntypedArray>()?)?;
    let out = Output::of_torch(out.unwrap_or(x.given.as_any()).cast()?, &x)?;
    Ok((x, out))
}

/// The mask that [`words`] gave.
pub(crate) fn of_words(bits: &Bound<'_, PyArray1<u8>>, len: usize) -> Result<BitMask> {
    let bits = bits.try_readonly()?;
    let bytes = bits.as_slice().map_err(PyErr::from)?;
    let words = bytes.as_chunks::<8>().0.iter();
    let words = words.map(|&word| u64::from_le_bytes(word)).collect();
    Ok(BitMask::from_words(words, len)?)
}

pub(crate) fn words<'py>(py: Python<'py>, mask: &BitMask) -> Bound<'py, PyArray1<u8>> {
    let words = mask.words().iter();
    PyArray1::from_vec(py, words.flat_map(|word| word.to_le_bytes()).collect())
}
