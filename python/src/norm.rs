//! For `sorix.torch`: a residual plus dropout, normalised, of PyTorch's tensors as numpy's arrays.
//!
//! What is not of the tensor's own dtype, residual, sum and rows, has the one that it is computed in.

use numpy::{PyArray1, PyUntypedArray};
use pyo3::prelude::*;
use sorix::kernels::{
    AddNorm, AllocationError, BitMask, Buffers, Element, Engine, Norm, NormGradient, NormKind,
    RowMoments,
};

use crate::array::{Input, Item, Lent, LentMut, Output, with_item};
use crate::draws::words;
use crate::error::Result;
use crate::fused::Draw;
use crate::threads;

/// The kind of a normalisation, the length of its rows, and epsilon.
#[derive(Clone, Copy, Debug, FromPyObject)]
pub(crate) struct Rows(bool, usize, f64);

impl Rows {
    fn norm<S: Element<Scale = S>>(
        self,
        weight: Option<&[S]>,
    ) -> Result<Norm<'_, S>, sorix::kernels::Error> {
        let Self(rms, len, epsilon) = self;
        let kind = if rms { NormKind::Rms } else { NormKind::Layer };
        let norm = Norm::new(kind, len, epsilon)?;
        Ok(match weight {
            Some(weight) => norm.with_weight(weight)?,
            None => norm,
        })
    }
}

fn read<'py>(x: &Bound<'py, PyAny>) -> Result<Input<'py>> {
    Input::of_torch(x.cast::<PyUntypedArray>()?)
}

/// An array that may be absent, lent to read.
fn lent<'py, S: Item>(x: Option<&Bound<'py, PyAny>>) -> Result<Option<Lent<'py, S>>> {
    x.map(|x| read(x)?.lend()).transpose()
}

fn slice<'a, S: Item>(lent: Option<&'a Lent<'_, S>>) -> Result<Option<&'a [S]>> {
    lent.map(Lent::slice).transpose()
}

/// An array that may be absent, lent to write.
fn lent_mut<'py, S: Item>(x: Option<&Bound<'py, PyAny>>) -> Result<Option<LentMut<'py, S>>> {
    x.map(|x| Output::alone(x)?.lend()).transpose()
}

fn slice_mut<'a, S: Item>(lent: Option<&'a mut LentMut<'_, S>>) -> Result<Option<&'a mut [S]>> {
    lent.map(LentMut::slice).transpose()
}

fn memory(rows: usize) -> Result<Vec<RowMoments>, AllocationError> {
    let mut memory = Vec::new();
    let bytes = rows.saturating_mul(size_of::<RowMoments>()) as u64;
    let reserved = memory.try_reserve_exact(rows);
    reserved.map_err(|_| AllocationError::new(bytes))?;
    Ok(memory)
}

/// The normalised rows to `z`, their sum to `sum`, and of each row mean and inverse deviation to `moments`. Returns
/// the bits of the mask, if they are asked for. ``rows`` are whether it is RMS, the length of a row, and epsilon.
#[pyfunction]
#[pyo3(signature = (x, residual, weight, shift, z, sum, moments, rows, p, seed, offset, shard, save, threads))]
#[expect(
    clippy::too_many_arguments,
    reason = "one crossing into Rust for all of it"
)]
pub(crate) fn _norm_draw<'py>(
    x: &Bound<'py, PyAny>,
    residual: &Bound<'py, PyAny>,
    weight: Option<&Bound<'py, PyAny>>,
    shift: Option<&Bound<'py, PyAny>>,
    z: &Bound<'py, PyAny>,
    sum: &Bound<'py, PyAny>,
    moments: &Bound<'py, PyAny>,
    rows: Rows,
    p: f64,
    seed: i64,
    offset: i64,
    shard: Option<Vec<usize>>,
    save: bool,
    threads: usize,
) -> Result<Option<Bound<'py, PyArray1<u8>>>> {
    let draw = Draw::of_torch(p, seed, offset, shard.as_deref(), threads)?;
    let x = read(x)?;
    let mut mask = save.then(|| BitMask::try_new(x.len())).transpose()?;
    let bits = mask.as_mut();
    with_item!(x.dtype, T => {
        forward::<T>(draw, &x, residual, [weight, shift], z, sum, moments, rows, bits)
    })?;
    Ok(mask.map(|mask| words(x.given.py(), &mask)))
}

