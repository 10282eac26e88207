//! Tensors of the CPU as slices.

use candle_core::{Error, Result, Storage, Tensor, WithDType};

use crate::op::range;

/// A tensor of the CPU in row-major order, apart from the graph, in the dtype of `S`.
pub(crate) fn laid_out<S: WithDType>(tensor: &Tensor) -> Result<Tensor> {
    tensor.detach().to_dtype(S::DTYPE)?.contiguous()
}

/// What `f` makes of the elements of such tensors, of which some may be absent.
pub(crate) fn with_elements<S: WithDType, R, const N: usize>(
    op: &'static str,
    tensors: [Option<&Tensor>; N],
    f: impl FnOnce([Option<&[S]>; N]) -> Result<R>,
) -> Result<R> {
    let guards = tensors.map(|tensor| tensor.map(Tensor::storage_and_layout));
    let mut all = [None; N];
    for (elements, guard) in all.iter_mut().zip(&guards) {
        if let Some((storage, layout)) = guard {
            let Storage::Cpu(storage) = &**storage else {
                return Err(Error::Msg(format!("{op}: a tensor that is not of the CPU")).bt());
            };
            let range = range(layout, op)?;
            *elements = Some(&storage.as_slice::<S>()?[range]);
        }
    }
    f(all)
}
