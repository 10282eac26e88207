//! Checks of the numbers that a user chooses.

use crate::error::{Error, Result};

/// That `value`, called `what` by `op`, is finite and not negative.
pub(crate) fn non_negative(op: &'static str, what: &'static str, value: f64) -> Result<()> {
    let ok = value.is_finite() && value >= 0.0;
    check(op, what, "a finite number, at least 0", value, ok)
}

/// That `value`, called `what` by `op`, is finite and above 0, also in f32.
pub(crate) fn positive_in_f32(op: &'static str, what: &'static str, value: f64) -> Result<()> {
    let ok = value.is_finite() && value as f32 > 0.0;
    check(op, what, "a finite number above 0, also in f32", value, ok)
}

/// That `value`, called `what` by `op`, is not negative; it may be infinite.
pub(crate) fn at_least_zero(op: &'static str, what: &'static str, value: f64) -> Result<()> {
    check(op, what, "a number, at least 0", value, value >= 0.0)
}

/// That `value`, called `what` by `op`, is not 0.
pub(crate) fn at_least_one(op: &'static str, what: &'static str, value: u64) -> Result<()> {
    check(op, what, "at least 1", value as f64, value > 0)
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

/// That `value`, called `what` by `op`, is in [0, 1].
pub(crate) fn at_most_one(op: &'static str, what: &'static str, value: f64) -> Result<()> {
    check(
        op,
        what,
        "a number in [0, 1]",
        value,
        (0.0..=1.0).contains(&value),
    )
}

/// That `value`, called `what` by `op`, is finite.
pub(crate) fn finite(op: &'static str, what: &'static str, value: f64) -> Result<()> {
    check(op, what, "a finite number", value, value.is_finite())
}

/// That `value`, called `what` by `op`, is 0 or 1, which say no and yes.
pub(crate) fn flag(op: &'static str, what: &'static str, value: f64) -> Result<bool> {
    check(op, what, "0 or 1", value, value == 0.0 || value == 1.0)?;
    Ok(value == 1.0)
}

/// The numbers of an optimiser in the order of their `names`, if `given` has each of these once and no
/// other.
pub(crate) fn in_order(
    optimizer: &'static str,
    names: &[String],
    given: &[(String, f64)],
) -> Result<Vec<f64>> {
    let number = |wanted: &String| given.iter().find(|(name, _)| name == wanted);
    let found: Option<Vec<f64>> = names.iter().map(|name| Some(number(name)?.1)).collect();
    found
        .filter(|found| found.len() == given.len())
        .ok_or_else(|| Error::HyperparameterNames {
            optimizer,
            expected: names.to_vec(),
            got: given.iter().map(|(name, _)| name.clone()).collect(),
        })
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
