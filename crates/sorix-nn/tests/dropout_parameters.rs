//! Dropout of what a layer is made of: weights of a linear layer, rows of an embedding.

use std::sync::Arc;

use sorix_core::{DType, MaskKey, SaveMask, Tensor, tensor};
use sorix_nn::dropout::{DropoutLayer, Rows};
use sorix_nn::{
    DropRate, Dropout, Embedding, EmbeddingDropout, Generator, GeneratorState, Linear, Mode,
    Module, WeightDropout, monte_carlo,
};

const SAVES: [SaveMask; 2] = [SaveMask::Bits, SaveMask::Replay];
const KEY: MaskKey = MaskKey {
    seed: 42,
    offset: 7,
};

fn at_key() -> Generator {
    let MaskKey { seed, offset } = KEY;
    Generator::from_state(GeneratorState { seed, offset })
}

fn normal(shape: &[usize], seed: u64) -> Tensor {
    Tensor::randn(shape, DType::F64, MaskKey::new(seed, 0)).unwrap()
}

fn values(x: &Tensor) -> Vec<f64> {
    x.to_vec().unwrap()
}

fn assert_close(got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len());
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (got - expected).abs();
        assert!(
            error < 1e-7 * (1.0 + expected.abs()),
            "{i}: {got}, not {expected}"
        );
    }
}

/// The gradient of `sum(f(x) * weights)` at `x`, element by element, from differences.
fn differences(x: &Tensor, f: impl Fn(&Tensor) -> Tensor, weights: &Tensor) -> Vec<f64> {
    const STEP: f64 = 1e-6;
    let elements = values(x);
    let loss = |i: usize, step: f64| -> f64 {
        let mut moved = elements.clone();
        moved[i] += step;
        let x = Tensor::from_slice(&moved, x.shape()).unwrap();
        let y = f(&x).mul(weights).unwrap();
        y.sum().unwrap().item().unwrap()
    };
    (0..elements.len())
        .map(|i| (loss(i, STEP) - loss(i, -STEP)) / (2.0 * STEP))
        .collect()
}

#[test]
fn weight_dropout_is_the_linear_layer_of_the_dropped_weight() {
    let (x, weight, bias) = (normal(&[4, 6], 1), normal(&[5, 6], 2), normal(&[5], 3));
    let dy = normal(&[4, 5], 4);
    for p in [0.0, 0.3, 1.0] {
        for save in SAVES {
            let layer = |weight: &Tensor, bias: &Tensor| {
                let linear = Linear::from_tensors(weight.clone(), Some(bias.clone())).unwrap();
                let dropout = Dropout::new(p).unwrap().save_mask(save).generator(at_key());
                WeightDropout::new(linear, dropout)
            };
            let dropped = weight
                .dropout(DropRate::new(p).unwrap(), KEY, save)
                .unwrap();
            let expected = Linear::from_tensors(dropped, Some(bias.clone())).unwrap();
            let expected = expected.forward(&x).unwrap();

            let input = x.requires_grad(true);
            let module = layer(&weight, &bias);
            let y = module.forward(&input).unwrap();
            assert_close(&values(&y), &values(&expected));
            y.backward_with(&dy).unwrap();

            let gradient = |x: &Tensor| values(&x.grad().unwrap());
            let linear = module.linear();
            let by_x = |x: &Tensor| layer(&weight, &bias).forward(x).unwrap();
            assert_close(&gradient(&input), &differences(&x, by_x, &dy));
            let by_weight = |weight: &Tensor| layer(weight, &bias).forward(&x).unwrap();
            assert_close(
                &gradient(linear.weight()),
                &differences(&weight, by_weight, &dy),
            );
            let by_bias = |bias: &Tensor| layer(&weight, bias).forward(&x).unwrap();
            let bias_gradient = gradient(linear.bias().unwrap());
            assert_close(&bias_gradient, &differences(&bias, by_bias, &dy));
        }
    }
}

