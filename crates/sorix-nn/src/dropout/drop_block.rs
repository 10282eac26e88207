//! [`DropBlock2d`]: squares of an image.

use sorix_core::{BitMask, DropRate, ErrorKind, MaskRegion, SaveMask, Tensor};
use sorix_kernels::dropout::fill_mask;

use crate::dropout::replay::replayed;
use crate::dropout::{Draw, DropoutLayer, Form};
use crate::error::{Error, Result};

/// Drops squares of `(N, C, H, W)` or `(C, H, W)`: what lies beside a dropped position says much the
/// same, so it has to go too. Each channel has squares of its own.
///
/// A square of `block_size` hangs, at its upper left corner, at each position where it fits with
/// probability `γ = p / s² · HW / ((H - s + 1)(W - s + 1))`, where `s` is the block size, or the
/// shorter side where that is less. So about p of the positions are dropped, a little less where
/// squares overlap. What is left is multiplied by the number of positions over the number kept, both
/// counted in the call, as in the paper. At p = 1 everything is dropped.
///
/// The mask has one bit for each element.
///
/// Source: Ghiasi, Lin and Le, *DropBlock: a regularization method for convolutional networks*,
/// NeurIPS 2018.
///
/// ```
/// use sorix_core::{DType, Tensor};
/// use sorix_nn::{DropBlock2d, Generator, Module};
///
/// let drop_block = DropBlock2d::new(0.3, 3)?.generator(Generator::new(42));
/// let y = drop_block.forward(&Tensor::ones([4, 8, 10, 10], DType::F64)?)?;
/// // The mean is kept, as what is left was scaled by what is left.
/// assert!((y.mean()?.item::<f64>()? - 1.0).abs() < 1e-9);
/// assert!(DropBlock2d::new(0.3, 0).is_err());
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub type DropBlock2d = DropoutLayer<Blocks>;

/// The form of [`DropBlock2d`]: squares of the last two axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    size: usize,
}

impl Blocks {
    /// Squares with sides of `block_size` positions.
    ///
    /// # Errors
    ///
    /// Where `block_size` is 0.
    pub fn new(block_size: usize) -> Result<Self> {
        if block_size == 0 {
            return Err(Error::BlockSize);
        }
        Ok(Self { size: block_size })
    }
}

impl DropoutLayer<Blocks> {
    /// Drops about p of the positions, in squares with sides of `block_size` positions.
    ///
    /// # Errors
    ///
    /// Where p is NaN or outside [0, 1], and where `block_size` is 0.
    pub fn new(p: f64, block_size: usize) -> Result<Self> {
        Self::with_form(Blocks::new(block_size)?, p)
    }
}

impl Form for Blocks {
    /// One decision, whether a square hangs there, for each position.
    fn mask_shape(&self, shape: &[usize]) -> Result<Vec<usize>> {
        match shape.len() {
            3 | 4 => Ok(shape.to_vec()),
            _ => {
                let expected = "(N, C, H, W) or (C, H, W)";
                Err(Error::shape("DropBlock2d", expected, shape))
            }
        }
    }

    /// What is left is scaled by how much is left of all.
    fn is_local(&self) -> bool {
        false
    }

    fn apply(&self, x: &Tensor, draw: &Draw) -> Result<Tensor> {
        let Draw { rate, at, save, .. } = *draw;
        let &[.., height, width] = &*draw.mask_shape else {
            return Err(Error::shape("DropBlock2d", "two axes or more", x.shape()));
        };
        if rate.p() == 0.0 || rate.p() == 1.0 || x.numel() == 0 {
            return Ok(x.dropout(rate, at, save)?);
        }
        let plane = Plane {
            height,
            width,
            block: self.size.min(height).min(width),
        };
        let shape = draw.mask_shape.clone();
        let drop_blocks = move |x: &Tensor| {
            let mask = plane.mask(rate, at, x.numel()).map_err(|error| {
                let kind = ErrorKind::Kernel(error);
                sorix_core::Error::new("DropBlock2d", &[x], kind)
            })?;
            let scale = match mask.count_kept() {
                0 => 0.0,
                kept => mask.len() as f64 / kept as f64,
            };
            x.apply_mask(mask, &shape, scale)
        };
        Ok(match save {
            SaveMask::Bits => drop_blocks(x)?,
            SaveMask::Replay => replayed("DropBlock2dBackward", x, drop_blocks)?,
        })
    }
}

type KernelResult<T> = core::result::Result<T, sorix_kernels::Error>;

/// One channel of one sample, and the side of the squares dropped from it, which fit.
#[derive(Clone, Copy, Debug)]
struct Plane {
    height: usize,
    width: usize,
    block: usize,
}

