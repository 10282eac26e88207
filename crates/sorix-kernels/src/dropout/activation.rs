//! Dropout of an activation.

use super::with_bias;
use crate::activation::Activation;
use crate::buffers::Buffers;
use crate::element::Element;
use crate::engine::Engine;
use crate::error::{Error, LengthError};
use crate::function::Function;
use crate::mask::{BitMask, BitSlice};
use crate::rate::DropRate;
use crate::region::MaskRegion;

/// Dropout of an activation: `y = activation(x + bias) * scale` where the mask keeps, `+0.0` elsewhere. One
/// pass over memory instead of three. The bias, if there is one, is a row as for [`bias_dropout_add`](super::bias_dropout_add).
///
/// `x + bias`, its activation, and the product are each rounded in the type computed in, the last once more to
/// the element type: 16 bits are rounded once. The gradient is that of [`act_dropout_backward`], or from the
/// key [`act_dropout_replay`]; both need x.
///
/// Of [`Activation::Relu`] the bits that are written to `mask`, if there is one, are those of the elements
/// that are kept *and* not at most 0, or NaN: all that backward needs, which is [`backward`](super::backward), so that x need
/// not be kept.
///
/// Source: `launch_ls_dropout_act_bias` of LightSeq, for the activation and the bias; the bit for ReLU is our own.
///
/// # Errors
///
/// See the [module](crate::dropout), and if `x` is not whole rows as long as the bias.
///
/// ```
/// use sorix_kernels::{Activation, BitMask, DropRate, MaskKey, dropout};
/// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(1, 0));
/// let (x, bias) = ([-1.0, -1.0, 3.0, 3.0], [0.5, 2.0]);
/// let (mut y, mut mask) = ([9.0; 4], BitMask::new(4));
/// let relu = Activation::Relu;
/// dropout::act_dropout(relu, DropRate::new(0.0)?, key, &x, Some(&bias), &mut y, Some(&mut mask))?;
/// assert_eq!(y, [0.0, 1.0, 3.5, 5.0]);
/// assert_eq!(mask, BitMask::from_bools(&[false, true, true, true]));
///
/// dropout::act_dropout(relu, rate, key, &x, Some(&bias), &mut y, Some(&mut mask))?;
/// let mut dx = [9.0; 4];
/// dropout::backward(rate, &mask, &[1.0; 4], &mut dx)?;
/// for (i, (y, dx)) in y.into_iter().zip(dx).enumerate() {
///     let sum = x[i] + bias[i % 2];
///     assert!((y, dx) == (0.0, 0.0) || sum > 0.0 && (y, dx) == (2.0 * sum, 2.0));
/// }
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn act_dropout<T: Element>(
    activation: Activation,
    rate: DropRate,
    at: impl Into<MaskRegion>,
    x: &[T],
    bias: Option<&[T]>,
    y: &mut [T],
    mask: Option<&mut BitMask>,
) -> Result<(), Error> {
    let mut buffers = Buffers::new(x, y)?;
    if let Some(bias) = bias {
        buffers = with_bias(buffers, bias)?;
    }
    Engine::active()?.act_dropout(activation, rate, at, buffers, mask)
}

/// [`act_dropout`], over the input itself.
///
/// # Errors
///
/// As there.
///
/// ```
/// use sorix_kernels::{Activation, DropRate, MaskKey, dropout};
/// let mut x = [-1.0_f32, 2.0];
/// let (rate, key) = (DropRate::new(0.0)?, MaskKey::new(1, 0));
/// dropout::act_dropout_in_place(Activation::Relu, rate, key, &mut x, None, None)?;
/// assert_eq!(x, [0.0, 2.0]);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn act_dropout_in_place<T: Element>(
    activation: Activation,
    rate: DropRate,
    at: impl Into<MaskRegion>,
    x: &mut [T],
    bias: Option<&[T]>,
    mask: Option<&mut BitMask>,
) -> Result<(), Error> {
    let mut buffers = Buffers::in_place(x);
    if let Some(bias) = bias {
        buffers = with_bias(buffers, bias)?;
    }
    Engine::active()?.act_dropout(activation, rate, at, buffers, mask)
}

/// The gradient of [`act_dropout`], from the bits that it wrote: `dx = activation'(x + bias) * dy * scale` where
/// they keep, `+0.0` elsewhere. It is that of `x + bias`, too: the gradient of the bias is its sum over rows.
///
/// # Errors
///
/// See the [module](crate::dropout), and if `x` is not whole rows as long as the bias.
///
/// ```
/// use sorix_kernels::{Activation, BitMask, DropRate, dropout};
/// let mask = BitMask::from_bools(&[true, false]);
/// let mut dx = [9.0_f32; 2];
/// let (half, silu) = (DropRate::new(0.5)?, Activation::Silu);
/// dropout::act_dropout_backward(silu, half, &mask, &[0.0; 2], None, &[3.0, f32::NAN], &mut dx)?;
/// assert_eq!(dx, [3.0, 0.0]);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn act_dropout_backward<'m, T: Element>(
    activation: Activation,
    rate: DropRate,
    mask: impl Into<BitSlice<'m>>,
    x: &[T],
    bias: Option<&[T]>,
    dy: &[T],
    dx: &mut [T],
) -> Result<(), Error> {
    let buffers = gradient(x, bias, dy, dx)?;
    Engine::active()?.map_apply(activation.derivative(), rate, mask, buffers)
}

