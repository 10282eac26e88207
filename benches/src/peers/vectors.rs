//! sorix's kernels into vectors that each call allocates: what a framework's layer can cost at best whose
//! outputs the framework frees.

use anyhow::{Context, Result};
use sorix_kernels::{BitMask, DropRate, MaskKey, dropout};

use crate::op::Op;
use crate::peers::{Pass, Peer, Setting, measure_in_process};
use crate::sample::Measured;

#[derive(Debug)]
pub(super) struct Vectors;

impl Peer for Vectors {
    fn backend(&self) -> &'static str {
        "sorix-vec"
    }

    fn ops(&self) -> &'static [Op] {
        &[Op::Forward, Op::TensorForwardBackward]
    }

    fn measure(&self, setting: Setting<'_>) -> Result<Measured> {
        let rate = DropRate::new(setting.p)?;
        let pass = VectorsPass {
            rate,
            input: setting.input,
            gradient_of_output: match setting.op {
                Op::TensorForwardBackward => Some(vec![1.0; setting.input.len()]),
                _ => None,
            },
            calls: 0,
            output: None,
            gradient: None,
        };
        measure_in_process(setting, pass)
    }
}

struct VectorsPass<'a> {
    rate: DropRate,
    input: &'a [f32],
    /// What backward begins with, if it is measured.
    gradient_of_output: Option<Vec<f32>>,
    calls: u64,
    output: Option<Vec<f32>>,
    gradient: Option<Vec<f32>>,
}

impl Pass for VectorsPass<'_> {
    fn call(&mut self) -> Result<()> {
        // The memory of the last call is there for this one, as in a training loop.
        (self.output, self.gradient) = (None, None);
        let len = self.input.len();
        let (mut output, mut mask) = (vec![0.0; len], BitMask::new(len));
        let key = MaskKey::new(42, self.calls);
        self.calls += 1;
        dropout::forward(self.rate, key, self.input, &mut output, &mut mask)?;
        if let Some(dy) = &self.gradient_of_output {
            let mut gradient = vec![0.0; len];
            dropout::backward(self.rate, &mask, dy, &mut gradient)?;
            self.gradient = Some(gradient);
        }
        self.output = Some(output);
        Ok(())
    }

    fn output(&self) -> Result<Vec<f32>> {
        self.output.clone().context("not called")
    }

    fn gradient(&self) -> Result<Option<Vec<f32>>> {
        Ok(self.gradient.clone())
    }
}
