//! [`SliceDropout`] of an activation.

use crate::adapter::draw::zeros;
use crate::adapter::{Map, Saved, SliceDropout};
use crate::kernels::{
    Activation, BitMask, Buffers, DropRate, Engine, Error, LengthError, MaskRegion,
};
use crate::{SaveMask, Scalar};

impl SliceDropout {
    /// Inverted dropout of an activation, with a bit for each element: `dropout(activation(x))` in one pass.
    ///
    /// # Errors
    ///
    /// [`Error::Broadcast`] if the shape has more elements than a `usize` counts.
    ///
    /// ```
    /// use sorix::SaveMask;
    /// use sorix::adapter::SliceDropout;
    /// use sorix::kernels::{Activation, DropRate, MaskKey};
    /// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(42, 0));
    /// let draw = SliceDropout::activated(Activation::Relu, rate, key, &[100])?;
    /// let x: Vec<f32> = (0..100).map(|i| i as f32 - 50.0).collect();
    /// let (y, saved) = draw.forward(&x, SaveMask::Bits)?;
    /// // The bits say which outputs are not zero, so that the gradient does not need x.
    /// let dx = draw.backward(saved.as_ref(), &[1.0_f32; 100])?;
    /// assert!(x.iter().zip(&y).zip(&dx).all(|((x, y), dx)| (*dx == 0.0 || *x > 0.0) && *y == x * dx));
    /// assert!(dx.contains(&2.0));
    /// # Ok::<(), sorix::kernels::Error>(())
    /// ```
    pub fn activated(
        activation: Activation,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        shape: &[usize],
    ) -> Result<Self, Error> {
        let mut draw = Self::broadcast(rate, at, shape, shape)?;
        draw.map = Map::Activation(activation);
        Ok(draw)
    }

    /// The activation that elements go through before they are dropped, if there is one.
    #[must_use]
    pub fn activation(&self) -> Option<Activation> {
        match self.map {
            Map::Activation(activation) => Some(activation),
            _ => None,
        }
    }

    /// What forward is to save: nothing unless a gradient is wanted; of the rectifier the bits, whatever `save`
    /// says, since from the key alone backward would need the input.
    ///
    /// ```
    /// use sorix::SaveMask::{Bits, Replay};
    /// use sorix::adapter::SliceDropout;
    /// use sorix::kernels::{Activation, DropRate, MaskKey};
    /// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(42, 0));
    /// let [relu, silu] = [Activation::Relu, Activation::Silu]
    ///     .map(|activation| SliceDropout::activated(activation, rate, key, &[4]));
    /// assert_eq!(silu?.saving(true, Replay), Replay);
    /// let relu = relu?;
    /// assert_eq!((relu.saving(true, Replay), relu.saving(false, Bits)), (Bits, Replay));
    /// # Ok::<(), sorix::kernels::Error>(())
    /// ```
    #[must_use]
    pub fn saving(&self, gradient_is_wanted: bool, save: SaveMask) -> SaveMask {
        match self.activation() {
            _ if !gradient_is_wanted => SaveMask::Replay,
            Some(Activation::Relu) => SaveMask::Bits,
            _ => save,
        }
    }

    /// Whether the gradient is a function of the input, too: of an activation, but for the rectifier only if its
    /// bits were not saved.
    #[must_use]
    pub fn needs_input(&self, saved: Option<&Saved>) -> bool {
        match self.activation() {
            None => false,
            Some(Activation::Relu) => !matches!(saved, Some(Saved::Bits(_))),
            Some(_) => true,
        }
    }

