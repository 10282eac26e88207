//! [`Pass`]: what a kernel makes of the elements that a mask keeps and drops.
//!
//! A kernel is its arithmetic, and this is where it is: what a pass is called and holds, what it reads
//! beside the input, and what it makes of one vector and of one element. The loop over elements
//! (alignment, tails, streaming, in place or not, the making of bits) is in `kernel/` and is the same
//! for all. `reference.rs` says what each pass means without any of this.

use core::marker::PhantomData;

use crate::activation::Activation;
use crate::affine::Affine;
use crate::buffers::{Beside, Buffers};
use crate::element::Element;
use crate::error::LengthError;
use crate::function::Function;
use crate::kernel::{Arithmetic, Bias, Biased, Compute, Row, Seam};
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

/// What a pass reads beside the input: what the [`Beside`] of its buffers has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reads {
    /// Nothing.
    Nothing,
    /// A row, if there is one.
    Row,
    /// Elements; and a row, if there is one.
    ElementsAndRow,
    /// Elements, if there are any; and a row, if there is one.
    Any,
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
    /// `x + (element + row) * scale` where kept, `x` elsewhere: dropout of the elements beside the input,
    /// added to it. Without a row nothing is added to the elements.
    AddScaled = "add_scaled", reads ElementsAndRow {
        /// What a kept element beside the input is multiplied by.
        scale: T::Scale
    }
    /// `(x + row) * scale` where kept and not `x + row <= 0`, `+0.0` elsewhere: dropout of the rectifier.
    /// Without a row nothing is added to x. The bits that are left are its own: see [`Pass::decides`].
    Rectify = "rectify", reads Row {
        /// What a kept element is multiplied by.
        scale: T::Scale
    }
    /// `f(x + row) * element * scale` where kept, `+0.0` elsewhere: dropout of a function of x; or of its product
    /// with the elements beside it; or, with a derivative, and the gradient of the values beside x, that of x.
    /// Without a row nothing is added to x, without elements nothing multiplied by.
    Map = "map", reads Any {
        /// The function.
        function: Function,
        /// What a kept element is multiplied by, last.
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

    /// Inverted dropout, at `rate`, of the elements beside the input and their bias, added to the input.
    #[must_use]
    pub fn add_scaled(rate: DropRate) -> Self {
        Self::AddScaled {
            scale: T::scale(rate),
        }
    }

    /// Inverted dropout, at `rate`, of `activation` of the input and its bias.
    #[must_use]
    pub fn activation(activation: Activation, rate: DropRate) -> Self {
        let scale = T::scale(rate);
        match activation {
            Activation::Relu => Self::Rectify { scale },
            Activation::Gelu | Activation::GeluTanh | Activation::Silu => Self::Map {
                function: activation.function(),
                scale,
            },
        }
    }

    /// Inverted dropout, at `rate`, of `function` of the input.
    #[must_use]
    pub fn map(function: Function, rate: DropRate) -> Self {
        Self::Map {
            function,
            scale: T::scale(rate),
        }
    }

    /// Whether it drops some of the elements that the mask keeps, by their values: the bits that are left
    /// are then what backward needs, and [`Apply`](crate::backend::job::Apply) and
    /// [`Dropout`](crate::backend::job::Dropout) write those.
    #[must_use]
    pub fn decides(&self) -> bool {
        matches!(self, Self::Rectify { .. })
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
            PassKind::Rectify => Self::activation(Activation::Relu, rate),
            PassKind::Map => Self::map(Function::Silu, rate),
        }
    }

    /// What dropped elements become.
    pub(crate) fn dropped(&self) -> Dropped<T> {
        match *self {
            Self::Scale { .. } | Self::Rectify { .. } | Self::Map { .. } => {
                Dropped::Constant(T::ZERO)
            }
            Self::Affine { dropped, .. } => Dropped::Constant(dropped),
            Self::AddScaled { .. } => Dropped::Input,
        }
    }

    /// Checks that `buffers` have what the pass reads beside the input, and nothing else.
    pub(crate) fn check(&self, buffers: &Buffers<'_, T>) -> Result<(), LengthError> {
        let reads = self.kind().reads();
        let beside = buffers.beside();
        let elements = beside.elements().map_or(0, <[T]>::len);
        let row = beside.row().map_or(0, |(row, _)| row.len());
        let expected = match reads {
            Reads::ElementsAndRow => buffers.len(),
            Reads::Any => elements,
            Reads::Nothing | Reads::Row => 0,
        };
        LengthError::check("second input", expected, elements)?;
        match reads {
            Reads::Nothing => LengthError::check("row", 0, row),
            Reads::Row | Reads::ElementsAndRow | Reads::Any => Ok(()),
        }
    }

    /// Runs `compute` with the arithmetic of the pass.
    #[inline(always)]
    pub(crate) fn compute<S: Lanes<T>>(
        self,
        simd: S,
        beside: Beside<'_, T>,
        compute: impl Compute<T, S>,
    ) {
        // What is read beside the input is a type, so that no loop asks.
        match (self, beside.elements(), beside.row()) {
            (Self::Scale { scale }, ..) if simd.can_tie(scale) => {
                compute.with(Scaling::<T, S, true>::new(simd, scale), ());
            }
            (Self::Scale { scale }, ..) => {
                compute.with(Scaling::<T, S, false>::new(simd, scale), ());
            }
            (
                Self::Affine {
                    scale,
                    shift,
                    dropped,
                },
                ..,
            ) => compute.with(AffineMap::new(simd, scale, shift, dropped), ()),
            (Self::AddScaled { scale }, Some(elements), None) => {
                compute.with(AddingScaled::new(simd, scale), elements);
            }
            (Self::AddScaled { scale }, Some(elements), Some((row, at))) => {
                let seam = Seam::new(row);
                let beside = (elements, Row::new(row, at, &seam));
                compute.with(AddingScaled::new(simd, scale), beside);
            }
            (Self::Rectify { scale }, _, None) => {
                compute.with(Rectifying::new(simd, scale), ());
            }
            (Self::Rectify { scale }, _, Some((row, at))) => {
                let seam = Seam::new(row);
                compute.with(Rectifying::new(simd, scale), Row::new(row, at, &seam));
            }
            (pass @ Self::AddScaled { .. }, None, _) => {
                unreachable!("{pass:?} was checked to have what it reads")
            }
            (Self::Map { .. }, ..) => unreachable!("it has a loop of its own: `kernel/map.rs`"),
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

/// [`Pass::AddScaled`], with a bias or without.
#[derive(Clone, Copy)]
struct AddingScaled<B, T: Element, S: Lanes<T>> {
    scale: T::Scale,
    wide: S::Wide,
    beside: PhantomData<B>,
}

impl<B, T: Element, S: Lanes<T>> AddingScaled<B, T, S> {
    #[inline(always)]
    fn new(simd: S, scale: T::Scale) -> Self {
        Self {
            scale,
            wide: simd.splat_wide(scale),
            beside: PhantomData,
        }
    }
}

impl<B: Biased<T, S> + Copy, T: Element, S: Lanes<T>> Arithmetic<T, S> for AddingScaled<B, T, S> {
    type Beside = B;

    #[inline(always)]
    fn vector(
        self,
        simd: S,
        residual: S::Stored,
        beside: B::Vector,
        bits: u64,
        at: usize,
    ) -> S::Stored {
        let scaled = simd.times(B::sum(simd, beside), self.wide);
        let y = simd.narrow(simd.plus(simd.widen(residual), scaled), true);
        simd.select(bits, at, y, residual)
    }

    #[inline(always)]
    fn element(self, residual: T, beside: B::Element, keep: bool) -> T {
        if keep {
            T::narrow(residual.widened() + B::sum_of_element(beside) * self.scale)
        } else {
            residual
        }
    }
}

/// [`Pass::Rectify`], with a bias or without.
///
/// The product has the sign of the sum and is zero only if that is, as the scale is at least 1: it says for
/// both what is left.
#[derive(Clone, Copy)]
struct Rectifying<B, T: Element, S: Lanes<T>> {
    scale: T::Scale,
    wide: S::Wide,
    bias: PhantomData<B>,
}

impl<B, T: Element, S: Lanes<T>> Rectifying<B, T, S> {
    #[inline(always)]
    fn new(simd: S, scale: T::Scale) -> Self {
        Self {
            scale,
            wide: simd.splat_wide(scale),
            bias: PhantomData,
        }
    }
}

impl<B: Bias<T, S> + Copy, T: Element, S: Lanes<T>> Arithmetic<T, S> for Rectifying<B, T, S> {
    type Beside = B;
    const DECIDES: bool = true;

    #[inline(always)]
    fn vector(self, simd: S, x: S::Stored, bias: B::Vector, bits: u64, at: usize) -> S::Stored {
        self.vector_and_bits(simd, x, bias, bits, at).0
    }

    #[inline(always)]
    fn element(self, x: T, bias: B::Element, keep: bool) -> T {
        self.element_and_bit(x, bias, keep).0
    }

    #[inline(always)]
    fn vector_and_bits(
        self,
        simd: S,
        x: S::Stored,
        bias: B::Vector,
        bits: u64,
        at: usize,
    ) -> (S::Stored, u64) {
        let y = simd.narrow(simd.times(B::biased(simd, x, bias), self.wide), true);
        let left = bits & simd.not_at_most_zero(y, at);
        (simd.keep(y, left, at), left)
    }

    #[inline(always)]
    fn element_and_bit(self, x: T, bias: B::Element, keep: bool) -> (T, bool) {
        let y = T::narrow(B::biased_element(x, bias) * self.scale);
        if !keep || y <= T::ZERO {
            (T::ZERO, false)
        } else {
            (y, true)
        }
    }
}
