//! Dropout in one pass with a bias, an activation or a gate: of numpy's arrays, and of PyTorch's tensors as such
//! arrays.

use numpy::{PyArray1, PyUntypedArray};
use pyo3::prelude::*;
use sorix::Activation;
use sorix::kernels::{BitMask, DropRate, Element, Engine, Function, MaskKey, MaskRegion};

use crate::array::{Input, Item, Lent, Output, with_item};
use crate::draws::{
    Beside, Shard, bits, expect, of_torch, of_words, output, region, returned, run, words,
};
use crate::error::{Raised, Result};
use crate::threads;

/// The activation of this name.
pub(crate) fn activation(name: &str) -> Result<Activation> {
    let found = Activation::ALL.iter().find(|known| known.name() == name);
    found.copied().ok_or_else(|| {
        let names: Vec<_> = Activation::ALL.iter().map(|known| known.name()).collect();
        Raised::value(format!(
            "activation: expected one of {names:?}, got {name:?}"
        ))
    })
}

/// How a call draws, and on how many threads: those of the process, if it is `None`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draw {
    pub(crate) rate: DropRate,
    pub(crate) at: MaskRegion,
    pub(crate) threads: Option<usize>,
}

impl Draw {
    /// Of an array of this shape, as numpy's functions are called.
    fn of_array(
        p: f64,
        key: (u64, u64),
        first: u64,
        shard: Option<&Bound<'_, Shard>>,
        shape: &[usize],
    ) -> Result<Self> {
        let rate = DropRate::new(p)?;
        let key = MaskKey::new(key.0, key.1);
        let at = region(key, first, shard.map(Bound::get), shape)?;
        Ok(Self {
            rate,
            at,
            threads: None,
        })
    }

    /// As ``sorix.torch`` says it: a shard is axis, start, stop and the shape of the whole.
    pub(crate) fn of_torch(
        p: f64,
        seed: i64,
        offset: i64,
        shard: Option<&[usize]>,
        threads: usize,
    ) -> Result<Self> {
        let key = MaskKey::new(seed.cast_unsigned(), offset.cast_unsigned());
        let at = match shard {
            Some(&[axis, start, stop, ref whole @ ..]) => key.shard(whole, axis, start..stop)?,
            _ => key.into(),
        };
        Ok(Self {
            rate: DropRate::new(p)?,
            at,
            threads: Some(threads),
        })
    }

    fn mask(save: bool, len: usize) -> Result<Option<BitMask>> {
        Ok(save.then(|| BitMask::try_new(len)).transpose()?)
    }

    fn act(
        self,
        activation: Activation,
        x: &Input<'_>,
        bias: Option<&Input<'_>>,
        out: &Output<'_>,
        save: bool,
    ) -> Result<Option<BitMask>> {
        let mut mask = Self::mask(save, x.len())?;
        let bits = mask.as_mut();
        let beside = Beside {
            elements: None,
            row: bias,
        };
        with_item!(x.dtype, T => run::<T, _>(x, beside, out, self.threads, |buffers| {
            Engine::active()?.act_dropout(activation, self.rate, self.at, buffers, bits)
        }))?;
        Ok(mask)
    }

    fn swiglu(
        self,
        gate: &Input<'_>,
        up: &Input<'_>,
        out: &Output<'_>,
        save: bool,
    ) -> Result<Option<BitMask>> {
        let mut mask = Self::mask(save, gate.len())?;
        let bits = mask.as_mut();
        let beside = Beside {
            elements: Some(up),
            row: None,
        };
        with_item!(gate.dtype, T => run::<T, _>(gate, beside, out, self.threads, |buffers| {
            Engine::active()?.map_dropout(Function::Silu, self.rate, self.at, buffers, bits)
        }))?;
        Ok(mask)
    }

