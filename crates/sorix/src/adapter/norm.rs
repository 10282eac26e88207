//! [`SliceAddNorm`]: one draw of a residual plus dropout, normalised.

use crate::adapter::draw::{bytes, zeros};
use crate::adapter::{Saved, SliceDropout};
use crate::kernels::{
    AddNorm, AllocationError, BitMask, Buffers, DropRate, Element, Engine, Error, MaskRegion, Norm,
    NormGradient, NormKind, RowMoments,
};
use crate::{SaveMask, Scalar};

/// One draw of `norm(residual + dropout(x + bias))` and of that sum, of a tensor of one shape whose last axis is a
/// row, in row-major order; in one pass.
///
/// x and the normalised rows are of `T`; residual, sum, bias, weight and shift of the type computed in, f32 for f16 and
/// bf16.
///
/// ```
/// use sorix::SaveMask;
/// use sorix::adapter::{NormRows, SliceAddNorm};
/// use sorix::kernels::{Buffers, DropRate, MaskKey, NormKind};
/// let (rate, key) = (DropRate::new(0.0)?, MaskKey::new(42, 0));
/// let draw = SliceAddNorm::new(NormKind::Layer, 0.0, rate, key, &[2, 2])?;
/// let (x, mut sum) = ([1.0_f32, 2.0, 3.0, 4.0], [0.0, 1.0, 0.0, -3.0]);
/// let rows = NormRows { weight: Some(&[10.0, 20.0][..]), ..NormRows::default() };
/// let (z, saved) = draw.forward_buffers(&x, Buffers::in_place(&mut sum), rows, SaveMask::Bits)?;
/// assert_eq!((sum, z.as_slice()), ([1.0, 3.0, 3.0, 1.0], &[-10.0, 20.0, 10.0, -20.0][..]));
///
/// let (d_sum, [d_weight, d_shift]) =
///     draw.backward(&saved, &[1.0_f32; 4], &sum, rows.weight, [true, false])?;
/// // Rows of two are always -1 and 1 when normalised: no step changes them.
/// assert_eq!((d_sum, d_weight, d_shift), (vec![0.0; 4], Some(vec![0.0; 2]), None));
/// assert_eq!(draw.backward_of_x(&saved, &[5.0_f32; 4])?, [5.0; 4]);
/// # Ok::<(), sorix::kernels::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SliceAddNorm {
    draw: SliceDropout,
    kind: NormKind,
    epsilon: f64,
    row: usize,
}

/// The rows that go into each one, each if there is one.
#[derive(Clone, Copy, Debug)]
pub struct NormRows<'a, S> {
    /// What is added to x before dropout.
    pub bias: Option<&'a [S]>,
    /// What a normalised row is multiplied with.
    pub weight: Option<&'a [S]>,
    /// What is added after that.
    pub shift: Option<&'a [S]>,
}

impl<S> Default for NormRows<'_, S> {
    /// None.
    fn default() -> Self {
        Self {
            bias: None,
            weight: None,
            shift: None,
        }
    }
}

/// What [`SliceAddNorm`] keeps until backward beside the sum: two doubles for each row, and the mask, as bits or not at
/// all.
#[derive(Clone, Debug)]
pub struct SavedNorm {
    moments: Vec<RowMoments>,
    mask: Option<Saved>,
}

impl SliceAddNorm {
    /// The draw for a tensor of this shape. Without axes its one element is a row.
    ///
    /// # Errors
    ///
    /// [`Error::Epsilon`] if `epsilon` is negative or not finite, and [`Error::Broadcast`] if the shape has more elements
    /// than a `usize` counts.
    pub fn new(
        kind: NormKind,
        epsilon: f64,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        shape: &[usize],
    ) -> Result<Self, Error> {
        let row = shape.last().copied().unwrap_or(1);
        Norm::<f32>::new(kind, row, epsilon)?;
        Ok(Self {
            draw: SliceDropout::broadcast(rate, at, shape, shape)?,
            kind,
            epsilon,
            row,
        })
    }

    /// The dropout in it.
    #[must_use]
    pub fn draw(&self) -> &SliceDropout {
        &self.draw
    }

    /// The normalised rows, the sum, and what is to be saved for backward.
    ///
    /// # Errors
    ///
    /// Those of [`forward_buffers`](Self::forward_buffers).
    ///
    /// ```
    /// use sorix::SaveMask;
    /// use sorix::adapter::{NormRows, SliceAddNorm};
    /// use sorix::kernels::{DropRate, MaskKey, NormKind};
    /// let draw = SliceAddNorm::new(NormKind::Rms, 0.0, DropRate::new(1.0)?, MaskKey::new(42, 0), &[2])?;
    /// let (z, sum, _) = draw.forward(&[9.0; 2], &[3.0, -3.0], NormRows::default(), SaveMask::Bits)?;
    /// assert_eq!((z, sum), (vec![1.0, -1.0], vec![3.0, -3.0]));
    /// # Ok::<(), sorix::kernels::Error>(())
    /// ```
    #[allow(clippy::type_complexity, reason = "three outputs")]
    pub fn forward<T>(
        &self,
        x: &[T],
        residual: &[T::Scale],
        rows: NormRows<'_, T::Scale>,
        save: SaveMask,
    ) -> Result<(Vec<T>, Vec<T::Scale>, SavedNorm), Error>
    where
        T: Scalar + Element<Scale: Scalar>,
    {
        self.draw.check_len(residual.len())?;
        let mut sum = zeros(residual.len())?;
        let buffers = Buffers::new(residual, &mut sum)?;
        let (z, saved) = self.forward_buffers(x, buffers, rows, save)?;
        Ok((z, sum, saved))
    }

