//! The file format: safetensors, of entries that are tensors or a few numbers.
//!
//! Nothing in a file is trusted. What its header says of an entry is checked against what is expected
//! before the data is read, and only data that is expected is read, so no more memory is taken than
//! for the largest tensor that is there already and for the header.
//!
//! Nothing is written that was put together in memory first: a file has the size of a model.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::Serialize;
use siphasher::sip::SipHasher24;
use sorix_core::{DType, ErrorKind, Tensor};

use super::{CheckpointError, unique};
use crate::error::Result;

/// What the header calls the file's metadata, beside the entries.
const METADATA: &str = "__metadata__";

/// The key of the version in the file's metadata.
const VERSION_KEY: &str = "sorix_checkpoint";

/// The version that is written, and the only one that is read.
const VERSION: &str = "1";

/// The key of the checksums in the file's metadata: a JSON object of the names of entries and the
/// checksums of their data, in hexadecimal. A file need not have it, nor all entries.
const CHECKSUMS_KEY: &str = "sorix_checksums";

/// Bytes of a header, at most; the `safetensors` crate has the same limit.
const MAX_HEADER: u64 = 100_000_000;

/// Bytes that are read at once.
const CHUNK: usize = 1 << 18;

/// A named value to be written.
#[derive(Debug)]
pub(super) enum Entry {
    /// As it was when the entry was made.
    Tensor {
        dtype: Dtype,
        tensor: Tensor,
    },
    Words(Vec<u64>),
    Number(f64),
}

impl Entry {
    pub(super) fn tensor(tensor: &Tensor) -> Result<Self> {
        Ok(Self::Tensor {
            dtype: file_dtype(tensor.dtype())?,
            tensor: tensor.snapshot(),
        })
    }

    pub(super) fn words(words: &[u64]) -> Self {
        Self::Words(words.to_vec())
    }

    pub(super) fn number(number: f64) -> Self {
        Self::Number(number)
    }

    fn dtype(&self) -> Dtype {
        match self {
            Self::Tensor { dtype, .. } => *dtype,
            Self::Words(_) => Dtype::U64,
            Self::Number(_) => Dtype::F64,
        }
    }

    fn shape(&self) -> Vec<usize> {
        match self {
            Self::Tensor { tensor, .. } => tensor.shape().to_vec(),
            Self::Words(words) => vec![words.len()],
            Self::Number(_) => Vec::new(),
        }
    }

    fn length(&self) -> usize {
        match self {
            Self::Tensor { tensor, .. } => tensor.numel() * tensor.dtype().size(),
            Self::Words(words) => size_of_val(words.as_slice()),
            Self::Number(_) => size_of::<f64>(),
        }
    }

    fn write_to(&self, mut writer: impl Write) -> io::Result<()> {
        match self {
            Self::Tensor { tensor, .. } => tensor.write_le_bytes(writer),
            Self::Words(words) => words
                .iter()
                .try_for_each(|word| writer.write_all(&word.to_le_bytes())),
            Self::Number(number) => writer.write_all(&number.to_le_bytes()),
        }
    }
}

/// SipHash-2-4 of data that is written here, under a key of zeros: it finds damage, not malice.
struct Checksum(SipHasher24);

impl Checksum {
    fn new() -> Self {
        Self(SipHasher24::new())
    }

    fn in_hex(&self) -> String {
        format!("{:016x}", self.0.finish())
    }
}

