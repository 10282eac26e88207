//! Inverted dropout: the kernels of sorix-kernels between a tensor and its gradient.

use sorix_kernels::{BitMask, DropRate, MaskWindow, dropout};

use crate::autograd::{Function, Gradients, is_recorded, record};
use crate::dtype::{DType, dispatch};
use crate::error::{Error, Result};
use crate::storage::Buffer;
use crate::tensor::Tensor;

/// How a dropout remembers its mask until backward. The gradients are equal bit for bit.
///
/// ```
/// use sorix_core::SaveMask;
/// assert_eq!(SaveMask::default(), SaveMask::Bits);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SaveMask {
    /// As one bit per element. Backward costs about a copy.
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
    /// The mask's index of an element is its row-major index, plus the first of the window, so a
    /// view gets the mask that its contiguous copy gets. At p = 0 the tensor itself comes back.
    ///
    /// Source: Srivastava et al., *Dropout: a simple way to prevent neural networks from
    /// overfitting*, JMLR 15 (2014), section 10.
    ///
    /// # Errors
    ///
    /// Where `SORIX_BACKEND` names a backend that this machine does not have, where the window
    /// reaches beyond element 2^64 - 1, and where the memory cannot be had.
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
        at: impl Into<MaskWindow>,
        save: SaveMask,
    ) -> Result<Self> {
        if rate.p() == 0.0 {
            return Ok(self.clone());
        }
        let window = at.into();
        let x = self.contiguous()?;
        // Without a backward there is nobody to keep bits for.
        let mut saved = match save {
            SaveMask::Bits if is_recorded(&[&x]) => {
                SavedMask::Bits(BitMask::try_new(x.numel()).map_err(sorix_kernels::Error::from)?)
            }
            SaveMask::Bits | SaveMask::Replay => SavedMask::Replay(window),
        };
        let output = dispatch!(x.dtype(), T => {
            let snapshot = x.read();
            let x: &[T] = snapshot.contiguous();
            Tensor::try_filled("dropout", self.shape(), |y: &mut [T]| match &mut saved {
                SavedMask::Bits(mask) => dropout::forward(rate, window, x, y, mask),
                SavedMask::Replay(window) => dropout::replay(rate, *window, x, y),
            })
        })?;
        Ok(record(output, &[&x], || DropoutBackward { rate, saved }))
    }
}

#[derive(Debug)]
struct DropoutBackward {
    rate: DropRate,
    saved: SavedMask,
}

#[derive(Debug)]
enum SavedMask {
    Bits(BitMask),
    Replay(MaskWindow),
}

impl Function for DropoutBackward {
    fn name(&self) -> &'static str {
        "DropoutBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let (shape, dtype) = (grad.shape().to_vec(), grad.dtype());
        let grad = match grad.contiguous()?.try_into_buffer() {
            // Nobody else reads this gradient, so it can become the next one where it lies.
            Ok(mut buffer) => {
                self.backward_in_place(&mut buffer, shape.iter().product(), dtype)?;
                Tensor::from_buffer(buffer, &shape, dtype)
            }
            Err(grad) => self.backward_to_new(&grad)?,
        };
        Ok(vec![Some(grad)])
    }
}

impl DropoutBackward {
    fn backward_in_place(&self, buffer: &mut Buffer, numel: usize, dtype: DType) -> Result<()> {
        dispatch!(dtype, T => {
            let dy = &mut buffer.as_mut_slice::<T>()[..numel];
            match &self.saved {
                SavedMask::Bits(mask) => dropout::backward_in_place(self.rate, mask, dy),
                SavedMask::Replay(window) => dropout::replay_in_place(self.rate, *window, dy),
            }
        })
        .map_err(Error::from)
    }

    fn backward_to_new(&self, grad: &Tensor) -> Result<Tensor> {
        dispatch!(grad.dtype(), T => {
            let snapshot = grad.read();
            let dy: &[T] = snapshot.contiguous();
            Tensor::try_filled(self.name(), grad.shape(), |dx: &mut [T]| match &self.saved {
                SavedMask::Bits(mask) => dropout::backward(self.rate, mask, dy, dx),
                SavedMask::Replay(window) => dropout::replay(self.rate, *window, dy, dx),
            })
        })
    }
}
