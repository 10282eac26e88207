//! Layers on parts of a tensor.

use std::sync::Arc;

use sorix_core::{DType, Tensor};
use sorix_nn::dropout::{Draw, DropoutLayer, Form};
use sorix_nn::{
    DropBlock2d, DropPath, Dropout, Dropout2d, Embedding, EmbeddingDropout, Error, GELU,
    GaussianDropout, Generator, LayerNorm, Linear, LockedDropout, Module, Result, Sequential,
    Shard, Softmax, WeightDropout,
};

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

/// A model of its own, with dropout in a branch, and what it consists of drops in every way.
#[derive(Debug, Module)]
struct Model {
    embedding: EmbeddingDropout,
    locked: LockedDropout,
    blocks: Vec<Block>,
    head: Sequential,
}

#[derive(Debug, Module)]
struct Block {
    norm: LayerNorm,
    linear: WeightDropout,
    dropout: Dropout,
    path: DropPath,
}

impl Module for Block {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.linear.forward(&self.norm.forward(x)?)?;
        Ok(x.add(&self.path.forward(&self.dropout.forward(&y)?)?)?)
    }
}

impl Module for Model {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.locked.forward(&self.embedding.forward(x)?)?;
        let x = self
            .blocks
            .iter()
            .try_fold(x, |x, block| block.forward(&x))?;
        self.head.forward(&x)
    }
}

fn model() -> Model {
    let generator = Generator::new(1);
    // Integers, so that no sum is rounded, whatever its order.
    let whole = |shape: [usize; 2]| {
        random(&shape, 3)
            .mul_scalar(8.0)
            .unwrap()
            .to_dtype(DType::F64)
    };
    let linear = || Linear::from_tensors(whole([4, 4]).unwrap(), None).unwrap();
    let table = Embedding::from_tensor(whole([9, 4]).unwrap()).unwrap();
    let block = || Block {
        norm: LayerNorm::with_dtype([4], DType::F64).unwrap(),
        linear: WeightDropout::new(linear(), Dropout::new(0.5).unwrap()),
        dropout: Dropout::new(0.25).unwrap(),
        path: DropPath::new(0.5).unwrap(),
    };
    let mut model = Model {
        embedding: EmbeddingDropout::new(table, DropoutLayer::new(0.5).unwrap()),
        locked: LockedDropout::new(0.5).unwrap(),
        blocks: vec![block(), block()],
        head: Sequential::new()
            .with(Dropout::new(0.5).unwrap())
            .with(linear())
            .with(
                Sequential::new()
                    .with(GELU::default())
                    .with(GaussianDropout::new(0.5).unwrap()),
            )
            .with(Softmax::new(-1)),
    };
    model.fork_generators(&generator);
    model
}

#[test]
fn parts_go_through_modules_made_of_others() {
    let ids = Tensor::from_slice(
        &(0..6 * 8).map(|i| f64::from(i % 9)).collect::<Vec<_>>(),
        [6, 8],
    )
    .unwrap();
    let whole = model();
    let y = whole.forward(&ids).unwrap();
    y.mul(&y).unwrap().sum().unwrap().backward().unwrap();
    let gradients = |model: &Model| -> Vec<Vec<f64>> {
        let parameters = model.parameters().into_iter();
        parameters
            .map(|it| it.grad().unwrap().to_vec().unwrap())
            .collect()
    };
    let near = |got: &[f64], expected: &[f64], case: &str| {
        assert_eq!(got.len(), expected.len(), "{case}");
        for (got, expected) in got.iter().zip(expected) {
            assert!(
                (got - expected).abs() <= 1e-9 * (1.0 + expected.abs()),
                "{case}: {got}, {expected}"
            );
        }
    };
    for axis in [0, 1] {
        for workers in [1, 2, 3] {
            let case = format!("axis {axis}, {workers} workers");
            let len = ids.shape()[axis];
            let mut sums: Vec<Vec<f64>> = Vec::new();
            for worker in 0..workers {
                let range = worker * len / workers..(worker + 1) * len / workers;
                let shard = Shard::new([6, 8], axis, range.clone()).unwrap();
                let mine = model();
                let part = ids.slice(axis as isize, range.clone()).unwrap();
                let got = mine.forward_sharded(&part, &shard).unwrap();
                let expected = y.slice(axis as isize, range).unwrap();
                near(
                    &got.to_vec::<f64>().unwrap(),
                    &expected.to_vec::<f64>().unwrap(),
                    &case,
                );
                got.mul(&got).unwrap().sum().unwrap().backward().unwrap();
                let of_part = gradients(&mine);
                if sums.is_empty() {
                    sums = of_part;
                } else {
                    for (sum, part) in sums.iter_mut().zip(of_part) {
                        sum.iter_mut()
                            .zip(part)
                            .for_each(|(sum, part)| *sum += part);
                    }
                }
                // The generators go on as if the whole had come.
                for (mine, whole) in mine.named_generators().iter().zip(whole.named_generators()) {
                    assert_eq!(mine.1.state(), whole.1.state(), "{}", mine.0);
                }
            }
            for (got, expected) in sums.iter().zip(gradients(&whole)) {
                near(got, &expected, &case);
            }
        }
    }
}

#[test]
fn layers_that_need_all_of_the_axis_say_so() {
    let x = Tensor::ones([2, 4], DType::F32).unwrap();
    let columns = Shard::new([2, 8], 1, 4..8).unwrap();
    let generator = Arc::new(Generator::new(1));
    let refused = |net: &dyn Module| net.forward_sharded(&x, &columns).unwrap_err().to_string();
    let linear = Linear::new(4, 3, &Generator::new(1)).unwrap();
    let dropout = Dropout::new(0.5).unwrap().generator(Arc::clone(&generator));
    assert_eq!(
        [
            refused(&linear),
            refused(&LayerNorm::new([4]).unwrap()),
            refused(&Softmax::new(-1)),
            refused(&Softmax::new(1)),
        ],
        ["Linear", "LayerNorm", "Softmax", "Softmax"].map(|layer| format!(
            "{layer}: expected a tensor that is not cut along axis 1, got shape [2, 4]"
        ))
    );
    assert!(Softmax::new(0).forward_sharded(&x, &columns).is_ok());

    /// Moves the axis that is cut.
    #[derive(Debug, Module)]
    struct Transposes(Dropout);
    impl Module for Transposes {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            self.0.forward(&x.transpose(0, 1)?)
        }
    }
    assert_eq!(
        refused(&Transposes(dropout.clone())),
        "Dropout: expected a part of length 4 along axis 1, as the input's, got shape [4, 2]"
    );
    let squares = Sequential::new().with(DropBlock2d::with_block_size(0.5, 3).unwrap());
    let image = Tensor::ones([1, 1, 8, 8], DType::F32).unwrap();
    let shard = Shard::new([2, 1, 8, 8], 0, 1..2).unwrap();
    let error = squares.forward_sharded(&image, &shard).unwrap_err();
    assert!(matches!(error, Error::Part { .. }));
    assert_eq!(generator.state().offset, 0);
    // And the scope is over.
    assert_eq!(linear.forward(&x).unwrap().shape(), [2, 3]);
}
