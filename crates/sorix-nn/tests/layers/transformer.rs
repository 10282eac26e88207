//! Attention and the layers of a transformer: what they are made of, masks, keys and gradients.

use sorix_core::autograd::no_grad;
use sorix_core::{Activation, DType, DropRate, MaskKey, SaveMask, Tensor, tensor};
use sorix_nn::{
    AttentionMasks, Dropout, Generator, Linear, Module, MultiHeadAttention, Result, Shard,
    TransformerDecoderLayer, TransformerEncoderLayer, functional, monte_carlo, monte_carlo_rows,
};

use super::{DTYPES, message, values};

const HIDDEN: f64 = f64::NEG_INFINITY;

fn masks<'t>() -> AttentionMasks<'t> {
    AttentionMasks::new()
}

fn randn(shape: &[usize], seed: u64) -> Tensor {
    Tensor::randn(shape, DType::F64, MaskKey { seed, offset: 0 }).unwrap()
}

fn attention(p: f64) -> MultiHeadAttention {
    let layer = MultiHeadAttention::with_dtype(8, 2, p, DType::F64, &Generator::new(42)).unwrap();
    // Biases that show.
    for (k, (name, parameter)) in layer.named_parameters().into_iter().enumerate() {
        if name.ends_with("bias") {
            no_grad(|| parameter.assign(&randn(parameter.shape(), k as u64))).unwrap();
        }
    }
    layer
}

fn assert_near(found: &Tensor, expected: &Tensor, what: &str) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    for (a, b) in values(found).into_iter().zip(values(expected)) {
        assert!((a - b).abs() < 1e-12, "{what}: {a}, {b}");
    }
}

fn names_and_shapes(module: &dyn Module) -> Vec<(String, Vec<usize>)> {
    let parameters = module.named_parameters().into_iter();
    parameters
        .map(|(name, x)| (name, x.shape().to_vec()))
        .collect()
}

/// What `data/torch_transformer.py` wrote, which says how it was made.
#[cfg(feature = "safetensors")]
#[test]
fn layers_of_pytorch_load_and_give_what_they_gave_there() {
    #[derive(Debug, Module)]
    struct File {
        encoder: TransformerEncoderLayer,
        decoder: TransformerDecoderLayer,
        #[module(parameter)]
        x: Tensor,
        #[module(parameter)]
        memory: Tensor,
        #[module(parameter)]
        encoded: Tensor,
        #[module(parameter)]
        decoded: Tensor,
    }

    impl Module for File {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            self.encoder.forward(x)
        }
    }

    let generator = Generator::new(1);
    let zeros = |length: usize| {
        let zeros = Tensor::zeros([2, length, 8], DType::F32).unwrap();
        zeros.requires_grad(true)
    };
    let encoder = TransformerEncoderLayer::new(8, 2, 12, 0.1, &generator).unwrap();
    let mut file = File {
        encoder: encoder.norm_first(true).activation(Activation::Gelu),
        decoder: TransformerDecoderLayer::new(8, 2, 12, 0.1, &generator).unwrap(),
        x: zeros(5),
        memory: zeros(4),
        encoded: zeros(5),
        decoded: zeros(5),
    };
    let bytes = include_bytes!("../data/torch_transformer.safetensors");
    let mut checkpoint = sorix_nn::Checkpoint::new().parameters("", &file);
    checkpoint.load_bytes(bytes).unwrap();
    drop(checkpoint);
    file.eval();

    let shown = 0.0_f32;
    let hidden = f32::NEG_INFINITY;
    let padding = tensor([[shown; 5], [shown, shown, shown, hidden, hidden]]);
    let encoded = file
        .encoder
        .encode(&file.x, masks().key_padding_mask(&padding));
    let causal = masks().is_causal(true);
    let decoded = file.decoder.decode(&file.x, &file.memory, causal, masks());
    for (name, found, expected) in [
        ("encoder", encoded.unwrap(), &file.encoded),
        ("decoder", decoded.unwrap(), &file.decoded),
    ] {
        for (a, b) in values(&found).into_iter().zip(values(expected)) {
            assert!((a - b).abs() < 2e-6, "{name}: {a}, {b}");
        }
    }
}

