//! Dropout of the arrays of [ndarray](::ndarray) (feature `ndarray`).
//!
//! [`DropoutExt`] adds methods to arrays, views, shared arrays and every other
//! [`ArrayRef`](::ndarray::ArrayRef), of `f32`, `f64`, [`half::bf16`] and [`half::f16`], of any number
//! of axes and any strides: an element's place in the mask is its row-major logical index, so a
//! transposed view and its copy get the same mask. A key gives the same mask here as in every other
//! part of sorix.
//!
//! ```
//! use ndarray::{Array2, array};
//! use sorix::kernels::MaskKey;
//! use sorix::ndarray::DropoutExt;
//!
//! let x = array![[1.0_f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
//! let (y, mask) = x.dropout(0.5, MaskKey::new(42, 0))?; // training: each entry is 0 or 2x
//! let dx = Array2::<f32>::ones((2, 3)).dropout_backward(&mask)?; // 0 or 2, by the same mask
//! assert_eq!(y, &dx * &x);
//! assert_eq!(mask.to_array().mapv(|keep| if keep { 2.0_f32 } else { 0.0 }), dx.into_dyn());
//! # Ok::<(), sorix::ndarray::Error>(())
//! ```
//!
//! The methods are for training; in evaluation there is nothing to call.

use ::ndarray::{Array, ArrayD, ArrayRef, Axis, Dimension, IxDyn};

use crate::adapter::{Saved, SliceDropout};
use crate::kernels::{self, Activation, BitMask, DropRate, LengthError, MaskRegion};
use crate::{SaveMask, Scalar};

/// What can be wrong with a call.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// p is no number in [0, 1], a window reaches too far, allocation fails, or the backend that
    /// `SORIX_BACKEND` names cannot run here.
    #[error(transparent)]
    Kernel(#[from] kernels::Error),
    /// An axis that the array does not have.
    #[error("dropout_axis: expected an axis of an array of shape {shape:?}, got Axis({axis})")]
    Axis {
        /// The axis.
        axis: usize,
        /// The shape of the array.
        shape: Vec<usize>,
    },
    /// A mask of an array of another shape.
    #[error(
        "dropout_backward: expected an array of shape {expected:?}, as the mask's, got {got:?}"
    )]
    Shape {
        /// The shape of the array that the mask was made for.
        expected: Vec<usize>,
        /// The shape of the array that came.
        got: Vec<usize>,
    },
    /// A residual of another shape.
    #[error("dropout_add: expected a residual of shape {expected:?}, as the array's, got {got:?}")]
    Residual {
        /// The shape of the array that is dropped from.
        expected: Vec<usize>,
        /// The shape of the residual that came.
        got: Vec<usize>,
    },
}

impl From<kernels::InvalidRate> for Error {
    fn from(error: kernels::InvalidRate) -> Self {
        Self::Kernel(error.into())
    }
}

/// Which elements of an array a dropout has kept, and at which rate: what backward needs, a bit for
/// each element or for each group of elements that share a decision.
#[derive(Clone, Debug)]
pub struct DropoutMask {
    draw: SliceDropout,
    saved: Saved,
    shape: Vec<usize>,
}

impl DropoutMask {
    /// The probability of dropping.
    #[must_use]
    pub fn rate(&self) -> DropRate {
        self.draw.rate()
    }

    /// The bits in row-major order, 1 = kept: one for each element, or of
    /// [`dropout_axis`](DropoutExt::dropout_axis) one for each index of the axis. Of
    /// [`act_dropout`](DropoutExt::act_dropout) by ReLU 1 means kept and not at most 0.
    #[must_use]
    pub fn bits(&self) -> &BitMask {
        match &self.saved {
            Saved::Bits(bits) => bits,
            Saved::Noise(_) => unreachable!("inverted dropout makes no noise"),
        }
    }

