//! Products by faer.

use core::cell::Cell;

use faer::linalg::matmul::matmul;
use faer::traits::ComplexField;
use faer::{Accum, MatMut, MatRef, Par};
use sorix_kernels::internal as kernels;

use super::{Library, Matrix, can_allocate};

pub(in crate::ops) trait Number: ComplexField + Copy {}
impl<T: ComplexField + Copy> Number for T {}

#[derive(Clone, Copy)]
pub(super) struct Faer;

/// The largest product, in multiplications, for which faer has kernels that need no memory.
const SMALL: usize = 16 * 16 * 16;

thread_local! {
    /// Whether this thread has had what faer packs operands into, which it keeps.
    static HAS_MEMORY: Cell<bool> = const { Cell::new(false) };
}

impl<T: Number> Library<T> for Faer {
    type Out<'a>
        = MatMut<'a, T>
    where
        T: 'a;

    fn out(elements: &mut [T], rows: usize, columns: usize) -> Self::Out<'_> {
        MatMut::from_row_major_slice_mut(elements, rows, columns)
    }

    fn split_rows<'a>(out: Self::Out<'a>, at: usize) -> (Self::Out<'a>, Self::Out<'a>) {
        out.split_at_row_mut(at)
    }

    fn split_columns<'a>(out: Self::Out<'a>, at: usize) -> (Self::Out<'a>, Self::Out<'a>) {
        out.split_at_col_mut(at)
    }

    fn multiply(
        out: Self::Out<'_>,
        left: Matrix<'_, T>,
        right: Matrix<'_, T>,
        add: bool,
    ) -> Result<(), usize> {
        let outputs = left.rows() * right.columns();
        if outputs.saturating_mul(left.columns()) > SMALL && !HAS_MEMORY.get() {
            can_allocate(packing_bytes())?;
            HAS_MEMORY.set(true);
        }
        let (left, right) = (view(left), view(right));
        let accumulate = if add { Accum::Add } else { Accum::Replace };
        matmul(out, accumulate, left, right, T::one_impl(), Par::Seq);
        Ok(())
    }

    /// On x86-64 with AVX2 and FMA large products go to kernels that add up each element in the order
    /// of its terms, 512 at a time. Small ones, and those of one row, go to others. Elsewhere the order
    /// depends on the number of rows.
    fn rows_from_which_alike(columns: usize, terms: usize) -> Option<usize> {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
        {
            return Some((SMALL / (columns * terms).max(1) + 1).max(2));
        }
        let _ = (columns, terms);
        None
    }

    fn copy_rows(mut out: Self::Out<'_>, rows: &[T]) {
        let (count, columns) = out.shape();
        out.copy_from(MatRef::from_row_major_slice(rows, count, columns));
    }
}

/// What faer allocates when a thread first multiplies large matrices, and keeps: two buffers of the
/// size of the last-level cache. It ends the process if there is no memory for them. So we ask first; nothing but
/// another thread that takes the memory in between can make the answer wrong.
fn packing_bytes() -> usize {
    /// faer takes no cache for smaller: twice this, and four times the second level, which is 2 MiB on
    /// the CPUs with the largest.
    const LEAST: usize = 8 << 20;

    2 * kernels::last_level_bytes().max(LEAST) + (1 << 20)
}

fn view<T>(matrix: Matrix<'_, T>) -> MatRef<'_, T> {
    let Matrix {
        elements,
        shape: [rows, columns],
        strides: [down, along],
    } = matrix;
    if along == 1 || columns <= 1 {
        MatRef::from_row_major_slice_with_stride(elements, rows, columns, down)
    } else {
        MatRef::from_column_major_slice_with_stride(elements, rows, columns, along)
    }
}
