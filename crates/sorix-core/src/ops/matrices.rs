//! Products of matrices in memory, by faer.
//!
//! faer is the safe way to the fastest kernels there are in Rust: it takes slices where `gemm`, which
//! it builds on elsewhere, takes pointers, and on x86-64 it has kernels for AVX-512 and AVX2 of its own
//! (`private-gemm-x86`).
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

use core::marker::PhantomData;

use faer::linalg::matmul::matmul;
use faer::traits::ComplexField;
use faer::{Accum, MatMut, MatRef, Par};
use sorix_kernels::internal::parallel;

use crate::dtype::Scalar;
use crate::error::{Call, Result};
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

/// The products of the matrices in the last two axes, over leading axes that broadcast to `batch`.
/// `left` has as many columns as `right` has rows.
pub(super) fn multiply<T: Scalar + ComplexField>(
    call: Call<'_>,
    left: &Tensor,
    right: &Tensor,
    batch: &[usize],
) -> Result<Tensor> {
    let operand = |x: &Tensor| {
        let matrix = &x.shape()[x.ndim() - 2..];
        with_neighbours(call, x)?.broadcast_to(call, &[batch, matrix].concat())
    };
    let (left, right) = (operand(left)?, operand(right)?);
    let (m, n) = (left.shape()[batch.len()], right.shape()[batch.len() + 1]);
    let [left, right] = Tensor::read_both(&left, &right).map(Matrices::<T>::of);
    // A copy moves some 2 bytes in the time of a multiplication of f32, 4 in that of one of f64.
    let bytes = left
        .columns
        .saturating_mul(m * n)
        .saturating_mul(size_of::<T>() / 2);
    Tensor::filled(call, &[batch, &[m, n]].concat(), |out: &mut [T]| {
        let matrices = out.len() / (m * n).max(1);
        for_each_chunk(
            out,
            (m * n).max(1),
            bytes.saturating_mul(matrices),
            |k, out| {
                let part = Part {
                    out: MatMut::from_row_major_slice_mut(out, m, n),
                    left: left.get(k),
                    right: right.get(k),
                };
                if parallel::threads_pay(bytes) {
                    parallel::waiting(|| part.multiply(true));
                } else {
                    part.multiply(false);
                }
            },
        );
    })
}

/// The tensor, with the elements of a row or those of a column of each matrix side by side.
fn with_neighbours(call: Call<'_>, x: &Tensor) -> Result<Tensor> {
    let mut matrix = x.shape().iter().zip(x.strides()).rev().take(2);
    if matrix.any(|(&length, &stride)| stride == 1 || length <= 1) {
        Ok(x.clone())
    } else {
        elementwise::copy(call, x)
    }
}

/// The matrices in the last two axes of a tensor.
struct Matrices<'t, T> {
    snapshot: Snapshot<'t>,
    rows: usize,
    columns: usize,
    element: PhantomData<T>,
}

impl<'t, T: Scalar> Matrices<'t, T> {
    fn of(snapshot: Snapshot<'t>) -> Self {
        let shape = snapshot.layout().shape();
        let (rows, columns) = (shape[shape.len() - 2], shape[shape.len() - 1]);
        Self {
            snapshot,
            rows,
            columns,
            element: PhantomData,
        }
    }

    /// Number `k` in row-major order of the other axes.
    fn get(&self, mut k: usize) -> MatRef<'_, T> {
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
        let (rows, columns) = (self.rows, self.columns);
        if strides[batch + 1] == 1 || columns <= 1 {
            MatRef::from_row_major_slice_with_stride(elements, rows, columns, strides[batch])
        } else {
            MatRef::from_column_major_slice_with_stride(elements, rows, columns, strides[batch + 1])
        }
    }
}

/// A part of a product, and the rows and columns it is made of.
struct Part<'a, T> {
    out: MatMut<'a, T>,
    left: MatRef<'a, T>,
    right: MatRef<'a, T>,
}

impl<'a, T: ComplexField> Part<'a, T> {
    /// Multiplies tile by tile, on several threads where `share` says so.
    fn multiply(self, share: bool) {
        let outputs = self.left.nrows() * self.right.ncols();
        let multiplications = self.left.ncols().saturating_mul(outputs);
        let (first, second) = match self.halves() {
            Ok(halves) => halves,
            Err(Self { out, left, right }) => {
                return matmul(out, Accum::Replace, left, right, T::one_impl(), Par::Seq);
            }
        };
        #[cfg(feature = "parallel")]
        if share && multiplications >= 2 * MIN_MULTIPLICATIONS {
            rayon::join(|| first.multiply(share), || second.multiply(share));
            return;
        }
        let _ = (share, multiplications);
        first.multiply(share);
        second.multiply(share);
    }

    /// Two parts of half as many tiles each; a tile as it is.
    fn halves(self) -> Result<(Self, Self), Self> {
        let half = |length: usize| length.div_ceil(TILE).div_ceil(2) * TILE;
        let Self { out, left, right } = self;
        if left.nrows() > TILE {
            let at = half(left.nrows());
            let (outs, lefts) = (out.split_at_row_mut(at), left.split_at_row(at));
            let part = |out, left| Self { out, left, right };
            Ok((part(outs.0, lefts.0), part(outs.1, lefts.1)))
        } else if right.ncols() > TILE {
            let at = half(right.ncols());
            let (outs, rights) = (out.split_at_col_mut(at), right.split_at_col(at));
            let part = |out, right| Self { out, left, right };
            Ok((part(outs.0, rights.0), part(outs.1, rights.1)))
        } else {
            Err(Self { out, left, right })
        }
    }
}
