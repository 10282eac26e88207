//! A small mask applied to a larger tensor, as runs of elements that backends already handle.
//!
//! The mask is never expanded in memory. A run of elements that share one bit is handed on as kept
//! or dropped, a run of elements with consecutive bits with those bits of the mask as they are.
//! If runs are too short for a call each, their bits are put together, a chunk at a time, in a
//! buffer on the stack. If the same bits come again and again, as with channels in the last axis,
//! the buffer is made once and used many times.

use crate::broadcast::Broadcast;
use crate::element::Element;
use crate::job::Update;
use crate::mask::{BitSlice, WORD};

/// Elements whose bits are put together at a time, at most: 2 KiB of them.
const CHUNK: usize = 16 * 1024;

/// Elements that share a bit, from which on they are worth a call of their own: those with equal bits
/// go together, so that calls are fewer than bits.
const LONG_RUN: usize = 512;

/// Elements of a row, each with its own bit, from which on it is worth a call of its own.
const LONG_ROW: usize = 4096;

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
pub(crate) struct ApplyBroadcast<'a, T: Element> {
    pub(super) mask: BitSlice<'a>,
    pub(super) shape: &'a Broadcast,
    /// Which element of the tensor the buffers begin with.
    pub(super) first: usize,
    pub(super) update: Update<'a, T>,
}

impl<'a, T: Element> ApplyBroadcast<'a, T> {
    /// The job for a whole tensor; lengths were checked.
    pub(crate) fn new(mask: BitSlice<'a>, shape: &'a Broadcast, update: Update<'a, T>) -> Self {
        Self {
            mask,
            shape,
            first: 0,
            update,
        }
    }

    /// Does the job by calling `apply` for each run in turn.
    pub(crate) fn compose(self, apply: impl FnMut(Covered<'_>, Update<'_, T>)) {
        let Self {
            mask,
            shape,
            first,
            update,
        } = self;
        let mut at = first;
        let mut runs = Runs {
            apply,
            update: Some(update),
            chunk: Chunk::new(),
        };
        loop {
            let left = runs.left();
            if left == 0 {
                break;
            }
            let (bit, within) = shape.section_at(at);
            let len = left.min(shape.section_len() - within);
            runs.section(mask.split_at(bit).1, shape, within, len);
            at += len;
        }
        runs.flush();
    }
}

/// The elements that are left, and the bits of the next of them that wait for a chunk to be full.
struct Runs<'a, T: Element, F> {
    apply: F,
    /// Elements whose bits are in the chunk, and those after them.
    update: Option<Update<'a, T>>,
    chunk: Chunk,
}

impl<'a, T: Element, F: FnMut(Covered<'_>, Update<'_, T>)> Runs<'a, T, F> {
    /// Elements not yet applied and not yet in the chunk.
    fn left(&self) -> usize {
        self.update.as_ref().map_or(0, Update::len) - self.chunk.len
    }

