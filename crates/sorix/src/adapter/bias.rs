//! [`bias_gradient`]: what a bias has of the gradient of what it was added to.

use crate::adapter::draw::{bytes, expect_len};
use crate::kernels::{AllocationError, Error};
use crate::{DType, ErrorKind, Scalar, Tensor, TensorError};

/// The gradient of a bias of `len` elements for that of `x + bias`: the sum over its rows of so many elements, as
/// that of [`Tensor::bias_dropout_add`] is, bit for bit.
///
/// It is taken in f64 in an order that no number of threads changes, and rounded to the type computed in; for 16
/// bits from there to the element type.
///
/// # Errors
///
/// [`Error::Length`] if `dx` is not whole rows, and [`Error::Allocation`].
///
/// ```
/// use sorix::adapter::bias_gradient;
/// assert_eq!(bias_gradient(&[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0], 2)?, [9.0, 12.0]);
/// assert!(bias_gradient(&[1.0_f32, 2.0, 3.0], 2).is_err());
/// # Ok::<(), sorix::kernels::Error>(())
/// ```
pub fn bias_gradient<T: Scalar>(dx: &[T], len: usize) -> Result<Vec<T>, Error> {
    let rows = dx.len().checked_div(len).unwrap_or(0);
    expect_len("gradient of whole rows", rows * len, dx.len())?;
    // A single row is its own sum, down to the sign of a zero.
    if rows == 1 {
        return Ok(dx.to_vec());
    }
    let sum = || -> Result<Vec<T>, TensorError> {
        let wide = match T::DTYPE {
            DType::F64 => DType::F64,
            _ => DType::F32,
        };
        let dx = Tensor::from_slice(dx, [rows, len])?.to_dtype(wide)?;
        dx.sum_over(0)?.to_dtype(T::DTYPE)?.into_vec()
    };
    sum().map_err(|error| match error.kind() {
        ErrorKind::Kernel(error) => error.clone(),
        _ => Error::Allocation(AllocationError::new(bytes(dx.len(), size_of::<T>()))),
    })
}
