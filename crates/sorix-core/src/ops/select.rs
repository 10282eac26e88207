//! Choices by a condition: elements of one tensor or of another, or a number.

use crate::autograd::{Function, Gradients, SavedTensor, record};
use crate::dtype::{Scalar, dispatch};
use crate::error::{Call, Result};
use crate::ops::elementwise::{self, Cost};
use crate::shape::broadcast;
use crate::tensor::Tensor;

impl Tensor {
    /// The elements of `x` where this tensor is not 0, those of `y` where it is: PyTorch's and NumPy's
    /// `where`, which is a keyword in Rust. All three broadcast as NumPy's. NaN is not 0.
    ///
    /// Gradients are selected, too: what is not taken gets 0, even of one that is infinite or NaN.
    ///
    /// # Errors
    ///
    /// If dtypes differ, or shapes do not broadcast.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([1.0, -4.0, 9.0]);
    /// let roots = x.ge(&tensor(0.0))?.where_cond(&x.sqrt()?, &tensor(0.0))?;
    /// assert_eq!(roots.to_vec::<f64>()?, [1.0, 0.0, 3.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn where_cond(&self, x: &Self, y: &Self) -> Result<Self> {
        let call = Call::on_two("where_cond", x, y);
        let dtype = x.common_dtype(call, y)?;
        let condition_call = Call::on_two("where_cond", self, x);
        self.common_dtype(condition_call, x)?;
        let shape = broadcast(call, x.shape(), y.shape())?;
        let shape = broadcast(condition_call, self.shape(), &shape)?;
        let condition = self.detach().broadcast_to(condition_call, &shape)?;
        let saved = SavedTensor::new(&condition);
        let output = dispatch!(dtype, T => {
            elementwise::zip_three(call, [&condition, x, y], Cost::Move, |condition: T, x, y| {
                if is_true(condition) { x } else { y }
            })
        })?;
        Ok(record(output, &[x, y], || WhereBackward {
            condition: saved,
            of_true: x.shape_if_needed(),
            of_false: y.shape_if_needed(),
        }))
    }

    /// `value` where `mask` is not 0, else the element; `mask` broadcasts to this tensor. The value is
    /// rounded to the dtype. What was filled gets the gradient 0.
    ///
    /// # Errors
    ///
    /// If dtypes differ, or `mask` does not broadcast to the shape of this tensor.
    ///
    /// ```
    /// use sorix_core::{DType, Tensor, tensor};
    /// // Causal attention: a query sees the keys up to its own place.
    /// let scores = tensor([[1.0, 2.0], [3.0, 3.0]]);
    /// let later = Tensor::ones([2, 2], DType::F64)?.tril(0)?.eq(&tensor(0.0))?;
    /// let scores = scores.masked_fill(&later, f64::NEG_INFINITY)?;
    /// assert_eq!(scores.softmax(-1)?.to_vec::<f64>()?, [1.0, 0.0, 0.5, 0.5]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn masked_fill(&self, mask: &Self, value: f64) -> Result<Self> {
        let call = Call::on_two("masked_fill", self, mask);
        let dtype = self.common_dtype(call, mask)?;
        let mask = mask.detach().broadcast_to(call, self.shape())?;
        let saved = SavedTensor::new(&mask);
        let output = dispatch!(dtype, T => {
            let value = T::nearest(value);
            elementwise::zip_convert(call, &mask, self, Cost::Move, |mask: T, x| {
                if is_true(mask) { value } else { x }
            })
        })?;
        Ok(record(output, &[self], || MaskedFillBackward {
            mask: saved,
        }))
    }
}

fn is_true<T: Scalar>(x: T) -> bool {
    x.to_f64() != 0.0
}

/// `grad` where the condition is `wanted`, 0 elsewhere.
fn chosen(
    function: &'static str,
    condition: &Tensor,
    grad: &Tensor,
    wanted: bool,
) -> Result<Tensor> {
    let call = Call::on_two(function, condition, grad);
    dispatch!(grad.dtype(), T => {
        elementwise::zip_convert(call, condition, grad, Cost::Move, |condition: T, grad: T| {
            if is_true(condition) == wanted { grad } else { T::nearest(0.0) }
        })
    })
}

#[derive(Debug)]
struct WhereBackward {
    condition: SavedTensor,
    /// The shape of what is taken where the condition holds, if it gets a gradient.
    of_true: Option<Box<[usize]>>,
    /// The shape of the other.
    of_false: Option<Box<[usize]>>,
}

impl Function for WhereBackward {
    fn name(&self) -> &'static str {
        "WhereBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let condition = self.condition.get(self)?;
        let gradient = |shape: &Option<Box<[usize]>>, wanted: bool| {
            let Some(shape) = shape else {
                return Ok(None);
            };
            let chosen = chosen(self.name(), &condition, &grad, wanted)?;
            chosen.sum_to(self.name(), shape).map(Some)
        };
        Ok(vec![
            gradient(&self.of_true, true)?,
            gradient(&self.of_false, false)?,
        ])
    }
}

#[derive(Debug)]
struct MaskedFillBackward {
    mask: SavedTensor,
}

impl Function for MaskedFillBackward {
    fn name(&self) -> &'static str {
        "MaskedFillBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let gradient = chosen(self.name(), &self.mask.get(self)?, &grad, false)?;
        Ok(vec![Some(gradient)])
    }
}
