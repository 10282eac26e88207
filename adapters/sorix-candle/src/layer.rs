//! The layers: candle's interface over the forms of the family.

use candle_core::{Error, ModuleT, Result, Tensor};
use candle_nn::LayerNorm;
use sorix::adapter::{Draws, SliceDropout, SliceForm};
use sorix::kernels::{MaskKey, MaskRegion};
use sorix::nn::dropout::{
    Alpha, Channels, Elements, FeatureAlpha, Gaussian, GeluElements, Locked, NoiseShape, Paths,
    Rectified, SiluElements,
};

use crate::norm::{self, NormOptions};
use crate::op;

/// A dropout with the interface of `candle_nn::Dropout`, for any form of the family.
///
/// `forward(&xs, true)` drops with probability p, `forward(&xs, false)` gives back `xs` itself, or what the
/// activation of a layer that has one makes of it. Each call
/// that drops takes one key of the generator, whatever p and the shape; one in eval, or one that returns
/// an error, takes none. A clone shares the generator, so the two draw different masks.
///
/// # Errors
///
/// Of `forward` in training: a p outside [0, 1] or NaN, a shape that the form does not fit, a dtype other
/// than f16, bf16, f32 and f64, failed allocation, and a `SORIX_BACKEND` that cannot run here. Each
/// message names what came.
#[derive(Clone, Debug)]
pub struct DropoutLayer<F> {
    p: f64,
    draws: Draws<F>,
}

sorix::layer_options!(DropoutLayer, SliceForm);

/// Drops single elements: in the place of `candle_nn::Dropout`.
///
/// ```
/// use std::sync::Arc;
/// use candle_core::{DType, Device, Tensor};
/// use sorix_candle::{Dropout, Generator};
///
/// // A generator of its own, which may be shared: its masks depend on no other layer's calls.
/// let generator = Arc::new(Generator::new(42).fork("encoder"));
/// let dropout = Dropout::new(0.1).generator(generator.clone());
/// let xs = Tensor::ones(1000, DType::F32, &Device::Cpu)?;
/// let state = generator.state();
/// let first = dropout.forward(&xs, true)?.to_vec1::<f32>()?;
/// assert_ne!(dropout.forward(&xs, true)?.to_vec1::<f32>()?, first);
/// generator.set_state(state); // as from a checkpoint
/// assert_eq!(dropout.forward(&xs, true)?.to_vec1::<f32>()?, first);
///
/// let error = Dropout::new(1.5).forward(&xs, true).unwrap_err();
/// assert!(error.to_string().contains("got p = 1.5"), "{error}");
/// # Ok::<(), candle_core::Error>(())
/// ```
pub type Dropout = DropoutLayer<Elements>;

/// Drops whole channels of `(N, C, L)` or `(C, L)`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use sorix_candle::Dropout1d;
///
/// let xs = Tensor::ones((8, 4, 5), DType::F32, &Device::Cpu)?;
/// let ys = Dropout1d::new(0.5).forward(&xs, true)?.flatten_to(1)?.to_vec2::<f32>()?;
/// assert!(ys.iter().all(|channel| channel == &[0.0; 5] || channel == &[2.0; 5]));
/// assert!(Dropout1d::new(0.5).forward(&Tensor::ones(5, DType::F32, &Device::Cpu)?, true).is_err());
/// # Ok::<(), candle_core::Error>(())
/// ```
pub type Dropout1d = DropoutLayer<Channels<1>>;

/// Drops whole channels of `(N, C, H, W)` or `(C, H, W)`, see [`Dropout1d`].
pub type Dropout2d = DropoutLayer<Channels<2>>;

/// Drops whole channels of `(N, C, D, H, W)` or `(C, D, H, W)`, see [`Dropout1d`].
pub type Dropout3d = DropoutLayer<Channels<3>>;

/// Drops the same features at every step of a sequence `(N, T, C)` or `(T, C)`; see
/// [`time_axis`](DropoutLayer::time_axis).
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use sorix_candle::LockedDropout;
///
/// let xs = Tensor::ones((6, 50), DType::F32, &Device::Cpu)?;
/// let ys = LockedDropout::new(0.5).forward(&xs, true)?.to_vec2::<f32>()?;
/// assert!(ys.iter().all(|step| step == &ys[0]));
/// # Ok::<(), candle_core::Error>(())
/// ```
pub type LockedDropout = DropoutLayer<Locked>;