    /// [`backward`](Self::backward) with the input of forward, which counts if the gradient
    /// [needs it](Self::needs_input).
    ///
    /// # Errors
    ///
    /// Those of [`forward_buffers`](Self::forward_buffers).
    ///
    /// ```
    /// use sorix::SaveMask;
    /// use sorix::adapter::SliceDropout;
    /// use sorix::kernels::{Activation, DropRate, MaskKey};
    /// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(42, 0));
    /// let draw = SliceDropout::activated(Activation::Silu, rate, key, &[100])?;
    /// let (_, saved) = draw.forward(&[0.0_f32; 100], SaveMask::Bits)?;
    /// // The derivative of SiLU at 0 is 1 / 2.
    /// let dx = draw.backward_at(saved.as_ref(), &[0.0; 100], &[3.0_f32; 100])?;
    /// assert!(dx.iter().all(|&dx| dx == 0.0 || dx == 3.0) && dx.contains(&3.0));
    /// assert_eq!(draw.backward_at(None, &[0.0; 100], &[3.0_f32; 100])?, dx);
    /// assert!(draw.backward(saved.as_ref(), &[3.0_f32; 100]).is_err());
    /// # Ok::<(), sorix::kernels::Error>(())
    /// ```
    pub fn backward_at<T: Scalar>(
        &self,
        saved: Option<&Saved>,
        x: &[T],
        dy: &[T],
    ) -> Result<Vec<T>, Error> {
        self.check_len(x.len())?;
        let mut dx = zeros(x.len())?;
        self.backward_at_buffers(saved, Buffers::new(x, &mut dx)?.with_elements(dy)?)?;
        Ok(dx)
    }

    /// [`backward_at`](Self::backward_at) into memory of the caller's, or over the input of forward. That is the
    /// input of `buffers`, and the gradient is beside it, [as many elements](Buffers::with_elements).
    ///
    /// # Errors
    ///
    /// Those of [`forward_buffers`](Self::forward_buffers), and [`Error::Length`] if nothing is beside the input.
    ///
    /// ```
    /// use sorix::adapter::SliceDropout;
    /// use sorix::kernels::{Activation, Buffers, DropRate, MaskKey};
    /// let (rate, key) = (DropRate::new(0.0)?, MaskKey::new(42, 0));
    /// for (activation, expected) in [(Activation::Relu, [0.0, 7.0]), (Activation::Gelu, [2.5, 7.0])] {
    ///     let mut x = [0.0, 40.0];
    ///     let draw = SliceDropout::activated(activation, rate, key, &[2])?;
    ///     draw.backward_at_buffers(None, Buffers::in_place(&mut x).with_elements(&[5.0, 7.0])?)?;
    ///     assert_eq!(x, expected);
    /// }
    /// # Ok::<(), sorix::kernels::Error>(())
    /// ```
    pub fn backward_at_buffers<T: Scalar>(
        &self,
        saved: Option<&Saved>,
        mut buffers: Buffers<'_, T>,
    ) -> Result<(), Error> {
        self.check_len(buffers.len())?;
        let Some(dy) = buffers.beside().elements() else {
            return Err(LengthError::new("second input", self.len, 0).into());
        };
        let engine = Engine::active()?;
        let made;
        let saved = match (self.map, saved) {
            (Map::Activation(activation), saved) if activation != Activation::Relu => {
                let derivative = activation.derivative();
                return match saved {
                    Some(Saved::Bits(mask)) => {
                        engine.map_apply(derivative, self.rate, mask, buffers)
                    }
                    _ => engine.map_dropout(derivative, self.rate, self.at, buffers, None),
                };
            }
            (Map::Activation(activation), saved) if self.needs_input(saved) => {
                let mut mask = BitMask::try_new(self.len)?;
                // The values that forward had are of no use: they are overwritten below.
                let (x, values) = buffers.reborrow().into_slices();
                let again = match x {
                    Some(x) => Buffers::new(x, values)?,
                    None => Buffers::in_place(values),
                };
                engine.act_dropout(activation, self.rate, self.at, again, Some(&mut mask))?;
                made = Saved::Bits(mask);
                Some(&made)
            }
            (_, saved) => saved,
        };
        let dx = buffers.output();
        dx.copy_from_slice(dy);
        self.backward_in_place(saved, dx)
    }
}
