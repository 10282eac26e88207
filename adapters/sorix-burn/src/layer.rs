//! The layers: burn's interface over the forms of the family.

use core::fmt::Debug;

use burn::module::{Content, DisplaySettings, Flag, Module, ModuleDisplay, Param};
use burn::tensor::Tensor;
use sorix::adapter::{Draws, SliceForm};
use sorix::kernels::{DropRate, MaskRegion};
use sorix::nn::dropout::{
    Alpha, Channels, Elements, FeatureAlpha, Gaussian, Locked, NoiseShape, Paths,
};

use crate::error::Result;
use crate::op;

/// How a dropout is made, as burn's `DropoutConfig`: `DropoutConfig::new(0.5).init()`.
///
/// ```
/// use sorix_burn::DropoutConfig;
///
/// assert_eq!(DropoutConfig::new(0.5).init().prob, 0.5);
/// let error = DropoutConfig::new(1.5).try_init().unwrap_err();
/// assert_eq!(error.to_string(), "drop probability must be a number in [0, 1], got p = 1.5");
/// ```
#[derive(burn::config::Config, Debug)]
pub struct DropoutConfig {
    /// The probability of dropping an element in training, in [0, 1].
    pub prob: f64,
}

impl DropoutConfig {
    /// The layer.
    ///
    /// # Panics
    ///
    /// If the probability is none, as burn's; [`try_init`](Self::try_init) returns an error.
    #[must_use]
    pub fn init(&self) -> Dropout {
        self.try_init().unwrap_or_else(|error| panic!("{error}"))
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// [`Error::Layer`](crate::Error::Layer) if the probability is no number in [0, 1].
    pub fn try_init(&self) -> Result<Dropout> {
        Dropout::new(self.prob)
    }
}

/// A dropout as a module of burn, for any form of the family.
///
/// It drops as burn's does: on a device with autodiff, while its flag `training` is enabled. So
/// [`valid`](Module::valid) turns it off and [`train`](Module::train) on, and `freeze` reaches it.
/// Elsewhere the input itself comes back. [`forward_if`](Self::forward_if) drops where the caller says so,
/// on any device.
///
/// Each call that drops takes one key of the generator, whatever p and the shape. A clone shares the
/// generator, so the two draw different masks. Records hold nothing of it, as of burn's own: what was
/// saved with `burn::nn::Dropout` loads, and the reverse.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct DropoutLayer<F: Form> {
    /// The probability of dropping.
    pub prob: f64,
    /// Whether to behave as during training.
    pub training: Param<Flag>,
    #[module(skip)]
    draws: Draws<F>,
}

sorix::layer_options!(DropoutLayer, Form);

/// What a layer drops: a [`SliceForm`] that a module can hold.
pub trait Form: SliceForm + Clone + 'static {}

impl<F: SliceForm + Clone + 'static> Form for F {}

/// Drops single elements: in the place of `burn::nn::Dropout`.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use sorix_burn::{Dropout, Generator};
///
/// let dropout = Dropout::new(0.5)?.generator(Generator::new(42));
/// let device = Device::flex().autodiff();
/// let x = Tensor::<1>::from_data([10.0, 20.0, 30.0, 40.0, 50.0], &device).require_grad();
/// let y = dropout.forward(x.clone()); // each entry is 0 or 2x
/// let gradient = x.grad(&y.backward()).unwrap(); // 0 or 2, by the same mask
/// assert_eq!((gradient * x.inner()).to_data(), y.inner().to_data());
/// # Ok::<(), sorix_burn::Error>(())
/// ```
pub type Dropout = DropoutLayer<Elements>;

/// Drops whole channels of `(N, C, L)` or `(C, L)`.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use sorix_burn::Dropout1d;
///
/// let x = Tensor::<3>::ones([8, 4, 5], &Device::flex());
/// let y = Dropout1d::new(0.5)?.forward_if(true, x)?.into_data().try_to_vec::<f32>().unwrap();
/// assert!(y.chunks(5).all(|channel| channel == [0.0; 5] || channel == [2.0; 5]));
/// let error = Dropout1d::new(0.5)?.forward_if(true, Tensor::<1>::ones([5], &Device::flex()));
/// assert!(error.unwrap_err().to_string().contains("Dropout1d"));
/// # Ok::<(), sorix_burn::Error>(())
/// ```
pub type Dropout1d = DropoutLayer<Channels<1>>;

