//! The oracle: every kernel in its most obvious form, against which all backends are tested.
//!
//! One bit at a time, one element at a time, straight from the scalar definition of the mask in
//! [`stream`](crate::stream). Nothing here shares code with the SIMD kernels.

mod function;
mod norm;

use crate::buffers::Beside;
use crate::element::Element;
use crate::function::Function;
use crate::job::{Apply, Dropout, FillMask, Map, Update};
use crate::keep::KeepRule;
use crate::key::MaskWindow;
use crate::mask::BitSliceMut;
use crate::pass::Pass;
use crate::stream::{BLOCK, Law, TILE, TileStream};

pub(crate) use function::{value_f32, value_f64};
pub use norm::{dropout_add_norm, norm_backward};

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
    let (what, out) = job.into_parts();
    update(what, |_| keep.next() == Some(true), out);
}

/// Makes a mask and applies it.
pub fn dropout<T: Element>(job: Dropout<'_, T>) {
    let mut keep = keep_bits(job.window(), job.rule());
    let (what, out) = job.into_parts();
    update(what, |_| keep.next() == Some(true), out);
}

/// Each pass, one element at a time, and the bits of those that are left. What is dropped is selected, not
/// multiplied: NaN and infinity do not leak.
fn update<T: Element>(
    update: Update<'_, T>,
    mut keep: impl FnMut(usize) -> bool,
    mut out: Option<BitSliceMut<'_>>,
) {
    if let Some(out) = &mut out {
        out.words_mut().fill(0);
    }
    let (pass, beside) = (update.pass(), update.beside());
    update.into_buffers().update(|i, x| {
        let kept = keep(i);
        let (y, is_left) = match pass {
            Pass::Scale { scale } if kept => (x.times(scale), true),
            Pass::Scale { .. } => (T::ZERO, false),
            Pass::Affine { scale, shift, .. } if kept => (x.times_plus(scale, shift), true),
            Pass::Affine { dropped, .. } => (dropped, false),
            Pass::AddScaled { scale } => match beside.element(i) {
                Some(element) if kept => {
                    let element = plus_bias(element, beside.of_row(i));
                    (T::narrow(x.widened() + element * scale), true)
                }
                _ => (x, false),
            },
            Pass::Map { function, scale } if kept => {
                let value = value(function, x, beside, i);
                (T::narrow(value * scale), true)
            }
            Pass::Map { .. } => (T::ZERO, false),
            Pass::Rectify { scale } => {
                let sum = plus_bias(x, beside.of_row(i));
                if sum <= T::factor(0.0) || !kept {
                    (T::ZERO, false)
                } else {
                    (T::narrow(sum * scale), true)
                }
            }
        };
        if let Some(out) = &mut out {
            out.words_mut()[i / 64] |= u64::from(is_left) << (i % 64);
        }
        y
    });
}

/// Computes a function of every element.
pub fn map<T: Element>(job: Map<'_, T>) {
    let (function, beside) = (job.function(), job.beside());
    job.into_buffers()
        .update(|i, x| T::narrow(value(function, x, beside, i)));
}

/// A function of element `i`, which is `x`, plus its bias, and times what is beside it.
fn value<T: Element>(function: Function, x: T, beside: Beside<'_, T>, i: usize) -> T::Scale {
    let value = T::value(function, plus_bias(x, beside.of_row(i)));
    match beside.element(i) {
        Some(factor) => value * factor.widened(),
        None => value,
    }
}

/// An element plus its bias, if there is one, in the type computed in.
fn plus_bias<T: Element>(x: T, bias: Option<T>) -> T::Scale {
    match bias {
        Some(bias) => x.widened() + bias.widened(),
        None => x.widened(),
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
