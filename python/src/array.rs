//! Arrays of numpy as slices of elements, without a copy if they are in row-major order.

use core::marker::PhantomData;

use bytemuck::Pod;
use half::{bf16, f16};
use numpy::{
    PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyReadwriteArrayDyn,
    PyUntypedArray, PyUntypedArrayMethods,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use sorix::{DType, Scalar};

use crate::dtype::{bfloat16, numpy};
use crate::error::{Raised, Result};

/// An element type of the kernels, and what numpy has of the same bytes.
pub(crate) trait Item: Scalar + Pod {
    /// bfloat16 has no type of numpy's own, and goes as unsigned integers of 16 bits.
    type InNumpy: numpy::Element + Pod;
}

impl Item for f16 {
    type InNumpy = f16;
}

impl Item for bf16 {
    type InNumpy = u16;
}

impl Item for f32 {
    type InNumpy = f32;
}

impl Item for f64 {
    type InNumpy = f64;
}

/// Runs the block with `$T` as the element type of a dtype.
macro_rules! with_item {
    ($dtype:expr, $T:ident => $block:expr) => {
        match $dtype {
            sorix::DType::F16 => {
                type $T = half::f16;
                $block
            }
            sorix::DType::BF16 => {
                type $T = half::bf16;
                $block
            }
            sorix::DType::F32 => {
                type $T = f32;
                $block
            }
            sorix::DType::F64 => {
                type $T = f64;
                $block
            }
            dtype => Err($crate::error::Raised::type_(format!(
                "expected a dtype that numpy has too, got {dtype}"
            ))),
        }
    };
}
pub(crate) use with_item;

/// The number of numpy's `uint16`.
const UINT16: i32 = 4;

/// The dtype of an array, if it is one of ours.
pub(crate) fn dtype_of(array: &Bound<'_, PyUntypedArray>) -> Result<DType> {
    /// Numbers of numpy's types, which are part of its binary interface.
    const NUMBERS: [(i32, DType); 3] = [(23, DType::F16), (11, DType::F32), (12, DType::F64)];

    let dtype = array.dtype();
    let number = dtype.num();
    let found = NUMBERS.iter().find(|(known, _)| *known == number);
    if let Some(&(_, found)) = found
        && dtype.is_native_byteorder() == Some(true)
    {
        return Ok(found);
    }
    // A type of another package has no number that could be known.
    if number > 23 && dtype.getattr("name")?.cast::<PyString>()? == "bfloat16" {
        return Ok(DType::BF16);
    }
    let got = dtype.str()?;
    Err(Raised::type_(format!(
        "expected an array of float16, bfloat16, float32 or float64 in native byte order, got {got}"
    )))
}

/// An array to read, in row-major order.
#[derive(Debug)]
pub(crate) struct Input<'py> {
    /// What the user gave, as an array.
    pub(crate) given: Bound<'py, PyUntypedArray>,
    pub(crate) dtype: DType,
    /// The same elements in row-major order, aligned; bfloat16 as integers.
    plain: Bound<'py, PyUntypedArray>,
}

impl<'py> Input<'py> {
    /// An array, or anything that numpy makes one of; copied if it is not in row-major order.
    pub(crate) fn new(x: &Bound<'py, PyAny>) -> Result<Self> {
        let py = x.py();
        let given = match x.cast::<PyUntypedArray>() {
            Ok(array) if array.is_exact_instance_of::<PyUntypedArray>() => array.clone(),
            // A subclass may see its elements otherwise: as its base class it is what we take it for.
            _ => numpy(py, "asarray")?
                .call1((x,))?
                .cast_into::<PyUntypedArray>()?,
        };
        Self::of(given)
    }

    pub(crate) fn of(given: Bound<'py, PyUntypedArray>) -> Result<Self> {
        let py = given.py();
        let dtype = dtype_of(&given)?;
        let mut plain = given.clone();
        if !plain.is_c_contiguous() || !plain.is_aligned() {
            let options = PyDict::new(py);
            options.set_item("order", "C")?;
            plain = plain.call_method("copy", (), Some(&options))?.cast_into()?;
        }
        if dtype == DType::BF16 {
            plain = as_integers(&plain)?;
        }
        Ok(Self {
            given,
            dtype,
            plain,
        })
    }

    /// The array of one of PyTorch's tensors, which gives bfloat16 as integers.
    pub(crate) fn of_torch(array: &Bound<'py, PyUntypedArray>) -> Result<Self> {
        let dtype = if array.dtype().num() == UINT16 {
            DType::BF16
        } else {
            dtype_of(array)?
        };
        Ok(Self {
            given: array.clone(),
            dtype,
            plain: array.clone(),
        })
    }

    pub(crate) fn shape(&self) -> &[usize] {
        self.plain.shape()
    }

