//! Inverted dropout over slices: `y = x / (1 - p)` where kept, `+0.0` where dropped.
//!
//! Every function runs on the [active](crate::dispatch::active) backend. A large call is shared out to
//! the threads of the current rayon pool, whatever p is; a small one stays on the calling thread. `at`
//! says which part of which mask is meant: a [`MaskKey`](crate::MaskKey) is the mask from its first
//! element on, a [`MaskWindow`](crate::MaskWindow) the mask from another one on, and a [`MaskRegion`] the
//! shard of a larger tensor. The result depends neither on the backend nor on the number of threads nor
//! on how a tensor was cut.
//!
//! p = 0 and p = 1 draw no random bit: p = 0 copies, down to the bits of a NaN, and p = 1 writes `+0.0`.
//!
//! ```
//! use sorix_kernels::{BitMask, DropRate, MaskKey, dropout};
//!
//! let rate = DropRate::new(0.5)?;
//! let key = MaskKey { seed: 42, offset: 7 };
//! let x = [10.0, 20.0, 30.0, 40.0, 50.0];
//! let (mut y, mut mask) = ([0.0; 5], BitMask::new(5));
//! dropout::forward(rate, key, &x, &mut y, &mut mask)?;
//! for ((x, y), keep) in x.iter().zip(y).zip(&mask) {
//!     assert_eq!(y, if keep { 2.0 * x } else { 0.0 });
//! }
//!
//! let (mut stored, mut replayed) = ([0.0; 5], [0.0; 5]);
//! dropout::backward(rate, &mask, &[1.0; 5], &mut stored)?;
//! dropout::replay(rate, key, &[1.0; 5], &mut replayed)?;
//! assert_eq!(stored, replayed);
//! # Ok::<(), sorix_kernels::Error>(())
//! ```
//!
//! # Errors
//!
//! All functions return [`Error`], and have then written nothing, if lengths differ, if a window reaches
//! beyond element 2^64 - 1, or if an environment variable names a backend that this machine does not have
//! or holds no number where one is expected.

mod activation;
mod norm;

use crate::affine::Affine;
use crate::broadcast::Broadcast;
use crate::buffers::Buffers;
use crate::element::Element;
use crate::engine::Engine;
use crate::error::{Error, LengthError};
use crate::mask::{BitMask, BitSlice};
use crate::rate::DropRate;
use crate::region::MaskRegion;

pub use activation::{
    act_dropout, act_dropout_backward, act_dropout_in_place, act_dropout_replay, swiglu_dropout,
    swiglu_dropout_backward,
};
pub use norm::{apply_add_norm, dropout_add_norm, norm_backward};

/// The mask alone: which elements of the window are kept, as many as `mask` has.
///
/// # Errors
///
/// See the [module](self).
///
/// ```
/// use sorix_kernels::{BitMask, DropRate, MaskKey, dropout};
/// let mut mask = BitMask::new(1_000_000);
/// dropout::fill_mask(DropRate::new(0.1)?, MaskKey::new(3, 0), &mut mask)?;
/// assert!((mask.count_kept() as f64 / 1e6 - 0.9).abs() < 0.002);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn fill_mask(
    rate: DropRate,
    at: impl Into<MaskRegion>,
    mask: &mut BitMask,
) -> Result<(), Error> {
    Engine::active()?.fill_mask(rate, at, mask)
}

/// `y = x * scale` where the mask keeps, `+0.0` elsewhere; the mask is written too.
///
/// # Errors
///
/// See the [module](self).
///
/// ```
/// use sorix_kernels::{BitMask, DropRate, MaskKey, dropout};
/// let (mut y, mut mask) = ([9.0_f32; 3], BitMask::new(3));
/// dropout::forward(DropRate::new(0.0)?, MaskKey::new(1, 0), &[1.0, 2.0, 3.0], &mut y, &mut mask)?;
/// assert_eq!(y, [1.0, 2.0, 3.0]);
/// assert_eq!(mask.count_kept(), 3);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn forward<T: Element>(
    rate: DropRate,
    at: impl Into<MaskRegion>,
    x: &[T],
    y: &mut [T],
    mask: &mut BitMask,
) -> Result<(), Error> {
    Engine::active()?.forward(rate, at, Buffers::new(x, y)?, mask)
}

