//! Checkpoints: a run that is resumed equals one that was not interrupted, files are written whole or
//! not at all, and what does not fit is refused before anything changes.
#![cfg(feature = "safetensors")]

use std::fs;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};

use sorix_core::autograd::no_grad;
use sorix_core::{DType, Tensor, tensor};
use sorix_nn::loss::mse_loss;
use sorix_nn::visit::Visit;
use sorix_nn::{
    Adam, AdamW, Checkpoint, CheckpointError, Dropout, Embedding, Error, Generator, LayerNorm,
    Linear, Module, Optimizer, ReLU, Reduction, Result, Sequential, Sgd, default_generator,
    manual_seed,
};

fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().to_vec().unwrap()
}

/// Everything an optimiser may change, as numbers.
fn weights(net: &dyn Module) -> Vec<(String, Vec<f64>)> {
    let named = net.named_parameters().into_iter();
    named.map(|(name, w)| (name, values(&w))).collect()
}

/// Dropouts with generators of their own, or with that of the process.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Keys {
    Own,
    Process,
}

fn network(seed: u64, keys: Keys) -> Sequential {
    let generator = Generator::new(seed);
    let dropout = |name| match keys {
        Keys::Own => Dropout::new(0.3).unwrap().generator(generator.fork(name)),
        Keys::Process => Dropout::new(0.3).unwrap(),
    };
    let hidden = Sequential::new()
        .with(Linear::new(6, 16, &generator).unwrap())
        .with(LayerNorm::new([16]).unwrap())
        .with(ReLU)
        .with(dropout("a"));
    Sequential::new()
        .with(Embedding::new(10, 6, &generator).unwrap())
        .with(hidden)
        .with(dropout("b"))
        .with(Linear::new(16, 3, &generator).unwrap())
}

type Make = fn(&Sequential) -> Result<Box<dyn Optimizer>>;

const OPTIMIZERS: [(&str, Make); 5] = [
    ("sgd", |net| {
        Ok(Box::new(Sgd::new(net.named_parameters(), 0.1)?))
    }),
    ("sgd with momentum", |net| {
        Ok(Box::new(
            Sgd::new(net.named_parameters(), 0.1)?.momentum(0.9)?,
        ))
    }),
    ("sgd with nesterov's momentum", |net| {
        Ok(Box::new(
            Sgd::new(net.named_parameters(), 0.1)?.nesterov_momentum(0.9)?,
        ))
    }),
    ("adam", |net| {
        Ok(Box::new(Adam::new(net.named_parameters(), 0.01)?))
    }),
    ("adamw", |net| {
        Ok(Box::new(AdamW::new(net.named_parameters(), 0.01)?))
    }),
];

/// Steps number `from` to `to` of a run; the learning rate falls at step 3.
fn train(net: &Sequential, optimizer: &mut dyn Optimizer, from: u64, to: u64) {
    for step in from..to {
        let batch = Generator::new(step).fork("batch").next_key();
        let x = Tensor::uniform([8], 0.0, 10.0, DType::F64, batch).unwrap();
        let rows: Vec<f64> = values(&x).iter().map(|x| x.floor()).collect();
        let class = |row: f64| [0, 1, 2].map(|k| if row as usize % 3 == k { 1.0 } else { 0.0 });
        let one_hot: Vec<f32> = rows.iter().flat_map(|&row| class(row)).collect();
        let one_hot = Tensor::from_slice(&one_hot, [8, 3]).unwrap();
        let x = Tensor::from_slice(&rows, [8]).unwrap();
        if step == 3 {
            optimizer
                .set_learning_rate(optimizer.learning_rate() / 2.0)
                .unwrap();
        }
        optimizer.zero_grad();
        let y = net.forward(&x).unwrap();
        mse_loss(&y, &one_hot, Reduction::Mean)
            .unwrap()
            .backward()
            .unwrap();
        optimizer.step().unwrap();
    }
}

fn checkpoint<'a>(net: &Sequential, optimizer: &'a mut dyn Optimizer) -> Checkpoint<'a> {
    Checkpoint::new()
        .parameters("model", net)
        .generators("dropout", net)
        .generator("process", default_generator().unwrap())
        .optimizer("optimizer", optimizer)
}

/// The generator of the process is one for all tests.
static PROCESS: Mutex<()> = Mutex::new(());

#[test]
fn a_resumed_run_is_equal_bit_for_bit() {
    let _process = PROCESS.lock();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run.safetensors");
    for keys in [Keys::Own, Keys::Process] {
        for (name, make) in OPTIMIZERS {
            manual_seed(11);
            let net = network(1, keys);
            let mut optimizer = make(&net).unwrap();
            train(&net, &mut *optimizer, 0, 5);
            checkpoint(&net, &mut *optimizer).save(&path).unwrap();
            let saved = weights(&net);
            train(&net, &mut *optimizer, 5, 10);

            // Other weights, other keys, no steps.
            manual_seed(99);
            let resumed = network(2, keys);
            let mut optimizer = make(&resumed).unwrap();
            train(&resumed, &mut *optimizer, 7, 8);
            checkpoint(&resumed, &mut *optimizer).load(&path).unwrap();
            assert_eq!(weights(&resumed), saved, "{name} {keys:?}");
            train(&resumed, &mut *optimizer, 5, 10);
            assert_eq!(weights(&resumed), weights(&net), "{name} {keys:?}");
            assert_ne!(weights(&resumed), saved);
        }
    }
}

