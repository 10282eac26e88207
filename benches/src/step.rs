//! A training step of a small network, with dropout and without: what dropout costs where it is used.
//!
//! The network is an MLP 784-1024-1024-10 with ReLU and dropout after the two hidden layers, in f32, on
//! a batch of 256; a step is forward, cross entropy, backward and an SGD update. A step is no kernel,
//! so its rows are compared with another step and not with a copy, again sampled in turn.

use anyhow::Result;
use rayon::ThreadPoolBuilder;
use serde::{Deserialize, Serialize};
use sorix::autograd::no_grad;
use sorix::nn::{Dropout, Module};
use sorix::{DType, Generator, MaskKey, Scalar, Tensor, UpdateRule};

use crate::sample::{Measured, Sampling, in_turn};

/// The widths of the layers.
pub const WIDTHS: [usize; 4] = [784, 1024, 1024, 10];
/// The samples in a batch.
pub const BATCH: usize = 256;
/// The drop probability.
pub const P: f64 = 0.2;
/// What an update multiplies the gradient by.
pub const LEARNING_RATE: f64 = 0.01;

/// A measured step, or part of one, and what it was compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRow {
    /// What was measured.
    pub what: String,
    /// The number of threads.
    pub threads: usize,
    /// The median time in milliseconds.
    pub milliseconds: f64,
    /// What it was sampled in turn with.
    pub against: String,
    /// The median time of that.
    pub against_milliseconds: f64,
    /// The median of the ratios of each sample to the sample of the other after it.
    pub ratio: f64,
}

/// A training step, ready to be taken.
pub type Step = Box<dyn Fn() -> Result<()> + Send + Sync>;

/// The id that a filter is held against.
const ID: &str = "train_step/f32";

/// Whether `filter` selects these rows.
#[must_use]
pub fn selected(filter: Option<&str>) -> bool {
    filter.is_none_or(|filter| ID.contains(filter))
}

/// Measures all rows on each number of threads, with those of `peers`, which are named.
///
/// # Errors
///
/// Those of the libraries.
pub fn run(sampling: Sampling, threads: &[usize], peers: &[(&str, Step)]) -> Result<Vec<StepRow>> {
    // A step takes longer than the calls that rows of kernels are made of.
    let sampling = Sampling {
        budget: sampling.budget * 15,
        ..sampling
    };
    let mut rows = Vec::new();
    for &threads in threads {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build()?;
        pool.install(|| -> Result<()> {
            let mut add = |what: &str, against: &str, measured: Measured| {
                rows.push(StepRow {
                    what: what.into(),
                    threads,
                    milliseconds: measured.subject * 1e3,
                    against: against.into(),
                    against_milliseconds: measured.copy * 1e3,
                    ratio: measured.ratio,
                });
            };
            let (with, without) = (Mlp::new(P)?, Mlp::new(0.0)?);
            let (whole, bare) = ("sorix, dropout 0.2", "sorix, no dropout");
            let measured = compare(sampling, || with.step(), || without.step())?;
            add(whole, bare, measured);
            let dropouts = Dropouts::new()?;
            let measured = compare(sampling, || dropouts.forward_backward(), || with.step())?;
            add("the two dropouts of a step alone", whole, measured);
            for (name, step) in peers {
                let measured = compare(sampling, step, || with.step())?;
                add(&format!("peer:{name}, dropout 0.2"), whole, measured);
            }
            Ok(())
        })?;
    }
    Ok(rows)
}

/// The rows as a table in plain text.
#[must_use]
pub fn table(rows: &[StepRow]) -> String {
    let mut table = String::from("training step                     threads       ms   ratio to\n");
    for row in rows {
        table += &format!(
            "{:32}  {:>7}  {:>7.2}  {:.4} of {:.2} ms ({})\n",
            row.what,
            row.threads,
            row.milliseconds,
            row.ratio,
            row.against_milliseconds,
            row.against
        );
    }
    table
}

/// Samples two things in turn, after each was done twice: the memory of the first time is there for
/// the second.
fn compare(
    sampling: Sampling,
    subject: impl Fn() -> Result<()>,
    against: impl Fn() -> Result<()>,
) -> Result<Measured> {
    for _ in 0..2 {
        subject()?;
        against()?;
    }
    let mut failed = None;
    let measured = in_turn(
        sampling,
        &mut failed,
        |failed| *failed = subject().err().or(failed.take()),
        |failed| *failed = against().err().or(failed.take()),
    );
    failed.map_or(Ok(measured), Err)
}

