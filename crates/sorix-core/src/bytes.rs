//! Tensors as bytes, the way most files keep them: row-major and little-endian.

use crate::dtype::{DType, dispatch};
use crate::error::{Call, ErrorKind, Result};
use crate::shape::checked_numel;
use crate::tensor::Tensor;

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
