//! Arrays of dual numbers, computed the long way: what the tensor operations have to agree with.
//!
//! A dual number carries a value and its derivative in one direction, so one forward pass gives what
//! the gradients must add up to along that direction. Indices are walked one at a time, and `None`
//! is returned where the tensor operation has to be an error.

use core::ops::{Add, Div, Mul, Neg, Sub};

/// A value and its derivative in the direction that the leaves are moved in.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Dual {
    pub(crate) value: f64,
    pub(crate) tangent: f64,
}

impl Dual {
    pub(crate) fn constant(value: f64) -> Self {
        Self {
            value,
            tangent: 0.0,
        }
    }

    /// A function of the value, from what it gives and its derivative there.
    pub(crate) fn chain(self, value: f64, derivative: f64) -> Self {
        Self {
            value,
            tangent: derivative * self.tangent,
        }
    }

    pub(crate) fn is_moderate(self, most: f64) -> bool {
        self.value.abs() <= most && self.tangent.abs() <= most
    }
}

impl Add for Dual {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            value: self.value + other.value,
            tangent: self.tangent + other.tangent,
        }
    }
}

impl Sub for Dual {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Neg for Dual {
    type Output = Self;

    fn neg(self) -> Self {
        self.chain(-self.value, -1.0)
    }
}

impl Mul for Dual {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        Self {
            value: self.value * other.value,
            tangent: self.tangent * other.value + self.value * other.tangent,
        }
    }
}

impl Div for Dual {
    type Output = Self;

    fn div(self, other: Self) -> Self {
        let value = self.value / other.value;
        Self {
            value,
            tangent: (self.tangent - value * other.tangent) / other.value,
        }
    }
}

/// An array, row-major.
#[derive(Clone, Debug)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) elements: Vec<Dual>,
}

impl Array {
    /// The array whose element at each index is `f` of the index.
    pub(crate) fn from_fn(shape: &[usize], mut f: impl FnMut(&[usize]) -> Dual) -> Self {
        let count = shape.iter().product();
        let mut index = vec![0; shape.len()];
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(f(&index));
            for (i, &length) in index.iter_mut().zip(shape).rev() {
                *i += 1;
                if *i < length {
                    break;
                }
                *i = 0;
            }
        }
        Self {
            shape: shape.to_vec(),
            elements,
        }
    }

    /// The element that an index of a shape this array broadcasts to reads.
    pub(crate) fn at(&self, index: &[usize]) -> Dual {
        let own = &index[index.len() - self.shape.len()..];
        let place = self.shape.iter().zip(own).fold(0, |place, (&length, &i)| {
            place * length + if length == 1 { 0 } else { i }
        });
        self.elements[place]
    }

    pub(crate) fn map(&self, mut f: impl FnMut(Dual) -> Dual) -> Self {
        Self {
            shape: self.shape.clone(),
            elements: self.elements.iter().map(|&x| f(x)).collect(),
        }
    }

    pub(crate) fn zip(&self, other: &Self, f: impl Fn(Dual, Dual) -> Dual) -> Option<Self> {
        let shape = broadcast(&self.shape, &other.shape)?;
        Some(Self::from_fn(&shape, |index| {
            f(self.at(index), other.at(index))
        }))
    }

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

    /// The products of matrices, whose leading axes broadcast; a vector is a row on the left and a
    /// column on the right, without that axis in the result.
    pub(crate) fn matmul(&self, other: &Self) -> Option<Self> {
        let left = match self.shape.len() {
            1 => self.unsqueeze(0)?,
            _ => self.clone(),
        };
        let right = match other.shape.len() {
            1 => other.unsqueeze(1)?,
            _ => other.clone(),
        };
        let (left_lead, &[rows, inner]) = left.shape.split_last_chunk()?;
        let (right_lead, &[same, columns]) = right.shape.split_last_chunk()?;
        if inner != same {
            return None;
        }
        let lead = broadcast(left_lead, right_lead)?;
        let ndim = lead.len();
        let mut product = Self::from_fn(&[&lead[..], &[rows, columns]].concat(), |index| {
            let (lead, row, column) = (&index[..ndim], index[ndim], index[ndim + 1]);
            (0..inner)
                .map(|k| {
                    let [l, r] = [[row, k], [k, column]].map(|last| [lead, &last].concat());
                    left.at(&l) * right.at(&r)
                })
                .fold(Dual::default(), |sum, product| sum + product)
        });
        if other.shape.len() == 1 {
            product.shape.remove(ndim + 1);
        }
        if self.shape.len() == 1 {
            product.shape.remove(ndim);
        }
        Some(product)
    }

    /// The sums over some axes.
    pub(crate) fn sum(&self, axes: &[isize], keepdim: bool) -> Option<Self> {
        let axes = resolve(axes, self.shape.len())?;
        let summed = |axis: usize| axes.contains(&axis);
        let mut kept = self.shape.clone();
        axes.iter().for_each(|&axis| kept[axis] = 1);
        let mut sums = Self::from_fn(&kept, |_| Dual::default());
        // Each element goes to the place where its index, with 0 along the summed axes, points.
        let mut place = Vec::new();
        Self::from_fn(&self.shape, |index| {
            place.push(index.iter().zip(&kept).fold(0, |place, (&i, &length)| {
                place * length + if length == 1 { 0 } else { i }
            }));
            Dual::default()
        });
        for (&x, place) in self.elements.iter().zip(place) {
            sums.elements[place] = sums.elements[place] + x;
        }
        if !keepdim {
            let left = (0..kept.len()).filter(|&axis| !summed(axis));
            sums.shape = left.map(|axis| kept[axis]).collect();
        }
        Some(sums)
    }

    /// The means over some axes.
    pub(crate) fn mean(&self, axes: &[isize], keepdim: bool) -> Option<Self> {
        let count: usize = resolve(axes, self.shape.len())?
            .iter()
            .map(|&axis| self.shape[axis])
            .product();
        let part = Dual::constant(1.0 / count as f64);
        let divide = |x: Dual| {
            if count == 0 {
                Dual::constant(f64::NAN)
            } else {
                x * part
            }
        };
        Some(self.sum(axes, keepdim)?.map(divide))
    }
}

/// The shape that both broadcast to.
fn broadcast(left: &[usize], right: &[usize]) -> Option<Vec<usize>> {
    let ndim = left.len().max(right.len());
    let length = |shape: &[usize], k: usize| {
        let missing = ndim - shape.len();
        if k < missing { 1 } else { shape[k - missing] }
    };
    (0..ndim)
        .map(|k| match (length(left, k), length(right, k)) {
            (l, r) if l == r => Some(l),
            (1, r) => Some(r),
            (l, 1) => Some(l),
            _ => None,
        })
        .collect()
}

/// Axes from the first; `None` where one is out of range or repeated.
fn resolve(axes: &[isize], ndim: usize) -> Option<Vec<usize>> {
    let mut resolved = Vec::new();
    for &axis in axes {
        let axis = if axis < 0 { axis + ndim as isize } else { axis };
        let axis = usize::try_from(axis).ok().filter(|&axis| axis < ndim)?;
        if resolved.contains(&axis) {
            return None;
        }
        resolved.push(axis);
    }
    Some(resolved)
}
