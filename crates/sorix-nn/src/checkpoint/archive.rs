//! The file format: safetensors, of entries that are tensors or a few numbers.
//!
//! Nothing in a file is trusted. What its header says of an entry is checked against what is expected
//! before the data is read, and only data that is expected is read, so no more memory is taken than
//! for the tensors that are there already and for the header.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, View, serialize};
use sorix_core::{DType, ErrorKind, Tensor};

use super::{CheckpointError, unique};
use crate::error::Result;

/// What the header calls the file's metadata, beside the entries.
const METADATA: &str = "__metadata__";

/// The key of the version in the file's metadata.
const VERSION_KEY: &str = "sorix_checkpoint";

/// The version that is written, and the only one that is read.
const VERSION: &str = "1";

/// Bytes of a header, at most; the `safetensors` crate has the same limit.
const MAX_HEADER: u64 = 100_000_000;

/// A named value in a file.
#[derive(Debug)]
pub(super) struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Entry {
    pub(super) fn tensor(tensor: &Tensor) -> Result<Self> {
        Ok(Self {
            dtype: file_dtype(tensor.dtype())?,
            shape: tensor.shape().to_vec(),
            bytes: tensor.to_le_bytes()?,
        })
    }

    pub(super) fn words(words: &[u64]) -> Self {
        Self {
            dtype: Dtype::U64,
            shape: vec![words.len()],
            bytes: words.iter().flat_map(|word| word.to_le_bytes()).collect(),
        }
    }

    pub(super) fn number(number: f64) -> Self {
        Self {
            dtype: Dtype::F64,
            shape: Vec::new(),
            bytes: number.to_le_bytes().to_vec(),
        }
    }
}

impl View for Entry {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// A file of these entries.
pub(super) fn write(entries: BTreeMap<String, Entry>) -> Result<Vec<u8>> {
    if entries.contains_key(METADATA) {
        let name = METADATA.to_owned();
        return Err(CheckpointError::Reserved { name }.into());
    }
    let metadata = HashMap::from([(VERSION_KEY.to_owned(), VERSION.to_owned())]);
    Ok(serialize(entries, Some(metadata)).map_err(|error| format_error(&error))?)
}

/// A file whose header was read and found to describe the whole of it.
#[derive(Debug)]
pub(super) struct Archive<R> {
    source: R,
    /// For errors.
    path: PathBuf,
    header: Metadata,
    /// Where the data begins.
    data: u64,
    /// The names of the entries that were read.
    read: BTreeSet<String>,
}

impl<R: Read + Seek> Archive<R> {
    /// A file, and its path for errors.
    pub(super) fn open(mut source: R, path: &Path) -> Result<Self> {
        let length = source.seek(SeekFrom::End(0)).map_err(io_error(path))?;
        source.rewind().map_err(io_error(path))?;
        if length < 8 {
            return Err(format_error(&format!(
                "it has {length} bytes, and begins with 8 for the size of its header"
            ))
            .into());
        }
        let mut size = [0; 8];
        source.read_exact(&mut size).map_err(io_error(path))?;
        let size = u64::from_le_bytes(size);
        if size > MAX_HEADER {
            return Err(format_error(&format!(
                "the header has {size} bytes, which is more than {MAX_HEADER}"
            ))
            .into());
        }
        let data = 8 + size;
        if length < data {
            return Err(format_error(&format!(
                "it has {length} bytes, and the header alone takes {data}"
            ))
            .into());
        }
        let mut header = Vec::new();
        source
            .by_ref()
            .take(size)
            .read_to_end(&mut header)
            .map_err(io_error(path))?;
        unique::check(&header).map_err(|error| format_error(&error))?;
        let header: Metadata =
            serde_json::from_slice(&header).map_err(|error| format_error(&error))?;
        let expected = data.saturating_add(header.data_len() as u64);
        if length != expected {
            return Err(format_error(&format!(
                "the header describes a file of {expected} bytes, this one has {length}"
            ))
            .into());
        }
        // A file that another program wrote has no version.
        let metadata = header.metadata().as_ref();
        match metadata.and_then(|metadata| metadata.get(VERSION_KEY)) {
            Some(version) if version != VERSION => {
                let got = version.clone();
                Err(CheckpointError::Version { got }.into())
            }
            _ => Ok(Self {
                source,
                path: path.to_owned(),
                header,
                data,
                read: BTreeSet::new(),
            }),
        }
    }

    /// The names of the entries that nothing asked for.
    pub(super) fn not_read(&self) -> impl Iterator<Item = String> {
        let names = self.header.offset_keys().into_iter();
        names.filter(|name| !self.read.contains(name))
    }

    pub(super) fn tensor(&mut self, name: &str, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let bytes = self.bytes(name, shape, file_dtype(dtype)?)?;
        Ok(Tensor::from_le_bytes(&bytes, shape, dtype)?)
    }

    pub(super) fn words<const N: usize>(&mut self, name: &str) -> Result<[u64; N]> {
        let bytes = self.bytes(name, &[N], Dtype::U64)?;
        let mut words = [0; N];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Ok(words)
    }

    pub(super) fn number(&mut self, name: &str) -> Result<f64> {
        let bytes = self.bytes(name, &[], Dtype::F64)?;
        Ok(bytes
            .first_chunk()
            .map_or(f64::NAN, |bytes| f64::from_le_bytes(*bytes)))
    }

    /// The data of an entry that has to be of this shape and dtype. An entry is asked for once:
    /// whoever asks again has two things of one name.
    fn bytes(&mut self, name: &str, shape: &[usize], dtype: Dtype) -> Result<Vec<u8>> {
        let Some(info) = self.header.info(name) else {
            let name = name.to_owned();
            return Err(CheckpointError::Missing { name }.into());
        };
        if (info.dtype, &*info.shape) != (dtype, shape) {
            return Err(CheckpointError::Mismatch {
                name: name.to_owned(),
                expected: format!("{dtype} of shape {shape:?}"),
                got: format!("{} of shape {:?}", info.dtype, info.shape),
            }
            .into());
        }
        if !self.read.insert(name.to_owned()) {
            let name = name.to_owned();
            return Err(CheckpointError::Repeated { name }.into());
        }
        // Reading the header established that the offsets are in order and within the file.
        let (from, to) = info.data_offsets;
        let from = self.data.saturating_add(from as u64);
        let length = to - info.data_offsets.0;
        self.source
            .seek(SeekFrom::Start(from))
            .map_err(io_error(&self.path))?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).map_err(|_| {
            let kind = ErrorKind::Allocation { bytes: length };
            sorix_core::Error::new("checkpoint", &[], kind)
        })?;
        bytes.resize(length, 0);
        self.source
            .read_exact(&mut bytes)
            .map_err(io_error(&self.path))?;
        Ok(bytes)
    }
}

fn file_dtype(dtype: DType) -> Result<Dtype> {
    match dtype {
        DType::F16 => Ok(Dtype::F16),
        DType::BF16 => Ok(Dtype::BF16),
        DType::F32 => Ok(Dtype::F32),
        DType::F64 => Ok(Dtype::F64),
        _ => Err(format_error(&format!("{dtype} cannot be written")).into()),
    }
}

pub(super) fn io_error(path: &Path) -> impl Fn(std::io::Error) -> CheckpointError {
    |error| CheckpointError::Io {
        path: path.to_owned(),
        kind: error.kind(),
        reason: error.to_string(),
    }
}

fn format_error(reason: &impl ToString) -> CheckpointError {
    CheckpointError::Format {
        reason: reason.to_string(),
    }
}