    /// The bits as an array: of the array's shape, or of [`dropout_axis`](DropoutExt::dropout_axis) with
    /// every other axis of length 1, which broadcasts to it.
    ///
    /// ```
    /// use ndarray::Array2;
    /// use sorix::kernels::MaskKey;
    /// use sorix::ndarray::DropoutExt;
    ///
    /// let (y, mask) = Array2::<f32>::ones((4, 3)).dropout(0.5, MaskKey::new(1, 0))?;
    /// assert_eq!(mask.to_array(), y.mapv(|y| y != 0.0).into_dyn());
    /// # Ok::<(), sorix::ndarray::Error>(())
    /// ```
    #[must_use]
    pub fn to_array(&self) -> ArrayD<bool> {
        Array::from_iter(self.bits())
            .into_shape_with_order(IxDyn(self.draw.mask_shape()))
            .expect("a mask has a bit for each element of its shape")
    }

    fn expect_shape(&self, got: &[usize]) -> Result<(), Error> {
        if got == self.shape {
            return Ok(());
        }
        Err(Error::Shape {
            expected: self.shape.clone(),
            got: got.to_vec(),
        })
    }
}

/// Dropout of arrays, for training: in evaluation there is nothing to call.
///
/// `p` is the probability of dropping. `at` is a [`MaskKey`](crate::MaskKey), or for an array that is a
/// part of a larger one a [`MaskWindow`](crate::kernels::MaskWindow) or [`MaskRegion`]. What is kept is
/// multiplied by `1 / (1 - p)`, what is dropped is exactly `+0.0` whatever it was, NaN included; p = 0
/// keeps everything unchanged, p = 1 drops everything.
///
/// # Errors
///
/// All methods return [`Error`], and have then written nothing.
pub trait DropoutExt<A: Scalar, D: Dimension> {
    /// A new array in row-major order, and the mask.
    ///
    /// # Errors
    ///
    /// See the [trait](DropoutExt).
    ///
    /// ```
    /// use ndarray::Array;
    /// use sorix::kernels::MaskKey;
    /// use sorix::ndarray::DropoutExt;
    ///
    /// let x = Array::from_iter((0..12_u8).map(f32::from)).into_shape_with_order((3, 4)).unwrap();
    /// let key = MaskKey::new(42, 7);
    /// let (y, _) = x.t().dropout(0.25, key)?;
    /// // A view gets the mask that its copy gets.
    /// assert_eq!(y, x.t().as_standard_layout().dropout(0.25, key)?.0);
    /// # Ok::<(), sorix::ndarray::Error>(())
    /// ```
    fn dropout(
        &self,
        p: f64,
        at: impl Into<MaskRegion>,
    ) -> Result<(Array<A, D>, DropoutMask), Error>;

    /// [`dropout`](Self::dropout), over the array itself.
    ///
    /// # Errors
    ///
    /// See the [trait](DropoutExt).
    ///
    /// ```
    /// use ndarray::Array2;
    /// use sorix::kernels::MaskKey;
    /// use sorix::ndarray::DropoutExt;
    ///
    /// let mut x = Array2::<f64>::ones((10, 10));
    /// let mask = x.dropout_inplace(0.5, MaskKey::new(42, 0))?;
    /// assert_eq!(x.sum(), 2.0 * mask.bits().count_kept() as f64);
    /// assert!(x.dropout_inplace(1.5, MaskKey::new(42, 1)).is_err());
    /// # Ok::<(), sorix::ndarray::Error>(())
    /// ```
    fn dropout_inplace(&mut self, p: f64, at: impl Into<MaskRegion>) -> Result<DropoutMask, Error>;

