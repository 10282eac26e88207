//! The output, and the logarithm of the sum for each query.

use super::tiles::{Bits, Inputs, KEYS, QUERIES, Sizes, Tile, Tiles};
use crate::dtype::{DType, Scalar};
use crate::error::{Call, Result};
use crate::ops::elementwise::try_each_part;
use crate::ops::folds::{largest, sum_in_lanes};
use crate::ops::matrices::Matrix;
use crate::ops::stacks::{Wide, change};
use crate::storage::Buffer;
use crate::tensor::Tensor;

/// Scores of a part, at least: four tiles of the mask, so that little of one is made in vain.
const PART: usize = 64 << 10;

/// The output, in this dtype, and for each query the logarithm of the sum of the exponentials of its scores,
/// minus infinity if it sees nothing.
pub(super) fn forward<A: Wide>(
    call: Call<'_>,
    sizes: Sizes,
    inputs: &Inputs,
    query: &Tensor,
    dtype: DType,
) -> Result<(Tensor, Tensor)> {
    let tiles = Tiles::<A>::new(call, sizes, inputs)?;
    let shape = [&query.shape()[..query.ndim() - 1], &[sizes.ev]].concat();
    let numel = crate::shape::checked_numel(call, &shape, A::DTYPE)?;
    let rows = sizes.heads * sizes.queries;
    let mut output = Buffer::for_overwrite(call, numel * dtype.size())?;
    let mut sums = Buffer::for_overwrite(call, rows * size_of::<A>())?;
    let parts = parts(
        sizes,
        &mut output.as_mut_slice::<u8>()[..numel * dtype.size()],
        sizes.ev * dtype.size(),
        &mut sums.as_mut_slice::<A>()[..rows],
    );
    let bytes = sizes.bytes::<A>(1);
    try_each_part(parts, bytes, |part| tiles.forward(part, dtype))?;
    Ok((
        Tensor::from_buffer(output, &shape, dtype),
        Tensor::from_buffer(sums, &query.shape()[..query.ndim() - 1], A::DTYPE),
    ))
}

/// Queries that one thread does: whole tiles.
struct Part<'a, A> {
    /// The number of the first, counted over all heads.
    first: usize,
    count: usize,
    output: &'a mut [u8],
    sums: &'a mut [A],
}

/// The queries in parts; a row of the output has so many bytes.
fn parts<'a, A>(
    sizes: Sizes,
    mut output: &'a mut [u8],
    bytes: usize,
    mut sums: &'a mut [A],
) -> Vec<Part<'a, A>> {
    let (all, queries) = (sizes.heads * sizes.queries, sizes.queries);
    let mut parts = Vec::new();
    let mut first = 0;
    while first < all {
        let mut end = first;
        // Without keys nothing is computed, and all is one part.
        while end < all && (end - first) * sizes.keys < PART {
            let within = end % queries;
            end += QUERIES.min(queries - within);
        }
        let count = end - first;
        let (of_output, of_sums) = (output, sums);
        let (own, rest) = of_output.split_at_mut(count * bytes);
        let (own_sums, rest_of_sums) = of_sums.split_at_mut(count);
        (output, sums) = (rest, rest_of_sums);
        parts.push(Part {
            first,
            count,
            output: own,
            sums: own_sums,
        });
        first += count;
    }
    parts
}

/// The memory of a thread.
struct Room<'a, A> {
    queries: &'a mut [A],
    scores: &'a mut [A],
    output: &'a mut [A],
    keys: &'a mut [A],
    values: &'a mut [A],
    mask: &'a mut [A],
    row: &'a mut [A],
}

