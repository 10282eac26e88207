//! Arrays of dual numbers, computed the long way: what the tensor operations have to agree with.
//!
//! A dual number carries a value and its derivative in one direction, so one forward pass gives what
//! the gradients must add up to along that direction. Indices are walked one at a time, and `None`
//! is returned where the tensor operation has to be an error.

mod dual;
pub(crate) mod rows;
mod views;

use sorix::BitMask;

pub(crate) use dual::Dual;

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
        self.elements[place(&self.shape, &index[index.len() - self.shape.len()..])]
    }

    /// All axes, by number.
    pub(crate) fn axes(&self) -> Vec<isize> {
        (0..self.shape.len() as isize).collect()
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

    /// `kept` of the elements that a mask of a smaller shape keeps, and `dropped` for the others.
    pub(crate) fn covered(
        &self,
        mask_shape: &[usize],
        mask: &BitMask,
        kept: impl Fn(Dual) -> Dual,
        dropped: Dual,
    ) -> Option<Self> {
        let mut axes = self.shape.iter().zip(mask_shape);
        if mask_shape.len() != self.shape.len()
            || axes.any(|(&length, &own)| own != length && own != 1)
            || mask.len() != mask_shape.iter().product::<usize>()
        {
            return None;
        }
        Some(Self::from_fn(&self.shape, |index| {
            match mask.get(place(mask_shape, index)) {
                Some(true) => kept(self.at(index)),
                _ => dropped,
            }
        }))
    }
}

/// Where an index points among row-major elements; axes of length 1 are not counted.
fn place(shape: &[usize], index: &[usize]) -> usize {
    shape.iter().zip(index).fold(0, |place, (&length, &i)| {
        place * length + if length == 1 { 0 } else { i }
    })
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