    /// [`forward`](Self::forward) with the sum in memory of the caller's, or over the residual. The input of `sum` is
    /// the residual.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] if something has another number of elements than the shape, or a row than the last axis; those
    /// of [`dropout`](crate::kernels::dropout), and [`Error::Allocation`].
    pub fn forward_buffers<T>(
        &self,
        x: &[T],
        sum: Buffers<'_, T::Scale>,
        rows: NormRows<'_, T::Scale>,
        save: SaveMask,
    ) -> Result<(Vec<T>, SavedNorm), Error>
    where
        T: Scalar + Element<Scale: Scalar>,
    {
        self.draw.check_len(x.len())?;
        let rate = self.draw.rate();
        let drops = 0.0 < rate.p() && rate.p() < 1.0;
        let mut mask = (drops && save == SaveMask::Bits)
            .then(|| BitMask::try_new(x.len()))
            .transpose()?;
        let mut moments = self.moments(x.len())?;
        let mut z = zeros(x.len())?;
        let mut norm = self.norm(rows.weight)?;
        if let Some(shift) = rows.shift {
            norm = norm.with_shift(shift)?;
        }
        let mut job = AddNorm::new(norm, x, sum, &mut z, &mut moments)?;
        if let Some(bias) = rows.bias {
            job = job.with_bias(bias)?;
        }
        Engine::active()?.dropout_add_norm(rate, self.draw.at(), job, mask.as_mut())?;
        let mask = mask.map(Saved::Bits);
        Ok((z, SavedNorm { moments, mask }))
    }

    /// The gradient of the sum, which is that of the residual, for that of the normalised rows; and those of weight and
    /// shift, each if it is wanted.
    ///
    /// # Errors
    ///
    /// Those of [`forward_buffers`](Self::forward_buffers).
    #[allow(clippy::type_complexity, reason = "three outputs")]
    pub fn backward<T>(
        &self,
        saved: &SavedNorm,
        dz: &[T],
        sum: &[T::Scale],
        weight: Option<&[T::Scale]>,
        wanted: [bool; 2],
    ) -> Result<(Vec<T::Scale>, [Option<Vec<T::Scale>>; 2]), Error>
    where
        T: Scalar + Element<Scale: Scalar>,
    {
        self.draw.check_len(dz.len())?;
        let room = |wanted: bool| wanted.then(|| zeros(self.row)).transpose();
        let (mut d_weight, mut d_shift) = (room(wanted[0])?, room(wanted[1])?);
        let mut d_sum = zeros(dz.len())?;
        let norm = self.norm(weight)?;
        let mut job = NormGradient::new(norm, dz, sum, &saved.moments, &mut d_sum)?;
        if let Some(d_weight) = &mut d_weight {
            job = job.with_d_weight(d_weight)?;
        }
        if let Some(d_shift) = &mut d_shift {
            job = job.with_d_shift(d_shift)?;
        }
        Engine::active()?.norm_backward(job)?;
        Ok((d_sum, [d_weight, d_shift]))
    }

    /// The gradient of x for all that comes to the sum. That of the bias is its sum over rows,
    /// [`bias_gradient`](super::bias_gradient).
    ///
    /// # Errors
    ///
    /// Those of [`forward_buffers`](Self::forward_buffers).
    pub fn backward_of_x<S: Scalar>(
        &self,
        saved: &SavedNorm,
        d_sum: &[S],
    ) -> Result<Vec<S>, Error> {
        self.draw.backward(saved.mask.as_ref(), d_sum)
    }

    fn norm<'a, S: Element<Scale = S>>(
        &self,
        weight: Option<&'a [S]>,
    ) -> Result<Norm<'a, S>, Error> {
        let norm = Norm::new(self.kind, self.row, self.epsilon)?;
        Ok(match weight {
            Some(weight) => norm.with_weight(weight)?,
            None => norm,
        })
    }

    fn moments(&self, len: usize) -> Result<Vec<RowMoments>, AllocationError> {
        let rows = len.checked_div(self.row).unwrap_or(0);
        let mut moments = Vec::new();
        let reserved = moments.try_reserve_exact(rows);
        reserved.map_err(|_| AllocationError::new(bytes(rows, size_of::<RowMoments>())))?;
        moments.resize(rows, RowMoments::default());
        Ok(moments)
    }
}
