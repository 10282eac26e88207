//! One training run.

use anyhow::Result;
use sorix::Tensor;
use sorix::autograd::no_grad;
use sorix::nn::loss::cross_entropy;
use sorix::nn::optim::clip_grad_norm;
use sorix::nn::{
    AdamW, Batches, Checkpoint, Generator, LrSchedule, Module, Optimizer, Reduction,
    copy_parameters,
};

use crate::model::{LanguageModel, Size};
use crate::text::{Batch, Text};

const BATCH: usize = 16;
const LEARNING_RATE: f64 = 3e-3;
const WEIGHT_DECAY: f64 = 0.01;
const MAX_NORM: f64 = 1.0;

/// The validation set is looked at so often in a run, at most.
const LOOKS: u64 = 20;

/// What is printed of a model's text.
const SAMPLE: usize = 240;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) size: Size,
    pub(crate) seed: u64,
    pub(crate) steps: u64,
}

/// What came out. Losses are the mean of minus the natural logarithm of the probability given to the character
/// that came.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// The loss on the validation set after so many steps.
    pub(crate) validation: Vec<(u64, f64)>,
    /// On the test set, with the weights that had the lowest loss on the validation set: early stopping.
    pub(crate) stopped: f64,
    /// The step of these weights.
    pub(crate) best_step: u64,
    /// On the test set after all steps.
    pub(crate) last: f64,
    /// On the training set after all steps.
    pub(crate) train: f64,
    /// A text by the weights of `stopped`.
    pub(crate) sample: String,
}

/// All that changes in a training.
#[derive(Debug)]
pub(crate) struct Trainer<'t> {
    text: &'t Text,
    context: usize,
    pub(crate) model: LanguageModel,
    optimizer: AdamW,
    batches: Batches,
    schedule: LrSchedule,
    step: u64,
}

impl<'t> Trainer<'t> {
    /// For one seed all rates have the same first weights and the same batches.
    pub(crate) fn new(text: &'t Text, plan: &Plan) -> Result<Self> {
        let generator = Generator::new(plan.seed);
        let model = LanguageModel::new(text.characters(), &plan.size, &generator)?;
        let context = plan.size.context;
        // A sample begins anywhere in the text.
        let samples = Batches::new(text.train.len() - context, BATCH)?.drop_last();
        let schedule = LrSchedule::cosine(LEARNING_RATE, LEARNING_RATE / 10.0, plan.steps)?;
        Ok(Self {
            text,
            context,
            optimizer: AdamW::new(model.named_parameters(), LEARNING_RATE)?
                .weight_decay(WEIGHT_DECAY)?,
            batches: samples.shuffle(generator.fork("batches").seed()),
            schedule: schedule.warm_up(plan.steps / 10),
            model,
            step: 0,
        })
    }

    /// The loss of a batch, and the gradients of the parameters.
    pub(crate) fn gradients(&mut self) -> Result<f64> {
        self.model.train();
        let starts = match self.batches.next() {
            Some(starts) => starts,
            // An epoch has ended, and the next one begins.
            None => self.batches.next().unwrap_or_default(),
        };
        let batch = Batch::new(&self.text.train, &starts, self.context)?;
        self.optimizer.zero_grad();
        let loss = loss(&self.model, &batch)?;
        loss.backward()?;
        Ok(loss.item::<f32>()?.into())
    }

    pub(crate) fn step(&mut self) -> Result<f64> {
        let loss = self.gradients()?;
        clip_grad_norm(&self.model.named_parameters(), MAX_NORM)?;
        self.optimizer
            .set_learning_rate(self.schedule.at(self.step))?;
        self.optimizer.step()?;
        self.step += 1;
        Ok(loss)
    }

    /// All that is needed to go on.
    pub(crate) fn checkpoint(&mut self) -> Checkpoint<'_> {
        Checkpoint::new()
            .parameters("model", &self.model)
            .generators("masks", &self.model)
            .optimizer("optimizer", &mut self.optimizer)
            .batches("batches", &mut self.batches)
            .counter("step", &mut self.step)
    }
}

/// Trains a model from nothing. The test set is looked at and never acted upon.
pub(crate) fn run(text: &Text, plan: &Plan, mut after_step: impl FnMut()) -> Result<Outcome> {
    let mut trainer = Trainer::new(text, plan)?;
    let mut best = Trainer::new(text, plan)?.model;
    let (mut lowest, mut best_step) = (f64::INFINITY, 0);
    let mut validation = Vec::new();
    let context = plan.size.context;
    let between = plan.steps.div_ceil(LOOKS);
    while trainer.step < plan.steps {
        trainer.step()?;
        after_step();
        let step = trainer.step;
        if step % between == 0 || step == plan.steps {
            let loss = score(&mut trainer.model, &text.validation, context)?;
            validation.push((step, loss));
            if loss < lowest {
                (lowest, best_step) = (loss, step);
                copy_parameters(&trainer.model, &best)?;
            }
        }
    }
    best.eval();
    let draws = Generator::new(plan.seed).fork("sample");
    let begin = &text.test[..context];
    let sample = best.continue_text(begin, SAMPLE, &draws)?;
    Ok(Outcome {
        validation,
        stopped: score(&mut best, &text.test, context)?,
        best_step,
        last: score(&mut trainer.model, &text.test, context)?,
        train: score(&mut trainer.model, &text.train, context)?,
        sample: text.spell(&sample),
    })
}

fn loss(model: &LanguageModel, batch: &Batch) -> Result<Tensor> {
    let logits = model.forward(&batch.x)?;
    let rows = logits.reshape([batch.next.len(), logits.shape()[2]])?;
    Ok(cross_entropy(&rows, &batch.next, Reduction::Mean)?)
}

/// The loss of all of a text, a context at a time; what is left at its end is left out.
fn score(model: &mut LanguageModel, text: &[usize], context: usize) -> Result<f64> {
    model.eval();
    let starts: Vec<usize> = (0..text.len() - context).step_by(context).collect();
    let mut sum = 0.0;
    for starts in starts.chunks(BATCH) {
        let batch = Batch::new(text, starts, context)?;
        let mean: f64 = no_grad(|| loss(model, &batch))?.item::<f32>()?.into();
        sum += mean * starts.len() as f64;
    }
    Ok(sum / starts.len() as f64)
}