/// The names of PyTorch's state, which its safetensors have.
#[test]
fn parameters_have_the_names_and_shapes_of_pytorch() {
    let of_attention = |name: &str| {
        [
            (format!("{name}in_proj_weight"), vec![12, 4]),
            (format!("{name}in_proj_bias"), vec![12]),
            (format!("{name}out_proj.weight"), vec![4, 4]),
            (format!("{name}out_proj.bias"), vec![4]),
        ]
    };
    let others = |norms: usize| {
        let mut all = vec![
            ("linear1.weight".to_owned(), vec![6, 4]),
            ("linear1.bias".to_owned(), vec![6]),
            ("linear2.weight".to_owned(), vec![4, 6]),
            ("linear2.bias".to_owned(), vec![4]),
        ];
        for i in 1..=norms {
            all.push((format!("norm{i}.weight"), vec![4]));
            all.push((format!("norm{i}.bias"), vec![4]));
        }
        all
    };
    let generator = Generator::new(42);
    let layer = MultiHeadAttention::new(4, 2, 0.1, &generator).unwrap();
    assert_eq!(names_and_shapes(&layer), of_attention(""));
    assert_eq!(layer.without_bias().parameters().len(), 2);
    let layer = TransformerEncoderLayer::new(4, 2, 6, 0.1, &generator).unwrap();
    let expected = [&of_attention("self_attn.")[..], &others(2)].concat();
    assert_eq!(names_and_shapes(&layer), expected);
    let layer = TransformerDecoderLayer::new(4, 2, 6, 0.1, &generator).unwrap();
    let (own, memory) = (of_attention("self_attn."), of_attention("multihead_attn."));
    let expected = [&own[..], &memory, &others(3)].concat();
    assert_eq!(names_and_shapes(&layer), expected);
    assert_eq!(layer.named_drop_rates().len(), 6);
}

/// By products, a softmax and a dropout, from the parameters.
fn by_matrix(
    layer: &MultiHeadAttention,
    [query, key, value]: [&Tensor; 3],
    mask: Option<&Tensor>,
    p: f64,
    at: MaskKey,
) -> Result<Tensor> {
    let parameters = layer.parameters();
    let [weight, bias, out_weight, out_bias] = &parameters[..] else {
        panic!("four parameters");
    };
    let projected = |k: usize, x: &Tensor| -> Result<Tensor> {
        let rows = k * 8..(k + 1) * 8;
        let (weight, bias) = (weight.slice(0, rows.clone())?, bias.slice(0, rows)?);
        let y = functional::linear(x, &weight, Some(&bias))?;
        let [n, l, _] = *y.shape() else {
            panic!("three axes")
        };
        Ok(y.reshape([n, l, 2, 4])?.transpose(1, 2)?)
    };
    let (query, key) = (projected(0, query)?, projected(1, key)?);
    let mut scores = query.matmul(&key.transpose(2, 3)?)?.mul_scalar(0.5)?;
    if let Some(mask) = mask {
        scores = scores.add(mask)?;
    }
    let dropped = scores.softmax(-1)?;
    let dropped = dropped.dropout(DropRate::new(p)?, at, SaveMask::Replay)?;
    let found = dropped.matmul(&projected(2, value)?)?.transpose(1, 2)?;
    let [n, l, ..] = *found.shape() else {
        panic!("four axes")
    };
    functional::linear(&found.reshape([n, l, 8])?, out_weight, Some(out_bias))
}

#[test]
fn an_attention_is_projections_and_scores_by_the_next_key() {
    let (x, memory, other) = (
        randn(&[3, 5, 8], 1),
        randn(&[3, 7, 8], 2),
        randn(&[3, 7, 8], 3),
    );
    for p in [0.0, 0.3] {
        for inputs in [[&x, &x, &x], [&x, &memory, &memory], [&x, &memory, &other]] {
            let layer = attention(p);
            for _ in 0..2 {
                let state = layer.named_generators()[0].1.state();
                let at = MaskKey::new(state.seed, state.offset);
                let [query, key, value] = inputs;
                let found = layer.attend(query, key, value, masks()).unwrap();
                let expected = by_matrix(&layer, inputs, None, p, at).unwrap();
                assert_near(&found, &expected, &format!("p = {p}"));
            }
        }
    }
    // Another handle to the same numbers, and no batch.
    let layer = attention(0.0);
    let found = layer.forward(&x).unwrap();
    let copy = x.copy().unwrap();
    assert_near(
        &layer.attend(&x, &copy, &copy, masks()).unwrap(),
        &found,
        "copies",
    );
    let one = layer
        .forward(&x.slice(0, 1..2).unwrap().squeeze(0).unwrap())
        .unwrap();
    assert_eq!(one.shape(), [5, 8]);
    assert_near(
        &one.unsqueeze(0).unwrap(),
        &found.slice(0, 1..2).unwrap(),
        "no batch",
    );
}