    fn bias_add(
        self,
        x: &Input<'_>,
        bias: &Input<'_>,
        residual: &Input<'_>,
        out: &Output<'_>,
        save: bool,
    ) -> Result<Option<BitMask>> {
        let mut mask = Self::mask(save, x.len())?;
        let bits = mask.as_mut();
        let beside = Beside {
            elements: Some(x),
            row: Some(bias),
        };
        with_item!(x.dtype, T => run::<T, _>(residual, beside, out, self.threads, |buffers| {
            Engine::active()?.dropout_add(self.rate, self.at, buffers, bits)
        }))?;
        Ok(mask)
    }

    /// The gradient of [`act`](Self::act), by the bits if there are some: without the input they are those of a
    /// rectifier, which say all of it.
    fn act_gradient(
        self,
        activation: Activation,
        input: Option<(&Input<'_>, Option<&Input<'_>>)>,
        dy: &Input<'_>,
        bits: Option<&BitMask>,
        out: &Output<'_>,
    ) -> Result<()> {
        let Self { rate, at, threads } = self;
        let derivative = activation.derivative();
        let Some((x, bias)) = input else {
            let (Activation::Relu, Some(bits)) = (activation, bits) else {
                let text =
                    "x: expected the input of forward, which all but the mask of \"relu\" need";
                return Err(Raised::value(text));
            };
            let beside = Beside::default();
            return with_item!(dy.dtype, T => run::<T, _>(dy, beside, out, threads, |buffers| {
                Engine::active()?.apply(rate, bits, buffers)
            }));
        };
        let beside = Beside {
            elements: Some(dy),
            row: bias,
        };
        with_item!(x.dtype, T => run::<T, _>(x, beside, out, threads, |buffers| {
            let engine = Engine::active()?;
            match bits {
                Some(bits) => engine.map_apply(derivative, rate, bits, buffers),
                None => engine.map_dropout(derivative, rate, at, buffers, None),
            }
        }))
    }

