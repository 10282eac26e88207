//! burn's training step of the network of [`sorix_benches::step`].

use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{DropoutConfig, Linear, LinearConfig};
use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use sorix_benches::step::{BATCH, LEARNING_RATE, P, Step, WIDTHS, inputs, labels};
use sorix_burn::Generator;

/// A step on a new network with burn's dropout.
pub(crate) fn step() -> Result<Step> {
    let dropout = DropoutConfig::new(P).init();
    step_with(move |x| dropout.forward(x))
}

/// A step on a new network with sorix's dropout.
pub(crate) fn step_with_sorix() -> Result<Step> {
    let dropout = sorix_burn::Dropout::new(P)?.generator(Generator::new(42));
    step_with(move |x| dropout.forward(x))
}

fn step_with(dropout: impl Fn(Tensor<2>) -> Tensor<2> + Send + Sync + 'static) -> Result<Step> {
    let training = Mutex::new(Training::new());
    Ok(Box::new(move || {
        let mut training = training.lock().unwrap_or_else(PoisonError::into_inner);
        training.step(&dropout)
    }))
}

#[derive(Module, Debug)]
struct Mlp {
    layers: Vec<Linear>,
}

/// The network, its batch and what trains it.
struct Training {
    /// Absent while a step is taken, or after one that failed.
    mlp: Option<Mlp>,
    optimizer: ModuleOptimizer,
    inputs: Tensor<2>,
    labels: Tensor<1, Int>,
}

impl Training {
    fn new() -> Self {
        let device = Device::flex().autodiff();
        let layers = WIDTHS.windows(2);
        let layers = layers.map(|widths| LinearConfig::new(widths[0], widths[1]).init(&device));
        let labels: Vec<i64> = labels().into_iter().map(|label| label as i64).collect();
        Self {
            mlp: Some(Mlp {
                layers: layers.collect(),
            }),
            optimizer: SgdConfig::new().init(),
            inputs: Tensor::from_data(TensorData::new(inputs(), [BATCH, WIDTHS[0]]), &device),
            labels: Tensor::from_data(TensorData::new(labels, [BATCH]), &device),
        }
    }

    fn step(&mut self, dropout: &impl Fn(Tensor<2>) -> Tensor<2>) -> Result<()> {
        let mlp = self.mlp.take().context("an earlier step failed")?;
        let mut x = self.inputs.clone();
        for (i, layer) in mlp.layers.iter().enumerate() {
            x = layer.forward(x);
            if i + 1 < mlp.layers.len() {
                x = dropout(relu(x));
            }
        }
        let loss = CrossEntropyLossConfig::new().init(&x.device());
        let loss = loss.forward(x, self.labels.clone());
        let gradients = GradientsParams::from_grads(loss.backward(), &mlp);
        self.mlp = Some(self.optimizer.step(LEARNING_RATE, mlp, gradients));
        Ok(())
    }
}
