//! The product of matrices.

use crate::autograd::{Function, Gradients, SavedTensor, record};
use crate::dtype::{DType, Scalar, dispatch};
use crate::error::{Error, Result};
use crate::ops::elementwise;
use crate::ops::matrices::multiply;
use crate::shape::broadcast;
use crate::tensor::Tensor;

impl Tensor {
    /// The product of two matrices; of two stacks of matrices, whose leading axes broadcast as
    /// NumPy's; or with a vector, which stands for one row on the left and for one column on the
    /// right, and whose axis the result does not have.
    ///
    /// `[.., m, k]` times `[.., k, n]` is `[.., m, n]`. Views are read where they lie, a transposed
    /// one included; only one without neighbours in memory along a row or a column is copied. f16
    /// and bf16 are multiplied and added up in f32, and the sum is rounded once. The result is the
    /// same for any number of threads; it may differ in the last bits between instruction sets, and
    /// between a view and its contiguous copy.
    ///
    /// # Errors
    ///
    /// Where dtypes differ; where an operand has no axes, or the left one has not as many columns
    /// as the right one has rows; where the leading axes do not broadcast.
    ///
    /// ```
    /// use sorix_core::{DType, Tensor, tensor};
    ///
    /// let a = tensor([[1.0, 2.0], [3.0, 4.0]]);
    /// let product = a.matmul(&a.transpose(0, 1)?)?;
    /// assert_eq!(product.to_vec::<f64>()?, [5.0, 11.0, 11.0, 25.0]);
    /// assert_eq!(a.matmul(&tensor([1.0, 10.0]))?.to_vec::<f64>()?, [21.0, 43.0]);
    ///
    /// let stack = Tensor::ones([8, 3, 2], DType::F64)?;
    /// assert_eq!(stack.matmul(&a)?.shape(), [8, 3, 2]);
    ///
    /// let error = a.matmul(&tensor([1.0, 2.0, 3.0])).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "matmul: a matrix of shape [2, 2] and one of shape [3] cannot be multiplied"
    /// );
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn matmul(&self, other: &Self) -> Result<Self> {
        self.common_dtype(OP, other)?;
        let left = match *self.shape() {
            [k] => self.reshape([1, k])?,
            _ => self.clone(),
        };
        let right = match *other.shape() {
            [k] => other.reshape([k, 1])?,
            _ => other.clone(),
        };
        let (m, n) = match (left.shape(), right.shape()) {
            (&[.., m, k], &[.., rows, n]) if k == rows => (m, n),
            _ => {
                return Err(Error::MatrixShapes {
                    op: OP,
                    left: self.shape().to_vec(),
                    right: other.shape().to_vec(),
                });
            }
        };
        let product = if right.ndim() == 2 && left.ndim() > 2 && left.is_contiguous() {
            // A stack times one matrix is one product of many rows, and so is its gradient.
            let (shape, columns) = (left.shape(), right.shape()[0]);
            let rows = shape[..shape.len() - 1].iter().product();
            let product = left.reshape([rows, columns])?.multiply_stacks(&right)?;
            product.reshape([&shape[..shape.len() - 1], &[n]].concat())?
        } else {
            left.multiply_stacks(&right)?
        };
        if self.ndim() > 1 && other.ndim() > 1 {
            return Ok(product);
        }
        let mut shape = product.shape()[..product.ndim() - 2].to_vec();
        shape.extend((self.ndim() > 1).then_some(m));
        shape.extend((other.ndim() > 1).then_some(n));
        product.reshape(shape)
    }

    /// [`matmul`](Tensor::matmul) of operands with at least two axes whose matrices fit.
    fn multiply_stacks(&self, other: &Self) -> Result<Self> {
        let output = product(self, other)?;
        let factor_of = |input: &Self, factor: &Self| {
            input.shape_if_needed().map(|shape| Factor {
                shape,
                factor: SavedTensor::new(factor),
            })
        };
        Ok(record(output, &[self, other], || MatmulBackward {
            left: factor_of(self, other),
            right: factor_of(other, self),
        }))
    }
}

const OP: &str = "matmul";

fn product(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    let batch_of = |x: &Tensor| x.shape()[..x.ndim() - 2].to_vec();
    let batch = broadcast(OP, &batch_of(left), &batch_of(right)).map_err(|_| Error::Broadcast {
        op: OP,
        left: left.shape().to_vec(),
        right: right.shape().to_vec(),
    })?;
    let (wide_left, wide_right) = (widened(left)?, widened(right)?);
    match left.dtype() {
        DType::F64 => multiply::<f64>(OP, &wide_left, &wide_right, &batch),
        DType::F32 => multiply::<f32>(OP, &wide_left, &wide_right, &batch),
        DType::F16 | DType::BF16 => {
            let product = multiply::<f32>(OP, &wide_left, &wide_right, &batch)?;
            dispatch!(left.dtype(), T => {
                elementwise::convert(OP, &product, |sum: <T as Scalar>::Acc| T::from_acc(sum))
            })
        }
    }
}

/// The elements in the type that they are multiplied in.
fn widened(x: &Tensor) -> Result<Tensor> {
    dispatch!(x.dtype(), T => {
        if T::DTYPE == <T as Scalar>::Acc::DTYPE {
            Ok(x.detach())
        } else {
            elementwise::convert(OP, x, T::to_acc)
        }
    })
}

#[derive(Debug)]
struct MatmulBackward {
    left: Option<Factor>,
    right: Option<Factor>,
}

/// What one input's gradient is made of.
#[derive(Debug)]
struct Factor {
    /// The input's shape.
    shape: Box<[usize]>,
    /// The other input.
    factor: SavedTensor,
}

impl Function for MatmulBackward {
    fn name(&self) -> &'static str {
        "MatmulBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let left = self.left.as_ref().map(|left| {
            let factor = left.factor.get(self)?.transpose(-2, -1)?;
            product(&grad, &factor)?.sum_to(self.name(), &left.shape)
        });
        let right = self.right.as_ref().map(|right| {
            let factor = right.factor.get(self)?.transpose(-2, -1)?;
            product(&factor, &grad)?.sum_to(self.name(), &right.shape)
        });
        Ok(vec![left.transpose()?, right.transpose()?])
    }
}
