//! For adapters to other tensor libraries: one draw of any dropout of the family, over slices.
//!
//! An adapter knows its library's tensors; what is dropped from which shape by which map, what is kept
//! until backward, and where the output's memory comes from is here. `sorix::ndarray` is made of it.

use crate::SaveMask;
use crate::kernels::{
    Affine, AllocationError, BitMask, Broadcast, Buffers, DropRate, Element, Engine, Error,
    MaskRegion, dropout,
};
use crate::nn;
use crate::nn::dropout::{
    Alpha, Channels, Elements, FeatureAlpha, Form, Locked, NoiseShape, Paths,
};

/// A [`Form`] that is a mask and a map of its elements, so that slices will do.
pub trait MaskedForm: Form {
    /// What kept and dropped elements become where that is not inverted dropout.
    fn affine(&self, rate: DropRate) -> Option<Affine> {
        let _ = rate;
        None
    }
}

impl MaskedForm for Elements {}
impl MaskedForm for Locked {}
impl MaskedForm for NoiseShape {}
impl<const SPATIAL: usize> MaskedForm for Channels<SPATIAL> {}

impl MaskedForm for Paths {
    fn affine(&self, rate: DropRate) -> Option<Affine> {
        let unscaled = !self.scales_by_keep() && rate.p() != 0.0;
        unscaled.then_some(Affine::scale(1.0))
    }
}

impl MaskedForm for Alpha {
    fn affine(&self, rate: DropRate) -> Option<Affine> {
        Alpha::affine(rate)
    }
}

impl MaskedForm for FeatureAlpha {
    fn affine(&self, rate: DropRate) -> Option<Affine> {
        Alpha::affine(rate)
    }
}

/// One draw of a dropout for a tensor of one shape, which comes as a slice in row-major order.
///
/// Forward and backward may run any number of times, on any dtype: the mask is always the same.
///
/// ```
/// use sorix::SaveMask;
/// use sorix::adapter::SliceDropout;
/// use sorix::kernels::{DropRate, MaskKey};
/// use sorix::nn::dropout::Channels;
///
/// // Two samples of three channels with two positions each.
/// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(42, 0));
/// let draw = SliceDropout::new(&Channels::<1>::default(), rate, key, &[2, 3, 2])?;
/// assert_eq!(draw.mask_shape(), [2, 3, 1]);
///
/// let (y, mask) = draw.forward(&[1.0_f32; 12], SaveMask::Bits)?;
/// assert!(y.chunks(2).all(|channel| channel == [0.0; 2] || channel == [2.0; 2]));
/// // From the bits, and without them from the key.
/// assert_eq!(draw.backward(mask.as_ref(), &[1.0_f32; 12])?, y);
/// assert_eq!(draw.backward(None, &[1.0_f32; 12])?, y);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct SliceDropout {
    rate: DropRate,
    at: MaskRegion,
    mask_shape: Vec<usize>,
    /// Absent where each element has a bit of its own.
    cover: Option<Broadcast>,
    affine: Option<Affine>,
    len: usize,
}

impl SliceDropout {
    /// The draw of a form for a tensor of this shape.
    ///
    /// # Errors
    ///
    /// [`nn::Error::Shape`] if the form does not fit the shape.
    pub fn new(
        form: &impl MaskedForm,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        shape: &[usize],
    ) -> nn::Result<Self> {
        let mask_shape = form.mask_shape(shape)?;
        let draw = Self::broadcast(rate, at, shape, &mask_shape).map_err(|_| nn::Error::Shape {
            layer: "dropout",
            expected: format!("a shape that a mask of shape {mask_shape:?} covers"),
            got: shape.to_vec(),
        })?;
        Ok(Self {
            affine: form.affine(rate),
            ..draw
        })
    }

    /// Inverted dropout by a mask of a smaller shape: each axis 1 or the tensor's.
    ///
    /// # Errors
    ///
    /// [`Error::Broadcast`] if the shape of the mask is another.
    ///
    /// ```
    /// use sorix::adapter::SliceDropout;
    /// use sorix::kernels::{DropRate, MaskKey};
    /// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(42, 0));
    /// let error = SliceDropout::broadcast(rate, key, &[4, 3], &[2, 1]).unwrap_err();
    /// assert!(error.to_string().contains("tensor of shape [4, 3]"));
    /// # Ok::<(), sorix::kernels::Error>(())
    /// ```
    pub fn broadcast(
        rate: DropRate,
        at: impl Into<MaskRegion>,
        shape: &[usize],
        mask_shape: &[usize],
    ) -> Result<Self, Error> {
        let cover = Broadcast::new(shape, mask_shape)?;
        Ok(Self {
            rate,
            at: at.into(),
            mask_shape: mask_shape.to_vec(),
            len: cover.len(),
            cover: (!cover.is_full()).then_some(cover),
            affine: None,
        })
    }

