//! Functions of one number, such as e^x, of every element of a slice.
//!
//! Every function here runs on the [active](crate::dispatch::active) backend. A large call is shared out to the
//! threads of the current rayon pool, a small one stays on the calling thread. [`Function`] says what is
//! computed; the result depends neither on the backend nor on the number of threads.
//!
//! ```
//! use sorix_kernels::function::{self, Function};
//! let mut y = [0.0_f32; 3];
//! function::map(Function::Exp, &[0.0, 1.0, f32::NEG_INFINITY], &mut y)?;
//! assert_eq!(y, [1.0, 2.718_281_7, 0.0]);
//! # Ok::<(), sorix_kernels::Error>(())
//! ```
//!
//! # Errors
//!
//! All functions return [`Error`], and have then written nothing, if lengths differ, or if an environment
//! variable names a backend that this machine does not have or holds no number where one is expected.

use core::fmt;

use crate::buffers::Buffers;
use crate::element::Element;
use crate::engine::Engine;
use crate::error::Error;

/// `y = f(x)` of every element.
///
/// # Errors
///
/// See the [module](self).
///
/// ```
/// use sorix_kernels::function::{self, Function};
/// let mut y = [0.0; 2];
/// function::map(Function::Tanh, &[0.0, f64::INFINITY], &mut y)?;
/// assert_eq!(y, [0.0, 1.0]);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn map<T: Element>(function: Function, x: &[T], y: &mut [T]) -> Result<(), Error> {
    Engine::active()?.map(function, Buffers::new(x, y)?);
    Ok(())
}

/// [`map`], over the input itself.
///
/// # Errors
///
/// See the [module](self).
///
/// ```
/// use sorix_kernels::function::{self, Function};
/// let mut x = [0.0_f32, -1.0, 20.0];
/// function::map_in_place(Function::Gelu, &mut x)?;
/// assert_eq!(x, [0.0, -0.158_655_26, 20.0]);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn map_in_place<T: Element>(function: Function, x: &mut [T]) -> Result<(), Error> {
    Engine::active()?.map(function, Buffers::in_place(x));
    Ok(())
}

/// `y = f(x) * factor` of every element and its factor: with a derivative and the gradient of a function's
/// values, the gradient of its input. 16-bit elements are rounded once, after the product.
///
/// # Errors
///
/// See the [module](self).
///
/// ```
/// use sorix_kernels::function::{self, Function};
/// let (x, dy, mut dx) = ([0.0_f32, 9.0], [3.0, 0.0], [f32::NAN; 2]);
/// function::map_times(Function::TanhDerivative, &x, &dy, &mut dx)?;
/// assert_eq!(dx, [3.0, 0.0]);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub fn map_times<T: Element>(
    function: Function,
    x: &[T],
    factor: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    let buffers = Buffers::new(x, y)?.with_elements(factor)?;
    Engine::active()?.map(function, buffers);
    Ok(())
}

