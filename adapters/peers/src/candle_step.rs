//! candle's training step of the network of [`sorix_benches::step`].

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_nn::{
    Linear, Module, ModuleT, Optimizer, SGD, VarBuilder, VarMap, linear, loss::cross_entropy,
};

use sorix_benches::step::{BATCH, LEARNING_RATE, P, Step, WIDTHS, inputs, labels};
use sorix_candle::Generator;

/// A step on a new network with candle's dropout.
pub(crate) fn step() -> Result<Step> {
    step_with(candle_nn::Dropout::new(P as f32))
}

/// A step on a new network with sorix's dropout.
pub(crate) fn step_with_sorix() -> Result<Step> {
    step_with(sorix_candle::Dropout::new(P).generator(Generator::new(42)))
}

fn step_with(dropout: impl ModuleT + Send + Sync + 'static) -> Result<Step> {
    let mlp = Mlp::new(dropout)?;
    Ok(Box::new(move || mlp.step()))
}

/// The network, its batch and what is trained.
struct Mlp<D> {
    layers: Vec<Linear>,
    dropout: D,
    variables: VarMap,
    inputs: Tensor,
    labels: Tensor,
}

impl<D: ModuleT> Mlp<D> {
    fn new(dropout: D) -> Result<Self> {
        let device = Device::Cpu;
        let variables = VarMap::new();
        let builder = VarBuilder::from_varmap(&variables, DType::F32, &device);
        let layers = WIDTHS.windows(2).enumerate();
        let layers =
            layers.map(|(i, widths)| linear(widths[0], widths[1], builder.pp(i.to_string())));
        let labels: Vec<u32> = labels().into_iter().map(|label| label as u32).collect();
        Ok(Self {
            layers: layers.collect::<Result<_, _>>()?,
            dropout,
            inputs: Tensor::from_vec(inputs(), (BATCH, WIDTHS[0]), &device)?,
            labels: Tensor::from_vec(labels, BATCH, &device)?,
            variables,
        })
    }

    fn step(&self) -> Result<()> {
        let mut x = self.inputs.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x)?;
            if i + 1 < self.layers.len() {
                x = self.dropout.forward_t(&x.relu()?, true)?;
            }
        }
        let loss = cross_entropy(&x, &self.labels)?;
        SGD::new(self.variables.all_vars(), LEARNING_RATE)?.backward_step(&loss)?;
        Ok(())
    }
}
