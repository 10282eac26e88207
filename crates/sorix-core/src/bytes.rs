//! Tensors as bytes, the way most files keep them: row-major and little-endian.

use std::io::{self, Write};

use crate::autograd::is_grad_enabled;
use crate::dtype::{DType, Scalar, dispatch};
use crate::error::{Call, ErrorKind, Result};
use crate::shape::checked_numel;
use crate::tensor::{Snapshot, Tensor};

/// Bytes that are read or written at once: few enough to stay in cache, enough that a call of the
/// operating system for them does not show.
pub(crate) const CHUNK: usize = 1 << 18;

impl Tensor {
    /// The elements in row-major order, each as its bytes from the lowest to the highest.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// let x = sorix_core::tensor([1.0_f32, -2.0]);
    /// assert_eq!(x.to_le_bytes()?, [0, 0, 0x80, 0x3F, 0, 0, 0, 0xC0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn to_le_bytes(&self) -> Result<Vec<u8>> {
        let call = Call::on("to_le_bytes", self);
        dispatch!(self.dtype(), T => {
            let elements: Vec<T> = self.elements(call)?;
            let elements: &[u8] = bytemuck::cast_slice(&elements);
            let mut bytes = Vec::new();
            bytes
                .try_reserve_exact(elements.len())
                .map_err(|_| call.error(ErrorKind::Allocation { bytes: elements.len() }))?;
            bytes.extend_from_slice(elements);
            swap_if_big_endian(&mut bytes, size_of::<T>());
            Ok(bytes)
        })
    }

    /// Writes [`to_le_bytes`](Tensor::to_le_bytes) without a copy of them all.
    ///
    /// # Errors
    ///
    /// Those of `writer`, which may have got a part by then, and if the allocation of a quarter of a
    /// megabyte fails.
    ///
    /// ```
    /// let x = sorix_core::tensor([[1.0_f32, 2.0], [3.0, 4.0]]).transpose(0, 1)?;
    /// let mut bytes = Vec::new();
    /// x.write_le_bytes(&mut bytes)?;
    /// assert_eq!(bytes, x.to_le_bytes()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_le_bytes(&self, mut writer: impl Write) -> io::Result<()> {
        let snapshot = self.read();
        dispatch!(self.dtype(), T => match snapshot.slice::<T>() {
            Some(elements) if cfg!(target_endian = "little") => {
                writer.write_all(bytemuck::cast_slice(elements))
            }
            _ => write_chunks::<T>(&mut writer, &snapshot, swap_if_big_endian),
        })
    }

    /// Sets the elements to those of [`to_le_bytes`](Tensor::to_le_bytes) of a tensor of this shape and
    /// the given dtype, converted as by [`to_dtype`](Tensor::to_dtype), in place as
    /// [`assign`](Tensor::assign) does it.
    ///
    /// # Errors
    ///
    /// As [`assign`](Tensor::assign), and if there are more or fewer bytes than the shape needs.
    ///
    /// ```
    /// use sorix_core::{DType, Tensor, tensor};
    /// let x = Tensor::zeros([2], DType::F32)?;
    /// x.assign_le_bytes(&tensor([1.5, 0.1]).to_le_bytes()?, DType::F64)?;
    /// assert_eq!(x.to_vec::<f32>()?, [1.5, 0.1]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn assign_le_bytes(&self, bytes: &[u8], dtype: DType) -> Result<()> {
        let call = Call::on("assign_le_bytes", self);
        if is_grad_enabled() && self.needs_grad() {
            return Err(call.error(ErrorKind::WriteNeedsNoGrad));
        }
        if self.is_expanded() {
            let strides = self.strides().to_vec();
            return Err(call.error(ErrorKind::WriteToExpanded { strides }));
        }
        let expected = checked_numel(call, self.shape(), dtype)? * dtype.size();
        if bytes.len() != expected {
            let (shape, got) = (self.shape().to_vec(), bytes.len());
            return Err(call.error(ErrorKind::Bytes {
                shape,
                expected,
                got,
            }));
        }
        dispatch!(dtype, S => dispatch!(self.dtype(), T => {
            self.storage().write(call, |buffer| {
                let to = self.layout().view_mut::<T>(buffer.as_mut_slice());
                for (to, bytes) in to.into_iter().zip(bytes.chunks_exact(size_of::<S>())) {
                    // The bits themselves, so that a NaN stays the one that it is.
                    if dtype == self.dtype() {
                        set_le_bytes(to, bytes);
                    } else {
                        let mut from = <S as bytemuck::Zeroable>::zeroed();
                        set_le_bytes(&mut from, bytes);
                        *to = converted(from);
                    }
                }
            })
        }))
    }

    /// A tensor of this shape and dtype with the elements of [`to_le_bytes`](Tensor::to_le_bytes).
    ///
    /// # Errors
    ///
    /// If there are more or fewer bytes than the shape needs, and if allocation fails.
    ///
    /// ```
    /// use sorix_core::{DType, Tensor};
    /// let x = Tensor::from_le_bytes(&[0, 0x3C, 0, 0xC0], [2], DType::F16)?;
    /// assert_eq!(x.to_dtype(DType::F64)?.to_vec::<f64>()?, [1.0, -2.0]);
    ///
    /// let error = Tensor::from_le_bytes(&[0, 0x3C, 0], [2], DType::F16).unwrap_err();
    /// assert_eq!(error.to_string(), "from_le_bytes(float16[2]): shape [2] has 4 bytes, got 3");
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn from_le_bytes(bytes: &[u8], shape: impl AsRef<[usize]>, dtype: DType) -> Result<Self> {
        let shape = shape.as_ref();
        let call = Call::making("from_le_bytes", shape, dtype);
        let expected = checked_numel(call, shape, dtype)? * dtype.size();
        if bytes.len() != expected {
            let (shape, got) = (shape.to_vec(), bytes.len());
            return Err(call.error(ErrorKind::Bytes {
                shape,
                expected,
                got,
            }));
        }
        dispatch!(dtype, T => Self::filled(call, shape, |out: &mut [T]| {
            let out = bytemuck::cast_slice_mut(out);
            out.copy_from_slice(bytes);
            swap_if_big_endian(out, size_of::<T>());
        }))
    }
}

