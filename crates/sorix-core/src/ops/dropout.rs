//! Dropout in all its forms: a mask, made or given, of the tensor's shape or a smaller one, and what
//! it makes of the elements that it keeps and drops.
//!
//! All forms are one operation. Where the mask comes from, the [`Broadcast`] by which it covers the
//! tensor, and the [`Map`] are its parameters; the gradient is the same operation with the map's
//! derivative.

mod act;
mod add;
mod add_norm;
pub(super) mod softmax;
mod swiglu;

use std::sync::Arc;

use sorix_kernels::{Affine, BitMask, Broadcast, Buffers, DropRate, Engine, MaskRegion};

use crate::autograd::{Function, Gradients, is_recorded, record, tape_mask};
use crate::dtype::{Scalar, dispatch};
use crate::error::{Call, Result};
use crate::tensor::Tensor;

pub use add_norm::NormOptions;

type KernelResult<T = ()> = Result<T, sorix_kernels::Error>;

/// How a dropout remembers its mask until backward. The gradients are equal bit for bit.
///
/// ```
/// use sorix_core::SaveMask;
/// assert_eq!(SaveMask::default(), SaveMask::Bits);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SaveMask {
    /// As bits, one for each element of the mask. Backward costs about a copy.
    #[default]
    Bits,
    /// As the key alone, a few words whatever the tensor's size. Backward makes the mask again,
    /// which costs what forward does.
    Replay,
}

