//! Shapes, strides and the rules that turn one into another.

use ndarray::{ArrayD, ArrayViewD, ArrayViewMutD, IxDyn, ShapeBuilder};

use crate::dtype::DType;
use crate::error::{Call, ErrorKind, Result};

/// Where the elements of a tensor lie in its storage: element `index` is `offset + sum(index[k] *
/// strides[k])` elements from the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    shape: Box<[usize]>,
    strides: Box<[usize]>,
    offset: usize,
}

/// Places of memory, `stride` elements from one to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) length: usize,
    pub(crate) stride: usize,
}

impl Layout {
    /// Row-major, from the start of the storage.
    pub(crate) fn contiguous(shape: &[usize]) -> Self {
        Self {
            shape: shape.into(),
            strides: row_major_strides(shape),
            offset: 0,
        }
    }

    /// The same, from another element of the storage.
    pub(crate) fn at(self, offset: usize) -> Self {
        Self { offset, ..self }
    }

    /// The layout of an array of ndarray's that owns its elements, in the storage in which it has its
    /// first element at `offset`; `None` if a stride is negative.
    pub(crate) fn of_array(shape: &[usize], strides: &[isize], offset: usize) -> Option<Self> {
        let strides = strides.iter().map(|&stride| stride.try_into().ok());
        Some(Self {
            shape: shape.into(),
            strides: strides.collect::<Option<_>>()?,
            offset,
        })
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(crate) fn strides(&self) -> &[usize] {
        &self.strides
    }

    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// The number of elements; does not overflow, as every layout was made from a shape that
    /// [`checked_numel`] accepted.
    pub(crate) fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the elements lie one after another in row-major order.
    pub(crate) fn is_contiguous(&self) -> bool {
        if self.numel() == 0 {
            return true;
        }
        let mut expected = 1;
        self.shape
            .iter()
            .zip(&self.strides)
            .rev()
            .all(|(&length, &stride)| {
                let fits = length == 1 || stride == expected;
                expected *= length;
                fits
            })
    }

    /// Whether two elements may share memory. Without elements, any strides will do: those of shape
    /// [3, 0] are 0 and 1.
    pub(crate) fn is_expanded(&self) -> bool {
        let mut axes = self.shape.iter().zip(&self.strides);
        self.numel() > 0 && axes.any(|(&length, &stride)| length > 1 && stride == 0)
    }

    /// The elements of a storage that this layout selects.
    pub(crate) fn view<'s, T>(&self, storage: &'s [T]) -> ArrayViewD<'s, T> {
        let shape = IxDyn(&self.shape);
        let view = if self.numel() == 0 {
            ArrayViewD::from_shape(shape, &[])
        } else {
            ArrayViewD::from_shape(shape.strides(IxDyn(&self.strides)), &storage[self.offset..])
        };
        view.expect(WITHIN)
    }

    /// The same, to write; not for [expanded](Self::is_expanded) layouts.
    pub(crate) fn view_mut<'s, T>(&self, storage: &'s mut [T]) -> ArrayViewMutD<'s, T> {
        let shape = IxDyn(&self.shape);
        let view = if self.numel() == 0 {
            ArrayViewMutD::from_shape(shape, &mut [])
        } else {
            let shape = shape.strides(IxDyn(&self.strides));
            ArrayViewMutD::from_shape(shape, &mut storage[self.offset..])
        };
        view.expect(WITHIN)
    }

    /// An array of the elements, which are the whole storage; for layouts that begin with its first
    /// element and are not [expanded](Self::is_expanded).
    pub(crate) fn array<T>(&self, storage: Vec<T>) -> ArrayD<T> {
        let shape = IxDyn(&self.shape);
        let array = if self.numel() == 0 {
            ArrayD::from_shape_vec(shape, Vec::new())
        } else {
            ArrayD::from_shape_vec(shape.strides(IxDyn(&self.strides)), storage)
        };
        array.expect(WITHIN)
    }

    /// Axis `k` of the result is axis `axes[k]`; `axes` is a permutation.
    pub(crate) fn permuted(&self, axes: &[usize]) -> Self {
        Self {
            shape: axes.iter().map(|&axis| self.shape[axis]).collect(),
            strides: axes.iter().map(|&axis| self.strides[axis]).collect(),
            offset: self.offset,
        }
    }

    /// Every `step`th of the elements of an axis, `length` of them, from `start` on.
    pub(crate) fn sliced(mut self, axis: usize, start: usize, step: usize, length: usize) -> Self {
        self.shape[axis] = length;
        // Without elements there is no place to move to: the storage may have none either.
        if self.numel() > 0 {
            self.offset += start * self.strides[axis];
            if length > 1 {
                self.strides[axis] *= step;
            }
        }
        self
    }

    /// The axes of more than one place, those in one that one axis would lead through memory alike.
    pub(crate) fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (&length, &stride) in self.shape.iter().zip(&self.strides) {
            match runs.last_mut() {
                _ if length == 1 => {}
                Some(run) if run.stride == length * stride => {
                    *run = Run {
                        length: run.length * length,
                        stride,
                    };
                }
                _ => runs.push(Run { length, stride }),
            }
        }
        runs
    }

    /// The same elements in row-major order under another shape of as many; `None` if strides
    /// cannot say so.
    pub(crate) fn reshaped(&self, shape: &[usize]) -> Option<Self> {
        if self.is_contiguous() {
            return Some(Self::contiguous(shape).at(self.offset));
        }
        // Each of them is cut into one or more of the new axes.
        let mut runs = self.runs().into_iter();
        let (mut rest, mut stride) = (1, 1);
        let strides = shape.iter().map(|&length| {
            if length > 1 && rest == 1 {
                Run {
                    length: rest,
                    stride,
                } = runs.next()?;
            }
            let cut = rest.is_multiple_of(length);
            rest /= length;
            cut.then_some(rest * stride)
        });
        Some(Self {
            strides: strides.collect::<Option<_>>()?,
            shape: shape.into(),
            offset: self.offset,
        })
    }

    /// Repeated along new leading axes and along axes of length 1, as in broadcasting; `None` if
    /// the shape is not one that this one broadcasts to.
    pub(crate) fn expanded(&self, shape: &[usize]) -> Option<Self> {
        let leading = shape.len().checked_sub(self.shape.len())?;
        let mut strides = vec![0; shape.len()].into_boxed_slice();
        for (k, (&length, &stride)) in self.shape.iter().zip(&self.strides).enumerate() {
            if length == shape[leading + k] {
                strides[leading + k] = stride;
            } else if length != 1 {
                return None;
            }
        }
        Some(Self {
            shape: shape.into(),
            strides,
            offset: self.offset,
        })
    }
}

