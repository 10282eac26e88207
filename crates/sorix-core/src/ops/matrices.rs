//! Products of matrices in memory: by faer (feature `faer`), else by ndarray.
//!
//! faer is the safe way to the fastest kernels there are in Rust: it takes slices where `gemm`, which
//! it builds on elsewhere, takes pointers, and on x86-64 it has kernels for AVX-512 and AVX2 of its own
//! (`private-gemm-x86`). ndarray's product is that of `matrixmultiply`.
//!
//! An output is cut into tiles by its shape alone, and each tile is computed by one thread. So
//! neither the number of threads nor their schedule shows in a result. faer's own threads are not
//! used: they wait for each other spinning, which on a machine with other work took twice the time of
//! one thread.
//!
//! Time on one thread of a Zen 4 core, f32, as a ratio to `gemm` 0.19 (at 90 GFLOP/s), whose AVX-512
//! kernels are not built by default; ndarray's product is matrixmultiply's:
//!
//! | `m x k x n` | | faer, whole | faer, 256x256 tiles | 128x256 | 64x256 | ndarray |
//! |---|---|---|---|---|---|---|
//! | 256x784x1024 | `x wᵀ` | 1.06 | 0.98 | 1.08 | 1.22 | 1.31 |
//! | | `dy w` | 1.00 | 0.95 | 1.01 | 1.08 | 1.08 |
//! | | `dyᵀ x` | 1.00 | 1.02 | 1.01 | 1.00 | 0.99 |
//! | 256x1024x1024 | `x wᵀ` | 0.96 | 0.91 | 0.99 | 1.13 | 1.14 |
//! | | `dy w` | 0.96 | 0.92 | 0.97 | 1.09 | 1.09 |
//! | | `dyᵀ x` | 0.95 | 0.96 | 0.98 | 0.98 | 0.90 |
//! | 256x1024x10 | `x wᵀ` | 0.80 | 0.77 | 0.80 | 0.84 | 4.1 |
//! | | `dy w` | 0.98 | 0.99 | 1.10 | 1.10 | 1.7 |
//! | | `dyᵀ x` | 0.63 | 0.59 | 0.59 | 0.58 | 1.6 |

#[cfg(feature = "faer")]
mod by_faer;
mod by_ndarray;

use core::sync::atomic::{AtomicUsize, Ordering};

use sorix_kernels::internal::parallel;

#[cfg(feature = "faer")]
use self::by_faer::Faer;
use self::by_ndarray::Ndarray;
use crate::dtype::Scalar;
use crate::error::{Call, ErrorKind, Result};
use crate::ops::batch_invariant::is_batch_invariant;
use crate::ops::elementwise::{self, for_each_chunk};
use crate::tensor::{Snapshot, Tensor};

/// Rows and columns of a tile, at most.
///
/// Smaller ones make for more threads, but each reads its rows and columns again; the
/// [figures](self) are of one thread.
const TILE: usize = 256;

/// Multiplications that a thread is given at least: some 20 microseconds of one thread.
#[cfg(feature = "parallel")]
const MIN_MULTIPLICATIONS: usize = 1 << 20;

/// A library that multiplies matrices of `T`.
trait Library<T>: Copy + Sync {
    /// A part of an output.
    type Out<'a>: Send
    where
        T: 'a;

    /// A whole output, row-major.
    fn out(elements: &mut [T], rows: usize, columns: usize) -> Self::Out<'_>;

    /// The rows before `at`, and the others.
    fn split_rows<'a>(out: Self::Out<'a>, at: usize) -> (Self::Out<'a>, Self::Out<'a>);

    /// The columns before `at`, and the others.
    fn split_columns<'a>(out: Self::Out<'a>, at: usize) -> (Self::Out<'a>, Self::Out<'a>);

    /// `out = left * right`, or with `add` `out += left * right`, on this thread. For the error: bytes that
    /// the library could not have.
    fn multiply(
        out: Self::Out<'_>,
        left: Matrix<'_, T>,
        right: Matrix<'_, T>,
        add: bool,
    ) -> Result<(), usize>;

    /// The number of rows from which on a product with so many columns, each a sum of so many terms,
    /// computes a row the same way whatever the number of rows; `None` if there is no such number.
    fn rows_from_which_alike(columns: usize, terms: usize) -> Option<usize>;

    /// Writes these rows, one after another, to the first rows of `out`.
    fn copy_rows(out: Self::Out<'_>, rows: &[T]);
}

/// An element that the libraries multiply.
#[cfg(feature = "faer")]
pub(super) trait Number: Scalar + by_faer::Number + by_ndarray::Number {}
#[cfg(feature = "faer")]
impl<T: Scalar + by_faer::Number + by_ndarray::Number> Number for T {}

/// An element that the library multiplies.
#[cfg(not(feature = "faer"))]
pub(super) trait Number: Scalar + by_ndarray::Number {}
#[cfg(not(feature = "faer"))]
impl<T: Scalar + by_ndarray::Number> Number for T {}