/// Drops whole channels of `(N, C, H, W)` or `(C, H, W)`, see [`Dropout1d`].
pub type Dropout2d = DropoutLayer<Channels<2>>;

/// Drops whole channels of `(N, C, D, H, W)` or `(C, D, H, W)`, see [`Dropout1d`].
pub type Dropout3d = DropoutLayer<Channels<3>>;

/// Drops the same features at every step of a sequence `(N, T, C)` or `(T, C)`; see
/// [`time_axis`](DropoutLayer::time_axis).
pub type LockedDropout = DropoutLayer<Locked>;

/// Stochastic depth: drops whole samples, the first axis of `(N, …)`; see
/// [`per_batch`](DropoutLayer::per_batch), [`scale_by_keep`](DropoutLayer::scale_by_keep).
pub type DropPath = DropoutLayer<Paths>;

/// Dropout for self-normalising networks: an input of mean 0 and variance 1 keeps both.
pub type AlphaDropout = DropoutLayer<Alpha>;

/// [`AlphaDropout`] of whole channels of `(N, C, …)`.
pub type FeatureAlphaDropout = DropoutLayer<FeatureAlpha>;

/// Multiplies each element by a number from the normal distribution of mean 1 and variance
/// `p / (1 - p)`. Nothing is dropped, so a NaN stays one; at p = 1 everything becomes `+0.0`.
///
/// The noise is drawn by the CPU. It is kept until backward, an element for each of the input's, or with
/// [`SaveMask::Replay`](crate::SaveMask::Replay) drawn again from its key.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use sorix_burn::{GaussianDropout, Generator};
///
/// let dropout = GaussianDropout::new(0.2)?.generator(Generator::new(42));
/// let y = dropout.forward_if(true, Tensor::<1>::ones([10_000], &Device::flex()))?;
/// let deviations = (y - 1.0).into_data().try_to_vec::<f32>().unwrap();
/// let variance = deviations.iter().map(|d| d * d).sum::<f32>() / 10_000.0;
/// assert!((variance - 0.25).abs() < 0.02);
/// # Ok::<(), sorix_burn::Error>(())
/// ```
pub type GaussianDropout = DropoutLayer<Gaussian>;

/// Decisions shared along any axes: made by [`DropoutLayer::with_form`].
pub type BroadcastDropout = DropoutLayer<NoiseShape>;

impl<F: Form + Default> DropoutLayer<F> {
    /// Drops with probability `p`.
    ///
    /// # Errors
    ///
    /// [`Error::Layer`](crate::Error::Layer) if `p` is no number in [0, 1].
    pub fn new(p: f64) -> Result<Self> {
        Self::with_form(F::default(), p)
    }
}

impl<F: Form> DropoutLayer<F> {
    /// Drops with probability `p` by a form that has options.
    ///
    /// # Errors
    ///
    /// [`Error::Layer`](crate::Error::Layer) if `p` is no number in [0, 1].
    pub fn with_form(form: F, p: f64) -> Result<Self> {
        Ok(Self {
            prob: DropRate::new(p)?.p(),
            training: Param::from_bool(true),
            draws: Draws::new(form),
        })
    }

    /// Drops in training as burn means it, else gives back the input itself.
    ///
    /// # Panics
    ///
    /// Where [`try_forward`](Self::try_forward) returns an error, with its message.
    #[must_use]
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        self.try_forward(input)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Drops in training as burn means it, else gives back the input itself.
    ///
    /// # Errors
    ///
    /// A shape that the form does not fit, a `prob` outside [0, 1], failed allocation, and a
    /// `SORIX_BACKEND` that cannot run here. No key is taken then.
    pub fn try_forward<const D: usize>(&self, input: Tensor<D>) -> Result<Tensor<D>> {
        let train = self.training.is_enabled() && input.device().is_autodiff();
        self.forward_if(train, input)
    }

    /// Drops where `train` says so, on any device and whatever the flag; else gives back the input.
    ///
    /// # Errors
    ///
    /// Those of [`try_forward`](Self::try_forward).
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use sorix_burn::Dropout;
    ///
    /// // Monte Carlo dropout, on a device without autodiff.
    /// let x = Tensor::<1>::ones([100], &Device::flex());
    /// let y = Dropout::new(0.5)?.forward_if(true, x)?.into_data().try_to_vec::<f32>().unwrap();
    /// assert!(y.contains(&0.0) && y.contains(&2.0));
    /// # Ok::<(), sorix_burn::Error>(())
    /// ```
    pub fn forward_if<const D: usize>(&self, train: bool, input: Tensor<D>) -> Result<Tensor<D>> {
        if !train {
            return Ok(input);
        }
        let draw = self.draws.next(self.prob, &input.dims())?;
        op::dropout(input, draw, self.draws.save_mask)
    }

