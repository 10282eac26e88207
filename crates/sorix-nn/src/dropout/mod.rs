//! The dropout family: one [layer](DropoutLayer), and [forms](Form) that say what it drops.
//!
//! All layers of the family are one type with another form, so what they share exists once: p, the
//! mode, the generator, how the mask is kept until backward.
//!
//! | layer | drops |
//! |---|---|
//! | [`Dropout`] | elements |
//! | [`Dropout1d`], [`Dropout2d`], [`Dropout3d`] | channels |
//! | [`LockedDropout`] | features of a sequence, at every step |
//! | [`BroadcastDropout`] | elements, sharing decisions along any axes |
//! | [`DropPath`] | samples, or the batch: stochastic depth |
//! | [`DropBlock2d`] | squares of an image |
//! | [`AlphaDropout`], [`FeatureAlphaDropout`] | elements or channels, keeping mean and variance |
//! | [`GaussianDropout`] | nothing: noise on each element |
//! | [`WeightDropout`] | weights of a [`Linear`](crate::Linear) |
//! | [`EmbeddingDropout`] | rows of an [`Embedding`](crate::Embedding) |
//! | [`ReLUDropout`], [`GELUDropout`], [`SiLUDropout`], [`SwiGLUDropout`] | elements of an activation's output, in one pass with it |
//!
//! A residual is added to what is left by [`forward_add`](DropoutLayer::forward_add), for elements and
//! paths in one pass, or around a block by [`Residual`].
//!
//! Your own form makes your own layer:
//!
//! ```
//! use sorix_core::{Tensor, tensor};
//! use sorix_nn::dropout::{Draw, DropoutLayer, Form};
//! use sorix_nn::{Generator, Module, Result};
//!
//! /// Turns the sign of what dropout would drop, and scales nothing.
//! #[derive(Debug, Default)]
//! struct SignFlip;
//!
//! impl Form for SignFlip {
//!     fn mask_shape(&self, shape: &[usize]) -> Result<Vec<usize>> {
//!         Ok(shape.to_vec())
//!     }
//!
//!     fn apply(&self, x: &Tensor, draw: &Draw) -> Result<Tensor> {
//!         let kept = x.dropout(draw.rate, draw.at, draw.save)?.mul_scalar(1.0 - draw.rate.p())?;
//!         Ok(kept.mul_scalar(2.0)?.sub(x)?)
//!     }
//! }
//!
//! let flip = DropoutLayer::<SignFlip>::new(0.5)?.generator(Generator::new(42));
//! let y = flip.forward(&tensor([3.0; 100]))?.to_vec::<f64>()?;
//! assert!(y.contains(&3.0) && y.contains(&-3.0));
//! # Ok::<(), sorix_nn::Error>(())
//! ```

mod activated;
mod alpha;
mod channels;
mod drop_block;
mod drop_path;
mod elements;
mod embedding;
mod gaussian;
mod input;
mod locked;
mod noise_shape;
mod replay;
mod residual;
mod rows;
mod shard;
mod weight;

use core::fmt::Debug;
use std::sync::Arc;

use sorix_core::{DropRate, MaskKey, MaskRegion, SaveMask, Tensor};

pub(crate) use activated::activate;
pub use activated::{
    GELUDropout, GeluElements, ReLUDropout, Rectified, SiLUDropout, SiluElements, SwiGLUDropout,
    SwigluElements,
};
pub use alpha::{Alpha, AlphaDropout, FeatureAlpha, FeatureAlphaDropout};
pub use channels::{Channels, Dropout1d, Dropout2d, Dropout3d};
pub use drop_block::{Blocks, DropBlock2d};
pub use drop_path::{DropPath, Paths};
pub use elements::{Dropout, Elements};
pub use embedding::{EmbeddingDropout, Rows};
pub use gaussian::{Gaussian, GaussianDropout};
pub use locked::{Locked, LockedDropout};
pub use noise_shape::{BroadcastDropout, NoiseShape};
pub use residual::Residual;
pub use shard::Shard;
pub use weight::WeightDropout;