/// Layouts come from [`Layout::contiguous`], over a buffer as long as the shape needs, or from an array
/// that owned its elements, and the other methods select among these.
const WITHIN: &str = "a layout stays within its storage";

/// The elements of a new tensor as an array to write.
pub(crate) fn row_major<'e, T>(elements: &'e mut [T], shape: &[usize]) -> ArrayViewMutD<'e, T> {
    ArrayViewMutD::from_shape(shape, elements).expect(WITHIN)
}

fn row_major_strides(shape: &[usize]) -> Box<[usize]> {
    let mut strides = vec![1_usize; shape.len()].into_boxed_slice();
    for k in (1..shape.len()).rev() {
        strides[k - 1] = strides[k].saturating_mul(shape[k]);
    }
    strides
}

/// The number of elements of a shape.
///
/// The product of the axes that are not 0, and the bytes of so many elements, have to fit an
/// `isize`: ndarray asks for it, and no allocation can be larger.
pub(crate) fn checked_numel(call: Call<'_>, shape: &[usize], dtype: DType) -> Result<usize> {
    let bytes = shape
        .iter()
        .filter(|&&length| length != 0)
        .try_fold(dtype.size(), |bytes, &length| bytes.checked_mul(length))
        .filter(|&bytes| isize::try_from(bytes).is_ok());
    match bytes {
        None => Err(call.error(ErrorKind::TooLarge {
            shape: shape.to_vec(),
            dtype,
        })),
        Some(_) if shape.contains(&0) => Ok(0),
        Some(bytes) => Ok(bytes / dtype.size()),
    }
}

/// The shape that both broadcast to by NumPy's rules: aligned at the last axis, lengths equal or 1.
pub(crate) fn broadcast(call: Call<'_>, left: &[usize], right: &[usize]) -> Result<Vec<usize>> {
    let ndim = left.len().max(right.len());
    let length = |shape: &[usize], k: usize| (k + shape.len()).checked_sub(ndim).map(|k| shape[k]);
    (0..ndim)
        .map(
            |k| match (length(left, k).unwrap_or(1), length(right, k).unwrap_or(1)) {
                (l, r) if l == r || r == 1 => Ok(l),
                (1, r) => Ok(r),
                _ => Err(call.error(ErrorKind::Broadcast {
                    left: left.to_vec(),
                    right: right.to_vec(),
                })),
            },
        )
        .collect()
}

/// The shape without some of its axes, which are distinct and in range; with them at length 1 if
/// `keepdim`.
pub(crate) fn reduced(shape: &[usize], axes: &[usize], keepdim: bool) -> Vec<usize> {
    let length = |(axis, &length): (usize, &usize)| match axes.contains(&axis) {
        true => keepdim.then_some(1),
        false => Some(length),
    };
    shape.iter().enumerate().filter_map(length).collect()
}

/// The axes counted from the first, and a negative one from the last; each at most once.
pub(crate) fn resolve_axes(call: Call<'_>, axes: &[isize], shape: &[usize]) -> Result<Vec<usize>> {
    let mut seen = vec![false; shape.len()];
    axes.iter()
        .map(|&axis| {
            let resolved = resolve_axis(call, axis, shape)?;
            if core::mem::replace(&mut seen[resolved], true) {
                let expected = "distinct axes";
                return Err(call.error(ErrorKind::Axes {
                    expected,
                    axes: axes.to_vec(),
                }));
            }
            Ok(resolved)
        })
        .collect()
}

