//! A function of every element: the loop, whatever the formula is.
//!
//! The arithmetic is most of the work, so that the loop is there once for each formula, and asks as it goes
//! what it reads, whether it drops, and how it writes.

use crate::buffers::Buffers;
use crate::element::Element;
use crate::function::Function;
use crate::job::{Apply, Map};
use crate::kernel::apply::word_at;
use crate::kernel::arithmetic::{Row, Seam};
use crate::kernel::elements::unaligned_head;
use crate::kernel::formulas::UseFormula;
use crate::mask::BitSlice;
use crate::simd::{Fence, Formula, GROUP, Kernel, Lanes, Simd};

/// A [`Map`], or [`Pass::Map`](crate::Pass::Map) by the bits of a mask.
pub(super) struct Mapping<'a, T: Element> {
    function: Function,
    buffers: Buffers<'a, T>,
    streaming: bool,
    /// The bits, and what kept elements are multiplied by.
    kept: Option<(BitSlice<'a>, T::Scale)>,
}

impl<'a, T: Element> From<Map<'a, T>> for Mapping<'a, T> {
    fn from(job: Map<'a, T>) -> Self {
        Self {
            function: job.function(),
            streaming: job.is_streaming(),
            buffers: job.into_buffers(),
            kept: None,
        }
    }
}

impl<'a, T: Element> Mapping<'a, T> {
    /// The pass over the elements of `job`, by its bits.
    pub(super) fn by_bits(function: Function, scale: T::Scale, job: Apply<'a, T>) -> Self {
        let mask = job.mask();
        let update = job.into_update();
        Self {
            function,
            streaming: update.is_streaming(),
            buffers: update.into_buffers(),
            kept: Some((mask, scale)),
        }
    }
}

impl<T: Element, S: Simd + Lanes<T>> Kernel<S> for Mapping<'_, T> {
    #[inline(always)]
    fn run(self, simd: S) {
        self.function.formula(MapBy { simd, job: self });
    }
}

struct MapBy<'a, T: Element, S> {
    simd: S,
    job: Mapping<'a, T>,
}

impl<T: Element, S: Lanes<T>> UseFormula for MapBy<'_, T, S> {
    #[inline(always)]
    fn with(self, formula: impl Formula) {
        let Self { simd, job } = self;
        let beside = job.buffers.beside();
        let (x, y) = job.buffers.into_slices();
        let factors = beside.elements();
        let seam = beside.row().map(|(row, _)| Seam::new(row));
        let mut row = beside.row().zip(seam.as_ref());
        let kept = job.kept.map(|(mask, scale)| {
            let (words, start) = mask.words_and_start();
            (words, start, simd.splat_wide(scale))
        });
        // A line that was just read is in the cache: going around it would pay nothing.
        let fence = (job.streaming && x.is_some()).then(|| Fence::after(simd));
        let head = unaligned_head(y);
        // Less than a group is computed here, as one.
        let [mut some_x, mut some_factors, mut some_y] = [[T::ZERO; GROUP]; 3];
        let mut at = 0;
        while at < y.len() {
            let len = if at < head { head } else { y.len() - at }.min(GROUP);
            let range = at..at + len;
            let x = match x {
                Some(x) => group(&x[range.clone()], &mut some_x),
                None => {
                    some_x[..len].copy_from_slice(&y[range.clone()]);
                    &some_x
                }
            };
            let factors = factors.map(|factors| group(&factors[range.clone()], &mut some_factors));
            let bias = row
                .as_mut()
                .map(|((row, at), seam)| biases(row, at, seam, len));
            let bits = kept.map(|(words, start, scale)| (word_at(words, start + at), scale));
            let whole = y[range.clone()].first_chunk_mut();
            let streamed = whole.is_some().then_some(fence.as_ref()).flatten();
            let out = whole.unwrap_or(&mut some_y);
            if streamed.is_none() {
                simd.prefetch_write(out);
            }
            for lanes in (0..len).step_by(S::LANES) {
                let mut wide = simd.widen(simd.load(x, lanes));
                if let Some(bias) = bias {
                    wide = simd.plus(wide, simd.widen(simd.load(bias, lanes)));
                }
                wide = simd.function(formula, wide);
                if let Some(factors) = factors {
                    wide = simd.times(wide, simd.widen(simd.load(factors, lanes)));
                }
                let stored = match bits {
                    Some((bits, scale)) => {
                        let stored = simd.narrow(simd.times(wide, scale), true);
                        simd.keep(stored, bits, lanes)
                    }
                    None => simd.narrow(wide, true),
                };
                match streamed {
                    Some(fence) => simd.stream(stored, out, lanes, fence),
                    None => simd.store(stored, out, lanes),
                }
            }
            if len < GROUP {
                y[range].copy_from_slice(&some_y[..len]);
            }
            at += len;
        }
    }
}

/// The group of a row that begins at `at`, which moves on by `len`.
#[inline(always)]
fn biases<'a, T: Element>(
    row: &'a [T],
    at: &mut usize,
    seam: &'a Seam<T>,
    len: usize,
) -> &'a [T; GROUP] {
    let group = Row::new(row, 0, seam).group(*at);
    *at += len;
    if *at >= row.len() {
        *at %= row.len();
    }
    group
}

/// The elements as a group: themselves if they are one, else copied into the front of `room`.
#[inline(always)]
fn group<'a, T: Element>(elements: &'a [T], room: &'a mut [T; GROUP]) -> &'a [T; GROUP] {
    if let Some(whole) = elements.first_chunk() {
        return whole;
    }
    room[..elements.len()].copy_from_slice(elements);
    room
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;
    use crate::simd::Portable;

    /// Asserts that `formula` of one number is what the kernel makes of it in a vector.
    struct OneIsAVector<'a, T: Element> {
        function: Function,
        x: &'a [T],
        in_vectors: &'a [T],
    }

    impl<T: Element> UseFormula for OneIsAVector<'_, T>
    where
        Portable: Lanes<T>,
    {
        fn with(self, formula: impl Formula) {
            for (&x, &y) in self.x.iter().zip(self.in_vectors) {
                let one = T::narrow(Portable.function_of_one(formula, x.widened()));
                #[allow(clippy::eq_op, reason = "a NaN is what is not equal to itself")]
                let both_nan = one != one && y != y;
                assert!(
                    bytemuck::bytes_of(&one) == bytemuck::bytes_of(&y) || both_nan,
                    "{} of {x}: {one} alone, {y} in a vector",
                    self.function
                );
            }
        }
    }

    fn check<T: Element>(x: &[T])
    where
        Portable: Lanes<T>,
    {
        for &function in Function::ALL {
            let mut y = x.to_vec();
            let job = Map::new(function, Buffers::in_place(&mut y));
            Portable.vectorize(Mapping::from(job));
            function.formula(OneIsAVector {
                function,
                x,
                in_vectors: &y,
            });
        }
    }

    #[test]
    fn an_element_alone_and_in_a_vector_has_the_same_bits() {
        let x: Vec<f32> = (0..=u16::MAX)
            .map(|i| f32::from_bits(u32::from(i) << 16 | u32::from(i.wrapping_mul(40503))))
            .collect();
        check(&x);
        check(&x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
        check(&(0..=u16::MAX).map(bf16::from_bits).collect::<Vec<_>>());
        check(&(0..=u16::MAX).map(f16::from_bits).collect::<Vec<_>>());
    }
}
