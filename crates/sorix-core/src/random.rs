//! Tensors of random numbers, named by a key as masks are.
//!
//! Element i is a function of (seed, offset, i) alone. Elements 2j and 2j + 1 come from one block of
//! Philox4x32-10, whose counter is (seed, offset) and whose key is j with its two highest bits set to
//! say which distribution. The mask format uses keys below 2^56, so the numbers of a key have nothing
//! to do with its mask.
//!
//! A block is two 64-bit words, and the upper 53 bits of each a number in [0, 1). Elementary functions
//! are those of the `libm` crate, which is made of additions and multiplications that every machine
//! rounds alike; the standard library's differ from one system to the next.

use core::f64::consts::TAU;

use sorix_kernels::MaskKey;
use sorix_kernels::stream::philox4x32;

use crate::dtype::{DType, Scalar, dispatch};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

impl Tensor {
    /// A tensor of independent numbers from the standard normal distribution.
    ///
    /// They depend on the key and the element's row-major index alone, and are the same on every
    /// machine, up to the rounding to `dtype`. They are computed in f64 by the transformation of
    /// Box and Muller, *A note on the generation of random normal deviates* (1958), from 53 bits
    /// each; the largest that can come out is 8.57.
    ///
    /// # Errors
    ///
    /// Where the shape is too large for the memory.
    ///
    /// ```
    /// use sorix_core::{DType, MaskKey, Tensor};
    /// let x = Tensor::randn([1000, 1000], DType::F32, MaskKey::new(42, 0))?;
    /// assert!(x.mean()?.item::<f32>()?.abs() < 0.005);
    /// assert!((x.mul(&x)?.mean()?.item::<f32>()? - 1.0).abs() < 0.01);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn randn(shape: impl AsRef<[usize]>, dtype: DType, key: MaskKey) -> Result<Self> {
        let normal = |[u, v]: [f64; 2]| {
            // 1 - u is in (0, 1], so the logarithm is finite.
            let radius = (-2.0 * libm::log(1.0 - u)).sqrt();
            let (sin, cos) = libm::sincos(TAU * v);
            [radius * cos, radius * sin]
        };
        draw("randn", shape.as_ref(), dtype, key, Stream::Normal, normal)
    }

    /// A tensor of independent numbers, each anywhere from `low` up to `high` with equal
    /// probability. `high` itself comes out only where a number just below is rounded to `dtype`.
    ///
    /// They depend on the key and the element's row-major index alone, and are the same on every
    /// machine, up to that rounding.
    ///
    /// # Errors
    ///
    /// Where `low` is greater than `high`, or they or their difference are not finite; where the
    /// shape is too large for the memory.
    ///
    /// ```
    /// use sorix_core::{DType, MaskKey, Tensor};
    /// let key = MaskKey::new(42, 0);
    /// let x = Tensor::uniform([1000], -1.0, 3.0, DType::F64, key)?;
    /// assert!(x.to_vec::<f64>()?.iter().all(|&x| (-1.0..3.0).contains(&x)));
    /// assert!((x.mean()?.item::<f64>()? - 1.0).abs() < 0.15);
    ///
    /// let error = Tensor::uniform([2], 1.0, 0.0, DType::F64, key).unwrap_err();
    /// assert_eq!(error.to_string(), "uniform: expected finite low <= high, got 1 and 0");
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn uniform(
        shape: impl AsRef<[usize]>,
        low: f64,
        high: f64,
        dtype: DType,
        key: MaskKey,
    ) -> Result<Self> {
        let (op, width) = ("uniform", high - low);
        // NaN is neither.
        if !(width >= 0.0 && width.is_finite()) {
            return Err(Error::Bounds {
                op,
                expected: "finite low <= high",
                low,
                high,
            });
        }
        let scaled = |pair: [f64; 2]| pair.map(|u| low + width * u);
        draw(op, shape.as_ref(), dtype, key, Stream::Uniform, scaled)
    }
}

/// The two highest bits of Philox's key.
#[derive(Clone, Copy)]
enum Stream {
    Uniform = 2,
    Normal = 3,
}

/// A tensor with `distribution` of independent uniform numbers in [0, 1).
fn draw(
    op: &'static str,
    shape: &[usize],
    dtype: DType,
    key: MaskKey,
    stream: Stream,
    distribution: impl Fn([f64; 2]) -> [f64; 2],
) -> Result<Tensor> {
    let unit = |bits: u64| (bits >> 11) as f64 / (1_u64 << 53) as f64;
    let pair = |j: usize| {
        let block = philox4x32([key.seed, key.offset], (stream as u64) << 62 | j as u64);
        distribution(block.map(unit))
    };
    dispatch!(dtype, T => Tensor::filled(op, shape, |out: &mut [T]| {
        for (j, out) in out.chunks_mut(2).enumerate() {
            for (out, number) in out.iter_mut().zip(pair(j)) {
                *out = T::nearest(number);
            }
        }
    }))
}