pub(crate) use self::input::Input;
use self::rows::draw_rows;
pub(crate) use self::shard::check_whole;
use self::shard::shard_of;

use crate::error::{Error, Result};
use crate::generator::{Generator, default_generator};
use crate::mode::Mode;
use crate::module::Module;
use crate::monte_carlo::{KeySource, key_source};
use crate::visit::Visit;

/// What a dropout drops: single elements, whole channels, paths, blocks.
///
/// For an example see the [module](self).
pub trait Form: Debug + Send + Sync + 'static {
    /// The shape of the random mask for an input of this shape. It has one element for each decision,
    /// and a stored mask has one bit for each.
    ///
    /// # Errors
    ///
    /// If the form does not fit the shape. No key is taken then.
    fn mask_shape(&self, shape: &[usize]) -> Result<Vec<usize>>;

    /// The name of the layer, for errors: that of the type unless a form says otherwise.
    fn layer(&self) -> &'static str {
        let path = core::any::type_name::<Self>();
        let path = path.split('<').next().unwrap_or(path);
        path.rsplit("::").next().unwrap_or(path)
    }

    /// Whether a part of an input can be treated by itself, given its part of the mask, as
    /// [`forward_sharded`](Module::forward_sharded) does. It can unless a form says otherwise.
    fn is_local(&self) -> bool {
        true
    }

    /// Whether the first axis of an input of this shape may be that of a batch, whose rows are dropped
    /// from one by one where [each has its own key](DropoutLayer::forward_with_keys). It may unless a
    /// form says otherwise.
    fn keeps_rows_apart(&self, shape: &[usize]) -> bool {
        let _ = shape;
        true
    }

    /// Drops from `x` by the mask of one call.
    ///
    /// # Errors
    ///
    /// Those of the operations it consists of.
    fn apply(&self, x: &Tensor, draw: &Draw) -> Result<Tensor>;

    /// What a call makes of `x` that drops nothing, as in eval: `x` itself unless a form says otherwise.
    ///
    /// # Errors
    ///
    /// Those of the operations it consists of.
    fn pass(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.clone())
    }

    /// Drops from `x` plus a bias, if there is one, by the mask of one call, and adds what is left to a
    /// residual: as three operations, unless a form has one for all.
    ///
    /// # Errors
    ///
    /// Those of the operations it consists of.
    fn apply_add(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        residual: &Tensor,
        draw: &Draw,
    ) -> Result<Tensor> {
        let x = bias.map_or_else(|| Ok(x.clone()), |bias| x.add(bias))?;
        Ok(residual.add(&self.apply(&x, draw)?)?)
    }
}

/// What a [`Form`] is given for one call.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Draw {
    /// The probability of dropping.
    pub rate: DropRate,
    /// The mask, or the part of it that belongs to the input.
    pub at: MaskRegion,
    /// The [shape of the mask](Form::mask_shape) for the input.
    pub mask_shape: Vec<usize>,
    /// How to remember the mask until backward.
    pub save: SaveMask,
}

/// Dropout as a module: in training, and within [`monte_carlo`](crate::monte_carlo), the form drops
/// with probability p; in eval the input itself comes back, or what the form [makes of
/// it](Form::pass) without dropping.
///
/// Each call that drops takes one key, whatever p and the shape, from the
/// [generator](DropoutLayer::generator) that the layer was given or, without one, from that
/// [of the process](default_generator). A call in eval takes none. A clone shares the generator, so
/// the two draw different masks.
///
/// The layers of the family are aliases of this type, for instance [`Dropout`].
#[derive(Debug)]
pub struct DropoutLayer<F> {
    // Shared by clones, so that a layer of any form has them.
    form: Arc<F>,
    rate: DropRate,
    mode: Mode,
    save_mask: SaveMask,
    generator: Option<Arc<Generator>>,
}

impl<F> Clone for DropoutLayer<F> {
    fn clone(&self) -> Self {
        Self {
            form: Arc::clone(&self.form),
            rate: self.rate,
            mode: self.mode,
            save_mask: self.save_mask,
            generator: self.generator.clone(),
        }
    }
}

