//! Cutting a job in two, so that two threads can do it.

use super::{
    Apply, ApplyBroadcast, Dropout, DropoutAddNorm, DropoutRegion, FillMask, FillRegion, Map,
    NormBackward, Settle, SwigluBackward, inside,
};
use crate::element::Element;
use crate::parallel;

/// A job that can be cut in two, so that two threads can do it.
pub(crate) trait Split: Sized + Send {
    /// The number of elements.
    fn len(&self) -> usize;

    /// Index in its mask of the job's first element, where tiles begin at multiples of the tile
    /// size; 0 if no mask is made.
    fn first(&self) -> u64 {
        0
    }

    /// Where to cut the first of `parts` equal parts off; `None` where that is at no place.
    fn cut(&self, parts: usize) -> Option<usize> {
        parallel::cut(self.first(), self.len(), parts)
    }

    /// The first `mid` elements, which is where to [cut](Self::cut), and the rest.
    fn split_at(self, mid: usize) -> (Self, Self);
}

impl<T: Element> Split for Settle<'_, T> {
    fn len(&self) -> usize {
        self.update.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (head, tail) = self.update.split_at(mid);
        let (head_out, tail_out) = self.out.map(|out| out.split_at(mid)).unzip();
        let half = |update, out| Self {
            update,
            out,
            ..self
        };
        (half(head, head_out), half(tail, tail_out))
    }
}

impl<T: Element> Split for Map<'_, T> {
    fn len(&self) -> usize {
        self.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        self.split_at(mid)
    }
}

impl<T: Element> Split for SwigluBackward<'_, T> {
    fn len(&self) -> usize {
        self.gate.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        self.split_at(mid)
    }
}

impl Split for FillMask<'_> {
    fn len(&self) -> usize {
        self.len()
    }

    fn first(&self) -> u64 {
        self.window.first
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let Self { window, rule, out } = self;
        let (head, tail) = out.split_at(mid);
        let half = |window, out| Self { window, rule, out };
        (half(window, head), half(inside(window, mid), tail))
    }
}

impl<T: Element> Split for Apply<'_, T> {
    fn len(&self) -> usize {
        self.update.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (head, tail) = self.update.split_at(mid);
        let (head_mask, tail_mask) = self.mask.split_at(mid);
        let (head_out, tail_out) = self.out.map(|out| out.split_at(mid)).unzip();
        let half = |mask, update, out| Self { mask, update, out };
        (
            half(head_mask, head, head_out),
            half(tail_mask, tail, tail_out),
        )
    }
}

impl<T: Element> Split for ApplyBroadcast<'_, T> {
    fn len(&self) -> usize {
        self.update.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (head, tail) = self.update.split_at(mid);
        let half = |first, update| Self {
            first,
            update,
            ..self
        };
        (half(self.first, head), half(self.first + mid, tail))
    }
}

impl<T: Element> Split for Dropout<'_, T> {
    fn len(&self) -> usize {
        self.update.len()
    }

    fn first(&self) -> u64 {
        self.window.first
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (head, tail) = self.update.split_at(mid);
        let (head_out, tail_out) = self.out.map(|out| out.split_at(mid)).unzip();
        let half = |window, update, out| Self {
            window,
            update,
            out,
            ..self
        };
        (
            half(self.window, head, head_out),
            half(inside(self.window, mid), tail, tail_out),
        )
    }
}

impl Split for FillRegion<'_> {
    fn len(&self) -> usize {
        self.out.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (head, tail) = self.out.split_at(mid);
        let half = |first, out| Self { first, out, ..self };
        (half(self.first, head), half(self.first + mid, tail))
    }
}

impl<T: Element> Split for DropoutRegion<'_, T> {
    fn len(&self) -> usize {
        self.update.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (head, tail) = self.update.split_at(mid);
        let (head_out, tail_out) = self.out.map(|out| out.split_at(mid)).unzip();
        let half = |first, update, out| Self {
            first,
            update,
            out,
            ..self
        };
        (
            half(self.first, head, head_out),
            half(self.first + mid, tail, tail_out),
        )
    }
}

impl<T: Element> Split for DropoutAddNorm<'_, T> {
    fn len(&self) -> usize {
        self.rows().len()
    }

    fn cut(&self, parts: usize) -> Option<usize> {
        self.cut(parts)
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        self.split_at(mid)
    }
}

impl<T: Element> Split for NormBackward<'_, T> {
    fn len(&self) -> usize {
        self.len()
    }

    fn cut(&self, parts: usize) -> Option<usize> {
        self.cut(parts)
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        self.split_at(mid)
    }
}
