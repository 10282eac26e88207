//! One training run.

use anyhow::Result;
use sorix::Tensor;
use sorix::autograd::no_grad;
use sorix::nn::loss::cross_entropy;
use sorix::nn::{Adam, Dropout, Generator, Linear, Module, Optimizer, ReLU, Reduction, Sequential};

use crate::data::{Part, Table, permutation};

const BATCH: usize = 64;
const LEARNING_RATE: f64 = 1e-3;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) rate: f64,
    pub(crate) seed: u64,
    pub(crate) epochs: usize,
    pub(crate) hidden: usize,
}

/// What came out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// The epoch after which the validation set had its lowest cross entropy, from 1.
    pub(crate) best_epoch: usize,
    /// On the test set after that epoch: what early stopping gives.
    pub(crate) stopped: Score,
    /// On the test set after all epochs.
    pub(crate) last: Score,
    /// On the training set after all epochs.
    pub(crate) train: Score,
}

/// How good predictions are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Score {
    /// The part of the wines whose grade was predicted.
    pub(crate) accuracy: f64,
    /// The mean of minus the logarithm of the probability given to the true grade.
    pub(crate) cross_entropy: f64,
}

/// Trains a network from nothing. The test set is looked at and never acted upon.
///
/// For one seed all rates have the same split, the same first weights and the same batches.
pub(crate) fn run(table: &Table, plan: &Plan) -> Result<Outcome> {
    let generator = Generator::new(plan.seed);
    let split = table.split(&generator.fork("split"))?;
    let mut net = network(table, plan, &generator)?;
    let mut adam = Adam::new(net.named_parameters(), LEARNING_RATE)?;
    let shuffle = generator.fork("shuffle");

    let mut best: Option<(f64, usize, Score)> = None;
    for epoch in 1..=plan.epochs {
        train_epoch(&mut net, &mut adam, &split.train, &shuffle)?;
        let loss = score(&mut net, &split.validation)?.cross_entropy;
        if best.is_none_or(|(lowest, ..)| loss < lowest) {
            best = Some((loss, epoch, score(&mut net, &split.test)?));
        }
    }
    let last = score(&mut net, &split.test)?;
    let (_, best_epoch, stopped) = best.unwrap_or((f64::NAN, 0, last));
    Ok(Outcome {
        best_epoch,
        stopped,
        last,
        train: score(&mut net, &split.train)?,
    })
}

/// Two hidden layers, each followed by dropout.
fn network(table: &Table, plan: &Plan, generator: &Generator) -> Result<Sequential> {
    let weights = generator.fork("weights");
    let dropout =
        |name| -> Result<Dropout> { Ok(Dropout::new(plan.rate)?.generator(generator.fork(name))) };
    Ok(Sequential::new()
        .with(Linear::new(table.width(), plan.hidden, &weights)?)
        .with(ReLU)
        .with(dropout("dropout 1")?)
        .with(Linear::new(plan.hidden, plan.hidden, &weights)?)
        .with(ReLU)
        .with(dropout("dropout 2")?)
        .with(Linear::new(plan.hidden, table.grades(), &weights)?))
}

fn train_epoch(
    net: &mut Sequential,
    optimizer: &mut dyn Optimizer,
    part: &Part,
    shuffle: &Generator,
) -> Result<()> {
    net.train();
    for batch in permutation(part.grades.len(), shuffle)?.chunks(BATCH) {
        let x = part.x.index_select(0, batch)?;
        let grades: Vec<usize> = batch.iter().map(|&i| part.grades[i]).collect();
        optimizer.zero_grad();
        cross_entropy(&net.forward(&x)?, &grades, Reduction::Mean)?.backward()?;
        optimizer.step()?;
    }
    Ok(())
}

fn score(net: &mut Sequential, part: &Part) -> Result<Score> {
    net.eval();
    let logits = no_grad(|| net.forward(&part.x))?;
    Ok(Score {
        accuracy: accuracy(&logits, &part.grades)?,
        cross_entropy: cross_entropy(&logits, &part.grades, Reduction::Mean)?
            .item::<f32>()?
            .into(),
    })
}

fn accuracy(logits: &Tensor, grades: &[usize]) -> Result<f64> {
    let predicted = logits.argmax(1)?;
    let right = predicted.iter().zip(grades).filter(|(a, b)| a == b).count();
    Ok(right as f64 / grades.len() as f64)
}
