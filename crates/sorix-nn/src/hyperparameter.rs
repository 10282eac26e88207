//! Checks of the numbers that a user chooses.

use crate::error::{Error, Result};

/// That `value`, called `what` by `op`, is finite and not negative.
pub(crate) fn non_negative(op: &'static str, what: &'static str, value: f64) -> Result<()> {
    let ok = value.is_finite() && value >= 0.0;
    check(op, what, "a finite number, at least 0", value, ok)
}

/// That `value`, called `what` by `op`, is in [0, 1).
pub(crate) fn below_one(op: &'static str, what: &'static str, value: f64) -> Result<()> {
    check(
        op,
        what,
        "a number in [0, 1)",
        value,
        (0.0..1.0).contains(&value),
    )
}

/// That `value`, called `what` by `op`, is finite.
pub(crate) fn finite(op: &'static str, what: &'static str, value: f64) -> Result<()> {
    check(op, what, "a finite number", value, value.is_finite())
}

fn check(
    op: &'static str,
    what: &'static str,
    expected: &'static str,
    got: f64,
    ok: bool,
) -> Result<()> {
    if ok {
        Ok(())
    } else {
        Err(Error::Hyperparameter {
            op,
            what,
            expected,
            got,
        })
    }
}