impl Tensor {
    /// Inverted dropout in training: each element becomes `+0.0` with probability p and
    /// `x / (1 - p)` otherwise, by the mask that `at` names; the gradient gets the same mask.
    ///
    /// The mask's index of an element is its row-major index, so a view gets the mask that its
    /// contiguous copy gets. `at` is a key, or a [window](crate::MaskKey::window) or
    /// [shard](crate::MaskKey::shard) where this tensor is a part of a larger one and is to get its
    /// part of that one's mask; see [`MaskRegion`] for tensors that workers share. At p = 0 the
    /// tensor itself comes back.
    ///
    /// Source: Srivastava et al., *Dropout: a simple way to prevent neural networks from
    /// overfitting*, JMLR 15 (2014), section 10.
    ///
    /// # Errors
    ///
    /// If `SORIX_BACKEND` names a backend that this machine does not have, if a shard has
    /// another number of elements than the tensor, if a window reaches beyond element 2^64 - 1,
    /// and if allocation fails.
    ///
    /// ```
    /// use sorix_core::{DropRate, MaskKey, SaveMask, tensor};
    ///
    /// let x = tensor([1.0, 2.0, 3.0, 4.0]).requires_grad(true);
    /// let y = x.dropout(DropRate::new(0.75)?, MaskKey::new(7, 0), SaveMask::Replay)?;
    /// assert!(y.to_vec::<f64>()?.iter().zip([4.0, 8.0, 12.0, 16.0]).all(|(&y, x)| y == 0.0 || y == x));
    ///
    /// y.sum()?.backward()?;
    /// let kept = x.grad().unwrap().mul_scalar(0.25)?;
    /// assert_eq!(y.to_vec::<f64>()?, x.mul(&kept)?.mul_scalar(4.0)?.to_vec::<f64>()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn dropout(
        &self,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        save: SaveMask,
    ) -> Result<Self> {
        let (call, at) = (Call::on("dropout", self), at.into());
        let checked = at.check_len(self.numel());
        checked.map_err(|error| call.kernel_error(error))?;
        if rate.p() == 0.0 {
            return Ok(self.clone());
        }
        let shape = Broadcast::full(self.numel());
        let mask = Mask::Key(rate, at);
        self.masked(call, mask, save, shape, Map::Inverted(rate))
    }

    /// Inverted dropout by a mask of a smaller shape: one bit drops or keeps all elements along the
    /// axes where `mask_shape` is 1. Only the small mask is made and kept.
    ///
    /// `[n, c, 1, 1]` drops whole channels of an `[n, c, h, w]` tensor, `[n, 1, 1, c]` those of an
    /// `[n, h, w, c]` one, `[n, 1]` whole samples, `[n, 1, c]` the same features at every step of a
    /// sequence, `[v, 1]` whole rows of an embedding. The bits are those of a tensor of shape
    /// `mask_shape`; a shard is one of that shape. At p = 0 the tensor itself comes back.
    ///
    /// Source: Tompson et al., *Efficient object localization using convolutional networks*, CVPR
    /// 2015, section 3.2, for channels; `noise_shape` of Keras for the general form.
    ///
    /// # Errors
    ///
    /// If `mask_shape` has not the tensor's number of axes, each 1 or as long as the tensor's;
    /// and if [`dropout`](Tensor::dropout) returns one.
    ///
    /// ```
    /// use sorix_core::{DType, DropRate, MaskKey, SaveMask, Tensor};
    ///
    /// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(7, 0));
    /// let x = Tensor::ones([4, 1000], DType::F32)?;
    /// let rows = x.dropout_broadcast(rate, key, &[4, 1], SaveMask::Bits)?;
    /// let mask = Tensor::ones([4, 1], DType::F32)?.dropout(rate, key, SaveMask::Bits)?;
    /// assert_eq!(rows.to_vec::<f32>()?, mask.expand([4, 1000])?.to_vec::<f32>()?);
    ///
    /// let error = x.dropout_broadcast(rate, key, &[4], SaveMask::Bits).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "dropout_broadcast(float32[4, 1000]): mask shape for a tensor of shape [4, 1000]: \
    ///      expected 2 axes, each 1 or the tensor's, got [4]"
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn dropout_broadcast(
        &self,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        mask_shape: &[usize],
        save: SaveMask,
    ) -> Result<Self> {
        let call = Call::on("dropout_broadcast", self);
        let shape = self.covered_by(call, mask_shape)?;
        let at = at.into();
        let checked = at.check_len(shape.mask_len());
        checked.map_err(|error| call.kernel_error(error))?;
        if rate.p() == 0.0 {
            return Ok(self.clone());
        }
        let mask = Mask::Key(rate, at);
        self.masked(call, mask, save, shape, Map::Inverted(rate))
    }

    /// Dropout that makes something else of the elements than inverted dropout does: `scale * x +
    /// shift` of those that it keeps, with probability `1 - p`, and a constant of the others; the
    /// gradient is multiplied by `scale` where kept and `+0.0` elsewhere.
    ///
    /// `mask_shape` is the tensor's shape or a smaller one, as for
    /// [`dropout_broadcast`](Tensor::dropout_broadcast). Nothing is special about p = 0 and p = 1:
    /// all elements are kept then, or dropped.
    ///
    /// Alpha dropout is the use for all three numbers: Klambauer et al., *Self-normalizing neural
    /// networks*, NeurIPS 2017. `Affine::scale(1.0)` is dropout that does not rescale.
    ///
    /// # Errors
    ///
    /// As [`dropout_broadcast`](Tensor::dropout_broadcast).
    ///
    /// ```
    /// use sorix_core::{Affine, DropRate, MaskKey, SaveMask, tensor};
    ///
    /// let x = tensor([[1.0, 2.0], [3.0, 4.0]]).requires_grad(true);
    /// let affine = Affine { scale: 10.0, shift: 0.5, dropped: -1.0 };
    /// let all_dropped = x.dropout_affine(
    ///     DropRate::new(1.0)?, MaskKey::new(7, 0), &[2, 1], affine, SaveMask::Bits,
    /// )?;
    /// assert_eq!(all_dropped.to_vec::<f64>()?, [-1.0; 4]);
    /// let all_kept = x.dropout_affine(
    ///     DropRate::new(0.0)?, MaskKey::new(7, 0), &[2, 1], affine, SaveMask::Bits,
    /// )?;
    /// assert_eq!(all_kept.to_vec::<f64>()?, [10.5, 20.5, 30.5, 40.5]);
    /// all_kept.sum()?.backward()?;
    /// assert_eq!(x.grad().unwrap().to_vec::<f64>()?, [10.0; 4]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn dropout_affine(
        &self,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        mask_shape: &[usize],
        affine: Affine,
        save: SaveMask,
    ) -> Result<Self> {
        let call = Call::on("dropout_affine", self);
        let shape = self.covered_by(call, mask_shape)?;
        let mask = Mask::Key(rate, at.into());
        self.masked(call, mask, save, shape, Map::Affine(affine))
    }

    /// A mask that came from elsewhere: `x * scale` where it keeps, `+0.0` elsewhere, and the same
    /// for the gradient. `mask` has the bits of a tensor of shape `mask_shape`, which is the
    /// tensor's or a smaller one, as for [`dropout_broadcast`](Tensor::dropout_broadcast).
    ///
    /// For backward the mask is kept, not copied: give an `Arc` to go on using it.
    ///
    /// # Errors
    ///
    /// If `mask_shape` has not the tensor's number of axes, each 1 or as long as the tensor's;
    /// if `mask` has not as many elements; if allocation fails.
    ///
    /// ```
    /// use sorix_core::{BitMask, tensor};
    ///
    /// let x = tensor([[1.0, 2.0], [3.0, 4.0]]).requires_grad(true);
    /// let y = x.apply_mask(BitMask::from_bools(&[true, false]), &[1, 2], 10.0)?;
    /// assert_eq!(y.to_vec::<f64>()?, [10.0, 0.0, 30.0, 0.0]);
    /// y.sum()?.backward()?;
    /// assert_eq!(x.grad().unwrap().to_vec::<f64>()?, [10.0, 0.0, 10.0, 0.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn apply_mask(
        &self,
        mask: impl Into<Arc<BitMask>>,
        mask_shape: &[usize],
        scale: f64,
    ) -> Result<Self> {
        let call = Call::on("apply_mask", self);
        let shape = self.covered_by(call, mask_shape)?;
        let mask = Mask::Bits(mask.into());
        let map = Map::Affine(Affine::scale(scale));
        self.masked(call, mask, SaveMask::Bits, shape, map)
    }

    fn covered_by(&self, call: Call<'_>, mask_shape: &[usize]) -> Result<Broadcast> {
        Broadcast::new(self.shape(), mask_shape).map_err(|error| call.kernel_error(error))
    }

    /// The operation of which all forms are cases. `save` says what to do with the bits of a mask
    /// that is made here.
    fn masked(
        &self,
        call: Call<'_>,
        mask: Mask,
        save: SaveMask,
        shape: Broadcast,
        map: Map,
    ) -> Result<Self> {
        if let Mask::Key(rate, at) = mask {
            tape_mask(rate, at, shape.mask_len());
        }
        let x = self.contiguous()?;
        // Without a backward there is nobody to keep bits for.
        let mut bits = match (&mask, save) {
            (Mask::Key(..), SaveMask::Bits) if is_recorded(&[&x]) => {
                let bits = BitMask::try_new(shape.mask_len());
                Some(bits.map_err(|error| call.kernel_error(error))?)
            }
            _ => None,
        };
        let mut masked = Masked { mask, shape, map };
        let output = dispatch!(x.dtype(), T => {
            let snapshot = x.read();
            let x: &[T] = snapshot.contiguous();
            Tensor::try_filled(call, self.shape(), |y: &mut [T]| {
                masked.forward(Buffers::new(x, y)?, bits.as_mut())
            })
        })?;
        if let Some(bits) = bits {
            masked.mask = Mask::Bits(Arc::new(bits));
        }
        Ok(record(output, &[&x], || {
            DropoutBackward(masked.derivative())
        }))
    }
}