impl Plane {
    /// The probability that a square hangs at a position where it fits.
    fn gamma(self, p: f64) -> f64 {
        let positions = (self.height * self.width) as f64;
        let corners = ((self.height - self.block + 1) * (self.width - self.block + 1)) as f64;
        p * positions / (corners * (self.block * self.block) as f64)
    }

    /// The mask of `len` elements, a number of planes one after another.
    fn mask(self, rate: DropRate, at: MaskRegion, len: usize) -> KernelResult<BitMask> {
        let gamma = DropRate::new(self.gamma(rate.p()).min(1.0))
            .expect("a probability, as a square is no larger than the plane");
        let mut mask = BitMask::try_new(len)?;
        fill_mask(gamma, at, &mut mask)?;
        let mut dropped = mask.into_words();
        for word in &mut dropped {
            *word = !*word;
        }
        self.clear_where_no_square_fits(&mut dropped);
        // From here on no square reaches into the next row or plane, so all rows of all planes can
        // be shifted at once, as one long string of bits.
        dilate(&mut dropped, self.block, 1);
        dilate(&mut dropped, self.block, self.width);
        for word in &mut dropped {
            *word = !*word;
        }
        if let (Some(last), used @ 1..) = (dropped.last_mut(), len % 64) {
            *last &= (1 << used) - 1;
        }
        Ok(BitMask::from_words(dropped, len)?)
    }

    fn clear_where_no_square_fits(self, corners: &mut [u64]) {
        for (i, word) in corners.iter_mut().enumerate() {
            let mut left = *word;
            while left != 0 {
                let bit = left & left.wrapping_neg();
                left ^= bit;
                let at = i * 64 + bit.trailing_zeros() as usize;
                let (row, column) = (at / self.width % self.height, at % self.width);
                if row + self.block > self.height || column + self.block > self.width {
                    *word ^= bit;
                }
            }
        }
    }
}

/// Sets, after each bit that is set, the next `times - 1` at distances of `step`.
fn dilate(words: &mut [u64], times: usize, step: usize) {
    let mut done = 1;
    while done < times {
        // Twice as many each time.
        let more = done.min(times - done);
        or_shifted(words, more * step);
        done += more;
    }
}

/// `bits |= bits << by`, for a long string of bits.
fn or_shifted(words: &mut [u64], by: usize) {
    let (skip, shift) = (by / 64, by % 64);
    for i in (skip..words.len()).rev() {
        let mut moved = words[i - skip] << shift;
        if shift > 0 && i > skip {
            moved |= words[i - skip - 1] >> (64 - shift);
        }
        words[i] |= moved;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sorix_core::MaskKey;

    /// Position by position, from the definition.
    fn naive(plane: Plane, rate: DropRate, at: MaskRegion, len: usize) -> Vec<bool> {
        let Plane {
            height,
            width,
            block,
        } = plane;
        let mut no_corner = BitMask::new(len);
        let gamma = DropRate::new(plane.gamma(rate.p())).unwrap();
        fill_mask(gamma, at, &mut no_corner).unwrap();
        let mut keep = vec![true; len];
        for first in (0..len).step_by(height * width) {
            for row in 0..=height - block {
                for column in 0..=width - block {
                    if no_corner.get(first + row * width + column) == Some(false) {
                        for i in 0..block * block {
                            keep[first + (row + i / block) * width + column + i % block] = false;
                        }
                    }
                }
            }
        }
        keep
    }

    #[test]
    fn masks_are_those_of_the_definition() {
        let at = MaskRegion::from(MaskKey::new(3, 9).window(17));
        for (height, width) in [(1, 1), (7, 7), (5, 70), (70, 5), (13, 64), (9, 130)] {
            for block in [1, 2, 3, 5, 7, 64] {
                let block = block.min(height).min(width);
                let plane = Plane {
                    height,
                    width,
                    block,
                };
                for p in [0.01, 0.2, 0.7, 0.999] {
                    let (rate, len) = (DropRate::new(p).unwrap(), 6 * height * width);
                    let mask = plane.mask(rate, at, len).unwrap();
                    let expected = naive(plane, rate, at, len);
                    assert_eq!(mask.to_bools(), expected, "{plane:?} {p}");
                }
            }
        }
    }

    #[test]
    fn gamma_by_hand() {
        let gamma = |height, width, block| {
            Plane {
                height,
                width,
                block,
            }
            .gamma(0.1)
        };
        // 0.1 / 49 * 28^2 / 22^2, and a square as large as the plane.
        assert!((gamma(28, 28, 7) - 0.003_305_785_123_966_942).abs() < 1e-15);
        assert!((gamma(7, 7, 7) - 0.1).abs() < 1e-15);
        assert!((gamma(4, 9, 1) - 0.1).abs() < 1e-15);
    }
}
