//! A residual plus dropout, with a bias or with one decision for many elements: one pass over memory.

use std::sync::Arc;

use sorix_kernels::{BitMask, Broadcast, Buffers, DropRate, Engine, MaskRegion};

use super::{Map, Mask, Masked, SaveMask};
use crate::autograd::{Function, Gradients, is_recorded, record, tape_mask};
use crate::dtype::dispatch;
use crate::error::{Call, Operands, Result};
use crate::tensor::Tensor;

impl Tensor {
    /// [`dropout`](Tensor::dropout) of this tensor, added to a residual of the same shape and dtype:
    /// `residual + dropout(x)` in one pass. At p = 0 it is the sum.
    ///
    /// Product and sum are rounded in the type computed in, and once more to the dtype, so that 16 bits
    /// are rounded once where the two operations apart round twice. The gradient of the residual is that
    /// of the result itself, not a copy.
    ///
    /// Source: `fused_dropout_add` of Paddle; `bias_dropout_add` of Megatron-LM, without its bias.
    ///
    /// # Errors
    ///
    /// If shapes or dtypes differ, and as [`dropout`](Tensor::dropout).
    ///
    /// ```
    /// use sorix_core::{DropRate, MaskKey, SaveMask, tensor};
    ///
    /// let x = tensor([1.0, 2.0, 3.0]).requires_grad(true);
    /// let residual = tensor([10.0, 20.0, 30.0]);
    /// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(7, 0));
    /// let y = x.dropout_add(&residual, rate, key, SaveMask::Replay)?;
    /// let apart = residual.add(&x.dropout(rate, key, SaveMask::Replay)?)?;
    /// assert_eq!(y.to_vec::<f64>()?, apart.to_vec::<f64>()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn dropout_add(
        &self,
        residual: &Self,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        save: SaveMask,
    ) -> Result<Self> {
        let call = Call::on_two("dropout_add", self, residual);
        let shape = Broadcast::full(self.numel());
        self.added_to(call, None, residual, (rate, at.into()), shape, save)
    }

    /// [`dropout_add`](Tensor::dropout_add) of this tensor with a bias: `residual + dropout(x + bias)` in one
    /// pass. The bias is as long as the last axis of x, and has its dtype.
    ///
    /// 16 bits are rounded once, at the end: `x + bias`, that times the scale, and that plus the residual are
    /// rounded in the type computed in. The gradient of the bias is the sum of that of x over all axes but
    /// the last, in an order that no number of threads changes, and in the type computed in.
    ///
    /// Source: `bias_dropout_add` of Megatron-LM.
    ///
    /// # Errors
    ///
    /// If the residual has not the shape and dtype of x, or the bias not the length of the last axis and the
    /// dtype; and as [`dropout`](Tensor::dropout).
    ///
    /// ```
    /// use sorix_core::{DropRate, MaskKey, SaveMask, tensor};
    ///
    /// let x = tensor([[1.0, 2.0], [3.0, 4.0]]);
    /// let (bias, residual) = (tensor([0.5, -0.5]).requires_grad(true), tensor([[10.0; 2]; 2]));
    /// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(7, 0));
    /// let y = x.bias_dropout_add(&bias, &residual, rate, key, SaveMask::Bits)?;
    /// let apart = residual.add(&x.add(&bias)?.dropout(rate, key, SaveMask::Bits)?)?;
    /// assert_eq!(y.to_vec::<f64>()?, apart.to_vec::<f64>()?);
    ///
    /// let all = x.bias_dropout_add(&bias, &residual, DropRate::new(0.0)?, key, SaveMask::Bits)?;
    /// assert_eq!(all.to_vec::<f64>()?, [11.5, 11.5, 13.5, 13.5]);
    /// all.sum()?.backward()?;
    /// assert_eq!(bias.grad().unwrap().to_vec::<f64>()?, [2.0, 2.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn bias_dropout_add(
        &self,
        bias: &Self,
        residual: &Self,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        save: SaveMask,
    ) -> Result<Self> {
        let operands = [self.operand(), bias.operand(), residual.operand()];
        let call = Call::new("bias_dropout_add", Operands::Several(&operands));
        let shape = Broadcast::full(self.numel());
        self.added_to(call, Some(bias), residual, (rate, at.into()), shape, save)
    }

    /// [`dropout_add`](Tensor::dropout_add) by a mask of a smaller shape, as
    /// [`dropout_broadcast`](Tensor::dropout_broadcast) has it: one bit decides on all elements along the axes
    /// where `mask_shape` is 1.
    ///
    /// With one decision for each sample, `[n, 1, 1]` for an `[n, t, c]` tensor, it is stochastic depth and
    /// the residual in one pass: `residual + drop_path(x)`. Elements that are dropped in runs of 512 and more
    /// are not read.
    ///
    /// Source: Huang et al., *Deep networks with stochastic depth*, ECCV 2016.
    ///
    /// # Errors
    ///
    /// If shapes or dtypes differ, and as [`dropout_broadcast`](Tensor::dropout_broadcast).
    ///
    /// ```
    /// use sorix_core::{DType, DropRate, MaskKey, SaveMask, Tensor};
    ///
    /// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(7, 0));
    /// let x = Tensor::ones([64, 1000], DType::F32)?;
    /// let residual = Tensor::full([64, 1000], 10.0, DType::F32)?;
    /// let y = x.dropout_add_broadcast(&residual, rate, key, &[64, 1], SaveMask::Replay)?;
    /// let y = y.to_vec::<f32>()?;
    /// assert!(y.chunks(1000).all(|sample| sample == [10.0; 1000] || sample == [12.0; 1000]));
    /// assert!(y.contains(&10.0) && y.contains(&12.0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn dropout_add_broadcast(
        &self,
        residual: &Self,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        mask_shape: &[usize],
        save: SaveMask,
    ) -> Result<Self> {
        let call = Call::on_two("dropout_add_broadcast", self, residual);
        let shape = self.covered_by(call, mask_shape)?;
        self.added_to(call, None, residual, (rate, at.into()), shape, save)
    }

    /// The operation of which all are cases.
    fn added_to(
        &self,
        call: Call<'_>,
        bias: Option<&Self>,
        residual: &Self,
        (rate, at): (DropRate, MaskRegion),
        shape: Broadcast,
        save: SaveMask,
    ) -> Result<Self> {
        call.expect_operand(residual.operand(), self.shape(), self.dtype())?;
        self.expect_bias(call, bias)?;
        let checked = at.check_len(shape.mask_len());
        checked.map_err(|error| call.kernel_error(error))?;
        tape_mask(rate, at, shape.mask_len());
        let (x, residual) = (self.contiguous()?, residual.contiguous()?);
        let bias = bias.map(Self::contiguous).transpose()?;
        let inputs = [Some(&x), bias.as_ref(), Some(&residual)];
        let inputs: Vec<&Self> = inputs.into_iter().flatten().collect();
        // The residual alone needs no mask.
        let mut bits = (matches!(save, SaveMask::Bits) && is_recorded(&inputs[..inputs.len() - 1]))
            .then(|| BitMask::try_new(shape.mask_len()))
            .transpose()
            .map_err(|error| call.kernel_error(error))?;
        let output = dispatch!(x.dtype(), T => {
            let row = bias.as_ref().unwrap_or(&x);
            let [x, residual, row] = Self::read_all([&x, &residual, row]);
            Self::try_filled(call, self.shape(), |y: &mut [T]| {
                let buffers = Buffers::new(residual.contiguous(), y)?;
                let mut buffers = buffers.with_elements(x.contiguous())?;
                if bias.is_some() {
                    buffers = buffers.with_row(row.contiguous())?;
                }
                let engine = Engine::active()?;
                if shape.is_full() {
                    return engine.dropout_add(rate, at, buffers, bits.as_mut());
                }
                let mut made;
                let bits = match &mut bits {
                    Some(bits) => bits,
                    None => {
                        made = BitMask::try_new(shape.mask_len())?;
                        &mut made
                    }
                };
                engine.fill_mask(rate, at, bits)?;
                engine.dropout_add_broadcast(rate, &*bits, &shape, buffers)
            })
        })?;
        let mask = bits.map_or(Mask::Key(rate, at), |bits| Mask::Bits(Arc::new(bits)));
        let map = Map::Inverted(rate);
        let dropped = MaskedSum::new(Masked { mask, shape, map }, &x, bias.as_ref());
        let of_residual = residual.needs_grad();
        let function = || DropoutAddBackward {
            dropped,
            of_residual,
        };
        Ok(record(output, &inputs, function))
    }

    /// An error unless the bias, if there is one, is as long as the last axis of this tensor, and of its dtype.
    pub(super) fn expect_bias(&self, call: Call<'_>, bias: Option<&Self>) -> Result<()> {
        let last = &self.shape()[self.ndim().saturating_sub(1)..];
        bias.map_or(Ok(()), |bias| {
            call.expect_operand(bias.operand(), last, self.dtype())
        })
    }
}

