//! Layer and RMS normalisation of rows: [`Norm`], and what a call of it reads and writes.

use core::ops::RangeInclusive;

use crate::buffers::Buffers;
use crate::element::Element;
use crate::error::{InvalidEpsilon, LengthError};

/// Which normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NormKind {
    /// `(x - mean) / sqrt(variance + epsilon)`, with the variance of the elements themselves (divided by
    /// their number, not by one less). Ba, Kiros and Hinton, *Layer normalization*, arXiv:1607.06450.
    Layer,
    /// `x / sqrt(mean of squares + epsilon)`. Zhang and Sennrich, *Root mean square layer
    /// normalization*, arXiv:1910.07467.
    Rms,
}

/// A normalisation of rows: its kind, the length of a row, epsilon, and what each normalised row is then
/// multiplied with and shifted by, if anything.
///
/// `S` is the type computed in: f64 for rows of f64, f32 for the others. Mean and variance are those of
/// the numbers as doubles, in two passes over a row: no sum of f32 overflows, and what the elements of
/// a row have in common does not cost them digits. A row of f64 whose variance, with epsilon, is not within
/// 1e-280 and 1e280, or less than 1e-28 times the square of the mean, is multiplied by a power of two before, so
/// that no sum and no square is out of range. Equal elements have the variance 0, which with an epsilon of 0
/// gives rows of zeros.
///
/// Element `i` of a row goes to partial sum `i % 32`, in order, and the 32 are then added in pairs: sum `k`
/// and sum `k + 16`, then `k` and `k + 8`, and so on. So a result depends on no vector width.
///
/// ```
/// use sorix_kernels::{Norm, NormKind};
///
/// let norm = Norm::<f32>::layer(2, 1e-5)?.with_weight(&[1.0, 2.0])?;
/// assert_eq!((norm.kind(), norm.len()), (NormKind::Layer, 2));
/// assert_eq!(
///     norm.with_shift(&[1.0; 3]).unwrap_err().to_string(),
///     "length of row of shifts: expected 2, got 3"
/// );
/// assert_eq!(
///     Norm::<f32>::rms(2, -1.0).unwrap_err().to_string(),
///     "epsilon must be a finite number, at least 0, got -1"
/// );
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a, S> {
    kind: NormKind,
    len: usize,
    epsilon: f64,
    // Invariant: as long as a row.
    weight: Option<&'a [S]>,
    shift: Option<&'a [S]>,
}

impl<'a, S: Element<Scale = S>> Norm<'a, S> {
    /// Layer normalisation of rows of `len` elements.
    ///
    /// # Errors
    ///
    /// [`InvalidEpsilon`] if `epsilon` is negative or not finite.
    pub fn layer(len: usize, epsilon: f64) -> Result<Self, InvalidEpsilon> {
        Self::new(NormKind::Layer, len, epsilon)
    }

    /// RMS normalisation of rows of `len` elements.
    ///
    /// # Errors
    ///
    /// [`InvalidEpsilon`] if `epsilon` is negative or not finite.
    pub fn rms(len: usize, epsilon: f64) -> Result<Self, InvalidEpsilon> {
        Self::new(NormKind::Rms, len, epsilon)
    }

    /// Normalisation of this kind of rows of `len` elements.
    ///
    /// # Errors
    ///
    /// [`InvalidEpsilon`] if `epsilon` is negative or not finite.
    pub fn new(kind: NormKind, len: usize, epsilon: f64) -> Result<Self, InvalidEpsilon> {
        if !(epsilon >= 0.0 && epsilon.is_finite()) {
            return Err(InvalidEpsilon { epsilon });
        }
        Ok(Self {
            kind,
            len,
            epsilon,
            weight: None,
            shift: None,
        })
    }

    /// Multiplies each normalised row with this one.
    ///
    /// # Errors
    ///
    /// [`LengthError`] unless it is as long as a row.
    pub fn with_weight(self, weight: &'a [S]) -> Result<Self, LengthError> {
        LengthError::check("row of weights", self.len, weight.len())?;
        let weight = Some(weight);
        Ok(Self { weight, ..self })
    }

    /// Adds this row to each normalised one, after the weight.
    ///
    /// # Errors
    ///
    /// [`LengthError`] unless it is as long as a row.
    pub fn with_shift(self, shift: &'a [S]) -> Result<Self, LengthError> {
        LengthError::check("row of shifts", self.len, shift.len())?;
        let shift = Some(shift);
        Ok(Self { shift, ..self })
    }

    /// Which normalisation.
    #[must_use]
    pub fn kind(&self) -> NormKind {
        self.kind
    }

    /// The length of a row.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether rows have no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is added to the variance, or to the mean of squares.
    #[must_use]
    pub fn epsilon(&self) -> f64 {
        self.epsilon
    }

