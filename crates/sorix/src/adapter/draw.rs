//! [`SliceDropout`]: one draw of a dropout.

use crate::adapter::{Map, SliceForm};
use crate::kernels::{
    Affine, AllocationError, BitMask, Broadcast, Buffers, DropRate, Engine, Error, LengthError,
    MaskRegion, dropout,
};
use crate::{DType, ErrorKind, SaveMask, Scalar, Tensor, TensorError, nn};

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
/// let (y, saved) = draw.forward(&[1.0_f32; 12], SaveMask::Bits)?;
/// assert!(y.chunks(2).all(|channel| channel == [0.0; 2] || channel == [2.0; 2]));
/// // From the bits, and without them from the key.
/// assert_eq!(draw.backward(saved.as_ref(), &[1.0_f32; 12])?, y);
/// assert_eq!(draw.backward(None, &[1.0_f32; 12])?, y);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct SliceDropout {
    pub(super) rate: DropRate,
    pub(super) at: MaskRegion,
    shape: Vec<usize>,
    mask_shape: Vec<usize>,
    /// Absent if each element has a bit of its own, as of an activation.
    cover: Option<Broadcast>,
    pub(super) map: Map,
    pub(super) len: usize,
}

/// What forward keeps until backward, which could also make it again from the key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Saved {
    /// The mask, a bit for each element of the [shape of the mask](SliceDropout::mask_shape).
    Bits(BitMask),
    /// The noise, a number for each element.
    Noise(Tensor),
}

impl SliceDropout {
    /// The draw of a form for a tensor of this shape.
    ///
    /// # Errors
    ///
    /// [`nn::Error::Shape`] if the form does not fit the shape.
    pub fn new(
        form: &impl SliceForm,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        shape: &[usize],
    ) -> nn::Result<Self> {
        let mask_shape = form.mask_shape(shape)?;
        let wrong = |expected| nn::Error::Shape {
            layer: "dropout",
            expected,
            got: shape.to_vec(),
        };
        let draw = Self::broadcast(rate, at, shape, &mask_shape).map_err(|_| {
            wrong(format!(
                "a shape that a mask of shape {mask_shape:?} covers"
            ))
        })?;
        let map = form.map(rate);
        if let (Map::Activation(activation), Some(_)) = (map, &draw.cover) {
            let name = activation.name();
            return Err(wrong(format!(
                "for {name} the shape of the mask, {mask_shape:?}"
            )));
        }
        Ok(Self { map, ..draw })
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
            shape: shape.to_vec(),
            mask_shape: mask_shape.to_vec(),
            len: cover.len(),
            cover: (!cover.is_full()).then_some(cover),
            map: Map::Inverted,
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
        let map = affine.map_or(Map::Inverted, Map::Affine);
        Self { map, ..self }
    }

    /// The same draw by another key.
    pub(crate) fn with_key(self, at: impl Into<MaskRegion>) -> Self {
        Self {
            at: at.into(),
            ..self
        }
    }

    /// The probability of dropping.
    #[must_use]
    pub fn rate(&self) -> DropRate {
        self.rate
    }

    /// The mask, or the part of it that belongs to the tensor.
    #[must_use]
    pub fn at(&self) -> MaskRegion {
        self.at
    }

    /// The shape of the mask.
    #[must_use]
    pub fn mask_shape(&self) -> &[usize] {
        &self.mask_shape
    }

    /// What kept and dropped elements become, or with an [activation](Self::activation) what its values
    /// become; `None` if elements are multiplied by [noise](Self::noise).
    ///
    /// ```
    /// use sorix::adapter::SliceDropout;
    /// use sorix::kernels::{Affine, DropRate, MaskKey};
    /// use sorix::nn::dropout::{Elements, Gaussian};
    /// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(42, 0));
    /// let elements = SliceDropout::new(&Elements, rate, key, &[4])?;
    /// assert_eq!(elements.affine(), Some(Affine::scale(2.0)));
    /// assert_eq!(SliceDropout::new(&Gaussian, rate, key, &[4])?.affine(), None);
    /// # Ok::<(), sorix::Error>(())
    /// ```
    #[must_use]
    pub fn affine(&self) -> Option<Affine> {
        match self.map {
            Map::Inverted | Map::Activation(_) => Some(Affine::scale(self.rate.scale())),
            Map::Affine(affine) => Some(affine),
            Map::Noise { .. } => None,
        }
    }

