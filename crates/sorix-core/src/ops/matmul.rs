//! The product of matrices.

use crate::autograd::{Function, Gradients, record};
use crate::dtype::{DType, Scalar, dispatch};
use crate::error::{Call, ErrorKind, Result};
use crate::ops::elementwise;
use crate::ops::factor::Factor;
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
    /// same for any number of threads; it may differ in the last bits between instruction sets,
    /// between a view and its contiguous copy, between numbers of rows (but for those within
    /// [`batch_invariant`](crate::batch_invariant)), and between builds with the feature `faer` and
    /// without, whose sums have another order.
    ///
    /// # Memory
    ///
    /// A thread keeps what faer packs operands into once it has multiplied matrices of more than 4096
    /// products: address space of twice the last-level cache, of which only what is used becomes
    /// memory. Where the address space is limited (`ulimit -v`), build without the feature `faer`.
    ///
    /// # Errors
    ///
    /// If dtypes differ; if an operand has no axes, or the left one has not as many columns
    /// as the right one has rows; where the leading axes do not broadcast; and if allocation fails, also
    /// that of the memory to pack operands into.
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
    ///     "matmul(float64[2, 2], float64[3]): expected matrices or vectors, the left one with as many \
    ///      columns as the right one has rows"
    /// );
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn matmul(&self, other: &Self) -> Result<Self> {
        let call = Call::on_two("matmul", self, other);
        self.common_dtype(call, other)?;
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
            _ => return Err(call.error(ErrorKind::MatrixShapes)),
        };
        let product = if right.ndim() == 2 && left.ndim() > 2 && left.is_contiguous() {
            // A stack times one matrix is one product of many rows, and so is its gradient.
            let (shape, columns) = (left.shape(), right.shape()[0]);
            let rows = shape[..shape.len() - 1].iter().product();
            let product = left
                .reshape([rows, columns])?
                .multiply_stacks(call, &right)?;
            product.reshape([&shape[..shape.len() - 1], &[n]].concat())?
        } else {
            left.multiply_stacks(call, &right)?
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
    fn multiply_stacks(&self, call: Call<'_>, other: &Self) -> Result<Self> {
        let backward = MatmulBackward {
            left: Factor::of(self, other),
            right: Factor::of(other, self),
        };
        let output = product(call, self, other)?;
        let output = dispatch!(self.dtype(), T => if output.dtype() == T::DTYPE {
            output
        } else {
            elementwise::convert(call, &output, |sum: <T as Scalar>::Acc| T::from_acc(sum))?
        });
        Ok(record(output, &[self, other], || backward))
    }
}

/// The product in the type that the dtype of the two computes in.
fn product(call: Call<'_>, left: &Tensor, right: &Tensor) -> Result<Tensor> {
    let batch_of = |x: &Tensor| x.shape()[..x.ndim() - 2].to_vec();
    let batch = broadcast(call, &batch_of(left), &batch_of(right))?;
    let wide = |x: &Tensor| dispatch!(x.dtype(), T => elementwise::widen::<T>(call, x));
    let (wide_left, wide_right) = (wide(left)?, wide(right)?);
    match left.dtype() {
        DType::F64 => multiply::<f64>(call, &wide_left, &wide_right, &batch),
        DType::F32 | DType::F16 | DType::BF16 => {
            multiply::<f32>(call, &wide_left, &wide_right, &batch)
        }
    }
}

#[derive(Debug)]
struct MatmulBackward {
    left: Option<Factor>,
    right: Option<Factor>,
}

impl Function for MatmulBackward {
    fn name(&self) -> &'static str {
        "MatmulBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let left = self.left.as_ref().map(|left| {
            let factor = left.other.get(self)?.transpose(-2, -1)?;
            product(Call::on_two(self.name(), &grad, &factor), &grad, &factor)?
                .sum_to(self.name(), &left.shape)
        });
        let right = self.right.as_ref().map(|right| {
            let factor = right.other.get(self)?.transpose(-2, -1)?;
            product(Call::on_two(self.name(), &factor, &grad), &factor, &grad)?
                .sum_to(self.name(), &right.shape)
        });
        Ok(vec![left.transpose()?, right.transpose()?])
    }
}
