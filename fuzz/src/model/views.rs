//! The same elements, or some of them, in other places.

use super::{Array, broadcast, resolve};

impl Array {
    pub(crate) fn expand(&self, shape: &[usize]) -> Option<Self> {
        (broadcast(&self.shape, shape)? == shape)
            .then(|| Self::from_fn(shape, |index| self.at(index)))
    }

    pub(crate) fn reshape(&self, shape: &[usize]) -> Option<Self> {
        (shape.iter().product::<usize>() == self.elements.len()).then(|| Self {
            shape: shape.to_vec(),
            elements: self.elements.clone(),
        })
    }

    pub(crate) fn permute(&self, axes: &[isize]) -> Option<Self> {
        let axes = resolve(axes, self.shape.len())?;
        if axes.len() != self.shape.len() {
            return None;
        }
        let shape: Vec<usize> = axes.iter().map(|&axis| self.shape[axis]).collect();
        Some(Self::from_fn(&shape, |index| {
            let mut own = vec![0; axes.len()];
            axes.iter().zip(index).for_each(|(&axis, &i)| own[axis] = i);
            self.at(&own)
        }))
    }

    pub(crate) fn transpose(&self, first: isize, second: isize) -> Option<Self> {
        let ndim = self.shape.len();
        let mut axes: Vec<isize> = (0..ndim as isize).collect();
        axes.swap(resolve(&[first], ndim)?[0], resolve(&[second], ndim)?[0]);
        self.permute(&axes)
    }

    /// The places of an axis that `indices` names.
    pub(crate) fn select(&self, axis: isize, indices: &[usize]) -> Option<Self> {
        let axis = resolve(&[axis], self.shape.len())?[0];
        if indices.iter().any(|&i| i >= self.shape[axis]) {
            return None;
        }
        let mut shape = self.shape.clone();
        shape[axis] = indices.len();
        Some(Self::from_fn(&shape, |index| {
            let mut own = index.to_vec();
            own[axis] = indices[index[axis]];
            self.at(&own)
        }))
    }

    /// From each row along the last axis the element that the row's index names.
    pub(crate) fn gather_last(&self, indices: &[usize]) -> Option<Self> {
        let (&length, others) = self.shape.split_last()?;
        let count: usize = others.iter().product();
        if indices.len() != count || indices.iter().any(|&i| i >= length) {
            return None;
        }
        let elements = indices.iter().enumerate();
        Some(Self {
            shape: others.to_vec(),
            elements: elements
                .map(|(row, &i)| self.elements[row * length + i])
                .collect(),
        })
    }

    /// Every `step`-th place of an axis from `begin` to before `end`.
    pub(crate) fn slice(&self, axis: isize, begin: usize, end: usize, step: usize) -> Option<Self> {
        let length = self.shape[resolve(&[axis], self.shape.len())?[0]];
        if step == 0 || begin > end || end > length {
            return None;
        }
        let indices: Vec<usize> = (begin..end).step_by(step).collect();
        self.select(axis, &indices)
    }

    /// One after the other along an axis.
    pub(crate) fn concat(&self, other: &Self, axis: isize) -> Option<Self> {
        let axis = resolve(&[axis], self.shape.len())?[0];
        let mut fitting = other.shape.clone();
        *fitting.get_mut(axis)? = self.shape[axis];
        if fitting != self.shape {
            return None;
        }
        let (own, mut shape) = (self.shape[axis], self.shape.clone());
        shape[axis] += other.shape[axis];
        Some(Self::from_fn(&shape, |index| {
            let mut place = index.to_vec();
            if index[axis] < own {
                return self.at(&place);
            }
            place[axis] -= own;
            other.at(&place)
        }))
    }

    /// Side by side along a new axis.
    pub(crate) fn stack(&self, other: &Self, axis: isize) -> Option<Self> {
        if self.shape != other.shape {
            return None;
        }
        let layers = [self.unsqueeze(axis)?, other.unsqueeze(axis)?];
        layers[0].concat(&layers[1], axis)
    }

    pub(crate) fn squeeze(&self, axis: isize) -> Option<Self> {
        let axis = resolve(&[axis], self.shape.len())?[0];
        let mut shape = self.shape.clone();
        (shape.remove(axis) == 1).then(|| self.reshape(&shape))?
    }

    pub(crate) fn squeeze_all(&self) -> Option<Self> {
        let mut shape = self.shape.clone();
        shape.retain(|&length| length != 1);
        self.reshape(&shape)
    }

    pub(crate) fn unsqueeze(&self, axis: isize) -> Option<Self> {
        let axis = resolve(&[axis], self.shape.len() + 1)?[0];
        let mut shape = self.shape.clone();
        shape.insert(axis, 1);
        self.reshape(&shape)
    }

    /// The axes from `start` to `end` made one.
    pub(crate) fn flatten(&self, start: isize, end: isize) -> Option<Self> {
        let shape = match &self.shape[..] {
            [] => &[1],
            shape => shape,
        };
        let (start, end) = (
            resolve(&[start], shape.len())?[0],
            resolve(&[end], shape.len())?[0],
        );
        if start > end {
            return None;
        }
        let flat = shape[start..=end].iter().product();
        self.reshape(&[&shape[..start], &[flat], &shape[end + 1..]].concat())
    }
}
