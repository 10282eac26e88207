//! [`Axes`]: which axes a reduction goes over.

use core::ops::RangeFull;

use crate::error::{Call, Result};
use crate::shape::{reduced, resolve_axes};

/// The axes that a reduction goes over, such as [`sum_over`](crate::Tensor::sum_over), and whether
/// its result keeps them: NumPy's `axis` and `keepdims`, PyTorch's `dim` and `keepdim`.
///
/// | in sorix | in NumPy |
/// |---|---|
/// | `x.sum()` | `x.sum()` |
/// | `x.sum_over(0)` | `x.sum(axis=0)` |
/// | `x.sum_over([0, -1])` | `x.sum(axis=(0, -1))` |
/// | `x.sum_over(Axes::keepdim(-1))` | `x.sum(axis=-1, keepdims=True)` |
/// | `x.sum_over(Axes::keepdim(..))` | `x.sum(keepdims=True)` |
/// | `x.sum_over([])` | `x.sum(axis=())` |
///
/// * A negative axis counts from the last: -1 is the last one. The order of a list does not matter.
/// * The result lacks these axes, or has them at length 1 after [`Axes::keepdim`], so that it
///   broadcasts with the tensor.
/// * `..` stands for all axes. An empty list stands for none: each element is then reduced alone.
/// * An axis that the tensor does not have, and one that is listed twice, are errors of the reduction.
///
/// Axes are of type `isize`, as everywhere in sorix.
///
/// ```
/// use sorix_core::{Axes, tensor};
/// let x = tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
/// assert_eq!(x.sum()?.item::<f64>()?, 21.0);
/// assert_eq!(x.sum_over(0)?.to_vec::<f64>()?, [5.0, 7.0, 9.0]);
/// assert_eq!(x.sum_over(-1)?.to_vec::<f64>()?, [6.0, 15.0]);
/// assert_eq!(x.sum_over([0, 1])?.item::<f64>()?, 21.0);
/// assert_eq!(x.sum_over([])?.to_vec::<f64>()?, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
///
/// let mean = x.mean_over(Axes::keepdim(-1))?;
/// assert_eq!(mean.shape(), [2, 1]);
/// assert_eq!(x.sub(&mean)?.to_vec::<f64>()?, [-1.0, 0.0, 1.0, -1.0, 0.0, 1.0]);
///
/// let error = x.max_over([1, -1]).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "max_over(float64[2, 3]): expected distinct axes, got [1, -1]"
/// );
/// # Ok::<(), sorix_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axes {
    /// `None` for all of them.
    list: Option<Vec<isize>>,
    keepdim: bool,
}

impl Axes {
    /// These axes, which the result has at length 1.
    ///
    /// ```
    /// use sorix_core::{Axes, tensor};
    /// let x = tensor([[1.0, 5.0], [4.0, 2.0]]);
    /// assert_eq!(x.max_over(Axes::keepdim(0))?.shape(), [1, 2]);
    /// assert_eq!(x.max_over(Axes::keepdim(..))?.shape(), [1, 1]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    #[must_use]
    pub fn keepdim(axes: impl Into<Self>) -> Self {
        Self {
            keepdim: true,
            ..axes.into()
        }
    }

    /// The axes counted from the first, of a tensor of this shape.
    pub(crate) fn resolve(&self, call: Call<'_>, shape: &[usize]) -> Result<Vec<usize>> {
        match &self.list {
            Some(axes) => resolve_axes(call, axes, shape),
            None => Ok((0..shape.len()).collect()),
        }
    }

    /// The shape of the result over these axes, which [`resolve`](Self::resolve) gave.
    pub(crate) fn reduced(&self, shape: &[usize], resolved: &[usize]) -> Vec<usize> {
        reduced(shape, resolved, self.keepdim)
    }
}

/// All axes.
impl From<RangeFull> for Axes {
    fn from(_: RangeFull) -> Self {
        Self {
            list: None,
            keepdim: false,
        }
    }
}

// One type of integers, so that a literal needs no suffix.
impl From<isize> for Axes {
    fn from(axis: isize) -> Self {
        vec![axis].into()
    }
}

impl<const N: usize> From<[isize; N]> for Axes {
    fn from(axes: [isize; N]) -> Self {
        axes.to_vec().into()
    }
}

impl<const N: usize> From<&[isize; N]> for Axes {
    fn from(axes: &[isize; N]) -> Self {
        axes.to_vec().into()
    }
}

impl From<&[isize]> for Axes {
    fn from(axes: &[isize]) -> Self {
        axes.to_vec().into()
    }
}

impl From<&Vec<isize>> for Axes {
    fn from(axes: &Vec<isize>) -> Self {
        axes.clone().into()
    }
}

impl From<Vec<isize>> for Axes {
    fn from(axes: Vec<isize>) -> Self {
        Self {
            list: Some(axes),
            keepdim: false,
        }
    }
}
