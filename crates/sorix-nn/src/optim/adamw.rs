//! [`AdamW`]: Adam with weight decay beside the gradient.

use super::adam::AdamWith;

/// Adam with decoupled weight decay, as `torch.optim.AdamW` computes it: [`Adam`](super::Adam)
/// without decay in the gradient, and `w ← w - η λ w` in the same step.
///
/// Source: Loshchilov and Hutter, *Decoupled weight decay regularization*, ICLR 2019.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{AdamW, Optimizer};
///
/// let w = tensor([1.0]).requires_grad(true);
/// let mut adamw = AdamW::new([("w".to_owned(), w.clone())], 0.25)?.weight_decay(0.5)?.eps(1e-30)?;
/// w.sum()?.backward()?;
/// adamw.step()?;
/// assert!((w.item::<f64>()? - (1.0 - 0.25 * 0.5 - 0.25)).abs() < 1e-12);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub type AdamW = AdamWith<true>;
