//! The gradient of the mask that is added to the scores.
//!
//! Each of its elements is the sum of the gradients of the scores to which that element was added: of several heads
//! and samples, and of all queries or keys if the mask is repeated along them. Threads that share out heads, as they
//! do for query, key and value, would add to one element; here they share out the mask, and each goes through the
//! heads in order, so that the number of threads does not show. The price is that the gradients of the scores are
//! made again, two products more.

use core::ops::Range;

use super::backward::OfResult;
use super::tiles::{QUERIES, Tiles};
use crate::dtype::Scalar;
use crate::error::{Call, Result};
use crate::ops::elementwise::try_each_part;
use crate::ops::folds::sum_in_lanes;
use crate::ops::stacks::Wide;
use crate::shape::checked_numel;
use crate::storage::Buffer;
use crate::tensor::Tensor;

/// The gradient of a mask of this shape, which broadcasts to that of the scores: of the type computed in.
pub(super) fn mask_gradient<A: Wide>(
    call: Call<'_>,
    tiles: &Tiles<'_, A>,
    of_result: &OfResult<'_, A>,
    scores: &[usize],
    mask: &[usize],
) -> Result<Tensor> {
    let numel = checked_numel(call, mask, A::DTYPE)?;
    let mut buffer = Buffer::zeroed(call, numel * size_of::<A>())?;
    let mut rest = &mut buffer.as_mut_slice::<A>()[..numel];

    let missing = scores.len() - mask.len();
    let along = |axis: usize| axis.checked_sub(missing).map_or(1, |axis| mask[axis]);
    let axes = scores.len() - 2;
    let (rows, columns) = (along(axes), along(axes + 1));
    let leading: Vec<[usize; 2]> = (0..axes).map(|axis| [scores[axis], along(axis)]).collect();
    let mut heads = vec![Vec::new(); leading.iter().map(|[_, own]| own).product()];
    for head in 0..tiles.sizes.heads {
        heads[matrix_of(head, &leading)].push(head);
    }

    let queries = tiles.sizes.queries;
    // A mask of one row has all queries in one part.
    let height = if rows == queries { QUERIES } else { queries };
    let mut parts = Vec::new();
    for heads in &heads {
        for first in (0..queries).step_by(height.max(1)) {
            let within = first..queries.min(first + height);
            let own = rows.min(within.len()) * columns;
            let (out, others) = rest.split_at_mut(own);
            rest = others;
            parts.push(Part { heads, within, out });
        }
    }
    try_each_part(parts, tiles.sizes.bytes::<A>(2), |part| {
        tiles.of_mask(part, columns, of_result)
    })?;
    Ok(Tensor::from_buffer(buffer, mask, A::DTYPE))
}

/// The matrix of the mask that is added to the scores of this head. Of each leading axis, the length of the scores'
/// and that of the mask's.
fn matrix_of(mut head: usize, leading: &[[usize; 2]]) -> usize {
    let (mut matrix, mut stride) = (0, 1);
    for [all, own] in leading.iter().rev() {
        matrix += head % own * stride;
        stride *= own;
        head /= all;
    }
    matrix
}

/// Rows of a matrix of the mask.
struct Part<'a, A> {
    /// To whose scores it is added.
    heads: &'a [usize],
    /// The queries that have these rows, or all, which share one.
    within: Range<usize>,
    out: &'a mut [A],
}

impl<A: Wide> Tiles<'_, A> {
    fn of_mask(
        &self,
        part: &mut Part<'_, A>,
        columns: usize,
        of_result: &OfResult<'_, A>,
    ) -> Result<()> {
        let mut memory = self.memory()?;
        let mut room = self.room(&mut memory);
        // Many are added up: in f64, rounded once.
        let mut all = Buffer::zeroed(self.call, part.out.len() * size_of::<f64>())?;
        let all = &mut all.as_mut_slice::<f64>()[..part.out.len()];
        let rows = part.out.len() / columns.max(1);
        for &head in part.heads {
            for first in part.within.clone().step_by(QUERIES) {
                let within = first..part.within.end.min(first + QUERIES);
                let of = self.queries(head, within, of_result, &mut room.queries)?;
                for tile in self.tiles(&of) {
                    let probabilities = &mut room.probabilities[..tile.len()];
                    let keys = self.keys(&tile, room.keys);
                    self.probabilities(&tile, &of, keys, probabilities, room.mask)?;
                    let of_scores = &mut room.of_scores[..tile.len()];
                    let values = self.values(&tile, room.values);
                    self.of_scores(&tile, &of, values, probabilities, of_scores)?;
                    for (r, row) in of_scores.chunks_exact(tile.keys.len()).enumerate() {
                        let all = &mut all[r % rows * columns..][..columns];
                        if columns == self.sizes.keys {
                            let all = all[tile.keys.clone()].iter_mut();
                            all.zip(row).for_each(|(all, &x)| *all += x.to_f64());
                        } else {
                            all[0] += Scalar::to_f64(sum_in_lanes(row));
                        }
                    }
                }
            }
        }
        let pairs = part.out.iter_mut().zip(&*all);
        pairs.for_each(|(out, &x)| *out = A::nearest(x));
        Ok(())
    }
}
