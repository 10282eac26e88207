//! Reductions: their axes as numpy takes them.

use numpy::{PyArray1, PyArrayMethods};
use pyo3::prelude::*;
use sorix::{Axes, Tensor};

use crate::error::Result;
use crate::threads;

/// What a reduction goes over.
#[derive(Debug, FromPyObject)]
pub(crate) enum Over {
    /// One axis.
    #[pyo3(transparent)]
    One(isize),
    /// Several.
    #[pyo3(transparent)]
    Many(Vec<isize>),
}

pub(super) fn axes(over: Option<Over>, keepdims: bool) -> Axes {
    let axes = match over {
        None => Axes::from(..),
        Some(Over::One(axis)) => Axes::from(axis),
        Some(Over::Many(axes)) => Axes::from(axes),
    };
    if keepdims { Axes::keepdim(axes) } else { axes }
}

pub(super) fn argmax<'py>(py: Python<'py>, x: &Tensor, axis: isize) -> Result<Bound<'py, PyAny>> {
    let indices = threads::operation(py, super::bytes(x), || x.argmax(axis))?;
    // The axis is known to be one.
    let from_last = if axis < 0 { x.ndim() as isize } else { 0 };
    let mut shape = x.shape().to_vec();
    shape.remove((axis + from_last) as usize);
    let indices = indices.into_iter().map(|index| index as i64).collect();
    Ok(PyArray1::from_vec(py, indices).reshape(shape)?.into_any())
}