impl<F: Form + Default> DropoutLayer<F> {
    /// Drops with probability `p`; in training, with the generator of the process, and with its
    /// masks kept as bits.
    ///
    /// # Errors
    ///
    /// If p is NaN or outside [0, 1].
    ///
    /// ```
    /// use sorix_nn::Dropout;
    /// assert_eq!(Dropout::new(0.3)?.rate().p(), 0.3);
    /// assert!(Dropout::new(-0.1).is_err());
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn new(p: f64) -> Result<Self> {
        Self::with_form(F::default(), p)
    }
}

impl<F: Form> DropoutLayer<F> {
    /// Drops by this form with probability `p`; otherwise as [`new`](DropoutLayer::new).
    ///
    /// # Errors
    ///
    /// If p is NaN or outside [0, 1].
    ///
    /// ```
    /// use sorix_nn::dropout::{DropoutLayer, Elements};
    /// assert_eq!(DropoutLayer::with_form(Elements, 0.3)?.rate().p(), 0.3);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn with_form(form: F, p: f64) -> Result<Self> {
        Ok(Self {
            form: Arc::new(form),
            rate: DropRate::new(p)?,
            mode: Mode::default(),
            save_mask: SaveMask::default(),
            generator: None,
        })
    }

    /// Takes its keys from this generator: one of its own, or an `Arc` of one that it shares.
    ///
    /// Layers that are each given a `Generator::new(42)` draw one and the same mask, and drop the same
    /// elements. Give each a [`fork`](Generator::fork) of one generator, or let them share one. For a
    /// whole model [`fork_generators`](Module::fork_generators) does the former, and a
    /// [`Sequential`](crate::Sequential) forks generators of one seed by itself.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use sorix_core::{DType, Tensor, tensor};
    /// use sorix_nn::{Dropout, Generator, Module};
    ///
    /// // Of its own: what a layer draws does not depend on the others.
    /// let generator = Generator::new(42);
    /// let first = Dropout::new(0.5)?.generator(generator.fork("first"));
    /// let second = Dropout::new(0.5)?.generator(generator.fork("second"));
    /// let x = Tensor::ones([100], DType::F64)?;
    /// assert_ne!(first.forward(&x)?.to_vec::<f64>()?, second.forward(&x)?.to_vec::<f64>()?);
    ///
    /// // Shared: a layer draws what is next.
    /// let shared = Arc::new(generator);
    /// let first = Dropout::new(0.5)?.generator(Arc::clone(&shared));
    /// let second = Dropout::new(0.5)?.generator(Arc::clone(&shared));
    /// second.forward(&first.forward(&tensor([1.0]))?)?;
    /// assert_eq!(shared.state().offset, 2);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn generator(mut self, generator: impl Into<Arc<Generator>>) -> Self {
        self.generator = Some(generator.into());
        self
    }

    /// Keeps its masks in this form until backward.
    ///
    /// ```
    /// use sorix_core::{SaveMask, tensor};
    /// use sorix_nn::{Dropout, Generator, Module, Result};
    ///
    /// let gradient = |save_mask| -> Result<Vec<f64>> {
    ///     let dropout = Dropout::new(0.5)?.generator(Generator::new(42)).save_mask(save_mask);
    ///     let x = tensor([1.0; 100]).requires_grad(true);
    ///     dropout.forward(&x)?.sum()?.backward()?;
    ///     Ok(x.grad().expect("there was a backward").to_vec()?)
    /// };
    /// assert_eq!(gradient(SaveMask::Replay)?, gradient(SaveMask::Bits)?);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn save_mask(mut self, save_mask: SaveMask) -> Self {
        self.save_mask = save_mask;
        self
    }

    /// What it drops.
    ///
    /// ```
    /// use sorix_nn::{DropBlock2d, dropout::Blocks};
    /// assert_eq!(*DropBlock2d::with_block_size(0.1, 7)?.form(), Blocks::new(7)?);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn form(&self) -> &F {
        &self.form
    }

    /// The probability of dropping.
    #[must_use]
    pub fn rate(&self) -> DropRate {
        self.rate
    }

    /// Drops with probability `p` from now on. A backward of an earlier call keeps the old one.
    ///
    /// For a [`DropRate`], as a [`Schedule`](crate::Schedule) gives it, and for all layers of a model
    /// there is [`Module::set_drop_rate`].
    ///
    /// # Errors
    ///
    /// If p is NaN or outside [0, 1]; the probability stays as it was then.
    ///
    /// ```
    /// use sorix_nn::Dropout;
    /// let mut dropout = Dropout::new(0.3)?;
    /// dropout.set_p(0.4)?;
    /// let error = dropout.set_p(1.5).unwrap_err();
    /// assert_eq!(error.to_string(), "drop probability must be a number in [0, 1], got p = 1.5");
    /// assert_eq!(dropout.rate().p(), 0.4);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn set_p(&mut self, p: f64) -> Result<()> {
        self.rate = DropRate::new(p)?;
        Ok(())
    }

    /// Drops in either mode, by the mask that `at` names; no generator is asked.
    ///
    /// For a service that draws several samples of a trained network (Monte Carlo dropout) and
    /// must give the same answer to the same request: the key comes with the request. For a whole
    /// model see [`monte_carlo`](crate::monte_carlo).
    ///
    /// # Errors
    ///
    /// If the form does not fit the shape of `x`, and those of the operations it consists of.
    ///
    /// ```
    /// use sorix_core::{MaskKey, tensor};
    /// use sorix_nn::{Dropout, Module};
    ///
    /// let mut dropout = Dropout::new(0.5)?;
    /// dropout.eval();
    /// let (x, request) = (tensor([1.0; 64]), MaskKey { seed: 1234, offset: 0 });
    /// let y = dropout.forward_with_key(&x, request)?.to_vec::<f64>()?;
    /// assert_eq!(dropout.forward_with_key(&x, request)?.to_vec::<f64>()?, y);
    /// assert!(y.contains(&0.0) && y.contains(&2.0));
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn forward_with_key(&self, x: &Tensor, at: impl Into<MaskRegion>) -> Result<Tensor> {
        let at = at.into();
        draw(&*self.form, x.into(), self.rate, self.save_mask, || Ok(at))
    }

    /// [`forward_with_key`](DropoutLayer::forward_with_key) of each row by itself: the first axis of `x`
    /// is cut into as many equal parts as there are keys, and each is dropped from as if it came alone.
    ///
    /// For a service that batches requests: what a request gets does not depend on who else is in its
    /// batch. For a whole model see [`monte_carlo_rows`](crate::monte_carlo_rows).
    ///
    /// # Errors
    ///
    /// If the first axis has not as many equal parts, and as
    /// [`forward_with_key`](DropoutLayer::forward_with_key).
    ///
    /// ```
    /// use sorix_core::{DType, MaskKey, Tensor};
    /// use sorix_nn::Dropout;
    ///
    /// let (dropout, x) = (Dropout::new(0.5)?, Tensor::ones([3, 100], DType::F32)?);
    /// let keys = [7, 8, 9].map(|seed| MaskKey { seed, offset: 0 });
    /// let batch = dropout.forward_with_keys(&x, &keys)?.slice(0, 2..3)?;
    /// let alone = dropout.forward_with_key(&x.slice(0, 2..3)?, keys[2])?;
    /// assert_eq!(batch.to_vec::<f32>()?, alone.to_vec::<f32>()?);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn forward_with_keys(&self, x: &Tensor, keys: &[MaskKey]) -> Result<Tensor> {
        let (form, rate, save) = (&*self.form, self.rate, self.save_mask);
        draw_rows(form, x.into(), rate, save, keys.len(), || keys.to_vec())
    }

    /// Adds what [`forward`](Module::forward) makes of `x` to a residual of its shape and dtype:
    /// `residual + dropout(x)`. Of a [`Dropout`] and a [`DropPath`] it is one pass over memory, of which
    /// paths that are dropped are not read. In eval it is the sum.
    ///
    /// In f16 and bf16 such a pass rounds once, where two operations round twice.
    ///
    /// # Errors
    ///
    /// If shapes or dtypes differ, before a key is taken, and as [`forward`](Module::forward).
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Dropout, Generator, Module};
    ///
    /// let mut dropout = Dropout::new(0.5)?.generator(Generator::new(42));
    /// let (x, residual) = (tensor([1.0; 64]), tensor([10.0; 64]));
    /// let y = dropout.forward_add(&x, &residual)?.to_vec::<f64>()?;
    /// assert!(y.contains(&10.0) && y.contains(&12.0));
    ///
    /// dropout.eval();
    /// assert_eq!(dropout.forward_add(&x, &residual)?.to_vec::<f64>()?, [11.0; 64]);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.forward_of(Input::added(self.form.layer(), x, None, residual)?)
    }

    /// [`forward_add`](DropoutLayer::forward_add) of `x` with a bias as long as its last axis:
    /// `residual + dropout(x + bias)`. Of a [`Dropout`] it is one pass over memory.
    ///
    /// For the output of a [`Linear`](crate::Linear) [without bias](crate::Linear::without_bias), whose
    /// bias is then added here.
    ///
    /// # Errors
    ///
    /// If shapes or dtypes do not fit, before a key is taken, and as [`forward`](Module::forward).
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Dropout, Generator, Module};
    ///
    /// let mut dropout = Dropout::new(0.5)?.generator(Generator::new(42));
    /// let (x, bias, residual) = (tensor([[1.0; 2]; 32]), tensor([1.0, 2.0]), tensor([[10.0; 2]; 32]));
    /// let y = dropout.forward_bias_add(&x, &bias, &residual)?.to_vec::<f64>()?;
    /// assert!(y.chunks(2).all(|y| [10.0, 14.0].contains(&y[0]) && [10.0, 16.0].contains(&y[1])));
    ///
    /// dropout.eval();
    /// let y = dropout.forward_bias_add(&x, &bias, &residual)?.to_vec::<f64>()?;
    /// assert!(y.chunks(2).all(|y| y == [12.0, 13.0]));
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn forward_bias_add(&self, x: &Tensor, bias: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.forward_of(Input::added(self.form.layer(), x, Some(bias), residual)?)
    }

    /// A call in whatever mode, scope and part of a tensor.
    fn forward_of(&self, input: Input<'_>) -> Result<Tensor> {
        let (form, rate, save) = (&*self.form, self.rate, self.save_mask);
        let Some(source) = key_source(self.mode) else {
            return input.pass(form);
        };
        match shard_of(form.layer(), input.x.shape())? {
            Some(shard) => self.draw_part(input, &shard, source),
            None => draw_by(form, input, rate, save, source, || self.own_generator()),
        }
    }

    /// [`forward`](Module::forward) of a tensor that has no rows of a batch, such as a weight.
    pub(crate) fn forward_whole(&self, x: &Tensor) -> Result<Tensor> {
        match key_source(self.mode) {
            Some(source) => draw(&*self.form, x.into(), self.rate, self.save_mask, || {
                source.take(|| self.own_generator())
            }),
            None => self.form.pass(x),
        }
    }

    /// What [`forward_sharded`](Module::forward_sharded) does, by the keys of a source.
    fn draw_part(&self, input: Input<'_>, shard: &Shard, source: KeySource) -> Result<Tensor> {
        if !self.form.is_local() {
            let layer = self.form.layer();
            return Err(Error::Part { layer });
        }
        let whole = self.form.mask_shape(shard.shape())?;
        shard.check_mask(&*self.form, &whole)?;
        let (at, mask_shape) = shard.part_of(source.take(|| self.own_generator())?, whole)?;
        let draw = Draw {
            rate: self.rate,
            at,
            mask_shape,
            save: self.save_mask,
        };
        input.apply(&*self.form, &draw)
    }

    /// What a call that drops from a tensor of this shape, and does something else in the same pass, drops
    /// by. A key is taken if that is known here.
    pub(crate) fn fused(&self, shape: &[usize]) -> Result<Fused> {
        let Some(source) = key_source(self.mode) else {
            return Ok(Fused::Nothing);
        };
        if source.rows().is_some() || shard_of(self.form.layer(), shape)?.is_some() {
            return Ok(Fused::Apart);
        }
        Ok(Fused::By {
            rate: self.rate,
            at: source.take(|| self.own_generator())?.into(),
            save: self.save_mask,
        })
    }

    fn own_generator(&self) -> Result<&Generator> {
        match &self.generator {
            Some(generator) => Ok(generator),
            None => default_generator(),
        }
    }
}

