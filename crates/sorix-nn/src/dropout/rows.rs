//! A mask for each row of a batch.

use sorix_core::{DropRate, MaskKey, SaveMask, Tensor};

use crate::dropout::{Draw, Form, Input};
use crate::error::{Error, Result};

/// Drops from each of `count` equal parts of the first axis as if it came alone, by a key of its own. The
/// keys are taken once the form is known to fit.
pub(crate) fn draw_rows(
    form: &impl Form,
    input: Input<'_>,
    rate: DropRate,
    save: SaveMask,
    count: usize,
    keys: impl FnOnce() -> Vec<MaskKey>,
) -> Result<Tensor> {
    let shape = input.x.shape();
    let length = match shape.first() {
        Some(&length) if count > 0 && length % count == 0 => length / count,
        _ => {
            let expected = format!("a first axis of {count} equal parts, one for each key");
            return Err(Error::shape("dropout by rows", expected, shape));
        }
    };
    if !form.keeps_rows_apart(shape) {
        let expected = "a first axis along which the form draws apart";
        return Err(Error::shape("dropout by rows", expected, shape));
    }
    let mask_shape = form.mask_shape(&[&[length], &shape[1..]].concat())?;
    let drop = |input: Input<'_>, key: MaskKey| {
        let draw = Draw {
            rate,
            at: key.into(),
            mask_shape: mask_shape.clone(),
            save,
        };
        input.apply(form, &draw)
    };
    let keys = keys();
    if let &[key] = &*keys {
        return drop(input, key);
    }
    let parts = keys.into_iter().enumerate().map(|(row, key)| {
        input.with_rows(row * length..(row + 1) * length, |part| drop(part, key))
    });
    let parts = parts.collect::<Result<Vec<_>>>()?;
    Ok(Tensor::concat(&parts.iter().collect::<Vec<_>>(), 0)?)
}
