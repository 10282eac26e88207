//! Softmax and attention with dropout give the bits of the reference on every backend: what they take from one is
//! exponentials and dropout, and the products of matrices are the same library's.

mod common;

use std::hash::{DefaultHasher, Hasher};

use common::{DTYPES, random};
use sorix_core::{AttentionOptions, DType, DropRate, MaskKey, Result, SaveMask, Tensor};
use sorix_kernels::dispatch;
use sorix_testing::{answer, answers_on_each_backend, backend_of_child};

const KEY: MaskKey = MaskKey {
    seed: 42,
    offset: 7,
};

/// A hash of the output and of the gradients of all inputs.
fn hash(
    dtype: DType,
    shapes: &[&[usize]],
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<String> {
    let mut leaves = Vec::new();
    for (salt, shape) in (1..).zip(shapes) {
        leaves.push(random(shape, salt).to_dtype(dtype)?.requires_grad(true));
    }
    let y = f(&leaves)?;
    y.backward_with(&random(y.shape(), 99).to_dtype(dtype)?)?;
    let mut hasher = DefaultHasher::new();
    hasher.write(&y.to_le_bytes()?);
    for leaf in &leaves {
        hasher.write(&leaf.grad().expect("it requires one").to_le_bytes()?);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

#[test]
fn the_child() -> Result<()> {
    let Some(backend) = backend_of_child() else {
        return Ok(());
    };
    assert_eq!(dispatch::active().unwrap().name(), backend);
    let mut answers = Vec::new();
    for dtype in DTYPES {
        for p in [0.0, 0.1, 0.5, 1.0] {
            let rate = DropRate::new(p).unwrap();
            for save in [SaveMask::Bits, SaveMask::Replay] {
                let softmax = hash(dtype, &[&[5, 3, 700], &[3, 1]], |x| {
                    x[0].softmax_dropout(Some(&x[1]), 0.7, rate, KEY, save)
                });
                answers.push(format!("softmax {dtype} {p} {save:?}: {}", softmax?));
            }
            let shapes: [&[usize]; 4] = [&[1, 4, 70, 8], &[1, 2, 530, 8], &[1, 2, 530, 5], &[530]];
            let attention = hash(dtype, &shapes, |x| {
                let options = AttentionOptions::new().attn_mask(&x[3]).enable_gqa(true);
                let options = options.is_causal(true).first_query(440).dropout(rate, KEY);
                x[0].scaled_dot_product_attention(&x[1], &x[2], options)
            });
            answers.push(format!("attention {dtype} {p}: {}", attention?));
        }
    }
    answer(&answers.join(", "));
    Ok(())
}

#[test]
fn every_backend_gives_the_bits_of_the_reference() {
    let here = dispatch::available();
    let here: Vec<_> = here.iter().map(|backend| backend.name()).collect();
    let answers = answers_on_each_backend(&here, "the_child");
    let ((first, expected), others) = answers.split_first().expect("two at least");
    assert_eq!(first, "reference");
    for (backend, found) in others {
        for (found, expected) in found.split(", ").zip(expected.split(", ")) {
            assert_eq!(found, expected, "{backend}");
        }
        assert_eq!(found, expected, "{backend}");
    }
}