/// Stochastic depth: drops whole samples, the first axis of `(N, …)`; see
/// [`per_batch`](DropoutLayer::per_batch), [`scale_by_keep`](DropoutLayer::scale_by_keep).
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use sorix_candle::DropPath;
///
/// let xs = Tensor::ones((100, 3), DType::F32, &Device::Cpu)?;
/// let ys = DropPath::new(0.5).scale_by_keep(false).forward(&xs, true)?.to_vec2::<f32>()?;
/// assert!(ys.iter().all(|sample| sample == &[0.0; 3] || sample == &[1.0; 3]));
/// # Ok::<(), candle_core::Error>(())
/// ```
pub type DropPath = DropoutLayer<Paths>;

/// Dropout for self-normalising networks: an input of mean 0 and variance 1 keeps both.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use sorix_candle::AlphaDropout;
///
/// let xs = Tensor::ones(100, DType::F64, &Device::Cpu)?;
/// let ys = AlphaDropout::new(0.5).forward(&xs, true)?.to_vec1::<f64>()?;
/// assert!(ys.iter().all(|y| (y - 1.6656).abs() < 1e-4 || (y + 0.7792).abs() < 1e-4));
/// # Ok::<(), candle_core::Error>(())
/// ```
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
/// use candle_core::{DType, Device, Tensor};
/// use sorix_candle::{GaussianDropout, Generator};
///
/// let dropout = GaussianDropout::new(0.2).generator(Generator::new(42));
/// let ys = dropout.forward(&Tensor::ones(10_000, DType::F64, &Device::Cpu)?, true)?;
/// let variance = (ys - 1.0)?.sqr()?.mean_all()?.to_scalar::<f64>()?;
/// assert!((variance - 0.25).abs() < 0.02);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub type GaussianDropout = DropoutLayer<Gaussian>;

/// ReLU and dropout in one pass: `Dropout` of `xs.relu()`, by the same mask. Without `train` it is ReLU.
///
/// One bit for each element is all that backward needs, and is kept whatever
/// [`save_mask`](DropoutLayer::save_mask) says. For more see
/// [`DropoutExt::act_dropout`](crate::DropoutExt::act_dropout).
///
/// ```
/// use candle_core::{Device, Tensor};
/// use sorix_candle::{Dropout, Generator, ReluDropout};
///
/// let xs = Tensor::new(&[[-1f32, 2.]; 50], &Device::Cpu)?;
/// let fused = ReluDropout::new(0.5).generator(Generator::new(42));
/// let apart = Dropout::new(0.5).generator(Generator::new(42)).forward(&xs.relu()?, true)?;
/// assert_eq!(fused.forward(&xs, true)?.to_vec2::<f32>()?, apart.to_vec2::<f32>()?);
/// assert_eq!(fused.forward(&xs, false)?.to_vec2::<f32>()?, vec![[0.0, 2.0]; 50]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub type ReluDropout = DropoutLayer<Rectified>;

/// GELU and dropout in one pass, see [`ReluDropout`]: the exact form, which is candle's `gelu_erf`, or
/// [`with_tanh`](DropoutLayer::with_tanh) the approximation, which is candle's `gelu`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use sorix_candle::GeluDropout;
///
/// let xs = Tensor::ones(100, DType::F64, &Device::Cpu)?;
/// let ys = GeluDropout::new(0.5).forward(&xs, true)?.to_vec1::<f64>()?;
/// assert!(ys.iter().all(|&y| y == 0.0 || (y - 2.0 * 0.841345).abs() < 1e-5));
/// let ys = GeluDropout::new(0.5).with_tanh().forward(&xs, false)?.to_vec1::<f64>()?;
/// assert!(ys.iter().all(|&y| (y - 0.841192).abs() < 1e-6));
/// # Ok::<(), candle_core::Error>(())
/// ```
pub type GeluDropout = DropoutLayer<GeluElements>;

/// SiLU, also called swish, and dropout in one pass, see [`ReluDropout`].
pub type SiluDropout = DropoutLayer<SiluElements>;

/// Decisions shared along any axes: made by [`DropoutLayer::with_form`] of a
/// [`NoiseShape`](sorix::nn::dropout::NoiseShape).
pub type BroadcastDropout = DropoutLayer<NoiseShape>;