/// [`forward`], over the input itself.
///
/// # Errors
///
/// See the [module](self).
///
/// ```
/// use sorix_kernels::{BitMask, DropRate, MaskKey, dropout};
/// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(1, 0));
/// let (mut x, mut y) = ([1.0_f32; 100], [0.0_f32; 100]);
/// let mut mask = BitMask::new(100);
/// dropout::forward(rate, key, &x, &mut y, &mut mask)?;
/// dropout::forward_in_place(rate, key, &mut x, &mut mask)?;
/// assert_eq!(x, y);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn forward_in_place<T: Element>(
    rate: DropRate,
    at: impl Into<MaskRegion>,
    x: &mut [T],
    mask: &mut BitMask,
) -> Result<(), Error> {
    Engine::active()?.forward(rate, at, Buffers::in_place(x), mask)
}

/// The gradient, from the mask that [`forward`] wrote: `dx = dy * scale` where it keeps, `+0.0`
/// elsewhere.
///
/// # Errors
///
/// See the [module](self).
///
/// ```
/// use sorix_kernels::{BitMask, DropRate, dropout};
/// let mask = BitMask::from_bools(&[true, false]);
/// let mut dx = [0.0; 2];
/// dropout::backward(DropRate::new(0.75)?, &mask, &[1.0, f64::NAN], &mut dx)?;
/// assert_eq!(dx, [4.0, 0.0]);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn backward<'m, T: Element>(
    rate: DropRate,
    mask: impl Into<BitSlice<'m>>,
    dy: &[T],
    dx: &mut [T],
) -> Result<(), Error> {
    Engine::active()?.apply(rate, mask, Buffers::new(dy, dx)?)
}

/// [`backward`], over the gradient itself.
///
/// # Errors
///
/// See the [module](self).
///
/// ```
/// use sorix_kernels::{BitMask, DropRate, dropout};
/// let mut dy = [3.0_f32, 5.0];
/// dropout::backward_in_place(DropRate::new(0.5)?, &BitMask::from_bools(&[false, true]), &mut dy)?;
/// assert_eq!(dy, [0.0, 10.0]);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn backward_in_place<'m, T: Element>(
    rate: DropRate,
    mask: impl Into<BitSlice<'m>>,
    dy: &mut [T],
) -> Result<(), Error> {
    Engine::active()?.apply(rate, mask, Buffers::in_place(dy))
}

/// The gradient from the key alone: the mask is made again, nothing was stored. Equal to
/// [`backward`] bit for bit.
///
/// # Errors
///
/// See the [module](self).
///
/// ```
/// use sorix_kernels::{DropRate, MaskKey, dropout};
/// let mut dx = [7.0_f64; 2];
/// dropout::replay(DropRate::new(1.0)?, MaskKey::new(1, 0), &[1.0, f64::INFINITY], &mut dx)?;
/// assert_eq!(dx, [0.0, 0.0]);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn replay<T: Element>(
    rate: DropRate,
    at: impl Into<MaskRegion>,
    dy: &[T],
    dx: &mut [T],
) -> Result<(), Error> {
    Engine::active()?.replay(rate, at, Buffers::new(dy, dx)?)
}

/// [`replay`], over the gradient itself.
///
/// # Errors
///
/// See the [module](self).
///
/// ```
/// use sorix_kernels::{DropRate, MaskKey, dropout};
/// let mut dy = [1.0_f32; 1000];
/// dropout::replay_in_place(DropRate::new(0.5)?, MaskKey::new(1, 0), &mut dy)?;
/// assert!(dy.iter().all(|&dx| dx == 0.0 || dx == 2.0));
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn replay_in_place<T: Element>(
    rate: DropRate,
    at: impl Into<MaskRegion>,
    dy: &mut [T],
) -> Result<(), Error> {
    Engine::active()?.replay(rate, at, Buffers::in_place(dy))
}

