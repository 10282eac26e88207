//! [`Map`]: a function of every element.

use crate::buffers::{Beside, Buffers};
use crate::element::Element;
use crate::function::Function;

/// Compute a function of every element: `y = f(x)`; with a row beside the input, of `x + row`; with elements
/// beside the input, times those.
///
/// Sum, value and product are each rounded in the type computed in, and what comes out once more to the
/// element type. [`Element::value`] is the function.
#[derive(Debug)]
pub struct Map<'a, T: Element> {
    function: Function,
    buffers: Buffers<'a, T>,
    streaming: bool,
}

impl<'a, T: Element> Map<'a, T> {
    /// `function` over `buffers`.
    ///
    /// ```
    /// use sorix_kernels::backend::job::Map;
    /// use sorix_kernels::backend::reference;
    /// use sorix_kernels::{Buffers, Function};
    ///
    /// let mut x = [0.0_f32, 0.0];
    /// reference::map(Map::new(Function::Exp, Buffers::in_place(&mut x).with_elements(&[2.0, 3.0])?));
    /// assert_eq!(x, [2.0, 3.0]);
    /// # Ok::<(), sorix_kernels::LengthError>(())
    /// ```
    #[must_use]
    pub fn new(function: Function, buffers: Buffers<'a, T>) -> Self {
        Self {
            function,
            buffers,
            streaming: false,
        }
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

    /// What is read beside the input: what the values are multiplied by, and what is added to the input.
    #[must_use]
    pub fn beside(&self) -> Beside<'a, T> {
        self.buffers.beside()
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

/// How many bytes a copy would move in the time that a function of `len` elements takes: in f32 4 copies of
/// them, in f64, which is not made in vectors, 20.
pub(crate) fn work<T: Element>(len: usize) -> usize {
    const F32_BYTES: usize = 32;
    const F64_BYTES: usize = 320;
    len.saturating_mul(if size_of::<T>() == size_of::<f64>() {
        F64_BYTES
    } else {
        F32_BYTES
    })
}