/// Without one of its parts a checkpoint does not repeat the run: each of them is needed, and the
/// test above would see it.
#[test]
fn each_part_matters() {
    let run = |without: &str| {
        let net = network(1, Keys::Own);
        let mut adam = Adam::new(net.named_parameters(), 0.01).unwrap();
        train(&net, &mut adam, 0, 5);
        let bytes = Checkpoint::new()
            .parameters("model", &net)
            .generators("dropout", &net)
            .optimizer("optimizer", &mut adam)
            .to_bytes()
            .unwrap();
        let resumed = network(2, Keys::Own);
        let mut adam = Adam::new(resumed.named_parameters(), 0.01).unwrap();
        let mut parts = Checkpoint::new();
        if without != "model" {
            parts = parts.parameters("model", &resumed);
        }
        if without != "dropout" {
            parts = parts.generators("dropout", &resumed);
        }
        if without != "optimizer" {
            parts = parts.optimizer("optimizer", &mut adam);
        }
        parts.load_bytes(&bytes).unwrap();
        train(&resumed, &mut adam, 5, 8);
        weights(&resumed)
    };
    let whole = run("");
    for part in ["model", "dropout", "optimizer"] {
        assert_ne!(run(part), whole, "{part}");
    }
}

#[test]
fn every_dtype_and_every_value_comes_back() {
    for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
        let special = [0.0, -0.0, 1e-7, f64::INFINITY, f64::NEG_INFINITY, 0.1];
        let table = |values: &[f64]| {
            let tensor = Tensor::from_slice(values, [3, 2]).unwrap();
            Embedding::from_tensor(tensor.to_dtype(dtype).unwrap()).unwrap()
        };
        let (from, to) = (table(&special), table(&[0.0; 6]));
        let bytes = Checkpoint::new().parameters("", &from).to_bytes().unwrap();
        Checkpoint::new()
            .parameters("", &to)
            .load_bytes(&bytes)
            .unwrap();
        assert_eq!(
            to.weight().to_le_bytes(),
            from.weight().to_le_bytes(),
            "{dtype}"
        );
    }
}

/// What Adam keeps for these parameters is in f32.
#[test]
fn a_resumed_run_in_half_precision_is_equal_bit_for_bit() {
    for dtype in [DType::F16, DType::BF16] {
        let begin = |seed| {
            let linear = Linear::with_dtype(4, 3, dtype, &Generator::new(seed)).unwrap();
            let net = Sequential::new().with(linear);
            let adam = Adam::new(net.named_parameters(), 0.01).unwrap();
            (net, adam)
        };
        let three_steps = |net: &Sequential, adam: &mut Adam| {
            let x = Tensor::ones([2, 4], dtype).unwrap();
            let target = Tensor::ones([2, 3], dtype).unwrap();
            for _ in 0..3 {
                adam.zero_grad();
                let y = net.forward(&x).unwrap();
                let loss = mse_loss(&y, &target, Reduction::Mean).unwrap();
                loss.backward().unwrap();
                adam.step().unwrap();
            }
            parts(net, adam).to_bytes().unwrap()
        };
        let (net, mut adam) = begin(1);
        let saved = three_steps(&net, &mut adam);
        let uninterrupted = three_steps(&net, &mut adam);

        let (net, mut adam) = begin(2);
        parts(&net, &mut adam).load_bytes(&saved).unwrap();
        assert_eq!(three_steps(&net, &mut adam), uninterrupted, "{dtype}");
        assert_ne!(saved, uninterrupted);
    }
}

#[test]
fn layers_without_elements_are_saved_and_loaded() {
    for (inputs, outputs) in [(0, 3), (3, 0), (0, 0)] {
        let linear = |seed| Linear::new(inputs, outputs, &Generator::new(seed)).unwrap();
        let (from, to) = (linear(1), linear(2));
        let bytes = Checkpoint::new().parameters("", &from).to_bytes().unwrap();
        Checkpoint::new()
            .parameters("", &to)
            .load_bytes(&bytes)
            .unwrap();
        assert_eq!(weights(&to), weights(&from), "{inputs} to {outputs}");
    }
}

#[test]
fn parameters_that_cannot_be_written_to_are_refused() {
    let net = Sequential::new().with(Linear::new(2, 3, &Generator::new(1)).unwrap());
    let bytes = Checkpoint::new().parameters("", &net).to_bytes().unwrap();
    let bias = Tensor::zeros([1], DType::F32).unwrap().expand([3]).unwrap();
    let weight = net.parameters()[0].clone();
    let expanded = Sequential::new().with(Linear::from_tensors(weight, Some(bias)).unwrap());
    let before = weights(&expanded);
    let error = Checkpoint::new()
        .parameters("", &expanded)
        .load_bytes(&bytes)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "checkpoint(float32[3]): an expanded tensor (strides [0]) cannot be written: its elements \
         share memory"
    );
    assert_eq!(weights(&expanded), before);
}

#[test]
fn other_programs_can_read_and_write_parameters() {
    let net = Sequential::new().with(Linear::new(2, 3, &Generator::new(1)).unwrap());
    let bytes = Checkpoint::new().parameters("", &net).to_bytes().unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let weight = file.tensor("0.weight").unwrap();
    assert_eq!(
        (weight.dtype(), weight.shape()),
        (safetensors::Dtype::F32, &[3, 2][..])
    );
    assert_eq!(weight.data(), net.parameters()[0].to_le_bytes().unwrap());

    let data: Vec<u8> = [1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let weight =
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![3, 2], &data).unwrap();
    let bias = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![3], &data[..12])
        .unwrap();
    let theirs = safetensors::serialize([("0.weight", &weight), ("0.bias", &bias)], None).unwrap();
    Checkpoint::new()
        .parameters("", &net)
        .load_bytes(&theirs)
        .unwrap();
    assert_eq!(values(&net.parameters()[0]), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
}

