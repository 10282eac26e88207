//! [`DropBlock2d`]: squares of an image.

use sorix_core::{BitMask, DropRate, ErrorKind, MaskRegion, SaveMask, Tensor};
use sorix_kernels::dropout::fill_mask;

use crate::dropout::replay::replayed;
use crate::dropout::{Draw, DropoutLayer, Form};
use crate::error::{Error, Result};

/// Drops squares of `(N, C, H, W)` or `(C, H, W)`: what lies beside a dropped position says much the
/// same, so it has to go too. Each channel has squares of its own.
///
/// A seed is drawn for each position. Where a seed falls and a square with this upper left corner fits,
/// the square is dropped; its sides are `block_size`, or the shorter side of the image if that is
/// less. What is left is multiplied by the number of positions over the number kept, both counted in
/// the call, as in the paper. At p = 1 everything is dropped.
///
/// Seeds are as frequent as it takes for p of the positions to be dropped, in expectation and as a
/// mean over the image. Squares overlap, and fewer of them reach a border than the middle; both are
/// counted exactly. For squares of 7 by 7 in 28 by 28 and p = 0.5 that is a seed rate of 0.0257, and
/// the probability of being dropped is 0.72 in the middle, 0.17 in the middle of a side and 0.026 in
/// a corner. The formula of the paper, `p / s² · HW / ((H - s + 1)(W - s + 1))` for squares of side
/// `s`, does not count overlaps: there it drops 0.37 of the positions at p = 0.5, and 0.55 at 0.9.
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
/// let drop_block = DropBlock2d::with_block_size(0.3, 3)?.generator(Generator::new(42));
/// let y = drop_block.forward(&Tensor::ones([4, 8, 10, 10], DType::F64)?)?;
/// // The mean is kept, as what is left was scaled by what is left.
/// assert!((y.mean()?.item::<f64>()? - 1.0).abs() < 1e-9);
/// assert!(DropBlock2d::with_block_size(0.3, 0).is_err());
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
    /// If `block_size` is 0.
    pub fn new(block_size: usize) -> Result<Self> {
        if block_size == 0 {
            return Err(Error::BlockSize);
        }
        Ok(Self { size: block_size })
    }
}

impl DropoutLayer<Blocks> {
    /// Drops p of the positions, in squares with sides of `block_size` positions.
    ///
    /// # Errors
    ///
    /// If p is NaN or outside [0, 1], or if `block_size` is 0.
    pub fn with_block_size(p: f64, block_size: usize) -> Result<Self> {
        Self::with_form(Blocks::new(block_size)?, p)
    }
}

impl Form for Blocks {
    /// One decision, whether there is a seed, for each position.
    fn mask_shape(&self, shape: &[usize]) -> Result<Vec<usize>> {
        match shape.len() {
            3 | 4 => Ok(shape.to_vec()),
            _ => {
                let expected = "(N, C, H, W) or (C, H, W)";
                Err(Error::shape("DropBlock2d", expected, shape))
            }
        }
    }

    fn layer(&self) -> &'static str {
        "DropBlock2d"
    }

    /// No: what is left is scaled by how much is left of the whole tensor.
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
            SaveMask::Replay => replayed("DropBlock2dBackward", x, drop_blocks)?,
            _ => drop_blocks(x)?,
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
    /// The mask of `len` elements, a number of planes one after another.
    fn mask(self, rate: DropRate, at: MaskRegion, len: usize) -> KernelResult<BitMask> {
        let seeds = DropRate::new(self.seed_rate(rate.p()))?;
        let mut mask = BitMask::try_new(len)?;
        fill_mask(seeds, at, &mut mask)?;
        mask.drop_blocks([self.height, self.width], [self.block; 2])?;
        Ok(mask)
    }

    /// The probability of a seed with which p of the positions are dropped, in expectation.
    ///
    /// By Newton's method from 0, whose first step is the formula of the paper. The share dropped is
    /// concave, so the steps grow towards the solution and never pass it, but for rounding, at which
    /// they end. Additions, multiplications and divisions alone, so that the masks are the same on
    /// every machine.
    fn seed_rate(self, p: f64) -> f64 {
        let mut rate = 0.0;
        loop {
            let [dropped, slope] = self.dropped_share(rate);
            let next = (rate + (p - dropped) / slope).min(1.0);
            if next <= rate {
                return rate;
            }
            rate = next;
        }
    }

    /// The expected share of positions dropped at this probability of a seed, and its derivative.
    ///
    /// A position that k squares can cover is dropped with probability `d(k) = 1 - q^k`, where
    /// `q = 1 - rate`. From `d(j + k) = d(j) + q^j d(k)` come all of them without a difference of
    /// nearly equal numbers.
    fn dropped_share(self, rate: f64) -> [f64; 2] {
        let columns = positions_by_squares(self.width, self.block);
        let q = 1.0 - rate;
        // q^(i - 1) and d(i) for the i squares that cover a row.
        let (mut row_power, mut row_dropped) = (1.0, rate);
        let [mut share, mut slope] = [0.0; 2];
        for (i, in_rows) in (1..).zip(positions_by_squares(self.height, self.block)) {
            // q^(i j - 1) and d(i j) for the j that cover a column.
            let (mut power, mut dropped) = (row_power, row_dropped);
            for (j, in_columns) in (1..).zip(&columns) {
                let positions = in_rows * in_columns;
                share += positions * dropped;
                slope += positions * f64::from(i) * f64::from(j) * power;
                dropped += power * q * row_dropped;
                power *= row_power * q;
            }
            row_power *= q;
            row_dropped += row_power * rate;
        }
        let positions = self.height as f64 * self.width as f64;
        [share / positions, slope / positions]
    }
}

