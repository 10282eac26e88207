//! The text: the first book of Cicero's *De finibus bonorum et malorum*, in Latin, from the crate `lipsum`.

use anyhow::{Result, ensure};
use sorix::{DType, Tensor};

/// A text as numbers of characters, in three parts.
#[derive(Debug)]
pub(crate) struct Text {
    /// What the numbers mean.
    characters: Vec<char>,
    /// The first 80 %.
    pub(crate) train: Vec<usize>,
    /// The next 10 %.
    pub(crate) validation: Vec<usize>,
    /// The last 10 %.
    pub(crate) test: Vec<usize>,
}

impl Text {
    /// The book with one space between two words.
    ///
    /// # Errors
    ///
    /// If a part has no `context` characters and one more.
    pub(crate) fn cicero(context: usize) -> Result<Self> {
        let words: Vec<&str> = lipsum::LIBER_PRIMUS.split_whitespace().collect();
        let text: Vec<char> = words.join(" ").chars().collect();
        let mut characters = text.clone();
        characters.sort_unstable();
        characters.dedup();
        let number = |c: &char| characters.partition_point(|other| other < c);
        let numbers: Vec<usize> = text.iter().map(number).collect();
        let (train, rest) = numbers.split_at(numbers.len() * 8 / 10);
        let (validation, test) = rest.split_at(rest.len() / 2);
        ensure!(
            (1..validation.len()).contains(&context),
            "expected a context of 1 to {} characters, got {context}",
            validation.len() - 1
        );
        Ok(Self {
            train: train.to_vec(),
            validation: validation.to_vec(),
            test: test.to_vec(),
            characters,
        })
    }

    pub(crate) fn characters(&self) -> usize {
        self.characters.len()
    }

    pub(crate) fn spell(&self, numbers: &[usize]) -> String {
        numbers.iter().map(|&i| self.characters[i]).collect()
    }
}

/// Characters, and the one that follows each.
#[derive(Debug)]
pub(crate) struct Batch {
    /// `[samples, context]`, f32
    pub(crate) x: Tensor,
    pub(crate) next: Vec<usize>,
}

impl Batch {
    /// What begins at each of `starts`.
    pub(crate) fn new(text: &[usize], starts: &[usize], context: usize) -> Result<Self> {
        let of = |shift| {
            let windows = starts.iter().map(move |&start| start + shift);
            windows.flat_map(|start| &text[start..start + context])
        };
        let x: Vec<f64> = of(0).map(|&i| i as f64).collect();
        Ok(Self {
            x: Tensor::from_vec(x, [starts.len(), context])?.to_dtype(DType::F32)?,
            next: of(1).copied().collect(),
        })
    }
}
