//! Dropout of an activation, with a bias: one pass over memory.

use std::sync::Arc;

use sorix_kernels::{
    Activation, Affine, BitMask, Broadcast, Buffers, DropRate, Engine, MaskRegion,
};

use super::add::MaskedSum;
use super::{Map, Mask, Masked, SaveMask};
use crate::autograd::{Function, Gradients, is_recorded, record, tape_mask};
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
    /// in [`relu`](Tensor::relu).
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
        // Of the rectifier bits are all that is kept, whatever was asked for.
        let _ = save;
        let x = self.contiguous()?;
        let bias = bias.map(Self::contiguous).transpose()?;
        let inputs: Vec<&Self> = [Some(&x), bias.as_ref()].into_iter().flatten().collect();
        let mut bits = is_recorded(&inputs)
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
        let Some(bits) = bits else {
            return Ok(output);
        };
        // Not as inverted dropout, which takes p = 0 for a mask that keeps everything.
        let masked = Masked {
            mask: Mask::Bits(Arc::new(bits)),
            shape: Broadcast::full(x.numel()),
            map: Map::Affine(Affine::scale(rate.scale())),
        };
        let dropped = MaskedSum::new(masked, &x, bias.as_ref());
        Ok(record(output, &inputs, || ReluDropoutBackward(dropped)))
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
