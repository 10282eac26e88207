//! Dropout, a residual and a normalisation in one pass.

use crate::element::Element;
use crate::engine::Engine;
use crate::error::Error;
use crate::mask::{BitMask, BitSlice};
use crate::norm::{AddNorm, NormGradient};
use crate::rate::DropRate;
use crate::region::MaskRegion;

/// The rows of `residual + dropout(x + bias)`, normalised: `z = norm(sum) * weight + shift`, and the sum
/// itself, as `residual + (x + bias) * scale` where the mask keeps and the residual elsewhere.
///
/// Residual, sum, bias, weight and shift are of the type computed in, f32 for x and z of f16, bf16 and f32:
/// so a residual stream of many layers is rounded as f32 is. In the prenorm form the sum is the next
/// residual; in the postnorm form z is. With the [moments](crate::RowMoments) of its rows the sum is also
/// what [`norm_backward`] needs. The bits are written to `mask` if there is one; they are those of the
/// whole of x in row-major order, and rows need not be whole words of it.
///
/// At p = 0 and p = 1 it is the same computation without a random bit: p = 0 is what to call in eval.
///
/// Source: `dropout_add_layer_norm` and `dropout_add_rms_norm` of flash-attention, with `prenorm` and
/// `residual_in_fp32`; `fused_bias_dropout_residual_layer_norm` of Paddle.
///
/// # Errors
///
/// See the [module](crate::dropout).
///
/// ```
/// use sorix_kernels::{AddNorm, BitMask, Buffers, DropRate, MaskKey, Norm, RowMoments, dropout};
///
/// // One row; its mean is 3 and its variance 4.
/// let (x, residual) = ([0.5_f32, 1.0, 0.5, 1.0], [0.0, 3.0, 0.0, 3.0]);
/// let (mut sum, mut z, mut moments) = ([0.0; 4], [0.0; 4], [RowMoments::default(); 1]);
/// let norm = Norm::layer(4, 0.0)?.with_weight(&[10.0, 10.0, 10.0, 1.0])?;
/// let rows = AddNorm::new(norm, &x, Buffers::new(&residual, &mut sum)?, &mut z, &mut moments)?;
/// let rows = rows.with_bias(&[0.5, 1.0, 0.5, 1.0])?;
/// let mut mask = BitMask::new(4);
/// dropout::dropout_add_norm(DropRate::new(0.0)?, MaskKey::new(1, 0), rows, Some(&mut mask))?;
/// assert_eq!(sum, [1.0, 5.0, 1.0, 5.0]);
/// assert_eq!(z, [-10.0, 10.0, -10.0, 1.0]);
/// assert_eq!((moments[0].mean, moments[0].inverse_deviation), (3.0, 0.5));
/// assert_eq!(mask.count_kept(), 4);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn dropout_add_norm<T: Element>(
    rate: DropRate,
    at: impl Into<MaskRegion>,
    rows: AddNorm<'_, T>,
    mask: Option<&mut BitMask>,
) -> Result<(), Error> {
    Engine::active()?.dropout_add_norm(rate, at, rows, mask)
}

/// [`dropout_add_norm`] by a mask that is there.
///
/// # Errors
///
/// See the [module](crate::dropout).
///
/// ```
/// use sorix_kernels::{AddNorm, BitMask, Buffers, DropRate, Norm, RowMoments, dropout};
///
/// // The residual is rewritten.
/// let mut stream = [1.0, 0.0, 0.0, 0.0];
/// let (mut z, mut moments) = ([0.0; 4], [RowMoments::default()]);
/// let norm = Norm::rms(4, 0.0)?.with_shift(&[0.5; 4])?;
/// let x = [1.5, 9.0, 0.0, 0.0];
/// let rows = AddNorm::new(norm, &x, Buffers::in_place(&mut stream), &mut z, &mut moments)?;
/// let mask = BitMask::from_bools(&[true, false, true, true]);
/// dropout::apply_add_norm(DropRate::new(0.5)?, &mask, rows)?;
/// assert_eq!(stream, [4.0, 0.0, 0.0, 0.0]);
/// assert_eq!(z, [2.5, 0.5, 0.5, 0.5]);
/// assert_eq!(moments[0].inverse_deviation, 0.5);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn apply_add_norm<'m, T: Element>(
    rate: DropRate,
    mask: impl Into<BitSlice<'m>>,
    rows: AddNorm<'_, T>,
) -> Result<(), Error> {
    Engine::active()?.apply_add_norm(rate, mask, rows)
}

/// The gradient of a normalisation: of what was normalised, and of weight and shift if they are asked for.
///
/// With `y` the normalised row before weight and shift, and `h = weight * dz`, it is `(h - mean(h) - y *
/// mean(h * y)) * inverse_deviation`, for RMS without `mean(h)`, plus a second gradient of the sum, if
/// there is one. That is the gradient of the residual; that of x is [`backward`](super::backward) or
/// [`replay`](super::replay) of it, and that of the bias the sum of this over rows.
///
/// The gradients of weight and shift, `dz * y` and `dz` summed over rows, are added as doubles, in an order
/// that depends neither on the vector width nor on the number of threads.
///
/// # Errors
///
/// [`Error`], and nothing is written then, as in the [module](crate::dropout), and if allocation fails:
/// sums over rows need room for two doubles for each 64 elements.
///
/// ```
/// use sorix_kernels::{Norm, NormGradient, RowMoments, dropout};
///
/// // Two rows of mean 0 and deviation 1.
/// let sum = [-1.0_f32, 1.0, 1.0, -1.0];
/// let moments = [RowMoments { mean: 0.0, inverse_deviation: 1.0 }; 2];
/// let (mut d_sum, mut d_weight, mut d_shift) = ([0.0; 4], [0.0; 2], [0.0; 2]);
/// let norm = Norm::layer(2, 0.0)?.with_weight(&[2.0, 4.0])?;
/// let rows = NormGradient::new(norm, &[1.0_f32, 3.0, 5.0, 7.0], &sum, &moments, &mut d_sum)?
///     .with_more(&[0.5; 4])?
///     .with_d_weight(&mut d_weight)?
///     .with_d_shift(&mut d_shift)?;
/// dropout::norm_backward(rows)?;
/// // Rows of two are always -1 and 1 when normalised: no step changes them.
/// assert_eq!(d_sum, [0.5; 4]);
/// assert_eq!((d_weight, d_shift), ([4.0, -4.0], [6.0, 10.0]));
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn norm_backward<T: Element>(rows: NormGradient<'_, T>) -> Result<(), Error> {
    Engine::active()?.norm_backward(rows)
}
