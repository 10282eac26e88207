//! Initialisers: the first values of parameters.
//!
//! Each overwrites a tensor, a leaf that requires a gradient or not, with numbers that depend on its
//! shape, its dtype and one key of a [`Generator`], and on nothing else: they are the same on every
//! machine.
//!
//! A weight has the shape `[outputs, inputs, …]`; further axes are those of a kernel. Its *fan-in* is
//! `inputs` times the number of elements of a kernel, its *fan-out* is `outputs` times that number.
//!
//! ```
//! use sorix_nn::{Generator, Linear, init};
//!
//! let generator = Generator::new(42);
//! let linear = Linear::new(64, 32, &generator)?;
//! init::kaiming_normal(linear.weight(), init::Fan::In, init::RELU_GAIN, &generator)?;
//! init::zeros(linear.bias().unwrap())?;
//! assert_eq!(linear.bias().unwrap().to_vec::<f32>()?, [0.0; 32]);
//! # Ok::<(), sorix_nn::Error>(())
//! ```

use sorix_core::autograd::no_grad;
use sorix_core::{ErrorKind, Tensor};

use crate::error::{Error, Result};
use crate::generator::Generator;
use crate::hyperparameter::{finite, non_negative};

/// The gain of [`kaiming_uniform`] and [`kaiming_normal`] for a ReLU: √2. Without an activation it is
/// 1, for tanh 5/3.
pub const RELU_GAIN: f64 = core::f64::consts::SQRT_2;

/// Which of the two numbers of connections a variance is divided by. For an example see
/// [`kaiming_uniform`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fan {
    /// Those into an output: keeps the variance of what goes forward.
    In,
    /// Those out of an input: keeps the variance of gradients.
    Out,
}

/// All elements 0.
///
/// # Errors
///
/// Those of [`Tensor::assign`].
///
/// ```
/// use sorix_core::tensor;
/// let x = tensor([1.0, 2.0]).requires_grad(true);
/// sorix_nn::init::zeros(&x)?;
/// assert_eq!(x.to_vec::<f64>()?, [0.0, 0.0]);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn zeros(tensor: &Tensor) -> Result<()> {
    constant(tensor, 0.0)
}

/// All elements `value`, rounded to the tensor's dtype.
///
/// # Errors
///
/// Those of [`Tensor::assign`].
///
/// ```
/// use sorix_core::tensor;
/// let x = tensor([1.0, 2.0]).requires_grad(true);
/// sorix_nn::init::constant(&x, 0.5)?;
/// assert_eq!(x.to_vec::<f64>()?, [0.5, 0.5]);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn constant(tensor: &Tensor, value: f64) -> Result<()> {
    assign(tensor, Tensor::full(tensor.shape(), value, tensor.dtype()))
}

/// Uniform in `[low, high)`. Rounding to the tensor's dtype can give `high` itself.
///
/// # Errors
///
/// If a bound is not finite, `low` is above `high`, or the tensor is
/// [expanded](Tensor::is_expanded); no key is taken in these cases. If allocation fails.
///
/// ```
/// use sorix_core::{DType, Tensor};
/// use sorix_nn::{Generator, init};
/// let x = Tensor::zeros([100], DType::F32)?;
/// init::uniform(&x, -2.0, 3.0, &Generator::new(42))?;
/// assert!(x.to_vec::<f32>()?.iter().all(|x| (-2.0..3.0).contains(x)));
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn uniform(tensor: &Tensor, low: f64, high: f64, generator: &Generator) -> Result<()> {
    finite("init::uniform", "low", low)?;
    finite("init::uniform", "high", high)?;
    non_negative("init::uniform", "high - low", high - low)?;
    check_writable("init::uniform", tensor)?;
    let (shape, dtype) = (tensor.shape(), tensor.dtype());
    let key = generator.next_key();
    assign(tensor, Tensor::uniform(shape, low, high, dtype, key))
}

/// Normal with this mean and standard deviation.
///
/// # Errors
///
/// If `mean` is not finite, `std` is negative or not finite, or the tensor is
/// [expanded](Tensor::is_expanded); no key is taken in these cases. If allocation fails.
///
/// ```
/// use sorix_core::{DType, Tensor};
/// use sorix_nn::{Generator, init};
/// let x = Tensor::zeros([10_000], DType::F64)?;
/// init::normal(&x, 5.0, 2.0, &Generator::new(42))?;
/// assert!((x.mean()?.item::<f64>()? - 5.0).abs() < 0.1);
/// assert!((x.std(0)?.item::<f64>()? - 2.0).abs() < 0.1);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn normal(tensor: &Tensor, mean: f64, std: f64, generator: &Generator) -> Result<()> {
    finite("init::normal", "mean", mean)?;
    non_negative("init::normal", "std", std)?;
    check_writable("init::normal", tensor)?;
    let (shape, dtype) = (tensor.shape(), tensor.dtype());
    let key = generator.next_key();
    assign(tensor, Tensor::normal(shape, mean, std, dtype, key))
}

