//! Tiles of scores: 64 queries times 512 keys, at most.

use core::ops::Range;

use sorix_kernels::internal::fill_part;
use sorix_kernels::{BitMask, Buffers, DropRate, Engine, Function as Formula, MaskRegion};

use super::AttentionOptions;
use crate::dtype::Scalar;
use crate::error::{Call, ErrorKind, Result};
use crate::ops::dropout::softmax::as_matrices;
use crate::ops::matrices::{Matrix, tile_product, with_neighbours};
use crate::ops::stacks::{Stack, Wide, change};
use crate::tensor::Tensor;

/// Queries of a tile. More would read keys and values less often, and find less room in the cache.
pub(super) const QUERIES: usize = 64;

/// Keys of a tile: a block of the mask.
pub(super) const KEYS: usize = 512;

/// Lengths, and what is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Matrices of queries, of all samples and heads.
    pub(super) heads: usize,
    /// Of these, as many as share a matrix of keys.
    pub(super) group: usize,
    pub(super) queries: usize,
    pub(super) keys: usize,
    /// Columns of queries and keys.
    pub(super) e: usize,
    /// Columns of values.
    pub(super) ev: usize,
    pub(super) scale: f64,
    /// The number of the first query in its sequence, if the attention is causal.
    causal: Option<usize>,
    dropout: Option<(DropRate, MaskRegion)>,
}

impl Sizes {
    pub(super) fn new(
        call: Call<'_>,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        options: &AttentionOptions<&Tensor>,
    ) -> Result<Self> {
        let (&[ref leading @ .., queries, e], dtype) = (query.shape(), query.dtype()) else {
            return Err(call.error(ErrorKind::Axis { axis: -2 }));
        };
        let keys = key.shape().iter().rev().nth(1).copied().unwrap_or(0);
        let ev = value.shape().last().copied().unwrap_or(0);
        // The heads of the key, if they may be fewer than the query's.
        let mut of_key = leading.to_vec();
        if options.enable_gqa
            && let [.., heads] = &mut of_key[..]
            && let Some(&fewer) = key.shape().iter().rev().nth(2)
            && fewer > 0
            && heads.is_multiple_of(fewer)
        {
            *heads = fewer;
        }
        call.expect(key, &[&of_key[..], &[keys, e]].concat(), dtype)?;
        call.expect(value, &[&of_key[..], &[keys, ev]].concat(), dtype)?;
        let heads: usize = leading.iter().product();
        let of_key: usize = of_key.iter().product();
        let scale = (e.max(1) as f64).sqrt().recip();
        Ok(Self {
            heads,
            group: heads.checked_div(of_key).unwrap_or(1).max(1),
            queries,
            keys,
            e,
            ev,
            scale: options.scale.unwrap_or(scale),
            causal: options.is_causal.then_some(options.first_query),
            dropout: options.dropout.filter(|(rate, _)| rate.p() > 0.0),
        })
    }

    /// How many keys query `i` sees.
    pub(super) fn seen(&self, i: usize) -> usize {
        match self.causal {
            Some(first) => first.saturating_add(i).saturating_add(1).min(self.keys),
            None => self.keys,
        }
    }

    /// What a copy moves in the time of so many passes over the scores, about: 2 bytes in that of a
    /// multiplication of f32.
    pub(super) fn bytes<A>(&self, passes: usize) -> usize {
        let scores = self
            .heads
            .saturating_mul(self.queries.saturating_mul(self.keys));
        let each = (self.e + self.ev).saturating_mul(passes * size_of::<A>() / 4);
        scores.saturating_mul(each)
    }
}

/// What is read: as matrices, apart from the graph.
pub(super) struct Inputs {
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Option<Tensor>,
}

impl Inputs {
    pub(super) fn new(
        call: Call<'_>,
        [query, key, value]: [&Tensor; 3],
        attn_mask: Option<&Tensor>,
        scores: &[usize],
    ) -> Result<Self> {
        let spread = |mask: &Tensor| as_matrices(&mask.broadcast_to(call, scores)?);
        Ok(Self {
            query: query.detach(),
            // Products take them as they are.
            key: with_neighbours(call, &key.detach())?,
            value: with_neighbours(call, &value.detach())?,
            attn_mask: attn_mask.map(spread).transpose()?,
        })
    }
}

/// What all tiles have in common.
pub(super) struct Tiles<'t, A> {
    pub(super) call: Call<'t>,
    pub(super) sizes: Sizes,
    pub(super) engine: Engine<'static>,
    query: Box<dyn Stack<A> + 't>,
    key: Box<dyn Stack<A> + 't>,
    value: Box<dyn Stack<A> + 't>,
    attn_mask: Option<Box<dyn Stack<A> + 't>>,
    /// Elements that a block of keys, of values and of the mask needs room for.
    pub(super) rooms: [usize; 3],
}

/// A tile: queries of a head, and keys.
#[derive(Clone)]
pub(super) struct Tile {
    pub(super) head: usize,
    pub(super) queries: Range<usize>,
    pub(super) keys: Range<usize>,
}

impl Tile {
    pub(super) fn len(&self) -> usize {
        self.queries.len() * self.keys.len()
    }
}

/// The dropout's bits of queries that follow each other, of one head or several.
pub(super) struct Bits {
    /// `None` if they drop everything.
    bits: Option<BitMask>,
    rate: DropRate,
    /// The first of the queries, counted over all heads.
    first: usize,
}