/// A mask that came from elsewhere: `y = x * scale` where it keeps, `+0.0` elsewhere.
///
/// # Errors
///
/// See the [module](self).
///
/// ```
/// use sorix_kernels::{BitMask, DropRate, dropout};
/// let mask = BitMask::from_bools(&[true, true, false]);
/// let mut y = [0.0_f32; 2];
/// // A view of the mask serves a window.
/// dropout::apply(DropRate::new(0.5)?, mask.slice(1..)?, &[1.0, 2.0], &mut y)?;
/// assert_eq!(y, [2.0, 0.0]);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn apply<'m, T: Element>(
    rate: DropRate,
    mask: impl Into<BitSlice<'m>>,
    x: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    Engine::active()?.apply(rate, mask, Buffers::new(x, y)?)
}

/// [`apply`], over the input itself.
///
/// # Errors
///
/// See the [module](self).
///
/// ```
/// use sorix_kernels::{BitMask, DropRate, dropout};
/// let mut x = [1.0_f32, 2.0];
/// dropout::apply_in_place(DropRate::new(0.5)?, &BitMask::from_bools(&[true, false]), &mut x)?;
/// assert_eq!(x, [2.0, 0.0]);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn apply_in_place<'m, T: Element>(
    rate: DropRate,
    mask: impl Into<BitSlice<'m>>,
    x: &mut [T],
) -> Result<(), Error> {
    Engine::active()?.apply(rate, mask, Buffers::in_place(x))
}

/// A mask of a smaller shape: bit for bit what [`apply`] writes for the mask that `shape` expands it
/// to, which is never made. Forward, given a mask from [`fill_mask`], and backward are the same.
///
/// # Errors
///
/// See the [module](self).
///
/// ```
/// use sorix_kernels::{BitMask, Broadcast, DropRate, dropout};
/// // Two rows of three, channels last: a bit for each channel.
/// let channels = Broadcast::new(&[2, 3], &[1, 3])?;
/// let mask = BitMask::from_bools(&[true, false, true]);
/// let mut y = [9.0_f32; 6];
/// dropout::apply_broadcast(DropRate::new(0.5)?, &mask, &channels, &[1., 2., 3., 4., 5., 6.], &mut y)?;
/// assert_eq!(y, [2., 0., 6., 8., 0., 12.]);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn apply_broadcast<'m, T: Element>(
    rate: DropRate,
    mask: impl Into<BitSlice<'m>>,
    shape: &Broadcast,
    x: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    Engine::active()?.apply_broadcast(rate, mask, shape, Buffers::new(x, y)?)
}

/// [`apply_broadcast`], over the input itself.
///
/// # Errors
///
/// See the [module](self).
///
/// ```
/// use sorix_kernels::{BitMask, Broadcast, DropRate, dropout};
/// let samples = Broadcast::new(&[2, 2], &[2, 1])?;
/// let mut x = [1.0, 2.0, 3.0, 4.0];
/// let mask = BitMask::from_bools(&[false, true]);
/// dropout::apply_broadcast_in_place(DropRate::new(0.5)?, &mask, &samples, &mut x)?;
/// assert_eq!(x, [0.0, 0.0, 6.0, 8.0]);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn apply_broadcast_in_place<'m, T: Element>(
    rate: DropRate,
    mask: impl Into<BitSlice<'m>>,
    shape: &Broadcast,
    x: &mut [T],
) -> Result<(), Error> {
    Engine::active()?.apply_broadcast(rate, mask, shape, Buffers::in_place(x))
}

/// Another map than inverted dropout's: `y = scale * x + shift` where the mask keeps, a constant
/// elsewhere. See [`Affine`] for what is rounded when, and [`Broadcast::full`] for a mask with a bit
/// for each element.
///
/// # Errors
///
/// See the [module](self).
///
/// ```
/// use sorix_kernels::{Affine, BitMask, Broadcast, dropout};
/// let mask = BitMask::from_bools(&[true, false]);
/// let (rows, affine) = (Broadcast::new(&[2, 2], &[2, 1])?, Affine::scale(1.0));
/// let mut y = [9.0; 4];
/// dropout::apply_affine(affine, &mask, &rows, &[1.0, 2.0, 3.0, 4.0], &mut y)?;
/// assert_eq!(y, [1.0, 2.0, 0.0, 0.0]);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn apply_affine<'m, T: Element>(
    affine: Affine,
    mask: impl Into<BitSlice<'m>>,
    shape: &Broadcast,
    x: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    Engine::active()?.apply_affine(affine, mask, shape, Buffers::new(x, y)?)
}

