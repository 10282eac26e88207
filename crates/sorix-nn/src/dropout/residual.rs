//! [`Residual`]: a block, dropout of what it makes, and the way around both.

use sorix_core::Tensor;

use crate::dropout::{DropoutLayer, Elements, Form};
use crate::error::Result;
use crate::module::Module;

/// `x + dropout(block(x))`, of a block whose output has the shape and dtype of its input. The sum is made in
/// the pass of the dropout: see [`forward_add`](DropoutLayer::forward_add).
///
/// With a [`Dropout`](crate::Dropout) it is a sublayer of a transformer, with a
/// [`DropPath`](crate::DropPath) one that stochastic depth skips. The children are `"block"` and
/// `"dropout"`.
///
/// Source: He et al., *Deep residual learning for image recognition*, CVPR 2016; with dropout Vaswani et
/// al., *Attention is all you need*, NeurIPS 2017, section 5.4.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{DropPath, Generator, Module, ReLU, Residual};
///
/// let drop_path = DropPath::new(0.5)?.generator(Generator::new(42));
/// let mut block = Residual::new(ReLU, drop_path);
/// let x = tensor([[3.0; 4]; 50]);
/// let y = block.forward(&x)?.to_vec::<f64>()?;
/// assert!(y.chunks(4).all(|sample| sample == [3.0; 4] || sample == [9.0; 4]));
///
/// block.eval();
/// assert!(block.forward(&x)?.to_vec::<f64>()?.iter().all(|&y| y == 6.0));
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct Residual<M, F: Form = Elements> {
    block: M,
    dropout: DropoutLayer<F>,
}

impl<M: Module, F: Form> Residual<M, F> {
    /// The sum of the input and of what `dropout` leaves of the output of `block`.
    #[must_use]
    pub fn new(block: M, dropout: DropoutLayer<F>) -> Self {
        Self { block, dropout }
    }

    /// The block.
    #[must_use]
    pub fn block(&self) -> &M {
        &self.block
    }
}

impl<M: Module, F: Form> Module for Residual<M, F> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.dropout.forward_add(&self.block.forward(x)?, x)
    }
}