    /// [`dropout`](Self::dropout) of whole slices along an axis, with one decision for each of its
    /// indices: `Axis(0)` of a matrix drops rows, `Axis(1)` columns.
    ///
    /// # Errors
    ///
    /// See the [trait](DropoutExt).
    ///
    /// ```
    /// use ndarray::{Array2, Axis};
    /// use sorix::kernels::MaskKey;
    /// use sorix::ndarray::DropoutExt;
    ///
    /// let (y, mask) = Array2::<f32>::ones((50, 3)).dropout_axis(0.5, MaskKey::new(42, 0), Axis(0))?;
    /// assert_eq!(mask.bits().len(), 50);
    /// for (row, keep) in y.rows().into_iter().zip(mask.bits()) {
    ///     assert_eq!(row.to_vec(), if keep { [2.0; 3] } else { [0.0; 3] });
    /// }
    /// # Ok::<(), sorix::ndarray::Error>(())
    /// ```
    fn dropout_axis(
        &self,
        p: f64,
        at: impl Into<MaskRegion>,
        axis: Axis,
    ) -> Result<(Array<A, D>, DropoutMask), Error>;

    /// [`dropout`](Self::dropout), added to a residual of the same shape: `residual + dropout(x)` in one
    /// pass, a new array in row-major order, and the mask.
    ///
    /// Product and sum are rounded to the element type together. The gradient of the array is that of
    /// dropout, [`dropout_backward`](Self::dropout_backward); that of the residual is the gradient itself.
    ///
    /// # Errors
    ///
    /// See the [trait](DropoutExt).
    ///
    /// ```
    /// use ndarray::Array2;
    /// use sorix::kernels::MaskKey;
    /// use sorix::ndarray::DropoutExt;
    ///
    /// let (x, residual) = (Array2::<f32>::ones((3, 4)), Array2::from_elem((3, 4), 10.0));
    /// let key = MaskKey::new(42, 7);
    /// let (y, mask) = x.dropout_add(&residual, 0.5, key)?;
    /// assert_eq!(y, &residual + &x.dropout(0.5, key)?.0);
    /// assert_eq!(y.dropout_backward(&mask)?, y.dropout(0.5, key)?.0);
    /// assert!(x.dropout_add(&Array2::ones((4, 3)), 0.5, key).is_err());
    /// # Ok::<(), sorix::ndarray::Error>(())
    /// ```
    fn dropout_add(
        &self,
        residual: &ArrayRef<A, D>,
        p: f64,
        at: impl Into<MaskRegion>,
    ) -> Result<(Array<A, D>, DropoutMask), Error>;

    /// [`dropout`](Self::dropout) of an activation: `dropout(activation(x))` in one pass, a new array in row-major
    /// order, and the mask.
    ///
    /// 16 bits are rounded once. The gradient of the array is [`dropout_backward_at`](Self::dropout_backward_at) of
    /// the array; of [`Activation::Relu`] the mask says it all, and it is
    /// [`dropout_backward`](Self::dropout_backward).
    ///
    /// # Errors
    ///
    /// See the [trait](DropoutExt).
    ///
    /// ```
    /// use ndarray::array;
    /// use sorix::Activation;
    /// use sorix::kernels::MaskKey;
    /// use sorix::ndarray::DropoutExt;
    ///
    /// let (x, key) = (array![[-1.0_f64, 2.0], [3.0, -4.0]], MaskKey::new(42, 7));
    /// let (y, mask) = x.act_dropout(Activation::Relu, 0.5, key)?;
    /// assert_eq!(y, x.mapv(|x| x.max(0.0)).dropout(0.5, key)?.0);
    /// assert_eq!(x.dropout_backward(&mask)?, y); // the gradient x times the derivative
    /// # Ok::<(), sorix::ndarray::Error>(())
    /// ```
    fn act_dropout(
        &self,
        activation: Activation,
        p: f64,
        at: impl Into<MaskRegion>,
    ) -> Result<(Array<A, D>, DropoutMask), Error>;