    /// The same mask with another map of kept and dropped elements; `None` is inverted dropout.
    ///
    /// ```
    /// use sorix::SaveMask;
    /// use sorix::adapter::SliceDropout;
    /// use sorix::kernels::{Affine, DropRate, MaskKey};
    /// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(42, 0));
    /// let draw = SliceDropout::broadcast(rate, key, &[4], &[4])?;
    /// let unscaled = draw.clone().with_affine(Some(Affine::scale(1.0)));
    /// let (y, _) = unscaled.forward(&[2.0_f32; 4], SaveMask::Replay)?;
    /// assert_eq!(y, draw.forward(&[1.0_f32; 4], SaveMask::Replay)?.0);
    /// # Ok::<(), sorix::kernels::Error>(())
    /// ```
    #[must_use]
    pub fn with_affine(self, affine: Option<Affine>) -> Self {
        Self { affine, ..self }
    }

    /// The probability of dropping.
    #[must_use]
    pub fn rate(&self) -> DropRate {
        self.rate
    }

    /// The shape of the mask.
    #[must_use]
    pub fn mask_shape(&self) -> &[usize] {
        &self.mask_shape
    }

    /// What kept and dropped elements become.
    #[must_use]
    pub fn affine(&self) -> Affine {
        self.affine
            .unwrap_or_else(|| Affine::scale(self.rate.scale()))
    }

