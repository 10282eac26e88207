//! Loops over the elements of one, two or three tensors.
//!
//! f16 and bf16 are widened to f32, computed with, and rounded once to the nearest: an operation
//! gives the closest representable result, as it does for f32 and f64.
//!
//! Loops that make a new tensor write it piece by piece, from [pieces](InOrder) of the others: slices,
//! whatever the strides, so that there is one loop for an operation and the compiler makes vectors of it. They
//! run on the threads of the current rayon pool if they are long enough (feature `parallel`). Each
//! element is computed alone, so the number of threads does not show in a result. What an operation does
//! with a piece is called through a pointer: what walks through memory and shares out is then compiled once
//! for a type, not for each operation: the crate took seven times as long to compile before.
//!
//! Loops that write in place stay on this thread: they hold the lock of what they write, and a thread of
//! the pool that waits for its helpers may take up another job that wants it.

use ndarray::{ArrayViewD, ArrayViewMutD, Axis, Zip};
use sorix_kernels::Element;
#[cfg(feature = "parallel")]
use sorix_kernels::internal::parallel;

use crate::dtype::{Scalar, dispatch};
use crate::error::{Call, ErrorKind, Result};
use crate::ops::in_order::InOrder;
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

/// `f` of each element.
pub(crate) fn map<T: Scalar>(
    call: Call<'_>,
    x: &Tensor,
    cost: Cost,
    f: impl Fn(T::Acc) -> T::Acc + Sync,
) -> Result<Tensor> {
    compute::<T, 1>(call, x.shape(), [x], cost, &|out, [x]| {
        out.iter_mut().zip(x).for_each(|(out, &x)| *out = f(x));
    })
}

/// `f` of each element, in another dtype.
pub(crate) fn convert<T: Scalar, U: Scalar>(
    call: Call<'_>,
    x: &Tensor,
    f: impl Fn(T) -> U + Sync,
) -> Result<Tensor> {
    fill::<T, U, 1>(call, x.shape(), [x], Cost::Move, &|out, [x]| {
        out.iter_mut().zip(x).for_each(|(out, &x)| *out = f(x));
    })
}

/// The elements in the type that they are computed in, apart from the graph; exact.
pub(crate) fn widen<T: Scalar>(call: Call<'_>, x: &Tensor) -> Result<Tensor> {
    if T::DTYPE == T::Acc::DTYPE {
        return Ok(x.detach());
    }
    fill::<T, T::Acc, 1>(call, x.shape(), [x], Cost::Move, &|out, [x]| {
        T::widen(x, out);
    })
}

/// `f` of each pair of elements of tensors that broadcast to each other.
pub(crate) fn zip<T: Scalar>(
    call: Call<'_>,
    left: &Tensor,
    right: &Tensor,
    cost: Cost,
    f: impl Fn(T::Acc, T::Acc) -> T::Acc + Sync,
) -> Result<Tensor> {
    let shape = broadcast(call, left.shape(), right.shape())?;
    compute::<T, 2>(call, &shape, [left, right], cost, &|out, [left, right]| {
        let pairs = left.iter().zip(right);
        out.iter_mut()
            .zip(pairs)
            .for_each(|(out, (&left, &right))| *out = f(left, right));
    })
}

/// `f` of each pair of elements of tensors that broadcast to each other, in another dtype.
pub(crate) fn zip_convert<T: Scalar, U: Scalar>(
    call: Call<'_>,
    left: &Tensor,
    right: &Tensor,
    cost: Cost,
    f: impl Fn(T, T) -> U + Sync,
) -> Result<Tensor> {
    let shape = broadcast(call, left.shape(), right.shape())?;
    fill::<T, U, 2>(call, &shape, [left, right], cost, &|out, [left, right]| {
        let pairs = left.iter().zip(right);
        out.iter_mut()
            .zip(pairs)
            .for_each(|(out, (&left, &right))| *out = f(left, right));
    })
}

