//! The kernels, each written once over `S: Simd`.
//!
//! [`fill_mask`] makes the bits of a mask, in blocks of 512 that come from [`tile`]; [`apply`] applies
//! bits to [`elements`], by the [`arithmetic`] of a [`Pass`](crate::Pass); [`dropout`], which is
//! forward and replay, does both at the same time. [`norm`] has the jobs over rows. [`map`] makes a function of
//! every element, by one of the [`formulas`], with dropout or without. [`SimdBackend`] is the backend that they make.

mod apply;
mod arithmetic;
mod dropout;
mod elements;
mod fill_mask;
pub(crate) mod formulas;
mod map;
mod norm;
mod tile;

pub(crate) use arithmetic::{Arithmetic, Bias, Biased, Compute, Row, Seam};
use map::Mapping;

use crate::backend::{Backend, Kernels, MakeMasks};
use crate::element::Element;
use crate::job::{Apply, Dropout, DropoutAddNorm, FillMask, Map, NormBackward};
use crate::pass::Pass;
use crate::simd::{Lanes, RowLanes, Simd};

/// The backend over an instruction set: hands each job to the kernel that is written once for all.
#[derive(Debug)]
pub(crate) struct SimdBackend<S>(pub(crate) S);

impl<S: Simd> Backend for SimdBackend<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }
}

impl<S: Simd> MakeMasks for SimdBackend<S> {
    fn fill_mask(&self, job: FillMask<'_>) {
        self.0.vectorize(job);
    }
}

impl<T: Element, S: Simd + Lanes<T> + RowLanes<T>> Kernels<T> for SimdBackend<S> {
    fn apply(&self, job: Apply<'_, T>) {
        match job.update().pass() {
            Pass::Map { function, scale } => {
                self.0.vectorize(Mapping::by_bits(function, scale, job));
            }
            _ => self.0.vectorize(job),
        }
    }

    fn dropout(&self, job: Dropout<'_, T>) {
        if S::INTERLEAVES && job.update().is_interleaved() {
            self.0.vectorize(job);
        } else {
            job.compose(|fill| self.fill_mask(fill), |apply| self.apply(apply));
        }
    }

    fn dropout_add_norm(&self, job: DropoutAddNorm<'_, T>) {
        self.0.vectorize(job);
    }

    fn norm_backward(&self, job: NormBackward<'_, T>) {
        self.0.vectorize(job);
    }

    fn map(&self, job: Map<'_, T>) {
        self.0.vectorize(Mapping::from(job));
    }
}
