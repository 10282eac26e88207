//! Operations on the rows of a tensor: what some axes hold for each place of the others.
//!
//! A row is brought together in the type that the dtype computes in, and results are rounded once. So
//! they are the same for a view and its contiguous copy.

mod argmax;
mod log_softmax;
mod logsumexp;
mod max;
mod min;
mod reduction;
mod softmax;
mod standardize;
mod std;
mod var;

use crate::dtype::{Real, Scalar};
use crate::error::{Call, Result};
use crate::ops::elementwise;
use crate::storage::Buffer;
use crate::tensor::Tensor;

/// A tensor with some axes moved behind the others.
struct Rows {
    /// Contiguous, and apart from the graph.
    elements: Tensor,
    /// Axis `k` of `elements` is axis `order[k]` of the tensor.
    order: Vec<isize>,
    length: usize,
}

impl Rows {
    /// The rows that `axes`, which are distinct and in range, make.
    fn new(call: Call<'_>, x: &Tensor, axes: &[usize]) -> Result<Self> {
        let mut order: Vec<isize> = (0..x.ndim() as isize).collect();
        order.sort_by_key(|&axis| axes.contains(&(axis as usize)));
        let mut elements = x.detach().permute(&order)?;
        if !elements.is_contiguous() {
            elements = elementwise::copy(call, &elements)?;
        }
        let length = axes.iter().map(|&axis| x.shape()[axis]).product();
        Ok(Self {
            elements,
            order,
            length,
        })
    }

    /// `f` of each row, as a tensor of `shape`.
    fn reduce<T: Scalar>(
        &self,
        call: Call<'_>,
        shape: &[usize],
        f: impl Fn(&[T::Acc]) -> T::Acc,
    ) -> Result<Tensor> {
        let mut scratch = self.scratch::<T>(call)?;
        let scratch = scratch.as_mut_slice();
        let snapshot = self.elements.read();
        let elements = snapshot.contiguous::<T>();
        Tensor::filled(call, shape, |out: &mut [T]| {
            for (row, out) in out.iter_mut().enumerate() {
                let row = &elements[row * self.length..][..self.length];
                *out = T::from_acc(f(T::widen(row, scratch)));
            }
        })
    }

    /// The tensor with each row as `f` leaves it; `f` is told the row's number.
    fn map<T: Scalar>(
        &self,
        call: Call<'_>,
        mut f: impl FnMut(usize, &mut [T::Acc]),
    ) -> Result<Tensor> {
        let (mut row, mut scratch) = (self.scratch::<T>(call)?, self.scratch::<T>(call)?);
        let row = &mut row.as_mut_slice::<T::Acc>()[..self.length];
        let scratch = scratch.as_mut_slice();
        let snapshot = self.elements.read();
        let elements = snapshot.contiguous::<T>();
        let output = Tensor::filled(call, self.elements.shape(), |out: &mut [T]| {
            let length = self.length.max(1);
            let rows = elements
                .chunks_exact(length)
                .zip(out.chunks_exact_mut(length));
            for (number, (x, out)) in rows.enumerate() {
                row.copy_from_slice(T::widen(x, scratch));
                f(number, row);
                out.iter_mut()
                    .zip(&*row)
                    .for_each(|(out, &x)| *out = T::from_acc(x));
            }
        })?;
        let mut back = vec![0; self.order.len()];
        for (k, &axis) in self.order.iter().enumerate() {
            back[axis as usize] = k as isize;
        }
        output.permute(&back)
    }

    /// The tensor with each row as `f` leaves it, that looks at the same row of `other`, a tensor of
    /// the same shape and dtype.
    fn map_with<T: Scalar>(
        &self,
        call: Call<'_>,
        other: &Self,
        f: impl Fn(&mut [T::Acc], &[T::Acc]),
    ) -> Result<Tensor> {
        let mut scratch = self.scratch::<T>(call)?;
        let scratch = scratch.as_mut_slice();
        let snapshot = other.elements.read();
        let others = snapshot.contiguous::<T>();
        self.map::<T>(call, |number, row| {
            let other = &others[number * self.length..][..self.length];
            f(row, T::widen(other, scratch));
        })
    }

    /// Room for a row in the type that is computed in.
    fn scratch<T: Scalar>(&self, call: Call<'_>) -> Result<Buffer> {
        Buffer::for_overwrite(call, self.length * T::Acc::DTYPE.size())
    }
}

/// One number for each row, in the type that is computed in.
fn widened<T: Scalar>(x: &Tensor) -> Result<Vec<T::Acc>> {
    Ok(x.to_vec::<T>()?.into_iter().map(T::to_acc).collect())
}

/// The sum, by ndarray's several partial sums.
fn sum<A: Real>(row: &[A]) -> A {
    ndarray::ArrayView1::from(row).sum()
}

fn mean<A: Real>(row: &[A]) -> A {
    sum(row) / A::nearest(row.len() as f64)
}

/// The largest element, NaN where there is one; -infinity for an empty row.
fn largest<A: Real>(row: &[A]) -> A {
    let larger = |max: A, &x: &A| if x > max || x.is_nan() { x } else { max };
    row.iter().fold(A::neg_infinity(), larger)
}

/// The smallest element, NaN where there is one; infinity for an empty row.
fn smallest<A: Real>(row: &[A]) -> A {
    let smaller = |min: A, &x: &A| if x < min || x.is_nan() { x } else { min };
    row.iter().fold(A::infinity(), smaller)
}

/// `grad` in equal parts where the elements are `value`, and 0 elsewhere, in place of the row.
fn share<A: Real>(row: &mut [A], value: A, grad: A) {
    let chosen = |x: A| x == value || (x.is_nan() && value.is_nan());
    let count = row.iter().filter(|&&x| chosen(x)).count();
    let part = grad / A::nearest(count as f64);
    row.iter_mut()
        .for_each(|x| *x = if chosen(*x) { part } else { A::zero() });
}

/// Subtracts the mean.
fn centre<A: Real>(row: &mut [A]) {
    let mean = mean(row);
    row.iter_mut().for_each(|x| *x = *x - mean);
}

/// The number of elements less `correction`, at least 0.
fn degrees<A: Real>(row: &[A], correction: usize) -> A {
    A::nearest(row.len().saturating_sub(correction) as f64)
}

/// The squared distances from the mean, in a second pass, by [`degrees`].
fn variance<A: Real>(row: &[A], correction: usize) -> A {
    let mean = mean(row);
    let squares = row
        .iter()
        .fold(A::zero(), |sum, &x| sum + (x - mean) * (x - mean));
    squares / degrees(row, correction)
}
