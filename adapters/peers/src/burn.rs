//! burn's `Dropout`, on its CPU backend, and sorix's in its place.

use anyhow::{Context, Result, anyhow};
use burn::nn::DropoutConfig;
use burn::tensor::{Device, Tensor, TensorData};
use sorix_benches::op::Op;
use sorix_benches::peers::{Pass, Peer, Setting, measure_in_process};
use sorix_benches::sample::Measured;
use sorix_burn::Generator;

#[derive(Debug)]
pub(crate) struct Burn;

impl Peer for Burn {
    fn backend(&self) -> &'static str {
        "peer:burn"
    }

    fn ops(&self) -> &'static [Op] {
        &[Op::Forward, Op::TensorForwardBackward]
    }

    fn temporaries(&self) -> u64 {
        10
    }

    fn measure(&self, setting: Setting<'_>) -> Result<Measured> {
        let dropout = DropoutConfig::new(setting.p).init();
        let pass = DropoutPass::new(&setting, move |x| dropout.forward(x));
        measure_in_process(setting, pass)
    }
}

#[derive(Debug)]
pub(crate) struct SorixBurn;

impl Peer for SorixBurn {
    fn backend(&self) -> &'static str {
        "sorix-burn"
    }

    fn ops(&self) -> &'static [Op] {
        &[Op::Forward, Op::TensorForwardBackward]
    }

    fn measure(&self, setting: Setting<'_>) -> Result<Measured> {
        let dropout = sorix_burn::Dropout::new(setting.p)?.generator(Generator::new(42));
        let pass = DropoutPass::new(&setting, move |x| dropout.forward(x));
        measure_in_process(setting, pass)
    }
}

/// A dropout, forward, and where asked for backward.
struct DropoutPass<F> {
    forward: F,
    input: Tensor<1>,
    backward: bool,
    output: Option<Tensor<1>>,
    gradient: Option<Tensor<1>>,
}

impl<F> DropoutPass<F> {
    fn new(setting: &Setting<'_>, forward: F) -> Self {
        // On a device without autodiff burn's dropout does nothing.
        let device = Device::flex().autodiff();
        let input = TensorData::new(setting.input.to_vec(), [setting.input.len()]);
        let input = Tensor::from_data(input, &device);
        let backward = setting.op == Op::TensorForwardBackward;
        Self {
            forward,
            input: if backward {
                input.require_grad()
            } else {
                input
            },
            backward,
            output: None,
            gradient: None,
        }
    }
}

impl<F: Fn(Tensor<1>) -> Tensor<1> + Send> Pass for DropoutPass<F> {
    fn call(&mut self) -> Result<()> {
        // The memory of the last call is there for this one, as in a training loop.
        (self.output, self.gradient) = (None, None);
        let output = (self.forward)(self.input.clone());
        if self.backward {
            // Begins with a gradient of ones.
            self.gradient = self.input.grad(&output.backward());
        }
        self.output = Some(output);
        Ok(())
    }

    fn output(&self) -> Result<Vec<f32>> {
        numbers(self.output.as_ref().context("not called")?)
    }

    fn gradient(&self) -> Result<Option<Vec<f32>>> {
        self.gradient.as_ref().map(numbers).transpose()
    }
}

fn numbers(tensor: &Tensor<1>) -> Result<Vec<f32>> {
    tensor
        .to_data()
        .try_to_vec()
        .map_err(|error| anyhow!("burn: {error:?}"))
}
