//! What most programs use, for one line of `use`.
//!
//! [`Error`](crate::Error) and [`Result`](crate::Result) are not here, so that `Result<T, E>` stays
//! what it is.
//!
//! ```
//! use sorix::prelude::*;
//!
//! let generator = Generator::new(42);
//! let mut net = Sequential::new()
//!     .with(Linear::new(3, 16, &generator)?)
//!     .with(ReLU)
//!     .with(Dropout::new(0.1)?.generator(generator.fork("dropout")))
//!     .with(Linear::new(16, 1, &generator)?);
//! let mut optimizer = Adam::new(net.named_parameters(), 1e-3)?;
//!
//! let (x, y) = (Tensor::ones([8, 3], DType::F32)?, Tensor::zeros([8, 1], DType::F32)?);
//! optimizer.zero_grad();
//! let loss = loss::mse_loss(&net.forward(&x)?, &y, Reduction::Mean)?;
//! loss.backward()?;
//! optimizer.step()?;
//!
//! net.eval();
//! let after = no_grad(|| loss::mse_loss(&net.forward(&x)?, &y, Reduction::Mean))?;
//! assert!(after.item::<f32>()?.is_finite() && !after.needs_grad());
//! # Ok::<(), sorix::Error>(())
//! ```

#[doc(no_inline)]
pub use crate::nn::{
    Adam, AdamW, AlphaDropout, BroadcastDropout, DropBlock2d, DropPath, Dropout, Dropout1d,
    Dropout2d, Dropout3d, Embedding, EmbeddingDropout, FeatureAlphaDropout, GELU, GELUDropout,
    GaussianDropout, Generator, LayerNorm, Linear, LockedDropout, Mode, Module, Optimizer, ReLU,
    ReLUDropout, Reduction, Residual, Schedule, Sequential, Sgd, SiLU, SiLUDropout, Sigmoid,
    Softmax, SwiGLU, SwiGLUDropout, Tanh, WeightDropout, functional, init, loss, manual_seed,
};
#[doc(no_inline)]
pub use sorix_core::autograd::no_grad;
#[doc(no_inline)]
pub use sorix_core::{DType, DropRate, MaskKey, SaveMask, Tensor, tensor};
