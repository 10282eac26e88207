//! The modules as functions.
//!
//! A function has no state: what a module would keep, here the mode and the generator, is named in
//! each call. In particular nothing is dropped unless the call says [`Mode::Train`], or a
//! [`monte_carlo`](crate::monte_carlo) scope around it does.

use sorix_core::{DropRate, SaveMask, Tensor};

use crate::dropout::{Elements, Form, draw};
use crate::error::Result;
use crate::generator::Generator;
use crate::mode::Mode;
use crate::monte_carlo::{is_monte_carlo, scope_key};

/// Any [form](crate::dropout) of dropout as a function, with its mask kept as bits.
///
/// In training it takes one key of `generator`, in eval none.
///
/// # Errors
///
/// Where p is not in [0, 1], in either mode; where the form does not fit the shape of `x`; and those
/// of the operations it consists of. No key is taken in the first two cases.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::dropout::Elements;
/// use sorix_nn::{Generator, Mode, functional};
///
/// let (generator, again) = (Generator::new(42), Generator::new(42));
/// let x = tensor([1.0; 100]);
/// let y = functional::dropout_form(&Elements, &x, 0.5, Mode::Train, &generator)?;
/// let z = functional::dropout(&x, 0.5, Mode::Train, &again)?;
/// assert_eq!(y.to_vec::<f64>()?, z.to_vec::<f64>()?);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn dropout_form(
    form: &impl Form,
    x: &Tensor,
    p: f64,
    mode: Mode,
    generator: &Generator,
) -> Result<Tensor> {
    let rate = DropRate::new(p)?;
    if mode == Mode::Eval && !is_monte_carlo() {
        return Ok(x.clone());
    }
    let key = || Ok(scope_key().unwrap_or_else(|| generator.next_key()));
    draw(form, x, rate, SaveMask::Bits, key)
}

/// [`Dropout`](crate::Dropout) as a function, with its mask kept as bits.
///
/// # Errors
///
/// As [`dropout_form`].
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
    dropout_form(&Elements, x, p, mode, generator)
}
