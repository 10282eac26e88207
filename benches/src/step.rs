//! A training step of a small network, with dropout and without: what dropout costs where it is used.
//!
//! The network is an MLP 784-1024-1024-10 with ReLU and dropout after the two hidden layers, in f32, on
//! a batch of 256; a step is forward, cross entropy, backward and an SGD update, of the modules, the
//! loss and the optimiser that a user would take. A step is no kernel, so its rows are compared with
//! another step and not with a copy, again sampled in turn.
//!
//! The two are layers of their own in one network, and one layer, [`ReLUDropout`], in another.
//!
//! Dropout's share of a step is what a step with it takes longer than one without. The row of the
//! dropouts alone is an upper bound: a whole step ran since they were sampled last, so their operands
//! come from memory, where in a step they were just written.

use anyhow::Result;
use rayon::ThreadPoolBuilder;
use serde::{Deserialize, Serialize};
use sorix::nn::loss::cross_entropy;
use sorix::nn::{
    Dropout, Linear, Module, Optimizer, ReLU, ReLUDropout, Reduction, Sequential, Sgd,
};
use sorix::{DType, Generator, Tensor};

use crate::rest::rest;
use crate::sample::{Measured, Sampling, in_turn_rested};

/// The widths of the layers.
pub const WIDTHS: [usize; 4] = [784, 1024, 1024, 10];
/// The samples in a batch.
pub const BATCH: usize = 256;
/// The drop probability.
pub const P: f64 = 0.2;
/// The learning rate.
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

/// Measures all rows on each number of threads, with those of `peers`, each of which has a name:
/// `peer:NAME`, or `sorix-NAME` with sorix's layer.
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
            let mut with = Mlp::new(Hidden::Apart)?;
            let mut fused = Mlp::new(Hidden::Fused)?;
            let mut without = Mlp::new(Hidden::Bare)?;
            let (whole, bare) = ("sorix, dropout 0.2", "sorix, no dropout");
            let measured = compare(sampling, || with.step(), || without.step())?;
            add(whole, bare, measured);
            let measured = compare(sampling, || fused.step(), || without.step())?;
            add("sorix, ReLUDropout 0.2", bare, measured);
            let dropouts = Dropouts::new()?;
            let measured = compare(sampling, || dropouts.forward_backward(), || with.step())?;
            add("two dropouts alone, from memory", whole, measured);
            for (name, step) in peers {
                let measured = compare(sampling, step, || with.step())?;
                add(&format!("{name}, dropout 0.2"), whole, measured);
            }
            Ok(())
        })?;
    }
    Ok(rows)
}

/// The rows as a table in plain text.
#[must_use]
pub fn table(rows: &[StepRow]) -> String {
    let mut table = String::from("step, or operations               threads       ms   ratio to\n");
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
/// the second. The threads of the one are at rest when the other begins.
pub(crate) fn compare(
    sampling: Sampling,
    mut subject: impl FnMut() -> Result<()>,
    mut against: impl FnMut() -> Result<()>,
) -> Result<Measured> {
    for _ in 0..2 {
        subject()?;
        against()?;
    }
    let mut failed = None;
    let measured = in_turn_rested(
        sampling,
        &mut failed,
        |failed| *failed = subject().err().or(failed.take()),
        |_| {
            rest();
        },
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

/// What comes after a hidden layer.
#[derive(Clone, Copy, Debug)]
enum Hidden {
    /// ReLU.
    Bare,
    /// ReLU, and then dropout.
    Apart,
    /// ReLU and dropout in one pass.
    Fused,
}

/// The network, its optimiser and its batch, all of sorix' own parts.
struct Mlp {
    net: Sequential,
    optimizer: Sgd,
    inputs: Tensor,
    labels: Vec<usize>,
}

impl Mlp {
    fn new(hidden: Hidden) -> Result<Self> {
        let generator = Generator::new(42);
        let mut net = Sequential::new();
        for (i, widths) in WIDTHS.windows(2).enumerate() {
            if i > 0 {
                let keys = || generator.fork(&format!("dropout {i}"));
                match hidden {
                    Hidden::Bare => net.push(ReLU),
                    Hidden::Apart => {
                        net.push(ReLU);
                        net.push(Dropout::new(P)?.generator(keys()));
                    }
                    Hidden::Fused => net.push(ReLUDropout::new(P)?.generator(keys())),
                }
            }
            net.push(Linear::new(widths[0], widths[1], &generator)?);
        }
        Ok(Self {
            optimizer: Sgd::new(net.named_parameters(), LEARNING_RATE)?,
            net,
            inputs: Tensor::from_slice(&inputs(), [BATCH, WIDTHS[0]])?,
            labels: labels(),
        })
    }

    fn loss(&self) -> Result<Tensor> {
        let logits = self.net.forward(&self.inputs)?;
        Ok(cross_entropy(&logits, &self.labels, Reduction::Mean)?)
    }

    fn step(&mut self) -> Result<()> {
        self.optimizer.zero_grad();
        self.loss()?.backward()?;
        Ok(self.optimizer.step()?)
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

    /// In eval, so that it is the steps that differ and not the masks.
    fn loss(mlp: &mut Mlp) -> f32 {
        mlp.net.eval();
        let loss = mlp.loss().unwrap().item().unwrap();
        mlp.net.train();
        loss
    }

    #[test]
    fn steps_make_the_loss_smaller_and_fused_ones_by_as_much() {
        let losses = [Hidden::Apart, Hidden::Fused].map(|hidden| {
            let mut mlp = Mlp::new(hidden).unwrap();
            let before = loss(&mut mlp);
            for _ in 0..3 {
                mlp.step().unwrap();
            }
            let after = loss(&mut mlp);
            assert!(after < before, "{hidden:?}: {before} became {after}");
            after
        });
        assert_eq!(losses[0], losses[1]);
    }

    #[test]
    fn a_network_has_two_dropouts_or_none() {
        let rates = |hidden| Mlp::new(hidden).unwrap().net.named_drop_rates();
        assert_eq!(rates(Hidden::Apart).len(), 2);
        assert_eq!(rates(Hidden::Fused).len(), 2);
        assert_eq!(rates(Hidden::Bare), []);
    }

    #[test]
    fn filters_select_the_steps() {
        assert!(selected(None) && selected(Some("step")));
        assert!(!selected(Some("forward")));
    }
}