impl<F: Default> DropoutLayer<F> {
    /// Drops with probability `p`. A `p` that is none is an error of [`forward`](Self::forward), as in
    /// candle.
    ///
    /// `p` is an f64 or an f32. The masks of `0.1_f32` are those of the number it is,
    /// 0.10000000149011612, and not those of 0.1.
    #[must_use]
    pub fn new(p: impl Into<f64>) -> Self {
        Self::with_form(F::default(), p)
    }
}

impl<F> DropoutLayer<F> {
    /// Drops with probability `p` by a form that has options.
    #[must_use]
    pub fn with_form(form: F, p: impl Into<f64>) -> Self {
        Self {
            p: p.into(),
            draws: Draws::new(form),
        }
    }

    /// The probability of dropping, as it was given.
    #[must_use]
    pub fn p(&self) -> f64 {
        self.p
    }

    /// Drops with probability `p` from now on.
    pub fn set_p(&mut self, p: impl Into<f64>) {
        self.p = p.into();
    }
}

impl<F: SliceForm> DropoutLayer<F> {
    /// Drops from `xs` if `train` says so, else gives back `xs` itself, or what an activation makes of it.
    ///
    /// # Errors
    ///
    /// See the [type](DropoutLayer).
    pub fn forward(&self, xs: &Tensor, train: bool) -> Result<Tensor> {
        if train {
            // Before a key is taken.
            op::check_dtype(xs)?;
        }
        match self.draw(xs, train)? {
            Some(draw) => op::dropout(xs, draw, self.draws.save_mask),
            None => Ok(xs.clone()),
        }
    }

    /// `residual + forward(xs)` in one pass, for a residual of the shape, dtype and device of `xs`; without
    /// `train` the sum of the two.
    ///
    /// Inverted dropout rounds product and sum to the dtype together, where two operations round 16 bits
    /// twice. The gradient of the residual is that of the result itself.
    ///
    /// # Errors
    ///
    /// See the [type](DropoutLayer), and a residual that does not fit; no key is taken then.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use sorix_candle::{Dropout, Generator};
    ///
    /// let (xs, residual) = (Tensor::new(&[1f32; 100], &Device::Cpu)?, Tensor::new(&[10f32; 100], &Device::Cpu)?);
    /// let dropout = Dropout::new(0.5).generator(Generator::new(42));
    /// let ys = dropout.forward_add(&xs, &residual, true)?.to_vec1::<f32>()?;
    /// assert!(ys.iter().all(|&y| y == 10.0 || y == 12.0));
    /// assert_eq!(dropout.forward_add(&xs, &residual, false)?.to_vec1::<f32>()?, [11.0; 100]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn forward_add(&self, xs: &Tensor, residual: &Tensor, train: bool) -> Result<Tensor> {
        let draw = || self.draw(xs, train);
        op::dropout_add(xs, residual, draw, self.draws.save_mask)
    }

    /// `residual + forward(xs + bias)` in one pass, for a bias as long as the last axis, and a residual of the
    /// shape of `xs`, both of its dtype and device; without `train` the sum of the three, rounded once.
    ///
    /// Inverted dropout is rounded once, at the end. Other forms take three operations.
    ///
    /// # Errors
    ///
    /// See the [type](DropoutLayer), and a bias or residual that does not fit; no key is taken then.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use sorix_candle::{Dropout, Generator};
    ///
    /// let xs = Tensor::new(&[[1f32, 2.]; 50], &Device::Cpu)?;
    /// let (bias, residual) = (Tensor::new(&[1f32, -1.], &Device::Cpu)?, (&xs * 10.)?);
    /// let dropout = Dropout::new(0.5).generator(Generator::new(42));
    /// let ys = dropout.forward_bias_add(&xs, &bias, &residual, true)?.flatten_all()?.to_vec1::<f32>()?;
    /// assert!(ys.chunks(2).all(|y| [10.0, 14.0].contains(&y[0]) && [20.0, 22.0].contains(&y[1])));
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn forward_bias_add(
        &self,
        xs: &Tensor,
        bias: &Tensor,
        residual: &Tensor,
        train: bool,
    ) -> Result<Tensor> {
        let draw = || self.draw_or_nothing(xs, train);
        op::bias_dropout_add(xs, bias, residual, draw, self.draws.save_mask)
    }

    /// The draw of a call; `None` if it gives back its input.
    fn draw(&self, xs: &Tensor, train: bool) -> Result<Option<SliceDropout>> {
        let draw = if train {
            self.draws.next(self.p, xs.dims()).map(Some)
        } else {
            self.draws.pass(xs.dims())
        };
        draw.map_err(Error::wrap)
    }

    /// The draw of a call that has more to do than to drop: if it drops nothing, the draw of p = 0, whatever the form.
    fn draw_or_nothing(&self, xs: &Tensor, train: bool) -> Result<SliceDropout> {
        match self.draw(xs, train)? {
            Some(draw) => Ok(draw),
            None => Draws::new(Elements)
                .at(0.0, xs.dims(), MaskKey::default())
                .map_err(Error::wrap),
        }
    }

    /// Drops from `xs` by a key that the caller names, or by a part of its mask.
    ///
    /// # Errors
    ///
    /// See the [type](DropoutLayer).
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use sorix_candle::{Dropout, MaskKey};
    ///
    /// let xs = Tensor::ones(100, DType::F32, &Device::Cpu)?;
    /// let (dropout, key) = (Dropout::new(0.5), MaskKey::new(42, 0));
    /// let whole = dropout.forward_with_key(&xs, key)?;
    /// let part = dropout.forward_with_key(&xs.narrow(0, 30, 20)?, key.window(30))?;
    /// assert_eq!(part.to_vec1::<f32>()?, whole.narrow(0, 30, 20)?.to_vec1::<f32>()?);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn forward_with_key(&self, xs: &Tensor, at: impl Into<MaskRegion>) -> Result<Tensor> {
        let draw = self.draws.at(self.p, xs.dims(), at);
        op::dropout(xs, draw.map_err(Error::wrap)?, self.draws.save_mask)
    }
}

