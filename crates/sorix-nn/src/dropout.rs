//! [`Dropout`]: inverted dropout as a module.

use std::sync::Arc;

use sorix_core::{DropRate, MaskWindow, SaveMask, Tensor};

use crate::error::Result;
use crate::generator::{Generator, default_generator};
use crate::mode::Mode;
use crate::module::Module;

/// Inverted dropout: in training each element becomes 0 with probability p and `x / (1 - p)`
/// otherwise, so that its expected value stays; in eval the input itself comes back.
///
/// Works on any shape and dtype. In training each call takes one key of the generator: the module's
/// own, where it was given one, else the [process-wide](default_generator) one. A clone shares the
/// generator, so the two draw different masks.
///
/// Source: Srivastava et al., *Dropout: a simple way to prevent neural networks from overfitting*,
/// JMLR 15 (2014), section 10.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{Dropout, Generator, Module};
///
/// let mut dropout = Dropout::new(0.5)?.generator(Generator::new(42));
/// let x = tensor([1.0, 2.0, 3.0]).requires_grad(true);
/// let y = dropout.forward(&x)?;
/// y.sum()?.backward()?;
///
/// // The gradient is 2 where the element was kept and 0 where it was not.
/// assert_eq!(x.mul(&x.grad().unwrap())?.to_vec::<f64>()?, y.to_vec::<f64>()?);
///
/// dropout.eval();
/// assert!(dropout.forward(&x)?.same_storage(&x));
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Dropout {
    rate: DropRate,
    mode: Mode,
    save_mask: SaveMask,
    generator: Option<Arc<Generator>>,
}

impl Dropout {
    /// Drops with probability `p`; in training, with the generator of the process, and with its
    /// masks kept as bits.
    ///
    /// # Errors
    ///
    /// Where p is NaN or outside [0, 1].
    ///
    /// ```
    /// use sorix_nn::Dropout;
    /// assert_eq!(Dropout::new(0.3)?.rate().p(), 0.3);
    /// assert!(Dropout::new(-0.1).is_err());
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn new(p: f64) -> Result<Self> {
        Ok(Self {
            rate: DropRate::new(p)?,
            mode: Mode::default(),
            save_mask: SaveMask::default(),
            generator: None,
        })
    }

    /// Takes its keys from this generator: one of its own, or an `Arc` of one that it shares.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use sorix_core::tensor;
    /// use sorix_nn::{Dropout, Generator, Module};
    ///
    /// let shared = Arc::new(Generator::new(42));
    /// let first = Dropout::new(0.5)?.generator(Arc::clone(&shared));
    /// let second = Dropout::new(0.5)?.generator(Arc::clone(&shared));
    /// second.forward(&first.forward(&tensor([1.0]))?)?;
    /// assert_eq!(shared.state().offset, 2);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn generator(mut self, generator: impl Into<Arc<Generator>>) -> Self {
        self.generator = Some(generator.into());
        self
    }

    /// Keeps its masks in this form until backward.
    ///
    /// ```
    /// use sorix_nn::{Dropout, SaveMask};
    /// let dropout = Dropout::new(0.1)?.save_mask(SaveMask::Replay);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn save_mask(mut self, save_mask: SaveMask) -> Self {
        self.save_mask = save_mask;
        self
    }

    /// The probability of dropping.
    #[must_use]
    pub fn rate(&self) -> DropRate {
        self.rate
    }

    /// Drops in either mode, by the mask that `at` names; no generator is asked.
    ///
    /// For a service that draws several samples of a trained network (Monte Carlo dropout) and
    /// must give the same answer to the same request: the key comes with the request.
    ///
    /// # Errors
    ///
    /// Those of [`Tensor::dropout`].
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Dropout, MaskKey, Module};
    ///
    /// let mut dropout = Dropout::new(0.5)?;
    /// dropout.eval();
    /// let (x, request) = (tensor([1.0; 64]), MaskKey { seed: 1234, offset: 0 });
    /// let y = dropout.forward_with_key(&x, request)?.to_vec::<f64>()?;
    /// assert_eq!(dropout.forward_with_key(&x, request)?.to_vec::<f64>()?, y);
    /// assert!(y.contains(&0.0) && y.contains(&2.0));
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn forward_with_key(&self, x: &Tensor, at: impl Into<MaskWindow>) -> Result<Tensor> {
        Ok(x.dropout(self.rate, at, self.save_mask)?)
    }
}

impl Module for Dropout {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self.mode {
            Mode::Train => {
                let key = match &self.generator {
                    Some(generator) => generator.next_key(),
                    None => default_generator()?.next_key(),
                };
                self.forward_with_key(x, key)
            }
            Mode::Eval => Ok(x.clone()),
        }
    }

    fn visit_own_generators(&self, visit: &mut dyn FnMut(&str, &Arc<Generator>)) {
        if let Some(generator) = &self.generator {
            visit("generator", generator);
        }
    }

    fn mode(&self) -> Option<Mode> {
        Some(self.mode)
    }

    fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }
}
