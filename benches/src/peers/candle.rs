//! candle's `Dropout`.

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use candle_nn::Dropout;

use super::{Forward, Peer, Setting, measure_in_process};
use crate::sample::Measured;

#[derive(Debug)]
pub(super) struct Candle;

impl Peer for Candle {
    fn name(&self) -> &'static str {
        "candle"
    }

    fn measure(&self, setting: Setting<'_>) -> Result<Measured> {
        let forward = Pass {
            dropout: Dropout::new(setting.p as f32),
            input: Tensor::from_slice(setting.input, setting.shape.0, &Device::Cpu)?,
            output: None,
        };
        measure_in_process(setting, forward)
    }
}

struct Pass {
    dropout: Dropout,
    input: Tensor,
    output: Option<Tensor>,
}

impl Forward for Pass {
    fn call(&mut self) -> Result<()> {
        // The memory of the last output is there for this one, as in a training loop.
        self.output = None;
        self.output = Some(self.dropout.forward(&self.input, true)?);
        Ok(())
    }

    fn output(&self) -> Result<Vec<f32>> {
        let output = self.output.as_ref().context("not called")?;
        Ok(output.flatten_all()?.to_vec1()?)
    }
}