/// A trained network, its file, and another network with the same layers.
fn saved() -> (Vec<u8>, Sequential, Adam) {
    let net = network(1, Keys::Own);
    let mut adam = Adam::new(net.named_parameters(), 0.01).unwrap();
    train(&net, &mut adam, 0, 2);
    let bytes = parts(&net, &mut adam).to_bytes().unwrap();
    let other = network(2, Keys::Own);
    let adam = Adam::new(other.named_parameters(), 0.5).unwrap();
    (bytes, other, adam)
}

fn parts<'a>(net: &Sequential, optimizer: &'a mut dyn Optimizer) -> Checkpoint<'a> {
    Checkpoint::new()
        .parameters("model", net)
        .generators("dropout", net)
        .optimizer("optimizer", optimizer)
}

/// The message of a load that fails and that changes nothing.
fn refused(bytes: &[u8]) -> String {
    let (_, net, mut adam) = saved();
    let before = (weights(&net), generators(&net));
    let error = parts(&net, &mut adam).load_bytes(bytes).unwrap_err();
    assert_eq!((weights(&net), generators(&net)), before);
    assert_eq!(
        (adam.learning_rate(), adam.state().parameters.len()),
        (0.5, 0)
    );
    error.to_string()
}

fn generators(net: &Sequential) -> Vec<sorix_nn::GeneratorState> {
    net.named_generators()
        .iter()
        .map(|(_, g)| g.state())
        .collect()
}

/// The file with its header changed as text, and its length set right.
fn with_header(bytes: &[u8], change: impl Fn(&str) -> String) -> Vec<u8> {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = change(std::str::from_utf8(&bytes[8..8 + length]).unwrap());
    let mut changed = (header.len() as u64).to_le_bytes().to_vec();
    changed.extend_from_slice(header.as_bytes());
    changed.extend_from_slice(&bytes[8 + length..]);
    changed
}

/// The file as a program would write it that knows no checksums.
fn without_checksums(bytes: &[u8]) -> Vec<u8> {
    with_header(bytes, |header| {
        header.replace("sorix_checksums", "sorix_checksumz")
    })
}

#[test]
fn what_does_not_fit_is_named_and_nothing_changes() {
    let (bytes, ..) = saved();
    let cases = [
        (
            "\"model.0.weight\"",
            "\"model.0.width\"",
            "checkpoint: there is no \"model.0.weight\"",
        ),
        (
            "\"model.0.weight\"",
            "\"0.weight\"",
            "checkpoint: there is no \"model.0.weight\"",
        ),
        (
            "\"model.3.weight\":{\"dtype\":\"F32\",\"shape\":[3,16]",
            "\"model.3.weight\":{\"dtype\":\"F32\",\"shape\":[16,3]",
            "checkpoint: expected \"model.3.weight\" to be F32 of shape [3, 16], got F32 of shape [16, 3]",
        ),
        (
            "\"model.3.bias\":{\"dtype\":\"F32\"",
            "\"model.3.bias\":{\"dtype\":\"I32\"",
            "checkpoint: expected \"model.3.bias\" to be F32 of shape [3], got I32 of shape [3]",
        ),
        (
            "\"dropout.2.generator\":{\"dtype\":\"U64\"",
            "\"dropout.2.generator\":{\"dtype\":\"F64\"",
            "checkpoint: expected \"dropout.2.generator\" to be U64 of shape [2], got F64 of shape [2]",
        ),
        (
            "\"optimizer.0.weight.steps\"",
            "\"0.steps\"",
            "checkpoint: there is no \"optimizer.0.weight.steps\"",
        ),
        (
            "\"optimizer.3.bias.exp_avg\"",
            "\"exp_avg\"",
            "checkpoint: there is no \"optimizer.3.bias.exp_avg\"",
        ),
        (
            "\"optimizer.learning_rate\"",
            "\"rate\"",
            "checkpoint: there is no \"optimizer.learning_rate\"",
        ),
        (
            "\"optimizer.0.weight.exp_avg\"",
            "\"optimizer.0.weight.momentum\"",
            "checkpoint: there is no \"optimizer.0.weight.exp_avg\"",
        ),
        (
            "\"optimizer.weight_decay\"",
            "\"optimizer.decoupled_weight_decay\"",
            "checkpoint: there is no \"optimizer.weight_decay\"",
        ),
        (
            "\"sorix_checkpoint\":\"1\"",
            "\"sorix_checkpoint\":\"2\"",
            "checkpoint: expected version 1, got \"2\"",
        ),
    ];
    for (from, to, message) in cases {
        let changed = with_header(&bytes, |header| {
            assert!(header.contains(from), "{from} in {header}");
            header.replacen(from, to, 1)
        });
        assert_eq!(refused(&changed), message);
    }
}

/// The message of a load that fails.
fn load_error(mut checkpoint: Checkpoint<'_>, bytes: &[u8]) -> String {
    checkpoint.load_bytes(bytes).unwrap_err().to_string()
}

