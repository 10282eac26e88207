//! [`EmbeddingDropout`]: whole rows of a table.

use sorix_core::Tensor;

use crate::dropout::{Draw, DropoutLayer, Form, shared_outside};
use crate::error::Result;
use crate::layers::Embedding;
use crate::module::Module;
use crate::visit::Visit;

/// An [`Embedding`] that drops words: in training each row of the table is 0 with probability p, and
/// scaled by `1 / (1 - p)` otherwise, wherever the row is looked up in the batch. In eval it is the
/// embedding.
///
/// The mask has one bit for each row. p, the generator and how the mask is kept are those of a
/// [`DropoutLayer<Rows>`], the child `"dropout"`. The parameter is `weight`, as that of the embedding is, so
/// that a file of one fits the other.
///
/// Source: Gal and Ghahramani, *A theoretically grounded application of dropout in recurrent neural
/// networks*, NeurIPS 2016, section 4.2; as used by Merity et al., *Regularizing and optimizing LSTM
/// language models*, ICLR 2018.
///
/// ```
/// use sorix_core::{DType, Tensor, tensor};
/// use sorix_nn::dropout::{DropoutLayer, Rows};
/// use sorix_nn::{Embedding, EmbeddingDropout, Generator, Module};
///
/// let table = Embedding::from_tensor(Tensor::ones([50, 3], DType::F64)?)?;
/// let rows = DropoutLayer::<Rows>::new(0.5)?.generator(Generator::new(42));
/// let mut embedding = EmbeddingDropout::new(table, rows);
/// let y = embedding.forward(&tensor([7.0, 8.0, 7.0]))?.to_vec::<f64>()?;
/// assert!(y.chunks(3).all(|word| word == [0.0; 3] || word == [2.0; 3]));
/// assert_eq!(y[..3], y[6..]);
///
/// embedding.eval();
/// assert_eq!(embedding.forward(&tensor([7.0]))?.to_vec::<f64>()?, [1.0; 3]);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct EmbeddingDropout {
    embedding: Embedding,
    dropout: DropoutLayer<Rows>,
}

/// The form of [`EmbeddingDropout`]: whole rows, that is all elements of one index of the first axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows;

impl Form for Rows {
    fn layer(&self) -> &'static str {
        "EmbeddingDropout"
    }

    fn mask_shape(&self, shape: &[usize]) -> Result<Vec<usize>> {
        Ok(shared_outside(shape, |axis| axis == 0))
    }

    fn apply(&self, x: &Tensor, draw: &Draw) -> Result<Tensor> {
        Ok(x.dropout_broadcast(draw.rate, draw.at, &draw.mask_shape, draw.save)?)
    }
}

impl EmbeddingDropout {
    /// `embedding`, with rows of its table dropped by `dropout`.
    #[must_use]
    pub fn new(embedding: Embedding, dropout: DropoutLayer<Rows>) -> Self {
        Self { embedding, dropout }
    }

    /// The embedding.
    #[must_use]
    pub fn embedding(&self) -> &Embedding {
        &self.embedding
    }
}

impl Visit for EmbeddingDropout {
    fn visit_own_parameters(&self, visit: &mut dyn FnMut(&str, &Tensor)) {
        self.embedding.visit_own_parameters(visit);
    }

    fn visit_own_parameters_mut(&mut self, visit: &mut dyn FnMut(&str, &mut Tensor)) {
        self.embedding.visit_own_parameters_mut(visit);
    }

    fn boxed_clone(&self) -> Option<Box<dyn Module>> {
        Some(Box::new(self.clone()))
    }

    fn visit_children(&self, visit: &mut dyn FnMut(&str, &dyn Module)) {
        visit("dropout", &self.dropout);
    }

    fn visit_children_mut(&mut self, visit: &mut dyn FnMut(&str, &mut dyn Module)) {
        visit("dropout", &mut self.dropout);
    }
}

impl Module for EmbeddingDropout {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // Before the mask takes a key.
        let rows = self.embedding.rows_of(x)?;
        let table = self.dropout.forward_whole(self.embedding.weight())?;
        self.embedding.vectors(&table, &rows, x.shape())
    }
}