    pub(crate) fn len(&self) -> usize {
        self.plain.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.len() * self.dtype.size()
    }

    /// The elements, lent until the value is dropped.
    pub(crate) fn lend<T: Item>(&self) -> Result<Lent<'py, T>> {
        let array = self.plain.cast::<PyArrayDyn<T::InNumpy>>()?;
        Ok(Lent(array.try_readonly()?, PhantomData))
    }
}

/// Elements of an array that is not written meanwhile.
pub(crate) struct Lent<'py, T: Item>(PyReadonlyArrayDyn<'py, T::InNumpy>, PhantomData<T>);

impl<T: Item> Lent<'_, T> {
    pub(crate) fn slice(&self) -> Result<&[T]> {
        let slice = self.0.as_slice().map_err(PyErr::from)?;
        Ok(bytemuck::cast_slice(slice))
    }
}

/// An array to write, in row-major order.
#[derive(Debug)]
pub(crate) struct Output<'py> {
    /// What the user gets.
    pub(crate) given: Bound<'py, PyUntypedArray>,
    plain: Bound<'py, PyUntypedArray>,
}

impl<'py> Output<'py> {
    /// A new array of the shape and dtype of an input.
    pub(crate) fn like(input: &Input<'py>) -> Result<Self> {
        let py = input.plain.py();
        let plain = numpy(py, "empty_like")?.call1((&input.plain,))?;
        let plain = plain.cast_into::<PyUntypedArray>()?;
        let given = if input.dtype == DType::BF16 {
            plain.call_method1("view", (bfloat16(py)?,))?.cast_into()?
        } else {
            plain.clone()
        };
        Ok(Self { given, plain })
    }

    /// The array that the user gave for the output of `input`.
    pub(crate) fn given(out: &Bound<'py, PyAny>, input: &Input<'py>) -> Result<Self> {
        let Ok(given) = out.cast::<PyUntypedArray>() else {
            let got = out.get_type().name()?;
            return Err(Raised::type_(format!("out: expected an array, got {got}")));
        };
        let dtype = dtype_of(given)?;
        if dtype != input.dtype {
            let expected = input.dtype;
            return Err(Raised::type_(format!(
                "out: expected dtype {expected}, got {dtype}"
            )));
        }
        if given.shape() != input.shape() {
            let (expected, got) = (input.shape(), given.shape());
            return Err(Raised::value(format!(
                "out: expected shape {expected:?}, got {got:?}"
            )));
        }
        if !given.is_c_contiguous() || !given.is_aligned() {
            let strides = given.strides();
            return Err(Raised::value(format!(
                "out: expected an array in row-major order, got strides {strides:?} of shape {:?}",
                given.shape()
            )));
        }
        let plain = match dtype {
            DType::BF16 => as_integers(given)?,
            _ => given.clone(),
        };
        Ok(Self {
            given: given.clone(),
            plain,
        })
    }

    /// The array of the tensor that the output of `input` goes to.
    pub(crate) fn of_torch(array: &Bound<'py, PyUntypedArray>, input: &Input<'py>) -> Result<Self> {
        let shapes = (array.shape(), input.shape());
        if shapes.0 != shapes.1 || !array.is_c_contiguous() || !input.plain.is_c_contiguous() {
            return Err(Raised::value(format!(
                "expected two arrays of one shape in row-major order, got {shapes:?}"
            )));
        }
        Ok(Self {
            given: array.clone(),
            plain: array.clone(),
        })
    }

    /// The array of a tensor that is written and does not go with an input.
    pub(crate) fn alone(array: &Bound<'py, PyAny>) -> Result<Self> {
        let array = array.cast::<PyUntypedArray>()?;
        Self::of_torch(array, &Input::of_torch(array)?)
    }

    /// The elements, to be written until the value is dropped.
    pub(crate) fn lend<T: Item>(&self) -> Result<LentMut<'py, T>> {
        let array = self.plain.cast::<PyArrayDyn<T::InNumpy>>()?;
        Ok(LentMut(array.try_readwrite()?, PhantomData))
    }
}

/// Elements of an array that nobody else reads or writes meanwhile.
pub(crate) struct LentMut<'py, T: Item>(PyReadwriteArrayDyn<'py, T::InNumpy>, PhantomData<T>);

impl<T: Item> LentMut<'_, T> {
    pub(crate) fn slice(&mut self) -> Result<&mut [T]> {
        let slice = self.0.as_slice_mut().map_err(PyErr::from)?;
        Ok(bytemuck::cast_slice_mut(slice))
    }
}

fn as_integers<'py>(array: &Bound<'py, PyUntypedArray>) -> Result<Bound<'py, PyUntypedArray>> {
    let integers = numpy(array.py(), "uint16")?;
    Ok(array.call_method1("view", (integers,))?.cast_into()?)
}
