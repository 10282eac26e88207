//! Functions that the kernels compute, with their derivatives: vectors of them, the same bits on every machine.

use sorix_kernels::{Buffers, Engine, Function as Formula};

use crate::autograd::{Function, Gradients, SavedTensor, record};
use crate::dtype::dispatch;
use crate::error::{Call, Result};
use crate::ops::elementwise;
use crate::shape::row_major;
use crate::tensor::Tensor;

/// What there is to know of such a function.
#[derive(Debug)]
pub(super) struct Mapped {
    /// The operation's name in errors.
    pub(super) op: &'static str,
    /// The name of its backward.
    pub(super) backward: &'static str,
    pub(super) function: Formula,
    pub(super) derivative: Formula,
}

/// The function of each element; its input is saved.
pub(super) fn apply(x: &Tensor, mapped: &'static Mapped) -> Result<Tensor> {
    let input = SavedTensor::new(x);
    let call = Call::on(mapped.op, x);
    let snapshot = x.read();
    let output = dispatch!(x.dtype(), T => {
        Tensor::try_filled(call, x.shape(), |out: &mut [T]| {
            let engine = Engine::active()?;
            let buffers = match snapshot.slice::<T>() {
                Some(elements) => Buffers::new(elements, out)?,
                None => {
                    elementwise::copy_into(row_major(out, x.shape()), snapshot.view::<T>());
                    Buffers::in_place(out)
                }
            };
            engine.map(mapped.function, buffers);
            Ok(())
        })
    })?;
    Ok(record(output, &[x], || MappedBackward { mapped, input }))
}

#[derive(Debug)]
struct MappedBackward {
    mapped: &'static Mapped,
    input: SavedTensor,
}

impl Function for MappedBackward {
    fn name(&self) -> &'static str {
        self.mapped.backward
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let x = self.input.get(self)?;
        let call = Call::on_two(self.name(), &x, &grad);
        let (x, grad) = (x.detach().contiguous()?, grad.detach().contiguous()?);
        let [x_now, grad_now] = Tensor::read_both(&x, &grad);
        let gradient = dispatch!(grad.dtype(), T => {
            Tensor::try_filled(call, x.shape(), |out: &mut [T]| {
                let buffers = Buffers::new(x_now.contiguous::<T>(), out)?;
                let buffers = buffers.with_elements(grad_now.contiguous())?;
                Engine::active()?.map(self.mapped.derivative, buffers);
                Ok(())
            })
        })?;
        Ok(vec![Some(gradient)])
    }
}