    fn swiglu_gradients(
        self,
        inputs: [&Input<'_>; 3],
        bits: Option<BitMask>,
        outputs: [Option<&Output<'_>>; 2],
    ) -> Result<()> {
        with_item!(inputs[0].dtype, T => self.swiglu_gradients_of::<T>(inputs, bits, outputs))
    }

    fn swiglu_gradients_of<T: Item + Element>(
        self,
        inputs: [&Input<'_>; 3],
        bits: Option<BitMask>,
        [d_gate, d_up]: [Option<&Output<'_>>; 2],
    ) -> Result<()> {
        let py = inputs[0].given.py();
        let bytes = 5 * inputs[0].bytes();
        let [gate, up, dy] = inputs.map(Input::lend::<T>);
        let (gate, up, dy) = (gate?, up?, dy?);
        let [gate, up, dy] = [&gate, &up, &dy].map(Lent::slice);
        let (gate, up, dy) = (gate?, up?, dy?);
        let [d_gate, d_up] = [d_gate, d_up].map(|out| out.map(Output::lend::<T>).transpose());
        let (mut d_gate, mut d_up) = (d_gate?, d_up?);
        let d_gate = d_gate.as_mut().map(|out| out.slice()).transpose()?;
        let d_up = d_up.as_mut().map(|out| out.slice()).transpose()?;
        let Self { rate, at, threads } = self;
        let work = || {
            let engine = Engine::active()?;
            let bits = match bits {
                Some(bits) => bits,
                None => {
                    let mut made = BitMask::try_new(gate.len())?;
                    engine.fill_mask(rate, at, &mut made)?;
                    made
                }
            };
            engine.swiglu_dropout_backward(rate, &bits, gate, up, dy, d_gate, d_up)
        };
        Ok(threads::kernel(py, bytes, threads, work)?)
    }
}

fn row<'py>(bias: Option<&Bound<'py, PyAny>>, x: &Input<'py>) -> Result<Option<Input<'py>>> {
    let bias = bias.map(Input::new).transpose()?;
    if let Some(bias) = &bias {
        let last = &x.shape()[x.shape().len().saturating_sub(1)..];
        expect("bias", bias, last, x.dtype)?;
    }
    Ok(bias)
}

/// By what a gradient is made: a mask, or a key.
fn kept(
    mask: Option<&Bound<'_, PyAny>>,
    seed: Option<u64>,
    shape: &[usize],
) -> Result<(Option<BitMask>, u64)> {
    match (mask, seed) {
        (Some(mask), None) => Ok((Some(bits(mask, shape)?), 0)),
        (None, Some(seed)) => Ok((None, seed)),
        _ => Err(Raised::value(
            "expected the mask of forward, or its seed, and not both",
        )),
    }
}

/// :func:`dropout` of an activation: ``dropout(activation(x + bias))`` in one pass over memory.
///
/// 16 bits are rounded once, where three operations round three times. Dropped elements are ``+0.0``, also of
/// NaN and infinity.
///
/// Parameters
/// ----------
/// x : array_like
///     As for :func:`dropout`.
/// activation : {"relu", "gelu", "gelu_tanh", "silu"}
///     What is computed; ``"gelu"`` is the exact form, ``"gelu_tanh"`` the approximation.
/// p : float
///     The probability of dropping, in [0, 1].
/// bias : array_like, optional
///     Of the dtype of ``x``, as long as its last axis.
/// seed, offset, first, shard
///     As for :func:`dropout`.
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
///     If ``return_mask``: as :func:`dropout` returns it; of ``"relu"`` the bits of what is kept and not at most
///     0, which is all that the gradient needs.
///
/// Raises
/// ------
/// ValueError
///     As :func:`dropout`, if there is no activation of this name, and if the bias has another shape. Nothing is
///     written then.
/// TypeError
///     If a dtype is another one.
/// MemoryError
///     If allocation fails.
///
/// Examples
/// --------
/// >>> import numpy as np, sorix
/// >>> x = np.array([1.0, -1.0, 3.0, -4.0], dtype=np.float32)
/// >>> y, mask = sorix.act_dropout(x, "relu", 0.5, seed=42, return_mask=True)
/// >>> y
/// array([2., 0., 0., 0.], dtype=float32)
/// >>> sorix.dropout_backward(np.ones_like(x), mask, 0.5)
/// array([2., 0., 0., 0.], dtype=float32)
#[pyfunction]
#[pyo3(signature = (x, activation, p, *, bias=None, seed, offset=0, first=0, shard=None, out=None, return_mask=false))]
#[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
pub(crate) fn act_dropout<'py>(
    x: &Bound<'py, PyAny>,
    activation: &str,
    p: f64,
    bias: Option<&Bound<'py, PyAny>>,
    seed: u64,
    offset: u64,
    first: u64,
    shard: Option<&Bound<'py, Shard>>,
    out: Option<&Bound<'py, PyAny>>,
    return_mask: bool,
) -> Result<Bound<'py, PyAny>> {
    let activation = self::activation(activation)?;
    let x = Input::new(x)?;
    let draw = Draw::of_array(p, (seed, offset), first, shard, x.shape())?;
    let bias = row(bias, &x)?;
    let out = output(&x, out)?;
    let mask = draw.act(activation, &x, bias.as_ref(), &out, return_mask)?;
    returned(out, mask)
}

/// The gradient of :func:`act_dropout`'s input for that of its output: ``activation'(x + bias) * dy / (1 - p)``
/// where the mask keeps, else ``+0.0``. It is that of ``x + bias`` too: its sum over rows is that of the bias.
///
/// Parameters
/// ----------
/// dy : array_like
///     The gradient of the output.
/// activation : {"relu", "gelu", "gelu_tanh", "silu"}
/// p : float
///     As in forward.
/// x, bias : array_like, optional
///     As in forward. Of ``"relu"`` the mask that forward returned is enough.
/// mask : ndarray, optional
///     What forward returned.
/// seed, offset, first, shard
///     Instead of the mask: as in forward, to make it again.
/// out : ndarray, optional
///     Where the result goes; may be ``x`` itself, and may not be ``dy`` unless there is no ``x``.
///
/// Returns
/// -------
/// ndarray
///     A new array, or ``out``.
///
/// Raises
/// ------
/// ValueError
///     If neither mask nor seed is given, or both; if ``x`` is needed and missing; and as forward.
/// TypeError
///     If a dtype is another one.
/// MemoryError
///     If allocation fails.
///
/// Examples
/// --------
/// >>> import numpy as np, sorix
/// >>> x, dy = np.zeros(4), np.full(4, 3.0)
/// >>> y, mask = sorix.act_dropout(x, "silu", 0.5, seed=42, return_mask=True)
/// >>> sorix.act_dropout_backward(dy, "silu", 0.5, x=x, mask=mask)
/// array([3., 3., 0., 3.])
/// >>> sorix.act_dropout_backward(dy, "silu", 0.5, x=x, seed=42)
/// array([3., 3., 0., 3.])
#[pyfunction]
#[pyo3(signature = (dy, activation, p, *, x=None, bias=None, mask=None, seed=None, offset=0, first=0, shard=None, out=None))]
#[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
pub(crate) fn act_dropout_backward<'py>(
    dy: &Bound<'py, PyAny>,
    activation: &str,
    p: f64,
    x: Option<&Bound<'py, PyAny>>,
    bias: Option<&Bound<'py, PyAny>>,
    mask: Option<&Bound<'py, PyAny>>,
    seed: Option<u64>,
    offset: u64,
    first: u64,
    shard: Option<&Bound<'py, Shard>>,
    out: Option<&Bound<'py, PyAny>>,
) -> Result<Bound<'py, PyUntypedArray>> {
    let activation = self::activation(activation)?;
    let dy = Input::new(dy)?;
    let (bits, seed) = kept(mask, seed, dy.shape())?;
    let draw = Draw::of_array(p, (seed, offset), first, shard, dy.shape())?;
    let x = x.map(Input::new).transpose()?;
    if let Some(x) = &x {
        expect("x", x, dy.shape(), dy.dtype)?;
    }
    let bias = row(bias, &dy)?;
    let out = output(&dy, out)?;
    let input = x.as_ref().map(|x| (x, bias.as_ref()));
    draw.act_gradient(activation, input, &dy, bits.as_ref(), &out)?;
    Ok(out.given)
}