impl Dropout {
    /// Dropout of a gated activation, `forward(silu(gate) * up)` in one pass, for two tensors of one shape, dtype
    /// and device; without `train` the product.
    ///
    /// # Errors
    ///
    /// See the [type](DropoutLayer), and an `up` that does not fit; no key is taken then.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use sorix_candle::Dropout;
    ///
    /// // silu(30) is 30 in f32.
    /// let (gate, up) = (Tensor::new(&[30f32; 100], &Device::Cpu)?, Tensor::new(&[0.1f32; 100], &Device::Cpu)?);
    /// let dropout = Dropout::new(0.5);
    /// let ys = dropout.forward_swiglu(&gate, &up, true)?.to_vec1::<f32>()?;
    /// assert!(ys.iter().all(|&y| y == 0.0 || y == 6.0));
    /// assert_eq!(dropout.forward_swiglu(&gate, &up, false)?.to_vec1::<f32>()?, [3.0; 100]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn forward_swiglu(&self, gate: &Tensor, up: &Tensor, train: bool) -> Result<Tensor> {
        let draw = || self.draw_or_nothing(gate, train);
        op::swiglu_dropout(gate, up, draw, self.draws.save_mask)
    }
}

impl<F: SliceForm> ModuleT for DropoutLayer<F> {
    fn forward_t(&self, xs: &Tensor, train: bool) -> Result<Tensor> {
        self.forward(xs, train)
    }
}

/// Layer or RMS normalisation of a residual plus dropout, in one pass: `norm(residual + dropout(xs))`, and that sum.
///
/// It takes candle's own layer, [`LayerNorm`](candle_nn::LayerNorm) or
/// [`RmsNorm::into_inner`](candle_nn::RmsNorm::into_inner), with its parameters, so that a checkpoint of one is one of
/// the other; p, the generator and how the mask is kept are those of the [`Dropout`]. In the prenorm form of a
/// transformer the sum is the next residual; in the postnorm form the normalised one is. For what is computed, and in
/// which dtypes, see [`DropoutExt::dropout_add_norm`](crate::DropoutExt::dropout_add_norm).
///
/// Source: `DropoutAddLayerNorm` and `DropoutAddRMSNorm` of flash-attention.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::{LayerNorm, RmsNorm};
/// use sorix_candle::{Dropout, DropoutAddNorm, Generator};
///
/// let ones = Tensor::ones(2, DType::F64, &Device::Cpu)?;
/// let dropout = Dropout::new(0.5).generator(Generator::new(42));
/// let layer = DropoutAddNorm::new(LayerNorm::new_no_bias(ones.clone(), 1e-30), dropout.clone());
/// let xs = Tensor::new(&[[1f64, 2.]], &Device::Cpu)?;
/// let residual = (&xs * 10.)?;
/// let (ys, sum) = layer.forward(&xs, &residual, true)?;
/// assert_eq!(ys.to_vec2::<f64>()?, [[-1.0, 1.0]]);
/// let sum = sum.squeeze(0)?.to_vec1::<f64>()?; // what is kept is doubled
/// assert!([10.0, 12.0].contains(&sum[0]) && [20.0, 24.0].contains(&sum[1]));
/// assert_eq!(layer.forward(&xs, &residual, false)?.1.to_vec2::<f64>()?, [[11.0, 22.0]]); // eval
///
/// let rms = DropoutAddNorm::new(RmsNorm::new(ones, 0.0).into_inner(), dropout);
/// let (ys, _) = rms.forward(&Tensor::new(&[[3f64, 1.]], &Device::Cpu)?, &Tensor::new(&[[1f64, -1.]], &Device::Cpu)?, false)?;
/// assert!((ys.squeeze(0)?.to_vec1::<f64>()?[0] - 2f64.sqrt()).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DropoutAddNorm {
    norm: LayerNorm,
    dropout: Dropout,
}