#[test]
fn masks_hide_keys() {
    let (x, memory) = (randn(&[2, 5, 8], 1), randn(&[2, 4, 8], 2));
    let padding = tensor([[0.0; 4], [0.0, 0.0, 0.0, HIDDEN]]);
    let attn = randn(&[5, 4], 3);
    let of = |i: usize| if i % 4 <= i / 4 { 0.0 } else { HIDDEN };
    let causal = Tensor::from_vec((0..20).map(of).collect(), [5, 4]).unwrap();
    let wide = padding.reshape([2, 1, 1, 4]).unwrap();
    let layer = attention(0.0);
    let cases = [
        (masks().key_padding_mask(&padding), wide.clone()),
        (masks().attn_mask(&attn), attn.clone()),
        (masks().is_causal(true), causal.clone()),
        (
            masks()
                .attn_mask(&attn)
                .key_padding_mask(&padding)
                .is_causal(true),
            attn.add(&wide).unwrap().add(&causal).unwrap(),
        ),
    ];
    for (masks, mask) in &cases {
        let found = layer.attend(&x, &memory, &memory, *masks).unwrap();
        let inputs = [&x, &memory, &memory];
        let expected = by_matrix(&layer, inputs, Some(mask), 0.0, MaskKey::default());
        assert_near(&found, &expected.unwrap(), &format!("{masks:?}"));
        // Each row by a key of its own: the same by the matrix.
        let apart = monte_carlo_rows(&[1, 2], 0, || layer.attend(&x, &memory, &memory, *masks));
        assert_near(&apart.unwrap(), &found, "by rows");
    }
    // What is hidden has no say.
    let padded = layer
        .attend(&x, &memory, &memory, cases[0].0)
        .unwrap()
        .slice(0, 1..2)
        .unwrap();
    let [one, memory_of_one] = [&x, &memory].map(|x| x.slice(0, 1..2).unwrap().squeeze(0).unwrap());
    let padding = tensor([0.0, 0.0, 0.0, HIDDEN]);
    let masks_of_one = masks().key_padding_mask(&padding);
    let alone = layer
        .attend(&one, &memory_of_one, &memory_of_one, masks_of_one)
        .unwrap();
    assert_near(&padded, &alone.unsqueeze(0).unwrap(), "no batch");
    let [x, memory] = [&x, &memory].map(|x| x.slice(0, 1..2).unwrap());
    let short = memory.slice(1, 0..3).unwrap();
    let alone = layer.attend(&x, &short, &short, masks()).unwrap();
    assert_near(&padded, &alone, "without what is hidden");
}

#[test]
fn a_request_or_a_worker_gets_its_part_of_the_mask() {
    let x = randn(&[4, 5, 8], 1);
    let mut layer = attention(0.3);
    layer.eval();
    let together = monte_carlo_rows(&[7, 8, 9, 10], 0, || layer.forward(&x)).unwrap();
    let alone = monte_carlo_rows(&[9], 0, || layer.forward(&x.slice(0, 2..3)?)).unwrap();
    assert_near(&alone, &together.slice(0, 2..3).unwrap(), "by rows");
    let once = monte_carlo(9, 0, || layer.forward(&x.slice(0, 2..3)?)).unwrap();
    assert_near(&once, &alone, "alone");

    let layer = || attention(0.3);
    let whole = layer().forward(&x).unwrap();
    let shard = Shard::new([4, 5, 8], 0, 1..3).unwrap();
    let part = layer()
        .forward_sharded(&x.slice(0, 1..3).unwrap(), &shard)
        .unwrap();
    assert_near(&part, &whole.slice(0, 1..3).unwrap(), "a part of the batch");
    let shard = Shard::new([4, 5, 8], 1, 1..3).unwrap();
    let error = message(layer().forward_sharded(&x.slice(1, 1..3).unwrap(), &shard));
    assert!(
        error.starts_with("MultiHeadAttention: expected a tensor that is not cut"),
        "{error}"
    );
}