#[test]
fn what_nobody_asked_for_in_a_section_is_refused() {
    let linear = Linear::new(2, 3, &Generator::new(1)).unwrap();
    let bytes = Checkpoint::new()
        .parameters("", &linear)
        .to_bytes()
        .unwrap();
    no_grad(|| {
        linear
            .weight()
            .assign(&Tensor::ones([3, 2], DType::F32).unwrap())
    })
    .unwrap();
    let without = linear.clone().without_bias();
    assert_eq!(
        load_error(Checkpoint::new().parameters("", &without), &bytes),
        "checkpoint: \"bias\" is not expected"
    );
    assert_eq!(values(linear.weight()), [1.0; 6]);
}

#[test]
fn a_counter_comes_back_or_stays() {
    let generator = Generator::new(1);
    let mut step = u64::MAX;
    let bytes = Checkpoint::new()
        .counter("step", &mut step)
        .generator("data", &generator)
        .to_bytes()
        .unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let entry = file.tensor("step.counter").unwrap();
    assert_eq!(
        (entry.dtype(), entry.shape(), entry.data()),
        (safetensors::Dtype::U64, &[1][..], &[255; 8][..])
    );
    step = 7;
    let other = Checkpoint::new()
        .counter("step", &mut step)
        .generator("shuffle", &generator);
    assert_eq!(
        load_error(other, &bytes),
        "checkpoint: there is no \"shuffle.generator\""
    );
    assert_eq!(step, 7);
    Checkpoint::new()
        .counter("step", &mut step)
        .load_bytes(&bytes)
        .unwrap();
    assert_eq!(step, u64::MAX);
}

/// Leaves of one element.
fn leaves<const N: usize>(names: [&str; N]) -> Vec<(String, Tensor)> {
    let leaf = || tensor([1.0]).requires_grad(true);
    names.map(|name| (name.to_owned(), leaf())).into()
}

fn step(optimizer: &mut dyn Optimizer, names: &[&str]) {
    for (name, w) in optimizer.named_parameters() {
        w.zero_grad();
        if names.contains(&&*name) {
            w.sum().unwrap().backward().unwrap();
        }
    }
    optimizer.step().unwrap();
}

#[test]
fn lost_entries_of_a_parameter_are_missed() {
    let mut one = Adam::new(leaves(["a"]), 0.1).unwrap();
    step(&mut one, &["a"]);
    let bytes = Checkpoint::new()
        .optimizer("o", &mut one)
        .to_bytes()
        .unwrap();
    let mut two = Adam::new(leaves(["a", "b"]), 0.1).unwrap();
    step(&mut two, &["a", "b"]);
    assert_eq!(
        load_error(Checkpoint::new().optimizer("o", &mut two), &bytes),
        "checkpoint: there is no \"o.b.steps\""
    );
    assert_eq!(two.state().parameters.len(), 2);
}

#[test]
fn a_parameter_that_was_never_changed_comes_back_as_that() {
    let mut adam = Adam::new(leaves(["a", "b"]), 0.1).unwrap();
    step(&mut adam, &["a"]);
    let bytes = Checkpoint::new()
        .optimizer("o", &mut adam)
        .to_bytes()
        .unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("o.b.steps").unwrap().data(), [0; 8]);
    assert!(file.tensor("o.b.exp_avg").is_err());

    step(&mut adam, &["b"]);
    Checkpoint::new()
        .optimizer("o", &mut adam)
        .load_bytes(&bytes)
        .unwrap();
    let parameters = adam.state().parameters;
    assert_eq!(parameters.len(), 1);
    assert_eq!((&*parameters[0].name, parameters[0].steps), ("a", 1));
}

#[test]
fn what_is_kept_of_no_steps_is_not_expected() {
    let mut adam = Adam::new(leaves(["a"]), 0.1).unwrap();
    step(&mut adam, &["a"]);
    let bytes = Checkpoint::new().optimizer("o", &mut adam).to_bytes();
    let mut bytes = without_checksums(&bytes.unwrap());
    // The one U64 of the file is the number of steps.
    let at = bytes
        .windows(8)
        .rposition(|window| window == 1_u64.to_le_bytes())
        .unwrap();
    bytes[at] = 0;
    assert_eq!(
        load_error(Checkpoint::new().optimizer("o", &mut adam), &bytes),
        "checkpoint: \"o.a.exp_avg\" is not expected"
    );
    assert_eq!(adam.state().parameters[0].steps, 1);
}