/// [`apply_affine`], over the input itself.
///
/// # Errors
///
/// See the [module](self).
///
/// ```
/// use sorix_kernels::{Affine, BitMask, Broadcast, dropout};
/// let mut x = [1.0_f32, 2.0];
/// let affine = Affine { scale: 3.0, shift: 1.0, dropped: -1.0 };
/// let mask = BitMask::from_bools(&[true, false]);
/// dropout::apply_affine_in_place(affine, &mask, &Broadcast::full(2), &mut x)?;
/// assert_eq!(x, [4.0, -1.0]);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn apply_affine_in_place<'m, T: Element>(
    affine: Affine,
    mask: impl Into<BitSlice<'m>>,
    shape: &Broadcast,
    x: &mut [T],
) -> Result<(), Error> {
    Engine::active()?.apply_affine(affine, mask, shape, Buffers::in_place(x))
}

/// Dropout of `x`, added to a residual: `y = residual + x * scale` where the mask keeps, `y = residual`
/// elsewhere. One pass over memory instead of two.
///
/// The product is rounded in the type computed in, the sum too, and once more to the element type. At
/// p = 0 it is the sum of the two. The bits are written to `mask` if there is one. The gradient of `x` is
/// that of dropout, from these bits ([`backward`]) or from the key ([`replay`]); that of the residual is the
/// gradient itself.
///
/// Source: `fused_dropout_add` of Paddle; `bias_dropout_add` of Megatron-LM, without its bias.
///
/// # Errors
///
/// See the [module](self).
///
/// ```
/// use sorix_kernels::{BitMask, DropRate, MaskKey, dropout};
/// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(1, 0));
/// let (x, residual) = ([1.0_f32; 100], [10.0_f32; 100]);
/// let (mut y, mut mask) = ([0.0; 100], BitMask::new(100));
/// dropout::dropout_add(rate, key, &x, &residual, &mut y, Some(&mut mask))?;
/// assert!(y.iter().zip(&mask).all(|(&y, keep)| y == if keep { 12.0 } else { 10.0 }));
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn dropout_add<T: Element>(
    rate: DropRate,
    at: impl Into<MaskRegion>,
    x: &[T],
    residual: &[T],
    y: &mut [T],
    mask: Option<&mut BitMask>,
) -> Result<(), Error> {
    let buffers = Buffers::new(residual, y)?.with_elements(x)?;
    Engine::active()?.dropout_add(rate, at, buffers, mask)
}

/// [`dropout_add`], to the residual itself: `residual += dropout(x)`.
///
/// # Errors
///
/// See the [module](self).
///
/// ```
/// use sorix_kernels::{DropRate, MaskKey, dropout};
/// let mut residual = [1.0, 2.0];
/// dropout::dropout_add_in_place(DropRate::new(0.0)?, MaskKey::new(1, 0), &[0.5; 2], &mut residual, None)?;
/// assert_eq!(residual, [1.5, 2.5]);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn dropout_add_in_place<T: Element>(
    rate: DropRate,
    at: impl Into<MaskRegion>,
    x: &[T],
    residual: &mut [T],
    mask: Option<&mut BitMask>,
) -> Result<(), Error> {
    let buffers = Buffers::in_place(residual).with_elements(x)?;
    Engine::active()?.dropout_add(rate, at, buffers, mask)
}

/// [`dropout_add`] by a mask of a smaller shape, from [`fill_mask`]: of whole samples, it is stochastic
/// depth and the residual in one pass. Samples that are dropped are not read.
///
/// # Errors
///
/// See the [module](self).
///
/// ```
/// use sorix_kernels::{BitMask, Broadcast, DropRate, dropout};
/// let samples = Broadcast::new(&[2, 2], &[2, 1])?;
/// let mask = BitMask::from_bools(&[false, true]);
/// let mut y = [0.0; 4];
/// dropout::dropout_add_broadcast(
///     DropRate::new(0.5)?, &mask, &samples, &[f64::NAN, 1.0, 2.0, 3.0], &[10.0; 4], &mut y,
/// )?;
/// assert_eq!(y, [10.0, 10.0, 14.0, 16.0]);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn dropout_add_broadcast<'m, T: Element>(
    rate: DropRate,
    mask: impl Into<BitSlice<'m>>,
    shape: &Broadcast,
    x: &[T],
    residual: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    let buffers = Buffers::new(residual, y)?.with_elements(x)?;
    Engine::active()?.dropout_add_broadcast(rate, mask, shape, buffers)
}

