//! The gradients, from probabilities that are made again tile by tile.

use core::ops::Range;

use super::Plan;
use super::mask_gradient::mask_gradient;
use super::tiles::{Bits, Inputs, KEYS, QUERIES, Sizes, Tile, Tiles, copy_rows, dot};
use crate::autograd::{Function, Gradients, SavedTensor};
use crate::dtype::DType;
use crate::error::{Call, Result};
use crate::ops::elementwise::try_each_part;
use crate::ops::matrices::Matrix;
use crate::ops::stacks::{Stack, Wide, change};
use crate::shape::checked_numel;
use crate::storage::Buffer;
use crate::tensor::Tensor;

#[derive(Debug)]
pub(super) struct AttentionBackward {
    pub(super) plan: Plan,
    /// Query, key and value.
    pub(super) saved: [SavedTensor; 3],
    pub(super) attn_mask: Option<SavedTensor>,
    /// In the dtype that is computed in.
    pub(super) output: SavedTensor,
    /// For each query the logarithm of the sum of the exponentials of its scores.
    pub(super) sums: Tensor,
    /// Whether the gradients of query, key, value and mask are.
    pub(super) wanted: [bool; 4],
}

impl Function for AttentionBackward {
    fn name(&self) -> &'static str {
        "ScaledDotProductAttentionBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let call = Call::on(self.name(), &grad);
        let [query, key, value] = self.saved.each_ref().map(|saved| saved.get(self));
        let (query, key, value) = (query?, key?, value?);
        let mask = self.attn_mask.as_ref().map(|mask| mask.get(self));
        let (mask, output) = (mask.transpose()?, self.output.get(self)?);
        let inputs = [&query, &key, &value];
        let result = [output, self.sums.detach(), grad.detach()];
        let gradients = self
            .plan
            .backward(call, inputs, mask.as_ref(), &result, self.wanted)?;
        let mut gradients = Gradients::from(gradients);
        gradients.truncate(inputs.len() + usize::from(mask.is_some()));
        Ok(gradients)
    }
}

impl Plan {
    /// The gradients that are wanted of query, key, value and mask, from the output, the logarithms of the sums and
    /// the output's gradient.
    pub(super) fn backward(
        &self,
        call: Call<'_>,
        inputs: [&Tensor; 3],
        attn_mask: Option<&Tensor>,
        result: &[Tensor; 3],
        wanted: [bool; 4],
    ) -> Result<[Option<Tensor>; 4]> {
        match inputs[0].dtype().arithmetic() {
            DType::F64 => self.gradients::<f64>(call, inputs, attn_mask, result, wanted),
            _ => self.gradients::<f32>(call, inputs, attn_mask, result, wanted),
        }
    }

    fn gradients<A: Wide>(
        &self,
        call: Call<'_>,
        given: [&Tensor; 3],
        attn_mask: Option<&Tensor>,
        [output, sums, grad]: &[Tensor; 3],
        wanted: [bool; 4],
    ) -> Result<[Option<Tensor>; 4]> {
        let sizes = self.sizes;
        let inputs = Inputs::new(call, given, attn_mask, &self.scores)?;
        let tiles = Tiles::<A>::new(call, sizes, &inputs)?;
        let sums = sums.contiguous()?;
        let sums = sums.read();
        let of_result = OfResult {
            output: A::stack(output.read(), output.dtype()),
            grad: A::stack(grad.read(), grad.dtype()),
            sums: sums.contiguous(),
        };
        let of_mask = attn_mask
            .filter(|_| wanted[3])
            .map(|mask| mask_gradient(call, &tiles, &of_result, &self.scores, mask.shape()))
            .transpose()?;
        if !wanted[..3].contains(&true) {
            return Ok([None, None, None, of_mask]);
        }

        // Of the type computed in, and zeros, to which is added.
        let buffer = |k: usize| -> Result<Option<Buffer>> {
            let numel = checked_numel(call, given[k].shape(), A::DTYPE)?;
            let wanted = wanted[k].then(|| Buffer::zeroed(call, numel * size_of::<A>()));
            wanted.transpose()
        };
        let mut buffers = [buffer(0)?, buffer(1)?, buffer(2)?];
        let Sizes {
            heads,
            group,
            queries,
            keys,
            e,
            ev,
            ..
        } = sizes;
        let lengths = [group * queries * e, keys * e, keys * ev];
        let mut rests = buffers
            .each_mut()
            .map(|buffer| buffer.as_mut().map(Buffer::as_mut_slice::<A>));
        let part = |head: usize| {
            let [of_query, of_key, of_value] = [0, 1, 2].map(|k: usize| {
                let rest = rests[k].as_mut()?;
                rest.split_off_mut(..lengths[k])
            });
            Part {
                head,
                of_query,
                of_key,
                of_value,
            }
        };
        let parts = (0..heads / group).map(part);
        try_each_part(parts, sizes.bytes::<A>(3), |part| {
            tiles.backward(part, &of_result)
        })?;
        let made = |buffer: Option<Buffer>, given: &Tensor| {
            buffer.map(|buffer| Tensor::from_buffer(buffer, given.shape(), A::DTYPE))
        };
        let ([of_query, of_key, of_value], [query, key, value]) = (buffers, given);
        Ok([
            made(of_query, query),
            made(of_key, key),
            made(of_value, value),
            of_mask,
        ])
    }
}

