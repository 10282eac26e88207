//! For authors of backends: the traits, what a backend is given, and what it is held to.
//!
//! * [`Backend`] is a name and the two traits that do the work: [`MakeMasks`] makes the bits of masks,
//!   [`Kernels`] applies them to elements of one type.
//! * [`job`]: what a method of these is given. Its slices have lengths that were checked. The parts of a
//!   job: [`Pass`] says what becomes of an element, [`Beside`] is what some passes read beside the input,
//!   [`KeepRule`] the numbers by which bits are made, [`BitSliceMut`] the place where they go.
//! * [`reference`](mod@reference): every kernel in its most obvious form. A backend writes the same, bit
//!   for bit; what it does not do itself, it leaves to these functions.
//! * `conformance` (feature `conformance`): `check_backend` holds a backend to the reference.
//! * [`stream`](crate::stream) defines the bits. [`Engine::new`](crate::Engine::new) runs a backend, and
//!   [`set_active`](crate::dispatch::set_active) makes it that of the process.
//!
//! The example `own_backend` of this crate is a backend that is checked and then used.

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod job;
pub mod reference;

use core::fmt::Debug;

use half::{bf16, f16};

pub use crate::buffers::Beside;
use crate::element::Element;
pub use crate::keep::KeepRule;
pub use crate::mask::BitSliceMut;
pub use crate::pass::{Pass, PassKind, Reads};
use job::{Apply, Dropout, DropoutAddNorm, FillMask, Map, NormBackward};
use reference::Reference;

/// What makes the bits of masks.
pub trait MakeMasks: Debug + Send + Sync {
    /// Writes the bits of a window of a mask.
    fn fill_mask(&self, job: FillMask<'_>) {
        reference::fill_mask(job);
    }
}

/// The kernels for one element type.
pub trait Kernels<T: Element>: MakeMasks {
    /// Applies a mask.
    fn apply(&self, job: Apply<'_, T>) {
        reference::apply(job);
    }

    /// Makes a mask and applies it.
    fn dropout(&self, job: Dropout<'_, T>) {
        job.compose(|fill| self.fill_mask(fill), |apply| self.apply(apply));
    }

    /// Adds dropout of x to a residual, and normalises the rows of the sum.
    fn dropout_add_norm(&self, job: DropoutAddNorm<'_, T>) {
        reference::dropout_add_norm(job);
    }

    /// The gradient of a normalisation.
    fn norm_backward(&self, job: NormBackward<'_, T>) {
        reference::norm_backward(job);
    }

    /// Computes a function of every element.
    fn map(&self, job: Map<'_, T>) {
        reference::map(job);
    }
}

/// Something that can carry out the kernels, over whole ranges of elements.
///
/// The built-in ones are listed by [`available`](crate::dispatch::available). A backend of your own
/// needs nothing but this trait and the two that it is made of, in safe code: jobs hand out slices
/// whose lengths were checked, and no memory safety depends on what is written into them. What is
/// written does matter: it must be bit for bit what the [reference](mod@reference) writes. A
/// kernel that is left out *is* the reference's, so a backend can begin with the one that matters and
/// grow. [`Kernels::dropout`], if left out, is [composed](Dropout::compose) of the other two. A [`Pass`]
/// that a backend does not know goes to [`reference::apply`].
///
/// ```
/// use sorix_kernels::backend::job::{Apply, FillMask};
/// use sorix_kernels::backend::{Backend, Kernels, MakeMasks, reference};
/// use sorix_kernels::{BitMask, DropRate, Element, Engine, MaskKey};
///
/// #[derive(Debug)]
/// struct Loud;
///
/// impl Backend for Loud {
///     fn name(&self) -> &'static str {
///         "loud"
///     }
/// }
///
/// impl MakeMasks for Loud {
///     fn fill_mask(&self, job: FillMask<'_>) {
///         println!("{} bits of {:?}", job.len(), job.window());
///         reference::fill_mask(job);
///     }
/// }
///
/// // For all element types at once; or `impl Kernels<f32> for Loud` and so on.
/// impl<T: Element> Kernels<T> for Loud {
///     fn apply(&self, job: Apply<'_, T>) {
///         println!("{:?} of {} elements", job.update().pass(), job.update().len());
///         reference::apply(job);
///     }
/// }
///
/// let engine = Engine::new(&Loud);
/// let (mut mask, mut same) = (BitMask::new(100), BitMask::new(100));
/// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(1, 2));
/// engine.fill_mask(rate, key, &mut mask)?;
/// sorix_kernels::dropout::fill_mask(rate, key, &mut same)?;
/// assert_eq!(mask, same);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub trait Backend: Kernels<f32> + Kernels<f64> + Kernels<bf16> + Kernels<f16> {
    /// A short lower-case name, as in `SORIX_BACKEND`.
    fn name(&self) -> &'static str;
}

impl Backend for Reference {
    fn name(&self) -> &'static str {
        "reference"
    }
}

impl MakeMasks for Reference {}

impl<T: Element> Kernels<T> for Reference {
    fn dropout(&self, job: Dropout<'_, T>) {
        reference::dropout(job);
    }
}
