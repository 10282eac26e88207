//! [`Mode`]: whether a module trains.

/// Whether a module trains or is used.
///
/// An enum and not a `bool`, so that a call says which it means.
///
/// ```
/// use sorix_nn::{Dropout, Mode, Module};
/// let mut dropout = Dropout::new(0.5)?;
/// assert_eq!(dropout.mode(), Some(Mode::Train));
/// dropout.set_mode(Mode::Eval);
/// assert_eq!(dropout.mode(), Some(Mode::Eval));
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Dropout drops. A new module is in this mode, as in PyTorch.
    #[default]
    Train,
    /// Dropout returns its input.
    Eval,
}
