//! [`DropoutExt`]: dropout as methods of a tensor.

use candle_core::{Error, Result, Shape, Tensor};
use sorix::SaveMask;
use sorix::adapter::SliceDropout;
use sorix::kernels::{Activation, DropRate, MaskRegion};

use crate::attention::{self, AttentionOptions};
use crate::norm::{self, NormOptions};
use crate::op;

/// Dropout by a key that the caller names: for services that need a repeatable answer, and for shards.
///
/// `at` is a [`MaskKey`](crate::MaskKey), or a window or [region](MaskRegion) of its mask if the tensor is
/// a part of a larger one.
///
/// # Errors
///
/// A dtype other than f16, bf16, f32 and f64; a shape that does not fit; failed allocation; a
/// `SORIX_BACKEND` that cannot run here.
pub trait DropoutExt {
    /// What is kept times `1 / (1 - p)`, and `+0.0` for what is dropped.
    ///
    /// # Errors
    ///
    /// See the [trait](DropoutExt).
    ///
    /// ```
    /// use candle_core::{Device, Var};
    /// use sorix_candle::{DropRate, DropoutExt, MaskKey};
    ///
    /// let xs = Var::new(&[10f32, 20., 30., 40., 50.], &Device::Cpu)?;
    /// let ys = xs.dropout(DropRate::new(0.5).unwrap(), MaskKey::new(42, 7))?;
    /// let gradient = ys.backward()?.remove(&xs).unwrap(); // 0 or 2, by the same mask
    /// assert_eq!((gradient * xs.as_tensor())?.to_vec1::<f32>()?, ys.to_vec1::<f32>()?);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    fn dropout(&self, rate: DropRate, at: impl Into<MaskRegion>) -> Result<Tensor>;

    /// [`dropout`](Self::dropout) by a mask of a smaller shape: along an axis of length 1 one decision
    /// holds for all.
    ///
    /// # Errors
    ///
    /// See the [trait](DropoutExt).
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use sorix_candle::{DropRate, DropoutExt, MaskKey};
    ///
    /// let xs = Tensor::ones((100, 3), DType::F64, &Device::Cpu)?;
    /// let ys = xs.dropout_broadcast(DropRate::new(0.5).unwrap(), MaskKey::new(42, 7), (100, 1))?;
    /// assert!(ys.to_vec2::<f64>()?.iter().all(|row| row == &[0.0; 3] || row == &[2.0; 3]));
    /// assert!(xs.dropout_broadcast(DropRate::new(0.5).unwrap(), MaskKey::new(42, 7), 3).is_err());
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    fn dropout_broadcast(
        &self,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        mask_shape: impl Into<Shape>,
    ) -> Result<Tensor>;