    /// What a normalised row is multiplied with.
    #[must_use]
    pub fn weight(&self) -> Option<&'a [S]> {
        self.weight
    }

    /// What is added after that.
    #[must_use]
    pub fn shift(&self) -> Option<&'a [S]> {
        self.shift
    }

    /// How many rows `len` elements are.
    fn rows(&self, what: &'static str, len: usize) -> Result<usize, LengthError> {
        if len == 0 {
            return Ok(0);
        }
        if self.len == 0 {
            let what = "row (at least)";
            return Err(LengthError::new(what, 1, 0));
        }
        let rows = len / self.len;
        LengthError::check(what, rows * self.len, len)?;
        Ok(rows)
    }
}

/// The inverse deviations with which a row of f32 is normalised in f32, in the order `((x - high) - low) *
/// inverse`, where `high` is the mean rounded to f32 and `low` what is left of it: no distance from
/// the mean overflows then, and none loses digits by being small. Other rows are normalised as doubles.
pub(crate) const NORMAL_IN_F32: RangeInclusive<f64> = 1e-30..=1e30;

/// Those with which a row of f64 is normalised like that. In others a distance from the mean may be out of
/// range: `x`, the mean and the inverse deviation are multiplied by powers of two before.
pub(crate) const NORMAL_IN_F64: RangeInclusive<f64> = 1e-140..=1e140;

/// Whether the moments of a row of f64 have to be computed with more care: the squares may have been out of
/// range, or what is taken for a variance may be the rounding of the mean.
pub(crate) fn is_odd(mean: f64, variance_and_epsilon: f64) -> bool {
    !(1e-280..=1e280).contains(&variance_and_epsilon) || variance_and_epsilon < 1e-28 * mean * mean
}

/// What backward needs of a row beside its elements.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowMoments {
    /// The mean; 0 for RMS.
    pub mean: f64,
    /// `1 / sqrt(variance + epsilon)`, at most [`f64::MAX`], and 0 if that is of 0.
    pub inverse_deviation: f64,
}

/// What a residual plus dropout, normalised, reads and writes.
///
/// ```
/// use sorix_kernels::{AddNorm, Buffers, Norm, RowMoments};
///
/// let (x, residual) = ([1.0_f32; 6], [2.0; 6]);
/// let (mut sum, mut z, mut moments) = ([0.0; 6], [0.0; 6], [RowMoments::default(); 2]);
/// let norm = Norm::layer(3, 1e-5)?;
/// let rows = AddNorm::new(norm, &x, Buffers::new(&residual, &mut sum)?, &mut z, &mut moments)?;
/// assert_eq!(
///     rows.with_bias(&[1.0; 6]).unwrap_err().to_string(),
///     "length of row of biases: expected 3, got 6"
/// );
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
#[derive(Debug)]
pub struct AddNorm<'a, T: Element> {
    // Invariant: all are `moments.len()` rows of the norm's length; the bias is one.
    pub(crate) norm: Norm<'a, T::Scale>,
    pub(crate) x: &'a [T],
    pub(crate) bias: Option<&'a [T::Scale]>,
    pub(crate) sum: Buffers<'a, T::Scale>,
    pub(crate) z: &'a mut [T],
    pub(crate) moments: &'a mut [RowMoments],
}

impl<'a, T: Element> AddNorm<'a, T> {
    /// Rows of `x`; the input of `sum` is the residual and its output the sum, which may be one slice,
    /// both of the type computed in; `z` takes the normalised sum; `moments` has one for each row.
    ///
    /// # Errors
    ///
    /// [`LengthError`] unless x is whole rows, sum and z are as long, and there are as many moments as
    /// rows, or if `sum` has a second input.
    pub fn new(
        norm: Norm<'a, T::Scale>,
        x: &'a [T],
        sum: Buffers<'a, T::Scale>,
        z: &'a mut [T],
        moments: &'a mut [RowMoments],
    ) -> Result<Self, LengthError> {
        let rows = norm.rows("x (whole rows)", x.len())?;
        LengthError::check("residual and sum", x.len(), sum.len())?;
        let beside = sum.beside();
        let elements = beside.elements().map_or(0, <[_]>::len);
        let row = beside.row().map_or(0, |(row, _)| row.len());
        LengthError::check("second input", 0, elements + row)?;
        LengthError::check("z", x.len(), z.len())?;
        if !x.is_empty() {
            LengthError::check("moments of rows", rows, moments.len())?;
        }
        Ok(Self {
            norm,
            x,
            bias: None,
            sum,
            z,
            moments,
        })
    }

    /// Adds this row to each of x, before dropout.
    ///
    /// # Errors
    ///
    /// [`LengthError`] unless it is as long as a row.
    pub fn with_bias(self, bias: &'a [T::Scale]) -> Result<Self, LengthError> {
        LengthError::check("row of biases", self.norm.len, bias.len())?;
        let bias = Some(bias);
        Ok(Self { bias, ..self })
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.x.len()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.x.is_empty()
    }

