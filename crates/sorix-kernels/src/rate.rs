//! [`DropRate`]: the probability p, checked once, and the two numbers derived from it.

use core::fmt;
use core::num::NonZeroU64;

use crate::error::InvalidRate;
use crate::keep::KeepRule;

/// The probability of dropping an element: a real number in [0, 1], checked at construction.
///
/// Everything a kernel needs is derived here and nowhere else: the [rule](KeepRule) that decides
/// which elements are kept, and the scale that keeps the expected value of the output equal to the
/// input (*inverted dropout*, Srivastava et al. 2014, section 10).
///
/// ```
/// use sorix_kernels::DropRate;
///
/// let rate = DropRate::new(0.75)?;
/// assert_eq!(rate.p(), 0.75);
/// assert_eq!(rate.scale(), 4.0);
/// assert!(DropRate::new(1.5).is_err());
/// assert!(DropRate::new(f64::NAN).is_err());
/// # Ok::<(), sorix_kernels::InvalidRate>(())
/// ```
///
/// It is `Copy`, though it carries a table of some 150 bytes: a call takes it by value and makes
/// nothing anew.
#[derive(Clone, Copy)]
pub struct DropRate {
    p: f64,
    keep: Keep,
}

/// Which elements are kept.
///
/// The threshold of mask format v1 is `round((1 - p) * 2^64)`, so that the probability of keeping is
/// `1 - p` to within 2^-65. The bound 2^64 itself does not fit 64 bits, and neither it nor 0 needs a
/// random bit: they are cases of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Keep {
    /// Threshold 0 (p = 1): every element is dropped and no random bit is drawn.
    Nothing,
    /// Each element is kept with probability threshold / 2^64.
    By(KeepRule),
    /// Threshold 2^64 (p at most 2^-65): every element is kept and no random bit is drawn.
    Everything,
}

impl DropRate {
    /// Checks `p`.
    ///
    /// # Errors
    ///
    /// [`InvalidRate`], with the value, unless `0 <= p <= 1`; NaN is rejected.
    pub fn new(p: f64) -> Result<Self, InvalidRate> {
        if (0.0..=1.0).contains(&p) {
            // `+ 0.0` turns -0.0 into 0.0, so that equal rates also print alike.
            let p = p + 0.0;
            Ok(Self { p, keep: keep(p) })
        } else {
            Err(InvalidRate { p })
        }
    }

    /// The probability of dropping, as it was given.
    #[must_use]
    pub fn p(self) -> f64 {
        self.p
    }

    /// `1 / (1 - p)`, what a kept element is multiplied by; 0 at p = 1, where nothing is kept.
    ///
    /// Kernels round this once to the type they compute in: f32 for f32, f16 and bf16, f64 for f64.
    #[must_use]
    pub fn scale(self) -> f64 {
        if self.p == 1.0 {
            0.0
        } else {
            1.0 / (1.0 - self.p)
        }
    }

    /// Which elements are kept.
    ///
    /// ```
    /// use sorix_kernels::{DropRate, Keep};
    ///
    /// let half = DropRate::new(0.5)?.keep();
    /// assert!(matches!(half, Keep::By(rule) if rule.threshold().get() == 1 << 63));
    /// assert_eq!(DropRate::new(1.0)?.keep(), Keep::Nothing);
    /// # Ok::<(), sorix_kernels::InvalidRate>(())
    /// ```
    #[must_use]
    pub fn keep(self) -> Keep {
        self.keep
    }
}

fn keep(p: f64) -> Keep {
    // Multiplying a double by a power of two is exact, rounding it to an integer is exact, and
    // so is the cast, as the result is at most 2^64. `1 - p` in floating point would not be:
    // it loses every p below 2^-54.
    const TWO_POW_64: f64 = 18_446_744_073_709_551_616.0;
    let dropped = (p * TWO_POW_64).round_ties_even() as u128;
    let kept = (1_u128 << 64) - dropped;
    match u64::try_from(kept).map(NonZeroU64::new) {
        Err(_) => Keep::Everything,
        Ok(None) => Keep::Nothing,
        Ok(Some(threshold)) => Keep::By(KeepRule::new(threshold)),
    }
}

/// Equal if p is.
impl PartialEq for DropRate {
    fn eq(&self, other: &Self) -> bool {
        self.p == other.p
    }
}

impl fmt::Debug for DropRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DropRate")
            .field("p", &self.p)
            .finish_non_exhaustive()
    }
}

impl TryFrom<f64> for DropRate {
    type Error = InvalidRate;

    fn try_from(p: f64) -> Result<Self, InvalidRate> {
        Self::new(p)
    }
}

impl fmt::Display for DropRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.p.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threshold(p: f64) -> u128 {
        match DropRate::new(p).unwrap().keep() {
            Keep::Nothing => 0,
            Keep::By(rule) => u128::from(rule.threshold().get()),
            Keep::Everything => 1 << 64,
        }
    }

    #[test]
    fn thresholds_are_exact() {
        assert_eq!(threshold(0.0), 1 << 64);
        assert_eq!(threshold(-0.0), 1 << 64);
        assert_eq!(threshold(0.5), 1 << 63);
        assert_eq!(threshold(0.25), 3 << 62);
        assert_eq!(threshold(1.0), 0);
        assert_eq!(threshold((-40f64).exp2()), (1 << 64) - (1 << 24));
        assert_eq!(threshold(1.0 - (-40f64).exp2()), 1 << 24);
        assert_eq!(threshold((-64f64).exp2()), (1 << 64) - 1);
        // Half a unit is a tie and goes to the even 2^64; a little more rounds down.
        assert_eq!(threshold((-65f64).exp2()), 1 << 64);
        assert_eq!(threshold((-65f64).exp2() * 1.0001), (1 << 64) - 1);
        // The double nearest 0.1 is 3602879701896397 / 2^55, times 2^64 an integer.
        assert_eq!(threshold(0.1), (1 << 64) - 3_602_879_701_896_397 * 512);
    }

    #[test]
    fn bad_rates_are_named() {
        for p in [
            -0.1,
            1.1,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            -f64::MIN_POSITIVE,
        ] {
            let error = DropRate::new(p).unwrap_err();
            assert!(error.to_string().contains(&format!("{p}")), "{error}");
        }
    }

    #[test]
    fn scale_is_finite_for_every_rate() {
        assert_eq!(DropRate::new(0.0).unwrap().scale(), 1.0);
        assert_eq!(DropRate::new(0.9).unwrap().scale(), 1.0 / (1.0 - 0.9));
        assert_eq!(DropRate::new(1.0).unwrap().scale(), 0.0);
        assert_eq!(
            DropRate::new(1.0f64.next_down()).unwrap().scale(),
            53f64.exp2()
        );
    }
}
