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

use faer::linalg::matmul::matmul;
use faer::traits::ComplexField;
use faer::{Accum, MatMut, MatRef, Par};
use ndarray::{Dimension, IxDyn, indices};
#[cfg(feature = "parallel")]
use rayon::prelude::*;
#[cfg(feature = "parallel")]
use sorix_kernels::parallel;

use crate::dtype::Scalar;
use crate::error::{Call, Result};
use crate::ops::elementwise;
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
    let (left, right) = (left.read(), right.read());
    Tensor::filled(call, &[batch, &[m, n]].concat(), |out: &mut [T]| {
        let mut tiles = Vec::new();
        let matrices = matrices::<T>(&left).zip(matrices::<T>(&right));
        // Without elements there are no tiles, and no chunks of length 0.
        for (out, (left, right)) in out.chunks_exact_mut((m * n).max(1)).zip(matrices) {
            cut(
                MatMut::from_row_major_slice_mut(out, m, n),
                left,
                right,
                &mut tiles,
            );
        }
        multiply_all(tiles);
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

/// The matrices in the last two axes, in row-major order of the others.
fn matrices<'s, T: Scalar>(x: &'s Snapshot<'_>) -> impl Iterator<Item = MatRef<'s, T>> {
    let (shape, strides) = (x.layout().shape(), x.layout().strides());
    let (batch, matrix) = shape.split_at(shape.len() - 2);
    let (rows, columns) = (matrix[0], matrix[1]);
    let (from_row, from_column) = (strides[batch.len()], strides[batch.len() + 1]);
    indices(IxDyn(batch)).into_iter().map(move |index| {
        let steps = index.slice().iter().zip(strides);
        let first: usize = steps.map(|(index, stride)| index * stride).sum();
        // A matrix without elements may begin beyond the end of its storage.
        let elements = match rows * columns {
            0 => &[],
            _ => &x.storage()[x.layout().offset() + first..],
        };
        if from_column == 1 || columns <= 1 {
            MatRef::from_row_major_slice_with_stride(elements, rows, columns, from_row)
        } else {
            MatRef::from_column_major_slice_with_stride(elements, rows, columns, from_column)
        }
    })
}

/// A part of the output, and the rows and columns it is made of.
struct Tile<'a, T> {
    out: MatMut<'a, T>,
    left: MatRef<'a, T>,
    right: MatRef<'a, T>,
}

impl<T: ComplexField> Tile<'_, T> {
    fn multiply(self) {
        let Self { out, left, right } = self;
        matmul(out, Accum::Replace, left, right, T::one_impl(), Par::Seq);
    }
}

/// Adds the tiles of a matrix to `tiles`.
fn cut<'a, T>(
    mut out: MatMut<'a, T>,
    left: MatRef<'a, T>,
    right: MatRef<'a, T>,
    tiles: &mut Vec<Tile<'a, T>>,
) {
    for top in (0..left.nrows()).step_by(TILE) {
        let (mut row, below) = out.split_at_row_mut(TILE.min(left.nrows() - top));
        out = below;
        for first in (0..right.ncols()).step_by(TILE) {
            let (tile, beside) = row.split_at_col_mut(TILE.min(right.ncols() - first));
            row = beside;
            tiles.push(Tile {
                left: left.subrows(top, tile.nrows()),
                right: right.subcols(first, tile.ncols()),
                out: tile,
            });
        }
    }
}

#[cfg(feature = "parallel")]
fn multiply_all<T: ComplexField>(tiles: Vec<Tile<'_, T>>) {
    let Some(Tile { left, right, .. }) = tiles.first() else {
        return;
    };
    // No tile is larger than the first.
    let per_tile = left.nrows() * left.ncols() * right.ncols();
    let multiplications = per_tile.saturating_mul(tiles.len());
    // A copy moves some 2 bytes in the time of a multiplication of f32, 4 in that of one of f64.
    let bytes = multiplications.saturating_mul(size_of::<T>() / 2);
    let tiles_per_thread = MIN_MULTIPLICATIONS.div_ceil(per_tile.max(1));
    if tiles.len() == 1 || !parallel::threads_pay(bytes) {
        tiles.into_iter().for_each(Tile::multiply);
    } else {
        parallel::waiting(|| {
            tiles
                .into_par_iter()
                .with_min_len(tiles_per_thread)
                .for_each(Tile::multiply);
        });
    }
}

#[cfg(not(feature = "parallel"))]
fn multiply_all<T: ComplexField>(tiles: Vec<Tile<'_, T>>) {
    tiles.into_iter().for_each(Tile::multiply);
}
