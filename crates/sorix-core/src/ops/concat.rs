//! Tensors joined along an axis.

use core::ops::Range;

use crate::autograd::{Function, Gradients, record};
use crate::dtype::dispatch;
use crate::error::{Call, ErrorKind, Operands, Result};
use crate::ops::elementwise::copy_into;
use crate::shape::{Layout, resolve_axis, resolve_new_axis};
use crate::tensor::{Tensor, operands};

impl Tensor {
    /// The tensors one after another along an axis; a negative axis counts from the last.
    ///
    /// # Errors
    ///
    /// If there is none; if they differ in dtype, or in shape other than along the axis; if the
    /// axis is out of range.
    ///
    /// ```
    /// use sorix_core::{Tensor, tensor};
    /// let (x, y) = (tensor([[1.0], [2.0]]), tensor([[3.0, 4.0], [5.0, 6.0]]));
    /// assert_eq!(Tensor::concat(&[&x, &y], 1)?.to_vec::<f64>()?, [1.0, 3.0, 4.0, 2.0, 5.0, 6.0]);
    /// let error = Tensor::concat(&[&x, &y], 0).unwrap_err();
    /// assert_eq!(error.to_string(), "concat(float64[2, 1], float64[2, 2]): expected shape [2, 1], got [2, 2]");
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn concat(tensors: &[&Self], axis: isize) -> Result<Self> {
        let operands = operands(tensors);
        let call = Call::new("concat", Operands::Several(&operands));
        let first = first(call, tensors)?;
        concat_resolved(call, tensors, resolve_axis(call, axis, first.shape())?)
    }

    /// The tensors, all of one shape, side by side along a new axis, which becomes axis number
    /// `axis`; a negative one counts from the last axis of the result.
    ///
    /// # Errors
    ///
    /// If there is none; if they differ in dtype or shape; if the result has no such axis.
    ///
    /// ```
    /// use sorix_core::{Tensor, tensor};
    /// let x = Tensor::stack(&[&tensor([1.0, 2.0]), &tensor([3.0, 4.0])], 1)?;
    /// assert_eq!(x.to_vec::<f64>()?, [1.0, 3.0, 2.0, 4.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn stack(tensors: &[&Self], axis: isize) -> Result<Self> {
        let operands = operands(tensors);
        let call = Call::new("stack", Operands::Several(&operands));
        let first = first(call, tensors)?;
        let axis = resolve_new_axis(call, axis, first.shape())?;
        let layers: Vec<Self> = tensors
            .iter()
            .map(|tensor| {
                call.expect(tensor, first.shape(), first.dtype())?;
                tensor.unsqueeze_resolved(call, axis)
            })
            .collect::<Result<_>>()?;
        concat_resolved(call, &layers.iter().collect::<Vec<_>>(), axis)
    }
}

fn first<'t>(call: Call<'_>, tensors: &[&'t Tensor]) -> Result<&'t Tensor> {
    let first = tensors.first().copied();
    first.ok_or_else(|| call.error(ErrorKind::NoTensors))
}

fn concat_resolved(call: Call<'_>, tensors: &[&Tensor], axis: usize) -> Result<Tensor> {
    let first = first(call, tensors)?;
    let mut shape = first.shape().to_vec();
    let mut parts: Vec<Range<usize>> = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        shape[axis] = tensor.shape().get(axis).copied().unwrap_or(shape[axis]);
        call.expect(tensor, &shape, first.dtype())?;
        let start = parts.last().map_or(0, |part| part.end);
        // The sum of lengths is too large to address where it saturates.
        parts.push(start..start.saturating_add(shape[axis]));
    }
    shape[axis] = parts.last().map_or(0, |part| part.end);

    let output = dispatch!(first.dtype(), T => Tensor::filled(call, &shape, |out: &mut [T]| {
        let whole = Layout::contiguous(&shape);
        for (tensor, part) in tensors.iter().zip(&parts) {
            let within = whole.clone().sliced(axis, part.start, 1, part.len());
            copy_into::<T>(within.view_mut(out), tensor.read().view());
        }
    }))?;
    Ok(record(output, tensors, || ConcatBackward {
        axis,
        parts: tensors
            .iter()
            .zip(parts)
            .map(|(tensor, part)| tensor.needs_grad().then_some(part))
            .collect(),
    }))
}

#[derive(Debug)]
struct ConcatBackward {
    axis: usize,
    /// Where each input lies along the axis; `None` if it needs no gradient.
    parts: Box<[Option<Range<usize>>]>,
}

impl Function for ConcatBackward {
    fn name(&self) -> &'static str {
        "ConcatBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let part = |part: &Option<Range<usize>>| {
            part.clone()
                .map(|part| grad.slice_resolved(Call::on(self.name(), &grad), self.axis, part, 1))
                .transpose()
        };
        self.parts.iter().map(part).collect()
    }
}
