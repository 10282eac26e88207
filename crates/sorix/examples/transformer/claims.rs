//! What holds bit for bit, shown before the runs.

use anyhow::{Result, ensure};
use sorix::Tensor;
use sorix::nn::Module;

use crate::experiment::{Plan, Trainer};
use crate::text::Text;

/// Gradients with each layer as a checkpoint are those without: backward makes the same masks again.
pub(crate) fn checkpointing_changes_no_gradient(text: &Text, plan: &Plan) -> Result<usize> {
    let mut plain = Trainer::new(text, plan)?;
    let mut checkpointed = Trainer::new(text, plan)?;
    checkpointed.model = checkpointed.model.checkpointed();
    let losses = (plain.gradients()?, checkpointed.gradients()?);
    ensure!(losses.0 == losses.1, "the losses differ: {losses:?}");
    let gradients = (gradients(&plain)?, gradients(&checkpointed)?);
    ensure!(
        gradients.0 == gradients.1,
        "a checkpoint changed a gradient"
    );
    Ok(gradients.0.iter().map(|(_, bits)| bits.len()).sum())
}

/// A training that is saved, loaded into objects made anew from another seed, and goes on, has the losses and
/// the weights of one that was not interrupted. The file's size in bytes.
pub(crate) fn a_training_goes_on(text: &Text, plan: &Plan, steps: u64) -> Result<u64> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("training.safetensors");
    let mut whole = Trainer::new(text, plan)?;
    for _ in 0..steps {
        whole.step()?;
    }
    whole.checkpoint().save(&file)?;

    let other = Plan {
        seed: plan.seed + 1,
        ..*plan
    };
    let mut resumed = Trainer::new(text, &other)?;
    resumed.checkpoint().load(&file)?;
    for step in 0..steps {
        let losses = (whole.step()?, resumed.step()?);
        ensure!(
            losses.0 == losses.1,
            "step {step} after the checkpoint: {losses:?}"
        );
    }
    let weights = (weights(&whole)?, weights(&resumed)?);
    ensure!(
        weights.0 == weights.1,
        "weights differ after the checkpoint"
    );
    Ok(std::fs::metadata(&file)?.len())
}

type Bits = Vec<(String, Vec<u32>)>;

fn weights(trainer: &Trainer<'_>) -> Result<Bits> {
    let parameters = trainer.model.named_parameters().into_iter();
    parameters
        .map(|(name, tensor)| Ok((name, bits(&tensor)?)))
        .collect()
}

fn gradients(trainer: &Trainer<'_>) -> Result<Bits> {
    let parameters = trainer.model.named_parameters().into_iter();
    let gradient = |(name, tensor): (String, Tensor)| {
        let gradient = tensor.grad();
        let gradient = gradient.ok_or_else(|| anyhow::anyhow!("{name} has no gradient"))?;
        Ok((name, bits(&gradient)?))
    };
    parameters.map(gradient).collect()
}

fn bits(tensor: &Tensor) -> Result<Vec<u32>> {
    let elements = tensor.to_vec::<f32>()?;
    Ok(elements.into_iter().map(f32::to_bits).collect())
}
