//! The tensors that are measured on: aligned, touched once, used again for every dtype and size.

use bytemuck::{Pod, Zeroable};
pub use half::{bf16 as Bf16, f16 as F16};
use rayon::prelude::*;
use sorix_kernels::{BitMask, Element};

use crate::case::Dtype;
use crate::rows::RowOperands;

/// An element type as the benches need it: its name, and a way to make values.
pub trait Value: Element {
    /// The type's tag.
    const DTYPE: Dtype;

    /// The value nearest to `x`.
    fn from_f32(x: f32) -> Self;
}

impl Value for f32 {
    const DTYPE: Dtype = Dtype::F32;

    fn from_f32(x: f32) -> Self {
        x
    }
}

impl Value for f64 {
    const DTYPE: Dtype = Dtype::F64;

    fn from_f32(x: f32) -> Self {
        x.into()
    }
}

impl Value for Bf16 {
    const DTYPE: Dtype = Dtype::Bf16;

    fn from_f32(x: f32) -> Self {
        Self::from_f32(x)
    }
}

impl Value for F16 {
    const DTYPE: Dtype = Dtype::F16;

    fn from_f32(x: f32) -> Self {
        Self::from_f32(x)
    }
}

/// Runs an expression with a type alias standing for the element type that a [`Dtype`] names.
///
/// ```
/// use sorix_benches::case::Dtype;
///
/// assert_eq!(sorix_benches::with_dtype!(Dtype::Bf16, T => size_of::<T>()), 2);
/// ```
#[macro_export]
macro_rules! with_dtype {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::case::Dtype::F32 => {
                type $T = f32;
                $body
            }
            $crate::case::Dtype::F64 => {
                type $T = f64;
                $body
            }
            $crate::case::Dtype::Bf16 => {
                type $T = $crate::tensors::Bf16;
                $body
            }
            $crate::case::Dtype::F16 => {
                type $T = $crate::tensors::F16;
                $body
            }
        }
    };
}

/// A cache line; a vector of them starts at a multiple of 64 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; 64]);

impl Line {
    pub(crate) const ZERO: Self = Self([0; 64]);
}

/// Memory for two inputs and an output tensor of any dtype, 64-byte aligned.
#[derive(Debug)]
pub struct Tensors {
    input: Vec<Line>,
    second: Vec<Line>,
    output: Vec<Line>,
}

impl Tensors {
    /// Tensors of up to `bytes` bytes each, all pages touched.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        // Not zeros: those come from the system as one shared page that is copied on first write.
        let lines = vec![Line([1; 64]); bytes.div_ceil(size_of::<Line>())];
        Self {
            input: lines.clone(),
            second: lines.clone(),
            output: lines,
        }
    }

    /// An input of `elements` values between -2 and 2 and an output to write to.
    ///
    /// # Panics
    ///
    /// If the tensors are smaller than that.
    #[must_use]
    pub fn of<T: Value>(&mut self, elements: usize) -> (&[T], &mut [T]) {
        let (input, _, output) = self.with_second(elements);
        (input, output)
    }

    /// The same with a second input, of other values between -2 and 2, before the output.
    ///
    /// # Panics
    ///
    /// If the tensors are smaller than that.
    #[must_use]
    pub fn with_second<T: Value>(&mut self, elements: usize) -> (&[T], &[T], &mut [T]) {
        let input = values(&mut self.input, elements, 2_531);
        let second = values(&mut self.second, elements, 1_733);
        let output = &mut bytemuck::cast_slice_mut(&mut self.output)[..elements];
        (input, second, output)
    }
}

/// Fills `lines` with `elements` values between -2 and 2, the same 4096 again and again in an order
/// that the odd `stride` makes.
fn values<T: Value>(lines: &mut [Line], elements: usize, stride: usize) -> &[T] {
    let values: &mut [T] = &mut bytemuck::cast_slice_mut(lines)[..elements];
    let (first, rest) = values.split_at_mut(elements.min(4096));
    for (i, x) in first.iter_mut().enumerate() {
        *x = T::from_f32((i * stride % 4096) as f32 / 1024.0 - 2.0);
    }
    for part in rest.chunks_mut(first.len().max(1)) {
        part.copy_from_slice(&first[..part.len()]);
    }
    values
}

/// What a kernel call reads and writes.
#[derive(Debug)]
pub struct Operands<'a, T> {
    /// The input of a forward pass, or the gradient of a backward pass.
    pub input: &'a [T],
    /// The second input of a kernel that reads two.
    pub second: &'a [T],
    /// What the call writes.
    pub output: &'a mut [T],
    /// What kernels over rows have beside these.
    pub rows: RowOperands,
    /// The mask: written by `fill_mask` and `forward`, read by `backward`.
    pub mask: &'a mut BitMask,
    /// The number of calls so far. Each draws another mask, so that no branch predictor learns one
    /// by heart.
    pub calls: u64,
}

/// Copies `input` to `output` on `threads` threads of the current rayon pool: the roof.
///
/// Each thread copies one piece, as large as can be, because the system's copy streams past the
/// cache from some size on. A piece is at least 128 KiB, less is not worth waking a thread for.
///
/// # Panics
///
/// If the lengths differ.
pub fn copy<T: Value>(input: &[T], output: &mut [T], threads: usize) {
    let input: &[u8] = bytemuck::cast_slice(input);
    let output: &mut [u8] = bytemuck::cast_slice_mut(output);
    if threads == 1 {
        output.copy_from_slice(input);
        return;
    }
    let piece = input
        .len()
        .div_ceil(threads)
        .next_multiple_of(64)
        .max(128 << 10);
    output
        .par_chunks_mut(piece)
        .zip_eq(input.par_chunks(piece))
        .for_each(|(output, input)| output.copy_from_slice(input));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_aligned_and_filled() {
        let mut tensors = Tensors::new(9000 * 8);
        let (input, output) = tensors.of::<f64>(9000);
        assert_eq!((input.len(), output.len()), (9000, 9000));
        assert!(input.as_ptr().addr().is_multiple_of(64));
        assert!(output.as_ptr().addr().is_multiple_of(64));
        assert!(input.iter().all(|x| (-2.0..2.0).contains(x)));
        assert_eq!(input[4096 + 7], input[7]);
        assert_ne!(input[0], input[1]);
    }

    #[test]
    fn a_copy_on_any_number_of_threads_copies_everything() {
        let mut tensors = Tensors::new(400_003 * 4);
        for threads in [1, 2, 3, 16] {
            let (input, output) = tensors.of::<f32>(400_003);
            output.fill(0.0);
            copy(input, output, threads);
            assert_eq!(input, output, "{threads} threads");
        }
    }
}