/// A function of one number, such as e^x: what [`map`] makes of every element.
///
/// # Arithmetic
///
/// f32, bf16 and f16 are computed in f32 and rounded once more to the element type; f64 is computed in f64.
/// Every backend writes the same bits, on every machine and for every alignment and length; of NaN it is
/// only said that it stays NaN, unless a function says more.
///
/// In f32 a function is polynomials and quotients of additions, multiplications and divisions, each rounded
/// once; nothing is fused. e^x is made as 2^n e^r with |r| ≤ ln(2)/2, ln(2) being subtracted in two parts (Cody
/// and Waite, *Software manual for the elementary functions*, 1980), tanh from e^(2|x|) - 1, and the error
/// function of a number below 0.93 by an odd polynomial, beyond by the logarithm of 1 - erf. The normal
/// distribution's lower tail is e^(-x²/2) times a quotient of polynomials with positive coefficients, in which
/// nothing cancels. All coefficients are ours: minimax fits by Lawson's algorithm, iterated weighted least
/// squares in f64, then rounded to f32.
///
/// f64 goes element by element through the crate `libm`, which is Rust and the same everywhere.
///
/// # Errors of f32
///
/// The largest seen, in units of the last place (of subnormal results, 2^-149): for e^x over all f32, for the
/// others over every 97th.
///
/// | function | error | |
/// |---|---|---|
/// | [`Exp`](Self::Exp) | 0.9 | |
/// | [`Tanh`](Self::Tanh) | 1.8 | |
/// | [`Sigmoid`](Self::Sigmoid) | 1.8 | |
/// | [`Erf`](Self::Erf) | 1.2 | |
/// | [`Silu`](Self::Silu) | 3.0 | |
/// | [`Gelu`](Self::Gelu) | 6.1 | in the lower tail, where an error of the argument is multiplied |
/// | [`GeluTanh`](Self::GeluTanh) | 3 from -1 up, 200 at -10 | by the argument of tanh, which is rounded |
/// | [`Relu`](Self::Relu), [`ReluDerivative`](Self::ReluDerivative) | 0 | |
/// | [`TanhDerivative`](Self::TanhDerivative), [`SigmoidDerivative`](Self::SigmoidDerivative) | 4.1 | |
/// | the other derivatives | | absolute: 3e-7 |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Function {
    /// e^x: infinite from 88.72284 on in f32, 0 from -103.97 down, subnormal before.
    Exp,
    /// The hyperbolic tangent; odd, bit for bit.
    Tanh,
    /// The logistic function, `1 / (1 + e^-x)`.
    Sigmoid,
    /// The error function, `2 / sqrt(π)` times the integral of `e^-t²` from 0 to x; odd, bit for bit.
    Erf,
    /// `x / (1 + e^-x)`, also called swish. At minus infinity it is the limit, -0.0.
    ///
    /// Source: Hendrycks and Gimpel, *Gaussian error linear units (GELUs)*, 2016; Ramachandran, Zoph and Le,
    /// *Searching for activation functions*, 2017.
    Silu,
    /// `x Φ(x)`, with Φ the cumulative distribution function of the standard normal distribution: the GELU, in
    /// the exact form. At minus infinity it is the limit, -0.0.
    ///
    /// Source: Hendrycks and Gimpel, as above.
    Gelu,
    /// `x / 2 (1 + tanh(sqrt(2 / π) (x + 0.044715 x³)))`: the approximation of the GELU by tanh. At minus
    /// infinity it is the limit, -0.0.
    ///
    /// Source: Hendrycks and Gimpel, as above, section 2.
    GeluTanh,
    /// The rectifier: x if it is not at most 0, else `+0.0`; NaN stays NaN.
    Relu,
    /// The derivative of [`Relu`](Self::Relu): `+0.0` where x is at most 0, else 1, of NaN, too.
    ReluDerivative,
    /// The derivative of [`Tanh`](Self::Tanh).
    TanhDerivative,
    /// The derivative of [`Sigmoid`](Self::Sigmoid).
    SigmoidDerivative,
    /// The derivative of [`Silu`](Self::Silu).
    SiluDerivative,
    /// The derivative of [`Gelu`](Self::Gelu).
    GeluDerivative,
    /// The derivative of [`GeluTanh`](Self::GeluTanh).
    GeluTanhDerivative,
}

impl Function {
    /// Every function there is.
    pub const ALL: &'static [Self] = &[
        Self::Exp,
        Self::Tanh,
        Self::Sigmoid,
        Self::Erf,
        Self::Silu,
        Self::Gelu,
        Self::GeluTanh,
        Self::Relu,
        Self::ReluDerivative,
        Self::TanhDerivative,
        Self::SigmoidDerivative,
        Self::SiluDerivative,
        Self::GeluDerivative,
        Self::GeluTanhDerivative,
    ];

    /// The name in messages.
    ///
    /// ```
    /// use sorix_kernels::Function;
    /// assert_eq!(Function::GeluTanh.name(), "gelu_tanh");
    /// ```
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exp => "exp",
            Self::Tanh => "tanh",
            Self::Sigmoid => "sigmoid",
            Self::Erf => "erf",
            Self::Silu => "silu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_tanh",
            Self::Relu => "relu",
            Self::ReluDerivative => "relu_derivative",
            Self::TanhDerivative => "tanh_derivative",
            Self::SigmoidDerivative => "sigmoid_derivative",
            Self::SiluDerivative => "silu_derivative",
            Self::GeluDerivative => "gelu_derivative",
            Self::GeluTanhDerivative => "gelu_tanh_derivative",
        }
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