    /// Takes the next `n` elements.
    fn take(&mut self, n: usize) -> Option<Update<'a, T>> {
        let (now, later) = self.update.take()?.split_at(n);
        self.update = Some(later);
        Some(now)
    }

    /// The next `n` elements, whose bits are not in the chunk.
    fn apply(&mut self, covered: Covered<'_>, n: usize) {
        if let Some(now) = self.take(n) {
            (self.apply)(covered, now);
        }
    }

    /// As many elements as the chunk has bits for, or `n` if that is less.
    fn apply_chunk(&mut self, n: usize) -> usize {
        let n = n.min(self.chunk.len);
        if let Some(now) = self.take(n).filter(|now| !now.is_empty()) {
            (self.apply)(Covered::Bits(self.chunk.bits().split_at(n).0), now);
        }
        n
    }

    /// Applies what the chunk holds.
    fn flush(&mut self) {
        self.apply_chunk(CHUNK);
        self.chunk.len = 0;
    }

    /// Elements `within` to `within + len - 1` of the section whose bits `mask` begins with.
    fn section(&mut self, mask: BitSlice<'_>, shape: &Broadcast, within: usize, len: usize) {
        let (row_len, each) = (shape.row_len(), shape.each());
        if each >= LONG_RUN {
            self.flush();
            let row = mask.split_at(row_len / each).0;
            self.long_runs(row, each, within % row_len, len);
        } else if each == 1 && (row_len >= LONG_ROW || shape.is_full()) {
            self.flush();
            self.long_rows(mask, row_len, within % row_len, len);
        } else if row_len <= CHUNK / 2 && len >= 2 * CHUNK {
            self.flush();
            self.repeated_rows(mask, shape, within % row_len, len);
        } else {
            self.short_runs(mask, shape, within % row_len, len);
        }
    }

    /// `len` elements from element `place` of a row on, where each bit of `row` decides a long run.
    fn long_runs(&mut self, row: BitSlice<'_>, each: usize, mut place: usize, mut len: usize) {
        while len > 0 {
            let bits = row.split_at(place / each).1;
            // How many of the next bits, of a word of them, are the same.
            let word = bits.word(0);
            let (covered, same) = if word & 1 == 1 {
                (Covered::Kept, word.trailing_ones())
            } else {
                (Covered::Dropped, word.trailing_zeros())
            };
            let same = bits.len().min(same as usize);
            let run = (same * each - place % each).min(len);
            self.apply(covered, run);
            len -= run;
            place = (place + run) % (row.len() * each);
        }
    }

    /// `len` elements from element `place` of a row on, where each has a bit of its own.
    fn long_rows(&mut self, mask: BitSlice<'_>, row_len: usize, mut place: usize, mut len: usize) {
        while len > 0 {
            let n = (row_len - place).min(len);
            self.apply(Covered::Bits(mask.split_at(place).1.split_at(n).0), n);
            (place, len) = (0, len - n);
        }
    }

    /// `len` elements from element `place` of a row on, by way of the chunk.
    fn short_runs(
        &mut self,
        mask: BitSlice<'_>,
        shape: &Broadcast,
        mut place: usize,
        mut len: usize,
    ) {
        let row_len = shape.row_len();
        while len > 0 {
            let room = CHUNK - self.chunk.len;
            let n = (row_len - place).min(len).min(room);
            self.chunk.push_row(mask, shape.each(), place, n);
            (place, len) = (place + n, len - n);
            if n == row_len {
                // A whole row: those after it are the same.
                let same = len.min(room - n);
                self.chunk.repeat(row_len, same);
                (place, len) = (same % row_len, len - same);
            }
            if self.chunk.len == CHUNK {
                self.flush();
            }
            if place == row_len {
                place = 0;
            }
        }
    }

    /// `len` elements from element `place` of a row on, where rows are short and many: as many as
    /// fit are put together once.
    fn repeated_rows(&mut self, mask: BitSlice<'_>, shape: &Broadcast, place: usize, len: usize) {
        let (row_len, each) = (shape.row_len(), shape.each());
        self.chunk.push_row(mask, each, place, row_len - place);
        self.chunk.push_row(mask, each, 0, place);
        self.chunk
            .repeat(row_len, CHUNK / row_len * row_len - row_len);
        let mut left = len;
        while left > 0 {
            left -= self.apply_chunk(left);
        }
        self.chunk.len = 0;
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

    /// Elements `place` to `place + len - 1` of a row in which `each` elements share a bit.
    fn push_row(&mut self, mask: BitSlice<'_>, each: usize, place: usize, len: usize) {
        let bits = |from: usize, to: usize| mask.split_at(to).0.split_at(from).1;
        if each == 1 {
            let bits = bits(place, place + len);
            for i in 0..len.div_ceil(WORD) {
                self.push(bits.word(i), (len - i * WORD).min(WORD));
            }
            return;
        }
        // A part of a run, whole runs, and a part of a run.
        let end = place + len;
        let (first, last) = (place.div_ceil(each), end / each);
        if first > last {
            return self.push_runs(bits(last, first), len);
        }
        if place < first * each {
            self.push_runs(bits(first - 1, first), first * each - place);
        }
        self.push_runs(bits(first, last), each);
        if last * each < end {
            self.push_runs(bits(last, last + 1), end - last * each);
        }
    }

    /// Each of `bits` as often as `each` says.
    fn push_runs(&mut self, bits: BitSlice<'_>, each: usize) {
        let (mut at, mut shift) = (self.len / WORD, self.len % WORD);
        let mut word = if shift == 0 { 0 } else { self.words[at] };
        for i in 0..bits.len().div_ceil(WORD) {
            let mut keep = bits.word(i);
            for _ in 0..(bits.len() - i * WORD).min(WORD) {
                let run = (keep & 1).wrapping_neg();
                keep >>= 1;
                word |= run << shift;
                shift += each;
                if shift >= WORD {
                    self.words[at] = word;
                    at += 1;
                    shift -= WORD;
                    while shift >= WORD {
                        self.words[at] = run;
                        at += 1;
                        shift -= WORD;
                    }
                    word = run;
                }
                word &= !(u64::MAX << shift);
            }
        }
        if shift > 0 {
            self.words[at] = word;
        }
        self.len += bits.len() * each;
    }

    /// The last `period` bits again and again, `n` bits in all.
    fn repeat(&mut self, period: usize, n: usize) {
        let (begin, end) = (self.len - period, self.len + n);
        while self.len < end {
            // As many whole periods back as there are: the further, the more at a time.
            let behind = (self.len - begin) / period * period;
            let from = self.len - behind;
            if !self.len.is_multiple_of(WORD) || behind < WORD {
                let to_word = WORD - self.len % WORD;
                let n = to_word.min(behind).min(end - self.len);
                self.push(BitSlice::of_words(&self.words, from, n).word(0), n);
                continue;
            }
            let at = self.len / WORD;
            let count = (behind / WORD).min(end.div_ceil(WORD) - at);
            let (done, rest) = self.words.split_at_mut(at);
            let (source, shift) = (&done[from / WORD..], from % WORD);
            if shift == 0 {
                rest[..count].copy_from_slice(&source[..count]);
            } else {
                let pairs = source.iter().zip(&source[1..]);
                for (word, (low, high)) in rest[..count].iter_mut().zip(pairs) {
                    *word = low >> shift | high << (WORD - shift);
                }
            }
            self.len = end.min((at + count) * WORD);
        }
        if !end.is_multiple_of(WORD) {
            self.words[end / WORD] &= !(u64::MAX << (end % WORD));
        }
    }
}