/// What is dropped by in the pass of something else.
#[allow(
    clippy::large_enum_variant,
    reason = "one for each call, taken apart at once"
)]
pub(crate) enum Fused {
    /// Nothing is dropped.
    Nothing,
    By {
        rate: DropRate,
        at: MaskRegion,
        save: SaveMask,
    },
    /// There is no one mask: the layer is to be called by itself, and has taken no key.
    Apart,
}

/// Drops from `x` by the keys of a source, or of a generator if that has none.
pub(crate) fn draw_by<'a>(
    form: &impl Form,
    input: Input<'_>,
    rate: DropRate,
    save: SaveMask,
    source: KeySource,
    generator: impl FnOnce() -> Result<&'a Generator>,
) -> Result<Tensor> {
    match source.rows() {
        Some(count) => draw_rows(form, input, rate, save, count, || source.take_rows()),
        None => draw(form, input, rate, save, || source.take(generator)),
    }
}

/// Drops from `x` by a mask that is named once the form is known to fit.
pub(crate) fn draw<W: Into<MaskRegion>>(
    form: &impl Form,
    input: Input<'_>,
    rate: DropRate,
    save: SaveMask,
    at: impl FnOnce() -> Result<W>,
) -> Result<Tensor> {
    let mask_shape = form.mask_shape(input.x.shape())?;
    let draw = Draw {
        rate,
        at: at()?.into(),
        mask_shape,
        save,
    };
    input.apply(form, &draw)
}