/// `f` of the elements of three tensors, of which the others broadcast to the first, in another dtype.
pub(crate) fn zip_three<T: Scalar, U: Scalar>(
    call: Call<'_>,
    tensors: [&Tensor; 3],
    cost: Cost,
    f: impl Fn(T, T, T) -> U + Sync,
) -> Result<Tensor> {
    let shape = tensors[0].shape();
    fill::<T, U, 3>(
        call,
        shape,
        tensors,
        cost,
        &|out, [first, second, third]| {
            let triples = first.iter().zip(second).zip(third);
            out.iter_mut()
                .zip(triples)
                .for_each(|(out, ((&first, &second), &third))| *out = f(first, second, third));
        },
    )
}

/// Elements that are worked on at a time: few enough that those copied together or widened are still in
/// the first cache when they are read.
const PIECE: usize = 1024;

/// Elements of a chunk that a thread is given.
const PART: usize = 8 * PIECE;

/// Writes a piece, from the same piece of each of N tensors.
type OfPieces<'f, U, T, const N: usize> = dyn Fn(&mut [U], [&[T]; N]) + Sync + 'f;

/// [`fill`] with elements that are widened before and rounded after.
fn compute<T: Scalar, const N: usize>(
    call: Call<'_>,
    shape: &[usize],
    tensors: [&Tensor; N],
    cost: Cost,
    f: &OfPieces<'_, T::Acc, T::Acc, N>,
) -> Result<Tensor> {
    fill::<T, T, N>(call, shape, tensors, cost, &|out, pieces| {
        let wide = if T::DTYPE == T::Acc::DTYPE {
            0
        } else {
            out.len()
        };
        let mut room = vec![T::Acc::ZERO; (N + 1) * wide];
        let (sums, mut rest) = room.split_at_mut(wide);
        let widened = pieces.map(|piece| {
            let (room, more) = core::mem::take(&mut rest).split_at_mut(wide);
            rest = more;
            T::widen(piece, room)
        });
        T::round(out, sums, &mut |out| f(out, widened));
    })
}

/// A tensor of `shape`, to which the others broadcast, of which `f` writes each piece from the same piece of
/// each of them; on several threads if that pays.
fn fill<T: Scalar, U: Scalar, const N: usize>(
    call: Call<'_>,
    shape: &[usize],
    tensors: [&Tensor; N],
    cost: Cost,
    f: &OfPieces<'_, U, T, N>,
) -> Result<Tensor> {
    let mut repeated = tensors.map(Tensor::clone);
    for tensor in &mut repeated {
        *tensor = tensor.broadcast_to(call, shape)?;
    }
    let mut snapshots = Tensor::read_all(repeated.each_ref());
    let mut copies = [const { None }; N];
    for (copy, snapshot) in copies.iter_mut().zip(&snapshots) {
        let view = snapshot.view::<T>();
        if view.len() > PIECE && crosswise(&view).is_some() {
            *copy = Some(Tensor::filled(call, shape, |out: &mut [T]| {
                copy_into(row_major(out, shape), view);
            })?);
        }
    }
    for (snapshot, copy) in snapshots.iter_mut().zip(&copies) {
        if let Some(copy) = copy {
            *snapshot = copy.read();
        }
    }
    Tensor::filled(call, shape, |out: &mut [U]| {
        let elements = snapshots.each_ref().map(InOrder::<T>::new);
        let bytes = out.len() * (N * size_of::<T>() + size_of::<U>());
        for_each_chunk(out, PART, bytes.saturating_mul(cost as usize), |k, out| {
            let mut rooms = elements.each_ref().map(|elements| {
                let needed = if elements.needs_room() {
                    PIECE.min(out.len())
                } else {
                    0
                };
                vec![T::ZERO; needed]
            });
            for (i, out) in out.chunks_mut(PIECE).enumerate() {
                let mut rooms = rooms.iter_mut();
                let pieces = elements.each_ref().map(|elements| {
                    let room = rooms.next().expect("one for each tensor");
                    elements.piece(k * PART + i * PIECE, out.len(), room)
                });
                f(out, pieces);
            }
        });
    })
}

