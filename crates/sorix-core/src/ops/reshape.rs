//! Another shape for the same elements.

use crate::autograd::{Function, Gradients, record};
use crate::error::{Call, ErrorKind, Result};
use crate::ops::elementwise;
use crate::shape::{Layout, checked_numel};
use crate::tensor::Tensor;

impl Tensor {
    /// The same elements in row-major order under another shape: a view if the strides allow it,
    /// as those of a [contiguous](Tensor::is_contiguous) tensor do, else a copy.
    ///
    /// # Errors
    ///
    /// If the shape has more or fewer elements.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    /// assert_eq!(x.reshape([2, 3])?.sum_over(1)?.to_vec::<f64>()?, [6.0, 15.0]);
    /// assert!(x.reshape([4, 2]).is_err());
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn reshape(&self, shape: impl AsRef<[usize]>) -> Result<Self> {
        let (call, shape) = (Call::on("reshape", self), shape.as_ref());
        let (expected, got) = (checked_numel(call, shape, self.dtype())?, self.numel());
        if expected != got {
            return Err(call.error(ErrorKind::Length {
                shape: shape.to_vec(),
                expected,
                got,
            }));
        }
        self.reshape_checked(call, shape)
    }

    /// [`reshape`](Tensor::reshape) with an axis of length -1, which gets the length that the elements
    /// need. A method of its own, because the lengths of [`reshape`](Tensor::reshape) have no sign.
    ///
    /// # Errors
    ///
    /// If there is more than one -1, or another negative length; if no length of that axis fits, or an
    /// axis of length 0 lets every one fit.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    /// assert_eq!(x.reshape_infer([2, -1])?.shape(), [2, 3]);
    /// assert_eq!(x.reshape_infer([-1, 1, 2])?.shape(), [3, 1, 2]);
    /// let error = x.reshape_infer([4, -1]).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "reshape_infer(float64[6]): expected lengths of 6 elements, at most one of them -1, got [4, -1]"
    /// );
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn reshape_infer(&self, shape: impl AsRef<[isize]>) -> Result<Self> {
        let (call, lengths) = (Call::on("reshape_infer", self), shape.as_ref());
        let numel = self.numel();
        let refused = || {
            call.error(ErrorKind::Lengths {
                numel,
                lengths: lengths.to_vec(),
            })
        };
        let given = |&length: &isize| (length != -1).then_some(usize::try_from(length));
        let given: Result<Vec<usize>, _> = lengths.iter().filter_map(given).collect();
        let given = given.map_err(|_| refused())?;
        let product = checked_numel(call, &given, self.dtype())?;
        let missing = match lengths.len() - given.len() {
            0 if product == numel => 0,
            1 if product > 0 && numel.is_multiple_of(product) => numel / product,
            _ => return Err(refused()),
        };
        let length = |&length: &isize| usize::try_from(length).unwrap_or(missing);
        let shape: Vec<usize> = lengths.iter().map(length).collect();
        self.reshape_checked(call, &shape)
    }

    /// [`reshape`](Tensor::reshape) to a shape of as many elements.
    pub(super) fn reshape_checked(&self, call: Call<'_>, shape: &[usize]) -> Result<Self> {
        let output = match self.layout().reshaped(shape) {
            Some(layout) => self.with_layout(layout),
            None => elementwise::copy(call, self)?.with_layout(Layout::contiguous(shape)),
        };
        Ok(record(output, &[self], || ReshapeBackward {
            shape: self.shape().into(),
        }))
    }
}

#[derive(Debug)]
struct ReshapeBackward {
    shape: Box<[usize]>,
}

impl Function for ReshapeBackward {
    fn name(&self) -> &'static str {
        "ReshapeBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        Ok(vec![Some(grad.reshape(&self.shape)?)])
    }
}