impl<'t, A: Wide> Tiles<'t, A> {
    pub(super) fn new(call: Call<'t>, sizes: Sizes, inputs: &'t Inputs) -> Result<Self> {
        let engine = Engine::active().map_err(|error| call.kernel_error(error))?;
        let stack = |x: &'t Tensor| A::stack(x.read(), x.dtype());
        let width = sizes.keys.min(KEYS);
        let attn_mask = inputs.attn_mask.as_ref();
        Ok(Self {
            call,
            sizes,
            engine: engine.sequential(),
            query: stack(&inputs.query),
            key: stack(&inputs.key),
            value: stack(&inputs.value),
            attn_mask: attn_mask.map(stack),
            rooms: [
                A::room(inputs.key.dtype(), width * sizes.e),
                A::room(inputs.value.dtype(), width * sizes.ev),
                attn_mask.map_or(0, |mask| A::room(mask.dtype(), QUERIES * width)),
            ],
        })
    }

    /// Writes the queries of a tile, scaled.
    pub(super) fn scaled_queries(
        &self,
        head: usize,
        queries: Range<usize>,
        out: &mut [A],
        room: &mut [A],
    ) {
        let scale = A::nearest(self.sizes.scale);
        copy_rows(&*self.query, head, queries, out, &mut room[..self.sizes.e]);
        change(out, |x| x * scale);
    }

    pub(super) fn keys<'s>(&'s self, tile: &Tile, room: &'s mut [A]) -> Matrix<'s, A> {
        let head = tile.head / self.sizes.group;
        self.key
            .block(head, tile.keys.clone(), 0..self.sizes.e, room)
    }

    pub(super) fn values<'s>(&'s self, tile: &Tile, room: &'s mut [A]) -> Matrix<'s, A> {
        let head = tile.head / self.sizes.group;
        self.value
            .block(head, tile.keys.clone(), 0..self.sizes.ev, room)
    }

    /// Writes the scores of a tile from its queries, which are scaled: minus infinity where a key is hidden.
    pub(super) fn scores(
        &self,
        tile: &Tile,
        queries: &[A],
        keys: Matrix<'_, A>,
        out: &mut [A],
        room: &mut [A],
    ) -> Result<()> {
        let width = tile.keys.len();
        let queries = Matrix::row_major(queries, [tile.queries.len(), self.sizes.e]);
        self.product(out, queries, keys.transposed(), false)?;
        if let Some(mask) = &self.attn_mask {
            let mask = mask.block(tile.head, tile.queries.clone(), tile.keys.clone(), room);
            for (r, row) in out.chunks_exact_mut(width).enumerate() {
                mask.zip_row(r, row, |out, x| out + x);
            }
        }
        if self.sizes.seen(tile.queries.start) < tile.keys.end {
            for (query, row) in tile.queries.clone().zip(out.chunks_exact_mut(width)) {
                let seen = self.sizes.seen(query).saturating_sub(tile.keys.start);
                row[seen.min(width)..].fill(A::neg_infinity());
            }
        }
        Ok(())
    }

    pub(super) fn product(
        &self,
        out: &mut [A],
        left: Matrix<'_, A>,
        right: Matrix<'_, A>,
        add: bool,
    ) -> Result<()> {
        tile_product(out, left, right, add)
            .map_err(|bytes| self.call.error(ErrorKind::Allocation { bytes }))
    }

    pub(super) fn exp(&self, elements: &mut [A]) {
        self.engine.map(Formula::Exp, Buffers::in_place(elements));
    }

    /// The bits of so many queries from number `first` of all heads on; `None` without dropout.
    pub(super) fn bits(&self, first: usize, queries: usize) -> Result<Option<Bits>> {
        let Some((rate, at)) = self.sizes.dropout else {
            return Ok(None);
        };
        let made = || -> Result<BitMask, sorix_kernels::Error> {
            let mut bits = BitMask::try_new(queries * self.sizes.keys)?;
            fill_part(self.engine, rate, at, first * self.sizes.keys, &mut bits)?;
            Ok(bits)
        };
        let bits = (rate.p() < 1.0).then(made).transpose();
        let bits = bits.map_err(|error| self.call.kernel_error(error))?;
        Ok(Some(Bits { bits, rate, first }))
    }

    /// Drops the elements of a tile.
    pub(super) fn drop(&self, bits: Option<&Bits>, tile: &Tile, elements: &mut [A]) -> Result<()> {
        let Some(Bits { bits, rate, first }) = bits else {
            return Ok(());
        };
        let Some(bits) = bits else {
            elements.fill(A::zero());
            return Ok(());
        };
        let (keys, width) = (self.sizes.keys, tile.keys.len());
        let row = tile.head * self.sizes.queries + tile.queries.start - first;
        // Rows that lie side by side in the mask, too, are one.
        let together = if width == keys { elements.len() } else { width };
        for (i, row_of) in elements.chunks_exact_mut(together.max(1)).enumerate() {
            let from = (row + i) * keys + tile.keys.start;
            let dropped = bits
                .slice(from..from + row_of.len())
                .map_err(Into::into)
                .and_then(|bits| self.engine.apply(*rate, bits, Buffers::in_place(row_of)));
            dropped.map_err(|error| self.call.kernel_error(error))?;
        }
        Ok(())
    }
}

/// Copies rows of a matrix, by way of `room`, which is as long as one.
pub(super) fn copy_rows<A: Wide>(
    stack: &dyn Stack<A>,
    k: usize,
    rows: Range<usize>,
    out: &mut [A],
    room: &mut [A],
) {
    let columns = room.len();
    for (row, out) in rows.zip(out.chunks_exact_mut(columns.max(1))) {
        let block = stack.block(k, row..row + 1, 0..columns, room);
        block.zip_row(0, out, |_, x| x);
    }
}

/// The sum of the products of two rows.
pub(super) fn dot<A: Wide>(xs: &[A], ys: &[A]) -> f64 {
    let products = xs.iter().zip(ys);
    products
        .map(|(&x, &y)| Scalar::to_f64(x) * Scalar::to_f64(y))
        .sum()
}