/// :func:`dropout_add` of an array with a bias: ``residual + dropout(x + bias)`` in one pass over memory.
///
/// 16 bits are rounded once. The gradient of ``x`` is that of dropout, :func:`dropout_backward` or
/// :func:`replay`; that of the bias is the sum of it over rows, and that of the residual the gradient itself.
///
/// Parameters
/// ----------
/// x : array_like
///     As for :func:`dropout`.
/// bias : array_like
///     Of the dtype of ``x``, as long as its last axis.
/// residual : array_like
///     Of the shape and dtype of ``x``.
/// p, seed, offset, first, shard
///     As for :func:`dropout`.
/// out : ndarray, optional
///     Where the result goes; may be ``residual`` itself, and may not be ``x``.
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
///     As :func:`dropout`, and if the bias or the residual has another shape. Nothing is written then.
/// TypeError
///     If a dtype is another one.
/// MemoryError
///     If allocation fails.
///
/// Examples
/// --------
/// >>> import numpy as np, sorix
/// >>> x, residual = np.ones((2, 2)), np.full((2, 2), 10.0)
/// >>> sorix.bias_dropout_add(x, [0.5, -0.5], residual, 0.5, seed=42)
/// array([[13., 11.],
///        [10., 11.]])
#[pyfunction]
#[pyo3(signature = (x, bias, residual, p, *, seed, offset=0, first=0, shard=None, out=None, return_mask=false))]
#[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
pub(crate) fn bias_dropout_add<'py>(
    x: &Bound<'py, PyAny>,
    bias: &Bound<'py, PyAny>,
    residual: &Bound<'py, PyAny>,
    p: f64,
    seed: u64,
    offset: u64,
    first: u64,
    shard: Option<&Bound<'py, Shard>>,
    out: Option<&Bound<'py, PyAny>>,
    return_mask: bool,
) -> Result<Bound<'py, PyAny>> {
    let (x, residual) = (Input::new(x)?, Input::new(residual)?);
    expect("residual", &residual, x.shape(), x.dtype)?;
    let draw = Draw::of_array(p, (seed, offset), first, shard, x.shape())?;
    let Some(bias) = row(Some(bias), &x)? else {
        return Err(Raised::type_("bias: expected an array"));
    };
    let out = output(&residual, out)?;
    let mask = draw.bias_add(&x, &bias, &residual, &out, return_mask)?;
    returned(out, mask)
}