/// What is known of the result.
pub(super) struct OfResult<'t, A> {
    output: Box<dyn Stack<A> + 't>,
    grad: Box<dyn Stack<A> + 't>,
    sums: &'t [A],
}

/// A head of the key, with the heads of the query that share it: the gradients that are wanted.
struct Part<'a, A> {
    head: usize,
    of_query: Option<&'a mut [A]>,
    of_key: Option<&'a mut [A]>,
    of_value: Option<&'a mut [A]>,
}

/// The memory of a thread.
pub(super) struct Room<'a, A> {
    pub(super) queries: QueriesRoom<'a, A>,
    of_query: &'a mut [A],
    pub(super) probabilities: &'a mut [A],
    dropped: &'a mut [A],
    pub(super) of_scores: &'a mut [A],
    pub(super) keys: &'a mut [A],
    pub(super) values: &'a mut [A],
    pub(super) mask: &'a mut [A],
}

/// Where [`Queries`] lie.
pub(super) struct QueriesRoom<'a, A> {
    scaled: &'a mut [A],
    grads: &'a mut [A],
    /// A row of a query, one of a value, and one of the result.
    rows: [&'a mut [A]; 3],
}

/// Queries of a head, for each of their tiles.
pub(super) struct Queries<'a, A> {
    head: usize,
    within: Range<usize>,
    scaled: &'a [A],
    /// The gradient of the result.
    grads: Matrix<'a, A>,
    sums: &'a [A],
    /// Of each query the sum of its probabilities times their gradients, which is that of the result times its own.
    shares: [A; QUERIES],
    bits: Option<Bits>,
}

