//! Tensors of random numbers, named by a key as masks are.
//!
//! Element i is a function of (seed, offset, i) alone, so that threads and shards make their own
//! parts of the whole. Numbers are made in tiles of 1,024, of which one costs as much as all that
//! come before it in the tile.
//!
//! Normal numbers of a tile are drawn one after another from two [lanes](Lane). Uniform numbers 2j and 2j + 1
//! come from one block of Philox4x32-10 each, whose counter is (seed, offset) and whose key is j. In
//! both the two highest bits of Philox's key say which distribution. Masks have keys below 2^56, so
//! the numbers of a key have nothing to do with its mask.

mod ziggurat;

use sorix_kernels::internal::{Lane, parallel, philox4x32};
use sorix_kernels::{MaskKey, MaskRegion};

use crate::dtype::{DType, Scalar, dispatch};
use crate::error::{Call, ErrorKind, Result};
use crate::ops::elementwise::for_each_chunk;
use crate::tensor::Tensor;
use ziggurat::Ziggurat;

impl Tensor {
    /// A tensor of independent numbers from the standard normal distribution:
    /// [`normal`](Tensor::normal) with mean 0 and standard deviation 1.
    ///
    /// # Errors
    ///
    /// As [`normal`](Tensor::normal).
    ///
    /// ```
    /// use sorix_core::{DType, MaskKey, Tensor};
    /// let x = Tensor::randn([1000, 1000], DType::F32, MaskKey::new(42, 0))?;
    /// assert!(x.mean()?.item::<f32>()?.abs() < 0.005);
    /// assert!((x.mul(&x)?.mean()?.item::<f32>()? - 1.0).abs() < 0.01);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn randn(
        shape: impl AsRef<[usize]>,
        dtype: DType,
        at: impl Into<MaskRegion>,
    ) -> Result<Self> {
        let shape = shape.as_ref();
        let call = Call::making("randn", shape, dtype);
        normal(call, shape, [0.0, 1.0], dtype, at.into())
    }

    /// A tensor of independent numbers from the normal distribution of this mean and standard
    /// deviation.
    ///
    /// They depend on the key and the element's row-major index alone, and are the same on every
    /// machine and for any number of threads, up to the rounding to `dtype`. `at` is a key, or a
    /// [window](MaskKey::window) or [shard](MaskKey::shard) if this tensor is a part of a larger
    /// one and is to get its part of that one's numbers. They are computed in f64, by the ziggurat
    /// method (Marsaglia and Tsang 2000) from 53 bits; none is further than 12.7 standard deviations
    /// from the mean.
    ///
    /// # Errors
    ///
    /// If the mean is not finite, or the standard deviation negative or not finite; if a shard has
    /// another number of elements than the shape, or a window reaches beyond element 2^64 - 1; if
    /// the shape is too large for the memory.
    ///
    /// ```
    /// use sorix_core::{DType, MaskKey, Tensor};
    /// let key = MaskKey::new(42, 0);
    /// let x = Tensor::normal([4, 300], 5.0, 0.1, DType::F64, key)?;
    /// assert!((x.mean()?.item::<f64>()? - 5.0).abs() < 0.02);
    ///
    /// // The second of two workers has columns 150 to 299.
    /// let shard = key.shard(&[4, 300], 1, 150..300).unwrap();
    /// let part = Tensor::normal([4, 150], 5.0, 0.1, DType::F64, shard)?;
    /// assert_eq!(part.to_vec::<f64>()?, x.slice(1, 150..300)?.to_vec::<f64>()?);
    ///
    /// let error = Tensor::normal([2], 0.0, -1.0, DType::F64, key).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "normal(float64[2]): expected a finite mean and a finite standard deviation >= 0, got 0.0 and -1.0"
    /// );
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn normal(
        shape: impl AsRef<[usize]>,
        mean: f64,
        std: f64,
        dtype: DType,
        at: impl Into<MaskRegion>,
    ) -> Result<Self> {
        let shape = shape.as_ref();
        let call = Call::making("normal", shape, dtype);
        // NaN is not at least 0.
        if !(mean.is_finite() && std.is_finite() && std >= 0.0) {
            return Err(call.error(ErrorKind::Moments { mean, std }));
        }
        normal(call, shape, [mean, std], dtype, at.into())
    }

    /// A tensor of independent numbers, each anywhere from `low` up to `high` with equal
    /// probability. `high` itself comes out only if a number just below is rounded to `dtype`.
    ///
    /// They depend on the key and the element's row-major index alone, and are the same on every
    /// machine and for any number of threads, up to that rounding. `at` is a key, or a part of a
    /// larger tensor, as for [`normal`](Tensor::normal).
    ///
    /// # Errors
    ///
    /// If `low` is greater than `high`, or they or their difference are not finite; if a shard has
    /// another number of elements than the shape, or a window reaches beyond element 2^64 - 1; if
    /// the shape is too large for the memory.
    ///
    /// ```
    /// use sorix_core::{DType, MaskKey, Tensor};
    /// let key = MaskKey::new(42, 0);
    /// let x = Tensor::uniform([1000], -1.0, 3.0, DType::F64, key)?;
    /// assert!(x.to_vec::<f64>()?.iter().all(|&x| (-1.0..3.0).contains(&x)));
    /// assert!((x.mean()?.item::<f64>()? - 1.0).abs() < 0.15);
    ///
    /// let error = Tensor::uniform([2], 1.0, 0.0, DType::F64, key).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "uniform(float64[2]): expected low <= high with a finite difference, got 1.0 and 0.0"
    /// );
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn uniform(
        shape: impl AsRef<[usize]>,
        low: f64,
        high: f64,
        dtype: DType,
        at: impl Into<MaskRegion>,
    ) -> Result<Self> {
        let (shape, width) = (shape.as_ref(), high - low);
        let call = Call::making("uniform", shape, dtype);
        // NaN is neither.
        if !(width >= 0.0 && width.is_finite()) {
            return Err(call.error(ErrorKind::Bounds {
                expected: "low <= high with a finite difference",
                low,
                high,
            }));
        }
        draw(call, shape, dtype, at.into(), |key, tile, out| {
            let first = tile * (TILE as u64 / 2);
            for (j, pair) in (first..).zip(out.chunks_mut(2)) {
                let block = philox4x32([key.seed, key.offset], UNIFORM << 62 | j);
                for (number, bits) in pair.iter_mut().zip(block) {
                    let unit = (bits >> 11) as f64 / (1_u64 << 53) as f64;
                    *number = low + width * unit;
                }
            }
        })
    }
}

