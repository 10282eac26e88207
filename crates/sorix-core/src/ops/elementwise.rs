//! Loops over the elements of one or two tensors, by ndarray.
//!
//! f16 and bf16 are widened to f32, computed with, and rounded once to the nearest: an operation
//! gives the closest representable result, as it does for f32 and f64.
//!
//! Loops that make a new tensor run on the threads of the current rayon pool where they are long
//! enough (feature `parallel`). Each element is computed alone, so the number of threads does not show
//! in a result. Loops that write in place stay on this thread: they hold the lock of what they write,
//! and a thread of the pool that waits for its helpers may take up another job that wants it.

use ndarray::{ArrayViewD, ArrayViewMutD, Zip};

use crate::autograd::is_grad_enabled;
use crate::dtype::{Scalar, dispatch};
use crate::error::{Call, ErrorKind, Result};
use crate::shape::{Layout, broadcast, checked_numel, row_major};
use crate::storage::Buffer;
use crate::tensor::Tensor;

/// What a function costs per element, compared with moving the element to and from memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cost {
    /// Nothing that shows: an addition, a comparison.
    Move = 1,
    /// A function of the mathematical library: 4 to 25 nanoseconds, where an addition to an f32 in
    /// cache took 0.13.
    Function = 32,
}

/// Runs `$zip.for_each($f)`, on several threads where that pays. `$bytes` is what the loop would have
/// to move for a copy to take as long.
macro_rules! for_each {
    ($zip:expr, $bytes:expr, $f:expr) => {{
        #[cfg(feature = "parallel")]
        if ::sorix_kernels::parallel::threads_pay($bytes) {
            ::sorix_kernels::parallel::waiting(|| $zip.par_for_each($f));
        } else {
            $zip.for_each($f);
        }
        #[cfg(not(feature = "parallel"))]
        {
            let _ = $bytes;
            $zip.for_each($f);
        }
    }};
}
pub(crate) use for_each;

/// `f` of each element.
pub(crate) fn map<T: Scalar>(
    call: Call<'_>,
    x: &Tensor,
    cost: Cost,
    f: impl Fn(T::Acc) -> T::Acc + Send + Sync,
) -> Result<Tensor> {
    convert_at(call, x, cost, |x: T| T::from_acc(f(x.to_acc())))
}

/// `f` of each element, in another dtype.
pub(crate) fn convert<T: Scalar, U: Scalar>(
    call: Call<'_>,
    x: &Tensor,
    f: impl Fn(T) -> U + Send + Sync,
) -> Result<Tensor> {
    convert_at(call, x, Cost::Move, f)
}

fn convert_at<T: Scalar, U: Scalar>(
    call: Call<'_>,
    x: &Tensor,
    cost: Cost,
    f: impl Fn(T) -> U + Send + Sync,
) -> Result<Tensor> {
    let snapshot = x.read();
    Tensor::filled(call, x.shape(), |out: &mut [U]| {
        let bytes = out.len() * (size_of::<T>() + size_of::<U>());
        let zip = Zip::from(row_major(out, x.shape())).and(snapshot.view::<T>());
        for_each!(zip, bytes.saturating_mul(cost as usize), |out, &x| *out =
            f(x));
    })
}

/// `f` of each pair of elements of tensors that broadcast to each other.
pub(crate) fn zip<T: Scalar>(
    call: Call<'_>,
    left: &Tensor,
    right: &Tensor,
    cost: Cost,
    f: impl Fn(T::Acc, T::Acc) -> T::Acc + Send + Sync,
) -> Result<Tensor> {
    let shape = broadcast(call, left.shape(), right.shape())?;
    let (left, right) = (
        left.broadcast_to(call, &shape)?,
        right.broadcast_to(call, &shape)?,
    );
    let (left, right) = (left.read(), right.read());
    Tensor::filled(call, &shape, |out: &mut [T]| {
        let bytes = 3 * size_of_val(out);
        let zip = Zip::from(row_major(out, &shape))
            .and(left.view::<T>())
            .and(right.view::<T>());
        for_each!(
            zip,
            bytes.saturating_mul(cost as usize),
            |out, &left, &right| {
                *out = T::from_acc(f(left.to_acc(), right.to_acc()));
            }
        );
    })
}

/// Copies the elements of an array into another one of its shape.
pub(crate) fn copy_into<T: Scalar>(out: ArrayViewMutD<'_, T>, from: ArrayViewD<'_, T>) {
    let bytes = 2 * out.len() * size_of::<T>();
    let zip = Zip::from(out).and(from);
    for_each!(zip, bytes, |out, &from| *out = from);
}

/// The elements row-major in memory of their own.
pub(crate) fn copy(call: Call<'_>, x: &Tensor) -> Result<Tensor> {
    dispatch!(x.dtype(), T => convert(call, x, |x: T| x))
}

/// Zeros of this shape, with the elements of `x` at those that `within` selects of them.
pub(crate) fn scatter(
    call: Call<'_>,
    shape: &[usize],
    within: &Layout,
    x: &Tensor,
) -> Result<Tensor> {
    let bytes = checked_numel(call, shape, x.dtype())? * x.dtype().size();
    let mut zeros = Buffer::zeroed(call, bytes)?;
    dispatch!(x.dtype(), T => {
        copy_into::<T>(within.view_mut(zeros.as_mut_slice()), x.read().view());
    });
    Ok(Tensor::from_buffer(zeros, shape, x.dtype()))
}

/// The tensor row-major in memory that nothing else uses: its own where that is so, else a copy.
pub(crate) fn unshared(op: &'static str, x: Tensor) -> Result<Tensor> {
    let (shape, dtype) = (x.shape().to_vec(), x.dtype());
    match x.try_into_buffer() {
        Ok(buffer) => Ok(Tensor::from_buffer(buffer, &shape, dtype)),
        Err(shared) => copy(Call::on(op, &shared), &shared),
    }
}

/// `target += addend`; same shape and dtype.
pub(crate) fn add_in_place(target: &Tensor, addend: &Tensor) -> Result<()> {
    let call = Call::on_two("add_in_place", target, addend);
    dispatch!(target.dtype(), T => update(call, target, addend, |target: T, addend: T| {
        T::from_acc(target.to_acc() + addend.to_acc())
    }))
}

/// See [`Tensor::assign`].
pub(crate) fn assign(target: &Tensor, source: &Tensor) -> Result<()> {
    let call = Call::on_two("assign", target, source);
    if is_grad_enabled() && (target.needs_grad() || source.needs_grad()) {
        return Err(call.error(ErrorKind::WriteNeedsNoGrad));
    }
    call.expect(source, target.shape(), target.dtype())?;
    dispatch!(target.dtype(), T => update(call, target, source, |_, source: T| source))
}

/// `target = f(target, source)` in place; same shape and dtype.
fn update<T: Scalar>(
    call: Call<'_>,
    target: &Tensor,
    source: &Tensor,
    f: impl Fn(T, T) -> T,
) -> Result<()> {
    if target.is_expanded() {
        return Err(call.error(ErrorKind::WriteToExpanded {
            strides: target.strides().to_vec(),
        }));
    }
    let source = source.read();
    target.storage().write(call, |buffer| {
        Zip::from(target.layout().view_mut(buffer.as_mut_slice()))
            .and(source.view::<T>())
            .for_each(|target, &source| *target = f(*target, source));
    })
}