/// [`act_dropout_backward`] from the key, which makes the bits again.
///
/// # Errors
///
/// As there.
///
/// ```
/// use sorix_kernels::{Activation, BitMask, DropRate, MaskKey, dropout};
/// let (gelu, rate, key) = (Activation::Gelu, DropRate::new(0.5)?, MaskKey::new(1, 0));
/// let (x, dy) = ([1.0_f32, -2.0, 0.5, 3.0], [1.0; 4]);
/// let (mut y, mut mask) = ([0.0; 4], BitMask::new(4));
/// dropout::act_dropout(gelu, rate, key, &x, None, &mut y, Some(&mut mask))?;
/// let (mut stored, mut replayed) = ([0.0; 4], [0.0; 4]);
/// dropout::act_dropout_backward(gelu, rate, &mask, &x, None, &dy, &mut stored)?;
/// dropout::act_dropout_replay(gelu, rate, key, &x, None, &dy, &mut replayed)?;
/// assert_eq!(stored, replayed);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn act_dropout_replay<T: Element>(
    activation: Activation,
    rate: DropRate,
    at: impl Into<MaskRegion>,
    x: &[T],
    bias: Option<&[T]>,
    dy: &[T],
    dx: &mut [T],
) -> Result<(), Error> {
    let buffers = gradient(x, bias, dy, dx)?;
    Engine::active()?.map_dropout(activation.derivative(), rate, at, buffers, None)
}

fn gradient<'a, T: Element>(
    x: &'a [T],
    bias: Option<&'a [T]>,
    dy: &'a [T],
    dx: &'a mut [T],
) -> Result<Buffers<'a, T>, LengthError> {
    LengthError::check("gradient", x.len(), dy.len())?;
    let buffers = Buffers::new(x, dx)?.with_elements(dy)?;
    match bias {
        Some(bias) => with_bias(buffers, bias),
        None => Ok(buffers),
    }
}

/// Dropout of a gated activation: `y = silu(gate) * up * scale` where the mask keeps, `+0.0` elsewhere. One pass
/// over memory instead of three. The bits are written to `mask` if there is one.
///
/// Value and products are rounded in the type computed in, the last once more to the element type.
///
/// Source: Shazeer, *GLU variants improve transformer*, 2020.
///
/// # Errors
///
/// See the [module](crate::dropout).
///
/// ```
/// use sorix_kernels::{BitMask, DropRate, MaskKey, dropout};
/// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(1, 0));
/// let (gate, up) = ([30.0_f32; 100], [0.1; 100]);
/// let (mut y, mut mask) = ([0.0; 100], BitMask::new(100));
/// dropout::swiglu_dropout(rate, key, &gate, &up, &mut y, Some(&mut mask))?;
/// // silu(30) is 30 in f32.
/// assert!(y.iter().zip(&mask).all(|(&y, keep)| y == if keep { 6.0 } else { 0.0 }));
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn swiglu_dropout<T: Element>(
    rate: DropRate,
    at: impl Into<MaskRegion>,
    gate: &[T],
    up: &[T],
    y: &mut [T],
    mask: Option<&mut BitMask>,
) -> Result<(), Error> {
    LengthError::check("up", gate.len(), up.len())?;
    let buffers = Buffers::new(gate, y)?.with_elements(up)?;
    Engine::active()?.map_dropout(Function::Silu, rate, at, buffers, mask)
}

/// The gradients of [`swiglu_dropout`], of gate and of up, each if it is wanted; both `+0.0` where dropped. The
/// bits are those that it wrote, or from [`fill_mask`](super::fill_mask).
///
/// The product of `dy` and `up` is made in the type computed in, so that it does not overflow in 16 bits where the
/// gradient does not.
///
/// # Errors
///
/// See the [module](crate::dropout).
///
/// ```
/// use sorix_kernels::{BitMask, DropRate, dropout};
/// let (half, mask) = (DropRate::new(0.5)?, BitMask::from_bools(&[true, false]));
/// let (mut d_gate, mut d_up) = ([9.0_f32; 2], [9.0; 2]);
/// dropout::swiglu_dropout_backward(
///     half, &mask, &[0.0; 2], &[3.0; 2], &[5.0, f32::NAN], Some(&mut d_gate), Some(&mut d_up),
/// )?;
/// // silu'(0) is 1 / 2, and silu(0) is 0.
/// assert_eq!((d_gate, d_up), ([15.0, 0.0], [0.0, 0.0]));
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn swiglu_dropout_backward<'m, T: Element>(
    rate: DropRate,
    mask: impl Into<BitSlice<'m>>,
    gate: &[T],
    up: &[T],
    dy: &[T],
    d_gate: Option<&mut [T]>,
    d_up: Option<&mut [T]>,
) -> Result<(), Error> {
    Engine::active()?.swiglu_dropout_backward(rate, mask, gate, up, dy, d_gate, d_up)
}