#[test]
fn hyperparameters_are_those_of_the_file() {
    type Make = fn(Vec<(String, Tensor)>) -> Box<dyn Optimizer>;
    let parameters = || leaves(["w"]);
    let make: [Make; 5] = [
        |w| Box::new(Sgd::new(w, 0.1).unwrap()),
        |w| {
            let sgd = Sgd::new(w, 0.2).unwrap().nesterov_momentum(0.9).unwrap();
            Box::new(sgd.weight_decay(0.3).unwrap())
        },
        |w| {
            let adam = Adam::new(w, 0.1).unwrap().betas(0.5, 0.25).unwrap();
            Box::new(adam.eps(0.125).unwrap().weight_decay(0.5).unwrap())
        },
        |w| Box::new(Adam::new(w, 0.3).unwrap()),
        |w| Box::new(AdamW::new(w, 0.1).unwrap()),
    ];
    for (i, from) in make.iter().enumerate() {
        let mut saved = from(parameters());
        step(&mut *saved, &["w"]);
        let bytes = Checkpoint::new()
            .optimizer("o", &mut *saved)
            .to_bytes()
            .unwrap();
        for (j, to) in make.iter().enumerate() {
            let mut other = to(parameters());
            let before = other.state().hyperparameters;
            let loaded = Checkpoint::new()
                .optimizer("o", &mut *other)
                .load_bytes(&bytes);
            let kinds = [i, j].map(|k| [0, 0, 1, 1, 2][k]);
            if kinds[0] == kinds[1] {
                loaded.unwrap();
                assert_eq!(other.state().hyperparameters, saved.state().hyperparameters);
                let tensors = |optimizer: &dyn Optimizer| -> Vec<(String, Vec<f64>)> {
                    let kept = optimizer.state().parameters[0].tensors.clone();
                    kept.iter()
                        .map(|(name, x)| (name.clone(), values(x)))
                        .collect()
                };
                assert_eq!(tensors(&*other), tensors(&*saved));
            } else {
                assert!(matches!(
                    loaded,
                    Err(Error::Checkpoint(CheckpointError::Missing { .. }))
                ));
                assert_eq!(other.state().hyperparameters, before);
                assert!(other.state().parameters.is_empty());
            }
        }
    }
}

/// Nothing was kept of the step without momentum.
#[test]
fn momentum_that_begins_after_steps_is_saved_and_loaded() {
    let mut sgd = Sgd::new(leaves(["w"]), 0.1).unwrap();
    step(&mut sgd, &["w"]);
    let mut sgd = sgd.momentum(0.9).unwrap();
    let bytes = Checkpoint::new()
        .optimizer("o", &mut sgd)
        .to_bytes()
        .unwrap();
    Checkpoint::new()
        .optimizer("o", &mut sgd)
        .load_bytes(&bytes)
        .unwrap();
    let kept = sgd.state().parameters.remove(0).tensors;
    assert_eq!(kept[0].0, "momentum_buffer");
    assert_eq!(values(&kept[0].1), [0.0]);
}