/// The shape of a mask that has a decision for each index of the axes for which `own` is true, and
/// shares one along each other axis.
fn shared_outside(shape: &[usize], own: impl Fn(usize) -> bool) -> Vec<usize> {
    let extent = |(axis, &len)| if own(axis) { len } else { 1 };
    shape.iter().enumerate().map(extent).collect()
}

/// The index of an axis, given as a number that counts from the last if it is negative.
fn index_of(layer: &'static str, axis: isize, what: &str, shape: &[usize]) -> Result<usize> {
    let from_last = axis.checked_add_unsigned(shape.len());
    let index = if axis < 0 { from_last } else { Some(axis) };
    index
        .and_then(|index| usize::try_from(index).ok())
        .filter(|&index| index < shape.len())
        .ok_or_else(|| Error::shape(layer, format!("a shape with axis {axis}{what}"), shape))
}

impl<F: Form> Visit for DropoutLayer<F> {
    fn visit_own_generators(&self, visit: &mut dyn FnMut(&str, &Arc<Generator>)) {
        if let Some(generator) = &self.generator {
            visit("generator", generator);
        }
    }

    fn boxed_clone(&self) -> Option<Box<dyn Module>> {
        Some(Box::new(self.clone()))
    }

    /// A layer that had none has one from then on.
    fn fork_own_generators(&mut self, generator: &Generator) {
        self.generator = Some(Arc::new(generator.fork("generator")));
    }
}

impl<F: Form> Module for DropoutLayer<F> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_of(x.into())
    }

    fn mode(&self) -> Option<Mode> {
        Some(self.mode)
    }

    fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    fn drop_rate(&self) -> Option<DropRate> {
        Some(self.rate)
    }

    fn set_drop_rate(&mut self, rate: DropRate) {
        self.rate = rate;
    }
}