    /// [`dropout`](Self::dropout), added to a residual of the same shape, dtype and device: `residual +
    /// dropout(xs)` in one pass.
    ///
    /// Product and sum are rounded to the dtype together, where two operations round 16 bits twice; so does
    /// a device other than the CPU. The gradient of the residual is that of the result itself.
    ///
    /// # Errors
    ///
    /// See the [trait](DropoutExt), and a residual that does not fit.
    ///
    /// ```
    /// use candle_core::{Device, Var};
    /// use sorix_candle::{DropRate, DropoutExt, MaskKey};
    ///
    /// let xs = Var::new(&[1f32, 2., 3., 4., 5.], &Device::Cpu)?;
    /// let residual = Var::new(&[10f32, 20., 30., 40., 50.], &Device::Cpu)?;
    /// let (rate, key) = (DropRate::new(0.5).unwrap(), MaskKey::new(42, 7));
    /// let ys = xs.dropout_add(&residual, rate, key)?;
    /// let apart = (residual.as_tensor() + xs.dropout(rate, key)?)?;
    /// assert_eq!(ys.to_vec1::<f32>()?, apart.to_vec1::<f32>()?);
    /// assert_eq!(ys.backward()?.get(&residual).unwrap().to_vec1::<f32>()?, [1.0; 5]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    fn dropout_add(
        &self,
        residual: &Tensor,
        rate: DropRate,
        at: impl Into<MaskRegion>,
    ) -> Result<Tensor>;

    /// [`dropout_add`](Self::dropout_add) by a mask of a smaller shape, as
    /// [`dropout_broadcast`](Self::dropout_broadcast) has it. With one decision for each sample it is stochastic
    /// depth and the residual in one pass, which does not read what is dropped.
    ///
    /// # Errors
    ///
    /// See the [trait](DropoutExt), and a residual that does not fit.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use sorix_candle::{DropRate, DropoutExt, MaskKey};
    ///
    /// let (xs, rate) = (Tensor::ones((100, 3), DType::F64, &Device::Cpu)?, DropRate::new(0.5).unwrap());
    /// let ys = xs.dropout_add_broadcast(&(&xs * 10.)?, rate, MaskKey::new(42, 7), (100, 1))?;
    /// assert!(ys.to_vec2::<f64>()?.iter().all(|row| row == &[10.0; 3] || row == &[12.0; 3]));
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    fn dropout_add_broadcast(
        &self,
        residual: &Tensor,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        mask_shape: impl Into<Shape>,
    ) -> Result<Tensor>;

    /// `residual + dropout(xs + bias)` in one pass. The bias is as long as the last axis, the residual of the same
    /// shape, and both of the same dtype and device.
    ///
    /// On the CPU 16 bits are rounded once, at the end. The gradient of the bias is the sum of that of `xs` over
    /// all axes but the last, taken in f64.
    ///
    /// # Errors
    ///
    /// See the [trait](DropoutExt), and a bias or residual that does not fit.
    ///
    /// ```
    /// use candle_core::{Device, Tensor, Var};
    /// use sorix_candle::{DropRate, DropoutExt, MaskKey};
    ///
    /// let xs = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?;
    /// let bias = Var::new(&[0.5f32, -0.5], &Device::Cpu)?;
    /// let ys = xs.bias_dropout_add(&bias, &xs, DropRate::new(0.0).unwrap(), MaskKey::new(42, 7))?;
    /// assert_eq!(ys.to_vec2::<f32>()?, [[2.5, 3.5], [6.5, 7.5]]);
    /// assert_eq!(ys.backward()?.get(&bias).unwrap().to_vec1::<f32>()?, [2.0, 2.0]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    fn bias_dropout_add(
        &self,
        bias: &Tensor,
        residual: &Tensor,
        rate: DropRate,
        at: impl Into<MaskRegion>,
    ) -> Result<Tensor>;

    /// `dropout(activation(xs))` in one pass.
    ///
    /// 16 bits are rounded once. Beside `xs`, which candle's graph holds in any case, one bit for each element is
    /// kept until backward, and no output of the activation. As in every part of sorix the derivative of ReLU at 0 is 0, where
    /// candle's own is 1. The gradient has a gradient itself for ReLU only.
    ///
    /// # Errors
    ///
    /// See the [trait](DropoutExt).
    ///
    /// ```
    /// use candle_core::{Device, Var};
    /// use sorix_candle::{Activation, DropRate, DropoutExt, MaskKey};
    ///
    /// let xs = Var::new(&[-1f32, 2., -3., 4.], &Device::Cpu)?;
    /// let (rate, key) = (DropRate::new(0.5).unwrap(), MaskKey::new(42, 7));
    /// let ys = xs.act_dropout(Activation::Relu, rate, key)?;
    /// let apart = xs.relu()?.dropout(rate, key)?;
    /// assert_eq!(ys.to_vec1::<f32>()?, apart.to_vec1::<f32>()?);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    fn act_dropout(
        &self,
        activation: Activation,
        rate: DropRate,
        at: impl Into<MaskRegion>,
    ) -> Result<Tensor>;

    /// `dropout(silu(gate) * up)` in one pass, this tensor being the gate. `up` has its shape, dtype and device.
    ///
    /// 16 bits are rounded once. Beside gate and up the mask is kept until backward. The gradients have none themselves.
    ///
    /// # Errors
    ///
    /// See the [trait](DropoutExt), and an `up` that does not fit.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use sorix_candle::{DropRate, DropoutExt, MaskKey};
    ///
    /// let gate_and_up = Tensor::new(&[[0f32, 30., 2., 3.]], &Device::Cpu)?;
    /// let [gate, up] = [0, 2].map(|at| gate_and_up.narrow(1, at, 2));
    /// let ys = gate?.swiglu_dropout(&up?, DropRate::new(0.0).unwrap(), MaskKey::new(42, 7))?;
    /// assert_eq!(ys.to_vec2::<f32>()?, candle_nn::ops::swiglu(&gate_and_up)?.to_vec2::<f32>()?);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    fn swiglu_dropout(
        &self,
        up: &Tensor,
        rate: DropRate,
        at: impl Into<MaskRegion>,
    ) -> Result<Tensor>;

    /// The rows of `residual + dropout(xs + bias)`, normalised along the last axis, and that sum: `(ys, sum)` in one
    /// pass, with bias, weight and shift if `norm` has them.
    ///
    /// In the prenorm form of a transformer the sum is the next residual; in the postnorm form `ys` is, and the sum is
    /// let go. The residual has the shape of `xs` and its dtype, or the one that it is computed in, which the sum has:
    /// f32 for f16 and bf16. Mean and variance are computed in f64, and 16 bits are rounded once. Until backward the sum,
    /// two doubles for each row and the mask are kept. The gradients have none themselves.
    ///
    /// Source: `dropout_add_layer_norm` and `dropout_add_rms_norm` of flash-attention, with `prenorm` and
    /// `residual_in_fp32`.
    ///
    /// # Errors
    ///
    /// See the [trait](DropoutExt); a residual or a row that does not fit; a tensor without axes; an epsilon that is
    /// negative or not finite.
    ///
    /// ```
    /// use candle_core::{Device, Module, Tensor, Var};
    /// use candle_nn::LayerNorm;
    /// use sorix_candle::{DropRate, DropoutExt, MaskKey, NormOptions};
    ///
    /// let xs = Var::new(&[[1f32, 2., 3.]], &Device::Cpu)?;
    /// let residual = Tensor::new(&[[10f32, 20., 30.]], &Device::Cpu)?;
    /// let (weight, shift) = (Tensor::new(&[1f32, 2., 3.], &Device::Cpu)?, Tensor::new(&[0.5f32; 3], &Device::Cpu)?);
    /// let (rate, key) = (DropRate::new(0.5).unwrap(), MaskKey::new(42, 7));
    /// let norm = NormOptions::layer(1e-5).weight(&weight).shift(&shift);
    /// let (ys, sum) = xs.dropout_add_norm(&residual, norm, rate, key)?;
    /// let apart = xs.dropout_add(&residual, rate, key)?;
    /// assert_eq!(sum.to_vec2::<f32>()?, apart.to_vec2::<f32>()?);
    /// let apart = LayerNorm::new(weight, shift, 1e-5).forward(&apart)?;
    /// assert!((ys - apart)?.abs()?.max_all()?.to_scalar::<f32>()? < 1e-5);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    fn dropout_add_norm(
        &self,
        residual: &Tensor,
        norm: NormOptions<'_>,
        rate: DropRate,
        at: impl Into<MaskRegion>,
    ) -> Result<(Tensor, Tensor)>;

    /// `dropout(softmax(scale * xs + attn_mask))` over the last axis. The mask, if there is one, broadcasts to the shape of
    /// `xs` and has its dtype or the one that it is computed in; minus infinity masks an element out.
    ///
    /// It is [`sorix::Tensor::softmax_dropout`] on a copy of the elements: the same bits, 16 bits are rounded once, and a row all
    /// of which is masked out becomes zeros, with zeros as its gradient, where candle's softmax has NaN. Until backward are
    /// kept copies of `xs`, of the mask and of the output, the probabilities (not for 16 bits), and the dropout's mask. The
    /// mask that is added gets a gradient, too, if it is in the graph. The gradients have none themselves.
    ///
    /// # Errors
    ///
    /// See the [trait](DropoutExt); a tensor without axes; a mask that does not fit.
    ///
    /// ```
    /// use candle_core::{D, Device, Tensor};
    /// use sorix_candle::{DropRate, DropoutExt, MaskKey};
    ///
    /// let xs = Tensor::new(&[[0f64, 1., 2.], [5., 7., 6.]], &Device::Cpu)?;
    /// let hidden = Tensor::new(&[0f64, 0., f64::NEG_INFINITY], &Device::Cpu)?;
    /// let (rate, key) = (DropRate::new(0.5).unwrap(), MaskKey::new(42, 7));
    /// let ys = xs.softmax_dropout(Some(&hidden), 2.0, rate, key)?;
    /// let apart = candle_nn::ops::softmax(&(xs * 2.0)?.broadcast_add(&hidden)?, D::Minus1)?;
    /// let apart = apart.dropout(rate, key)?;
    /// assert!((ys - apart)?.abs()?.max_all()?.to_scalar::<f64>()? < 1e-15);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    fn softmax_dropout(
        &self,
        attn_mask: Option<&Tensor>,
        scale: f64,
        rate: DropRate,
        at: impl Into<MaskRegion>,
    ) -> Result<Tensor>;

    /// `dropout(softmax(scale * query keyᵀ + attn_mask)) value`, with this tensor as the query, without the matrix of
    /// probabilities ever being in memory, forward and backward.
    ///
    /// The query is of shape `[.., H, L, E]`, the key `[.., H, S, E]`, the value `[.., H, S, Ev]`, the result `[.., H, L, Ev]`, all of
    /// one dtype. It is [`sorix::Tensor::scaled_dot_product_attention`] on copies of the elements: the same bits, which agree with
    /// candle's operations one after another to rounding, and in what is dropped exactly. A query that sees no key gets
    /// zeros. Until backward copies of the inputs and of the result are kept, and a number for each query. The gradients
    /// have none themselves.
    ///
    /// # Errors
    ///
    /// See the [trait](DropoutExt); shapes or dtypes that do not fit; a mask in the graph:
    /// [`softmax_dropout`](Self::softmax_dropout) between two products gives it a gradient.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor, Var};
    /// use sorix_candle::{AttentionOptions, DropRate, DropoutExt, MaskKey};
    ///
    /// let of = || Var::randn(0f64, 1., (2, 4, 10, 8), &Device::Cpu);
    /// let (query, key, value) = (of()?, of()?, of()?);
    /// let (rate, mask) = (DropRate::new(0.1).unwrap(), MaskKey::new(42, 7));
    /// let options = AttentionOptions::new().dropout(rate, mask);
    /// let ys = query.scaled_dot_product_attention(&key, &value, options)?;
    ///
    /// let scores = query.matmul(&key.t()?)?;
    /// let p = scores.softmax_dropout(None, 1.0 / 8f64.sqrt(), rate, mask)?;
    /// let apart = p.matmul(&value)?;
    /// assert!((&ys - apart)?.abs()?.max_all()?.to_scalar::<f64>()? < 1e-12);
    /// assert_eq!(ys.backward()?.get(&key).unwrap().dims(), [2, 4, 10, 8]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    fn scaled_dot_product_attention(
        &self,
        key: &Tensor,
        value: &Tensor,
        options: AttentionOptions<'_>,
    ) -> Result<Tensor>;
}