/// :func:`dropout` of a gated activation: ``dropout(silu(gate) * up)`` in one pass over memory.
///
/// 16 bits are rounded once. Dropped elements are ``+0.0``, also of NaN and infinity.
///
/// Parameters
/// ----------
/// gate : array_like
///     As for :func:`dropout`.
/// up : array_like
///     Of the shape and dtype of ``gate``.
/// p, seed, offset, first, shard
///     As for :func:`dropout`.
/// out : ndarray, optional
///     Where the result goes; may be ``gate`` itself, and may not be ``up``.
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
///     As :func:`dropout`, and if ``up`` has another shape. Nothing is written then.
/// TypeError
///     If a dtype is another one.
/// MemoryError
///     If allocation fails.
///
/// Examples
/// --------
/// >>> import numpy as np, sorix
/// >>> gate, up = np.full(4, 800.0), np.array([1.0, 2.0, 3.0, 4.0])
/// >>> sorix.swiglu_dropout(gate, up, 0.5, seed=42)
/// array([1600., 3200.,    0., 6400.])
#[pyfunction]
#[pyo3(signature = (gate, up, p, *, seed, offset=0, first=0, shard=None, out=None, return_mask=false))]
#[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
pub(crate) fn swiglu_dropout<'py>(
    gate: &Bound<'py, PyAny>,
    up: &Bound<'py, PyAny>,
    p: f64,
    seed: u64,
    offset: u64,
    first: u64,
    shard: Option<&Bound<'py, Shard>>,
    out: Option<&Bound<'py, PyAny>>,
    return_mask: bool,
) -> Result<Bound<'py, PyAny>> {
    let (gate, up) = (Input::new(gate)?, Input::new(up)?);
    expect("up", &up, gate.shape(), gate.dtype)?;
    let draw = Draw::of_array(p, (seed, offset), first, shard, gate.shape())?;
    let out = output(&gate, out)?;
    let mask = draw.swiglu(&gate, &up, &out, return_mask)?;
    returned(out, mask)
}