#[expect(clippy::too_many_arguments, reason = "those of the operation")]
fn forward<T: Item + Element<Scale: Item>>(
    draw: Draw,
    x: &Input<'_>,
    residual: &Bound<'_, PyAny>,
    [weight, shift]: [Option<&Bound<'_, PyAny>>; 2],
    z: &Bound<'_, PyAny>,
    sum: &Bound<'_, PyAny>,
    moments: &Bound<'_, PyAny>,
    rows: Rows,
    bits: Option<&mut BitMask>,
) -> Result<()> {
    let (py, bytes) = (x.given.py(), 4 * x.bytes());
    let (x, residual) = (x.lend::<T>()?, read(residual)?.lend::<T::Scale>()?);
    let (weight, shift) = (lent::<T::Scale>(weight)?, lent::<T::Scale>(shift)?);
    let (mut z, mut sum) = (
        Output::alone(z)?.lend::<T>()?,
        Output::alone(sum)?.lend::<T::Scale>()?,
    );
    let mut moments = Output::alone(moments)?.lend::<f64>()?;
    let (x, residual) = (x.slice()?, residual.slice()?);
    let (weight, shift) = (slice(weight.as_ref())?, slice(shift.as_ref())?);
    let (z, sum, moments) = (z.slice()?, sum.slice()?, moments.slice()?);
    let work = || {
        let mut norm = rows.norm(weight)?;
        if let Some(shift) = shift {
            norm = norm.with_shift(shift)?;
        }
        let mut made = memory(moments.len() / 2)?;
        made.resize(moments.len() / 2, RowMoments::default());
        let sum = Buffers::new(residual, sum)?;
        let rows = AddNorm::new(norm, x, sum, z, &mut made)?;
        Engine::active()?.dropout_add_norm(draw.rate, draw.at, rows, bits)?;
        for (pair, made) in moments.as_chunks_mut::<2>().0.iter_mut().zip(made) {
            *pair = [made.mean, made.inverse_deviation];
        }
        Ok::<_, sorix::kernels::Error>(())
    };
    Ok(threads::kernel(py, bytes, draw.threads, work)?)
}

/// The gradient of the sum to `d_sum`: that which comes from `dz`, and `more`, which came to it from elsewhere. And
/// those of weight and shift, if there are arrays for them.
#[pyfunction]
#[pyo3(signature = (dz, more, sum, moments, weight, d_sum, d_weight, d_shift, rows, threads))]
#[expect(
    clippy::too_many_arguments,
    reason = "one crossing into Rust for all of it"
)]
pub(crate) fn _norm_gradients(
    dz: &Bound<'_, PyAny>,
    more: Option<&Bound<'_, PyAny>>,
    sum: &Bound<'_, PyAny>,
    moments: &Bound<'_, PyAny>,
    weight: Option<&Bound<'_, PyAny>>,
    d_sum: &Bound<'_, PyAny>,
    d_weight: Option<&Bound<'_, PyAny>>,
    d_shift: Option<&Bound<'_, PyAny>>,
    rows: Rows,
    threads: usize,
) -> Result<()> {
    let dz = read(dz)?;
    let read = [more, Some(sum), weight];
    let written = [Some(d_sum), d_weight, d_shift];
    with_item!(dz.dtype, T => backward::<T>(&dz, read, moments, written, rows, threads))
}

fn backward<T: Item + Element<Scale: Item>>(
    dz: &Input<'_>,
    read_beside: [Option<&Bound<'_, PyAny>>; 3],
    moments: &Bound<'_, PyAny>,
    written: [Option<&Bound<'_, PyAny>>; 3],
    rows: Rows,
    threads: usize,
) -> Result<()> {
    let (py, bytes) = (dz.given.py(), 4 * dz.bytes());
    let dz = dz.lend::<T>()?;
    let [more, sum, weight] = read_beside.map(lent::<T::Scale>);
    let (more, sum, weight) = (more?, sum?, weight?);
    let [d_sum, d_weight, d_shift] = written.map(lent_mut::<T::Scale>);
    let (mut d_sum, mut d_weight, mut d_shift) = (d_sum?, d_weight?, d_shift?);
    let moments = read(moments)?.lend::<f64>()?;
    let (dz, moments) = (dz.slice()?, moments.slice()?);
    let (more, weight) = (slice(more.as_ref())?, slice(weight.as_ref())?);
    let sum = slice(sum.as_ref())?.unwrap_or_default();
    let d_sum = slice_mut(d_sum.as_mut())?.unwrap_or_default();
    let d_weight = slice_mut(d_weight.as_mut())?;
    let d_shift = slice_mut(d_shift.as_mut())?;
    let work = || {
        let pairs = moments.as_chunks::<2>().0.iter();
        let mut moments = memory(pairs.len())?;
        moments.extend(pairs.map(|&[mean, inverse_deviation]| RowMoments {
            mean,
            inverse_deviation,
        }));
        let norm = rows.norm(weight)?;
        let mut gradient = NormGradient::new(norm, dz, sum, &moments, d_sum)?;
        if let Some(more) = more {
            gradient = gradient.with_more(more)?;
        }
        if let Some(d_weight) = d_weight {
            gradient = gradient.with_d_weight(d_weight)?;
        }
        if let Some(d_shift) = d_shift {
            gradient = gradient.with_d_shift(d_shift)?;
        }
        Engine::active()?.norm_backward(gradient)
    };
    Ok(threads::kernel(py, bytes, Some(threads), work)?)
}
