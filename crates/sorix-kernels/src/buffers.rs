//! [`Buffers`]: what a kernel reads and what it writes, which may be the same slice.

use crate::error::LengthError;

/// Input and output of one kernel call: two slices of equal length, or one that is rewritten in
/// place; and, for a pass that reads more, what it reads [beside](crate::backend::Beside) the input.
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
    // Invariant: `x`, if there is one, is as long as `y`; so are the elements of `beside`.
    x: Option<&'a [T]>,
    beside: Beside<'a, T>,
    y: &'a mut [T],
}

/// What a kernel reads beside its input: an element for each of the input's, such as a residual; a row
/// that repeats, such as a bias; both, or nothing.
///
/// ```
/// use sorix_kernels::Buffers;
///
/// let mut y = [0.0_f32; 5];
/// let buffers = Buffers::in_place(&mut y).with_row(&[1.0, 2.0])?.with_elements(&[10.0; 5])?;
/// let beside = buffers.beside();
/// buffers.update(|i, _| beside.element(i).unwrap() + beside.of_row(i).unwrap());
/// assert_eq!(y, [11.0, 12.0, 11.0, 12.0, 11.0]);
/// # Ok::<(), sorix_kernels::LengthError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Beside<'a, T> {
    elements: Option<&'a [T]>,
    // The row, and the index in it of what stands beside the first element, below its length.
    row: Option<(&'a [T], usize)>,
}

impl<'a, T: Copy> Beside<'a, T> {
    const NOTHING: Self = Self {
        elements: None,
        row: None,
    };

    /// The elements, one for each of the input's.
    #[must_use]
    #[inline]
    pub fn elements(self) -> Option<&'a [T]> {
        self.elements
    }

    /// The row, and the index in it of what stands beside the first element, below the row's length.
    #[must_use]
    #[inline]
    pub fn row(self) -> Option<(&'a [T], usize)> {
        self.row
    }

    /// Of the elements, the one beside element `i`.
    ///
    /// # Panics
    ///
    /// If the input has no element `i`.
    #[must_use]
    pub fn element(self, i: usize) -> Option<T> {
        self.elements.map(|elements| elements[i])
    }

    /// Of the row, what stands beside element `i`.
    #[must_use]
    pub fn of_row(self, i: usize) -> Option<T> {
        self.row.map(|(row, at)| row[(at + i) % row.len()])
    }

    /// What stands beside the first `mid` elements, and beside the rest.
    fn split_at(self, mid: usize) -> (Self, Self) {
        let (head, tail) = self.elements.map(|all| all.split_at(mid)).unzip();
        let later = self
            .row
            .map(|(row, at)| (row, (at + mid) % row.len().max(1)));
        let half = |elements, row| Self { elements, row };
        (half(head, self.row), half(tail, later))
    }
}

impl<'a, T: Copy> Buffers<'a, T> {
    /// Reads `x` and writes `y`.
    ///
    /// # Errors
    ///
    /// [`LengthError`] if the lengths differ.
    pub fn new(x: &'a [T], y: &'a mut [T]) -> Result<Self, LengthError> {
        LengthError::check("output", x.len(), y.len())?;
        Ok(Self {
            x: Some(x),
            beside: Beside::NOTHING,
            y,
        })
    }

    /// Reads and writes `y`.
    #[must_use]
    pub fn in_place(y: &'a mut [T]) -> Self {
        Self {
            x: None,
            beside: Beside::NOTHING,
            y,
        }
    }

    /// Reads `elements` beside the input.
    ///
    /// # Errors
    ///
    /// [`LengthError`] unless they are as many as the input's.
    pub fn with_elements(self, elements: &'a [T]) -> Result<Self, LengthError> {
        LengthError::check("second input", self.len(), elements.len())?;
        let beside = Beside {
            elements: Some(elements),
            ..self.beside
        };
        Ok(Self { beside, ..self })
    }

    /// Reads `row` beside the input, again and again from the first element on; at the end there may be a
    /// part of it.
    ///
    /// # Errors
    ///
    /// [`LengthError`] if the row is empty and the input is not.
    pub fn with_row(self, row: &'a [T]) -> Result<Self, LengthError> {
        if row.is_empty() && !self.is_empty() {
            return Err(LengthError {
                what: "row (at least)",
                expected: 1,
                got: 0,
            });
        }
        let beside = Beside {
            row: Some((row, 0)),
            ..self.beside
        };
        Ok(Self { beside, ..self })
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

    /// What is read beside the input.
    #[must_use]
    #[inline]
    pub fn beside(&self) -> Beside<'a, T> {
        self.beside
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
            beside: self.beside,
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
        let (beside0, beside1) = self.beside.split_at(mid);
        let half = |x, beside, y| Self { x, beside, y };
        (half(x0, beside0, y0), half(x1, beside1, y1))
    }
}
