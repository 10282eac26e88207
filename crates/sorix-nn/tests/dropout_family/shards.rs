//! Layers on parts of a tensor.

use std::sync::Arc;

use sorix_core::{DType, Tensor};
use sorix_nn::dropout::{Draw, DropoutLayer, Form};
use sorix_nn::{DropBlock2d, Dropout, Dropout2d, Generator, Module, Result, Shard};

use crate::forms::Mask::Squares;
use crate::forms::{SAVES, bits, random, rows, run};

/// W workers with a part each, cut along any axis, do what one machine does with the whole.
#[test]
fn parts_joined_are_the_whole() {
    for row in rows() {
        // The squares of a whole tensor are counted.
        if matches!(row.mask, Squares) {
            continue;
        }
        let (x, dy) = (random(row.shape, 1), random(row.shape, 2));
        for save in SAVES {
            let whole = run(&*row.layer(0.5, save), &x, &dy);
            for (axis, &len) in row.shape.iter().enumerate() {
                for workers in [1, 2, 3, 8] {
                    let parts: Vec<(Tensor, Tensor)> = (0..workers)
                        .map(|worker| {
                            let range = worker * len / workers..(worker + 1) * len / workers;
                            let shard = Shard::new(row.shape, axis, range.clone()).unwrap();
                            let part = |x: &Tensor| {
                                let part = x.slice(axis as isize, range.clone()).unwrap();
                                part.contiguous().unwrap()
                            };
                            let x = part(&x).requires_grad(true);
                            let y = row.layer(0.5, save).sharded(&x, &shard).unwrap();
                            y.backward_with(&part(&dy)).unwrap();
                            (y.detach(), x.grad().unwrap())
                        })
                        .collect();
                    let joined = |part: fn(&(Tensor, Tensor)) -> &Tensor| {
                        let parts: Vec<&Tensor> = parts.iter().map(part).collect();
                        Tensor::concat(&parts, axis as isize).unwrap()
                    };
                    let case = format!("{}, axis {axis}, {workers} workers", row.name);
                    assert_eq!(bits(&joined(|part| &part.0)), bits(&whole.0), "{case}");
                    assert_eq!(bits(&joined(|part| &part.1)), bits(&whole.1), "{case}");
                }
            }
        }
    }
}

/// A form with a mask of this shape, whatever the input.
#[derive(Debug)]
struct OfShape(Vec<usize>);

impl Form for OfShape {
    fn mask_shape(&self, _: &[usize]) -> Result<Vec<usize>> {
        Ok(self.0.clone())
    }

    fn apply(&self, x: &Tensor, draw: &Draw) -> Result<Tensor> {
        Ok(x.dropout_broadcast(draw.rate, draw.at, &draw.mask_shape, draw.save)?)
    }
}

#[test]
fn what_cannot_be_cut_is_an_error_and_takes_no_key() {
    let generator = Arc::new(Generator::new(5));
    let x = Tensor::ones([2, 3, 4], DType::F32).unwrap();
    let shard = Shard::new([2, 6, 4], 1, 3..6).unwrap();

    let mut dropout = Dropout::new(0.5).unwrap().generator(Arc::clone(&generator));
    let wrong = Shard::new([2, 6, 4], 1, 2..6).unwrap();
    let error = dropout.forward_sharded(&x, &wrong).unwrap_err();
    assert_eq!(
        error.to_string(),
        "forward_sharded: expected a part of shape [2, 4, 4], got shape [2, 3, 4]"
    );
    let blocks = DropBlock2d::with_block_size(0.5, 2)
        .unwrap()
        .generator(Arc::clone(&generator));
    assert_eq!(
        blocks.forward_sharded(&x, &shard).unwrap_err().to_string(),
        "DropBlock2d: expected a whole tensor, got a part: what it drops depends on the whole"
    );
    for mask in [vec![6], vec![1, 5, 4]] {
        let layer = DropoutLayer::with_form(OfShape(mask.clone()), 0.5).unwrap();
        let layer = layer.generator(Arc::clone(&generator));
        let error = layer.forward_sharded(&x, &shard).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "forward_sharded: expected a mask of OfShape with a length of 1 or 6 along axis 1, \
                 got shape {mask:?}"
            )
        );
    }
    let flat = Shard::new([6, 4], 0, 3..6).unwrap();
    let part = Tensor::ones([3, 4], DType::F32).unwrap();
    let error = Dropout2d::new(0.5).unwrap().forward_sharded(&part, &flat);
    assert!(error.unwrap_err().to_string().ends_with("got shape [6, 4]"));
    assert_eq!(
        Shard::new([2, 6], 2, 0..1).unwrap_err().to_string(),
        "shard: a shard must be a range of an axis of the whole tensor, of shape [2, 6], with at most \
         2^64 elements: got 0..1 of axis 2"
    );
    assert_eq!(generator.state().offset, 0);

    dropout.forward_sharded(&x, &shard).unwrap();
    assert_eq!(generator.state().offset, 1);
    dropout.eval();
    assert!(
        dropout
            .forward_sharded(&x, &shard)
            .unwrap()
            .same_storage(&x)
    );
    assert_eq!(generator.state().offset, 1);
}