/// Copies the elements of an array into another one of its shape.
pub(crate) fn copy_into<T: Scalar>(out: ArrayViewMutD<'_, T>, from: ArrayViewD<'_, T>) {
    let bytes = 2 * out.len() * size_of::<T>();
    if let Some(near) = crosswise(&from) {
        return copy_tiles(out, from, near, bytes);
    }
    let zip = Zip::from(out).and(from);
    #[cfg(feature = "parallel")]
    if parallel::threads_pay(bytes) {
        return parallel::waiting(|| zip.par_for_each(|out, &x| *out = x));
    }
    let _ = bytes;
    zip.for_each(|out, &x| *out = x);
}

/// The axis along which elements lie side by side, if along the last one they lie further apart.
fn crosswise<T>(from: &ArrayViewD<'_, T>) -> Option<Axis> {
    let last = Axis(from.ndim().checked_sub(1)?);
    let mut axes = (0..last.index()).map(Axis);
    let near = axes.find(|&axis| from.len_of(axis) > 1 && from.stride_of(axis) == 1)?;
    (from.len_of(last) > 1 && from.stride_of(last) > 1).then_some(near)
}

/// [`copy_into`] of an array whose elements lie side by side along `near` and not along the last axis:
/// tile by tile, so that what comes into the cache with an element is used before it has to go.
///
/// A transposed copy of 4096 x 4096 f32 took 50 times as long as a plain one row by row, and five times
/// with these tiles.
fn copy_tiles<T: Scalar>(
    mut out: ArrayViewMutD<'_, T>,
    from: ArrayViewD<'_, T>,
    near: Axis,
    bytes: usize,
) {
    /// Places of the near axis in a tile.
    const NEAR: usize = 64;
    /// Places of the last axis in a tile: a cache line of f32.
    const LAST: usize = 16;

    let last = Axis(from.ndim() - 1);
    let copy_slab = |(mut out, from): (ArrayViewMutD<'_, T>, ArrayViewD<'_, T>)| {
        let outs = out.axis_chunks_iter_mut(last, LAST);
        for (mut out, from) in outs.zip(from.axis_chunks_iter(last, LAST)) {
            out.assign(&from);
        }
    };
    let slabs = from.axis_chunks_iter(near, NEAR);
    let outs = out.axis_chunks_iter_mut(near, NEAR);
    #[cfg(feature = "parallel")]
    if parallel::threads_pay(bytes) {
        use ndarray::parallel::prelude::*;

        let slabs = outs.into_par_iter().zip(slabs);
        return parallel::waiting(|| slabs.for_each(copy_slab));
    }
    let _ = bytes;
    outs.zip(slabs).for_each(copy_slab);
}

/// Calls `f` with each chunk of `width` elements and its number, on several threads if that pays for
/// work that moves so many bytes in all.
pub(crate) fn for_each_chunk<U: Send>(
    out: &mut [U],
    width: usize,
    bytes: usize,
    f: impl Fn(usize, &mut [U]) + Sync,
) {
    // Through a pointer, so that what shares out is compiled once for a type.
    share_out(out, width, bytes, &f);
}

/// Does `f` for each part, on several threads if that pays for work that moves so many bytes in all.
///
/// # Errors
///
/// That of the first part that has one; the others are done nonetheless.
pub(crate) fn try_each_part<P: Send>(
    parts: impl IntoIterator<Item = P>,
    bytes: usize,
    f: impl Fn(&mut P) -> Result<()> + Sync,
) -> Result<()> {
    let parts = parts.into_iter().map(|part| (part, Ok(())));
    let mut parts: Vec<(P, Result<()>)> = parts.collect();
    for_each_chunk(&mut parts, 1, bytes, |_, parts| {
        for (part, done) in parts {
            *done = f(part);
        }
    });
    parts.into_iter().try_for_each(|(_, done)| done)
}

fn share_out<U: Send>(
    out: &mut [U],
    width: usize,
    bytes: usize,
    f: &(dyn Fn(usize, &mut [U]) + Sync),
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

/// The elements row-major in memory of their own.
pub(crate) fn copy(call: Call<'_>, x: &Tensor) -> Result<Tensor> {
    let snapshot = x.read();
    dispatch!(x.dtype(), T => Tensor::filled(call, x.shape(), |out: &mut [T]| {
        copy_into(row_major(out, x.shape()), snapshot.view());
    }))
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