    /// Whether every element stays what it is, so that the tensor itself is the result: p = 0, and no
    /// activation.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.rate.p() == 0.0 && self.activation().is_none()
    }

    /// The mask, a bit for each element of [`mask_shape`](Self::mask_shape). Noise has no use for it.
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

    /// What a tensor of this dtype is multiplied by, of its shape: ones, unless the form makes noise.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] and [`Error::Window`] if a part of a mask does not fit the shape, and
    /// [`Error::Allocation`].
    ///
    /// ```
    /// use sorix::DType;
    /// use sorix::adapter::SliceDropout;
    /// use sorix::kernels::{DropRate, MaskKey};
    /// use sorix::nn::dropout::Gaussian;
    /// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(42, 0));
    /// let draw = SliceDropout::new(&Gaussian, rate, key, &[2, 500])?;
    /// let noise = draw.noise(DType::F64)?;
    /// assert_eq!(noise.shape(), [2, 500]);
    /// assert!((noise.mean()?.item::<f64>()? - 1.0).abs() < 0.1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn noise(&self, dtype: DType) -> Result<Tensor, Error> {
        let deviation = match self.map {
            Map::Noise { deviation } => deviation,
            _ => 0.0,
        };
        Tensor::normal(&self.shape, 1.0, deviation, dtype, self.at)
            .map_err(|error| self.of_noise(&error, dtype.size()))
    }

    /// The output for an input, and what is to be saved for backward: the bits of the mask, or the noise,
    /// if `save` is [`SaveMask::Bits`].
    ///
    /// # Errors
    ///
    /// Those of [`forward_buffers`](Self::forward_buffers).
    pub fn forward<T: Scalar>(
        &self,
        x: &[T],
        save: SaveMask,
    ) -> Result<(Vec<T>, Option<Saved>), Error> {
        self.check_len(x.len())?;
        let mut y = zeros(x.len())?;
        let saved = self.forward_buffers(Buffers::new(x, &mut y)?, save)?;
        Ok((y, saved))
    }

    /// [`forward`](Self::forward), over the input itself.
    ///
    /// # Errors
    ///
    /// Those of [`forward_buffers`](Self::forward_buffers).
    pub fn forward_in_place<T: Scalar>(
        &self,
        x: &mut [T],
        save: SaveMask,
    ) -> Result<Option<Saved>, Error> {
        self.forward_buffers(Buffers::in_place(x), save)
    }

    /// [`forward`](Self::forward) into memory of the caller's, or in place; every element of the output is
    /// written, or none if there is an error.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] if the input has another number of elements than the shape, those of
    /// [`dropout`], and [`Error::Allocation`].
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
    pub fn forward_buffers<T: Scalar>(
        &self,
        buffers: Buffers<'_, T>,
        save: SaveMask,
    ) -> Result<Option<Saved>, Error> {
        self.check_len(buffers.len())?;
        if let Map::Noise { .. } = self.map {
            let noise = self.noise(T::DTYPE)?;
            self.multiply(buffers, &noise)?;
            return Ok(saved(save, Saved::Noise(noise)));
        }
        let engine = Engine::active()?;
        if let Map::Activation(activation) = self.map {
            let mut mask = self.room_for_bits(save)?;
            engine.act_dropout(activation, self.rate, self.at, buffers, mask.as_mut())?;
            return Ok(mask.map(Saved::Bits));
        }
        if !self.is_plain() {
            let mask = self.mask()?;
            self.apply(engine, self.map, &mask, buffers)?;
            return Ok(saved(save, Saved::Bits(mask)));
        }
        let mut mask = self.room_for_bits(save)?;
        match &mut mask {
            Some(mask) => engine.forward(self.rate, self.at, buffers, mask)?,
            None => engine.replay(self.rate, self.at, buffers)?,
        }
        Ok(mask.map(Saved::Bits))
    }

    /// `residual` plus the [output](Self::forward) for an input, and what is to be saved for backward.
    ///
    /// # Errors
    ///
    /// Those of [`forward_add_buffers`](Self::forward_add_buffers).
    ///
    /// ```
    /// use sorix::SaveMask;
    /// use sorix::adapter::SliceDropout;
    /// use sorix::kernels::{DropRate, MaskKey};
    /// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(42, 0));
    /// let draw = SliceDropout::broadcast(rate, key, &[4], &[4])?;
    /// let (y, _) = draw.forward_add(&[1.0_f32; 4], &[10.0; 4], SaveMask::Replay)?;
    /// let dropped = draw.forward(&[1.0_f32; 4], SaveMask::Replay)?.0;
    /// assert!(y.iter().zip(dropped).all(|(&y, dropped)| y == 10.0 + dropped));
    /// # Ok::<(), sorix::kernels::Error>(())
    /// ```
    pub fn forward_add<T: Scalar>(
        &self,
        x: &[T],
        residual: &[T],
        save: SaveMask,
    ) -> Result<(Vec<T>, Option<Saved>), Error> {
        self.check_len(x.len())?;
        let mut y = zeros(x.len())?;
        let buffers = Buffers::new(residual, &mut y)?.with_elements(x)?;
        let saved = self.forward_add_buffers(buffers, save)?;
        Ok((y, saved))
    }

    /// [`forward_add`](Self::forward_add) of an input and a bias: `residual + dropout(x + bias)`. The bias is a
    /// row that repeats, as long as the last axis. Its gradient is [`bias_gradient`](super::bias_gradient) of
    /// that of the input.
    ///
    /// # Errors
    ///
    /// Those of [`forward_add_buffers`](Self::forward_add_buffers), and [`Error::Length`] if the bias is empty.
    ///
    /// ```
    /// use sorix::SaveMask;
    /// use sorix::adapter::SliceDropout;
    /// use sorix::kernels::{DropRate, MaskKey};
    /// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(42, 0));
    /// let draw = SliceDropout::broadcast(rate, key, &[2, 2], &[2, 2])?;
    /// let (y, _) = draw.forward_bias_add(&[1.0_f32; 4], &[0.5, 1.0], &[10.0; 4], SaveMask::Replay)?;
    /// let apart = draw.forward_add(&[1.5_f32, 2.0, 1.5, 2.0], &[10.0; 4], SaveMask::Replay)?;
    /// assert_eq!(y, apart.0);
    /// # Ok::<(), sorix::kernels::Error>(())
    /// ```
    pub fn forward_bias_add<T: Scalar>(
        &self,
        x: &[T],
        bias: &[T],
        residual: &[T],
        save: SaveMask,
    ) -> Result<(Vec<T>, Option<Saved>), Error> {
        self.check_len(x.len())?;
        let mut y = zeros(x.len())?;
        let buffers = Buffers::new(residual, &mut y)?.with_elements(x)?;
        let saved = self.forward_add_buffers(buffers.with_row(bias)?, save)?;
        Ok((y, saved))
    }

    /// [`forward_add`](Self::forward_add) into memory of the caller's, or over the residual. The input of
    /// `buffers` is the residual, and x is beside it, [as many elements](Buffers::with_elements), and the bias,
    /// if there is one, as a [row](Buffers::with_row). The gradient of x is that of dropout,
    /// [`backward`](Self::backward); that of the residual is the gradient itself.
    ///
    /// Inverted dropout is [one pass](Self::adds_in_one_pass), and its product and sums are rounded to the
    /// element type together. Other forms go over memory once more; the sum of x and bias and the output are
    /// rounded each by itself.
    ///
    /// # Errors
    ///
    /// Those of [`forward_buffers`](Self::forward_buffers), and [`Error::Length`] if nothing is beside the
    /// residual.
    ///
    /// ```
    /// use sorix::SaveMask;
    /// use sorix::adapter::SliceDropout;
    /// use sorix::kernels::{Buffers, DropRate, MaskKey};
    /// let draw = SliceDropout::broadcast(DropRate::new(0.0)?, MaskKey::new(42, 0), &[2], &[2])?;
    /// let mut residual = [1.0, 2.0];
    /// let buffers = Buffers::in_place(&mut residual).with_elements(&[0.5, 0.25])?;
    /// draw.forward_add_buffers(buffers, SaveMask::Replay)?;
    /// assert_eq!(residual, [1.5, 2.25]);
    /// # Ok::<(), sorix::kernels::Error>(())
    /// ```
    pub fn forward_add_buffers<T: Scalar>(
        &self,
        buffers: Buffers<'_, T>,
        save: SaveMask,
    ) -> Result<Option<Saved>, Error> {
        self.check_len(buffers.len())?;
        let engine = Engine::active()?;
        match (self.map, &self.cover) {
            (Map::Inverted, None) => {
                let mut mask = self.room_for_bits(save)?;
                engine.dropout_add(self.rate, self.at, buffers, mask.as_mut())?;
                Ok(mask.map(Saved::Bits))
            }
            (Map::Inverted, Some(cover)) => {
                let mask = self.mask()?;
                engine.dropout_add_broadcast(self.rate, &mask, cover, buffers)?;
                Ok(saved(save, Saved::Bits(mask)))
            }
            _ => {
                let beside = buffers.beside();
                let Some(x) = beside.elements() else {
                    return Err(LengthError::new("second input", self.len, 0).into());
                };
                let mut dropped = zeros(self.len)?;
                Buffers::new(x, &mut dropped)?.update(|i, x| match beside.of_row(i) {
                    Some(bias) => T::from_acc(x.to_acc() + bias.to_acc()),
                    None => x,
                });
                let saved = self.forward_in_place(&mut dropped, save)?;
                buffers.update(|i, residual| T::from_acc(residual.to_acc() + dropped[i].to_acc()));
                Ok(saved)
            }
        }
    }

    /// Whether a residual, and a bias, are added in the pass that drops: inverted dropout by any mask.
    #[must_use]
    pub fn adds_in_one_pass(&self) -> bool {
        self.map == Map::Inverted
    }

    /// The gradient of the input for that of the output: from what forward saved, or from the key.
    ///
    /// # Errors
    ///
    /// Those of [`forward_buffers`](Self::forward_buffers), and [`Error::Length`] if the gradient
    /// [needs the input](Self::needs_input); that is [`backward_at`](Self::backward_at).
    pub fn backward<T: Scalar>(&self, saved: Option<&Saved>, dy: &[T]) -> Result<Vec<T>, Error> {
        self.check_len(dy.len())?;
        let mut dx = zeros(dy.len())?;
        self.backward_buffers(saved, Buffers::new(dy, &mut dx)?)?;
        Ok(dx)
    }

    /// [`backward`](Self::backward), over the gradient itself.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn backward_in_place<T: Scalar>(
        &self,
        saved: Option<&Saved>,
        dy: &mut [T],
    ) -> Result<(), Error> {
        self.backward_buffers(saved, Buffers::in_place(dy))
    }

    /// [`backward`](Self::backward) into memory of the caller's, or in place.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// ```
    /// use sorix::adapter::{Saved, SliceDropout};
    /// use sorix::kernels::{Buffers, DropRate, MaskKey};
    /// use sorix::nn::dropout::Elements;
    /// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(42, 0));
    /// let draw = SliceDropout::new(&Elements, rate, key, &[4])?;
    /// let (dy, mut dx) = ([1.0_f64; 4], [f64::NAN; 4]);
    /// draw.backward_buffers(None, Buffers::new(&dy, &mut dx)?)?;
    /// assert_eq!(dx.to_vec(), draw.backward(Some(&Saved::Bits(draw.mask()?)), &dy)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn backward_buffers<T: Scalar>(
        &self,
        saved: Option<&Saved>,
        buffers: Buffers<'_, T>,
    ) -> Result<(), Error> {
        self.check_len(buffers.len())?;
        if self.needs_input(saved) {
            return Err(LengthError::new("input of an activation", self.len, 0).into());
        }
        let engine = Engine::active()?;
        match (self.map, saved) {
            (Map::Noise { .. }, Some(Saved::Noise(noise))) if noise.dtype() == T::DTYPE => {
                self.multiply(buffers, noise)
            }
            (Map::Noise { .. }, _) => self.multiply(buffers, &self.noise(T::DTYPE)?),
            (_, Some(Saved::Bits(mask))) => self.apply(engine, self.derivative(), mask, buffers),
            _ if self.is_plain() => engine.replay(self.rate, self.at, buffers),
            _ => self.apply(engine, self.derivative(), &self.mask()?, buffers),
        }
    }

    /// Whether it is inverted dropout with a bit for each element, for which there are kernels that
    /// make the mask on the way.
    fn is_plain(&self) -> bool {
        self.cover.is_none() && self.map == Map::Inverted
    }

    fn derivative(&self) -> Map {
        match self.map {
            Map::Affine(affine) => Map::Affine(affine.derivative()),
            // Of the rectifier, whose bits say it all. Not inverted dropout, which takes p = 0 for a mask that
            // keeps everything.
            Map::Activation(_) => Map::Affine(Affine::scale(self.rate.scale())),
            other => other,
        }
    }

    fn apply<T: Scalar>(
        &self,
        engine: Engine<'_>,
        map: Map,
        mask: &BitMask,
        buffers: Buffers<'_, T>,
    ) -> Result<(), Error> {
        match (map, &self.cover) {
            (Map::Affine(affine), None) => {
                engine.apply_affine(affine, mask, &Broadcast::full(self.len), buffers)
            }
            (Map::Affine(affine), Some(cover)) => engine.apply_affine(affine, mask, cover, buffers),
            (_, None) => engine.apply(self.rate, mask, buffers),
            (_, Some(cover)) => engine.apply_broadcast(self.rate, mask, cover, buffers),
        }
    }

    /// Multiplies each element by its number of the noise; each product is rounded once.
    fn multiply<T: Scalar>(&self, buffers: Buffers<'_, T>, noise: &Tensor) -> Result<(), Error> {
        let multiplied = noise.with_view::<T, _>(|noise| {
            let mut noise = noise.iter();
            // As many as elements: both lengths are that of the shape.
            buffers.update(|_, x| match noise.next() {
                Some(noise) => x.times(T::factor(noise.to_f64())),
                None => x,
            });
        });
        multiplied.map_err(|error| self.of_noise(&error, size_of::<T>()))
    }

    /// What a tensor of noise can fail of: the kernels' reasons, or the memory.
    fn of_noise(&self, error: &TensorError, size: usize) -> Error {
        match error.kind() {
            ErrorKind::Kernel(error) => error.clone(),
            _ => Error::Allocation(AllocationError::new(bytes(self.len, size))),
        }
    }

    /// A mask to be written, if bits are to be saved.
    fn room_for_bits(&self, save: SaveMask) -> Result<Option<BitMask>, AllocationError> {
        (save == SaveMask::Bits)
            .then(|| BitMask::try_new(self.len))
            .transpose()
    }

    pub(super) fn check_len(&self, got: usize) -> Result<(), Error> {
        expect_len("tensor", self.len, got)
    }
}

pub(super) fn expect_len(what: &'static str, expected: usize, got: usize) -> Result<(), Error> {
    if got == expected {
        return Ok(());
    }
    Err(Error::Length(LengthError::new(what, expected, got)))
}

fn saved(save: SaveMask, what: Saved) -> Option<Saved> {
    (save == SaveMask::Bits).then_some(what)
}

pub(super) fn bytes(len: usize, size: usize) -> u64 {
    (len as u64).saturating_mul(size as u64)
}

/// Memory for an output: fresh zeros, which the system hands out without writing them.
///
/// # Errors
///
/// [`AllocationError`] if allocation fails.
pub(super) fn zeros<T: Scalar>(len: usize) -> Result<Vec<T>, AllocationError> {
    bytemuck::allocation::try_zeroed_vec(len)
        .map_err(|()| AllocationError::new(bytes(len, size_of::<T>())))
}