/// Uniform within `±gain √(6 / (fan-in + fan-out))`, so that the variance is
/// `2 gain² / (fan-in + fan-out)`.
///
/// Source: Glorot and Bengio, *Understanding the difficulty of training deep feedforward neural
/// networks*, AISTATS 2010.
///
/// # Errors
///
/// If the tensor has fewer than two axes or is [expanded](Tensor::is_expanded), or if `gain` is
/// negative or not finite; no key is taken in these cases. If allocation fails.
///
/// ```
/// use sorix_core::{DType, Tensor};
/// use sorix_nn::{Generator, init};
/// let weight = Tensor::zeros([2, 4], DType::F64)?;
/// init::xavier_uniform(&weight, 1.0, &Generator::new(42))?; // √(6 / (4 + 2)) = 1
/// assert!(weight.to_vec::<f64>()?.iter().all(|w| w.abs() <= 1.0));
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn xavier_uniform(tensor: &Tensor, gain: f64, generator: &Generator) -> Result<()> {
    let std = xavier_std("init::xavier_uniform", tensor, gain)?;
    uniform_with_std(tensor, std, generator)
}

/// Normal with mean 0 and the variance of [`xavier_uniform`].
///
/// # Errors
///
/// As [`xavier_uniform`].
///
/// ```
/// use sorix_core::{DType, Tensor};
/// use sorix_nn::{Generator, init};
/// let weight = Tensor::zeros([150, 50], DType::F64)?;
/// init::xavier_normal(&weight, 1.0, &Generator::new(42))?; // √(2 / (50 + 150)) = 0.1
/// assert!((weight.std(0)?.item::<f64>()? - 0.1).abs() < 0.005);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn xavier_normal(tensor: &Tensor, gain: f64, generator: &Generator) -> Result<()> {
    let std = xavier_std("init::xavier_normal", tensor, gain)?;
    normal(tensor, 0.0, std, generator)
}

/// Uniform within `±gain √(3 / fan)`, so that the variance is `gain² / fan`.
///
/// Source: He, Zhang, Ren and Sun, *Delving deep into rectifiers*, ICCV 2015.
///
/// # Errors
///
/// If the tensor has fewer than two axes or is [expanded](Tensor::is_expanded), or if `gain` is
/// negative or not finite; no key is taken in these cases. If allocation fails.
///
/// ```
/// use sorix_core::{DType, Tensor};
/// use sorix_nn::{Generator, init};
/// let weight = Tensor::zeros([2, 12], DType::F64)?;
/// init::kaiming_uniform(&weight, init::Fan::In, 1.0, &Generator::new(42))?; // √(3 / 12) = 0.5
/// assert!(weight.to_vec::<f64>()?.iter().all(|w| w.abs() <= 0.5));
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn kaiming_uniform(tensor: &Tensor, fan: Fan, gain: f64, generator: &Generator) -> Result<()> {
    let std = kaiming_std("init::kaiming_uniform", tensor, fan, gain)?;
    uniform_with_std(tensor, std, generator)
}

/// Normal with mean 0 and the variance of [`kaiming_uniform`].
///
/// # Errors
///
/// As [`kaiming_uniform`].
///
/// ```
/// use sorix_core::{DType, Tensor};
/// use sorix_nn::{Generator, init};
/// let weight = Tensor::zeros([100, 200], DType::F64)?;
/// init::kaiming_normal(&weight, init::Fan::In, init::RELU_GAIN, &Generator::new(42))?;
/// assert!((weight.std(0)?.item::<f64>()? - 0.1).abs() < 0.005); // √2 / √200
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn kaiming_normal(tensor: &Tensor, fan: Fan, gain: f64, generator: &Generator) -> Result<()> {
    let std = kaiming_std("init::kaiming_normal", tensor, fan, gain)?;
    normal(tensor, 0.0, std, generator)
}

fn uniform_with_std(tensor: &Tensor, std: f64, generator: &Generator) -> Result<()> {
    let bound = 3f64.sqrt() * std;
    uniform(tensor, -bound, bound, generator)
}

fn xavier_std(op: &'static str, tensor: &Tensor, gain: f64) -> Result<f64> {
    non_negative(op, "gain", gain)?;
    let [fan_in, fan_out] = fans(op, tensor)?;
    Ok(gain * (2.0 / (fan_in + fan_out).max(1.0)).sqrt())
}

fn kaiming_std(op: &'static str, tensor: &Tensor, fan: Fan, gain: f64) -> Result<f64> {
    non_negative(op, "gain", gain)?;
    let [fan_in, fan_out] = fans(op, tensor)?;
    let fan = match fan {
        Fan::In => fan_in,
        Fan::Out => fan_out,
    };
    Ok(gain / fan.max(1.0).sqrt())
}

/// Fan-in and fan-out.
fn fans(op: &'static str, tensor: &Tensor) -> Result<[f64; 2]> {
    let [outputs, inputs, kernel @ ..] = tensor.shape() else {
        return Err(Error::shape(
            op,
            "a weight of shape [outputs, inputs, ..]",
            tensor.shape(),
        ));
    };
    let kernel: f64 = kernel.iter().map(|&length| length as f64).product();
    Ok([*inputs as f64 * kernel, *outputs as f64 * kernel])
}

/// That `op` can overwrite the tensor.
pub(crate) fn check_writable(op: &'static str, tensor: &Tensor) -> Result<()> {
    if tensor.is_expanded() {
        let strides = tensor.strides().to_vec();
        let kind = ErrorKind::WriteToExpanded { strides };
        return Err(sorix_core::Error::new(op, &[tensor], kind).into());
    }
    Ok(())
}

fn assign(tensor: &Tensor, values: sorix_core::Result<Tensor>) -> Result<()> {
    let values = values?;
    Ok(no_grad(|| tensor.assign(&values))?)
}
