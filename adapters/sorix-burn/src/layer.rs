//! The layers: burn's interface over the forms of the family.

use core::fmt::Debug;

use burn::module::{Content, DisplaySettings, Flag, Module, ModuleDisplay, Param};
use burn::tensor::Tensor;
use sorix::SaveMask;
use sorix::adapter::{Draws, SliceDropout, SliceForm};
use sorix::kernels::{DropRate, MaskKey, MaskRegion};
use sorix::nn::dropout::{
    Alpha, Channels, Elements, FeatureAlpha, Gaussian, GeluElements, Locked, NoiseShape, Paths,
    Rectified, SiluElements,
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
/// Elsewhere the input itself comes back, or what the activation of a layer that has one makes of it.
/// [`forward_if`](Self::forward_if) drops where the caller says so,
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

/// ReLU and dropout in one pass: [`Dropout`] of `relu(x)`, by the same mask. Where nothing is dropped it is ReLU.
///
/// 16 bits are rounded once. One bit for each element is all that backward needs: neither input nor output is kept.
/// The bit is kept whatever [`save_mask`](DropoutLayer::save_mask) says.
///
/// ```
/// use burn::tensor::{Device, Tensor, activation::relu};
/// use sorix_burn::{Dropout, MaskKey, ReluDropout};
///
/// let (fused, apart, key) = (ReluDropout::new(0.5)?, Dropout::new(0.5)?, MaskKey::new(42, 7));
/// let x = Tensor::<2>::from_data([[-1.0, 2.0], [3.0, -4.0]], &Device::flex().autodiff()).require_grad();
/// let y = fused.forward_with_key(x.clone(), key)?;
/// assert_eq!(y.to_data(), apart.forward_with_key(relu(x.clone()), key)?.to_data());
/// let dx = x.grad(&y.clone().backward()).unwrap(); // 2 where y is not 0
/// assert_eq!((dx * relu(x.clone()).inner()).to_data(), y.to_data());
/// assert_eq!(fused.forward(x.clone().inner()).to_data(), relu(x).to_data());
/// # Ok::<(), sorix_burn::Error>(())
/// ```
pub type ReluDropout = DropoutLayer<Rectified>;

/// GELU and dropout in one pass, see [`ReluDropout`]: the exact form, which is burn's `gelu`, or
/// [`with_tanh`](DropoutLayer::with_tanh) the approximation, which is burn's `gelu_approximate`. For backward its
/// input is kept, and the mask.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use sorix_burn::GeluDropout;
///
/// let x = Tensor::<1>::ones([100], &Device::flex());
/// let y = GeluDropout::new(0.5)?.forward_if(true, x.clone())?.into_data().try_to_vec::<f32>().unwrap();
/// assert!(y.iter().all(|&y| y == 0.0 || (y - 2.0 * 0.841345).abs() < 1e-5));
/// let y = GeluDropout::new(0.5)?.with_tanh().forward(x).into_data().try_to_vec::<f32>().unwrap();
/// assert!(y.iter().all(|&y| (y - 0.841192).abs() < 1e-6));
/// # Ok::<(), sorix_burn::Error>(())
/// ```
pub type GeluDropout = DropoutLayer<GeluElements>;

/// SiLU, also called swish, and dropout in one pass, see [`GeluDropout`].
pub type SiluDropout = DropoutLayer<SiluElements>;

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
        self.forward_if(self.trains(&input), input)
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
        match self.draw(train, &input)? {
            Some(draw) => op::dropout(input, draw, self.draws.save_mask),
            None => Ok(input),
        }
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
    /// Those of [`try_forward`](Self::try_forward), and [`Error::Operand`](crate::Error::Operand) for a
    /// residual that does not fit. No key is taken then.
    pub fn try_forward_add<const D: usize>(
        &self,
        input: Tensor<D>,
        residual: Tensor<D>,
    ) -> Result<Tensor<D>> {
        self.forward_add_if(self.trains(&input), input, residual)
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
        let draw = |input: &Tensor<D>| self.draw(train, input);
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
        let draw = |input: &Tensor<D>| Ok(Some(self.draw_at(input, at)?));
        op::dropout_add(input, residual, draw, self.draws.save_mask)
    }

    /// `residual + forward(input + bias)` in one pass, for a bias as long as the last axis, and a residual of the
    /// shape of the input, both of its dtype and device; where nothing is dropped, the sum of the three.
    ///
    /// On `flex` inverted dropout rounds 16 bits once, at the end, and writes over a residual that nobody else
    /// holds; other forms take three operations. The gradient of the bias is the sum of that of the input over all
    /// axes but the last, taken in f64.
    ///
    /// # Panics
    ///
    /// Where [`try_forward_bias_add`](Self::try_forward_bias_add) returns an error, with its message.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use sorix_burn::Dropout;
    ///
    /// let device = Device::flex().autodiff();
    /// let (x, residual) = (Tensor::<2>::ones([50, 2], &device), Tensor::<2>::full([50, 2], 10.0, &device));
    /// let bias = Tensor::<1>::from_data([1.0, -0.5], &device);
    /// let y = Dropout::new(0.5)?.forward_bias_add(x, bias, residual).into_data().try_to_vec::<f32>().unwrap();
    /// assert!(y.chunks(2).all(|y| [10.0, 14.0].contains(&y[0]) && [10.0, 11.0].contains(&y[1])));
    /// # Ok::<(), sorix_burn::Error>(())
    /// ```
    #[must_use]
    pub fn forward_bias_add<const D: usize>(
        &self,
        input: Tensor<D>,
        bias: Tensor<1>,
        residual: Tensor<D>,
    ) -> Tensor<D> {
        self.try_forward_bias_add(input, bias, residual)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// [`forward_bias_add`](Self::forward_bias_add) without a panic.
    ///
    /// # Errors
    ///
    /// Those of [`try_forward`](Self::try_forward), and [`Error::Operand`](crate::Error::Operand) for a bias or
    /// residual that does not fit. No key is taken then.
    pub fn try_forward_bias_add<const D: usize>(
        &self,
        input: Tensor<D>,
        bias: Tensor<1>,
        residual: Tensor<D>,
    ) -> Result<Tensor<D>> {
        self.forward_bias_add_if(self.trains(&input), input, bias, residual)
    }

    /// [`forward_bias_add`](Self::forward_bias_add) that drops where `train` says so, on any device and whatever
    /// the flag.
    ///
    /// # Errors
    ///
    /// Those of [`try_forward_bias_add`](Self::try_forward_bias_add).
    pub fn forward_bias_add_if<const D: usize>(
        &self,
        train: bool,
        input: Tensor<D>,
        bias: Tensor<1>,
        residual: Tensor<D>,
    ) -> Result<Tensor<D>> {
        let draw = |input: &Tensor<D>| self.draw_or_nothing(train, input);
        op::bias_dropout_add(input, bias, residual, draw, self.draws.save_mask)
    }

    /// [`forward_bias_add`](Self::forward_bias_add) by a key that the caller names, or by a part of its mask, on any
    /// device.
    ///
    /// # Errors
    ///
    /// Those of [`try_forward_bias_add`](Self::try_forward_bias_add).
    pub fn forward_bias_add_with_key<const D: usize>(
        &self,
        input: Tensor<D>,
        bias: Tensor<1>,
        residual: Tensor<D>,
        at: impl Into<MaskRegion>,
    ) -> Result<Tensor<D>> {
        let draw = |input: &Tensor<D>| self.draw_at(input, at);
        op::bias_dropout_add(input, bias, residual, draw, self.draws.save_mask)
    }

    /// Whether this is training as burn means it.
    pub(crate) fn trains<const D: usize>(&self, input: &Tensor<D>) -> bool {
        self.training.is_enabled() && input.device().is_autodiff()
    }

    /// The draw by a key that the caller names.
    pub(crate) fn draw_at<const D: usize>(
        &self,
        input: &Tensor<D>,
        at: impl Into<MaskRegion>,
    ) -> Result<SliceDropout> {
        Ok(self.draws.at(self.prob, &input.dims(), at)?)
    }

    /// The draw of a call that has more to do than to drop: if it drops nothing, the draw of p = 0, whatever the form.
    pub(crate) fn draw_or_nothing<const D: usize>(
        &self,
        train: bool,
        input: &Tensor<D>,
    ) -> Result<SliceDropout> {
        match self.draw(train, input)? {
            Some(draw) => Ok(draw),
            None => Ok(Draws::new(Elements).at(0.0, &input.dims(), MaskKey::default())?),
        }
    }

    /// The draw of a call; `None` if it gives back its input.
    fn draw<const D: usize>(&self, train: bool, input: &Tensor<D>) -> Result<Option<SliceDropout>> {
        Ok(if train {
            Some(self.draws.next(self.prob, &input.dims())?)
        } else {
            self.draws.pass(&input.dims())?
        })
    }
}

impl Dropout {
    /// How the mask is kept.
    pub(crate) fn saves(&self) -> SaveMask {
        self.draws.save_mask
    }

    /// Dropout of a gated activation, `forward(silu(gate) * up)` in one pass, for two tensors of one shape, dtype
    /// and device; where nothing is dropped, the product.
    ///
    /// On `flex` 16 bits are rounded once, and a gate that nobody else holds is written over. For backward gate, up
    /// and the mask are kept.
    ///
    /// # Panics
    ///
    /// Where [`try_forward_swiglu`](Self::try_forward_swiglu) returns an error, with its message.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use sorix_burn::Dropout;
    ///
    /// // silu(30) is 30 in f32.
    /// let dropped = |device: &Device| {
    ///     let (gate, up) = (Tensor::<1>::full([100], 30.0, device), Tensor::full([100], 0.1, device));
    ///     let y = Dropout::new(0.5)?.forward_swiglu(gate, up).into_data();
    ///     Ok::<_, sorix_burn::Error>(y.try_to_vec::<f32>().unwrap())
    /// };
    /// assert!(dropped(&Device::flex().autodiff())?.iter().all(|&y| y == 0.0 || y == 6.0));
    /// assert_eq!(dropped(&Device::flex())?, [3.0; 100]);
    /// # Ok::<(), sorix_burn::Error>(())
    /// ```
    #[must_use]
    pub fn forward_swiglu<const D: usize>(&self, gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
        self.try_forward_swiglu(gate, up)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// [`forward_swiglu`](Self::forward_swiglu) without a panic.
    ///
    /// # Errors
    ///
    /// Those of [`try_forward`](Self::try_forward), and [`Error::Operand`](crate::Error::Operand) for an `up` that
    /// does not fit. No key is taken then.
    pub fn try_forward_swiglu<const D: usize>(
        &self,
        gate: Tensor<D>,
        up: Tensor<D>,
    ) -> Result<Tensor<D>> {
        self.forward_swiglu_if(self.trains(&gate), gate, up)
    }

    /// [`forward_swiglu`](Self::forward_swiglu) that drops where `train` says so, on any device and whatever the
    /// flag.
    ///
    /// # Errors
    ///
    /// Those of [`try_forward_swiglu`](Self::try_forward_swiglu).
    pub fn forward_swiglu_if<const D: usize>(
        &self,
        train: bool,
        gate: Tensor<D>,
        up: Tensor<D>,
    ) -> Result<Tensor<D>> {
        let draw = |gate: &Tensor<D>| self.draw_or_nothing(train, gate);
        op::swiglu_dropout(gate, up, draw, self.draws.save_mask)
    }

    /// [`forward_swiglu`](Self::forward_swiglu) by a key that the caller names, or by a part of its mask, on any
    /// device.
    ///
    /// # Errors
    ///
    /// Those of [`try_forward_swiglu`](Self::try_forward_swiglu).
    pub fn forward_swiglu_with_key<const D: usize>(
        &self,
        gate: Tensor<D>,
        up: Tensor<D>,
        at: impl Into<MaskRegion>,
    ) -> Result<Tensor<D>> {
        let draw = |gate: &Tensor<D>| self.draw_at(gate, at);
        op::swiglu_dropout(gate, up, draw, self.draws.save_mask)
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