/// The gradients of :func:`swiglu_dropout`'s inputs for that of its output; ``+0.0`` where dropped.
///
/// Parameters
/// ----------
/// dy : array_like
///     The gradient of the output.
/// gate, up : array_like
///     As in forward.
/// p : float
///     As in forward.
/// mask : ndarray, optional
///     What forward returned.
/// seed, offset, first, shard
///     Instead of the mask: as in forward, to make it again.
///
/// Returns
/// -------
/// d_gate, d_up : ndarray
///     New arrays.
///
/// Raises
/// ------
/// ValueError
///     If neither mask nor seed is given, or both; and as forward.
/// TypeError
///     If a dtype is another one.
/// MemoryError
///     If allocation fails.
///
/// Examples
/// --------
/// >>> import numpy as np, sorix
/// >>> gate, up, dy = np.zeros(4), np.full(4, 3.0), np.ones(4)
/// >>> sorix.swiglu_dropout_backward(dy, gate, up, 0.5, seed=42)
/// (array([3., 3., 0., 3.]), array([0., 0., 0., 0.]))
#[pyfunction]
#[pyo3(signature = (dy, gate, up, p, *, mask=None, seed=None, offset=0, first=0, shard=None))]
#[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
pub(crate) fn swiglu_dropout_backward<'py>(
    dy: &Bound<'py, PyAny>,
    gate: &Bound<'py, PyAny>,
    up: &Bound<'py, PyAny>,
    p: f64,
    mask: Option<&Bound<'py, PyAny>>,
    seed: Option<u64>,
    offset: u64,
    first: u64,
    shard: Option<&Bound<'py, Shard>>,
) -> Result<(Bound<'py, PyUntypedArray>, Bound<'py, PyUntypedArray>)> {
    let (dy, gate, up) = (Input::new(dy)?, Input::new(gate)?, Input::new(up)?);
    expect("gate", &gate, dy.shape(), dy.dtype)?;
    expect("up", &up, dy.shape(), dy.dtype)?;
    let (bits, seed) = kept(mask, seed, dy.shape())?;
    let draw = Draw::of_array(p, (seed, offset), first, shard, dy.shape())?;
    let (d_gate, d_up) = (Output::like(&gate)?, Output::like(&up)?);
    draw.swiglu_gradients([&gate, &up, &dy], bits, [Some(&d_gate), Some(&d_up)])?;
    Ok((d_gate.given, d_up.given))
}

/// The array of a tensor that is read.
fn read<'py>(x: &Bound<'py, PyAny>) -> Result<Input<'py>> {
    Input::of_torch(x.cast::<PyUntypedArray>()?)
}

/// For ``sorix.torch``: :func:`act_dropout` of contiguous tensors; bfloat16 goes as ``uint16``, and ``shard`` is
/// axis, start, stop and the shape of the whole, or empty. Returns the bits in whole words of eight bytes, if
/// they are asked for.
#[pyfunction]
#[pyo3(signature = (x, bias, out, activation, p, seed, offset, shard, save, threads))]
#[expect(
    clippy::too_many_arguments,
    reason = "one crossing into Rust for all of it"
)]
pub(crate) fn _act_draw<'py>(
    x: &Bound<'py, PyAny>,
    bias: Option<&Bound<'py, PyAny>>,
    out: &Bound<'py, PyAny>,
    activation: &str,
    p: f64,
    seed: i64,
    offset: i64,
    shard: Option<Vec<usize>>,
    save: bool,
    threads: usize,
) -> Result<Option<Bound<'py, PyArray1<u8>>>> {
    let py = x.py();
    let draw = Draw::of_torch(p, seed, offset, shard.as_deref(), threads)?;
    let (x, out) = of_torch(x, Some(out))?;
    let bias = bias.map(read).transpose()?;
    let mask = draw.act(self::activation(activation)?, &x, bias.as_ref(), &out, save)?;
    Ok(mask.map(|mask| words(py, &mask)))
}

/// For ``sorix.torch``: :func:`act_dropout_backward`, by the bits of [`_act_draw`] if there are some.
#[pyfunction]
#[pyo3(signature = (dy, x, bias, out, activation, p, seed, offset, shard, bits, threads))]
#[expect(
    clippy::too_many_arguments,
    reason = "one crossing into Rust for all of it"
)]
pub(crate) fn _act_gradient(
    dy: &Bound<'_, PyAny>,
    x: Option<&Bound<'_, PyAny>>,
    bias: Option<&Bound<'_, PyAny>>,
    out: &Bound<'_, PyAny>,
    activation: &str,
    p: f64,
    seed: i64,
    offset: i64,
    shard: Option<Vec<usize>>,
    bits: Option<&Bound<'_, PyArray1<u8>>>,
    threads: usize,
) -> Result<()> {
    let draw = Draw::of_torch(p, seed, offset, shard.as_deref(), threads)?;
    let (dy, out) = of_torch(dy, Some(out))?;
    let bits = bits.map(|bits| of_words(bits, dy.len())).transpose()?;
    let (x, bias) = (x.map(read).transpose()?, bias.map(read).transpose()?);
    let input = x.as_ref().map(|x| (x, bias.as_ref()));
    draw.act_gradient(
        self::activation(activation)?,
        input,
        &dy,
        bits.as_ref(),
        &out,
    )
}