/// Numbers between -1 and 1 that look random.
#[must_use]
pub fn inputs() -> Vec<f32> {
    let number = |i: usize| (i * 2_531 % 4096) as f32 / 2048.0 - 1.0;
    (0..BATCH * WIDTHS[0]).map(number).collect()
}

/// The class of each sample.
#[must_use]
pub fn labels() -> Vec<usize> {
    (0..BATCH).map(|i| i * 7 % WIDTHS[3]).collect()
}

/// The network, its batch and its dropout.
struct Mlp {
    layers: Vec<[Tensor; 2]>,
    dropout: Option<Dropout>,
    inputs: Tensor,
    labels: Vec<usize>,
}

impl Mlp {
    fn new(p: f64) -> Result<Self> {
        let layer = |(offset, widths): (usize, &[usize])| -> Result<[Tensor; 2]> {
            let key = MaskKey::new(42, offset as u64);
            let scale = (2.0 / widths[0] as f64).sqrt();
            let weight = Tensor::randn([widths[1], widths[0]], DType::F32, key)?;
            Ok([
                weight.mul_scalar(scale)?.requires_grad(true),
                Tensor::zeros([widths[1]], DType::F32)?.requires_grad(true),
            ])
        };
        Ok(Self {
            layers: WIDTHS
                .windows(2)
                .enumerate()
                .map(layer)
                .collect::<Result<_>>()?,
            dropout: match p {
                0.0 => None,
                p => Some(Dropout::new(p)?.generator(Generator::new(7))),
            },
            inputs: Tensor::from_slice(&inputs(), [BATCH, WIDTHS[0]])?,
            labels: labels(),
        })
    }

    fn loss(&self) -> Result<Tensor> {
        let mut x = self.inputs.clone();
        for (i, [weight, bias]) in self.layers.iter().enumerate() {
            x = x.matmul(&weight.transpose(0, 1)?)?.add(bias)?;
            if i + 1 < self.layers.len() {
                x = x.relu()?;
                if let Some(dropout) = &self.dropout {
                    x = dropout.forward(&x)?;
                }
            }
        }
        Ok(x.log_softmax(-1)?
            .gather_last(&self.labels)?
            .mean()?
            .neg()?)
    }

    fn step(&self) -> Result<()> {
        self.loss()?.backward()?;
        no_grad(|| {
            for parameter in self.layers.iter().flatten() {
                if let Some(gradient) = parameter.grad() {
                    parameter.update(&gradient, &mut [], &Descent)?;
                }
                parameter.zero_grad();
            }
            Ok(())
        })
    }
}

/// Stochastic gradient descent.
struct Descent;

impl UpdateRule<0> for Descent {
    fn apply<A: Scalar + num_traits::Float>(
        &self,
        parameter: A,
        gradient: A,
        _: [A; 0],
    ) -> (A, [A; 0]) {
        (parameter - A::nearest(LEARNING_RATE) * gradient, [])
    }
}

/// The dropouts of a step, without the step.
struct Dropouts {
    dropout: Dropout,
    x: Tensor,
    gradient: Tensor,
}

impl Dropouts {
    fn new() -> Result<Self> {
        let shape = [BATCH, WIDTHS[1]];
        Ok(Self {
            dropout: Dropout::new(P)?.generator(Generator::new(7)),
            x: Tensor::ones(shape, DType::F32)?.requires_grad(true),
            gradient: Tensor::ones(shape, DType::F32)?,
        })
    }

    fn forward_backward(&self) -> Result<()> {
        for _ in 0..2 {
            self.x.zero_grad();
            self.dropout
                .forward(&self.x)?
                .backward_with(&self.gradient)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_make_the_loss_smaller() {
        let mlp = Mlp::new(P).unwrap();
        let loss = || mlp.loss().unwrap().item::<f32>().unwrap();
        let before = loss();
        for _ in 0..3 {
            mlp.step().unwrap();
        }
        let after = loss();
        assert!(after < before, "{before} became {after}");
    }

    #[test]
    fn filters_select_the_steps() {
        assert!(selected(None) && selected(Some("step")));
        assert!(!selected(Some("forward")));
    }
}