impl<'a, A> Room<'a, A> {
    /// In the order of the fields.
    fn new(slices: [Option<&'a mut [A]>; 7]) -> Self {
        let [queries, scores, output, keys, values, mask, row] =
            slices.map(Option::unwrap_or_default);
        Self {
            queries,
            scores,
            output,
            keys,
            values,
            mask,
            row,
        }
    }
}

impl<A: Wide> Tiles<'_, A> {
    fn forward(&self, part: &mut Part<'_, A>, dtype: DType) -> Result<()> {
        let Sizes {
            queries,
            keys,
            e,
            ev,
            ..
        } = self.sizes;
        let bits = self.bits(part.first, part.count)?;
        let [keys_room, values_room, mask_room] = self.rooms;
        let height = QUERIES.min(queries);
        let lengths = [
            height * e,
            height * keys.min(KEYS),
            height * ev,
            keys_room,
            values_room,
            mask_room,
            e,
        ];
        let all: usize = lengths.iter().sum();
        let mut memory = Buffer::for_overwrite(self.call, all * size_of::<A>())?;
        let mut rest = memory.as_mut_slice::<A>();
        let mut room = Room::new(lengths.map(|length| rest.split_off_mut(..length)));
        let end = part.first + part.count;
        let mut next = part.first;
        while next < end {
            let (head, within) = (next / queries, next % queries);
            let count = QUERIES.min(queries - within).min(end - next);
            let tile = Tile {
                head,
                queries: within..within + count,
                keys: 0..0,
            };
            let at = next - part.first;
            self.forward_tile(
                tile,
                bits.as_ref(),
                &mut room,
                &mut part.sums[at..][..count],
            )?;
            let bytes = ev * dtype.size();
            let output = &mut part.output[at * bytes..][..count * bytes];
            A::store(&room.output[..count * ev], dtype, output);
            next += count;
        }
        Ok(())
    }

    /// The output of the queries of a tile, from all keys.
    fn forward_tile(
        &self,
        mut tile: Tile,
        bits: Option<&Bits>,
        room: &mut Room<'_, A>,
        sums_out: &mut [A],
    ) -> Result<()> {
        let Sizes { e, ev, .. } = self.sizes;
        let count = tile.queries.len();
        let queries = &mut room.queries[..count * e];
        self.scaled_queries(tile.head, tile.queries.clone(), queries, room.row);
        let output = &mut room.output[..count * ev];
        output.fill(A::zero());
        // Of what came so far: the largest score, and the sum relative to it.
        let (mut most, mut sums) = ([A::neg_infinity(); QUERIES], [0.0; QUERIES]);
        let end = self.sizes.seen(tile.queries.end - 1);
        while tile.keys.end < end {
            tile.keys = tile.keys.end..end.min(tile.keys.end + KEYS);
            let width = tile.keys.len();
            let scores = &mut room.scores[..tile.len()];
            let keys = self.keys(&tile, room.keys);
            self.scores(&tile, queries, keys, scores, room.mask)?;
            let mut factors = [A::zero(); QUERIES];
            for (r, row) in scores.chunks_exact_mut(width).enumerate() {
                let largest = largest(row);
                let before = most[r];
                if largest > before || largest.is_nan() {
                    most[r] = largest;
                }
                let now = most[r];
                // Of a row without any score yet, minus infinity stays what it is.
                if now != A::neg_infinity() {
                    factors[r] = before - now;
                    change(row, |x| x - now);
                }
            }
            self.exp(scores);
            self.exp(&mut factors[..count]);
            for (r, row) in scores.chunks_exact(width).enumerate() {
                sums[r] = sums[r] * Scalar::to_f64(factors[r]) + Scalar::to_f64(sum_in_lanes(row));
                let output = &mut output[r * ev..][..ev];
                if factors[r] != A::one() {
                    change(output, |y| y * factors[r]);
                }
            }
            self.drop(bits, &tile, scores)?;
            let probabilities = Matrix::row_major(scores, [count, width]);
            let values = self.values(&tile, room.values);
            self.product(output, probabilities, values, true)?;
        }
        for (r, sum_out) in sums_out.iter_mut().enumerate() {
            let output = &mut output[r * ev..][..ev];
            if sums[r] == 0.0 {
                output.fill(A::zero());
                *sum_out = A::neg_infinity();
            } else {
                let sum = A::nearest(sums[r]);
                change(output, |y| y / sum);
                *sum_out = A::nearest(Scalar::to_f64(most[r]) + libm::log(sums[r]));
            }
        }
        Ok(())
    }
}
