//! burn's `Dropout`, on its CPU backend.

use anyhow::{Context, Result, anyhow};
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Device, Tensor, TensorData};

use super::{Forward, Peer, Setting, measure_in_process};
use crate::sample::Measured;

#[derive(Debug)]
pub(super) struct Burn;

impl Peer for Burn {
    fn name(&self) -> &'static str {
        "burn"
    }

    fn measure(&self, setting: Setting<'_>) -> Result<Measured> {
        // On a device without autodiff burn's dropout does nothing.
        let device = Device::flex().autodiff();
        let input = TensorData::new(setting.input.to_vec(), [setting.input.len()]);
        let forward = Pass {
            dropout: DropoutConfig::new(setting.p).init(),
            input: Tensor::from_data(input, &device),
            output: None,
        };
        measure_in_process(setting, forward)
    }
}

struct Pass {
    dropout: Dropout,
    input: Tensor<1>,
    output: Option<Tensor<1>>,
}

impl Forward for Pass {
    fn call(&mut self) -> Result<()> {
        // The memory of the last output is there for this one, as in a training loop.
        self.output = None;
        self.output = Some(self.dropout.forward(self.input.clone()));
        Ok(())
    }

    fn output(&self) -> Result<Vec<f32>> {
        let output = self.output.clone().context("not called")?;
        output
            .into_data()
            .try_to_vec()
            .map_err(|error| anyhow!("burn: {error:?}"))
    }
}