    /// Of the gradient of an output, that of the input: `1 / (1 - p)` times it where the mask keeps,
    /// `+0.0` elsewhere.
    ///
    /// Without a stored mask, [`dropout`](Self::dropout) of the gradient by the same key is the same.
    ///
    /// # Errors
    ///
    /// See the [trait](DropoutExt).
    ///
    /// ```
    /// use ndarray::{Array1, array};
    /// use sorix::kernels::MaskKey;
    /// use sorix::ndarray::DropoutExt;
    ///
    /// let key = MaskKey::new(42, 0);
    /// let (_, mask) = Array1::<f32>::ones(1000).dropout(0.2, key)?;
    /// let dy = Array1::from_elem(1000, 4.0_f32);
    /// let dx = dy.dropout_backward(&mask)?;
    /// assert!(dx.iter().zip(mask.bits()).all(|(&dx, keep)| dx == if keep { 5.0 } else { 0.0 }));
    /// assert_eq!(dx, dy.dropout(0.2, key)?.0);
    /// assert!(array![1.0_f32, 2.0].dropout_backward(&mask).is_err());
    /// # Ok::<(), sorix::ndarray::Error>(())
    /// ```
    fn dropout_backward(&self, mask: &DropoutMask) -> Result<Array<A, D>, Error>;

    /// [`dropout_backward`](Self::dropout_backward) for an operation whose gradient depends on its input `x`, which is
    /// [`act_dropout`](Self::act_dropout) of any activation but ReLU; of other operations `x` does not count.
    ///
    /// # Errors
    ///
    /// See the [trait](DropoutExt).
    ///
    /// ```
    /// use ndarray::Array1;
    /// use sorix::Activation;
    /// use sorix::kernels::MaskKey;
    /// use sorix::ndarray::DropoutExt;
    ///
    /// let x = Array1::<f32>::zeros(100);
    /// let (_, mask) = x.act_dropout(Activation::Silu, 0.5, MaskKey::new(42, 0))?;
    /// let dy = Array1::from_elem(100, 3.0_f32);
    /// let dx = dy.dropout_backward_at(&mask, &x)?;
    /// // The derivative of SiLU at 0 is 1 / 2.
    /// assert!(dx.iter().zip(mask.bits()).all(|(&dx, keep)| dx == if keep { 3.0 } else { 0.0 }));
    /// assert!(dy.dropout_backward(&mask).is_err());
    /// # Ok::<(), sorix::ndarray::Error>(())
    /// ```
    fn dropout_backward_at(
        &self,
        mask: &DropoutMask,
        x: &ArrayRef<A, D>,
    ) -> Result<Array<A, D>, Error>;
}

impl<A: Scalar, D: Dimension> DropoutExt<A, D> for ArrayRef<A, D> {
    fn dropout(
        &self,
        p: f64,
        at: impl Into<MaskRegion>,
    ) -> Result<(Array<A, D>, DropoutMask), Error> {
        let shape = self.shape();
        let draw = SliceDropout::broadcast(DropRate::new(p)?, at, shape, shape)?;
        dropped(self, draw)
    }

    fn dropout_inplace(&mut self, p: f64, at: impl Into<MaskRegion>) -> Result<DropoutMask, Error> {
        let shape = self.shape().to_vec();
        let draw = SliceDropout::broadcast(DropRate::new(p)?, at, &shape, &shape)?;
        let saved = if let Some(x) = self.as_slice_mut() {
            draw.forward_in_place(x, SaveMask::Bits)?
        } else {
            let mut x = self.as_standard_layout().into_owned();
            let saved = draw.forward_in_place(in_order(&mut x)?, SaveMask::Bits)?;
            self.assign(&x);
            saved
        };
        with_mask(draw, saved, shape)
    }

    fn dropout_axis(
        &self,
        p: f64,
        at: impl Into<MaskRegion>,
        axis: Axis,
    ) -> Result<(Array<A, D>, DropoutMask), Error> {
        let mut mask_shape = vec![1; self.ndim()];
        let Some(extent) = mask_shape.get_mut(axis.index()) else {
            return Err(Error::Axis {
                axis: axis.index(),
                shape: self.shape().to_vec(),
            });
        };
        *extent = self.len_of(axis);
        let draw = SliceDropout::broadcast(DropRate::new(p)?, at, self.shape(), &mask_shape)?;
        dropped(self, draw)
    }

