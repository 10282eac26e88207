//! [`SliceSwiglu`]: one draw of dropout of a gated activation.

use crate::adapter::Saved;
use crate::adapter::draw::{expect_len, zeros};
use crate::kernels::{BitMask, Buffers, DropRate, Engine, Error, Function, MaskRegion};
use crate::{SaveMask, Scalar};

/// One draw of dropout of `silu(gate) * up`, of two tensors of as many elements in row-major order, with a bit
/// for each; in one pass.
///
/// Source: Shazeer, *GLU variants improve transformer*, 2020.
///
/// ```
/// use sorix::SaveMask;
/// use sorix::adapter::SliceSwiglu;
/// use sorix::kernels::{DropRate, MaskKey};
/// let draw = SliceSwiglu::new(DropRate::new(0.5)?, MaskKey::new(42, 0), 100);
/// // silu(30) is 30 in f32, and its derivative is 1.
/// let (gate, up) = ([30.0_f32; 100], [0.1_f32; 100]);
/// let (y, saved) = draw.forward(&gate, &up, SaveMask::Bits)?;
/// assert!(y.iter().all(|&y| y == 0.0 || y == 6.0) && y.contains(&6.0));
/// let [d_gate, d_up] = draw.backward(saved.as_ref(), &gate, &up, &[1.0; 100], [false, true])?;
/// assert!(d_gate.is_none());
/// assert!(d_up.unwrap().iter().zip(y).all(|(&d, y)| d == if y == 0.0 { 0.0 } else { 60.0 }));
/// # Ok::<(), sorix::kernels::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SliceSwiglu {
    rate: DropRate,
    at: MaskRegion,
    len: usize,
}

impl SliceSwiglu {
    /// The draw for tensors of so many elements.
    #[must_use]
    pub fn new(rate: DropRate, at: impl Into<MaskRegion>, len: usize) -> Self {
        let at = at.into();
        Self { rate, at, len }
    }

    /// The output for gate and up, and what is to be saved for backward beside these two: the bits of the mask,
    /// if `save` is [`SaveMask::Bits`].
    ///
    /// # Errors
    ///
    /// Those of [`forward_buffers`](Self::forward_buffers).
    pub fn forward<T: Scalar>(
        &self,
        gate: &[T],
        up: &[T],
        save: SaveMask,
    ) -> Result<(Vec<T>, Option<Saved>), Error> {
        expect_len("gate", self.len, gate.len())?;
        let mut y = zeros(gate.len())?;
        let buffers = Buffers::new(gate, &mut y)?.with_elements(up)?;
        let saved = self.forward_buffers(buffers, save)?;
        Ok((y, saved))
    }

    /// [`forward`](Self::forward) into memory of the caller's, or over the gate. The input of `buffers` is the
    /// gate, and up is beside it, [as many elements](Buffers::with_elements).
    ///
    /// # Errors
    ///
    /// [`Error::Length`] if gate or up has another number of elements, those of
    /// [`dropout`](crate::kernels::dropout), and [`Error::Allocation`].
    pub fn forward_buffers<T: Scalar>(
        &self,
        buffers: Buffers<'_, T>,
        save: SaveMask,
    ) -> Result<Option<Saved>, Error> {
        expect_len("gate", self.len, buffers.len())?;
        let up = buffers.beside().elements().map_or(0, <[T]>::len);
        expect_len("up", self.len, up)?;
        let mut mask = match save {
            SaveMask::Bits => Some(BitMask::try_new(self.len)?),
            _ => None,
        };
        let engine = Engine::active()?;
        engine.map_dropout(Function::Silu, self.rate, self.at, buffers, mask.as_mut())?;
        Ok(mask.map(Saved::Bits))
    }

    /// The gradients of gate and up for that of the output, each if it is wanted: from what forward saved, or from
    /// the key.
    ///
    /// # Errors
    ///
    /// Those of [`forward_buffers`](Self::forward_buffers).
    pub fn backward<T: Scalar>(
        &self,
        saved: Option<&Saved>,
        gate: &[T],
        up: &[T],
        dy: &[T],
        wanted: [bool; 2],
    ) -> Result<[Option<Vec<T>>; 2], Error> {
        expect_len("gate", self.len, gate.len())?;
        let engine = Engine::active()?;
        let made;
        let mask = match saved {
            Some(Saved::Bits(mask)) => mask,
            _ => {
                let mut mask = BitMask::try_new(self.len)?;
                engine.fill_mask(self.rate, self.at, &mut mask)?;
                made = mask;
                &made
            }
        };
        let room = |wanted: bool| wanted.then(|| zeros(self.len)).transpose();
        let (mut d_gate, mut d_up) = (room(wanted[0])?, room(wanted[1])?);
        let (gate_out, up_out) = (d_gate.as_deref_mut(), d_up.as_deref_mut());
        engine.swiglu_dropout_backward(self.rate, mask, gate, up, dy, gate_out, up_out)?;
        Ok([d_gate, d_up])
    }
}
