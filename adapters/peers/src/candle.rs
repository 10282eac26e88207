//! candle's `Dropout`, and sorix's in its place.

use anyhow::{Context, Result};
use candle_core::{Device, Tensor, Var};
use candle_nn::Dropout;
use sorix_benches::op::Op;
use sorix_benches::peers::{Pass, Peer, Setting, measure_in_process};
use sorix_benches::sample::Measured;
use sorix_candle::Generator;

#[derive(Debug)]
pub(crate) struct Candle;

impl Peer for Candle {
    fn backend(&self) -> &'static str {
        "peer:candle"
    }

    fn ops(&self) -> &'static [Op] {
        &[Op::Forward, Op::TensorForwardBackward]
    }

    fn temporaries(&self) -> u64 {
        10
    }

    fn measure(&self, setting: Setting<'_>) -> Result<Measured> {
        let dropout = Dropout::new(setting.p as f32);
        measure(setting, move |x| dropout.forward(x, true))
    }
}

#[derive(Debug)]
pub(crate) struct SorixCandle;

impl Peer for SorixCandle {
    fn backend(&self) -> &'static str {
        "sorix-candle"
    }

    fn ops(&self) -> &'static [Op] {
        &[Op::Forward, Op::TensorForwardBackward]
    }

    fn measure(&self, setting: Setting<'_>) -> Result<Measured> {
        let dropout = sorix_candle::Dropout::new(setting.p).generator(Generator::new(42));
        measure(setting, move |x| dropout.forward(x, true))
    }
}

fn measure(
    setting: Setting<'_>,
    forward: impl Fn(&Tensor) -> candle_core::Result<Tensor> + Send,
) -> Result<Measured> {
    let input = Tensor::from_slice(setting.input, setting.shape.0, &Device::Cpu)?;
    let input = match setting.op {
        Op::TensorForwardBackward => Input::Variable(Var::from_tensor(&input)?),
        _ => Input::Constant(input),
    };
    let pass = DropoutPass {
        forward,
        input,
        output: None,
        gradient: None,
    };
    measure_in_process(setting, pass)
}

/// What is dropped from.
enum Input {
    /// Nobody asks for its gradient.
    Constant(Tensor),
    /// Backward computes its gradient.
    Variable(Var),
}

/// A dropout, forward, and where the input is a variable backward.
struct DropoutPass<F> {
    forward: F,
    input: Input,
    output: Option<Tensor>,
    gradient: Option<Tensor>,
}

impl<F: Fn(&Tensor) -> candle_core::Result<Tensor> + Send> Pass for DropoutPass<F> {
    fn call(&mut self) -> Result<()> {
        // The memory of the last call is there for this one, as in a training loop.
        (self.output, self.gradient) = (None, None);
        match &self.input {
            Input::Constant(x) => self.output = Some((self.forward)(x)?),
            Input::Variable(x) => {
                let y = (self.forward)(x)?;
                // Begins with a gradient of ones.
                self.gradient = y.backward()?.remove(x);
                self.output = Some(y);
            }
        }
        Ok(())
    }

    fn output(&self) -> Result<Vec<f32>> {
        numbers(self.output.as_ref().context("not called")?)
    }

    fn gradient(&self) -> Result<Option<Vec<f32>>> {
        self.gradient.as_ref().map(numbers).transpose()
    }
}

fn numbers(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.flatten_all()?.to_vec1()?)
}
