//! [`WeightDropout`]: the weights of a linear layer.

use sorix_core::Tensor;

use crate::dropout::Dropout;
use crate::error::Result;
use crate::layers::Linear;
use crate::layers::linear::{check_input, linear};
use crate::module::Module;
use crate::visit::Visit;

/// A [`Linear`] that drops weights: in training each is 0 with probability p and scaled by
/// `1 / (1 - p)` otherwise, by one mask for the whole batch. The bias stays. In eval it is the linear
/// layer.
///
/// The mask has one bit for each weight: less than one for each element of the output if the batch is
/// larger than the number of inputs. p, the generator and how the mask is kept are those of a
/// [`Dropout`], the child `"dropout"`. The parameters are `weight` and `bias`, as those of the linear layer
/// are, so that a file of one fits the other.
///
/// Source: Wan et al., *Regularization of neural networks using DropConnect*, ICML 2013; scaled in
/// training as by Merity et al., *Regularizing and optimizing LSTM language models*, ICLR 2018.
///
/// ```
/// use sorix_core::{Tensor, tensor};
/// use sorix_nn::{Dropout, Generator, Linear, Module, WeightDropout};
///
/// let linear = Linear::from_tensors(tensor([[1.0, 1.0, 1.0]]), Some(tensor([0.5])))?;
/// let dropout = Dropout::new(0.5)?.generator(Generator::new(42));
/// let mut layer = WeightDropout::new(linear, dropout);
/// // Each of the three weights is 0 or 2.
/// let y = layer.forward(&tensor([[1.0, 10.0, 100.0]]))?.item::<f64>()?;
/// assert!([0.5, 2.5, 20.5, 22.5, 200.5, 202.5, 220.5, 222.5].contains(&y));
///
/// layer.eval();
/// assert_eq!(layer.forward(&tensor([[1.0, 10.0, 100.0]]))?.item::<f64>()?, 111.5);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct WeightDropout {
    linear: Linear,
    dropout: Dropout,
}

impl WeightDropout {
    /// `linear`, with its weight dropped by `dropout`.
    #[must_use]
    pub fn new(linear: Linear, dropout: Dropout) -> Self {
        Self { linear, dropout }
    }

    /// The linear layer.
    #[must_use]
    pub fn linear(&self) -> &Linear {
        &self.linear
    }
}

impl Visit for WeightDropout {
    fn visit_own_parameters(&self, visit: &mut dyn FnMut(&str, &Tensor)) {
        self.linear.visit_own_parameters(visit);
    }

    fn visit_own_parameters_mut(&mut self, visit: &mut dyn FnMut(&str, &mut Tensor)) {
        self.linear.visit_own_parameters_mut(visit);
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

impl Module for WeightDropout {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // Before the mask takes a key.
        check_input(x, self.linear.weight())?;
        let weight = self.dropout.forward_whole(self.linear.weight())?;
        linear(x, &weight, self.linear.bias())
    }
}
