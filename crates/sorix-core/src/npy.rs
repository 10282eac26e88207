//! NumPy's `.npy` files (feature `npy`), by the `npyz` crate.
//!
//! A file may come from anywhere, so its header is looked at before `npyz` interprets it: that crate
//! trusts lengths that a file states about itself, and recurses as deep as a header nests. Elements
//! are read as they come, so a file that promises more than it has costs no more memory than it has.
//!
//! Source: NumPy enhancement proposal 1, and `numpy.lib.format`.

use std::io::{self, BufReader, BufWriter, Read, Write};

use half::f16;
use npyz::{NpyFile, NpyHeader, Order, WriteOptions, WriterBuilder};
use num_traits::ToPrimitive;
use py_literal::Value;

use crate::dtype::{DType, Scalar};
use crate::error::{Call, Error};
use crate::shape::checked_numel;
use crate::tensor::Tensor;

/// What can go wrong with an `.npy` file.
///
/// ```
/// use sorix_core::{NpyError, Tensor};
/// let error = Tensor::read_npy(&b"\x93NUMPY"[..]).unwrap_err();
/// assert!(matches!(error, NpyError::Io { op: "read_npy", .. }));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NpyError {
    /// Reading or writing failed: the file ends too soon, or its header is malformed, or what the
    /// operating system says.
    #[error("{op}: {source}")]
    Io {
        /// The operation.
        op: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// A header longer than any plain array needs.
    #[error("read_npy: expected a header of at most {limit} bytes, got {length}")]
    HeaderLength {
        /// The most bytes that are read.
        limit: usize,
        /// The length that the file states.
        length: usize,
    },
    /// A header of a structured array, or of something else.
    #[error("read_npy: expected the header of a plain array, got {header}")]
    NotPlain {
        /// The header.
        header: String,
    },
    /// Elements that no dtype has, in a file.
    #[error("read_npy: expected elements of type f2, f4 or f8, got {descr}")]
    Elements {
        /// NumPy's name of the type.
        descr: String,
    },
    /// A dtype that the format does not have.
    #[error("write_npy: the format has no {dtype}; convert with to_dtype")]
    DType {
        /// The dtype.
        dtype: DType,
    },
    /// A tensor that cannot be made.
    #[error(transparent)]
    Tensor(#[from] Error),
}

impl Tensor {
    /// The array of an `.npy` file: f2, f4 or f8, of either byte order. One in Fortran order becomes a
    /// tensor with such strides. What comes after the array is left unread, or lost in a buffer.
    ///
    /// # Errors
    ///
    /// Where the file is malformed, ends too soon, or has elements of another type; where the shape
    /// is too large for the memory; where reading fails.
    ///
    /// ```
    /// use sorix_core::{Tensor, tensor};
    /// let mut file = Vec::new();
    /// let x = tensor([[1.0_f32, 2.0], [3.0, 4.0]]);
    /// x.write_npy(&mut file)?;
    /// let y = Tensor::read_npy(file.as_slice())?;
    /// assert_eq!((y.shape(), y.to_vec::<f32>()?), (x.shape(), x.to_vec::<f32>()?));
    /// # Ok::<(), sorix_core::NpyError>(())
    /// ```
    pub fn read_npy(reader: impl Read) -> Result<Self, NpyError> {
        let mut reader = BufReader::new(reader);
        let header = read_header(&mut reader)?;
        let file = NpyFile::with_header(header, reader);
        let descr = file.dtype().descr();
        match descr.trim_matches('\'').trim_start_matches(['<', '>']) {
            "f2" => read_elements::<f16>(file),
            "f4" => read_elements::<f32>(file),
            "f8" => read_elements::<f64>(file),
            _ => Err(NpyError::Elements { descr }),
        }
    }

    /// Writes the tensor as an `.npy` file, in row-major order, that NumPy's `load` reads.
    ///
    /// # Errors
    ///
    /// Where the dtype is bf16, which the format does not have; where writing fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let mut file = Vec::new();
    /// tensor([1.0, 2.0]).write_npy(&mut file)?;
    /// assert!(file.starts_with(b"\x93NUMPY"));
    /// assert!(file.ends_with(&2.0_f64.to_le_bytes()));
    /// # Ok::<(), sorix_core::NpyError>(())
    /// ```
    pub fn write_npy(&self, writer: impl Write) -> Result<(), NpyError> {
        match self.dtype() {
            DType::F16 => self.write_elements::<f16>(writer),
            DType::F32 => self.write_elements::<f32>(writer),
            DType::F64 => self.write_elements::<f64>(writer),
            dtype @ DType::BF16 => Err(NpyError::DType { dtype }),
        }
    }

    fn write_elements<T: Scalar + npyz::AutoSerialize>(
        &self,
        writer: impl Write,
    ) -> Result<(), NpyError> {
        let failed = |source| NpyError::Io {
            op: "write_npy",
            source,
        };
        let shape: Vec<u64> = self.shape().iter().map(|&length| length as u64).collect();
        let mut buffered = BufWriter::new(writer);
        let mut file = WriteOptions::<T>::new()
            .default_dtype()
            .shape(&shape)
            .writer(&mut buffered)
            .begin_nd()
            .map_err(failed)?;
        self.with_view(|elements| file.extend(elements.iter().copied()))?
            .and_then(|()| file.finish())
            .and_then(|()| buffered.flush())
            .map_err(failed)
    }
}

/// NumPy, too, reads headers up to 10,000 bytes unless told otherwise.
const MAX_HEADER: usize = 10_000;

/// A header that `npyz` can be given: short, of a plain array, with a shape that can be addressed.
fn read_header(reader: &mut impl Read) -> Result<NpyHeader, NpyError> {
    let failed = |source| NpyError::Io {
        op: "read_npy",
        source,
    };
    // Magic, version, and the header's length in two bytes, or from version 2 on in four.
    let mut bytes = vec![0; 10];
    reader.read_exact(&mut bytes).map_err(failed)?;
    if !bytes.starts_with(b"\x93NUMPY") {
        return NpyHeader::from_reader(bytes.as_slice()).map_err(failed);
    }
    if bytes[6] > 1 {
        bytes.resize(12, 0);
        reader.read_exact(&mut bytes[10..]).map_err(failed)?;
    }
    let start = bytes.len();
    let length = bytes[8..]
        .iter()
        .rev()
        .fold(0, |length, &byte| length << 8 | usize::from(byte));
    if length > MAX_HEADER {
        let limit = MAX_HEADER;
        return Err(NpyError::HeaderLength { limit, length });
    }
    bytes.resize(start + length, 0);
    reader.read_exact(&mut bytes[start..]).map_err(failed)?;

    check_plain(&bytes[start..])?;
    NpyHeader::from_reader(bytes.as_slice()).map_err(failed)
}

/// Checks that the header is a dictionary in which nothing but the shape nests, with a type that is a
/// name and a shape that can be addressed. What else may be wrong is for `npyz` to say.
fn check_plain(header: &[u8]) -> Result<(), NpyError> {
    let text = String::from_utf8_lossy(header);
    let not_plain = || NpyError::NotPlain {
        header: text.trim_end().to_owned(),
    };
    // Counted before parsing, as the parser recurses into brackets.
    if text.matches(['(', '[', '{']).count() > 2 {
        return Err(not_plain());
    }
    let entries = match text.trim_end().parse::<Value>() {
        Ok(Value::Dict(entries)) => entries,
        _ => return Err(not_plain()),
    };
    for (key, value) in entries {
        match (key.as_string().map(String::as_str), value) {
            (Some("descr"), Value::String(_)) => {}
            (Some("descr"), _) => return Err(not_plain()),
            (Some("shape"), Value::Tuple(lengths) | Value::List(lengths)) => {
                let length = |length: &Value| length.as_integer()?.to_usize();
                let shape: Option<Vec<usize>> = lengths.iter().map(length).collect();
                // The widest of the types, so that no product overflows.
                let shape = shape.ok_or_else(not_plain)?;
                let call = Call::making("read_npy", &shape, DType::F64);
                checked_numel(call, &shape, DType::F64)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn read_elements<T: Scalar + npyz::Deserialize>(
    file: NpyFile<impl Read>,
) -> Result<Tensor, NpyError> {
    let failed = |source| NpyError::Io {
        op: "read_npy",
        source,
    };
    let mut shape: Vec<usize> = file.shape().iter().map(|&length| length as usize).collect();
    let order = file.order();
    let elements: Vec<T> = file.into_vec().map_err(failed)?;
    match order {
        Order::C => Ok(Tensor::from_vec(elements, &shape)?),
        Order::Fortran => {
            shape.reverse();
            let axes: Vec<isize> = (0..shape.len() as isize).rev().collect();
            Ok(Tensor::from_vec(elements, &shape)?.permute(&axes)?)
        }
    }
}