/// What makes the gradients of an input that was dropped from, and of the bias that was added to it before.
#[derive(Debug)]
pub(super) struct MaskedSum {
    /// If either gets one.
    masked: Option<Masked>,
    of_x: bool,
    /// Of a bias, if there is one, its shape, if it gets a gradient.
    bias: Option<Option<Box<[usize]>>>,
}

impl MaskedSum {
    pub(super) fn new(masked: Masked, x: &Tensor, bias: Option<&Tensor>) -> Self {
        let of_x = x.needs_grad();
        let bias = bias.map(|bias| bias.needs_grad().then(|| bias.shape().into()));
        let is_needed = of_x || matches!(bias, Some(Some(_)));
        Self {
            masked: is_needed.then_some(masked),
            of_x,
            bias,
        }
    }

    /// The gradient of the input, and that of the bias, if there is one.
    pub(super) fn gradients(&self, name: &'static str, grad: Tensor) -> Result<Gradients> {
        let dx = self.masked.as_ref();
        let dx = dx.map(|masked| masked.gradient(name, grad)).transpose()?;
        let of_bias = self.bias.as_ref().map(|shape| match (shape, &dx) {
            (Some(shape), Some(dx)) => dx.clone().sum_to(name, shape).map(Some),
            _ => Ok(None),
        });
        let of_bias = of_bias.transpose()?;
        let of_x = dx.filter(|_| self.of_x);
        Ok([of_x].into_iter().chain(of_bias).collect())
    }
}

#[derive(Debug)]
struct DropoutAddBackward {
    dropped: MaskedSum,
    of_residual: bool,
}

impl Function for DropoutAddBackward {
    fn name(&self) -> &'static str {
        "DropoutAddBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        if !self.of_residual {
            // Nobody else has this gradient, so that it can become the next one where it lies.
            let mut gradients = self.dropped.gradients(self.name(), grad)?;
            gradients.push(None);
            return Ok(gradients);
        }
        let mut gradients = self.dropped.gradients(self.name(), grad.clone())?;
        gradients.push(Some(grad));
        Ok(gradients)
    }
}