impl Write for Checksum {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file to be written.
#[derive(Debug)]
pub(super) struct File {
    header: Vec<u8>,
    /// In the order of their data.
    entries: Vec<Entry>,
}

impl File {
    /// A file of these entries.
    pub(super) fn of(entries: BTreeMap<String, Entry>) -> Result<Self> {
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Member {
            Metadata(BTreeMap<&'static str, String>),
            Entry(TensorInfo),
        }

        if entries.contains_key(METADATA) {
            let name = METADATA.to_owned();
            return Err(CheckpointError::Reserved { name }.into());
        }
        let mut checksums = BTreeMap::new();
        for (name, entry) in &entries {
            let mut checksum = Checksum::new();
            entry
                .write_to(&mut checksum)
                .map_err(io_error(Path::new("")))?;
            checksums.insert(name, checksum.in_hex());
        }
        let checksums = serde_json::to_string(&checksums).map_err(|error| format_error(&error))?;
        let metadata = BTreeMap::from([
            (VERSION_KEY, VERSION.to_owned()),
            (CHECKSUMS_KEY, checksums),
        ]);
        // The widest elements first, so that all are aligned; the `safetensors` crate does the same.
        let mut ordered: Vec<_> = entries.into_iter().collect();
        ordered.sort_by(|(left, a), (right, b)| b.dtype().cmp(&a.dtype()).then(left.cmp(right)));
        let mut members = BTreeMap::from([(METADATA.to_owned(), Member::Metadata(metadata))]);
        let (mut at, mut in_order) = (0, Vec::new());
        for (name, entry) in ordered {
            let info = TensorInfo {
                dtype: entry.dtype(),
                shape: entry.shape(),
                data_offsets: (at, at + entry.length()),
            };
            at += entry.length();
            members.insert(name, Member::Entry(info));
            in_order.push(entry);
        }
        let mut header = serde_json::to_vec(&members).map_err(|error| format_error(&error))?;
        header.resize(header.len().next_multiple_of(8), b' ');
        if header.len() as u64 > MAX_HEADER {
            return Err(format_error(&format!(
                "the header has {} bytes, which is more than {MAX_HEADER}",
                header.len()
            ))
            .into());
        }
        Ok(Self {
            header,
            entries: in_order,
        })
    }

    /// The file, in memory.
    pub(super) fn into_bytes(self) -> Result<Vec<u8>> {
        let data: usize = self.entries.iter().map(Entry::length).sum();
        let mut bytes = reserved(8 + self.header.len() + data)?;
        self.write_to(&mut bytes).map_err(io_error(Path::new("")))?;
        Ok(bytes)
    }

    pub(super) fn write_to(&self, mut writer: impl Write) -> io::Result<()> {
        writer.write_all(&(self.header.len() as u64).to_le_bytes())?;
        writer.write_all(&self.header)?;
        let mut entries = self.entries.iter();
        entries.try_for_each(|entry| entry.write_to(&mut writer))
    }
}

/// Room for so many bytes.
pub(super) fn reserved(bytes: usize) -> Result<Vec<u8>> {
    let mut room = Vec::new();
    room.try_reserve_exact(bytes).map_err(|_| {
        let kind = ErrorKind::Allocation { bytes };
        sorix_core::Error::new("checkpoint", &[], kind)
    })?;
    Ok(room)
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
    /// By the names of entries, in hexadecimal.
    checksums: BTreeMap<String, String>,
    /// The names of the entries that were asked for.
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
            _ => {
                let checksums = metadata.and_then(|metadata| metadata.get(CHECKSUMS_KEY));
                let checksums = checksums.map(|checksums| {
                    unique::check(checksums.as_bytes())?;
                    serde_json::from_str(checksums)
                });
                let checksums = checksums.transpose();
                let checksums = checksums.map_err(|error| format_error(&error))?;
                Ok(Self {
                    source,
                    path: path.to_owned(),
                    checksums: checksums.unwrap_or_default(),
                    header,
                    data,
                    read: BTreeSet::new(),
                })
            }
        }
    }

    /// The names of the entries that nothing asked for.
    pub(super) fn not_read(&self) -> impl Iterator<Item = String> {
        let names = self.header.offset_keys().into_iter();
        names.filter(|name| !self.read.contains(name))
    }

    /// What the header says of each entry, by name.
    pub(super) fn entries(&self) -> BTreeMap<String, &TensorInfo> {
        self.header.tensors().into_iter().collect()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.header.info(name).is_some()
    }