    /// The normalisation.
    #[must_use]
    pub fn norm(&self) -> Norm<'a, T::Scale> {
        self.norm
    }

    /// What dropout drops from.
    #[must_use]
    pub fn x(&self) -> &'a [T] {
        self.x
    }

    /// What is added to each row of x before.
    #[must_use]
    pub fn bias(&self) -> Option<&'a [T::Scale]> {
        self.bias
    }

    /// Residual and sum, the normalised sum, and the moments of its rows, to write them.
    #[must_use]
    #[allow(clippy::type_complexity, reason = "three outputs")]
    pub fn into_outputs(self) -> (Buffers<'a, T::Scale>, &'a mut [T], &'a mut [RowMoments]) {
        (self.sum, self.z, self.moments)
    }

    /// How many bytes are read and written.
    pub(crate) fn bytes(&self) -> usize {
        2 * self.len() * (size_of::<T>() + size_of::<T::Scale>())
    }

    /// The first rows, of `mid` elements, and the rest.
    #[cfg(feature = "parallel")]
    pub(crate) fn split_at(self, mid: usize) -> (Self, Self) {
        let (x0, x1) = self.x.split_at(mid);
        let (sum0, sum1) = self.sum.split_at(mid);
        let (z0, z1) = self.z.split_at_mut(mid);
        let (moments0, moments1) = self.moments.split_at_mut(mid / self.norm.len.max(1));
        let half = |x, sum, z, moments| Self {
            x,
            sum,
            z,
            moments,
            norm: self.norm,
            bias: self.bias,
        };
        (half(x0, sum0, z0, moments0), half(x1, sum1, z1, moments1))
    }
}

/// What the gradient of a [`Norm`] reads and writes.
#[derive(Debug)]
pub struct NormGradient<'a, T: Element> {
    // Invariant: all are `moments.len()` rows of the norm's length; gradients of rows are one.
    pub(crate) norm: Norm<'a, T::Scale>,
    pub(crate) dz: &'a [T],
    pub(crate) sum: &'a [T::Scale],
    pub(crate) moments: &'a [RowMoments],
    pub(crate) more: Option<&'a [T::Scale]>,
    pub(crate) d_sum: &'a mut [T::Scale],
    pub(crate) d_weight: Option<&'a mut [T::Scale]>,
    pub(crate) d_shift: Option<&'a mut [T::Scale]>,
}

impl<'a, T: Element> NormGradient<'a, T> {
    /// `dz` is the gradient of the normalised rows; `sum` what was normalised, and `moments` what came of
    /// it; `d_sum` takes the gradient of the sum.
    ///
    /// # Errors
    ///
    /// [`LengthError`] unless dz is whole rows, the others are as long, and there are as many moments as
    /// rows.
    pub fn new(
        norm: Norm<'a, T::Scale>,
        dz: &'a [T],
        sum: &'a [T::Scale],
        moments: &'a [RowMoments],
        d_sum: &'a mut [T::Scale],
    ) -> Result<Self, LengthError> {
        let rows = norm.rows("dz (whole rows)", dz.len())?;
        LengthError::check("sum", dz.len(), sum.len())?;
        LengthError::check("d_sum", dz.len(), d_sum.len())?;
        if !dz.is_empty() {
            LengthError::check("moments of rows", rows, moments.len())?;
        }
        Ok(Self {
            norm,
            dz,
            sum,
            moments,
            more: None,
            d_sum,
            d_weight: None,
            d_shift: None,
        })
    }

    /// Adds a gradient that comes to the sum from elsewhere, as in the prenorm form, where it is the next
    /// residual.
    ///
    /// # Errors
    ///
    /// [`LengthError`] unless it is as long as the sum.
    pub fn with_more(self, more: &'a [T::Scale]) -> Result<Self, LengthError> {
        LengthError::check("second gradient of the sum", self.dz.len(), more.len())?;
        let more = Some(more);
        Ok(Self { more, ..self })
    }

    /// Writes the gradient of the weight, too.
    ///
    /// # Errors
    ///
    /// [`LengthError`] unless it is as long as a row.
    pub fn with_d_weight(self, d_weight: &'a mut [T::Scale]) -> Result<Self, LengthError> {
        LengthError::check("gradient of the weight", self.norm.len, d_weight.len())?;
        let d_weight = Some(d_weight);
        Ok(Self { d_weight, ..self })
    }

    /// Writes the gradient of the shift, too.
    ///
    /// # Errors
    ///
    /// [`LengthError`] unless it is as long as a row.
    pub fn with_d_shift(self, d_shift: &'a mut [T::Scale]) -> Result<Self, LengthError> {
        LengthError::check("gradient of the shift", self.norm.len, d_shift.len())?;
        let d_shift = Some(d_shift);
        Ok(Self { d_shift, ..self })
    }
}
