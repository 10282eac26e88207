//! Modules, generators of masks, optimisers and checkpoints: all of `sorix-nn`.
//!
//! ```
//! use sorix::nn::{Dropout, Linear, Module, Result};
//! use sorix::{Generator, Tensor};
//!
//! /// A residual block.
//! #[derive(Debug, Module)]
//! struct Block {
//!     linear: Linear,
//!     dropout: Dropout,
//! }
//!
//! impl Module for Block {
//!     fn forward(&self, x: &Tensor) -> Result<Tensor> {
//!         Ok(x.add(&self.dropout.forward(&self.linear.forward(x)?)?)?)
//!     }
//! }
//!
//! let linear = Linear::new(4, 4, &Generator::new(42))?;
//! let mut block = Block { linear, dropout: Dropout::new(0.1)? };
//! block.eval();
//! let names: Vec<_> = block.named_parameters().into_iter().map(|(name, _)| name).collect();
//! assert_eq!(names, ["linear.weight", "linear.bias"]);
//! # Ok::<(), sorix::Error>(())
//! ```

/// The derive of sorix-nn, which names that crate by its path in this one.
#[doc(no_inline)]
pub use sorix_derive::FacadeModule as Module;
#[doc(inline)]
pub use sorix_nn::*;