/// Of two members of one name, one reader takes the first and another the last.
#[test]
fn a_header_that_says_something_twice_is_refused() {
    const W: &str = r#""w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
    let w = tensor([1.0_f32, 2.0]).requires_grad(true);
    let data: Vec<u8> = [7.0_f32, 8.0]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let load = |header: &str| {
        let size = (header.len() as u64).to_le_bytes();
        let file = [&size[..], header.as_bytes(), &data].concat();
        let named = Named(vec![("w", w.clone())]);
        let loaded = Checkpoint::new().parameters("", &named).load_bytes(&file);
        loaded.map_err(|error| error.to_string())
    };
    let cases = [
        (
            format!(r#"{{"w":{{"dtype":"F64","shape":[1],"data_offsets":[0,8]}},{W}}}"#),
            "w",
        ),
        (format!(r#"{{{W},"\u0077":{{}}}}"#), "w"),
        (
            format!(r#"{{"__metadata__":{{"sorix_checkpoint":"1"}},"__metadata__":{{}},{W}}}"#),
            "__metadata__",
        ),
        (
            format!(r#"{{"__metadata__":{{"sorix_checkpoint":"2","sorix_checkpoint":"1"}},{W}}}"#),
            "sorix_checkpoint",
        ),
    ];
    for (header, name) in cases {
        let error = load(&header).unwrap_err();
        let expected = format!("checkpoint: not a safetensors file: there are two of {name:?}");
        assert!(error.starts_with(&expected), "{error}");
        assert_eq!(values(&w), [1.0, 2.0]);
    }
    load(&format!(r#"{{"__metadata__":null,{W}}}"#)).unwrap();
    assert_eq!(values(&w), [7.0, 8.0]);
}

#[test]
fn two_parameters_of_one_name_cannot_be_loaded() {
    let one = Named(vec![("w", tensor([9.0]))]);
    let bytes = Checkpoint::new().parameters("", &one).to_bytes().unwrap();
    let (a, b) = (tensor([1.0]), tensor([2.0]));
    let two = Named(vec![("w", a.clone()), ("w", b.clone())]);
    assert_eq!(
        load_error(Checkpoint::new().parameters("", &two), &bytes),
        "checkpoint: there are two of \"w\""
    );
    assert_eq!((values(&a), values(&b)), (vec![1.0], vec![2.0]));
}

#[test]
fn a_parameter_of_the_name_of_the_metadata_is_refused() {
    let named = Named(vec![("__metadata__", tensor([1.0]))]);
    let error = Checkpoint::new()
        .parameters("", &named)
        .to_bytes()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "checkpoint: the format keeps the name \"__metadata__\" for itself"
    );
    let mut sectioned = Checkpoint::new().parameters("model", &named);
    let bytes = sectioned.to_bytes().unwrap();
    sectioned.load_bytes(&bytes).unwrap();
}

#[test]
fn a_learning_rate_that_is_none_is_refused() {
    let (bytes, ..) = saved();
    let bytes = without_checksums(&bytes);
    let rate = 0.01_f64.to_le_bytes();
    let at = bytes.windows(8).position(|window| window == rate).unwrap();
    let mut changed = bytes.clone();
    changed[at..at + 8].copy_from_slice(&f64::NAN.to_le_bytes());
    assert_eq!(
        refused(&changed),
        "Adam: learning rate: expected a finite number, at least 0, got NaN"
    );
}

/// Files that are cut off, that promise more than there is, or that are something else.
#[test]
fn broken_files_are_errors() {
    let (bytes, ..) = saved();
    for length in (0..bytes.len()).step_by(97) {
        refused(&bytes[..length]);
    }
    let mut longer = bytes.clone();
    longer.push(0);
    refused(&longer);
    let huge = [u64::MAX.to_le_bytes().as_slice(), b"{}"].concat();
    assert!(refused(&huge).contains("header"));
    let large = [99_999_999_u64.to_le_bytes().as_slice(), b"{}"].concat();
    refused(&large);
    for text in [
        "",
        "{",
        "[]",
        "null",
        "{\"a\":1}",
        "{\"__metadata__\":7}",
        "\u{1F600}",
    ] {
        refused(&with_header(
            &8_u64
                .to_le_bytes()
                .iter()
                .chain(b"        ")
                .copied()
                .collect::<Vec<u8>>(),
            |_| text.to_owned(),
        ));
    }
    // 2^63 elements, with offsets that say so.
    for shape in [
        "[9223372036854775808]",
        "[18446744073709551615,18446744073709551615]",
        "[4294967296,4294967296]",
    ] {
        let header = format!(
            "{{\"model.0.weight\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":[0,18446744073709551615]}}}}"
        );
        refused(&[&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat());
    }
    // Every byte of the header, changed.
    let length = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (_, net, mut adam) = saved();
    for at in (0..length).step_by(13) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x55;
        let _ = parts(&net, &mut adam).load_bytes(&changed);
    }
}

#[test]
fn optimizers_are_all_set_or_none() {
    let (net, other) = (network(1, Keys::Own), network(2, Keys::Own));
    let adam = |net: &Sequential| Adam::new(net.named_parameters(), 0.01).unwrap();
    let (mut first, mut second) = (adam(&net), adam(&other));
    second.set_learning_rate(0.02).unwrap();
    let bytes = Checkpoint::new()
        .optimizer("a", &mut first)
        .optimizer("b", &mut second)
        .to_bytes()
        .unwrap();
    let at = bytes
        .windows(8)
        .position(|window| window == 0.02_f64.to_le_bytes())
        .unwrap();
    let mut changed = bytes.clone();
    changed[at..at + 8].copy_from_slice(&(-1.0_f64).to_le_bytes());
    let (mut first, mut second) = (adam(&net), adam(&other));
    first.set_learning_rate(0.7).unwrap();
    let mut both = Checkpoint::new()
        .optimizer("a", &mut first)
        .optimizer("b", &mut second);
    both.load_bytes(&changed).unwrap_err();
    assert_eq!((first.learning_rate(), second.learning_rate()), (0.7, 0.01));
    let mut both = Checkpoint::new()
        .optimizer("a", &mut first)
        .optimizer("b", &mut second);
    both.load_bytes(&bytes).unwrap();
    assert_eq!(
        (first.learning_rate(), second.learning_rate()),
        (0.01, 0.02)
    );
}

#[test]
fn sections_that_could_be_confused_are_refused() {
    let net = network(1, Keys::Own);
    let cases = [["a", "a"], ["", "a"], ["a", "a.b"], ["a", ""]];
    for [first, second] in cases {
        let mut both = Checkpoint::new()
            .parameters(first, &net)
            .generators(second, &net);
        for result in [both.to_bytes().map(drop), both.load_bytes(&[])] {
            assert!(
                matches!(
                    result,
                    Err(Error::Checkpoint(CheckpointError::Section { .. }))
                ),
                "{first:?} {second:?}"
            );
        }
    }
    let empty = Checkpoint::new().to_bytes().unwrap();
    Checkpoint::new().load_bytes(&empty).unwrap();
}

#[test]
fn a_file_is_replaced_whole_or_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("net.safetensors");
    fs::write(&path, "what was there").unwrap();
    let net = network(1, Keys::Own);
    let names = |directory: &std::path::Path| fs::read_dir(directory).unwrap().count();

    // Two entries of one name cannot be saved.
    let w = net.parameters()[0].clone();
    let mut twice = Checkpoint::new().parameters("a", &Named(vec![("w", w.clone()), ("w", w)]));
    assert_eq!(
        twice.save(&path).unwrap_err().to_string(),
        "checkpoint: there are two of \"a.w\""
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "what was there");
    assert_eq!(names(directory.path()), 1);
    assert!(
        twice
            .load(&path)
            .unwrap_err()
            .to_string()
            .contains("checkpoint")
    );

    Checkpoint::new().parameters("", &net).save(&path).unwrap();
    assert_eq!(names(directory.path()), 1, "no temporary file stays");
    Checkpoint::new()
        .parameters("", &network(2, Keys::Own))
        .load(&path)
        .unwrap();
}

/// Under another name the old file is as it was.
#[test]
fn a_file_that_is_replaced_is_not_written_to() {
    let directory = tempfile::tempdir().unwrap();
    let [path, other] = ["net", "other"].map(|name| directory.path().join(name));
    fs::write(&path, "what was there").unwrap();
    fs::hard_link(&path, &other).unwrap();
    let net = network(1, Keys::Own);
    Checkpoint::new().parameters("", &net).save(&path).unwrap();
    assert_eq!(fs::read_to_string(&other).unwrap(), "what was there");
}

#[test]
fn errors_of_the_file_system_name_the_path_and_say_what_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let linear = Linear::new(2, 3, &Generator::new(1)).unwrap();
    let mut checkpoint = Checkpoint::new().parameters("", &linear);
    for (path, expected) in [
        (
            directory.path().join("no").join("such"),
            ErrorKind::NotFound,
        ),
        #[cfg(unix)]
        (file.join("within"), ErrorKind::NotADirectory),
    ] {
        for error in [checkpoint.save(&path), checkpoint.load(&path)].map(Result::unwrap_err) {
            let named = format!("checkpoint: {path:?}: ");
            assert!(error.to_string().starts_with(&named), "{error}");
            let Error::Checkpoint(CheckpointError::Io {
                path: got, kind, ..
            }) = error
            else {
                panic!("{error:?}");
            };
            assert_eq!((got, kind), (path.clone(), expected));
        }
    }
}