/// For ``sorix.torch``: :func:`bias_dropout_add`.
#[pyfunction]
#[pyo3(signature = (x, bias, residual, out, p, seed, offset, shard, save, threads))]
#[expect(
    clippy::too_many_arguments,
    reason = "one crossing into Rust for all of it"
)]
pub(crate) fn _bias_draw<'py>(
    x: &Bound<'py, PyAny>,
    bias: &Bound<'py, PyAny>,
    residual: &Bound<'py, PyAny>,
    out: &Bound<'py, PyAny>,
    p: f64,
    seed: i64,
    offset: i64,
    shard: Option<Vec<usize>>,
    save: bool,
    threads: usize,
) -> Result<Option<Bound<'py, PyArray1<u8>>>> {
    let py = x.py();
    let draw = Draw::of_torch(p, seed, offset, shard.as_deref(), threads)?;
    let (x, out) = of_torch(x, Some(out))?;
    let mask = draw.bias_add(&x, &read(bias)?, &read(residual)?, &out, save)?;
    Ok(mask.map(|mask| words(py, &mask)))
}

/// For ``sorix.torch``: :func:`swiglu_dropout`.
#[pyfunction]
#[pyo3(signature = (gate, up, out, p, seed, offset, shard, save, threads))]
#[expect(
    clippy::too_many_arguments,
    reason = "one crossing into Rust for all of it"
)]
pub(crate) fn _swiglu_draw<'py>(
    gate: &Bound<'py, PyAny>,
    up: &Bound<'py, PyAny>,
    out: &Bound<'py, PyAny>,
    p: f64,
    seed: i64,
    offset: i64,
    shard: Option<Vec<usize>>,
    save: bool,
    threads: usize,
) -> Result<Option<Bound<'py, PyArray1<u8>>>> {
    let py = gate.py();
    let draw = Draw::of_torch(p, seed, offset, shard.as_deref(), threads)?;
    let (gate, out) = of_torch(gate, Some(out))?;
    let mask = draw.swiglu(&gate, &read(up)?, &out, save)?;
    Ok(mask.map(|mask| words(py, &mask)))
}

/// For ``sorix.torch``: :func:`swiglu_dropout_backward`, each gradient if there is an array for it, by the bits of
/// [`_swiglu_draw`] if there are some.
#[pyfunction]
#[pyo3(signature = (dy, gate, up, d_gate, d_up, p, seed, offset, shard, bits, threads))]
#[expect(
    clippy::too_many_arguments,
    reason = "one crossing into Rust for all of it"
)]
pub(crate) fn _swiglu_gradients(
    dy: &Bound<'_, PyAny>,
    gate: &Bound<'_, PyAny>,
    up: &Bound<'_, PyAny>,
    d_gate: Option<&Bound<'_, PyAny>>,
    d_up: Option<&Bound<'_, PyAny>>,
    p: f64,
    seed: i64,
    offset: i64,
    shard: Option<Vec<usize>>,
    bits: Option<&Bound<'_, PyArray1<u8>>>,
    threads: usize,
) -> Result<()> {
    let draw = Draw::of_torch(p, seed, offset, shard.as_deref(), threads)?;
    let (dy, gate, up) = (read(dy)?, read(gate)?, read(up)?);
    let [d_gate, d_up] = [d_gate, d_up].map(|out| {
        let out = out.map(|out| Output::of_torch(out.cast()?, &gate));
        out.transpose()
    });
    let (d_gate, d_up) = (d_gate?, d_up?);
    let bits = bits.map(|bits| of_words(bits, dy.len())).transpose()?;
    draw.swiglu_gradients([&gate, &up, &dy], bits, [d_gate.as_ref(), d_up.as_ref()])
}