    /// Finds a tensor that has to be of this shape and dtype, or with `convert` of any dtype that
    /// tensors have; and checks its data. An entry is asked for once: whoever asks again has two things
    /// of one name.
    pub(super) fn find(
        &mut self,
        name: &str,
        shape: &[usize],
        dtype: DType,
        convert: bool,
    ) -> Result<Found> {
        let info = self.info(name)?;
        let of_file = DTYPES
            .into_iter()
            .find(|&dtype| file_dtype(dtype).is_ok_and(|dtype| dtype == info.dtype));
        let got = match of_file {
            Some(got) if got == dtype || convert => got,
            _ => dtype,
        };
        let mut checksum = Checksum::new();
        self.claim(name, shape, file_dtype(got)?)?;
        self.each_chunk(name, |chunk| checksum.0.write(chunk))?;
        self.check(name, &checksum)?;
        let length = self.length(name)?;
        Ok(Found {
            name: name.to_owned(),
            dtype: got,
            length,
            checksum: checksum.0.finish(),
        })
    }

    /// The data of an entry that was found, in `room`, in place of what was there. It has to be what it was
    /// then.
    pub(super) fn read_into(&mut self, found: &Found, room: &mut Vec<u8>) -> Result<()> {
        room.clear();
        self.each_chunk(&found.name, |chunk| room.extend_from_slice(chunk))?;
        let mut checksum = Checksum::new();
        checksum.0.write(room);
        if checksum.0.finish() != found.checksum {
            let name = found.name.clone();
            return Err(CheckpointError::Changed { name }.into());
        }
        Ok(())
    }

    /// A tensor of its own, for a state that is put together before it is set.
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

    /// The data of an entry that has to be of this shape and dtype, checked.
    fn bytes(&mut self, name: &str, shape: &[usize], dtype: Dtype) -> Result<Vec<u8>> {
        self.claim(name, shape, dtype)?;
        let mut bytes = reserved(self.length(name)?)?;
        self.each_chunk(name, |chunk| bytes.extend_from_slice(chunk))?;
        let mut checksum = Checksum::new();
        checksum.0.write(&bytes);
        self.check(name, &checksum)?;
        Ok(bytes)
    }

    fn info(&self, name: &str) -> Result<&TensorInfo> {
        let name = name.to_owned();
        let info = self.header.info(&name);
        Ok(info.ok_or(CheckpointError::Missing { name })?)
    }

    fn length(&self, name: &str) -> Result<usize> {
        let (from, to) = self.info(name)?.data_offsets;
        Ok(to - from)
    }

    fn claim(&mut self, name: &str, shape: &[usize], dtype: Dtype) -> Result<()> {
        let info = self.info(name)?;
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
        Ok(())
    }

    /// An error if the file says another checksum.
    fn check(&self, name: &str, checksum: &Checksum) -> Result<()> {
        match self.checksums.get(name) {
            Some(expected) if *expected != checksum.in_hex() => {
                let name = name.to_owned();
                Err(CheckpointError::Damaged { name }.into())
            }
            _ => Ok(()),
        }
    }

    /// Calls `f` with the data of an entry, piece by piece.
    fn each_chunk(&mut self, name: &str, mut f: impl FnMut(&[u8])) -> Result<()> {
        // Reading the header established that the offsets are in order and within the file.
        let from = self.info(name)?.data_offsets.0;
        let mut rest = self.length(name)?;
        let from = self.data.saturating_add(from as u64);
        self.source
            .seek(SeekFrom::Start(from))
            .map_err(io_error(&self.path))?;
        let mut chunk = reserved(rest.min(CHUNK))?;
        while rest > 0 {
            chunk.resize(rest.min(CHUNK), 0);
            self.source
                .read_exact(&mut chunk)
                .map_err(io_error(&self.path))?;
            f(&chunk);
            rest -= chunk.len();
        }
        Ok(())
    }
}

/// A tensor in a file whose header and data were checked.
#[derive(Clone, Debug)]
pub(super) struct Found {
    name: String,
    pub(super) dtype: DType,
    pub(super) length: usize,
    /// Of the data that was read, whatever the file says.
    pub(super) checksum: u64,
}

const DTYPES: [DType; 4] = [DType::F16, DType::BF16, DType::F32, DType::F64];

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