/// [`dropout_add`] of `x` with a bias: `y = residual + (x + bias) * scale` where the mask keeps, `y = residual`
/// elsewhere. One pass over memory instead of three.
///
/// The bias is a row that stands beside `x` again and again: as long as its last axis, in row-major order. In
/// a [window](crate::MaskWindow) or shard of a larger tensor, x begins with the first element of the row.
///
/// Each step is rounded in the type computed in, and the last sum once more to the element type, so that 16
/// bits are rounded once: `x + bias`, that times the scale, and that plus the residual. The gradient of the
/// bias is the sum of those of x; the others are as for [`dropout_add`].
///
/// Source: `bias_dropout_add` of Megatron-LM.
///
/// # Errors
///
/// See the [module](self), and if `x` is not whole rows as long as the bias.
///
/// ```
/// use sorix_kernels::{BitMask, DropRate, MaskKey, dropout};
/// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(1, 0));
/// let (x, residual) = ([1.0_f32; 100], [10.0_f32; 100]);
/// let (mut y, mut mask) = ([0.0; 100], BitMask::new(100));
/// dropout::bias_dropout_add(rate, key, &x, &[0.0, 1.0], &residual, &mut y, Some(&mut mask))?;
/// for (i, (y, keep)) in y.into_iter().zip(&mask).enumerate() {
///     assert_eq!(y, if keep { [12.0, 14.0][i % 2] } else { 10.0 });
/// }
/// let error = dropout::bias_dropout_add(rate, key, &x, &[0.0; 3], &residual, &mut y, None);
/// assert_eq!(
///     error.unwrap_err().to_string(),
///     "length of input (whole rows of the bias): expected 99, got 100"
/// );
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn bias_dropout_add<T: Element>(
    rate: DropRate,
    at: impl Into<MaskRegion>,
    x: &[T],
    bias: &[T],
    residual: &[T],
    y: &mut [T],
    mask: Option<&mut BitMask>,
) -> Result<(), Error> {
    let buffers = with_bias(Buffers::new(residual, y)?, bias)?.with_elements(x)?;
    Engine::active()?.dropout_add(rate, at, buffers, mask)
}

/// [`bias_dropout_add`], to the residual itself: `residual += dropout(x + bias)`.
///
/// # Errors
///
/// As there.
///
/// ```
/// use sorix_kernels::{DropRate, MaskKey, dropout};
/// let (rate, key) = (DropRate::new(0.0)?, MaskKey::new(1, 0));
/// let mut residual = [1.0, 2.0, 3.0, 4.0];
/// dropout::bias_dropout_add_in_place(rate, key, &[0.5; 4], &[10.0, 20.0], &mut residual, None)?;
/// assert_eq!(residual, [11.5, 22.5, 13.5, 24.5]);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn bias_dropout_add_in_place<T: Element>(
    rate: DropRate,
    at: impl Into<MaskRegion>,
    x: &[T],
    bias: &[T],
    residual: &mut [T],
    mask: Option<&mut BitMask>,
) -> Result<(), Error> {
    let buffers = with_bias(Buffers::in_place(residual), bias)?.with_elements(x)?;
    Engine::active()?.dropout_add(rate, at, buffers, mask)
}

/// Buffers of whole rows as long as the bias, with the bias.
fn with_bias<'a, T: Element>(
    buffers: Buffers<'a, T>,
    bias: &'a [T],
) -> Result<Buffers<'a, T>, LengthError> {
    let len = buffers.len();
    let whole = len - len.checked_rem(bias.len()).unwrap_or(0);
    LengthError::check("input (whole rows of the bias)", whole, len)?;
    buffers.with_row(bias)
}
