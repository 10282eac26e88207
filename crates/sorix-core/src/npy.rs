//! NumPy's `.npy` files (feature `npy`), by the `npyz` crate.
//!
//! A file may come from anywhere, so its header is looked at before `npyz` interprets it: that crate
//! trusts lengths that a file states about itself, and recurses as deep as a header nests. Elements
//! are read as they come, so a file that promises more than it has costs little more memory than it has.
//!
//! Source: NumPy enhancement proposal 1, and `numpy.lib.format`.

use std::io::{self, BufReader, BufWriter, Read, Write};

use half::f16;
use npyz::{NpyHeader, Order, WriteOptions, WriterBuilder};
use num_traits::ToPrimitive;
use py_literal::Value;

use crate::bytes::{CHUNK, swap_bytes, write_chunks};
use crate::dtype::{DType, Scalar, dispatch};
use crate::error::{Call, Error, ErrorKind, TensorSpec};
use crate::shape::checked_numel;
use crate::tensor::{Snapshot, Tensor};

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
    #[error("{op}{}: {source}", of(.tensor))]
    Io {
        /// The operation.
        op: &'static str,
        /// The dtype and shape of the tensor; `None` before a file has said them.
        tensor: Option<TensorSpec>,
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
    #[error("write_npy({tensor}): the format has no {}; convert with to_dtype", .tensor.dtype())]
    DType {
        /// The dtype and shape of the tensor.
        tensor: TensorSpec,
    },
    /// A tensor that cannot be made.
    #[error(transparent)]
    Tensor(#[from] Error),
}

/// The tensor as [`Error`] shows it.
fn of(tensor: &Option<TensorSpec>) -> String {
    tensor
        .as_ref()
        .map_or_else(String::new, |tensor| format!("({tensor})"))
}

impl Tensor {
    /// The array of an `.npy` file: f2, f4 or f8, of either byte order. One in Fortran order becomes a
    /// tensor with such strides. What comes after the array is left unread, or lost in a buffer.
    ///
    /// # Errors
    ///
    /// If the file is malformed, ends too soon, or has elements of another type; if the shape is
    /// too large for the memory; if reading fails.
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
        let descr = header.dtype().descr();
        match plain_dtype(descr.trim_matches('\'')) {
            Some(dtype) => dispatch!(dtype, T => read_elements::<T>(&header, reader)),
            None => Err(NpyError::Elements { descr }),
        }
    }

    /// Writes the tensor as an `.npy` file, in row-major order, that NumPy's `load` reads.
    ///
    /// # Errors
    ///
    /// If the dtype is bf16, which the format does not have; if writing fails.
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
            DType::BF16 => Err(NpyError::DType {
                tensor: TensorSpec::of(self),
            }),
        }
    }

    fn write_elements<T: Scalar + npyz::AutoSerialize>(
        &self,
        writer: impl Write,
    ) -> Result<(), NpyError> {
        let failed = |source| NpyError::Io {
            op: "write_npy",
            tensor: Some(TensorSpec::of(self)),
            source,
        };
        let snapshot = self.read();
        let shape: Vec<u64> = self.shape().iter().map(|&length| length as u64).collect();
        let mut buffered = BufWriter::new(writer);
        // The default is the byte order of the machine.
        let header = WriteOptions::<T>::new().default_dtype().shape(&shape);
        let header = header.writer(&mut buffered).write_header_only();
        header
            .and_then(|file| write_native::<T>(file, &snapshot))
            .and_then(|()| buffered.flush())
            .map_err(failed)
    }
}

fn write_native<T: Scalar>(file: &mut impl Write, elements: &Snapshot<'_>) -> io::Result<()> {
    if let Some(elements) = elements.slice::<T>() {
        return file.write_all(bytemuck::cast_slice(elements));
    }
    write_chunks::<T>(file, elements, |_, _| {})
}

/// NumPy, too, reads headers up to 10,000 bytes unless told otherwise.
const MAX_HEADER: usize = 10_000;

/// A header that `npyz` can be given: short, of a plain array, with a shape that can be addressed.
fn read_header(reader: &mut impl Read) -> Result<NpyHeader, NpyError> {
    let failed = |source| NpyError::Io {
        op: "read_npy",
        tensor: None,
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
    let (mut dtype, mut shape) = (None, Vec::new());
    for (key, value) in entries {
        match (key.as_string().map(String::as_str), value) {
            (Some("descr"), Value::String(descr)) => dtype = plain_dtype(&descr),
            (Some("descr"), _) => return Err(not_plain()),
            (Some("shape"), Value::Tuple(lengths) | Value::List(lengths)) => {
                let length = |length: &Value| length.as_integer()?.to_usize();
                let lengths: Option<_> = lengths.iter().map(length).collect();
                shape = lengths.ok_or_else(not_plain)?;
            }
            _ => {}
        }
    }
    // Of what is no dtype, as of the widest of them: it is refused, but after `npyz` multiplied.
    let dtype = dtype.unwrap_or(DType::F64);
    checked_numel(Call::making("read_npy", &shape, dtype), &shape, dtype)?;
    Ok(())
}

/// The dtype of elements that NumPy calls so, in either byte order.
fn plain_dtype(descr: &str) -> Option<DType> {
    match descr.trim_start_matches(['<', '>']) {
        "f2" => Some(DType::F16),
        "f4" => Some(DType::F32),
        "f8" => Some(DType::F64),
        _ => None,
    }
}

fn read_elements<T: Scalar>(header: &NpyHeader, mut reader: impl Read) -> Result<Tensor, NpyError> {
    let lengths = header.shape().iter().map(|&length| length as usize);
    let mut shape: Vec<usize> = lengths.collect();
    let call = Call::making("read_npy", &shape, T::DTYPE);
    let numel = checked_numel(call, &shape, T::DTYPE)?;
    let failed = |source: io::Error| NpyError::Io {
        op: "read_npy",
        tensor: Some(TensorSpec::new(&shape, T::DTYPE)),
        source: match source.kind() {
            io::ErrorKind::UnexpectedEof => {
                io::Error::new(source.kind(), "the file ends before its elements do")
            }
            _ => source,
        },
    };
    let swapped = header.dtype().descr().contains('>') != cfg!(target_endian = "big");

    let mut elements: Vec<T> = Vec::new();
    while elements.len() < numel {
        let (read, count) = (elements.len(), CHUNK / size_of::<T>());
        let count = count.min(numel - read);
        elements.try_reserve(count).map_err(|_| {
            let bytes = (read + count) * size_of::<T>();
            call.error(ErrorKind::Allocation { bytes })
        })?;
        elements.resize(read + count, T::zeroed());
        let bytes = bytemuck::cast_slice_mut(&mut elements[read..]);
        reader.read_exact(bytes).map_err(failed)?;
        if swapped {
            swap_bytes(bytes, size_of::<T>());
        }
    }
    // They grew by doubling.
    elements.shrink_to_fit();

    match header.order() {
        Order::C => Ok(Tensor::from_vec(elements, &shape)?),
        Order::Fortran => {
            shape.reverse();
            let axes: Vec<isize> = (0..shape.len() as isize).rev().collect();
            Ok(Tensor::from_vec(elements, &shape)?.permute(&axes)?)
        }
    }
}