#[test]
fn a_file_that_ends_in_its_header_says_its_length() {
    let linear = Linear::new(2, 3, &Generator::new(1)).unwrap();
    let cases: [(&[u8], &str); 4] = [
        (
            b"",
            "it has 0 bytes, and begins with 8 for the size of its header",
        ),
        (
            b"abc",
            "it has 3 bytes, and begins with 8 for the size of its header",
        ),
        (
            b"\x02\0\0\0\0\0\0\0",
            "it has 8 bytes, and the header alone takes 10",
        ),
        (
            b"\x02\0\0\0\0\0\0\0{",
            "it has 9 bytes, and the header alone takes 10",
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(
            load_error(Checkpoint::new().parameters("", &linear), bytes),
            format!("checkpoint: not a safetensors file: {expected}")
        );
    }
}

#[cfg(unix)]
#[test]
fn a_file_leaves_its_permissions_to_the_one_that_replaces_it() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("net");
    let linear = Linear::new(2, 3, &Generator::new(1)).unwrap();
    let save = || {
        Checkpoint::new()
            .parameters("", &linear)
            .save(&path)
            .unwrap();
        fs::metadata(&path).unwrap().permissions().mode() & 0o777
    };
    // A new one has those of any new file.
    let any = directory.path().join("any");
    fs::write(&any, "").unwrap();
    assert_eq!(
        save(),
        fs::metadata(&any).unwrap().permissions().mode() & 0o777
    );
    // Also those that a umask would take.
    for mode in [0o600, 0o400, 0o666] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(save(), mode, "{mode:o}");
    }
}

#[cfg(unix)]
#[test]
fn a_link_stays_and_what_it_leads_to_is_replaced() {
    use std::os::unix::fs::symlink;

    let directory = tempfile::tempdir().unwrap();
    let within = |name: &str| directory.path().join(name);
    fs::create_dir(within("runs")).unwrap();
    fs::write(within("runs/old"), "what was there").unwrap();
    symlink("runs/old", within("link")).unwrap();
    symlink("link", within("second")).unwrap();
    symlink(within("runs/new"), within("nowhere")).unwrap();
    symlink("circle", within("circle")).unwrap();
    let linear = Linear::new(2, 3, &Generator::new(1)).unwrap();
    let mut checkpoint = Checkpoint::new().parameters("", &linear);
    for (link, target) in [("second", "runs/old"), ("nowhere", "runs/new")] {
        checkpoint.save(within(link)).unwrap();
        assert!(within(link).is_symlink());
        assert!(!within(target).is_symlink());
        checkpoint.load(within(target)).unwrap();
    }
    checkpoint.save(within("circle")).unwrap_err();
    assert!(within("link").is_symlink() && within("circle").is_symlink());
}

/// Tensors under these names.
#[derive(Debug)]
struct Named(Vec<(&'static str, Tensor)>);

impl Module for Named {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.clone())
    }
}

impl Visit for Named {
    fn visit_own_parameters(&self, visit: &mut dyn FnMut(&str, &Tensor)) {
        for (name, tensor) in &self.0 {
            visit(name, tensor);
        }
    }
}

#[test]
fn every_flipped_bit_of_the_data_is_found_and_nothing_changes() {
    let (bytes, ..) = saved();
    let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let (net, generator) = (network(2, Keys::Own), Generator::new(3));
    let mut adam = Adam::new(net.named_parameters(), 0.01).unwrap();
    let before = weights(&net);
    let data = 8 + header..bytes.len();
    for i in 0..100 {
        // Bits all over the data.
        let bit = i * (data.len() * 8 - 1) / 99;
        let mut damaged = bytes.clone();
        damaged[data.start + bit / 8] ^= 1 << (bit % 8);
        let error = parts(&net, &mut adam).load_bytes(&damaged).unwrap_err();
        assert!(
            matches!(&error, Error::Checkpoint(CheckpointError::Damaged { .. })),
            "bit {bit}: {error}"
        );
        assert_eq!(weights(&net), before);
    }
    assert_eq!(generator.state().offset, 0);
    // Without checksums nobody can tell.
    parts(&net, &mut adam)
        .load_bytes(&without_checksums(&bytes))
        .unwrap();
    assert_ne!(weights(&net), before);
}

