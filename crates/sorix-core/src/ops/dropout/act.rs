//! Dropout of an activation, with a bias: one pass over memory.

use std::sync::Arc;

use sorix_kernels::{
    Activation, Affine, BitMask, Broadcast, Buffers, DropRate, Engine, MaskRegion,
};

use super::add::MaskedSum;
use super::{Map, Mask, Masked, SaveMask};
use crate::autograd::{Function, Gradients, SavedTensor, is_recorded, record, tape_mask};
use crate::dtype::dispatch;
use crate::error::{Call, Operands, Result};
use crate::tensor::Tensor;

impl Tensor {
    /// [`dropout`](Tensor::dropout) of an activation: `dropout(activation(x + bias))` in one pass. The bias, if
    /// there is one, is as long as the last axis of x, and has its dtype. At p = 0 it is the activation.
    ///
    /// 16 bits are rounded once: `x + bias` and that times the scale are rounded in the type computed in.
    ///
    /// Of [`Activation::Relu`] backward needs one bit for each element and not x: whether it was kept and
    /// `x + bias` was not at most 0. It is kept whatever `save` says, since from the key alone backward would
    /// need x, which is 16 to 64 times as much. A NaN that is kept stays NaN and lets its gradient through, as
    /// in [`relu`](Tensor::relu). For the other activations x, and the bias, are kept, and the mask as `save` says.
    ///
    /// The gradient of the bias is the sum of that of x over all axes but the last, in an order that no number
    /// of threads changes, and in the type computed in.
    ///
    /// Source: `launch_ls_dropout_act_bias` of LightSeq, for the activation and the bias.
    ///
    /// # Errors
    ///
    /// If the bias has not the length of the last axis and the dtype; and as [`dropout`](Tensor::dropout).
    ///
    /// ```
    /// use sorix_core::{Activation, DropRate, MaskKey, SaveMask, tensor};
    ///
    /// let x = tensor([[-1.0, 2.0], [3.0, -4.0]]).requires_grad(true);
    /// let bias = tensor([0.5, -0.5]).requires_grad(true);
    /// let (relu, key, save) = (Activation::Relu, MaskKey::new(7, 0), SaveMask::Bits);
    /// let y = x.act_dropout(relu, Some(&bias), DropRate::new(0.0)?, key, save)?;
    /// assert_eq!(y.to_vec::<f64>()?, [0.0, 1.5, 3.5, 0.0]);
    /// y.sum()?.backward()?;
    /// assert_eq!(x.grad().unwrap().to_vec::<f64>()?, [0.0, 1.0, 1.0, 0.0]);
    /// assert_eq!(bias.grad().unwrap().to_vec::<f64>()?, [1.0, 1.0]);
    ///
    /// let half = DropRate::new(0.5)?;
    /// let y = x.act_dropout(relu, Some(&bias), half, key, save)?;
    /// let apart = x.add(&bias)?.relu()?.dropout(half, key, save)?;
    /// assert_eq!(y.to_vec::<f64>()?, apart.to_vec::<f64>()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn act_dropout(
        &self,
        activation: Activation,
        bias: Option<&Self>,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        save: SaveMask,
    ) -> Result<Self> {
        let operands: Vec<_> = [Some(self), bias].into_iter().flatten().collect();
        let operands = crate::tensor::operands(&operands);
        let call = Call::new("act_dropout", Operands::Several(&operands));
        self.expect_bias(call, bias)?;
        let at = at.into();
        let checked = at.check_len(self.numel());
        checked.map_err(|error| call.kernel_error(error))?;
        tape_mask(rate, at, self.numel());
        let x = self.contiguous()?;
        let bias = bias.map(Self::contiguous).transpose()?;
        let inputs: Vec<&Self> = [Some(&x), bias.as_ref()].into_iter().flatten().collect();
        // Of the rectifier bits are all that is kept, whatever was asked for.
        let decides = activation == Activation::Relu;
        let mut bits = (is_recorded(&inputs) && (decides || save == SaveMask::Bits))
            .then(|| BitMask::try_new(x.numel()))
            .transpose()
            .map_err(|error| call.kernel_error(error))?;
        let output = dispatch!(x.dtype(), T => {
            let [elements, row] = Self::read_both(&x, bias.as_ref().unwrap_or(&x));
            let elements: &[T] = elements.contiguous();
            Self::try_filled(call, self.shape(), |y: &mut [T]| {
                let mut buffers = Buffers::new(elements, y)?;
                if bias.is_some() {
                    buffers = buffers.with_row(row.contiguous())?;
                }
                Engine::active()?.act_dropout(activation, rate, at, buffers, bits.as_mut())
            })
        })?;
        let mask = bits.map_or(Mask::Key(rate, at), |bits| Mask::Bits(Arc::new(bits)));
        if decides {
            // Not as inverted dropout, which takes p = 0 for a mask that keeps everything.
            let masked = Masked {
                mask,
                shape: Broadcast::full(x.numel()),
                map: Map::Affine(Affine::scale(rate.scale())),
            };
            let dropped = MaskedSum::new(masked, &x, bias.as_ref());
            return Ok(record(output, &inputs, || ReluDropoutBackward(dropped)));
        }
        let backward = || ActDropoutBackward {
            activation,
            rate,
            mask,
            x: SavedTensor::new(&x),
            bias: bias.as_ref().map(SavedTensor::new),
            of_x: x.needs_grad(),
            of_bias: bias.as_ref().is_some_and(Self::needs_grad),
        };
        Ok(record(output, &inputs, backward))
    }
}

/// Of an activation whose derivative needs its input.
#[derive(Debug)]
struct ActDropoutBackward {
    activation: Activation,
    rate: DropRate,
    mask: Mask,
    x: SavedTensor,
    bias: Option<SavedTensor>,
    of_x: bool,
    of_bias: bool,
}

impl Function for ActDropoutBackward {
    fn name(&self) -> &'static str {
        "ActDropoutBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let x = self.x.get(self)?;
        let bias = self.bias.as_ref().map(|bias| bias.get(self)).transpose()?;
        let call = Call::on_two(self.name(), &x, &grad);
        let grad = grad.detach().contiguous()?;
        let dx = dispatch!(grad.dtype(), T => {
            let row = bias.as_ref().unwrap_or(&x);
            let [elements, dy, row] = Tensor::read_all([&x, &grad, row]);
            Tensor::try_filled(call, x.shape(), |dx: &mut [T]| {
                let buffers = Buffers::new(elements.contiguous(), dx)?;
                let mut buffers = buffers.with_elements(dy.contiguous())?;
                if bias.is_some() {
                    buffers = buffers.with_row(row.contiguous())?;
                }
                let (engine, derivative) = (Engine::active()?, self.activation.derivative());
                match &self.mask {
                    Mask::Bits(bits) => engine.map_apply(derivative, self.rate, &**bits, buffers),
                    &Mask::Key(rate, at) => engine.map_dropout(derivative, rate, at, buffers, None),
                }
            })
        })?;
        let of_bias = bias.filter(|_| self.of_bias);
        let of_bias = of_bias.map(|bias| dx.clone().sum_to(self.name(), bias.shape()));
        let of_bias = of_bias.transpose()?;
        let mut gradients = vec![Some(dx).filter(|_| self.of_x)];
        if self.bias.is_some() {
            gradients.push(of_bias);
        }
        Ok(gradients)
    }
}

#[derive(Debug)]
struct ReluDropoutBackward(MaskedSum);

impl Function for ReluDropoutBackward {
    fn name(&self) -> &'static str {
        "ReluDropoutBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        self.0.gradients(self.name(), grad)
    }
}