/// Sets an element to what its bytes, from the lowest to the highest, say.
fn set_le_bytes<T: Scalar>(element: &mut T, bytes: &[u8]) {
    let own = bytemuck::bytes_of_mut(element);
    own.copy_from_slice(bytes);
    swap_if_big_endian(own, bytes.len());
}

/// The number of the other type nearest to `x`, rounded once.
pub(crate) fn converted<S: Scalar, T: Scalar>(x: S) -> T {
    match S::DTYPE {
        DType::F64 => T::nearest(x.to_f64()),
        // What f32 holds needs no care to be rounded once.
        _ => T::from_acc(<T as Scalar>::Acc::nearest(x.to_f64())),
    }
}

/// Writes the elements in row-major order, a chunk at a time, which `finish` may change.
pub(crate) fn write_chunks<T: Scalar>(
    writer: &mut impl Write,
    elements: &Snapshot<'_>,
    finish: impl Fn(&mut [u8], usize),
) -> io::Result<()> {
    let view = elements.view::<T>();
    let mut elements = view.iter().copied();
    let mut chunk: Vec<T> = Vec::new();
    let count = CHUNK / size_of::<T>();
    let reserved = chunk.try_reserve_exact(count.min(view.len()));
    reserved.map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, error))?;
    loop {
        chunk.clear();
        chunk.extend(elements.by_ref().take(count));
        if chunk.is_empty() {
            return Ok(());
        }
        let bytes = bytemuck::cast_slice_mut(&mut chunk);
        finish(bytes, size_of::<T>());
        writer.write_all(bytes)?;
    }
}

/// Turns elements of `size` bytes from the machine's order to little-endian, or back.
fn swap_if_big_endian(bytes: &mut [u8], size: usize) {
    if cfg!(target_endian = "big") {
        swap_bytes(bytes, size);
    }
}

/// Turns each element of `size` bytes around.
pub(crate) fn swap_bytes(bytes: &mut [u8], size: usize) {
    bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
}