    /// Whether every element stays what it is, so that the tensor itself is the result: p = 0.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.rate.p() == 0.0
    }

    /// The mask, a bit for each element of [`mask_shape`](Self::mask_shape).
    ///
    /// # Errors
    ///
    /// Those of [`dropout`], and [`Error::Allocation`].
    pub fn mask(&self) -> Result<BitMask, Error> {
        let len = self.cover.as_ref().map_or(self.len, Broadcast::mask_len);
        let mut mask = BitMask::try_new(len)?;
        dropout::fill_mask(self.rate, self.at, &mut mask)?;
        Ok(mask)
    }

    /// The output for an input, and the mask if it is to be saved as bits.
    ///
    /// # Errors
    ///
    /// Those of [`forward_buffers`](Self::forward_buffers).
    pub fn forward<T: Element>(
        &self,
        x: &[T],
        save: SaveMask,
    ) -> Result<(Vec<T>, Option<BitMask>), Error> {
        self.check_len(x.len())?;
        let mut y = zeros(x.len())?;
        let mask = self.forward_buffers(Buffers::new(x, &mut y)?, save)?;
        Ok((y, mask))
    }

    /// [`forward`](Self::forward), over the input itself.
    ///
    /// # Errors
    ///
    /// Those of [`forward_buffers`](Self::forward_buffers).
    pub fn forward_in_place<T: Element>(
        &self,
        x: &mut [T],
        save: SaveMask,
    ) -> Result<Option<BitMask>, Error> {
        self.forward_buffers(Buffers::in_place(x), save)
    }

    /// [`forward`](Self::forward) into memory of the caller's, or in place; every element of the output is
    /// written, or none if there is an error.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] if the input has another number of elements than the shape, those of
    /// [`dropout`](crate::kernels::dropout), and [`Error::Allocation`].
    ///
    /// ```
    /// use sorix::SaveMask;
    /// use sorix::adapter::SliceDropout;
    /// use sorix::kernels::{Buffers, DropRate, MaskKey};
    /// use sorix::nn::dropout::Elements;
    /// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(42, 0));
    /// let draw = SliceDropout::new(&Elements, rate, key, &[4])?;
    /// let (x, mut y) = ([1.0_f32; 4], [f32::NAN; 4]);
    /// draw.forward_buffers(Buffers::new(&x, &mut y)?, SaveMask::Replay)?;
    /// assert_eq!(y.to_vec(), draw.forward(&x, SaveMask::Replay)?.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn forward_buffers<T: Element>(
        &self,
        buffers: Buffers<'_, T>,
        save: SaveMask,
    ) -> Result<Option<BitMask>, Error> {
        self.check_len(buffers.len())?;
        let engine = Engine::active()?;
        if !self.is_plain() {
            let mask = self.mask()?;
            self.apply(engine, self.affine, &mask, buffers)?;
            return Ok((save == SaveMask::Bits).then_some(mask));
        }
        Ok(match save {
            SaveMask::Bits => {
                let mut mask = BitMask::try_new(self.len)?;
                engine.forward(self.rate, self.at, buffers, &mut mask)?;
                Some(mask)
            }
            _ => {
                engine.replay(self.rate, self.at, buffers)?;
                None
            }
        })
    }

    /// The gradient of the input for that of the output: from the mask that forward saved, or from the
    /// key.
    ///
    /// # Errors
    ///
    /// Those of [`forward_buffers`](Self::forward_buffers).
    pub fn backward<T: Element>(&self, mask: Option<&BitMask>, dy: &[T]) -> Result<Vec<T>, Error> {
        self.check_len(dy.len())?;
        let mut dx = zeros(dy.len())?;
        self.backward_buffers(mask, Buffers::new(dy, &mut dx)?)?;
        Ok(dx)
    }

    /// [`backward`](Self::backward), over the gradient itself.
    ///
    /// # Errors
    ///
    /// Those of [`forward_buffers`](Self::forward_buffers).
    pub fn backward_in_place<T: Element>(
        &self,
        mask: Option<&BitMask>,
        dy: &mut [T],
    ) -> Result<(), Error> {
        self.backward_buffers(mask, Buffers::in_place(dy))
    }

    /// [`backward`](Self::backward) into memory of the caller's, or in place.
    ///
    /// # Errors
    ///
    /// Those of [`forward_buffers`](Self::forward_buffers).
    ///
    /// ```
    /// use sorix::adapter::SliceDropout;
    /// use sorix::kernels::{Buffers, DropRate, MaskKey};
    /// use sorix::nn::dropout::Elements;
    /// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(42, 0));
    /// let draw = SliceDropout::new(&Elements, rate, key, &[4])?;
    /// let (dy, mut dx) = ([1.0_f64; 4], [f64::NAN; 4]);
    /// draw.backward_buffers(None, Buffers::new(&dy, &mut dx)?)?;
    /// assert_eq!(dx.to_vec(), draw.backward(Some(&draw.mask()?), &dy)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn backward_buffers<T: Element>(
        &self,
        mask: Option<&BitMask>,
        buffers: Buffers<'_, T>,
    ) -> Result<(), Error> {
        self.check_len(buffers.len())?;
        let engine = Engine::active()?;
        match mask {
            Some(mask) => self.apply(engine, self.derivative(), mask, buffers),
            None if self.is_plain() => engine.replay(self.rate, self.at, buffers),
            None => self.apply(engine, self.derivative(), &self.mask()?, buffers),
        }
    }

    /// Whether it is inverted dropout with a bit for each element, for which there are kernels that
    /// make the mask on the way.
    fn is_plain(&self) -> bool {
        self.cover.is_none() && self.affine.is_none()
    }

    fn derivative(&self) -> Option<Affine> {
        self.affine.map(Affine::derivative)
    }

    fn apply<T: Element>(
        &self,
        engine: Engine<'_>,
        affine: Option<Affine>,
        mask: &BitMask,
        buffers: Buffers<'_, T>,
    ) -> Result<(), Error> {
        match (affine, &self.cover) {
            (None, None) => engine.apply(self.rate, mask, buffers),
            (None, Some(cover)) => engine.apply_broadcast(self.rate, mask, cover, buffers),
            (Some(affine), None) => {
                engine.apply_affine(affine, mask, &Broadcast::full(self.len), buffers)
            }
            (Some(affine), Some(cover)) => engine.apply_affine(affine, mask, cover, buffers),
        }
    }

    fn check_len(&self, got: usize) -> Result<(), Error> {
        if got == self.len {
            return Ok(());
        }
        let error = crate::kernels::LengthError::new("tensor", self.len, got);
        Err(Error::Length(error))
    }
}

/// Memory for an output: fresh zeros, which the system hands out without writing them.
///
/// # Errors
///
/// [`AllocationError`] if allocation fails.
fn zeros<T: Element>(len: usize) -> Result<Vec<T>, AllocationError> {
    bytemuck::allocation::try_zeroed_vec(len)
        .map_err(|()| AllocationError::new((len as u64).saturating_mul(size_of::<T>() as u64)))
}
