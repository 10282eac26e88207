//! Products by ndarray, which gives them to `matrixmultiply`.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, Axis, LinalgScalar, ShapeBuilder};

use super::{Library, Matrix, can_allocate};

pub(in crate::ops) trait Number: LinalgScalar + Send + Sync {}
impl<T: LinalgScalar + Send + Sync> Number for T {}

#[derive(Clone, Copy)]
pub(super) struct Ndarray;

/// What `matrixmultiply` packs operands into, at most, and ends the process without: blocks of 64 x 256
/// and 256 x 1024 elements, and some to round up.
const BYTES: usize = 4 << 20;

/// What shapes are checked before they come here.
const FITS: &str = "a matrix stays within its storage";

impl<T: Number> Library<T> for Ndarray {
    type Out<'a>
        = ArrayViewMut2<'a, T>
    where
        T: 'a;

    fn out(elements: &mut [T], rows: usize, columns: usize) -> Self::Out<'_> {
        ArrayViewMut2::from_shape((rows, columns), elements).expect(FITS)
    }

    fn split_rows<'a>(out: Self::Out<'a>, at: usize) -> (Self::Out<'a>, Self::Out<'a>) {
        out.split_at(Axis(0), at)
    }

    fn split_columns<'a>(out: Self::Out<'a>, at: usize) -> (Self::Out<'a>, Self::Out<'a>) {
        out.split_at(Axis(1), at)
    }

    fn multiply(
        mut out: Self::Out<'_>,
        left: Matrix<'_, T>,
        right: Matrix<'_, T>,
        add: bool,
    ) -> Result<(), usize> {
        if left.elements.is_empty() || right.elements.is_empty() {
            if !add {
                out.fill(T::zero());
            }
            return Ok(());
        }
        can_allocate(BYTES)?;
        let before = if add { T::one() } else { T::zero() };
        general_mat_mul(T::one(), &view(left), &view(right), before, &mut out);
        Ok(())
    }

    /// One kernel, and sums in the order of the terms, for any number of rows.
    fn rows_from_which_alike(_columns: usize, _terms: usize) -> Option<usize> {
        Some(0)
    }

    fn copy_rows(mut out: Self::Out<'_>, rows: &[T]) {
        let rows = ArrayView2::from_shape(out.raw_dim(), rows).expect(FITS);
        out.assign(&rows);
    }
}

fn view<T>(matrix: Matrix<'_, T>) -> ArrayView2<'_, T> {
    let [rows, columns] = matrix.shape;
    let [down, along] = matrix.strides;
    ArrayView2::from_shape((rows, columns).strides((down, along)), matrix.elements).expect(FITS)
}
