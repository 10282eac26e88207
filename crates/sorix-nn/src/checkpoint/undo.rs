//! What parameters were, until a load is over.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek};
use std::path::Path;

use sorix_core::Tensor;
use sorix_core::autograd::no_grad;

use super::archive::{io_error, reserved};
use crate::error::Result;

/// The elements of tensors that were written, one after another: in memory if they are few, otherwise in a
/// temporary file without a name, so that a load takes no memory of the size of the model; and in memory
/// again where there is no place for such a file.
pub(super) struct Undo<'a> {
    written: Vec<&'a Tensor>,
    before: Before,
}

enum Before {
    Memory(Vec<u8>),
    File(BufWriter<File>),
}

/// Bytes that are kept in memory.
const IN_MEMORY: usize = 1 << 20;

impl<'a> Undo<'a> {
    /// For tensors of so many bytes in all.
    pub(super) fn new(bytes: usize) -> Result<Self> {
        let before = match tempfile::tempfile() {
            Ok(file) if bytes > IN_MEMORY => Before::File(BufWriter::new(file)),
            _ => Before::Memory(reserved(bytes)?),
        };
        Ok(Self {
            written: Vec::new(),
            before,
        })
    }

    /// Keeps what a tensor is, before it is written.
    pub(super) fn keep(&mut self, tensor: &'a Tensor) -> Result<()> {
        let kept = match &mut self.before {
            Before::Memory(bytes) => tensor.write_le_bytes(bytes),
            Before::File(file) => tensor.write_le_bytes(file),
        };
        kept.map_err(io_error(Path::new("a temporary file")))?;
        self.written.push(tensor);
        Ok(())
    }

    /// Writes back what was kept, by way of `room`.
    pub(super) fn undo(self, room: &mut Vec<u8>) -> Result<()> {
        let failed = io_error(Path::new("a temporary file"));
        match self.before {
            Before::Memory(bytes) => write_back(&self.written, &*bytes, room),
            Before::File(file) => {
                let file = file.into_inner().map_err(io::IntoInnerError::into_error);
                let mut file = file.map_err(&failed)?;
                file.rewind().map_err(&failed)?;
                write_back(&self.written, BufReader::new(file), room)
            }
        }
    }
}

fn write_back(tensors: &[&Tensor], mut before: impl Read, room: &mut Vec<u8>) -> Result<()> {
    for tensor in tensors {
        let bytes = tensor.numel() * tensor.dtype().size();
        room.clear();
        if room.capacity() < bytes {
            *room = reserved(bytes)?;
        }
        room.resize(bytes, 0);
        let read = before.read_exact(room);
        read.map_err(io_error(Path::new("a temporary file")))?;
        no_grad(|| tensor.assign_le_bytes(room, tensor.dtype()))?;
    }
    Ok(())
}
