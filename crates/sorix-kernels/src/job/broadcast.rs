//! A small mask applied to a larger tensor, as runs of elements that backends already handle.
//!
//! The mask is never expanded in memory. A run of elements that share one bit is handed on as kept
//! or dropped, a run of elements with consecutive bits with those bits of the mask as they are.
//! Where runs are too short for a call each, their bits are put together, a chunk at a time, in a
//! buffer on the stack; where the same bits come again and again, as with channels in the last axis,
//! the buffer is made once and used many times.

use crate::broadcast::Broadcast;
use crate::buffers::Buffers;
use crate::mask::{BitSlice, WORD};

/// Elements whose bits are put together at a time, at most: 2 KiB of them.
const CHUNK: usize = 16 * 1024;

/// Elements from which on a run is worth a call of its own.
const LONG: usize = 1024;

/// What decides a run of elements.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Covered<'m> {
    /// All are kept.
    Kept,
    /// All are dropped.
    Dropped,
    /// As many bits as elements.
    Bits(BitSlice<'m>),
}

/// Apply a mask to a tensor, or a part of one, that it covers by repetition.
#[derive(Debug)]
pub(crate) struct MaskBroadcast<'a, T> {
    pub(super) mask: BitSlice<'a>,
    pub(super) shape: &'a Broadcast,
    /// Which element of the tensor the buffers begin with.
    pub(super) first: usize,
    pub(super) buffers: Buffers<'a, T>,
}

impl<'a, T: Copy> MaskBroadcast<'a, T> {
    /// The job for a whole tensor; lengths were checked.
    pub(crate) fn new(mask: BitSlice<'a>, shape: &'a Broadcast, buffers: Buffers<'a, T>) -> Self {
        Self {
            mask,
            shape,
            first: 0,
            buffers,
        }
    }

    /// Does the job by calling `apply` for each run in turn.
    pub(crate) fn compose(self, apply: impl FnMut(Covered<'_>, Buffers<'_, T>)) {
        let Self {
            mask,
            shape,
            first,
            buffers,
        } = self;
        let mut at = first;
        let mut runs = Runs {
            apply,
            buffers: Some(buffers),
            chunk: Chunk::new(),
        };
        loop {
            let left = runs.left();
            if left == 0 {
                break;
            }
            let (bit, within) = shape.block_at(at);
            let len = left.min(shape.block_len() - within);
            runs.block(mask.split_at(bit).1, shape, within, len);
            at += len;
        }
        runs.flush();
    }
}

/// The elements that are left, and the bits of the next of them that wait for a chunk to be full.
struct Runs<'a, T, F> {
    apply: F,
    /// Elements whose bits are in the chunk, and those after them.
    buffers: Option<Buffers<'a, T>>,
    chunk: Chunk,
}

