//! The standard normal distribution by the ziggurat method.
//!
//! The area under `exp(-x² / 2)` is covered by layers of equal area: rectangles on top of each other,
//! and at the bottom one with the tail beside it. A point in a random layer is under the curve for
//! certain where it is under the layer above, which is so for 99.6 % of them: a table and a
//! multiplication make those. The others are compared with the curve, whose exponential and logarithm
//! are the `libm` crate's: additions and multiplications that every machine rounds alike.
//!
//! Source: Marsaglia and Tsang, *The ziggurat method for generating random variables*, Journal of
//! Statistical Software 5 (2000); with 1,024 layers for their 256, of which 1.5 % of the points are
//! compared, at fifty times the price of the others. The bits that choose the layer are not those
//! that choose the point, as Doornik, *An improved ziggurat method to generate normal random samples*
//! (2005), asks for.

use core::f64::consts::{FRAC_1_SQRT_2, PI};
use std::sync::LazyLock;

use sorix_kernels::internal::Lane;

const LAYERS: usize = 1024;

/// Where the tail begins: with it the layer on top ends where the curve does.
const TAIL: f64 = 4.038_849_846_109_505;

/// How far each layer reaches on either side of 0, from the bottom up, and 0 above the last. Layer 0,
/// with the tail, is drawn as if it were a rectangle of its area.
#[derive(Debug)]
pub(super) struct Ziggurat([f64; LAYERS + 1]);

impl Ziggurat {
    /// The one there is.
    pub(super) fn standard() -> &'static Self {
        static STANDARD: LazyLock<Ziggurat> = LazyLock::new(Ziggurat::new);
        &STANDARD
    }

    fn new() -> Self {
        let area = TAIL * curve(TAIL) + (PI / 2.0).sqrt() * libm::erfc(TAIL * FRAC_1_SQRT_2);
        let mut widths = [0.0; LAYERS + 1];
        widths[0] = area / curve(TAIL);
        widths[1] = TAIL;
        let mut height = curve(TAIL);
        for i in 1..LAYERS - 1 {
            height += area / widths[i];
            // The curve undone.
            widths[i + 1] = (-2.0 * libm::log(height)).sqrt();
        }
        Self(widths)
    }

    /// Numbers, of one word of `words` each. If that is not enough, the others are those of `more`.
    /// What is written is `f` of each.
    pub(super) fn fill(
        &self,
        mut words: Lane,
        mut more: Lane,
        out: &mut [f64],
        f: impl Fn(f64) -> f64,
    ) {
        for number in out {
            let (i, x) = self.point(words.draw());
            *number = f(if self.is_inside(i, x) {
                x
            } else {
                self.outside(i, x, &mut more)
            });
        }
    }

    /// A random layer, and a number within its width: of the lowest 10 bits, and the upper 53.
    #[inline]
    fn point(&self, word: u64) -> (usize, f64) {
        let i = word as usize % LAYERS;
        // In the middle of one of 2^53 intervals of (-1, 1): never 0, and as often below as above.
        let unit = ((word as i64 >> 11) as f64 + 0.5) / (1_u64 << 52) as f64;
        (i, unit * self.0[i])
    }

    /// Whether a point of layer `i` is under the layer above.
    #[inline]
    fn is_inside(&self, i: usize, x: f64) -> bool {
        x.abs() < self.0[i + 1]
    }

    /// The number that a point makes that is not under the layer above its own.
    #[cold]
    fn outside(&self, mut i: usize, mut x: f64, words: &mut Lane) -> f64 {
        loop {
            if i == 0 {
                loop {
                    if let Some(beyond) = beyond(open_unit(words.draw()), open_unit(words.draw())) {
                        return (TAIL + beyond).copysign(x);
                    }
                }
            }
            let (low, high) = (curve(self.0[i]), curve(self.0[i + 1]));
            if low + (high - low) * open_unit(words.draw()) < curve(x) {
                return x;
            }
            (i, x) = self.point(words.draw());
            if self.is_inside(i, x) {
                return x;
            }
        }
    }
}

/// The density, less its constant.
fn curve(x: f64) -> f64 {
    libm::exp(-0.5 * x * x)
}

/// How far beyond its beginning a number of the tail is, from two in (0, 1), or that others are
/// needed (Marsaglia, *Generating a variable from the tail of the normal distribution*, 1964).
fn beyond(u: f64, v: f64) -> Option<f64> {
    let x = -libm::log(u) / TAIL;
    (-2.0 * libm::log(v) > x * x).then_some(x)
}

/// The middle of one of 2^52 intervals of (0, 1): neither 0 nor 1.
fn open_unit(word: u64) -> f64 {
    ((word >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layers_cover_the_curve() {
        let Ziggurat(widths) = Ziggurat::standard();
        assert!(widths.is_sorted_by(|below, above| below > above));
        assert_eq!(widths[LAYERS], 0.0);
        let area = widths[0] * curve(TAIL);
        for (i, pair) in widths.windows(2).enumerate().skip(1) {
            let covered = pair[0] * (curve(pair[1]) - curve(pair[0]));
            assert!((covered / area - 1.0).abs() < 1e-10, "{i}: {covered}");
        }
        // All of them together are what is under the curve, and what sticks out.
        let inside: f64 = widths.windows(2).map(|pair| pair[1] / pair[0]).sum();
        assert!((inside / LAYERS as f64 - 0.995_723_43).abs() < 1e-8);
    }

    /// The words that could go wrong, in every layer.
    #[test]
    fn every_word_makes_a_number() {
        let table = Ziggurat::standard();
        let mut lane = Lane::new(Default::default(), 0);
        let ends = [0, 1, (1 << 52) - 1, 1 << 52, (1 << 53) - 2, (1 << 53) - 1];
        for i in 0..LAYERS {
            for high in ends {
                let (layer, x) = table.point(high << 11 | i as u64);
                assert_eq!(layer, i);
                assert!(x != 0.0 && x.abs() < table.0[i], "{i}, {high}: {x}");
                // The sign is the word's.
                assert_eq!(x < 0.0, high >> 52 == 1, "{i}, {high}");
                let number = table.outside(i, x, &mut lane);
                assert!(
                    number != 0.0 && number.abs() < 12.7,
                    "{i}, {high}: {number}"
                );
            }
        }
        let ends = [0, 1 << 12, u64::MAX].map(open_unit);
        assert!(ends.iter().all(|&u| 0.0 < u && u < 1.0));
        for (u, v) in ends.iter().flat_map(|&u| ends.map(|v| (u, v))) {
            assert!(
                beyond(u, v).is_none_or(|x| (0.0..8.6).contains(&x)),
                "{u} {v}"
            );
        }
    }
}