/// A mask, what it covers and what it makes of it.
#[derive(Debug)]
struct Masked {
    mask: Mask,
    shape: Broadcast,
    map: Map,
}

#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "one for each node of the graph, which is on the heap already"
)]
enum Mask {
    Bits(Arc<BitMask>),
    Key(DropRate, MaskRegion),
}

/// What becomes of the elements.
#[derive(Clone, Copy, Debug)]
enum Map {
    /// Inverted dropout at this rate, which multiplies nothing at p = 1.
    Inverted(DropRate),
    Affine(Affine),
}

/// The bits of a mask that is known by its key.
fn filled(rate: DropRate, at: MaskRegion, len: usize) -> KernelResult<BitMask> {
    let mut bits = BitMask::try_new(len)?;
    Engine::active()?.fill_mask(rate, at, &mut bits)?;
    Ok(bits)
}

impl Masked {
    /// Whether mask and elements are made in one pass.
    fn is_fused(&self) -> bool {
        self.shape.is_full() && matches!(self.map, Map::Inverted(_))
    }

    /// Writes `bits`, too, where there is room for them.
    fn forward<T: Scalar>(
        &self,
        buffers: Buffers<'_, T>,
        bits: Option<&mut BitMask>,
    ) -> KernelResult {
        match (&self.mask, bits) {
            (&Mask::Key(rate, at), Some(bits)) if self.is_fused() => {
                Engine::active()?.forward(rate, at, buffers, bits)
            }
            (&Mask::Key(rate, at), Some(bits)) => {
                let engine = Engine::active()?;
                engine.fill_mask(rate, at, bits)?;
                self.map.apply(engine, bits, &self.shape, buffers)
            }
            _ => self.apply(buffers),
        }
    }