impl<T: Copy, F: FnMut(Covered<'_>, Buffers<'_, T>)> Runs<'_, T, F> {
    /// Elements not yet applied and not yet in the chunk.
    fn left(&self) -> usize {
        self.buffers.as_ref().map_or(0, Buffers::len) - self.chunk.len
    }

    /// The next `n` elements, whose bits are not in the chunk.
    fn apply(&mut self, covered: Covered<'_>, n: usize) {
        let Some(buffers) = self.buffers.take() else {
            return;
        };
        let (now, later) = buffers.split_at(n);
        self.buffers = Some(later);
        (self.apply)(covered, now);
    }

    /// Applies what the chunk holds.
    fn flush(&mut self) {
        let Some(buffers) = self.buffers.take() else {
            return;
        };
        let (now, later) = buffers.split_at(self.chunk.len);
        self.buffers = Some(later);
        if !now.is_empty() {
            (self.apply)(Covered::Bits(self.chunk.bits()), now);
        }
        self.chunk.len = 0;
    }

    /// Elements `within` to `within + len - 1` of the block whose bits `mask` begins with.
    fn block(&mut self, mask: BitSlice<'_>, shape: &Broadcast, within: usize, len: usize) {
        let (row_len, each) = (shape.row_len(), shape.each());
        if each < LONG && row_len < CHUNK / 2 && len >= 2 * CHUNK {
            return self.repeated_rows(mask, shape, within, len);
        }
        let (mut within, end) = (within, within + len);
        while within < end {
            let place = within % row_len;
            let len = (row_len - place).min(end - within);
            if each >= LONG {
                self.flush();
                self.long_runs(mask, each, place, len);
            } else if each == 1 && row_len >= LONG {
                self.flush();
                self.apply(Covered::Bits(mask.split_at(place).1.split_at(len).0), len);
            } else {
                self.short_runs(mask, each, place, len);
            }
            within += len;
        }
    }

    /// Elements `place` to `place + len - 1` of a row, where long runs share a bit.
    fn long_runs(&mut self, mask: BitSlice<'_>, each: usize, place: usize, len: usize) {
        let (mut place, end) = (place, place + len);
        while place < end {
            let run = (each - place % each).min(end - place);
            let covered = match mask.get(place / each) {
                Some(true) => Covered::Kept,
                _ => Covered::Dropped,
            };
            self.apply(covered, run);
            place += run;
        }
    }

    /// Elements `place` to `place + len - 1` of a row, by way of the chunk.
    fn short_runs(&mut self, mask: BitSlice<'_>, each: usize, mut place: usize, mut len: usize) {
        while len > 0 {
            let n = len.min(CHUNK - self.chunk.len);
            self.chunk.push_row(mask, each, place, n);
            (place, len) = (place + n, len - n);
            if self.chunk.len == CHUNK {
                self.flush();
            }
        }
    }

    /// Elements `within` to `within + len - 1` of a block of many short rows: as many as fit are
    /// put together once.
    fn repeated_rows(&mut self, mask: BitSlice<'_>, shape: &Broadcast, within: usize, len: usize) {
        self.flush();
        let (row_len, each) = (shape.row_len(), shape.each());
        let place = within % row_len;
        self.chunk.push_row(mask, each, place, row_len - place);
        self.chunk.push_row(mask, each, 0, place);
        let rows = CHUNK / row_len * row_len;
        self.chunk.repeat(rows);
        let chunk = core::mem::replace(&mut self.chunk, Chunk::new());
        let mut left = len;
        while left > 0 {
            let n = left.min(rows);
            self.apply(Covered::Bits(chunk.bits().split_at(n).0), n);
            left -= n;
        }
    }
}

/// The bits of up to [`CHUNK`] elements.
struct Chunk {
    // Invariant: `len <= CHUNK`; the bits of the last word that are beyond it are zero.
    words: [u64; CHUNK / WORD],
    len: usize,
}

impl Chunk {
    fn new() -> Self {
        Self {
            words: [0; CHUNK / WORD],
            len: 0,
        }
    }

    fn bits(&self) -> BitSlice<'_> {
        BitSlice::of_words(&self.words, 0, self.len)
    }

    /// The `n` lowest bits of `word`, 1 to 64; those above them are zero.
    fn push(&mut self, word: u64, n: usize) {
        let (at, shift) = (self.len / WORD, self.len % WORD);
        if shift == 0 {
            self.words[at] = word;
        } else {
            self.words[at] |= word << shift;
            if shift + n > WORD {
                self.words[at + 1] = word >> (WORD - shift);
            }
        }
        self.len += n;
    }

    /// The same bit `n` times.
    fn push_run(&mut self, keep: bool, mut n: usize) {
        let word = if keep { u64::MAX } else { 0 };
        let head = n.min((WORD - self.len % WORD) % WORD);
        if head > 0 {
            self.push(word & low_bits(head), head);
            n -= head;
        }
        let (at, whole) = (self.len / WORD, n / WORD);
        self.words[at..at + whole].fill(word);
        self.len += whole * WORD;
        if !n.is_multiple_of(WORD) {
            self.push(word & low_bits(n % WORD), n % WORD);
        }
    }

    /// Elements `place` to `place + len - 1` of a row in which `each` elements share a bit.
    fn push_row(&mut self, mask: BitSlice<'_>, each: usize, mut place: usize, mut len: usize) {
        if each == 1 {
            let bits = mask.split_at(place).1.split_at(len).0;
            for i in 0..len.div_ceil(WORD) {
                self.push(bits.word(i), (len - i * WORD).min(WORD));
            }
            return;
        }
        while len > 0 {
            let run = (each - place % each).min(len);
            self.push_run(mask.get(place / each) == Some(true), run);
            (place, len) = (place + run, len - run);
        }
    }

    /// Repeats what there is until there are `len` bits.
    fn repeat(&mut self, len: usize) {
        // Reads behind by as many whole copies as there are, so that words are soon whole.
        let period = self.len;
        while self.len < len {
            let behind = self.len / period * period;
            let n = WORD.min(behind).min(len - self.len);
            let word = BitSlice::of_words(&self.words, self.len - behind, n).word(0);
            self.push(word, n);
        }
    }
}

/// The lowest `n` of 64 bits, for `n` from 1 to 64.
fn low_bits(n: usize) -> u64 {
    u64::MAX >> (WORD - n)
}
