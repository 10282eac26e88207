//! [`Pass`]: what a kernel makes of the elements that a mask keeps and drops.
//!
//! A kernel is its arithmetic, and this is where it is: what a pass is called and holds, what it reads
//! beside the input, and what it makes of one vector and of one element. The loop over elements
//! (alignment, tails, streaming, in place or not, the making of bits) is in `kernel/` and is the same
//! for all. `reference.rs` says what each pass means without any of this.

use core::marker::PhantomData;

use crate::affine::Affine;
use crate::buffers::{Beside, Buffers};
use crate::element::Element;
use crate::error::LengthError;
use crate::kernel::{Arithmetic, Compute};
use crate::rate::DropRate;
use crate::simd::Lanes;

/// Defines [`Pass`] and [`PassKind`] from one list, so that none is without the other.
macro_rules! passes {
    ($(
        $(#[doc = $doc:literal])*
        $name:ident = $text:literal, reads $reads:ident { $($(#[doc = $field_doc:literal])* $field:ident: $type:ty),* }
    )*) => {
        /// What a kernel makes of the elements that a mask keeps and drops: its arithmetic, one
        /// element at a time.
        ///
        /// A backend that does not know a pass hands the job to
        /// [`reference::apply`](crate::backend::reference::apply).
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum Pass<T: Element> {
            $($(#[doc = $doc])* $name { $($(#[doc = $field_doc])* $field: $type),* },)*
        }

        /// A [`Pass`] without its numbers.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum PassKind {
            $($(#[doc = $doc])* $name,)*
        }

        impl PassKind {
            /// Every kind there is.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The name in messages.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// What it reads beside the input.
            #[must_use]
            pub fn reads(self) -> Reads {
                match self {
                    $(Self::$name => Reads::$reads,)*
                }
            }
        }

        impl<T: Element> Pass<T> {
            /// Which pass it is.
            #[must_use]
            pub fn kind(&self) -> PassKind {
                match self {
                    $(Self::$name { .. } => PassKind::$name,)*
                }
            }
        }
    };
}

/// What a pass reads beside the input: which [`Beside`] its buffers have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reads {
    /// Nothing.
    Nothing,
    /// [`Beside::Elements`].
    Elements,
    /// [`Beside::Row`].
    Row,
}

/// What a pass makes of dropped elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Dropped<T> {
    /// The same number of all.
    Constant(T),
    /// What the input has.
    Input,
}

passes! {
    /// `x * scale` where kept, `+0.0` where dropped: inverted dropout.
    Scale = "scale", reads Nothing {
        /// What a kept element is multiplied by.
        scale: T::Scale
    }
    /// `x * scale + shift` where kept, `dropped` elsewhere; see [`Affine`] for what is rounded when.
    Affine = "affine", reads Nothing {
        /// What a kept element is multiplied by.
        scale: T::Scale,
        /// What is added to the product.
        shift: T::Scale,
        /// What a dropped element becomes.
        dropped: T
    }
    /// `x + beside * scale` where kept, `x` elsewhere: dropout of the second input, added to the first.
    AddScaled = "add_scaled", reads Elements {
        /// What a kept element of the second input is multiplied by.
        scale: T::Scale
    }
}

impl<T: Element> Pass<T> {
    /// Inverted dropout at `rate`.
    #[must_use]
    pub fn scale(rate: DropRate) -> Self {
        Self::Scale {
            scale: T::scale(rate),
        }
    }

    /// Inverted dropout of a second input at `rate`, added to the first.
    #[must_use]
    pub fn add_scaled(rate: DropRate) -> Self {
        Self::AddScaled {
            scale: T::scale(rate),
        }
    }

    /// The pass for `affine`: [`Pass::Scale`] if it is a multiplication and nothing else.
    #[must_use]
    pub fn affine(affine: Affine) -> Self {
        let scale = T::factor(affine.scale);
        if affine.is_scale() {
            return Self::Scale { scale };
        }
        Self::Affine {
            scale,
            shift: T::factor(affine.shift),
            dropped: T::narrow(T::factor(affine.dropped)),
        }
    }

    /// A pass of this kind at a rate, for tests: with numbers of its own for what the rate does not
    /// say.
    #[cfg(feature = "conformance")]
    pub(crate) fn sample(kind: PassKind, rate: DropRate) -> Self {
        match kind {
            PassKind::Scale => Self::scale(rate),
            PassKind::Affine => Self::affine(Affine {
                scale: rate.scale(),
                shift: -0.3,
                dropped: 0.1,
            }),
            PassKind::AddScaled => Self::add_scaled(rate),
        }
    }

    /// What dropped elements become.
    pub(crate) fn dropped(&self) -> Dropped<T> {
        match *self {
            Self::Scale { .. } => Dropped::Constant(T::ZERO),
            Self::Affine { dropped, .. } => Dropped::Constant(dropped),
            Self::AddScaled { .. } => Dropped::Input,
        }
    }

    /// Checks that `buffers` have what the pass reads beside the input, and nothing else.
    pub(crate) fn check(&self, buffers: &Buffers<'_, T>) -> Result<(), LengthError> {
        let (expected, got) = match (self.kind().reads(), buffers.beside()) {
            (Reads::Nothing, None)
            | (Reads::Elements, Some(Beside::Elements(_)))
            | (Reads::Row, Some(Beside::Row { .. })) => return Ok(()),
            (Reads::Nothing, Some(beside)) => (0, beside.len()),
            (Reads::Elements | Reads::Row, None) => (buffers.len(), 0),
            (Reads::Elements, Some(row)) => (buffers.len(), row.len()),
            (Reads::Row, Some(elements)) => (1, elements.len()),
        };
        Err(LengthError {
            what: "second input",
            expected,
            got,
        })
    }

    /// Runs `compute` with the arithmetic of the pass.
    #[inline(always)]
    pub(crate) fn compute<S: Lanes<T>>(
        self,
        simd: S,
        beside: Option<Beside<'_, T>>,
        compute: impl Compute<T, S>,
    ) {
        match (self, beside) {
            // Types, so that no loop asks.
            (Self::Scale { scale }, None) if simd.can_tie(scale) => {
                compute.with(Scaling::<T, S, true>::new(simd, scale), ());
            }
            (Self::Scale { scale }, None) => {
                compute.with(Scaling::<T, S, false>::new(simd, scale), ());
            }
            (
                Self::Affine {
                    scale,
                    shift,
                    dropped,
                },
                None,
            ) => compute.with(AffineMap::new(simd, scale, shift, dropped), ()),
            (Self::AddScaled { scale }, Some(Beside::Elements(elements))) => {
                compute.with(AddingScaled::new(simd, scale), elements);
            }
            (pass, _) => unreachable!("{pass:?} was checked to have what it reads"),
        }
    }
}

/// [`Pass::Scale`], by a scale whose products can be ties or cannot.
#[derive(Clone, Copy)]
struct Scaling<T: Element, S: Lanes<T>, const TIES: bool> {
    scale: T::Scale,
    wide: S::Wide,
}

impl<T: Element, S: Lanes<T>, const TIES: bool> Scaling<T, S, TIES> {
    #[inline(always)]
    fn new(simd: S, scale: T::Scale) -> Self {
        Self {
            scale,
            wide: simd.splat_wide(scale),
        }
    }
}

impl<T: Element, S: Lanes<T>, const TIES: bool> Arithmetic<T, S> for Scaling<T, S, TIES> {
    type Beside = ();

    #[inline(always)]
    fn vector(self, simd: S, x: S::Stored, (): (), bits: u64, at: usize) -> S::Stored {
        let y = simd.times(simd.widen(x), self.wide);
        simd.narrow_kept(y, TIES, bits, at)
    }

    #[inline(always)]
    fn element(self, x: T, (): (), keep: bool) -> T {
        if keep { x.times(self.scale) } else { T::ZERO }
    }
}

/// [`Pass::Affine`].
#[derive(Clone, Copy)]
struct AffineMap<T: Element, S: Lanes<T>> {
    scale: T::Scale,
    shift: T::Scale,
    dropped: T,
    wide_scale: S::Wide,
    wide_shift: S::Wide,
    stored_dropped: S::Stored,
}

impl<T: Element, S: Lanes<T>> AffineMap<T, S> {
    #[inline(always)]
    fn new(simd: S, scale: T::Scale, shift: T::Scale, dropped: T) -> Self {
        Self {
            scale,
            shift,
            dropped,
            wide_scale: simd.splat_wide(scale),
            wide_shift: simd.splat_wide(shift),
            stored_dropped: simd.splat_stored(dropped),
        }
    }
}

impl<T: Element, S: Lanes<T>> Arithmetic<T, S> for AffineMap<T, S> {
    type Beside = ();

    #[inline(always)]
    fn vector(self, simd: S, x: S::Stored, (): (), bits: u64, at: usize) -> S::Stored {
        let product = simd.times(simd.widen(x), self.wide_scale);
        let y = simd.narrow(simd.plus(product, self.wide_shift), true);
        simd.select(bits, at, y, self.stored_dropped)
    }

    #[inline(always)]
    fn element(self, x: T, (): (), keep: bool) -> T {
        if keep {
            x.times_plus(self.scale, self.shift)
        } else {
            self.dropped
        }
    }
}

/// [`Pass::AddScaled`].
#[derive(Clone, Copy)]
struct AddingScaled<'a, T: Element, S: Lanes<T>> {
    scale: T::Scale,
    wide: S::Wide,
    beside: PhantomData<&'a [T]>,
}

impl<T: Element, S: Lanes<T>> AddingScaled<'_, T, S> {
    #[inline(always)]
    fn new(simd: S, scale: T::Scale) -> Self {
        Self {
            scale,
            wide: simd.splat_wide(scale),
            beside: PhantomData,
        }
    }
}

impl<'a, T: Element, S: Lanes<T>> Arithmetic<T, S> for AddingScaled<'a, T, S> {
    type Beside = &'a [T];

    #[inline(always)]
    fn vector(self, simd: S, x: S::Stored, beside: S::Stored, bits: u64, at: usize) -> S::Stored {
        let scaled = simd.times(simd.widen(beside), self.wide);
        let y = simd.narrow(simd.plus(simd.widen(x), scaled), true);
        simd.select(bits, at, y, x)
    }

    #[inline(always)]
    fn element(self, x: T, beside: T, keep: bool) -> T {
        if keep {
            beside.times_plus(self.scale, x.widened())
        } else {
            x
        }
    }
}