#[test]
fn an_attention_refuses_what_does_not_fit_before_a_key_is_taken() {
    let layer = attention(0.3);
    let state = layer.named_generators()[0].1.state();
    let x = randn(&[2, 5, 8], 1);
    let attend = |query: &[usize], key: &[usize], value: &[usize]| {
        let [query, key, value] = [query, key, value].map(|shape| randn(shape, 1));
        message(layer.attend(&query, &key, &value, masks()))
    };
    for (error, expected) in [
        (
            attend(&[2, 5, 7], &[2, 5, 8], &[2, 5, 8]),
            "expected a query of shape [N, L, 8] or [L, 8], got shape [2, 5, 7]",
        ),
        (
            attend(&[2, 5, 8], &[3, 4, 8], &[3, 4, 8]),
            "expected a key of shape [2, S, 8], got shape [3, 4, 8]",
        ),
        (
            attend(&[5, 8], &[1, 4, 8], &[1, 4, 8]),
            "expected a key of shape [S, 8], got shape [1, 4, 8]",
        ),
        (
            attend(&[2, 5, 8], &[2, 4, 8], &[2, 3, 8]),
            "expected a value of shape [2, 4, 8], got shape [2, 3, 8]",
        ),
        (
            message(layer.attend(&x, &x, &x, masks().key_padding_mask(&randn(&[5], 1)))),
            "expected a key_padding_mask of shape [2, 5], got shape [5]",
        ),
    ] {
        assert_eq!(error, format!("MultiHeadAttention: {expected}"));
    }
    assert_eq!(layer.named_generators()[0].1.state(), state);

    let out = || Linear::from_tensors(randn(&[8, 8], 1), None).unwrap();
    let make = |weight: &[usize], bias: &[usize], heads| {
        let (weight, bias) = (randn(weight, 1), randn(bias, 2));
        let dropout = Dropout::new(0.0).unwrap();
        let made = MultiHeadAttention::from_tensors(weight, Some(bias), out(), heads, dropout);
        made.unwrap_err().to_string()
    };
    assert!(make(&[24, 7], &[24], 2).contains("an in_proj_weight of shape [3 E, E]"));
    assert!(make(&[24, 8], &[8], 2).contains("an in_proj_bias of shape [24]"));
    assert!(make(&[24, 8], &[24], 0).contains("num_heads"));
    assert!(make(&[12, 4], &[12], 2).contains("an out_proj.weight of shape [4, 4]"));
}

/// All parameters of a layer are what they were, and its generators begin again.
fn begin_again(layer: &dyn Module) {
    for (_, generator) in layer.named_generators() {
        generator.manual_seed(5);
    }
}

