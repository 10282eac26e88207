//! Operations on the rows of a tensor: what some axes hold for each place of the others.
//!
//! A row is brought together in the type that the dtype computes in, and results are rounded once. So
//! they are the same for a view and its contiguous copy.

mod argmax;
pub(super) mod exponentials;
mod log_softmax;
mod logsumexp;
mod mapping;
mod max;
mod min;
mod moments;
mod norm;
mod reduction;
pub(super) mod softmax;
mod standardize;
mod std;
mod var;
mod workspaces;

use crate::dtype::{Real, Scalar};
use crate::error::{Call, Result};
use crate::ops::elementwise;
use crate::tensor::Tensor;
use workspaces::Workspaces;

/// A tensor with some axes moved behind the others.
struct Rows {
    /// Contiguous, and apart from the graph.
    elements: Tensor,
    /// Axis `k` of `elements` is axis `order[k]` of the tensor.
    order: Vec<isize>,
    /// How many rows there are.
    count: usize,
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
        let (others, row) = elements.shape().split_at(x.ndim() - axes.len());
        let (count, length) = (others.iter().product(), row.iter().product());
        Ok(Self {
            elements,
            order,
            count,
            length,
        })
    }

    /// `f` of each row, as a tensor of `shape`.
    fn reduce<T: Scalar>(
        &self,
        call: Call<'_>,
        shape: &[usize],
        f: impl Fn(&[T::Acc]) -> T::Acc + Sync,
    ) -> Result<Tensor> {
        let mut workspaces = self.workspaces::<T>(call, self.widened::<T>())?;
        let snapshot = self.elements.read();
        let elements = snapshot.contiguous::<T>();
        Tensor::filled(call, shape, |out: &mut [T]| {
            workspaces.for_each(out, 1, |row, out, scratch| {
                let row = &elements[row * self.length..][..self.length];
                out[0] = T::from_acc(f(T::widen(row, scratch)));
            });
        })
    }

    /// The tensor with each row as `f` leaves it; `f` is told the row's number, and given room for
    /// another row to widen.
    fn map<T: Scalar>(
        &self,
        call: Call<'_>,
        f: impl Fn(usize, &mut [T::Acc], &mut [T::Acc]) + Sync,
    ) -> Result<Tensor> {
        let room = self.widened::<T>().saturating_add(self.length);
        let mut workspaces = self.workspaces::<T>(call, room)?;
        let snapshot = self.elements.read();
        let elements = snapshot.contiguous::<T>();
        let output = Tensor::filled(call, self.elements.shape(), |out: &mut [T]| {
            workspaces.for_each(out, self.length, |number, out, room| {
                let (row, scratch) = room.split_at_mut(self.length);
                let x = &elements[number * self.length..][..self.length];
                row.copy_from_slice(T::widen(x, scratch));
                f(number, row, scratch);
                out.iter_mut()
                    .zip(row)
                    .for_each(|(out, &mut x)| *out = T::from_acc(x));
            });
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
        f: impl Fn(&mut [T::Acc], &[T::Acc]) + Sync,
    ) -> Result<Tensor> {
        let snapshot = other.elements.read();
        let others = snapshot.contiguous::<T>();
        self.map::<T>(call, |number, row, scratch| {
            let other = &others[number * self.length..][..self.length];
            f(row, T::widen(other, scratch));
        })
    }

    fn workspaces<T: Scalar>(&self, call: Call<'_>, room: usize) -> Result<Workspaces<T::Acc>> {
        let bytes = self.length.saturating_mul(size_of::<T>());
        Workspaces::new(call, room, self.count, bytes)
    }

    /// The elements that [`Scalar::widen`] needs room for.
    fn widened<T: Scalar>(&self) -> usize {
        if T::DTYPE == T::Acc::DTYPE {
            0
        } else {
            self.length
        }
    }
}

/// One number for each row, in the type that is computed in.
fn widened<T: Scalar>(x: &Tensor) -> Result<Vec<T::Acc>> {
    Ok(x.to_vec::<T>()?.into_iter().map(T::to_acc).collect())
}

/// `grad` in equal parts where the elements are `value`, and 0 elsewhere, in place of the row.
fn share<A: Real>(row: &mut [A], value: A, grad: A) {
    let chosen = |x: A| x == value || (x.is_nan() && value.is_nan());
    let count = row.iter().filter(|&&x| chosen(x)).count();
    let part = grad / A::nearest(count as f64);
    row.iter_mut()
        .for_each(|x| *x = if chosen(*x) { part } else { A::zero() });
}
