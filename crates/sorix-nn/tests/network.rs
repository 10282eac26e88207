//! Whole networks: the gradient of every parameter through every layer, and that they learn.

use sorix_core::autograd::no_grad;
use sorix_core::{DType, Tensor, tensor};
use sorix_nn::loss::{cross_entropy, mse_loss};
use sorix_nn::{
    Adam, AdamW, Dropout, Embedding, GELU, Generator, LayerNorm, Linear, Module, Optimizer, ReLU,
    Reduction, Result, Sequential, Sgd, Sigmoid, Softmax, Tanh, clip_grad_norm, init,
};

fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().to_vec().unwrap()
}

/// Rows of a table to three numbers, by every layer there is.
fn every_layer(generator: &Generator) -> Result<Sequential> {
    let linear = |inputs, outputs| Linear::with_dtype(inputs, outputs, DType::F64, generator);
    let dropout = |name| Dropout::new(0.3).map(|dropout| dropout.generator(generator.fork(name)));
    let hidden = Sequential::new()
        .with(linear(4, 6)?)
        .with(LayerNorm::with_dtype([6], DType::F64)?)
        .with(GELU::new())
        .with(dropout("a")?)
        .with(linear(6, 5)?)
        .with(ReLU)
        .with(linear(5, 5)?.without_bias())
        .with(Tanh);
    let net = Sequential::new()
        .with(Embedding::with_dtype(5, 4, DType::F64, generator)?)
        .with(hidden)
        .with(dropout("b")?)
        .with(linear(5, 4)?)
        .with(Sigmoid)
        .with(linear(4, 3)?)
        .with(GELU::with_tanh())
        .with(Softmax::new(-1));
    // Also what starts as ones and zeros.
    for parameter in net.parameters() {
        init::normal(&parameter, 0.2, 0.7, generator)?;
    }
    Ok(net)
}

type Loss = fn(&Tensor) -> Result<Tensor>;

const LOSSES: [(&str, Loss); 4] = [
    ("cross entropy, mean", |y| {
        cross_entropy(y, &[2, 0, 1, 1], Reduction::Mean)
    }),
    ("cross entropy, sum", |y| {
        cross_entropy(y, &[2, 0, 1, 1], Reduction::Sum)
    }),
    ("squared error, mean", |y| {
        mse_loss(
            y,
            &Tensor::full(y.shape(), 0.2, DType::F64)?,
            Reduction::Mean,
        )
    }),
    ("squared error, sum", |y| {
        mse_loss(
            y,
            &Tensor::full(y.shape(), 0.2, DType::F64)?,
            Reduction::Sum,
        )
    }),
];

/// The masks are held by setting the generators back before each pass.
#[test]
fn every_parameter_has_the_gradient_of_finite_differences() {
    const STEP: f64 = 1e-5;
    let rows = tensor([1.0, 4.0, 1.0, 0.0]);
    let net = every_layer(&Generator::new(3)).unwrap();
    for (name, loss) in LOSSES {
        let pass = || {
            for (_, generator) in net.named_generators() {
                generator.manual_seed(5);
            }
            loss(&net.forward(&rows).unwrap()).unwrap()
        };
        net.parameters().iter().for_each(Tensor::zero_grad);
        pass().backward().unwrap();
        for (path, parameter) in net.named_parameters() {
            let gradient = values(&parameter.grad().unwrap());
            let at = values(&parameter);
            let move_to = |to: &[f64]| {
                let to = Tensor::from_slice(to, parameter.shape()).unwrap();
                no_grad(|| parameter.assign(&to)).unwrap();
            };
            for (i, gradient) in gradient.into_iter().enumerate() {
                let moved = |step: f64| {
                    let mut to = at.clone();
                    to[i] += step;
                    move_to(&to);
                    no_grad(pass).item::<f64>().unwrap()
                };
                let difference = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
                assert!(
                    (gradient - difference).abs() < 1e-8,
                    "{name}: {path}[{i}]: {gradient}, by differences {difference}"
                );
            }
            move_to(&at);
        }
    }
}

type Make = fn(Vec<(String, Tensor)>) -> Result<Box<dyn Optimizer>>;

const OPTIMIZERS: [(&str, Make); 3] = [
    ("sgd", |parameters| {
        let sgd = Sgd::new(parameters, 0.1)?.weight_decay(1e-4)?;
        Ok(Box::new(sgd.momentum(0.9)?))
    }),
    ("adam", |parameters| {
        Ok(Box::new(Adam::new(parameters, 0.02)?))
    }),
    ("adamw", |parameters| {
        Ok(Box::new(AdamW::new(parameters, 0.02)?))
    }),
];

/// Which no linear map can tell: with dropout in training and without in use.
#[test]
fn networks_learn_exclusive_or() {
    let x = tensor([[0.0_f32, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]);
    let classes = [0, 1, 1, 0];
    for (name, make) in OPTIMIZERS {
        let generator = Generator::new(11);
        let dropout = Dropout::new(0.2).unwrap();
        let mut net = Sequential::new()
            .with(Linear::new(2, 32, &generator).unwrap())
            .with(Tanh)
            .with(dropout.generator(generator.fork("dropout")))
            .with(Linear::new(32, 2, &generator).unwrap());
        let mut optimizer = make(net.named_parameters()).unwrap();
        for _ in 0..200 {
            optimizer.zero_grad();
            let y = net.forward(&x).unwrap();
            let loss = cross_entropy(&y, &classes, Reduction::Mean).unwrap();
            loss.backward().unwrap();
            clip_grad_norm(&net.named_parameters(), 1.0).unwrap();
            optimizer.step().unwrap();
        }
        net.eval();
        let y = net.forward(&x).unwrap();
        let loss = cross_entropy(&y, &classes, Reduction::Mean).unwrap();
        let loss = loss.item::<f32>().unwrap();
        // Of a network that says nothing it is ln 2 = 0.69.
        assert!(loss < 0.1, "{name}: {loss}");
    }
}
