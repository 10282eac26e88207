//! Cutting a job in two, so that two threads can do it.

use super::{Dropout, DropoutRegion, FillMask, FillRegion, MaskBroadcast, MaskScale, inside};
use crate::element::Element;

/// A job that can be cut in two, so that two threads can do it.
pub(crate) trait Split: Sized + Send {
    /// The number of elements.
    fn len(&self) -> usize;

    /// Index in its mask of the job's first element, where tiles begin at multiples of the tile
    /// size; 0 where no mask is made.
    fn first(&self) -> u64;

    /// The first `mid` elements, a multiple of 64, and the rest.
    fn split_at(self, mid: usize) -> (Self, Self);
}

impl Split for FillMask<'_> {
    fn len(&self) -> usize {
        self.len()
    }

    fn first(&self) -> u64 {
        self.window.first
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (head, tail) = self.out.split_at(mid);
        let window = inside(self.window, mid);
        (
            Self { out: head, ..self },
            Self {
                window,
                threshold: self.threshold,
                out: tail,
            },
        )
    }
}

impl<T: Element> Split for MaskScale<'_, T> {
    fn len(&self) -> usize {
        self.len()
    }

    fn first(&self) -> u64 {
        0
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (head, tail) = self.buffers.split_at(mid);
        let (head_mask, tail_mask) = self.mask.split_at(mid);
        let half = |mask, buffers| Self {
            mask,
            buffers,
            ..self
        };
        (half(head_mask, head), half(tail_mask, tail))
    }
}

impl<T: Element> Split for MaskBroadcast<'_, T> {
    fn len(&self) -> usize {
        self.buffers.len()
    }

    fn first(&self) -> u64 {
        0
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (head, tail) = self.buffers.split_at(mid);
        let half = |first, buffers| Self {
            first,
            buffers,
            ..self
        };
        (half(self.first, head), half(self.first + mid, tail))
    }
}

impl<T: Element> Split for Dropout<'_, T> {
    fn len(&self) -> usize {
        self.len()
    }

    fn first(&self) -> u64 {
        self.window.first
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (head, tail) = self.buffers.split_at(mid);
        let (head_out, tail_out) = self.out.map(|out| out.split_at(mid)).unzip();
        let half = |window, buffers, out| Self {
            window,
            buffers,
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

    fn first(&self) -> u64 {
        0
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (head, tail) = self.out.split_at(mid);
        let first = self.first + mid;
        (
            Self { out: head, ..self },
            Self {
                region: self.region,
                first,
                threshold: self.threshold,
                out: tail,
            },
        )
    }
}

impl<T: Element> Split for DropoutRegion<'_, T> {
    fn len(&self) -> usize {
        self.buffers.len()
    }

    fn first(&self) -> u64 {
        0
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (head, tail) = self.buffers.split_at(mid);
        let (head_out, tail_out) = self.out.map(|out| out.split_at(mid)).unzip();
        let half = |first, buffers, out| Self {
            first,
            buffers,
            out,
            ..self
        };
        (
            half(self.first, head, head_out),
            half(self.first + mid, tail, tail_out),
        )
    }
}
