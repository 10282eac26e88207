//! What the layers of adapters have in common.

use std::sync::Arc;

use crate::adapter::{Map, SliceDropout, SliceForm};
use crate::kernels::{DropRate, MaskKey, MaskRegion};
use crate::{Generator, Result, SaveMask, default_generator};

/// What a layer of an adapter holds beside p and its mode: which form drops, where its keys come from, and
/// how its masks are kept.
///
/// p and the mode are in the adapter's own type, since frameworks differ in when they check the one and who
/// decides on the other. A clone shares the generator, so the two draw different masks.
///
/// ```
/// use sorix::adapter::Draws;
/// use sorix::nn::dropout::Elements;
/// use sorix::{Generator, SaveMask};
///
/// let mut draws = Draws::new(Elements);
/// draws.generator = Some(Generator::new(42).into());
/// let (x, save) = ([1.0_f32; 100], draws.save_mask);
/// let first = draws.next(0.5, &[100])?.forward(&x, save)?.0;
/// let second = draws.next(0.5, &[100])?.forward(&x, save)?.0;
/// assert_ne!(first, second);
/// let again = draws.at(0.5, &[100], sorix::MaskKey::new(42, 0))?.forward(&x, save)?.0;
/// assert_eq!(again, first);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Draws<F> {
    /// What is dropped.
    pub form: F,
    /// How a mask is kept until backward: as bits unless set.
    pub save_mask: SaveMask,
    /// Whose keys are taken: those of the process's generator unless set.
    pub generator: Option<Arc<Generator>>,
}

impl<F> Draws<F> {
    /// Draws of this form by keys of the process's generator, with masks kept as bits.
    #[must_use]
    pub fn new(form: F) -> Self {
        Self {
            form,
            save_mask: SaveMask::default(),
            generator: None,
        }
    }
}

impl<F: SliceForm> Draws<F> {
    /// A draw for a tensor of this shape by the next key.
    ///
    /// # Errors
    ///
    /// If p is no number in [0, 1], if the form does not fit the shape, or if the operating system gives no
    /// seed. No key is taken then.
    pub fn next(&self, p: f64, shape: &[usize]) -> Result<SliceDropout> {
        // What is wrong is found before a key is taken.
        let draw = self.at(p, shape, MaskKey::default())?;
        let key = match &self.generator {
            Some(generator) => generator.next_key(),
            None => default_generator()?.next_key(),
        };
        Ok(draw.with_key(key))
    }

    /// A draw for a tensor of this shape by this key, or by this part of its mask.
    ///
    /// # Errors
    ///
    /// If p is no number in [0, 1], or if the form does not fit the shape.
    pub fn at(&self, p: f64, shape: &[usize], at: impl Into<MaskRegion>) -> Result<SliceDropout> {
        SliceDropout::new(&self.form, DropRate::new(p)?, at, shape)
    }

    /// What a call makes of a tensor of this shape that drops nothing, as in eval: `None` if that is the tensor
    /// itself, as of all forms but those of an activation.
    ///
    /// # Errors
    ///
    /// If the form does not fit the shape.
    ///
    /// ```
    /// use sorix::SaveMask;
    /// use sorix::adapter::Draws;
    /// use sorix::nn::dropout::{Elements, Rectified};
    /// assert!(Draws::new(Elements).pass(&[2])?.is_none());
    /// let relu = Draws::new(Rectified).pass(&[2])?.expect("it is the rectifier");
    /// assert_eq!(relu.forward(&[-1.0_f32, 2.0], SaveMask::Replay)?.0, [0.0, 2.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pass(&self, shape: &[usize]) -> Result<Option<SliceDropout>> {
        match self.form.map(DropRate::new(0.0)?) {
            Map::Activation(_) => self.at(0.0, shape, MaskKey::default()).map(Some),
            _ => Ok(None),
        }
    }
}

/// The builder methods of an adapter's layer: those that the layers of [`sorix::nn`](crate::nn) have.
///
/// The layer is a struct of one type parameter, the form, with a field `draws` of [`Draws`]. The second
/// argument is what the struct asks of a form.
///
/// ```
/// use sorix::adapter::{Draws, SliceForm};
/// use sorix::nn::dropout::{Channels, Elements};
///
/// struct Layer<F> {
///     p: f64,
///     draws: Draws<F>,
/// }
/// sorix::layer_options!(Layer, SliceForm);
///
/// let layer = Layer { p: 0.5, draws: Draws::new(Channels::<2>::default()) };
/// let layer = layer.channels_last().generator(sorix::Generator::new(42));
/// let draw = layer.draws.next(layer.p, &[2, 5, 7, 3])?;
/// assert_eq!(draw.mask_shape(), [2, 1, 1, 3]);
/// # Ok::<(), sorix::Error>(())
/// ```
#[macro_export]
macro_rules! layer_options {
    ($Layer:ident, $Bound:path) => {
        impl<F: $Bound> $Layer<F> {
            /// Takes keys from this generator, not from the one of the process.
            #[must_use]
            pub fn generator(
                mut self,
                generator: impl Into<::std::sync::Arc<$crate::Generator>>,
            ) -> Self {
                self.draws.generator = Some(generator.into());
                self
            }

            /// Keeps the mask until backward as bits, which is the default, or as its key alone.
            #[must_use]
            pub fn save_mask(mut self, save_mask: $crate::SaveMask) -> Self {
                self.draws.save_mask = save_mask;
                self
            }
        }

        impl<const SPATIAL: usize> $Layer<$crate::nn::dropout::Channels<SPATIAL>> {
            /// Takes the last axis for that of the channels, as in `(N, H, W, C)`.
            #[must_use]
            pub fn channels_last(mut self) -> Self {
                self.draws.form = $crate::nn::dropout::Channels::last();
                self
            }
        }

        impl $Layer<$crate::nn::dropout::GeluElements> {
            /// Takes the approximation of the GELU by tanh; the exact form unless set.
            #[must_use]
            pub fn with_tanh(mut self) -> Self {
                self.draws.form = $crate::nn::dropout::GeluElements::with_tanh();
                self
            }
        }

        impl $Layer<$crate::nn::dropout::Locked> {
            /// Takes this axis for time; a negative one counts from the last. It is -2 unless set.
            #[must_use]
            pub fn time_axis(mut self, time_axis: isize) -> Self {
                self.draws.form = $crate::nn::dropout::Locked::over(time_axis);
                self
            }
        }

        impl $Layer<$crate::nn::dropout::Paths> {
            /// Drops all samples of a call, or none.
            #[must_use]
            pub fn per_batch(mut self) -> Self {
                let scales = self.draws.form.scales_by_keep();
                self.draws.form = $crate::nn::dropout::Paths::per_batch().scale_by_keep(scales);
                self
            }

            /// Whether what is kept is multiplied by `1 / (1 - p)`; true unless set.
            #[must_use]
            pub fn scale_by_keep(mut self, scale_by_keep: bool) -> Self {
                self.draws.form = self.draws.form.scale_by_keep(scale_by_keep);
                self
            }
        }
    };
}