/// The axis counted from the first, and a negative one from the last.
pub(crate) fn resolve_axis(call: Call<'_>, axis: isize, shape: &[usize]) -> Result<usize> {
    resolve_among(call, axis, shape.len())
}

/// The place of a new axis, before any of the axes or after the last; a negative one counts from
/// the latter.
pub(crate) fn resolve_new_axis(call: Call<'_>, axis: isize, shape: &[usize]) -> Result<usize> {
    resolve_among(call, axis, shape.len() + 1)
}

fn resolve_among(call: Call<'_>, axis: isize, count: usize) -> Result<usize> {
    let resolved = if axis < 0 {
        axis.checked_add_unsigned(count)
    } else {
        Some(axis)
    };
    resolved
        .and_then(|axis| usize::try_from(axis).ok())
        .filter(|&axis| axis < count)
        .ok_or_else(|| call.error(ErrorKind::Axis { axis }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test() -> Call<'static> {
        Call::making("test", &[], DType::F64)
    }

    #[test]
    fn broadcasting_follows_numpy() {
        let ok = |left: &[usize], right: &[usize]| broadcast(test(), left, right).unwrap();
        assert_eq!(ok(&[8, 1, 6, 1], &[7, 1, 5]), [8, 7, 6, 5]);
        assert_eq!(ok(&[], &[3]), [3]);
        assert_eq!(ok(&[2, 0], &[1]), [2, 0]);
        assert_eq!(ok(&[1], &[0]), [0]);
        assert!(broadcast(test(), &[2, 1], &[8, 4, 3]).is_err());
        assert!(broadcast(test(), &[0], &[2]).is_err());
    }

    #[test]
    fn sizes_that_overflow_are_errors_also_with_an_empty_axis() {
        let numel = |shape: &[usize]| checked_numel(test(), shape, DType::F64);
        assert_eq!(numel(&[]), Ok(1));
        assert_eq!(numel(&[3, 0, 2]), Ok(0));
        assert_eq!(numel(&[1 << 59]), Ok(1 << 59));
        assert!(numel(&[1 << 60]).is_err());
        assert!(numel(&[usize::MAX, 2]).is_err());
        assert!(numel(&[usize::MAX, 0]).is_err());
    }

    #[test]
    fn axes_count_from_either_end() {
        let resolve = |axes: &[isize]| resolve_axes(test(), axes, &[2, 3, 4]);
        let refused = |axes: &[isize]| resolve(axes).unwrap_err().kind().clone();
        assert_eq!(resolve(&[0, -1]).unwrap(), [0, 2]);
        assert!(matches!(refused(&[3]), ErrorKind::Axis { axis: 3, .. }));
        assert!(matches!(refused(&[-4]), ErrorKind::Axis { axis: -4, .. }));
        assert!(matches!(refused(&[isize::MIN]), ErrorKind::Axis { .. }));
        assert!(matches!(refused(&[1, -2]), ErrorKind::Axes { .. }));
    }

    #[test]
    fn a_layout_is_reshaped_where_strides_can_say_so() {
        // Rows of 6 of which 4 are in use.
        let rows = Layout::contiguous(&[2, 3, 6]).sliced(2, 1, 1, 4);
        let strides = |layout: &Layout, shape: &[usize]| {
            let reshaped = layout.reshaped(shape)?;
            assert_eq!(
                (reshaped.shape(), reshaped.offset()),
                (shape, layout.offset())
            );
            Some(reshaped.strides().to_vec())
        };
        assert_eq!(strides(&rows, &[6, 4]), Some(vec![6, 1]));
        assert_eq!(strides(&rows, &[3, 2, 2, 2]), Some(vec![12, 6, 2, 1]));
        assert_eq!(strides(&rows, &[1, 6, 1, 4, 1]), Some(vec![1, 6, 6, 1, 1]));
        assert_eq!(strides(&rows, &[2, 12]), None);
        assert_eq!(strides(&rows, &[24]), None);
        assert_eq!(strides(&rows, &[8, 3]), None);
        let columns = Layout::contiguous(&[4, 6]).permuted(&[1, 0]);
        assert_eq!(strides(&columns, &[2, 3, 2, 2]), Some(vec![3, 1, 12, 6]));
        assert_eq!(strides(&columns, &[24]), None);
        let repeated = Layout::contiguous(&[3]).expanded(&[2, 2, 3]).unwrap();
        assert_eq!(strides(&repeated, &[4, 3]), Some(vec![0, 1]));
        assert_eq!(strides(&repeated, &[12]), None);
        let empty = Layout::contiguous(&[2, 0]);
        assert_eq!(strides(&empty, &[0, 7]), Some(vec![7, 1]));
    }

    #[test]
    fn axes_of_length_one_do_not_break_contiguity() {
        let layout = Layout::contiguous(&[3, 1, 4]);
        assert!(layout.permuted(&[1, 0, 2]).is_contiguous());
        assert!(!layout.permuted(&[2, 1, 0]).is_contiguous());
        assert!(
            Layout::contiguous(&[0, 5])
                .permuted(&[1, 0])
                .is_contiguous()
        );
    }
}