#[test]
fn tied_parameters_have_to_agree_and_may_be_there_once() {
    let w = tensor([1.0, 2.0]).requires_grad(true);
    let tied = Named(vec![
        ("embed.weight", w.clone()),
        ("head.weight", w.clone()),
    ]);
    let bytes = Checkpoint::new().parameters("", &tied).to_bytes().unwrap();
    no_grad(|| w.assign(&tensor([0.0, 0.0]))).unwrap();
    Checkpoint::new()
        .parameters("", &tied)
        .load_bytes(&bytes)
        .unwrap();
    assert_eq!(values(&w), [1.0, 2.0]);

    let file = |named: Vec<(&'static str, Tensor)>| {
        Checkpoint::new()
            .parameters("", &Named(named))
            .to_bytes()
            .unwrap()
    };
    let apart = file(vec![
        ("embed.weight", tensor([3.0, 4.0])),
        ("head.weight", tensor([3.0, 5.0])),
    ]);
    assert_eq!(
        load_error(Checkpoint::new().parameters("", &tied), &apart),
        "checkpoint: \"embed.weight\" and \"head.weight\" are one, and differ in the file"
    );
    assert_eq!(values(&w), [1.0, 2.0]);
    for (name, value) in [("embed.weight", 7.0), ("head.weight", 8.0)] {
        let once = file(vec![(name, tensor([value, value]))]);
        Checkpoint::new()
            .parameters("", &tied)
            .load_bytes(&once)
            .unwrap();
        assert_eq!(values(&w), [value, value]);
    }
    assert_eq!(
        load_error(Checkpoint::new().parameters("", &tied), &file(vec![])),
        "checkpoint: there is no \"embed.weight\""
    );
    // Another leaf of the same memory is tied as well.
    let twice = Named(vec![
        ("a", w.clone()),
        ("b", w.detach().requires_grad(true)),
    ]);
    let apart = file(vec![("a", tensor([1.0, 1.0])), ("b", tensor([2.0, 2.0]))]);
    assert!(load_error(Checkpoint::new().parameters("", &twice), &apart).contains("are one"));
}

#[test]
fn a_generator_of_several_names_has_one_state() {
    let two = [Generator::new(1), Generator::new(2)];
    two[1].next_key();
    let apart = Checkpoint::new()
        .generator("shuffle", &two[0])
        .generator("noise", &two[1])
        .to_bytes()
        .unwrap();
    let one = Generator::new(3);
    let of_one = || {
        Checkpoint::new()
            .generator("shuffle", &one)
            .generator("noise", &one)
    };
    assert_eq!(
        load_error(of_one(), &apart),
        "checkpoint: \"shuffle.generator\" and \"noise.generator\" are one, and differ in the file"
    );
    assert_eq!(one.state(), Generator::new(3).state());
    let saved = of_one().to_bytes().unwrap();
    one.next_key();
    of_one().load_bytes(&saved).unwrap();
    assert_eq!(one.state(), Generator::new(3).state());

    // Two layers that share one.
    let shared = Arc::new(Generator::new(4));
    let layer = |generator: Arc<Generator>| Dropout::new(0.5).unwrap().generator(generator);
    let net = Sequential::new()
        .with(layer(Arc::clone(&shared)))
        .with(layer(Arc::clone(&shared)));
    let others = Sequential::new()
        .with(layer(Arc::new(Generator::new(5))))
        .with(layer(Arc::new(Generator::new(6))));
    let bytes = Checkpoint::new()
        .generators("", &others)
        .to_bytes()
        .unwrap();
    let error = load_error(Checkpoint::new().generators("", &net), &bytes);
    assert!(
        error.ends_with("are one, and differ in the file"),
        "{error}"
    );
    assert_eq!(shared.state(), Generator::new(4).state());
}

#[test]
fn a_file_of_another_program() {
    let net = Sequential::new().with(Linear::new(2, 3, &Generator::new(1)).unwrap());
    let theirs = Named(vec![
        (
            "encoder.fc.kernel",
            Tensor::full([3, 2], 0.1, DType::F64).unwrap(),
        ),
        (
            "encoder.fc.bias",
            Tensor::full([3], 2.0, DType::F16).unwrap(),
        ),
        ("decoder.bias", tensor([1.0_f32])),
    ]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("theirs.safetensors");
    Checkpoint::new()
        .parameters("", &theirs)
        .save(&path)
        .unwrap();
    let entries = Checkpoint::entries(&path).unwrap();
    let listed: Vec<_> = entries
        .iter()
        .map(|e| (&*e.name, &*e.dtype, &*e.shape))
        .collect();
    assert_eq!(
        listed,
        [
            ("decoder.bias", "F32", &[1][..]),
            ("encoder.fc.bias", "F16", &[3]),
            ("encoder.fc.kernel", "F64", &[3, 2]),
        ]
    );
    let renamed = |name: &str| {
        name.replace("0.weight", "encoder.fc.kernel")
            .replace("0.bias", "encoder.fc.bias")
    };
    let ours = || Checkpoint::new().parameters("", &net).rename(&renamed);
    let said = |checkpoint: Checkpoint<'_>| {
        let mut checkpoint = checkpoint;
        checkpoint.load(&path).unwrap_err().to_string()
    };
    assert!(said(ours().ignore_others()).contains("expected \"encoder.fc.kernel\" to be F32"));
    assert_eq!(
        said(ours().convert_dtypes()),
        "checkpoint: \"decoder.bias\" is not expected"
    );
    ours().convert_dtypes().ignore_others().load(&path).unwrap();
    assert_eq!(net.parameters()[0].to_vec::<f32>().unwrap(), [0.1; 6]);
    assert_eq!(net.parameters()[1].to_vec::<f32>().unwrap(), [2.0; 3]);
}

#[test]
fn the_same_state_is_the_same_file() {
    let (_, net, mut adam) = saved();
    let bytes = parts(&net, &mut adam).to_bytes().unwrap();
    for _ in 0..5 {
        assert!(parts(&net, &mut adam).to_bytes().unwrap() == bytes);
    }
}