impl<A: Wide> Tiles<'_, A> {
    fn backward(&self, part: &mut Part<'_, A>, of_result: &OfResult<'_, A>) -> Result<()> {
        let Sizes { group, queries, .. } = self.sizes;
        let mut memory = self.memory()?;
        let mut room = self.room(&mut memory);
        for head in 0..group {
            let mut from = 0;
            while from < queries {
                let within = from..queries.min(from + QUERIES);
                from = within.end;
                self.backward_queries(part, head, within, of_result, &mut room)?;
            }
        }
        Ok(())
    }

    /// What [`room`](Self::room) is made of.
    pub(super) fn memory(&self) -> Result<Buffer> {
        let elements = self.lengths().iter().sum::<usize>();
        Buffer::for_overwrite(self.call, elements.saturating_mul(size_of::<A>()))
    }

    pub(super) fn room<'a>(&self, memory: &'a mut Buffer) -> Room<'a, A> {
        let mut rest = memory.as_mut_slice::<A>();
        let mut next = |length| rest.split_off_mut(..length).unwrap_or_default();
        let [
            scaled,
            grads,
            of_query,
            probabilities,
            dropped,
            of_scores,
            keys,
            values,
            mask,
            rows @ ..,
        ] = self.lengths().map(&mut next);
        Room {
            queries: QueriesRoom {
                scaled,
                grads,
                rows,
            },
            of_query,
            probabilities,
            dropped,
            of_scores,
            keys,
            values,
            mask,
        }
    }

    /// Elements of what is in a room.
    fn lengths(&self) -> [usize; 12] {
        let Sizes {
            queries,
            keys,
            e,
            ev,
            ..
        } = self.sizes;
        let [keys_room, values_room, mask_room] = self.rooms;
        let height = QUERIES.min(queries);
        let tile = height * keys.min(KEYS);
        [
            height * e,
            height * ev,
            height * e,
            tile,
            tile,
            tile,
            keys_room,
            values_room,
            mask_room,
            e,
            ev,
            ev,
        ]
    }

    /// What all tiles of these queries want.
    pub(super) fn queries<'a>(
        &self,
        head: usize,
        within: Range<usize>,
        of_result: &OfResult<'a, A>,
        room: &'a mut QueriesRoom<'_, A>,
    ) -> Result<Queries<'a, A>> {
        let Sizes { queries, e, ev, .. } = self.sizes;
        let count = within.len();
        let first = head * queries + within.start;
        let bits = self.bits(first, count)?;
        let scaled = &mut room.scaled[..count * e];
        let [row_e, row_ev, output] = &mut room.rows;
        self.scaled_queries(head, within.clone(), scaled, row_e);
        let grads = &mut room.grads[..count * ev];
        copy_rows(&*of_result.grad, head, within.clone(), grads, row_ev);
        let mut shares = [A::zero(); QUERIES];
        for (r, share) in shares[..count].iter_mut().enumerate() {
            let row = within.start + r;
            copy_rows(&*of_result.output, head, row..row + 1, output, row_ev);
            *share = A::nearest(dot(output, &grads[r * ev..][..ev]));
        }
        Ok(Queries {
            head,
            within,
            scaled,
            grads: Matrix::row_major(grads, [count, ev]),
            sums: &of_result.sums[first..][..count],
            shares,
            bits,
        })
    }

    /// The tiles of these queries, from the first key to the last that one of them sees.
    pub(super) fn tiles(&self, of: &Queries<'_, A>) -> impl Iterator<Item = Tile> + use<A> {
        let (head, queries) = (of.head, of.within.clone());
        let end = self.sizes.seen(queries.end - 1);
        (0..end).step_by(KEYS).map(move |first| Tile {
            head,
            queries: queries.clone(),
            keys: first..end.min(first + KEYS),
        })
    }

    /// The probabilities of a tile, before dropout.
    pub(super) fn probabilities(
        &self,
        tile: &Tile,
        of: &Queries<'_, A>,
        keys: Matrix<'_, A>,
        out: &mut [A],
        room: &mut [A],
    ) -> Result<()> {
        self.scores(tile, of.scaled, keys, out, room)?;
        for (row, &sum) in out.chunks_exact_mut(tile.keys.len()).zip(of.sums) {
            if sum == A::neg_infinity() {
                row.fill(sum);
            } else {
                change(row, |x| x - sum);
            }
        }
        self.exp(out);
        Ok(())
    }

    /// The gradients of a tile's scores.
    pub(super) fn of_scores(
        &self,
        tile: &Tile,
        of: &Queries<'_, A>,
        values: Matrix<'_, A>,
        probabilities: &[A],
        out: &mut [A],
    ) -> Result<()> {
        let width = tile.keys.len();
        self.product(out, of.grads, values.transposed(), false)?;
        self.drop(of.bits.as_ref(), tile, out)?;
        let rows = out.chunks_exact_mut(width);
        let rows = rows.zip(probabilities.chunks_exact(width));
        for ((out, probabilities), (&share, &sum)) in rows.zip(of.shares.iter().zip(of.sums)) {
            if sum == A::neg_infinity() {
                out.fill(A::zero());
            } else {
                let pairs = out.iter_mut().zip(probabilities);
                pairs.for_each(|(x, &p)| *x = p * (*x - share));
            }
        }
        Ok(())
    }

    /// Adds what queries of head `nth` of a part make of the gradients.
    fn backward_queries(
        &self,
        part: &mut Part<'_, A>,
        nth: usize,
        within: Range<usize>,
        of_result: &OfResult<'_, A>,
        room: &mut Room<'_, A>,
    ) -> Result<()> {
        let Sizes {
            group,
            queries: height,
            e,
            ev,
            ..
        } = self.sizes;
        let (head, count) = (part.head * group + nth, within.len());
        let of = self.queries(head, within.clone(), of_result, &mut room.queries)?;
        let of_query = &mut room.of_query[..count * e];
        of_query.fill(A::zero());
        let needs_scores = part.of_query.is_some() || part.of_key.is_some();

        for tile in self.tiles(&of) {
            let (width, len) = (tile.keys.len(), tile.len());
            let probabilities = &mut room.probabilities[..len];
            let keys = self.keys(&tile, room.keys);
            self.probabilities(&tile, &of, keys, probabilities, room.mask)?;
            if let Some(of_value) = &mut part.of_value {
                let dropped = &mut room.dropped[..len];
                dropped.copy_from_slice(probabilities);
                self.drop(of.bits.as_ref(), &tile, dropped)?;
                let dropped = Matrix::row_major(dropped, [count, width]).transposed();
                let of_value = &mut of_value[tile.keys.start * ev..][..width * ev];
                self.product(of_value, dropped, of.grads, true)?;
            }
            if !needs_scores {
                continue;
            }
            let of_scores = &mut room.of_scores[..len];
            let values = self.values(&tile, room.values);
            self.of_scores(&tile, &of, values, probabilities, of_scores)?;
            let of_scores = Matrix::row_major(of_scores, [count, width]);
            if part.of_query.is_some() {
                self.product(of_query, of_scores, keys, true)?;
            }
            if let Some(of_key) = &mut part.of_key {
                // The queries are scaled, and so is this.
                let queries = Matrix::row_major(of.scaled, [count, e]);
                let of_key = &mut of_key[tile.keys.start * e..][..width * e];
                self.product(of_key, of_scores.transposed(), queries, true)?;
            }
        }
        if let Some(out) = &mut part.of_query {
            let scale = A::nearest(self.sizes.scale);
            let out = &mut out[(nth * height + within.start) * e..][..count * e];
            let pairs = out.iter_mut().zip(&*of_query);
            pairs.for_each(|(out, &x)| *out = x * scale);
        }
        Ok(())
    }
}
