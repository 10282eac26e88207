//! A language model: a transformer that sees what comes before.

use anyhow::Result;
use sorix::autograd::{checkpoint, no_grad};
use sorix::nn::{
    AttentionMasks, Dropout, Embedding, Generator, LayerNorm, Linear, Module,
    TransformerEncoderLayer, init,
};
use sorix::{Activation, DType, Tensor};

/// The heads of an attention.
pub(crate) const HEADS: usize = 4;

/// How large a model is, and its p.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) rate: f64,
    pub(crate) width: usize,
    pub(crate) layers: usize,
    /// Characters that the model sees, at most.
    pub(crate) context: usize,
}

/// From numbers of characters `[samples, length]` to logits of the next one, `[samples, length, characters]`.
///
/// Prenorm layers with GELU; dropout of the embeddings, of the probabilities of each attention, within each
/// network, and of what either adds, all with one p.
#[derive(Debug, Module)]
pub(crate) struct LanguageModel {
    tokens: Embedding,
    positions: Embedding,
    dropout: Dropout,
    layers: Vec<TransformerEncoderLayer>,
    norm: LayerNorm,
    head: Linear,
    /// Whether each layer keeps its input alone for backward, and is computed again there.
    checkpointed: bool,
}

impl LanguageModel {
    pub(crate) fn new(characters: usize, size: &Size, generator: &Generator) -> Result<Self> {
        let weights = generator.fork("weights");
        let table = |rows| -> Result<Embedding> {
            let table = Tensor::zeros([rows, size.width], DType::F32)?;
            init::normal(&table, 0.0, 0.02, &weights)?;
            Ok(Embedding::from_tensor(table)?)
        };
        let layer = || -> Result<TransformerEncoderLayer> {
            let (width, inner) = (size.width, 4 * size.width);
            let layer = TransformerEncoderLayer::new(width, HEADS, inner, size.rate, &weights)?;
            Ok(layer.norm_first(true).activation(Activation::Gelu))
        };
        let mut model = Self {
            tokens: table(characters)?,
            positions: table(size.context)?,
            dropout: Dropout::new(size.rate)?,
            layers: (0..size.layers).map(|_| layer()).collect::<Result<_>>()?,
            norm: LayerNorm::new([size.width])?,
            head: Linear::new(size.width, characters, &weights)?,
            checkpointed: false,
        };
        model.fork_generators(&generator.fork("masks"));
        Ok(model)
    }

    /// The same model, whose layers are [checkpoints](sorix::autograd::checkpoint).
    pub(crate) fn checkpointed(self) -> Self {
        let checkpointed = true;
        Self {
            checkpointed,
            ..self
        }
    }

    pub(crate) fn parameters(&self) -> usize {
        let parameters = self.named_parameters().into_iter();
        parameters.map(|(_, tensor)| tensor.numel()).sum()
    }

    /// The text goes on after `begin`, each character drawn with the probability that the model gives it.
    pub(crate) fn continue_text(
        &self,
        begin: &[usize],
        count: usize,
        generator: &Generator,
    ) -> Result<Vec<usize>> {
        let mut text = begin.to_vec();
        for _ in 0..count {
            let seen = &text[text
                .len()
                .saturating_sub(self.positions.weight().shape()[0])..];
            let x: Vec<f32> = seen.iter().map(|&i| i as f32).collect();
            let logits = no_grad(|| self.forward(&Tensor::from_vec(x, [1, seen.len()])?))?;
            let last = logits.slice(1, seen.len() - 1..)?.softmax(-1)?;
            let last = last.to_dtype(DType::F64)?.to_vec::<f64>()?;
            let draw = Tensor::uniform([1], 0.0, 1.0, DType::F64, generator.next_key())?;
            let mut left = draw.item::<f64>()?;
            let drawn = last.iter().position(|probability| {
                left -= probability;
                left < 0.0
            });
            // If all are taken away and something is left, that is rounding.
            text.push(drawn.unwrap_or(last.len() - 1));
        }
        Ok(text.split_off(begin.len()))
    }
}

impl Module for LanguageModel {
    fn forward(&self, x: &Tensor) -> sorix::nn::Result<Tensor> {
        let length = x.shape()[x.ndim() - 1];
        let positions: Vec<usize> = (0..length).collect();
        let positions = self.positions.lookup(&positions)?;
        let mut x = self
            .dropout
            .forward(&self.tokens.forward(x)?.add(&positions)?)?;
        let causal = AttentionMasks::new().is_causal(true);
        for layer in &self.layers {
            x = if self.checkpointed {
                // A clone has the same parameters and the same generators.
                let layer = layer.clone();
                checkpoint(move |x| layer.encode(&x[0], causal), &[&x])?
            } else {
                layer.encode(&x, causal)?
            };
        }
        self.head.forward(&self.norm.forward(&x)?)
    }
}
