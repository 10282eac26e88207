//! [`Map`]: a function of every element.

use crate::buffers::Buffers;
use crate::element::Element;
use crate::error::LengthError;
use crate::function::Function;

/// Compute a function of every element: `y = f(x)`, or, with elements beside the input, `y = f(x) * beside`.
///
/// Value and product are each rounded in the type computed in, and what comes out once more to the element
/// type. [`Element::value`] is the function.
#[derive(Debug)]
pub struct Map<'a, T: Element> {
    function: Function,
    // Invariant: there is no row beside the input.
    buffers: Buffers<'a, T>,
    streaming: bool,
}

impl<'a, T: Element> Map<'a, T> {
    /// `function` over `buffers`.
    ///
    /// # Errors
    ///
    /// [`LengthError`] if a row is beside the input.
    ///
    /// ```
    /// use sorix_kernels::backend::job::Map;
    /// use sorix_kernels::backend::reference;
    /// use sorix_kernels::{Buffers, Function};
    ///
    /// let mut x = [0.0_f32, 0.0];
    /// reference::map(Map::new(Function::Exp, Buffers::in_place(&mut x).with_elements(&[2.0, 3.0])?)?);
    /// assert_eq!(x, [2.0, 3.0]);
    /// # Ok::<(), sorix_kernels::LengthError>(())
    /// ```
    pub fn new(function: Function, buffers: Buffers<'a, T>) -> Result<Self, LengthError> {
        let row = buffers.beside().row().map_or(0, |(row, _)| row.len());
        LengthError::check("row beside the input", 0, row)?;
        Ok(Self {
            function,
            buffers,
            streaming: false,
        })
    }

    /// As [`Update::streaming`](super::Update::streaming).
    #[must_use]
    pub fn streaming(self, streaming: bool) -> Self {
        Self { streaming, ..self }
    }

    /// Whether stores that bypass the cache are expected to be faster.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        self.streaming
    }

    /// The function.
    #[must_use]
    pub fn function(&self) -> Function {
        self.function
    }

    /// What the values are multiplied by, an element for each of the input's, if they are.
    #[must_use]
    pub fn factors(&self) -> Option<&'a [T]> {
        self.buffers.beside().elements()
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffers.len()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    /// Inputs and output.
    #[must_use]
    pub fn into_buffers(self) -> Buffers<'a, T> {
        self.buffers
    }

    /// The first `mid` elements and the rest.
    ///
    /// # Panics
    ///
    /// When `mid > len`.
    #[must_use]
    pub fn split_at(self, mid: usize) -> (Self, Self) {
        let (head, tail) = self.buffers.split_at(mid);
        let half = |buffers| Self { buffers, ..self };
        (half(head), half(tail))
    }
}
