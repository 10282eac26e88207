//! Dropout of what a layer is made of: weights of a linear layer, rows of an embedding.

use std::sync::Arc;

use sorix_core::{DType, DropRate, MaskKey, SaveMask, Tensor, tensor};
use sorix_nn::dropout::{DropoutLayer, Rows};
use sorix_nn::{
    Dropout, Embedding, EmbeddingDropout, Generator, GeneratorState, Linear, Mode, Module,
    WeightDropout, monte_carlo,
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
            parameters: &["weight", "bias"],
        },
        Case {
            module: Box::new(EmbeddingDropout::new(embedding.clone(), rows)),
            plain: Box::new(embedding),
            x: tensor([1.0, 2.0, 8.0]),
            parameters: &["weight"],
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

/// A linear layer of these weights whose next call draws by `KEY`.
fn weight_dropout(weight: Tensor, p: f64, generator: impl Into<Arc<Generator>>) -> WeightDropout {
    let linear = Linear::from_tensors(weight, None).unwrap();
    WeightDropout::new(linear, Dropout::new(p).unwrap().generator(generator))
}

fn embedding_dropout(
    table: Tensor,
    p: f64,
    generator: impl Into<Arc<Generator>>,
) -> EmbeddingDropout {
    let rows = DropoutLayer::<Rows>::new(p).unwrap().generator(generator);
    EmbeddingDropout::new(Embedding::from_tensor(table).unwrap(), rows)
}

/// Of parameters that are 1, each output is one decision: 0, or 1 / (1 - p).
#[test]
fn mean_and_variance_of_what_is_dropped() {
    const WIDTH: usize = 30;
    const CALLS: usize = 20;
    let identity: Vec<f64> = (0..WIDTH * WIDTH)
        .map(|i| f64::from(u8::from(i % (WIDTH + 1) == 0)))
        .collect();
    let identity = Tensor::from_slice(&identity, [WIDTH, WIDTH]).unwrap();
    let weight = || Tensor::ones([WIDTH, WIDTH], DType::F64).unwrap();
    let words = Tensor::arange(0.0, 900.0, 1.0, DType::F64).unwrap();
    let table = || Tensor::ones([900, 1], DType::F64).unwrap();
    for p in [0.2, 0.5] {
        let cases: [(&str, Box<dyn Module>, &Tensor); 2] = [
            (
                "weights",
                Box::new(weight_dropout(weight(), p, at_key())),
                &identity,
            ),
            (
                "rows",
                Box::new(embedding_dropout(table(), p, at_key())),
                &words,
            ),
        ];
        for (name, layer, x) in cases {
            let outputs: Vec<f64> = (0..CALLS)
                .flat_map(|_| values(&layer.forward(x).unwrap()))
                .collect();
            let n = outputs.len() as f64;
            assert_eq!(n, 900.0 * CALLS as f64);
            let moment = |power| outputs.iter().map(|y: &f64| y.powi(power)).sum::<f64>() / n;
            let (mean, variance) = (moment(1), moment(2) - moment(1) * moment(1));
            // Five standard errors; a square is 1 / (1 - p)² times as uncertain as a mean.
            let bound = 5.0 * (p / (1.0 - p) / n).sqrt();
            assert!((mean - 1.0).abs() < bound, "{name} at {p}: mean {mean}");
            let error = (variance - p / (1.0 - p)).abs();
            assert!(
                error < bound / (1.0 - p).powi(2),
                "{name} at {p}: variance {variance}"
            );
        }
    }
}

#[test]
fn parameters_and_inputs_without_elements() {
    let ones = |shape: &[usize]| Tensor::ones(shape, DType::F64).unwrap();
    let generator = Arc::new(Generator::new(5));
    let linear = |shape| weight_dropout(ones(shape), 0.5, Arc::clone(&generator));
    let rows = |shape| embedding_dropout(ones(shape), 0.5, Arc::clone(&generator));
    type Shapes = [&'static [usize]; 2];
    let cases: [(Box<dyn Module>, Shapes); 5] = [
        (Box::new(linear(&[3, 4])), [&[0, 4], &[0, 3]]),
        (Box::new(linear(&[3, 0])), [&[2, 0], &[2, 3]]),
        (Box::new(linear(&[0, 4])), [&[2, 4], &[2, 0]]),
        (Box::new(rows(&[3, 4])), [&[0], &[0, 4]]),
        (Box::new(rows(&[3, 0])), [&[2], &[2, 0]]),
    ];
    for (calls, (layer, [input, output])) in (1..).zip(cases) {
        let y = layer.forward(&ones(input)).unwrap();
        assert_eq!(y.shape(), output);
        assert!(values(&y).iter().all(|&y| y == 0.0));
        y.sum().unwrap().backward().unwrap();
        let parameter = &layer.parameters()[0];
        let gradient = parameter.grad().unwrap();
        assert_eq!(gradient.shape(), parameter.shape());
        assert!(values(&gradient).iter().all(|&dw| dw == 0.0));
        assert_eq!(generator.state().offset, calls);
    }
}

#[test]
fn nan_and_infinity_do_not_leak_from_dropped_parameters() {
    for special in [f64::NAN, f64::INFINITY] {
        let column = |len| Tensor::full([len, 1], special, DType::F64).unwrap();
        let one = tensor([[1.0]]);
        let words = Tensor::arange(0.0, 64.0, 1.0, DType::F64).unwrap();
        for p in [0.5, 1.0] {
            let weights = weight_dropout(column(64), p, at_key());
            let rows = embedding_dropout(column(64), p, at_key());
            for y in [
                weights.forward(&one).unwrap(),
                rows.forward(&words).unwrap(),
            ] {
                let dropped = values(&y).iter().filter(|&&y| y == 0.0).count();
                let kept = values(&y).iter().filter(|y| !y.is_finite()).count();
                assert_eq!(dropped + kept, 64);
                assert_eq!(dropped == 64, p == 1.0, "{dropped} dropped");
            }
        }
    }
}

#[test]
fn inputs_that_do_not_fit_are_errors() {
    let generator = Arc::new(Generator::new(5));
    let weights = weight_dropout(normal(&[5, 6], 1), 0.5, Arc::clone(&generator));
    for shape in [&[][..], &[5], &[6, 5]] {
        let error = weights.forward(&normal(shape, 2)).unwrap_err();
        let expected = format!("Linear: expected an input of shape [.., 6], got shape {shape:?}");
        assert_eq!(error.to_string(), expected);
    }
    let single = Tensor::ones([2, 6], DType::F32).unwrap();
    assert_eq!(
        weights.forward(&single).unwrap_err().to_string(),
        "Linear(float32[2, 6], float64[5, 6]): operands must have one dtype"
    );
    let rows = embedding_dropout(normal(&[9, 4], 1), 0.5, Arc::clone(&generator));
    for word in [-1.0, 0.5, 9.0, f64::NAN] {
        let error = rows.forward(&tensor([word])).unwrap_err();
        let expected = format!("Embedding: expected whole numbers in 0..9, got {word}");
        assert_eq!(error.to_string(), expected);
    }
    let table = embedding_dropout(normal(&[258, 1], 1), 0.5, Arc::clone(&generator));
    let coarse = tensor([1.0]).to_dtype(DType::BF16).unwrap();
    assert!(table.forward(&coarse).is_err());
    assert_eq!(generator.state().offset, 0, "no key is taken");
    assert!(Dropout::new(1.5).is_err() && DropoutLayer::<Rows>::new(f64::NAN).is_err());
}