#[test]
fn embedding_dropout_is_the_embedding_of_the_dropped_table() {
    let table = normal(&[9, 4], 1);
    let words = tensor([[0.0, 3.0, 3.0], [8.0, 1.0, 0.0]]);
    let dy = normal(&[2, 3, 4], 2);
    for p in [0.0, 0.4, 1.0] {
        for save in SAVES {
            let layer = |table: &Tensor| {
                let rows = DropoutLayer::<Rows>::new(p).unwrap().save_mask(save);
                let embedding = Embedding::from_tensor(table.clone()).unwrap();
                EmbeddingDropout::new(embedding, rows.generator(at_key()))
            };
            let module = layer(&table);
            let y = module.forward(&words).unwrap();
            assert_eq!(y.shape(), [2, 3, 4]);
            // Row by row, from the mask of a table of one column.
            let keep = Tensor::ones([9, 1], DType::F64).unwrap();
            let keep = values(&keep.dropout(DropRate::new(p).unwrap(), KEY, save).unwrap());
            let expected: Vec<f64> = [0, 3, 3, 8, 1, 0]
                .into_iter()
                .flat_map(|row: usize| {
                    let scale = keep[row];
                    let vector = values(&table)[row * 4..][..4].to_vec();
                    vector.into_iter().map(move |x| x * scale)
                })
                .collect();
            assert_close(&values(&y), &expected);
            y.backward_with(&dy).unwrap();
            let gradient = values(&module.embedding().weight().grad().unwrap());
            let by_table = |table: &Tensor| layer(table).forward(&words).unwrap();
            assert_close(&gradient, &differences(&table, by_table, &dy));
        }
    }
}

/// A layer that drops, the one it is without, an input, and the names of its parameters.
struct Case {
    module: Box<dyn Module>,
    plain: Box<dyn Module>,
    x: Tensor,
    parameters: &'static [&'static str],
}

#[test]
fn both_are_modules_made_of_two() {
    let generator = Arc::new(Generator::new(5));
    let linear = Linear::from_tensors(normal(&[5, 6], 2), Some(normal(&[5], 3))).unwrap();
    let embedding = Embedding::from_tensor(normal(&[9, 4], 1)).unwrap();
    let dropout = Dropout::new(0.5).unwrap().generator(Arc::clone(&generator));
    let rows = DropoutLayer::<Rows>::new(0.5).unwrap();
    let rows = rows.generator(Arc::clone(&generator));
    let cases = [
        Case {
            module: Box::new(WeightDropout::new(linear.clone(), dropout)),
            plain: Box::new(linear),
            x: normal(&[3, 6], 4),
            parameters: &["linear.weight", "linear.bias"],
        },
        Case {
            module: Box::new(EmbeddingDropout::new(embedding.clone(), rows)),
            plain: Box::new(embedding),
            x: tensor([1.0, 2.0, 8.0]),
            parameters: &["embedding.weight"],
        },
    ];
    let mut calls = 0;
    for case in cases {
        let Case {
            mut module,
            plain,
            x,
            parameters: names,
        } = case;
        let expected = values(&plain.forward(&x).unwrap());
        assert_eq!(module.mode(), Some(Mode::Train));
        assert!((0..3).any(|_| values(&module.forward(&x).unwrap()) != expected));
        calls = generator.state().offset.max(calls + 1);

        for p in [0.0, 1.0] {
            module.set_drop_rate(DropRate::new(p).unwrap());
            module.forward(&x).unwrap();
            calls += 1;
            assert_eq!(generator.state().offset, calls, "one key a call at p = {p}");
        }
        module.set_drop_rate(DropRate::new(0.5).unwrap());

        module.eval();
        assert_eq!(values(&module.forward(&x).unwrap()), expected);
        let sample = |i| values(&monte_carlo(1, i, || module.forward(&x)).unwrap());
        assert!((0..9).any(|i| sample(i) != expected) && sample(2) == sample(2));
        assert_eq!(generator.state().offset, calls);

        let parameters = module.named_parameters();
        assert!(parameters.iter().map(|(name, _)| name).eq(names));
        assert_eq!(module.named_generators()[0].0, "dropout.generator");
        assert_eq!(
            module.named_drop_rates(),
            [("dropout".to_owned(), DropRate::new(0.5).unwrap())]
        );
    }
}