/// The products of the matrices in the last two axes, over leading axes that broadcast to `batch`.
/// `left` has as many columns as `right` has rows.
pub(super) fn multiply<T: Number>(
    call: Call<'_>,
    left: &Tensor,
    right: &Tensor,
    batch: &[usize],
) -> Result<Tensor> {
    let alike = is_batch_invariant();
    #[cfg(feature = "faer")]
    if !alike || <Faer as Library<T>>::rows_from_which_alike(1, 1).is_some() {
        return multiply_by::<T, Faer>(call, left, right, batch, alike);
    }
    multiply_by::<T, Ndarray>(call, left, right, batch, alike)
}

/// `out = left * right`, or with `add` `out += left * right`, of small matrices on this thread; `out` is
/// row-major. The same bits wherever it is called with the same shapes and strides. For the error: bytes that
/// could not be allocated.
pub(super) fn tile_product<T: Number>(
    out: &mut [T],
    left: Matrix<'_, T>,
    right: Matrix<'_, T>,
    add: bool,
) -> Result<(), usize> {
    #[cfg(feature = "faer")]
    type Chosen = Faer;
    #[cfg(not(feature = "faer"))]
    type Chosen = Ndarray;

    let out = <Chosen as Library<T>>::out(out, left.rows(), right.columns());
    <Chosen as Library<T>>::multiply(out, left, right, add)
}

fn multiply_by<T: Number, L: Library<T>>(
    call: Call<'_>,
    left: &Tensor,
    right: &Tensor,
    batch: &[usize],
    alike: bool,
) -> Result<Tensor> {
    let operand = |x: &Tensor, row_major: bool| {
        let matrix = &x.shape()[x.ndim() - 2..];
        let x = match row_major {
            true => x.contiguous()?,
            false => with_neighbours(call, x)?,
        };
        x.broadcast_to(call, &[batch, matrix].concat())
    };
    // What is alike must not depend on how the rows lie in memory either.
    let (left, right) = (operand(left, alike)?, operand(right, false)?);
    let (m, n) = (left.shape()[batch.len()], right.shape()[batch.len() + 1]);
    let [left, right] = Tensor::read_both(&left, &right).map(Matrices::of);
    // A copy moves some 2 bytes in the time of a multiplication of f32, 4 in that of one of f64.
    let bytes = left
        .columns
        .saturating_mul(m * n)
        .saturating_mul(size_of::<T>() / 2);
    let missing = AtomicUsize::new(0);
    let product = Tensor::filled(call, &[batch, &[m, n]].concat(), |out: &mut [T]| {
        let matrices = out.len() / (m * n).max(1);
        for_each_chunk(
            out,
            (m * n).max(1),
            bytes.saturating_mul(matrices),
            |k, out| {
                let part = Part::<T, L> {
                    out: L::out(out, m, n),
                    left: left.get(k),
                    right: right.get(k),
                    alike,
                };
                let multiplied = if parallel::threads_pay(bytes) {
                    parallel::waiting(|| part.multiply(true))
                } else {
                    part.multiply(false)
                };
                if let Err(bytes) = multiplied {
                    missing.store(bytes, Ordering::Relaxed);
                }
            },
        );
    })?;
    match missing.into_inner() {
        0 => Ok(product),
        bytes => Err(call.error(ErrorKind::Allocation { bytes })),
    }
}

/// The tensor, with the elements of a row or those of a column of each matrix side by side.
pub(super) fn with_neighbours(call: Call<'_>, x: &Tensor) -> Result<Tensor> {
    let mut matrix = x.shape().iter().zip(x.strides()).rev().take(2);
    if matrix.any(|(&length, &stride)| stride == 1 || length <= 1) {
        Ok(x.clone())
    } else {
        elementwise::copy(call, x)
    }
}

/// The matrices in the last two axes of a tensor.
pub(super) struct Matrices<'t> {
    snapshot: Snapshot<'t>,
    rows: usize,
    columns: usize,
}

impl<'t> Matrices<'t> {
    pub(super) fn of(snapshot: Snapshot<'t>) -> Self {
        let shape = snapshot.layout().shape();
        let (rows, columns) = (shape[shape.len() - 2], shape[shape.len() - 1]);
        Self {
            snapshot,
            rows,
            columns,
        }
    }

    /// Number `k` in row-major order of the other axes.
    pub(super) fn get<T: Scalar>(&self, mut k: usize) -> Matrix<'_, T> {
        let layout = self.snapshot.layout();
        let (shape, strides) = (layout.shape(), layout.strides());
        let batch = shape.len() - 2;
        let mut first = layout.offset();
        for (length, stride) in shape[..batch].iter().zip(strides).rev() {
            first += k % length * stride;
            k /= length;
        }
        // A matrix without elements may begin beyond the end of its storage.
        let elements = match self.rows * self.columns {
            0 => &[],
            _ => &self.snapshot.storage()[first..],
        };
        Matrix {
            elements,
            shape: [self.rows, self.columns],
            strides: [strides[batch], strides[batch + 1]],
        }
    }
}