fn check_gradients(layer: &dyn Module, x: &Tensor, f: &dyn Fn(&Tensor) -> Result<Tensor>) {
    const STEP: f64 = 1e-6;
    let loss = |x: &Tensor| {
        begin_again(layer);
        let y = f(x).unwrap();
        let weights = randn(y.shape(), 99);
        y.mul(&weights).unwrap().sum().unwrap()
    };
    let leaf = x.requires_grad(true);
    loss(&leaf).backward().unwrap();
    let mut leaves = layer.named_parameters();
    leaves.push(("x".to_owned(), leaf.clone()));
    for (name, parameter) in leaves {
        let gradient = values(&parameter.grad().unwrap_or_else(|| panic!("{name}")));
        let before = values(&parameter);
        // Some of the elements.
        for i in (0..before.len()).step_by(before.len().div_ceil(7)) {
            let at = |step: f64| {
                let mut moved = before.clone();
                moved[i] += step;
                let moved = Tensor::from_slice(&moved, parameter.shape()).unwrap();
                no_grad(|| parameter.assign(&moved)).unwrap();
                no_grad(|| loss(&leaf)).item::<f64>().unwrap()
            };
            let expected = (at(STEP) - at(-STEP)) / (2.0 * STEP);
            at(0.0);
            let off = (gradient[i] - expected).abs();
            assert!(
                off < 1e-6 * (1.0 + expected.abs()),
                "{name}, {i}: {}, {expected}",
                gradient[i]
            );
        }
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let x = randn(&[2, 3, 4], 1);
    let memory = randn(&[2, 5, 4], 2);
    let causal = masks().is_causal(true);
    let generator = Generator::new(42);
    let attention = MultiHeadAttention::with_dtype(4, 2, 0.2, DType::F64, &generator).unwrap();
    check_gradients(&attention, &x, &|x| {
        attention.attend(x, &memory, &memory, masks())
    });
    for norm_first in [false, true] {
        let layer = TransformerEncoderLayer::with_dtype(4, 2, 6, 0.2, DType::F64, &generator);
        let layer = layer
            .unwrap()
            .norm_first(norm_first)
            .activation(Activation::Gelu);
        check_gradients(&layer, &x, &|x| layer.encode(x, causal));
        let layer = TransformerDecoderLayer::with_dtype(4, 2, 6, 0.2, DType::F64, &generator);
        let layer = layer
            .unwrap()
            .norm_first(norm_first)
            .activation(Activation::Silu);
        check_gradients(&layer, &x, &|x| layer.decode(x, &memory, causal, masks()));
    }
}

/// By the layers apart, which take the same parameters, in eval.
#[test]
fn in_eval_a_layer_is_its_parts_without_dropout() {
    let (x, memory) = (randn(&[2, 3, 8], 1), randn(&[2, 5, 8], 2));
    let norm = |layer: &dyn Module, name: &str, x: &Tensor| {
        let find = |what: &str| {
            let name = format!("{name}.{what}");
            let all = layer.named_parameters();
            all.into_iter().find(|(own, _)| *own == name).unwrap().1
        };
        let y = x
            .standardize(&[-1], 1e-5)
            .unwrap()
            .mul(&find("weight"))
            .unwrap();
        y.add(&find("bias")).unwrap()
    };
    let network = |layer: &dyn Module, x: &Tensor| {
        let all = layer.named_parameters();
        let find = |name: &str| all.iter().find(|(own, _)| own == name).unwrap().1.clone();
        let linear = |name: &str, x: &Tensor| {
            let (weight, bias) = (
                find(&format!("{name}.weight")),
                find(&format!("{name}.bias")),
            );
            functional::linear(x, &weight, Some(&bias)).unwrap()
        };
        linear("linear2", &linear("linear1", x).relu().unwrap())
    };
    let generator = Generator::new(42);
    for norm_first in [false, true] {
        let layer = TransformerDecoderLayer::with_dtype(8, 2, 6, 0.5, DType::F64, &generator);
        let mut layer = layer.unwrap().norm_first(norm_first);
        // Norms that show.
        for (k, (name, parameter)) in layer.named_parameters().into_iter().enumerate() {
            if name.starts_with("norm") {
                no_grad(|| parameter.assign(&randn(parameter.shape(), k as u64))).unwrap();
            }
        }
        layer.eval();
        let own = attention_of(&layer, "self_attn.");
        let to_memory = attention_of(&layer, "multihead_attn.");
        let look_up = |x: &Tensor| to_memory.attend(x, &memory, &memory, masks()).unwrap();
        let expected = if norm_first {
            let y = x
                .add(&own.forward(&norm(&layer, "norm1", &x)).unwrap())
                .unwrap();
            let y = y.add(&look_up(&norm(&layer, "norm2", &y))).unwrap();
            y.add(&network(&layer, &norm(&layer, "norm3", &y))).unwrap()
        } else {
            let y = norm(&layer, "norm1", &x.add(&own.forward(&x).unwrap()).unwrap());
            let y = norm(&layer, "norm2", &y.add(&look_up(&y)).unwrap());
            norm(&layer, "norm3", &y.add(&network(&layer, &y)).unwrap())
        };
        let found = layer.decode(&x, &memory, masks(), masks()).unwrap();
        assert_near(&found, &expected, &format!("decoder, {norm_first}"));

        let layer = TransformerEncoderLayer::with_dtype(8, 2, 6, 0.5, DType::F64, &generator);
        let mut layer = layer.unwrap().norm_first(norm_first);
        let before = values(&layer.forward(&x).unwrap());
        layer.eval();
        let own = attention_of(&layer, "self_attn.");
        let expected = if norm_first {
            let y = x
                .add(&own.forward(&norm(&layer, "norm1", &x)).unwrap())
                .unwrap();
            y.add(&network(&layer, &norm(&layer, "norm2", &y))).unwrap()
        } else {
            let y = norm(&layer, "norm1", &x.add(&own.forward(&x).unwrap()).unwrap());
            norm(&layer, "norm2", &y.add(&network(&layer, &y)).unwrap())
        };
        let found = layer.forward(&x).unwrap();
        assert_near(&found, &expected, &format!("encoder, {norm_first}"));
        assert_ne!(values(&found), before);
        // Dropout at rate 0 is eval.
        layer.train();
        layer.set_drop_rate(DropRate::new(0.0).unwrap());
        assert_eq!(values(&layer.forward(&x).unwrap()), values(&found));
    }
}

/// An attention of the parameters that begin with `prefix`, without dropout.
fn attention_of(layer: &dyn Module, prefix: &str) -> MultiHeadAttention {
    let all = layer.named_parameters().into_iter();
    let own: Vec<Tensor> = all
        .filter(|(name, _)| name.starts_with(prefix))
        .map(|(_, x)| x)
        .collect();
    let [weight, bias, out, out_bias] = <[Tensor; 4]>::try_from(own).unwrap();
    let out = Linear::from_tensors(out, Some(out_bias)).unwrap();
    MultiHeadAttention::from_tensors(weight, Some(bias), out, 2, Dropout::new(0.0).unwrap())
        .unwrap()
}

#[test]
fn a_seed_names_the_run_in_every_dtype() {
    for dtype in DTYPES {
        let run = |seed: u64| {
            let layer =
                TransformerEncoderLayer::with_dtype(8, 2, 16, 0.2, dtype, &Generator::new(seed));
            let layer = layer.unwrap().norm_first(seed.is_multiple_of(2));
            let x = randn(&[2, 5, 8], 1)
                .to_dtype(dtype)
                .unwrap()
                .requires_grad(true);
            let y = layer.forward(&x).unwrap();
            assert_eq!((y.shape(), y.dtype()), (&[2, 5, 8][..], dtype));
            y.sum().unwrap().backward().unwrap();
            (values(&y), values(&x.grad().unwrap()))
        };
        let [first, second] = [1, 2].map(run);
        assert!(first.0.iter().chain(&second.1).all(|x| x.is_finite()));
        assert_eq!(run(1), first);
        assert_ne!(second, first);
    }
}

/// `python/tests/test_transformer.py` has the same numbers: a seed is the same layer there.
#[test]
fn a_seed_is_the_same_layer_behind_every_door() {
    let near = |found: Tensor, expected: [f64; 3]| {
        let found = values(&found);
        let found = [found[0], found[5], found[23]];
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 1e-9, "{found:?}, {expected:?}");
        }
    };
    let (x, memory) = (randn(&[2, 3, 4], 1), randn(&[2, 5, 4], 2));
    let causal = masks().is_causal(true);

    let generator = Generator::new(42);
    let layer = MultiHeadAttention::with_dtype(4, 2, 0.5, DType::F64, &generator).unwrap();
    assert_eq!(generator.state().offset, 3);
    near(
        layer.forward(&x).unwrap(),
        [-0.437399838006, 0.363277423604, 0.139309355821],
    );

    for (norm_first, encoded, decoded) in [
        (
            false,
            [-1.68166303395, -0.0907998929569, -0.627801693034],
            [-1.41247518435, -0.120759752455, -0.258971311423],
        ),
        (
            true,
            [-4.01211057088, -0.205980230545, -0.443643064368],
            [-3.15112429764, -0.205980230545, 0.51636305351],
        ),
    ] {
        let generator = Generator::new(42);
        let layer = TransformerEncoderLayer::with_dtype(4, 2, 8, 0.5, DType::F64, &generator);
        let layer = layer.unwrap().norm_first(norm_first);
        let layer = layer.activation(Activation::Gelu);
        assert_eq!(generator.state().offset, 7);
        near(layer.encode(&x, causal).unwrap(), encoded);

        let generator = Generator::new(42);
        let layer = TransformerDecoderLayer::with_dtype(4, 2, 8, 0.5, DType::F64, &generator);
        let layer = layer.unwrap().norm_first(norm_first);
        let layer = layer.activation(Activation::Silu);
        assert_eq!(generator.state().offset, 10);
        near(layer.decode(&x, &memory, causal, masks()).unwrap(), decoded);
    }
}