    /// Drops by a key that the caller names, or by a part of its mask, on any device.
    ///
    /// # Errors
    ///
    /// Those of [`try_forward`](Self::try_forward).
    pub fn forward_with_key<const D: usize>(
        &self,
        input: Tensor<D>,
        at: impl Into<MaskRegion>,
    ) -> Result<Tensor<D>> {
        let draw = self.draws.at(self.prob, &input.dims(), at)?;
        op::dropout(input, draw, self.draws.save_mask)
    }

    /// `residual + forward(input)` in one pass, for a residual of the shape, dtype and device of the input;
    /// where nothing is dropped, the sum of the two.
    ///
    /// On `flex` inverted dropout rounds product and sum to the dtype together, where two operations round 16
    /// bits twice, and writes over a residual that nobody else holds. The gradient of the residual is that of
    /// the result itself.
    ///
    /// # Panics
    ///
    /// Where [`try_forward_add`](Self::try_forward_add) returns an error, with its message.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use sorix_burn::{Dropout, Generator};
    ///
    /// let device = Device::flex().autodiff();
    /// let (x, residual) = (Tensor::<1>::ones([100], &device), Tensor::<1>::full([100], 10.0, &device));
    /// let dropout = Dropout::new(0.5)?.generator(Generator::new(42));
    /// let y = dropout.forward_add(x, residual).into_data().try_to_vec::<f32>().unwrap();
    /// assert!(y.iter().all(|&y| y == 10.0 || y == 12.0));
    /// # Ok::<(), sorix_burn::Error>(())
    /// ```
    #[must_use]
    pub fn forward_add<const D: usize>(&self, input: Tensor<D>, residual: Tensor<D>) -> Tensor<D> {
        self.try_forward_add(input, residual)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// [`forward_add`](Self::forward_add) without a panic.
    ///
    /// # Errors
    ///
    /// Those of [`try_forward`](Self::try_forward), and [`Error::Residual`](crate::Error::Residual) for a
    /// residual that does not fit. No key is taken then.
    pub fn try_forward_add<const D: usize>(
        &self,
        input: Tensor<D>,
        residual: Tensor<D>,
    ) -> Result<Tensor<D>> {
        let train = self.training.is_enabled() && input.device().is_autodiff();
        self.forward_add_if(train, input, residual)
    }

    /// [`forward_add`](Self::forward_add) that drops where `train` says so, on any device and whatever the
    /// flag.
    ///
    /// # Errors
    ///
    /// Those of [`try_forward_add`](Self::try_forward_add).
    pub fn forward_add_if<const D: usize>(
        &self,
        train: bool,
        input: Tensor<D>,
        residual: Tensor<D>,
    ) -> Result<Tensor<D>> {
        op::check_residual(&input, &residual)?;
        if !train {
            return Ok(residual + input);
        }
        let draw = self.draws.next(self.prob, &input.dims())?;
        op::dropout_add(input, residual, draw, self.draws.save_mask)
    }

    /// [`forward_add`](Self::forward_add) by a key that the caller names, or by a part of its mask, on any
    /// device.
    ///
    /// # Errors
    ///
    /// Those of [`try_forward_add`](Self::try_forward_add).
    pub fn forward_add_with_key<const D: usize>(
        &self,
        input: Tensor<D>,
        residual: Tensor<D>,
        at: impl Into<MaskRegion>,
    ) -> Result<Tensor<D>> {
        let draw = self.draws.at(self.prob, &input.dims(), at)?;
        op::dropout_add(input, residual, draw, self.draws.save_mask)
    }
}

/// As burn shows its own dropout.
impl<F: Form> ModuleDisplay for DropoutLayer<F> {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let content = content.add_debug_attribute("form", &self.draws.form);
        let content = content.add("prob", &self.prob);
        if self.training.is_enabled() {
            content.optional()
        } else {
            content.add("training", &self.training).optional()
        }
    }
}