/// Along a side: how many positions 1 square can cover, how many 2 can, and so on. The middle is
/// covered by the most, and each one less is found once on either side of it.
fn positions_by_squares(side: usize, block: usize) -> Vec<f64> {
    let most = block.min(side - block + 1);
    let mut positions = vec![2.0; most];
    positions[most - 1] = (side - 2 * (most - 1)) as f64;
    positions
}

#[cfg(test)]
mod tests {
    use super::*;
    use sorix_core::MaskKey;

    fn planes() -> impl Iterator<Item = Plane> {
        let sides = [(1, 1), (7, 7), (5, 70), (70, 5), (13, 64), (9, 130)];
        sides.into_iter().flat_map(|(height, width)| {
            [1, 2, 3, 5, 7, 64].map(|block| Plane {
                height,
                width,
                block: block.min(height).min(width),
            })
        })
    }

    /// The expected share of positions dropped, by counting the squares that cover each of them.
    fn counted(plane: Plane, rate: f64) -> f64 {
        let Plane {
            height,
            width,
            block,
        } = plane;
        let mut squares = vec![0; height * width];
        for row in 0..=height - block {
            for column in 0..=width - block {
                for i in 0..block * block {
                    squares[(row + i / block) * width + column + i % block] += 1;
                }
            }
        }
        let dropped = |&squares: &i32| 1.0 - (1.0 - rate).powi(squares);
        squares.iter().map(dropped).sum::<f64>() / (height * width) as f64
    }

    #[test]
    fn the_seed_rate_drops_p_in_expectation() {
        for plane in planes() {
            for p in [1e-9, 0.01, 0.2, 0.5, 0.9, 0.999, 1.0 - f64::EPSILON] {
                let rate = plane.seed_rate(p);
                assert!((0.0..=1.0).contains(&rate), "{plane:?} {p}: {rate}");
                let share = counted(plane, rate);
                assert!((share - p).abs() < 1e-13, "{plane:?} {p}: {share}");
            }
        }
        // Small ones keep their digits.
        let plane = Plane {
            height: 28,
            width: 28,
            block: 7,
        };
        let (rate, paper) = (plane.seed_rate(1e-20), 1e-20 / 49.0 * 784.0 / 484.0);
        assert!((rate / paper - 1.0).abs() < 1e-14, "{rate}");
    }

    /// The figures of the documentation.
    #[test]
    fn squares_of_7_by_7_in_28_by_28() {
        let plane = Plane {
            height: 28,
            width: 28,
            block: 7,
        };
        let rate = plane.seed_rate(0.5);
        assert!((rate - 0.025_668_973_546_548_8).abs() < 1e-15, "{rate}");
        let dropped = |squares| 1.0 - (1.0 - rate).powi(squares);
        for (squares, expected) in [(49, 0.72), (7, 0.17), (1, 0.026)] {
            assert!((dropped(squares) - expected).abs() < 0.005, "{squares}");
        }
        let paper = |p: f64| p / 49.0 * 784.0 / 484.0;
        for (p, expected) in [(0.5, 0.37), (0.9, 0.55)] {
            assert!((counted(plane, paper(p)) - expected).abs() < 0.005, "{p}");
        }
        // A square as large as the plane, and one of a single position.
        assert_eq!(
            Plane {
                height: 7,
                width: 7,
                block: 7
            }
            .seed_rate(0.1),
            0.1
        );
        assert_eq!(
            Plane {
                height: 4,
                width: 9,
                block: 1
            }
            .seed_rate(0.1),
            0.1
        );
    }

    #[test]
    fn seeds_are_the_mask_of_their_rate() {
        let at = MaskRegion::from(MaskKey::new(3, 9).window(17));
        for plane in planes() {
            for p in [0.01, 0.5, 0.999] {
                let (rate, len) = (DropRate::new(p).unwrap(), 6 * plane.height * plane.width);
                let mut expected = BitMask::new(len);
                let seeds = DropRate::new(plane.seed_rate(p)).unwrap();
                fill_mask(seeds, at, &mut expected).unwrap();
                expected
                    .drop_blocks([plane.height, plane.width], [plane.block; 2])
                    .unwrap();
                assert_eq!(
                    plane.mask(rate, at, len).unwrap(),
                    expected,
                    "{plane:?} {p}"
                );
            }
        }
    }
}
