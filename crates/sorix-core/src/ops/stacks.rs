//! Matrices in the last two axes of a tensor of any dtype, in blocks of the type that is computed in.
//!
//! What goes block by block is compiled for f32 and for f64 alone: the dtype is behind a [`Stack`].

use core::marker::PhantomData;
use core::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::dtype::{DType, Real, Scalar};
use crate::ops::matrices::{Matrices, Matrix, Number};
use crate::tensor::Snapshot;

/// The matrices of a tensor, read as `A`.
pub(super) trait Stack<A>: Sync {
    /// Rows and columns of matrix `k`, in row-major order of the leading axes: where they lie, or widened to
    /// the front of `room`, row by row.
    fn block<'s>(
        &'s self,
        k: usize,
        rows: Range<usize>,
        columns: Range<usize>,
        room: &'s mut [A],
    ) -> Matrix<'s, A>;
}

impl<A: Copy> Matrix<'_, A> {
    /// Puts `f` of each element of `out` and of the one of row `row` beside it in the former's place.
    pub(super) fn zip_row(&self, row: usize, out: &mut [A], f: impl Fn(A, A) -> A) {
        if out.is_empty() {
            return;
        }
        let (from, along) = (row * self.strides[0], self.strides[1]);
        let elements = &self.elements[from..];
        match along {
            0 => change(out, |out| f(out, elements[0])),
            1 => {
                let row = &elements[..out.len()];
                out.iter_mut()
                    .zip(row)
                    .for_each(|(out, &x)| *out = f(*out, x));
            }
            _ => {
                let row = elements.iter().step_by(along);
                out.iter_mut()
                    .zip(row)
                    .for_each(|(out, &x)| *out = f(*out, x));
            }
        }
    }
}

/// Puts `f` of each element in its place.
pub(super) fn change<A: Copy>(elements: &mut [A], f: impl Fn(A) -> A) {
    elements.iter_mut().for_each(|x| *x = f(*x));
}

/// A type that blocks are computed in.
pub(super) trait Wide: Number + Real {
    /// The matrices of a tensor of a dtype that is computed in this type.
    fn stack<'t>(x: Snapshot<'t>, dtype: DType) -> Box<dyn Stack<Self> + 't>;

    /// Rounds the elements to another dtype that is computed in this type, into the bytes of as many.
    fn store(elements: &[Self], dtype: DType, bytes: &mut [u8]);

    /// How many elements of a block [`Stack::block`] needs room for.
    fn room(dtype: DType, elements: usize) -> usize {
        if dtype == Self::DTYPE { 0 } else { elements }
    }
}

impl Wide for f32 {
    fn stack<'t>(x: Snapshot<'t>, dtype: DType) -> Box<dyn Stack<Self> + 't> {
        let matrices = Matrices::of(x);
        match dtype {
            DType::F16 => Box::new(Narrow(matrices, PhantomData::<f16>)),
            DType::BF16 => Box::new(Narrow(matrices, PhantomData::<bf16>)),
            DType::F32 | DType::F64 => Box::new(Own(matrices)),
        }
    }

    fn store(elements: &[Self], dtype: DType, bytes: &mut [u8]) {
        match dtype {
            DType::F16 => {
                bytemuck::cast_slice_mut::<_, f16>(bytes).convert_from_f32_slice(elements)
            }
            DType::BF16 => {
                bytemuck::cast_slice_mut::<_, bf16>(bytes).convert_from_f32_slice(elements);
            }
            DType::F32 | DType::F64 => bytemuck::cast_slice_mut(bytes).copy_from_slice(elements),
        }
    }
}

impl Wide for f64 {
    fn stack<'t>(x: Snapshot<'t>, _dtype: DType) -> Box<dyn Stack<Self> + 't> {
        Box::new(Own(Matrices::of(x)))
    }

    fn store(elements: &[Self], _dtype: DType, bytes: &mut [u8]) {
        bytemuck::cast_slice_mut(bytes).copy_from_slice(elements);
    }
}

/// Of the type that is computed in.
struct Own<'t>(Matrices<'t>);

impl<A: Real> Stack<A> for Own<'_> {
    fn block<'s>(
        &'s self,
        k: usize,
        rows: Range<usize>,
        columns: Range<usize>,
        _room: &'s mut [A],
    ) -> Matrix<'s, A> {
        let matrix = self.0.get::<A>(k);
        let from = first(&matrix, &rows, &columns);
        Matrix {
            // A block without elements may begin beyond the end.
            elements: matrix.elements.get(from..).unwrap_or_default(),
            shape: [rows.len(), columns.len()],
            strides: matrix.strides,
        }
    }
}

/// Of 16 bits.
struct Narrow<'t, T>(Matrices<'t>, PhantomData<T>);

impl<T: Scalar<Acc = f32>> Stack<f32> for Narrow<'_, T> {
    fn block<'s>(
        &'s self,
        k: usize,
        rows: Range<usize>,
        columns: Range<usize>,
        room: &'s mut [f32],
    ) -> Matrix<'s, f32> {
        let matrix = self.0.get::<T>(k);
        let (count, width) = (rows.len(), columns.len());
        let room = &mut room[..count * width];
        let along = matrix.strides[1];
        let from = first(&matrix, &rows, &columns);
        for (i, out) in room.chunks_exact_mut(width.max(1)).enumerate() {
            let row = &matrix.elements[from + i * matrix.strides[0]..];
            match along {
                0 => out.fill(row[0].to_acc()),
                1 => {
                    T::widen(&row[..width], out);
                }
                _ => {
                    let row = row.iter().step_by(along);
                    out.iter_mut()
                        .zip(row)
                        .for_each(|(out, x)| *out = x.to_acc());
                }
            }
        }
        Matrix::row_major(room, [count, width])
    }
}

fn first<T>(matrix: &Matrix<'_, T>, rows: &Range<usize>, columns: &Range<usize>) -> usize {
    rows.start * matrix.strides[0] + columns.start * matrix.strides[1]
}
