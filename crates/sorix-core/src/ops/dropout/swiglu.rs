//! Dropout of a gated activation: one pass over memory.

use std::sync::Arc;

use sorix_kernels::{BitMask, Buffers, DropRate, Engine, Function as Formula, MaskRegion};

use super::{Mask, SaveMask, filled};
use crate::autograd::{Function, Gradients, SavedTensor, is_recorded, record, tape_mask};
use crate::dtype::dispatch;
use crate::error::{Call, Result};
use crate::tensor::Tensor;

impl Tensor {
    /// [`dropout`](Tensor::dropout) of `silu(gate) * up` in one pass, this tensor being the gate. `up` has its
    /// shape and dtype. At p = 0 it is the product.
    ///
    /// Value and products are rounded in the type computed in, so that 16 bits are rounded once. For backward gate
    /// and up are kept, and the mask as `save` says.
    ///
    /// Source: Shazeer, *GLU variants improve transformer*, 2020.
    ///
    /// # Errors
    ///
    /// If shapes or dtypes differ, and as [`dropout`](Tensor::dropout).
    ///
    /// ```
    /// use sorix_core::{DropRate, MaskKey, SaveMask, tensor};
    ///
    /// let gate = tensor([0.0, 1.0, -2.0]).requires_grad(true);
    /// let up = tensor([3.0, 4.0, 5.0]).requires_grad(true);
    /// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(7, 0));
    /// let y = gate.swiglu_dropout(&up, rate, key, SaveMask::Replay)?;
    /// let silu = gate.mul(&gate.sigmoid()?)?;
    /// let apart = silu.mul(&up)?.dropout(rate, key, SaveMask::Replay)?;
    /// let differences = y.sub(&apart)?.to_vec::<f64>()?;
    /// assert!(differences.iter().all(|difference| difference.abs() < 1e-15));
    ///
    /// let all = gate.swiglu_dropout(&up, DropRate::new(0.0)?, key, SaveMask::Bits)?;
    /// all.sum()?.backward()?;
    /// // silu(0) is 0, and its derivative 1 / 2.
    /// assert_eq!(up.grad().unwrap().to_vec::<f64>()?[0], 0.0);
    /// assert_eq!(gate.grad().unwrap().to_vec::<f64>()?[0], 1.5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn swiglu_dropout(
        &self,
        up: &Self,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        save: SaveMask,
    ) -> Result<Self> {
        let call = Call::on_two("swiglu_dropout", self, up);
        call.expect_operand(up.operand(), self.shape(), self.dtype())?;
        let at = at.into();
        let checked = at.check_len(self.numel());
        checked.map_err(|error| call.kernel_error(error))?;
        tape_mask(rate, at, self.numel());
        let (gate, up) = (self.contiguous()?, up.contiguous()?);
        let inputs = [&gate, &up];
        let mut bits = (is_recorded(&inputs) && save == SaveMask::Bits)
            .then(|| BitMask::try_new(gate.numel()))
            .transpose()
            .map_err(|error| call.kernel_error(error))?;
        let output = dispatch!(gate.dtype(), T => {
            let [gate, up] = Self::read_both(&gate, &up);
            Self::try_filled(call, self.shape(), |y: &mut [T]| {
                let buffers = Buffers::new(gate.contiguous(), y)?;
                let buffers = buffers.with_elements(up.contiguous())?;
                let engine = Engine::active()?;
                engine.map_dropout(Formula::Silu, rate, at, buffers, bits.as_mut())
            })
        })?;
        let mask = bits.map_or(Mask::Key(rate, at), |bits| Mask::Bits(Arc::new(bits)));
        Ok(record(output, &inputs, || SwigluDropoutBackward {
            rate,
            mask,
            gate: SavedTensor::new(&gate),
            up: SavedTensor::new(&up),
            of_gate: gate.needs_grad(),
            of_up: up.needs_grad(),
        }))
    }
}

#[derive(Debug)]
struct SwigluDropoutBackward {
    rate: DropRate,
    mask: Mask,
    gate: SavedTensor,
    up: SavedTensor,
    of_gate: bool,
    of_up: bool,
}

impl Function for SwigluDropoutBackward {
    fn name(&self) -> &'static str {
        "SwigluDropoutBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let (gate, up) = (self.gate.get(self)?, self.up.get(self)?);
        let call = Call::on_two(self.name(), &gate, &grad);
        let grad = grad.detach().contiguous()?;
        let made;
        let bits = match &self.mask {
            Mask::Bits(bits) => &**bits,
            &Mask::Key(rate, at) => {
                let filled = filled(rate, at, gate.numel());
                made = filled.map_err(|error| call.kernel_error(error))?;
                &made
            }
        };
        // One after the other, since a tensor is filled by itself.
        let gradient = |of_gate: bool| {
            dispatch!(grad.dtype(), T => {
                let [gate_now, up_now, dy] = Tensor::read_all([&gate, &up, &grad]);
                Tensor::try_filled(call, gate.shape(), |out: &mut [T]| {
                    let (d_gate, d_up) = if of_gate { (Some(out), None) } else { (None, Some(out)) };
                    let [gate, up, dy] = [&gate_now, &up_now, &dy].map(|now| now.contiguous::<T>());
                    let engine = Engine::active()?;
                    engine.swiglu_dropout_backward(self.rate, bits, gate, up, dy, d_gate, d_up)
                })
            })
        };
        let d_gate = self.of_gate.then(|| gradient(true)).transpose()?;
        let d_up = self.of_up.then(|| gradient(false)).transpose()?;
        Ok(vec![d_gate, d_up])
    }
}