/// Numbers that are made together.
const TILE: usize = 1024;

/// The two highest bits of Philox's key, for each distribution.
const UNIFORM: u64 = 2;
const NORMAL: u64 = 3;

fn normal(
    call: Call<'_>,
    shape: &[usize],
    [mean, std]: [f64; 2],
    dtype: DType,
    at: MaskRegion,
) -> Result<Tensor> {
    let ziggurat = Ziggurat::standard();
    draw(call, shape, dtype, at, |key, tile, out| {
        // A lane's number is half of Philox's key.
        let [words, more] = [0, 1].map(|i| Lane::new(key, (NORMAL << 61) | (2 * tile + i)));
        ziggurat.fill(words, more, out, |z| mean + std * z);
    })
}

/// A tensor of the numbers that `make_tile` makes: the first of a tile of a key, as many as it is
/// given to write.
fn draw(
    call: Call<'_>,
    shape: &[usize],
    dtype: DType,
    at: MaskRegion,
    make_tile: impl Fn(MaskKey, u64, &mut [f64]) + Sync,
) -> Result<Tensor> {
    dispatch!(dtype, T => Tensor::try_filled(call, shape, |out: &mut [T]| {
        at.check_len(out.len())?;
        in_parts(out, |first, out| fill(out, at, first, &make_tile));
        Ok(())
    }))
}

/// `fill(i, part)` for parts of `out` that begin at its element i, on several threads if that pays.
fn in_parts<T: Scalar>(out: &mut [T], fill: impl Fn(usize, &mut [T]) + Sync) {
    /// What it costs to make a number, compared with moving it to memory.
    const COST: usize = 8;
    /// Long enough that it does not matter that the tile at its end is begun twice.
    const PART: usize = 32 * TILE;

    let bytes = size_of_val(out).saturating_mul(COST);
    if parallel::threads_pay(bytes) {
        for_each_chunk(out, PART, bytes, |i, part| fill(i * PART, part));
    } else {
        fill(0, out);
    }
}

/// Writes what elements `first` and following of a region are. A tile is made once, for all runs that
/// fall into it.
fn fill<T: Scalar>(
    mut out: &mut [T],
    at: MaskRegion,
    first: usize,
    make_tile: impl Fn(MaskKey, u64, &mut [f64]),
) {
    let Some(before_end) = out.len().checked_sub(1) else {
        return;
    };
    let place = |index: u64| (index / TILE as u64, (index % TILE as u64) as usize);
    let (last_tile, last) = place(at.index(first + before_end));
    let mut numbers = [0.0; TILE];
    let mut made = None;
    for (index, len) in at.runs(first..first + out.len()) {
        let (mut tile, mut begin) = place(index);
        let (mut run, rest) = core::mem::take(&mut out).split_at_mut(len);
        out = rest;
        while !run.is_empty() {
            if made != Some(tile) {
                let end = if tile == last_tile { last + 1 } else { TILE };
                make_tile(at.key(), tile, &mut numbers[..end]);
                made = Some(tile);
            }
            let n = run.len().min(TILE - begin);
            let (now, later) = run.split_at_mut(n);
            for (out, &number) in now.iter_mut().zip(&numbers[begin..]) {
                *out = T::nearest(number);
            }
            (run, tile, begin) = (later, tile + 1, 0);
        }
    }
}
