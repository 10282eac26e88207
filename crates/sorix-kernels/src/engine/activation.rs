//! The methods of [`Engine`] for activations with dropout.

use crate::activation::Activation;
use crate::buffers::Buffers;
use crate::element::Element;
use crate::engine::Engine;
use crate::error::{Error, LengthError};
use crate::function::Function;
use crate::job::{Apply, SwigluBackward, Update, map_work};
use crate::mask::{BitMask, BitSlice};
use crate::pass::Pass;
use crate::rate::{DropRate, Keep};
use crate::region::MaskRegion;

impl Engine<'_> {
    /// See [`dropout::act_dropout`](crate::dropout::act_dropout). Beside the input of `buffers` is the bias, if
    /// there is one, as a [row](Buffers::with_row).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn act_dropout<T: Element>(
        self,
        activation: Activation,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        buffers: Buffers<'_, T>,
        mask: Option<&mut BitMask>,
    ) -> Result<(), Error> {
        let pass = Pass::activation(activation, rate);
        let elements = buffers.beside().elements().map_or(0, <[T]>::len);
        LengthError::check("second input", 0, elements)?;
        self.make_and_apply(rate, at.into(), pass, buffers, mask)
    }

    /// Dropout of any function: `f(x + row) * elements * scale` where the mask keeps, `+0.0` elsewhere. Row and
    /// elements are those beside the input of `buffers`, each if there is one. The bits are written to `mask`
    /// if there is one.
    ///
    /// All that [`dropout`](crate::dropout) has for activations but the rectifier's own bits is a case of this
    /// or of [`map_apply`](Self::map_apply): [`swiglu_dropout`](crate::dropout::swiglu_dropout) is
    /// [`Function::Silu`] of the gate, with the other half beside it, and
    /// [`act_dropout_replay`](crate::dropout::act_dropout_replay) the derivative of x, with the gradient beside
    /// it.
    ///
    /// # Errors
    ///
    /// As [`dropout::replay`](crate::dropout::replay).
    ///
    /// ```
    /// use sorix_kernels::{Buffers, DropRate, Engine, Function, MaskKey, dispatch};
    /// let engine = Engine::new(dispatch::by_name("portable")?).sequential();
    /// let mut x = [0.0_f32, 0.0];
    /// let buffers = Buffers::in_place(&mut x).with_elements(&[3.0, 5.0])?;
    /// engine.map_dropout(Function::Exp, DropRate::new(0.0)?, MaskKey::new(1, 0), buffers, None)?;
    /// assert_eq!(x, [3.0, 5.0]);
    /// # Ok::<(), sorix_kernels::Error>(())
    /// ```
    pub fn map_dropout<T: Element>(
        self,
        function: Function,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        buffers: Buffers<'_, T>,
        mask: Option<&mut BitMask>,
    ) -> Result<(), Error> {
        self.make_and_apply(rate, at.into(), Pass::map(function, rate), buffers, mask)
    }

    /// [`map_dropout`](Self::map_dropout) by a mask that is there.
    ///
    /// # Errors
    ///
    /// As [`dropout::apply`](crate::dropout::apply).
    ///
    /// ```
    /// use sorix_kernels::{BitMask, Buffers, DropRate, Engine, Function, dispatch};
    /// let engine = Engine::new(dispatch::by_name("portable")?).sequential();
    /// let mask = BitMask::from_bools(&[true, false]);
    /// let mut x = [0.0_f32, f32::NAN];
    /// engine.map_apply(Function::Exp, DropRate::new(0.5)?, &mask, Buffers::in_place(&mut x))?;
    /// assert_eq!(x, [2.0, 0.0]);
    /// # Ok::<(), sorix_kernels::Error>(())
    /// ```
    pub fn map_apply<'m, T: Element>(
        self,
        function: Function,
        rate: DropRate,
        mask: impl Into<BitSlice<'m>>,
        buffers: Buffers<'_, T>,
    ) -> Result<(), Error> {
        let mask = mask.into();
        LengthError::check("mask", buffers.len(), mask.len())?;
        let update = Update::new(Pass::map(function, rate), buffers)?;
        match rate.keep() {
            Keep::Nothing => self.settle(false, update, None),
            Keep::By(_) | Keep::Everything => {
                let bytes = update.bytes();
                self.run(Apply::new(mask, self.sized(update))?, bytes, |job| {
                    T::kernels(self.backend()).apply(job);
                });
            }
        }
        Ok(())
    }

    /// See [`dropout::swiglu_dropout_backward`](crate::dropout::swiglu_dropout_backward).
    ///
    /// # Errors
    ///
    /// As there.
    #[allow(
        clippy::too_many_arguments,
        reason = "three inputs and two outputs, as the operation has"
    )]
    pub fn swiglu_dropout_backward<'m, T: Element>(
        self,
        rate: DropRate,
        mask: impl Into<BitSlice<'m>>,
        gate: &[T],
        up: &[T],
        dy: &[T],
        d_gate: Option<&mut [T]>,
        d_up: Option<&mut [T]>,
    ) -> Result<(), Error> {
        let mask = mask.into();
        let job = SwigluBackward::new(rate, mask, [gate, up, dy], d_gate, d_up)?;
        match rate.keep() {
            Keep::Nothing => job.into_outputs().for_each(|out| out.fill(T::ZERO)),
            Keep::By(_) | Keep::Everything => {
                let work = map_work::<T>(gate.len()).saturating_mul(2);
                self.run(job, work, |job| {
                    job.compose(
                        |apply| T::Scale::kernels(self.backend()).apply(apply),
                        |apply| T::kernels(self.backend()).apply(apply),
                    );
                });
            }
        }
        Ok(())
    }
}