impl DropoutExt for Tensor {
    fn dropout(&self, rate: DropRate, at: impl Into<MaskRegion>) -> Result<Tensor> {
        self.dropout_broadcast(rate, at, self.dims())
    }

    fn dropout_broadcast(
        &self,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        mask_shape: impl Into<Shape>,
    ) -> Result<Tensor> {
        let mask_shape = mask_shape.into();
        let draw = SliceDropout::broadcast(rate, at, self.dims(), mask_shape.dims());
        op::dropout(self, draw.map_err(Error::wrap)?, SaveMask::default())
    }

    fn dropout_add(
        &self,
        residual: &Tensor,
        rate: DropRate,
        at: impl Into<MaskRegion>,
    ) -> Result<Tensor> {
        let draw = || elements(self, rate, at).map(Some);
        op::dropout_add(self, residual, draw, SaveMask::default())
    }

    fn dropout_add_broadcast(
        &self,
        residual: &Tensor,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        mask_shape: impl Into<Shape>,
    ) -> Result<Tensor> {
        let mask_shape = mask_shape.into();
        let draw = || {
            let draw = SliceDropout::broadcast(rate, at, self.dims(), mask_shape.dims());
            draw.map(Some).map_err(Error::wrap)
        };
        op::dropout_add(self, residual, draw, SaveMask::default())
    }

