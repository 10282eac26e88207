//! Loops over the elements of one or two tensors, by ndarray.
//!
//! f16 and bf16 are widened to f32, computed with, and rounded once to the nearest: an operation
//! gives the closest representable result, as it does for f32 and f64.
//!
//! Loops that make a new tensor run on the threads of the current rayon pool if they are long
//! enough (feature `parallel`). Each element is computed alone, so the number of threads does not show
//! in a result. Loops that write in place stay on this thread: they hold the lock of what they write,
//! and a thread of the pool that waits for its helpers may take up another job that wants it.

use ndarray::{ArrayViewD, ArrayViewMutD, Axis, Zip};
#[cfg(feature = "parallel")]
use sorix_kernels::internal::parallel;

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

/// Runs `$zip.for_each($f)`, on several threads if that pays. `$bytes` is what the loop would have
/// to move for a copy to take as long.
macro_rules! for_each {
    ($zip:expr, $bytes:expr, $f:expr) => {{
        #[cfg(feature = "parallel")]
        if ::sorix_kernels::internal::parallel::threads_pay($bytes) {
            ::sorix_kernels::internal::parallel::waiting(|| $zip.par_for_each($f));
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

/// The elements in the type that they are computed in, apart from the graph; exact.
pub(crate) fn widen<T: Scalar>(call: Call<'_>, x: &Tensor) -> Result<Tensor> {
    /// Elements that a thread converts at a time. f16 one by one took ten times as long.
    const PIECE: usize = 4096;

    if T::DTYPE == T::Acc::DTYPE {
        return Ok(x.detach());
    }
    let snapshot = x.read();
    let Some(elements) = snapshot.slice::<T>() else {
        return convert(call, x, T::to_acc);
    };
    Tensor::filled(call, x.shape(), |out: &mut [T::Acc]| {
        let bytes = out.len() * (size_of::<T>() + size_of::<T::Acc>());
        for_each_chunk(out, PIECE, bytes, |k, out| {
            T::widen(&elements[k * PIECE..][..out.len()], out);
        });
    })
}

fn convert_at<T: Scalar, U: Scalar>(
    call: Call<'_>,
    x: &Tensor,
    cost: Cost,
    f: impl Fn(T) -> U + Send + Sync,
) -> Result<Tensor> {
    let snapshot = x.read();
    Tensor::filled(call, x.shape(), |out: &mut [U]| {
        map_into(row_major(out, x.shape()), snapshot.view(), cost, f);
    })
}

/// `f` of each element of an array, into another one of its shape.
fn map_into<T: Scalar, U: Scalar>(
    out: ArrayViewMutD<'_, U>,
    from: ArrayViewD<'_, T>,
    cost: Cost,
    f: impl Fn(T) -> U + Send + Sync,
) {
    let bytes = out.len() * (size_of::<T>() + size_of::<U>());
    let bytes = bytes.saturating_mul(cost as usize);
    if let Some(near) = crosswise(&from) {
        return map_tiles(out, from, near, bytes, f);
    }
    let zip = Zip::from(out).and(from);
    for_each!(zip, bytes, |out, &x| *out = f(x));
}

/// The axis along which elements lie side by side, if that is not the last one.
fn crosswise<T>(from: &ArrayViewD<'_, T>) -> Option<Axis> {
    let last = Axis(from.ndim().checked_sub(1)?);
    let mut axes = (0..last.index()).map(Axis);
    let near = axes.find(|&axis| from.len_of(axis) > 1 && from.stride_of(axis) == 1)?;
    (from.len_of(last) > 1 && from.stride_of(last) != 1).then_some(near)
}

/// [`map_into`] of an array whose elements lie side by side along `near` and not along the last axis:
/// tile by tile, so that what comes into the cache with an element is used before it has to go.
///
/// A transposed copy of 4096 x 4096 f32 took 50 times as long as a plain one row by row, and five times
/// with these tiles.
fn map_tiles<T: Scalar, U: Scalar>(
    mut out: ArrayViewMutD<'_, U>,
    from: ArrayViewD<'_, T>,
    near: Axis,
    bytes: usize,
    f: impl Fn(T) -> U + Send + Sync,
) {
    /// Places of the near axis in a tile.
    const NEAR: usize = 64;
    /// Places of the last axis in a tile: a cache line of f32.
    const LAST: usize = 16;

    let last = Axis(from.ndim() - 1);
    let map_slab = |(mut out, from): (ArrayViewMutD<'_, U>, ArrayViewD<'_, T>)| {
        let outs = out.axis_chunks_iter_mut(last, LAST);
        for (mut out, from) in outs.zip(from.axis_chunks_iter(last, LAST)) {
            out.zip_mut_with(&from, |out, &x| *out = f(x));
        }
    };
    let slabs = from.axis_chunks_iter(near, NEAR);
    let outs = out.axis_chunks_iter_mut(near, NEAR);
    #[cfg(feature = "parallel")]
    if parallel::threads_pay(bytes) {
        use ndarray::parallel::prelude::*;

        let slabs = outs.into_par_iter().zip(slabs);
        return parallel::waiting(|| slabs.for_each(map_slab));
    }
    let _ = bytes;
    outs.zip(slabs).for_each(map_slab);
}

/// `f` of each pair of elements of tensors that broadcast to each other.
pub(crate) fn zip<T: Scalar>(
    call: Call<'_>,
    left: &Tensor,
    right: &Tensor,
    cost: Cost,
    f: impl Fn(T::Acc, T::Acc) -> T::Acc + Send + Sync,
) -> Result<Tensor> {
    zip_convert(call, left, right, cost, |left: T, right: T| {
        T::from_acc(f(left.to_acc(), right.to_acc()))
    })
}

/// `f` of each pair of elements of tensors that broadcast to each other, in another dtype.
pub(crate) fn zip_convert<T: Scalar, U: Scalar>(
    call: Call<'_>,
    left: &Tensor,
    right: &Tensor,
    cost: Cost,
    f: impl Fn(T, T) -> U + Send + Sync,
) -> Result<Tensor> {
    let shape = broadcast(call, left.shape(), right.shape())?;
    let (left, right) = (
        left.broadcast_to(call, &shape)?,
        right.broadcast_to(call, &shape)?,
    );
    let [left, right] = Tensor::read_both(&left, &right);
    Tensor::filled(call, &shape, |out: &mut [U]| {
        let bytes = out.len() * (2 * size_of::<T>() + size_of::<U>());
        let zip = Zip::from(row_major(out, &shape))
            .and(left.view::<T>())
            .and(right.view::<T>());
        for_each!(
            zip,
            bytes.saturating_mul(cost as usize),
            |out, &left, &right| *out = f(left, right)
        );
    })
}

/// `f` of the elements of three tensors, of which the others broadcast to the first, in another dtype.
pub(crate) fn zip_three<T: Scalar, U: Scalar>(
    call: Call<'_>,
    [first, second, third]: [&Tensor; 3],
    cost: Cost,
    f: impl Fn(T, T, T) -> U + Send + Sync,
) -> Result<Tensor> {
    let shape = first.shape();
    let (second, third) = (
        second.broadcast_to(call, shape)?,
        third.broadcast_to(call, shape)?,
    );
    let first = first.read();
    let [second, third] = Tensor::read_both(&second, &third);
    Tensor::filled(call, shape, |out: &mut [U]| {
        let bytes = out.len() * (3 * size_of::<T>() + size_of::<U>());
        let zip = Zip::from(row_major(out, shape))
            .and(first.view::<T>())
            .and(second.view::<T>())
            .and(third.view::<T>());
        for_each!(
            zip,
            bytes.saturating_mul(cost as usize),
            |out, &first, &second, &third| *out = f(first, second, third)
        );
    })
}

/// Calls `f` with each chunk of `width` elements and its number, on several threads if that pays for
/// work that moves so many bytes in all.
pub(crate) fn for_each_chunk<U: Send>(
    out: &mut [U],
    width: usize,
    bytes: usize,
    f: impl Fn(usize, &mut [U]) + Sync,
) {
    #[cfg(feature = "parallel")]
    if parallel::threads_pay(bytes) {
        use rayon::prelude::*;

        /// Bytes that a thread is given at least: some microseconds of it.
        const MIN_BYTES: usize = 64 << 10;

        let per_chunk = bytes / out.len().div_ceil(width).max(1);
        let chunks = out.par_chunks_mut(width).enumerate();
        let chunks = chunks.with_min_len(MIN_BYTES.div_ceil(per_chunk.max(1)));
        return parallel::waiting(|| chunks.for_each(|(k, chunk)| f(k, chunk)));
    }
    let _ = bytes;
    let chunks = out.chunks_mut(width).enumerate();
    chunks.for_each(|(k, chunk)| f(k, chunk));
}

/// How many threads to share work out to that moves so many bytes.
pub(crate) fn threads_for(bytes: usize) -> usize {
    #[cfg(feature = "parallel")]
    if parallel::threads_pay(bytes) {
        return rayon::current_num_threads();
    }
    let _ = bytes;
    1
}

/// Copies the elements of an array into another one of its shape.
pub(crate) fn copy_into<T: Scalar>(out: ArrayViewMutD<'_, T>, from: ArrayViewD<'_, T>) {
    map_into(out, from, Cost::Move, |x| x);
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

/// `target = f(target, source)` in place; same shape and dtype.
pub(super) fn update<T: Scalar>(
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
