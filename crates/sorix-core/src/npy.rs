//! NumPy's `.npy` files (feature `npy`): headers are parsed by `py_literal` and written by `npyz`.
//!
//! A file may come from anywhere, so nothing that it states about itself is trusted: lengths are checked
//! before they are multiplied, and brackets counted before they are parsed. Elements are read as they
//! come, so a file that promises more than it has costs little more memory than it has. Not a byte is
//! read beyond the array, so that the next one may follow it.
//!
//! Source: NumPy enhancement proposal 1, and `numpy.lib.format`, whose header filter for files of Python 2
//! is [`without_python_2`].

use std::io::{self, BufWriter, Read, Write};

use half::f16;
use npyz::{WriteOptions, WriterBuilder};
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
    /// tensor with such strides.
    ///
    /// What comes after the array is left unread: of several arrays in one stream, as repeated
    /// `numpy.save` to one file writes them, each call with `&mut reader` reads the next. Elements are
    /// read 256 KiB at a time, so a buffer around the reader gains nothing.
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
    ///
    /// tensor([5.0]).write_npy(&mut file)?;
    /// let mut stream = file.as_slice();
    /// let first = Tensor::read_npy(&mut stream)?;
    /// let second = Tensor::read_npy(&mut stream)?;
    /// assert_eq!((first.shape(), second.item::<f64>()?), (x.shape(), 5.0));
    /// # Ok::<(), sorix_core::NpyError>(())
    /// ```
    pub fn read_npy(mut reader: impl Read) -> Result<Self, NpyError> {
        let header = read_header(&mut reader)?;
        dispatch!(header.dtype, T => read_elements::<T>(header, reader))
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

/// What a header says of its array.
struct Header {
    dtype: DType,
    /// Whether the bytes of an element are in the other order than this machine's.
    swapped: bool,
    /// Whether the first index runs fastest.
    fortran: bool,
    shape: Vec<usize>,
}

fn read_header(reader: &mut impl Read) -> Result<Header, NpyError> {
    let failed = |source| NpyError::Io {
        op: "read_npy",
        tensor: None,
        source,
    };
    let malformed = |reason: String| failed(io::Error::new(io::ErrorKind::InvalidData, reason));
    // Magic, version, and the header's length in two bytes, or from version 2 on in four.
    let mut bytes = [0; 12];
    read(reader, &mut bytes[..10], "the beginning of an .npy file").map_err(failed)?;
    if !bytes.starts_with(b"\x93NUMPY") {
        let begin = bytes[..6].escape_ascii();
        let reason = format!("expected a file that begins with \\x93NUMPY, got {begin}");
        return Err(malformed(reason));
    }
    let version = bytes[6];
    if !(1..=3).contains(&version) {
        let reason = format!("expected version 1, 2 or 3 of the format, got {version}");
        return Err(malformed(reason));
    }
    let length = if version == 1 {
        u32::from(u16::from_le_bytes([bytes[8], bytes[9]]))
    } else {
        read(reader, &mut bytes[10..], "a long header's length").map_err(failed)?;
        u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]])
    };
    let (length, limit) = (length as usize, MAX_HEADER);
    if length > limit {
        return Err(NpyError::HeaderLength { limit, length });
    }
    let mut header = vec![0; length];
    read(reader, &mut header, "its header").map_err(failed)?;
    parse_header(&String::from_utf8_lossy(&header))
}

/// Fills `bytes`; the error of a stream that ends before says `what` was expected.
fn read(reader: &mut impl Read, bytes: &mut [u8], what: &str) -> io::Result<()> {
    let mut count = 0;
    while count < bytes.len() {
        match reader.read(&mut bytes[count..]) {
            Ok(0) => {
                let got = match count {
                    0 => "the end of the stream".to_owned(),
                    count => format!("{count} bytes and the end of the stream"),
                };
                let reason = format!("expected the {} bytes of {what}, got {got}", bytes.len());
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
            }
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A header that is a dictionary with a type that is a name, an order, and a shape that can be
/// addressed.
fn parse_header(text: &str) -> Result<Header, NpyError> {
    let text = text.trim_end();
    let not_plain = || NpyError::NotPlain {
        header: text.to_owned(),
    };
    // Counted before parsing, as the parser recurses into brackets.
    if text.matches(['(', '[', '{']).count() > 2 {
        return Err(not_plain());
    }
    let entries = match without_python_2(text).parse::<Value>() {
        Ok(Value::Dict(entries)) => entries,
        _ => return Err(not_plain()),
    };
    let (mut descr, mut fortran, mut shape) = (None, None, None);
    for (key, value) in entries {
        match (key.as_string().map(String::as_str), value) {
            (Some("descr"), Value::String(name)) => descr = Some(name),
            (Some("fortran_order"), Value::Boolean(order)) => fortran = Some(order),
            (Some("shape"), Value::Tuple(lengths) | Value::List(lengths)) => {
                let length = |length: &Value| length.as_integer()?.to_usize();
                shape = lengths.iter().map(length).collect::<Option<Vec<usize>>>();
            }
            _ => return Err(not_plain()),
        }
    }
    let (Some(descr), Some(fortran), Some(shape)) = (descr, fortran, shape) else {
        return Err(not_plain());
    };
    let Some((dtype, swapped)) = plain_dtype(&descr) else {
        let descr = format!("'{}'", descr.escape_debug());
        return Err(NpyError::Elements { descr });
    };
    checked_numel(Call::making("read_npy", &shape, dtype), &shape, dtype)?;
    Ok(Header {
        dtype,
        swapped,
        fortran,
        shape,
    })
}

/// The header without what only Python 2 wrote: the `L` after a long integer, as in `(2L,)`, which
/// NumPy has for every length on 64-bit Windows, and the `u` before a string of unicode.
fn without_python_2(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let (mut quote, mut before) = (None, ' ');
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let is_prefix = matches!(c, 'u' | 'U') && matches!(chars.peek(), Some('\'' | '"'));
        let is_suffix = matches!(c, 'L' | 'l') && before.is_ascii_digit();
        match quote {
            None if is_prefix || is_suffix => {}
            None => {
                quote = matches!(c, '\'' | '"').then_some(c);
                plain.push(c);
            }
            Some(open) => {
                // An escaped quote does not close.
                if c == open && before != '\\' {
                    quote = None;
                }
                plain.push(c);
            }
        }
        before = c;
    }
    plain
}

/// The dtype of elements that NumPy calls so, and whether their bytes are in the other order than this
/// machine's: `<` and `>` are an order, `=`, `|` and nothing stand for the machine's.
fn plain_dtype(descr: &str) -> Option<(DType, bool)> {
    let swapped = match descr.chars().next()? {
        '<' => cfg!(target_endian = "big"),
        '>' => cfg!(target_endian = "little"),
        _ => false,
    };
    let dtype = match descr.strip_prefix(['<', '>', '=', '|']).unwrap_or(descr) {
        "f2" => DType::F16,
        "f4" => DType::F32,
        "f8" => DType::F64,
        _ => return None,
    };
    Some((dtype, swapped))
}

fn read_elements<T: Scalar>(header: Header, mut reader: impl Read) -> Result<Tensor, NpyError> {
    let mut shape = header.shape;
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
        if header.swapped {
            swap_bytes(bytes, size_of::<T>());
        }
    }
    // They grew by doubling.
    elements.shrink_to_fit();

    if !header.fortran {
        return Ok(Tensor::from_vec(elements, &shape)?);
    }
    shape.reverse();
    let axes: Vec<isize> = (0..shape.len() as isize).rev().collect();
    Ok(Tensor::from_vec(elements, &shape)?.permute(&axes)?)
}