    fn bias_dropout_add(
        &self,
        bias: &Tensor,
        residual: &Tensor,
        rate: DropRate,
        at: impl Into<MaskRegion>,
    ) -> Result<Tensor> {
        let draw = || elements(self, rate, at);
        op::bias_dropout_add(self, bias, residual, draw, SaveMask::default())
    }

    fn act_dropout(
        &self,
        activation: Activation,
        rate: DropRate,
        at: impl Into<MaskRegion>,
    ) -> Result<Tensor> {
        let draw = SliceDropout::activated(activation, rate, at, self.dims());
        op::dropout(self, draw.map_err(Error::wrap)?, SaveMask::default())
    }

    fn swiglu_dropout(
        &self,
        up: &Tensor,
        rate: DropRate,
        at: impl Into<MaskRegion>,
    ) -> Result<Tensor> {
        let draw = || elements(self, rate, at);
        op::swiglu_dropout(self, up, draw, SaveMask::default())
    }

    fn dropout_add_norm(
        &self,
        residual: &Tensor,
        norm: NormOptions<'_>,
        rate: DropRate,
        at: impl Into<MaskRegion>,
    ) -> Result<(Tensor, Tensor)> {
        let draw = || elements(self, rate, at);
        norm::dropout_add_norm(self, residual, norm, draw, SaveMask::default())
    }

    fn softmax_dropout(
        &self,
        attn_mask: Option<&Tensor>,
        scale: f64,
        rate: DropRate,
        at: impl Into<MaskRegion>,
    ) -> Result<Tensor> {
        attention::softmax_dropout(self, attn_mask, scale, rate, at.into(), SaveMask::default())
    }

    fn scaled_dot_product_attention(
        &self,
        key: &Tensor,
        value: &Tensor,
        options: AttentionOptions<'_>,
    ) -> Result<Tensor> {
        attention::attention(self, key, value, options)
    }
}

/// Inverted dropout with a decision for each element.
fn elements(xs: &Tensor, rate: DropRate, at: impl Into<MaskRegion>) -> Result<SliceDropout> {
    SliceDropout::broadcast(rate, at, xs.dims(), xs.dims()).map_err(Error::wrap)
}