impl DropoutAddNorm {
    /// Normalises as this layer does, after this dropout.
    #[must_use]
    pub fn new(norm: LayerNorm, dropout: Dropout) -> Self {
        Self { norm, dropout }
    }

    /// The normalisation, with its parameters.
    #[must_use]
    pub fn norm(&self) -> &LayerNorm {
        &self.norm
    }

    /// The dropout.
    #[must_use]
    pub fn dropout(&self) -> &Dropout {
        &self.dropout
    }

    /// The normalised `residual + dropout(xs)`, and that sum; without `train` nothing is dropped.
    ///
    /// # Errors
    ///
    /// Those of [`DropoutExt::dropout_add_norm`](crate::DropoutExt::dropout_add_norm), and a p that is none; no key is
    /// taken then.
    pub fn forward(&self, xs: &Tensor, residual: &Tensor, train: bool) -> Result<(Tensor, Tensor)> {
        self.normalise(xs, residual, NormOptions::of_layer(&self.norm), train)
    }

    /// The normalised `residual + dropout(xs + bias)`, and that sum, for a bias as long as the last axis.
    ///
    /// # Errors
    ///
    /// Those of [`forward`](Self::forward), and a bias that does not fit.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_nn::LayerNorm;
    /// use sorix_candle::{Dropout, DropoutAddNorm};
    ///
    /// let (xs, bias) = (Tensor::new(&[[1f64, 2.]], &Device::Cpu)?, Tensor::new(&[3f64, 4.], &Device::Cpu)?);
    /// let norm = LayerNorm::new_no_bias(bias.ones_like()?, 1e-5);
    /// let (_, sum) = DropoutAddNorm::new(norm, Dropout::new(0.5)).forward_bias(&xs, &bias, &xs, false)?;
    /// assert_eq!(sum.to_vec2::<f64>()?, [[5.0, 8.0]]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn forward_bias(
        &self,
        xs: &Tensor,
        bias: &Tensor,
        residual: &Tensor,
        train: bool,
    ) -> Result<(Tensor, Tensor)> {
        let options = NormOptions::of_layer(&self.norm).bias(bias);
        self.normalise(xs, residual, options, train)
    }

    /// [`forward`](Self::forward) by a key that the caller names, or by a part of its mask.
    ///
    /// # Errors
    ///
    /// Those of [`forward`](Self::forward).
    pub fn forward_with_key(
        &self,
        xs: &Tensor,
        residual: &Tensor,
        at: impl Into<MaskRegion>,
    ) -> Result<(Tensor, Tensor)> {
        let Dropout { p, draws } = &self.dropout;
        let draw = || draws.at(*p, xs.dims(), at).map_err(Error::wrap);
        let options = NormOptions::of_layer(&self.norm);
        norm::dropout_add_norm(xs, residual, options, draw, draws.save_mask)
    }

    fn normalise(
        &self,
        xs: &Tensor,
        residual: &Tensor,
        options: NormOptions<'_>,
        train: bool,
    ) -> Result<(Tensor, Tensor)> {
        let draw = || self.dropout.draw_or_nothing(xs, train);
        let save = self.dropout.draws.save_mask;
        norm::dropout_add_norm(xs, residual, options, draw, save)
    }
}
