//! A tensor cut over workers: outputs and gradients joined are those of one machine.

use crate::common::{random, values};
use sorix_core::{DropRate, MaskKey, SaveMask, Tensor};

const KEY: MaskKey = MaskKey { seed: 4, offset: 2 };

/// Cuts `x` along `axis` for W workers, does `worker(part, its range)`, and joins the parts; and
/// compares output and gradient with `alone(x)`.
fn compare(
    shape: &[usize],
    axis: usize,
    worker: impl Fn(&Tensor, core::ops::Range<usize>) -> Tensor,
    alone: impl Fn(&Tensor) -> Tensor,
) {
    let dy = random(shape, 2);
    let run = |f: &dyn Fn(&Tensor) -> Tensor| {
        let x = random(shape, 1).requires_grad(true);
        let y = f(&x);
        y.backward_with(&dy).unwrap();
        (values(&y), values(&x.grad().unwrap()))
    };
    let expected = run(&alone);
    for workers in [1, 2, 3, 8] {
        let joined = run(&|x| {
            let parts: Vec<Tensor> = (0..workers)
                .map(|w| {
                    let len = shape[axis];
                    let range = len * w / workers..len * (w + 1) / workers;
                    worker(&x.slice(axis as isize, range.clone()).unwrap(), range)
                })
                .collect();
            Tensor::concat(&parts.iter().collect::<Vec<_>>(), axis as isize).unwrap()
        });
        assert_eq!(
            joined, expected,
            "{shape:?} along axis {axis}, {workers} workers"
        );
    }
}

#[test]
fn parts_joined_are_the_whole() {
    let rate = DropRate::new(0.4).unwrap();
    for shape in [[5, 7, 11], [3, 60, 100]] {
        for axis in 0..3 {
            for save in [SaveMask::Bits, SaveMask::Replay] {
                compare(
                    &shape,
                    axis,
                    |part, range| {
                        part.dropout(rate, KEY.shard(&shape, axis, range).unwrap(), save)
                            .unwrap()
                    },
                    |x| x.dropout(rate, KEY, save).unwrap(),
                );
            }
        }
    }
}

#[test]
fn small_masks_are_cut_where_they_have_the_axis_and_shared_where_not() {
    let rate = DropRate::new(0.4).unwrap();
    let shape = [4, 10, 9];
    for mask_shape in [[4, 10, 1], [4, 1, 9], [1, 10, 1]] {
        for axis in 0..3 {
            for save in [SaveMask::Bits, SaveMask::Replay] {
                compare(
                    &shape,
                    axis,
                    |part, range| {
                        let mut part_shape = mask_shape;
                        if mask_shape[axis] == 1 {
                            return part
                                .dropout_broadcast(rate, KEY, &part_shape, save)
                                .unwrap();
                        }
                        part_shape[axis] = range.len();
                        let shard = KEY.shard(&mask_shape, axis, range).unwrap();
                        part.dropout_broadcast(rate, shard, &part_shape, save)
                            .unwrap()
                    },
                    |x| x.dropout_broadcast(rate, KEY, &mask_shape, save).unwrap(),
                );
            }
        }
    }
}

#[test]
fn a_shard_of_another_size_is_an_error() {
    let shard = KEY.shard(&[4, 6], 1, 2..4).unwrap();
    let x = random(&[4, 3], 1);
    for p in [0.0, 0.5, 1.0] {
        let rate = DropRate::new(p).unwrap();
        for (op, result) in [
            ("dropout", x.dropout(rate, shard, SaveMask::Bits)),
            (
                "dropout_broadcast",
                x.dropout_broadcast(rate, shard, &[4, 3], SaveMask::Bits),
            ),
        ] {
            assert_eq!(
                result.unwrap_err().to_string(),
                format!("{op}(float64[4, 3]): length of shard: expected 8, got 12")
            );
        }
    }
}
