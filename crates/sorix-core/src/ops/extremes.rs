//! The larger and the smaller of two elements.

use crate::autograd::{Function, Gradients, SavedTensor, record};
use crate::dtype::{Real, dispatch};
use crate::error::{Call, Result};
use crate::ops::elementwise::{self, Cost};
use crate::ops::factor;
use crate::tensor::Tensor;

impl Tensor {
    /// The larger of two elements, of tensors that broadcast as NumPy's; NaN if one of them is.
    ///
    /// The gradient goes to the larger, in halves to two that are equal, and to NaN.
    ///
    /// # Errors
    ///
    /// If dtypes differ, or shapes do not broadcast.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let y = tensor([1.0, 5.0, -2.0]).maximum(&tensor([4.0, 2.0, -3.0]))?;
    /// assert_eq!(y.to_vec::<f64>()?, [4.0, 5.0, -2.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn maximum(&self, other: &Self) -> Result<Self> {
        extreme("maximum", self, other, Extreme::Maximum)
    }

    /// The smaller of two elements, of tensors that broadcast as NumPy's; NaN if one of them is.
    ///
    /// The gradient goes to the smaller, in halves to two that are equal, and to NaN.
    ///
    /// # Errors
    ///
    /// If dtypes differ, or shapes do not broadcast.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let y = tensor([1.0, 5.0, -2.0]).minimum(&tensor([4.0, 2.0, -3.0]))?;
    /// assert_eq!(y.to_vec::<f64>()?, [1.0, 2.0, -3.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn minimum(&self, other: &Self) -> Result<Self> {
        extreme("minimum", self, other, Extreme::Minimum)
    }
}

#[derive(Clone, Copy, Debug)]
enum Extreme {
    Maximum,
    Minimum,
}

impl Extreme {
    /// Whether `x` is taken before `y`: it is NaN, or further out.
    fn takes<A: Real>(self, x: A, y: A) -> bool {
        let further = match self {
            Self::Maximum => x > y,
            Self::Minimum => x < y,
        };
        further || (x.is_nan() && !y.is_nan())
    }
}

fn extreme(op: &'static str, x: &Tensor, y: &Tensor, extreme: Extreme) -> Result<Tensor> {
    let call = Call::on_two(op, x, y);
    let dtype = x.common_dtype(call, y)?;
    let saved = [SavedTensor::new(x), SavedTensor::new(y)];
    let output = dispatch!(dtype, T => elementwise::zip::<T>(call, x, y, Cost::Move, |x, y| {
        if extreme.takes(y, x) { y } else { x }
    }))?;
    Ok(record(output, &[x, y], || ExtremeBackward {
        extreme,
        saved,
        shapes: [x.shape_if_needed(), y.shape_if_needed()],
    }))
}

#[derive(Debug)]
struct ExtremeBackward {
    extreme: Extreme,
    saved: [SavedTensor; 2],
    /// The shapes of the two, if they get gradients.
    shapes: [Option<Box<[usize]>>; 2],
}

impl Function for ExtremeBackward {
    fn name(&self) -> &'static str {
        match self.extreme {
            Extreme::Maximum => "MaximumBackward",
            Extreme::Minimum => "MinimumBackward",
        }
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let [x, y] = &self.saved;
        let (x, y) = (x.get(self)?, y.get(self)?);
        let share = |grad: f64, own: f64, other: f64| {
            if self.extreme.takes(own, other) {
                grad
            } else if self.extreme.takes(other, own) {
                0.0
            } else {
                grad / 2.0
            }
        };
        let gradient = |shape: &Option<Box<[usize]>>, own: &Tensor, other: &Tensor| match shape {
            Some(shape) => {
                factor::of_three(self.name(), shape, [&grad, own, other], share).map(Some)
            }
            None => Ok(None),
        };
        Ok(vec![
            gradient(&self.shapes[0], &x, &y)?,
            gradient(&self.shapes[1], &y, &x)?,
        ])
    }
}
