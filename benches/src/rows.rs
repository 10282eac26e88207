//! What a kernel over rows reads and writes beside the tensors of the others.

use bytemuck::{Pod, cast_slice, cast_slice_mut};
use sorix_kernels::{
    AddNorm, BitMask, Buffers, DropRate, Element, Engine, Error, MaskKey, Norm, RowMoments,
};

use crate::tensors::Line;

/// Residual, sum, weight and shift, and the moments of rows; made by the first call.
#[derive(Debug, Default)]
pub struct RowOperands {
    residual: Vec<Line>,
    sum: Vec<Line>,
    affine: Vec<Line>,
    moments: Vec<RowMoments>,
    mask: Option<BitMask>,
}

/// As many numbers as are asked for, between -2 and 2.
fn numbers<S: Element<Scale = S>>(lines: &mut Vec<Line>, len: usize) {
    let bytes = len * size_of::<S>();
    lines.resize(bytes.div_ceil(size_of::<Line>()), Line::ZERO);
    for (i, number) in slice_mut::<S>(lines, len).iter_mut().enumerate() {
        *number = S::factor((i * 1_733 % 4096) as f64 / 1024.0 - 2.0);
    }
}

fn slice_mut<S: Pod>(lines: &mut [Line], len: usize) -> &mut [S] {
    &mut cast_slice_mut(lines)[..len]
}

impl RowOperands {
    /// A residual plus dropout of `x`, as layer normalised rows of `len` elements in `z`, with weight and
    /// shift; as many rows as there are whole.
    ///
    /// # Errors
    ///
    /// Those of the kernel.
    pub fn dropout_add_norm<T: Element>(
        &mut self,
        engine: Engine<'_>,
        rate: DropRate,
        key: MaskKey,
        len: usize,
        x: &[T],
        z: &mut [T],
    ) -> Result<(), Error> {
        let rows = x.len() / len;
        let elements = rows * len;
        if self.moments.len() != rows {
            numbers::<T::Scale>(&mut self.residual, elements);
            numbers::<T::Scale>(&mut self.sum, elements);
            numbers::<T::Scale>(&mut self.affine, 2 * len);
            self.moments = vec![RowMoments::default(); rows];
        }
        let mask = self.mask.take().filter(|mask| mask.len() == elements);
        let mask = self
            .mask
            .insert(mask.unwrap_or_else(|| BitMask::new(elements)));
        let affine: &[T::Scale] = &cast_slice(&self.affine)[..2 * len];
        let norm = Norm::layer(len, 1e-5)?.with_weight(&affine[..len])?;
        let norm = norm.with_shift(&affine[len..])?;
        let residual: &[T::Scale] = &cast_slice(&self.residual)[..elements];
        let sum = Buffers::new(residual, slice_mut(&mut self.sum, elements))?;
        let (x, z) = (&x[..elements], &mut z[..elements]);
        let rows = AddNorm::new(norm, x, sum, z, &mut self.moments)?;
        engine.dropout_add_norm(rate, key, rows, Some(mask))
    }
}