    fn dropout_add(
        &self,
        residual: &ArrayRef<A, D>,
        p: f64,
        at: impl Into<MaskRegion>,
    ) -> Result<(Array<A, D>, DropoutMask), Error> {
        let shape = self.shape();
        if residual.shape() != shape {
            return Err(Error::Residual {
                expected: shape.to_vec(),
                got: residual.shape().to_vec(),
            });
        }
        let draw = SliceDropout::broadcast(DropRate::new(p)?, at, shape, shape)?;
        // Copied only if they are not in row-major order.
        let (x, residual) = (self.as_standard_layout(), residual.as_standard_layout());
        let (Some(x), Some(residual)) = (x.as_slice(), residual.as_slice()) else {
            return Err(not_in_order(self.len()));
        };
        let (y, saved) = draw.forward_add(x, residual, SaveMask::Bits)?;
        let mask = with_mask(draw, saved, shape.to_vec())?;
        Ok((with_shape_of(self, y)?, mask))
    }

    fn act_dropout(
        &self,
        activation: Activation,
        p: f64,
        at: impl Into<MaskRegion>,
    ) -> Result<(Array<A, D>, DropoutMask), Error> {
        let draw = SliceDropout::activated(activation, DropRate::new(p)?, at, self.shape())?;
        dropped(self, draw)
    }

    fn dropout_backward(&self, mask: &DropoutMask) -> Result<Array<A, D>, Error> {
        mask.expect_shape(self.shape())?;
        let saved = Some(&mask.saved);
        if let Some(dy) = self.as_slice() {
            return with_shape_of(self, mask.draw.backward(saved, dy)?);
        }
        let mut dx = self.as_standard_layout().into_owned();
        mask.draw.backward_in_place(saved, in_order(&mut dx)?)?;
        Ok(dx)
    }

    fn dropout_backward_at(
        &self,
        mask: &DropoutMask,
        x: &ArrayRef<A, D>,
    ) -> Result<Array<A, D>, Error> {
        mask.expect_shape(self.shape())?;
        mask.expect_shape(x.shape())?;
        let (x, dy) = (x.as_standard_layout(), self.as_standard_layout());
        let (Some(x), Some(dy)) = (x.as_slice(), dy.as_slice()) else {
            return Err(not_in_order(self.len()));
        };
        with_shape_of(self, mask.draw.backward_at(Some(&mask.saved), x, dy)?)
    }
}

/// A new array and the mask.
fn dropped<A: Scalar, D: Dimension>(
    x: &ArrayRef<A, D>,
    draw: SliceDropout,
) -> Result<(Array<A, D>, DropoutMask), Error> {
    let (y, saved) = if let Some(x_in_order) = x.as_slice() {
        let (y, saved) = draw.forward(x_in_order, SaveMask::Bits)?;
        (with_shape_of(x, y)?, saved)
    } else {
        let mut y = x.as_standard_layout().into_owned();
        let saved = draw.forward_in_place(in_order(&mut y)?, SaveMask::Bits)?;
        (y, saved)
    };
    Ok((y, with_mask(draw, saved, x.shape().to_vec())?))
}

fn with_mask(
    draw: SliceDropout,
    saved: Option<Saved>,
    shape: Vec<usize>,
) -> Result<DropoutMask, Error> {
    let saved = match saved {
        Some(saved) => saved,
        None => Saved::Bits(draw.mask()?),
    };
    Ok(DropoutMask { draw, saved, shape })
}

/// The elements of an array that was just made in row-major order.
fn in_order<A, D: Dimension>(x: &mut Array<A, D>) -> Result<&mut [A], Error> {
    let len = x.len();
    x.as_slice_mut().ok_or_else(|| not_in_order(len))
}

fn with_shape_of<A: Scalar, D: Dimension>(
    x: &ArrayRef<A, D>,
    elements: Vec<A>,
) -> Result<Array<A, D>, Error> {
    let len = elements.len();
    Array::from_shape_vec(x.raw_dim(), elements).map_err(|_| not_in_order(len))
}

/// For what cannot happen, so that it is no panic.
fn not_in_order(len: usize) -> Error {
    Error::Kernel(LengthError::new("array in row-major order", len, 0).into())
}