/// A matrix to read. The elements of a row or those of a column are side by side.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, T> {
    /// From the first element on.
    pub(super) elements: &'a [T],
    pub(super) shape: [usize; 2],
    pub(super) strides: [usize; 2],
}

impl<'a, T> Matrix<'a, T> {
    /// One after another, row by row.
    pub(super) fn row_major(elements: &'a [T], shape: [usize; 2]) -> Self {
        Self {
            elements,
            shape,
            strides: [shape[1], 1],
        }
    }

    /// Rows for columns.
    pub(super) fn transposed(self) -> Self {
        let ([rows, columns], [down, along]) = (self.shape, self.strides);
        Self {
            shape: [columns, rows],
            strides: [along, down],
            ..self
        }
    }
}

impl<T: Copy> Matrix<'_, T> {
    fn rows(&self) -> usize {
        self.shape[0]
    }

    fn columns(&self) -> usize {
        self.shape[1]
    }

    /// The rows (axis 0) or columns (axis 1) before `at`, and the others.
    fn split(self, axis: usize, at: usize) -> (Self, Self) {
        let (mut first, mut second) = (self, self);
        first.shape[axis] = at;
        second.shape[axis] -= at;
        // A matrix without elements has no beginning of its second half.
        let from = at * self.strides[axis];
        second.elements = self.elements.get(from..).unwrap_or_default();
        (first, second)
    }
}

/// A part of a product, and the rows and columns it is made of.
struct Part<'a, T, L: Library<T>> {
    out: L::Out<'a>,
    left: Matrix<'a, T>,
    right: Matrix<'a, T>,
    /// Whether a row has to be the same whatever the number of rows.
    alike: bool,
}

impl<'a, T: Number, L: Library<T>> Part<'a, T, L> {
    /// Multiplies tile by tile, on several threads where `share` says so. For the error: bytes that
    /// could not be allocated.
    fn multiply(self, share: bool) -> Result<(), usize> {
        let outputs = self.left.rows() * self.right.columns();
        let multiplications = self.left.columns().saturating_mul(outputs);
        let (first, second) = match self.halves() {
            Ok(halves) => halves,
            Err(tile) => return tile.multiply_tile(),
        };
        #[cfg(feature = "parallel")]
        if share && multiplications >= 2 * MIN_MULTIPLICATIONS {
            let (first, second) = rayon::join(|| first.multiply(share), || second.multiply(share));
            return first.and(second);
        }
        let _ = (share, multiplications);
        first.multiply(share)?;
        second.multiply(share)
    }

    /// Two parts of half as many tiles each; a tile as it is.
    fn halves(self) -> Result<(Self, Self), Self> {
        let half = |length: usize| length.div_ceil(TILE).div_ceil(2) * TILE;
        let Self {
            out,
            left,
            right,
            alike,
        } = self;
        if left.rows() > TILE {
            let at = half(left.rows());
            let (outs, lefts) = (L::split_rows(out, at), left.split(0, at));
            let part = |out, left| Self {
                out,
                left,
                right,
                alike,
            };
            Ok((part(outs.0, lefts.0), part(outs.1, lefts.1)))
        } else if right.columns() > TILE {
            let at = half(right.columns());
            let (outs, rights) = (L::split_columns(out, at), right.split(1, at));
            let part = |out, right| Self {
                out,
                left,
                right,
                alike,
            };
            Ok((part(outs.0, rights.0), part(outs.1, rights.1)))
        } else {
            Err(Self {
                out,
                left,
                right,
                alike,
            })
        }
    }

    fn multiply_tile(self) -> Result<(), usize> {
        let Self {
            out,
            left,
            right,
            alike,
        } = self;
        let ([rows, terms], columns) = (left.shape, right.columns());
        let least = L::rows_from_which_alike(columns, terms).unwrap_or(0);
        if !alike || rows >= least || rows * columns * terms == 0 {
            return L::multiply(out, left, right, false);
        }
        // Rows of zeros behind those that there are.
        let mut wide_left = zeros(least * terms)?;
        let mut wide_out = zeros(least * columns)?;
        wide_left[..rows * terms].copy_from_slice(&left.elements[..rows * terms]);
        let wide = Matrix {
            elements: &wide_left,
            shape: [least, terms],
            strides: [terms, 1],
        };
        L::multiply(L::out(&mut wide_out, least, columns), wide, right, false)?;
        L::copy_rows(out, &wide_out[..rows * columns]);
        Ok(())
    }
}

/// So many zeros, or the number of bytes that could not be allocated.
fn zeros<T: Scalar>(count: usize) -> Result<Vec<T>, usize> {
    let mut zeros = Vec::new();
    zeros
        .try_reserve_exact(count)
        .map_err(|_| count.saturating_mul(size_of::<T>()))?;
    zeros.resize(count, T::zeroed());
    Ok(zeros)
}

/// Whether so many bytes could be allocated a moment ago; for the error, that many. For libraries
/// that end the process if they cannot.
fn can_allocate(bytes: usize) -> Result<(), usize> {
    Vec::<u8>::new().try_reserve_exact(bytes).map_err(|_| bytes)
}
