//! [`InOrder`]: the elements of a tensor in row-major order, however they lie in memory.

use crate::dtype::Scalar;
use crate::shape::{Layout, Run};
use crate::tensor::Snapshot;

/// The elements of a tensor in row-major order, in pieces: where they lie in that order as a slice of its
/// memory, and otherwise copied together.
pub(crate) struct InOrder<'s, T> {
    storage: &'s [T],
    offset: usize,
    /// What the axes come to, those in one that one stride leads through; empty if the elements lie in order.
    runs: Vec<Run>,
}

impl<'s, T: Scalar> InOrder<'s, T> {
    pub(crate) fn new(snapshot: &'s Snapshot<'_>) -> Self {
        Self::of(snapshot.storage(), snapshot.layout())
    }

    fn of(storage: &'s [T], layout: &Layout) -> Self {
        let runs = if layout.is_contiguous() {
            Vec::new()
        } else {
            layout.runs()
        };
        Self {
            storage,
            offset: layout.offset(),
            runs,
        }
    }

    /// Elements `first` and following, `len` of them, in place or in `room`, which has place for them if
    /// they [do not lie in order](Self::needs_room).
    pub(crate) fn piece<'p>(&self, first: usize, len: usize, room: &'p mut [T]) -> &'p [T]
    where
        's: 'p,
    {
        if !self.needs_room() {
            return &self.storage[self.offset + first..][..len];
        }
        let room = &mut room[..len];
        self.copy_to(first, room);
        room
    }

    /// Whether the elements do not lie in memory in row-major order.
    pub(crate) fn needs_room(&self) -> bool {
        !self.runs.is_empty()
    }

    /// Copies elements `first` and following.
    pub(crate) fn copy_to(&self, first: usize, mut out: &mut [T]) {
        let Some((&inner, outer)) = self.runs.split_last() else {
            return out.copy_from_slice(&self.storage[self.offset + first..][..out.len()]);
        };
        // Where `first` is: its place in each of the outer runs, that in the inner one, and in memory.
        let mut places = vec![0; outer.len()];
        let (mut rest, mut begin) = (first / inner.length, first % inner.length);
        let mut at = self.offset;
        for (place, run) in places.iter_mut().zip(outer).rev() {
            *place = rest % run.length;
            rest /= run.length;
            at += *place * run.stride;
        }
        while !out.is_empty() {
            let len = out.len().min(inner.length - begin);
            let (now, later) = out.split_at_mut(len);
            let from = at + begin * inner.stride;
            match inner.stride {
                0 => now.fill(self.storage[from]),
                1 => now.copy_from_slice(&self.storage[from..][..len]),
                stride => {
                    let elements = self.storage[from..].iter().step_by(stride);
                    now.iter_mut().zip(elements).for_each(|(out, &x)| *out = x);
                }
            }
            (out, begin) = (later, 0);
            for (place, run) in places.iter_mut().zip(outer).rev() {
                *place += 1;
                at += run.stride;
                if *place < run.length {
                    break;
                }
                *place = 0;
                at -= run.length * run.stride;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every piece of every layout is what ndarray iterates over.
    #[test]
    fn pieces_are_what_a_view_has() {
        let storage: Vec<f32> = (0..400).map(|x| x as f32).collect();
        let whole = Layout::contiguous(&[4, 3, 5, 6]);
        let layouts = [
            whole.clone(),
            whole.clone().at(17),
            whole.permuted(&[0, 2, 1, 3]),
            whole.permuted(&[3, 1, 0, 2]),
            whole.clone().sliced(3, 1, 2, 3),
            whole.clone().sliced(0, 1, 1, 2).sliced(2, 4, 1, 1),
            whole.clone().sliced(1, 0, 1, 0),
            Layout::contiguous(&[5]).expanded(&[3, 5]).unwrap(),
            Layout::contiguous(&[3, 1, 2, 1])
                .at(7)
                .expanded(&[3, 4, 2, 3])
                .unwrap(),
            Layout::contiguous(&[1]).expanded(&[7]).unwrap(),
            Layout::contiguous(&[]).at(9),
        ];
        for layout in &layouts {
            let expected: Vec<f32> = layout.view(&storage).iter().copied().collect();
            let elements = InOrder::of(&storage, layout);
            assert_eq!(elements.needs_room(), !layout.is_contiguous());
            for first in 0..=expected.len() {
                for len in [0, 1, 2, 7, expected.len()] {
                    let len = len.min(expected.len() - first);
                    let mut room = vec![-1.0; len];
                    let piece = elements.piece(first, len, &mut room).to_vec();
                    assert_eq!(
                        piece,
                        expected[first..first + len],
                        "{layout:?}, from {first}"
                    );
                    elements.copy_to(first, &mut room);
                    assert_eq!(room, piece);
                }
            }
        }
    }
}
