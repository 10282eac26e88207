//! `x[…]`.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyEllipsis, PySlice, PyTuple};
use sorix::{Tensor, TensorResult};

use super::PyTensor;
use crate::error::{Raised, Result};

/// What becomes of the next axis.
enum Part {
    /// Only this index of it is left, and the axis goes.
    Index(usize),
    Slice {
        start: usize,
        stop: usize,
        step: usize,
    },
    /// A new one of length 1 comes before it.
    New,
    /// Several indices of it.
    Several(Vec<usize>),
}

impl PyTensor {
    /// One index of the first axis.
    pub(super) fn row(&self, py: Python<'_>, row: usize) -> Result<Self> {
        self.unary(py, |x| x.slice(0, row..row + 1)?.squeeze(0))
    }
}

pub(super) fn get(py: Python<'_>, x: &PyTensor, index: &Bound<'_, PyAny>) -> Result<PyTensor> {
    let parts = parts(x.0.shape(), index)?;
    x.unary(py, |x| take(x, &parts))
}

fn take(x: &Tensor, parts: &[Part]) -> TensorResult<Tensor> {
    let mut axis = 0;
    let mut taken = x.clone();
    for part in parts {
        taken = match *part {
            Part::Index(at) => taken.slice(axis, at..at + 1)?.squeeze(axis)?,
            Part::Slice { start, stop, step } => taken.slice_step(axis, start..stop, step)?,
            Part::New => taken.unsqueeze(axis)?,
            Part::Several(ref indices) => taken.index_select(axis, indices)?,
        };
        axis += isize::from(!matches!(part, Part::Index(_)));
    }
    Ok(taken)
}

fn parts(shape: &[usize], index: &Bound<'_, PyAny>) -> Result<Vec<Part>> {
    let items: Vec<_> = match index.cast::<PyTuple>() {
        Ok(items) => items.iter().collect(),
        Err(_) => vec![index.clone()],
    };
    let takes_axis =
        |item: &&Bound<'_, PyAny>| !item.is_none() && !item.is(PyEllipsis::get(index.py()));
    let taken = items.iter().filter(takes_axis).count();
    if taken > shape.len() {
        return Err(Raised::index(format!(
            "too many indices: expected at most {} for shape {shape:?}, got {taken}",
            shape.len()
        )));
    }
    let ellipses = items
        .iter()
        .filter(|item| item.is(PyEllipsis::get(index.py())));
    if ellipses.count() > 1 {
        return Err(Raised::index("expected at most one ellipsis"));
    }

    let (mut parts, mut axis, mut several) = (Vec::new(), 0, 0);
    for item in &items {
        if item.is_none() {
            parts.push(Part::New);
            continue;
        }
        if item.is(PyEllipsis::get(index.py())) {
            for _ in 0..shape.len() - taken {
                let stop = shape[axis];
                parts.push(Part::Slice {
                    start: 0,
                    stop,
                    step: 1,
                });
                axis += 1;
            }
            continue;
        }
        let part = part(item, axis, shape[axis])?;
        several += usize::from(matches!(part, Part::Several(_)));
        parts.push(part);
        axis += 1;
    }
    if several > 1 {
        let text = "expected at most one list of indices: of several, numpy takes the elements at their pairs";
        return Err(Raised::index(text));
    }
    Ok(parts)
}

fn part(item: &Bound<'_, PyAny>, axis: usize, length: usize) -> Result<Part> {
    if let Ok(slice) = item.cast::<PySlice>() {
        let slice = slice.indices(length.cast_signed())?;
        if slice.step < 1 {
            let got = slice.step;
            return Err(Raised::value(format!(
                "expected a slice that goes forward, got step {got}"
            )));
        }
        let start = slice.start.unsigned_abs();
        return Ok(Part::Slice {
            start,
            stop: slice.stop.unsigned_abs().max(start),
            step: slice.step.unsigned_abs(),
        });
    }
    let not_an_index = || {
        let got = item.get_type();
        Raised::type_(format!(
            "expected an index, a slice, None, an ellipsis or a list of indices, got {got}"
        ))
    };
    if item.is_instance_of::<PyBool>() || item.is_instance_of::<PyTensor>() {
        return Err(not_an_index());
    }
    if let Ok(index) = item.extract::<isize>() {
        return Ok(Part::Index(from_start(index, axis, length)?));
    }
    let indices = integers(item).ok_or_else(not_an_index)?;
    let indices = indices.into_iter();
    let indices = indices.map(|index| from_start(index, axis, length));
    Ok(Part::Several(indices.collect::<Result<_>>()?))
}

/// The numbers of a sequence, `None` if it is another thing, or has truths in it: to Python these are 0 and 1, and
/// to numpy not indices but a choice.
pub(super) fn integers<'py, T>(list: &Bound<'py, PyAny>) -> Option<Vec<T>>
where
    T: FromPyObjectOwned<'py>,
{
    let items: Vec<Bound<'_, PyAny>> = list.extract().ok()?;
    let is_truth = |item: &Bound<'_, PyAny>| {
        let kind = || {
            item.getattr("dtype")
                .and_then(|dtype| dtype.getattr("kind"))
        };
        item.is_instance_of::<PyBool>() || kind().is_ok_and(|kind| kind.eq("b").unwrap_or(false))
    };
    if items.iter().any(is_truth) {
        return None;
    }
    items.iter().map(|item| item.extract().ok()).collect()
}

fn from_start(index: isize, axis: usize, length: usize) -> Result<usize> {
    let from_last = if index < 0 { length } else { 0 };
    let found = index.checked_add_unsigned(from_last);
    let found = found.and_then(|index| usize::try_from(index).ok());
    found.filter(|&index| index < length).ok_or_else(|| {
        Raised::index(format!(
            "index {index} is out of range for axis {axis} of length {length}"
        ))
    })
}
