//! The modules as functions.
//!
//! A function has no state: what a module would keep, here the mode and the generator, is named in
//! each call. In particular nothing is dropped unless the call says [`Mode::Train`].

use sorix_core::{DropRate, SaveMask, Tensor};

use crate::error::Result;
use crate::generator::Generator;
use crate::mode::Mode;

/// [`Dropout`](crate::Dropout) as a function, with its mask kept as bits.
///
/// In training it takes one key of `generator`, in eval none.
///
/// # Errors
///
/// Where p is not in [0, 1], in either mode, and those of [`Tensor::dropout`].
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{Generator, Mode, functional};
///
/// let generator = Generator::new(42);
/// let x = tensor([1.0; 100]);
/// let y = functional::dropout(&x, 0.5, Mode::Train, &generator)?;
/// assert!(y.to_vec::<f64>()?.iter().all(|&y| y == 0.0 || y == 2.0));
/// assert!(functional::dropout(&x, 0.5, Mode::Eval, &generator)?.same_storage(&x));
/// assert_eq!(generator.state().offset, 1);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn dropout(x: &Tensor, p: f64, mode: Mode, generator: &Generator) -> Result<Tensor> {
    let rate = DropRate::new(p)?;
    match mode {
        Mode::Train => Ok(x.dropout(rate, generator.next_key(), SaveMask::Bits)?),
        Mode::Eval => Ok(x.clone()),
    }
}