    fn apply<T: Scalar>(&self, buffers: Buffers<'_, T>) -> KernelResult {
        let engine = Engine::active()?;
        match &self.mask {
            Mask::Bits(bits) => self.map.apply(engine, bits, &self.shape, buffers),
            &Mask::Key(rate, at) if self.is_fused() => engine.replay(rate, at, buffers),
            &Mask::Key(rate, at) => {
                let bits = filled(rate, at, self.shape.mask_len())?;
                self.map.apply(engine, &bits, &self.shape, buffers)
            }
        }
    }

    /// What makes the gradient of the input from that of the output.
    fn derivative(self) -> Self {
        let map = match self.map {
            Map::Inverted(rate) => Map::Inverted(rate),
            Map::Affine(affine) => Map::Affine(affine.derivative()),
        };
        Self { map, ..self }
    }

    /// The gradient of the input from that of the output; `self` is the [derivative](Self::derivative).
    fn gradient(&self, name: &'static str, grad: Tensor) -> Result<Tensor> {
        let (shape, dtype) = (grad.shape().to_vec(), grad.dtype());
        let call = Call::making(name, &shape, dtype);
        // Not always `contiguous`, which returns another handle, beside which nothing is done in place.
        let grad = if grad.is_contiguous() {
            grad
        } else {
            grad.contiguous()?
        };
        match grad.try_into_buffer() {
            // Nobody else reads this gradient, so it can become the next one where it lies.
            Ok(mut buffer) => {
                dispatch!(dtype, T => {
                    let dy = &mut buffer.as_mut_slice::<T>()[..shape.iter().product()];
                    self.apply(Buffers::in_place(dy))
                })
                .map_err(|error| call.kernel_error(error))?;
                Ok(Tensor::from_buffer(buffer, &shape, dtype))
            }
            Err(grad) => dispatch!(dtype, T => {
                let snapshot = grad.read();
                let dy: &[T] = snapshot.contiguous();
                Tensor::try_filled(call, &shape, |dx: &mut [T]| {
                    self.apply(Buffers::new(dy, dx)?)
                })
            }),
        }
    }
}

impl Map {
    fn apply<T: Scalar>(
        self,
        engine: Engine<'_>,
        mask: &BitMask,
        shape: &Broadcast,
        buffers: Buffers<'_, T>,
    ) -> KernelResult {
        match self {
            Self::Inverted(rate) => engine.apply_broadcast(rate, mask, shape, buffers),
            Self::Affine(affine) => engine.apply_affine(affine, mask, shape, buffers),
        }
    }
}

#[derive(Debug)]
struct DropoutBackward(Masked);

impl Function for DropoutBackward {
    fn name(&self) -> &'static str {
        "DropoutBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        Ok(vec![Some(self.0.gradient(self.name(), grad)?)])
    }
}
