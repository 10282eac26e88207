//! [`Buffers`]: what a kernel reads and what it writes, which may be the same slice.

use crate::error::LengthError;

/// Input and output of one kernel call: two slices of equal length, or one that is rewritten in
/// place.
///
/// ```
/// use sorix_kernels::Buffers;
///
/// let x = [1.0_f32, 2.0];
/// let mut y = [0.0; 2];
/// Buffers::new(&x, &mut y)?.update(|_, x| 10.0 * x);
/// assert_eq!(y, [10.0, 20.0]);
/// Buffers::in_place(&mut y).update(|i, x| x + i as f32);
/// assert_eq!(y, [10.0, 21.0]);
/// # Ok::<(), sorix_kernels::LengthError>(())
/// ```
#[derive(Debug)]
pub struct Buffers<'a, T> {
    // Invariant: `x`, where there is one, is as long as `y`.
    x: Option<&'a [T]>,
    y: &'a mut [T],
}

impl<'a, T: Copy> Buffers<'a, T> {
    /// Reads `x` and writes `y`.
    ///
    /// # Errors
    ///
    /// [`LengthError`] where the lengths differ.
    pub fn new(x: &'a [T], y: &'a mut [T]) -> Result<Self, LengthError> {
        LengthError::check("output", x.len(), y.len())?;
        Ok(Self { x: Some(x), y })
    }

    /// Reads and writes `y`.
    #[must_use]
    pub fn in_place(y: &'a mut [T]) -> Self {
        Self { x: None, y }
    }

    /// The number of elements.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.y.len()
    }

    /// Whether there are no elements.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.y.is_empty()
    }

    /// Replaces each element of the output by `f(index, input element)`, in order.
    pub fn update(self, mut f: impl FnMut(usize, T) -> T) {
        match self.x {
            Some(x) => {
                for (i, (y, &x)) in self.y.iter_mut().zip(x).enumerate() {
                    *y = f(i, x);
                }
            }
            None => {
                for (i, y) in self.y.iter_mut().enumerate() {
                    *y = f(i, *y);
                }
            }
        }
    }

    /// Copies the input to the output as it is; in place, nothing is left to do.
    pub fn copy(self) {
        if let Some(x) = self.x {
            self.y.copy_from_slice(x);
        }
    }

    /// The input, absent in place, and the output.
    #[must_use]
    #[inline]
    pub fn into_slices(self) -> (Option<&'a [T]>, &'a mut [T]) {
        (self.x, self.y)
    }

    /// The output alone.
    #[must_use]
    #[inline]
    pub fn output(&mut self) -> &mut [T] {
        self.y
    }

    /// The same buffers for a shorter time.
    #[must_use]
    pub fn reborrow(&mut self) -> Buffers<'_, T> {
        Buffers {
            x: self.x,
            y: self.y,
        }
    }

    /// The first `mid` elements and the rest.
    ///
    /// # Panics
    ///
    /// When `mid > len`.
    #[must_use]
    #[inline]
    pub fn split_at(self, mid: usize) -> (Self, Self) {
        let (y0, y1) = self.y.split_at_mut(mid);
        let (x0, x1) = self.x.map(|x| x.split_at(mid)).unzip();
        (Self { x: x0, y: y0 }, Self { x: x1, y: y1 })
    }
}
