//! The oracle: every kernel in its most obvious form, against which all backends are tested.
//!
//! One bit at a time, one element at a time, straight from the scalar definition of the mask in
//! [`stream`](crate::stream). Nothing here shares code with the SIMD kernels.

mod function;

use crate::element::Element;
use crate::job::{Apply, Dropout, FillMask, Map, Update};
use crate::keep::KeepRule;
use crate::key::MaskWindow;
use crate::pass::Pass;
use crate::stream::{BLOCK, Law, TILE, TileStream};

pub(crate) use function::{value_f32, value_f64};

/// The backend named `"reference"`: correct, always there, and slow.
///
/// ```
/// use sorix_kernels::backend::{Backend, reference::Reference};
/// assert_eq!(Reference.name(), "reference");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

/// Writes the bits of a window of a mask.
pub fn fill_mask(job: FillMask<'_>) {
    let keep = keep_bits(job.window(), job.rule());
    let mut out = job.into_out();
    let len = out.len();
    let words = out.words_mut();
    words.fill(0);
    for (i, keep) in (0..len).zip(keep) {
        words[i / 64] |= u64::from(keep) << (i % 64);
    }
}

/// Applies a mask.
pub fn apply<T: Element>(job: Apply<'_, T>) {
    let mut keep = job.mask().iter();
    update(job.into_update(), |_| keep.next() == Some(true));
}

/// Makes a mask and applies it.
pub fn dropout<T: Element>(job: Dropout<'_, T>) {
    let mut keep = keep_bits(job.window(), job.rule());
    let (what, mut out) = job.into_parts();
    if let Some(out) = &mut out {
        out.words_mut().fill(0);
    }
    update(what, |i| {
        let keep = keep.next() == Some(true);
        if let Some(out) = &mut out {
            out.words_mut()[i / 64] |= u64::from(keep) << (i % 64);
        }
        keep
    });
}

/// Computes a function of every element.
pub fn map<T: Element>(job: Map<'_, T>) {
    let (function, factors) = (job.function(), job.factors());
    job.into_buffers().update(|i, x| {
        let value = T::value(function, x.widened());
        match factors {
            Some(factors) => factors[i].times(value),
            None => T::narrow(value),
        }
    });
}

/// Each pass, one element at a time. What is dropped is selected, not multiplied: NaN and infinity do
/// not leak.
fn update<T: Element>(update: Update<'_, T>, mut keep: impl FnMut(usize) -> bool) {
    let (pass, beside) = (update.pass(), update.beside());
    let buffers = update.into_buffers();
    match pass {
        Pass::Scale { scale } => {
            buffers.update(|i, x| if keep(i) { x.times(scale) } else { T::ZERO });
        }
        Pass::Affine {
            scale,
            shift,
            dropped,
        } => buffers.update(|i, x| {
            if keep(i) {
                x.times_plus(scale, shift)
            } else {
                dropped
            }
        }),
        Pass::AddScaled { scale } => buffers.update(|i, x| match beside {
            Some(beside) if keep(i) => beside.get(i).times_plus(scale, x.widened()),
            _ => x,
        }),
    }
}

/// The keep bits of the elements from `window.first` on, without end.
fn keep_bits(window: MaskWindow, rule: &KeepRule) -> impl Iterator<Item = bool> + use<> {
    let law = Law::new(rule.threshold());
    let first_tile = window.first / TILE as u64;
    let bits = (first_tile..).flat_map(move |tile| {
        let mut stream = TileStream::new(window.key, tile);
        let law = law.clone();
        (0..TILE / BLOCK).flat_map(move |_| {
            let words = stream.block(&law);
            (0..BLOCK).map(move |i| words[i / 64] >> (i % 64) & 1 == 1)
        })
    });
    bits.skip((window.first % TILE as u64) as usize)
}
