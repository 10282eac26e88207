//! Checks of the numbers that a user chooses.

use crate::error::{Error, Result};

/// That `value`, called `what`, is finite and not negative.
pub(crate) fn non_negative(what: &'static str, value: f64) -> Result<()> {
    let ok = value.is_finite() && value >= 0.0;
    check(what, "a finite number, at least 0", value, ok)
}

/// That `value`, called `what`, is in [0, 1).
pub(crate) fn below_one(what: &'static str, value: f64) -> Result<()> {
    check(
        what,
        "a number in [0, 1)",
        value,
        (0.0..1.0).contains(&value),
    )
}

/// That `value`, called `what`, is finite.
pub(crate) fn finite(what: &'static str, value: f64) -> Result<()> {
    check(what, "a finite number", value, value.is_finite())
}

fn check(what: &'static str, expected: &'static str, got: f64, ok: bool) -> Result<()> {
    if ok {
        Ok(())
    } else {
        Err(Error::Hyperparameter {
            what,
            expected,
            got,
        })
    }
}
