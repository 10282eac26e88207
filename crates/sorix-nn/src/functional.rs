//! The modules as functions.
//!
//! A function has no state: mode and generator, which a module keeps, are arguments of each call.
//! Nothing is dropped unless the call says [`Mode::Train`] or is in a
//! [`monte_carlo`](crate::monte_carlo) scope.
//!
//! [`WeightDropout`](crate::WeightDropout) and [`EmbeddingDropout`](crate::EmbeddingDropout) drop from a
//! parameter. As functions they are two calls: a dropout of the parameter, then the layer:
//!
//! ```
//! use sorix_core::{DType, Tensor};
//! use sorix_nn::dropout::Rows;
//! use sorix_nn::{Generator, Mode, functional};
//!
//! let generator = Generator::new(42);
//! let (weight, x) = (Tensor::ones([8, 64], DType::F64)?, Tensor::ones([2, 64], DType::F64)?);
//! let weight = functional::dropout(&weight, 0.5, Mode::Train, &generator)?;
//! let y = functional::linear(&x, &weight, None)?.to_vec::<f64>()?;
//! // One mask for the whole batch.
//! assert_eq!(y[..8], y[8..]);
//!
//! let table = Tensor::ones([10, 4], DType::F64)?;
//! let table = functional::dropout_form(&Rows, &table, 0.5, Mode::Train, &generator)?;
//! let rows = table.index_select(0, &[3, 3])?.to_vec::<f64>()?;
//! assert!(rows == [0.0; 8] || rows == [2.0; 8]);
//! # Ok::<(), sorix_nn::Error>(())
//! ```

use sorix_core::{DropRate, SaveMask, Tensor};

use crate::dropout::{
    Alpha, Channels, Elements, FeatureAlpha, Form, Gaussian, GeluElements, Locked, Paths,
    Rectified, SiluElements, SwigluElements, draw_by,
};
use crate::error::Result;
use crate::generator::Generator;
pub use crate::layers::linear::linear;
use crate::mode::Mode;
use crate::monte_carlo::key_source;

/// Any [form](crate::dropout) of dropout as a function, with its mask kept as bits.
///
/// In training it takes one key of `generator`, in eval none. The forms with their default options
/// have functions of their own.
///
/// # Errors
///
/// If p is not in [0, 1], in either mode, or if the form does not fit the shape of `x`; no key is
/// taken in these cases. Those of the operations it consists of.
///
/// ```
/// use sorix_core::{DType, Tensor};
/// use sorix_nn::dropout::Blocks;
/// use sorix_nn::{Generator, Mode, functional};
///
/// let (blocks, generator) = (Blocks::new(3)?, Generator::new(42));
/// let x = Tensor::ones([2, 4, 8, 8], DType::F64)?;
/// let y = functional::dropout_form(&blocks, &x, 0.3, Mode::Train, &generator)?;
/// assert!(y.to_vec::<f64>()?.contains(&0.0));
/// let y = functional::dropout_form(&blocks, &x, 0.3, Mode::Eval, &generator)?;
/// assert!(y.same_storage(&x));
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn dropout_form(
    form: &impl Form,
    x: &Tensor,
    p: f64,
    mode: Mode,
    generator: &Generator,
) -> Result<Tensor> {
    let rate = DropRate::new(p)?;
    match key_source(mode) {
        Some(source) => draw_by(form, x.into(), rate, SaveMask::Bits, source, || {
            Ok(generator)
        }),
        None => form.pass(x),
    }
}

macro_rules! forms {
    ($($(#[$doc:meta])* $name:ident: $form:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        ///
        /// As [`dropout_form`].
        pub fn $name(x: &Tensor, p: f64, mode: Mode, generator: &Generator) -> Result<Tensor> {
            dropout_form(&$form, x, p, mode, generator)
        }
    )*};
}

// The forms with their default options. `dropout_form` takes a form with others.
forms! {
    /// [`Dropout`](crate::Dropout) as a function, with its mask kept as bits.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Generator, Mode, functional};
    ///
    /// let generator = Generator::new(42);
    /// let x = tensor([1.0; 100]);
    /// let y = functional::dropout(&x, 0.5, Mode::Train, &generator)?;
    /// assert!(y.to_vec::<f64>()?.iter().all(|&y| y == 0.0 || y == 2.0));
    /// assert!(functional::dropout(&x, 0.5, Mode::Eval, &generator)?.same_storage(&x));
    /// assert_eq!(generator.state().offset, 1);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    dropout: Elements;

    /// [`Dropout1d`](crate::Dropout1d), channels first, as a function.
    ///
    /// ```
    /// use sorix_core::{DType, Tensor};
    /// use sorix_nn::{Generator, Mode, functional};
    ///
    /// let x = Tensor::ones([4, 8, 5], DType::F64)?;
    /// let y = functional::dropout1d(&x, 0.5, Mode::Train, &Generator::new(42))?.to_vec::<f64>()?;
    /// assert!(y.chunks(5).all(|channel| channel == [0.0; 5] || channel == [2.0; 5]));
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    dropout1d: Channels::<1>::first();

    /// [`Dropout2d`](crate::Dropout2d), channels first, as a function.
    ///
    /// ```
    /// use sorix_core::{DType, Tensor};
    /// use sorix_nn::{Generator, Mode, functional};
    ///
    /// let x = Tensor::ones([4, 8, 3, 3], DType::F64)?;
    /// let y = functional::dropout2d(&x, 0.5, Mode::Train, &Generator::new(42))?.to_vec::<f64>()?;
    /// assert!(y.chunks(9).all(|channel| channel == [0.0; 9] || channel == [2.0; 9]));
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    dropout2d: Channels::<2>::first();

    /// [`Dropout3d`](crate::Dropout3d), channels first, as a function.
    ///
    /// ```
    /// use sorix_core::{DType, Tensor};
    /// use sorix_nn::{Generator, Mode, functional};
    ///
    /// let x = Tensor::ones([4, 8, 2, 2, 2], DType::F64)?;
    /// let y = functional::dropout3d(&x, 0.5, Mode::Train, &Generator::new(42))?.to_vec::<f64>()?;
    /// assert!(y.chunks(8).all(|channel| channel == [0.0; 8] || channel == [2.0; 8]));
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    dropout3d: Channels::<3>::first();

    /// [`LockedDropout`](crate::LockedDropout) over the last axis but one, as a function.
    ///
    /// ```
    /// use sorix_core::{DType, Tensor};
    /// use sorix_nn::{Generator, Mode, functional};
    ///
    /// let x = Tensor::ones([6, 10], DType::F64)?;
    /// let y = functional::locked_dropout(&x, 0.5, Mode::Train, &Generator::new(42))?;
    /// let y = y.to_vec::<f64>()?;
    /// assert!(y.chunks(10).all(|step| step == &y[..10]));
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    locked_dropout: Locked::default();

    /// [`DropPath`](crate::DropPath) per sample, as a function.
    ///
    /// ```
    /// use sorix_core::{DType, Tensor};
    /// use sorix_nn::{Generator, Mode, functional};
    ///
    /// let x = Tensor::ones([100, 3], DType::F64)?;
    /// let y = functional::drop_path(&x, 0.5, Mode::Train, &Generator::new(42))?.to_vec::<f64>()?;
    /// assert!(y.chunks(3).all(|sample| sample == [0.0; 3] || sample == [2.0; 3]));
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    drop_path: Paths::default();

    /// [`AlphaDropout`](crate::AlphaDropout) as a function.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Generator, Mode, functional};
    ///
    /// let x = tensor([1.0; 100]);
    /// let y = functional::alpha_dropout(&x, 0.5, Mode::Train, &Generator::new(42))?;
    /// let y = y.to_vec::<f64>()?;
    /// assert!(y.iter().all(|y| (y - 1.6656).abs() < 1e-4 || (y + 0.7792).abs() < 1e-4));
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    alpha_dropout: Alpha;

    /// [`FeatureAlphaDropout`](crate::FeatureAlphaDropout) as a function.
    ///
    /// ```
    /// use sorix_core::{DType, Tensor};
    /// use sorix_nn::{Generator, Mode, functional};
    ///
    /// let x = Tensor::ones([4, 8, 3], DType::F64)?;
    /// let y = functional::feature_alpha_dropout(&x, 0.5, Mode::Train, &Generator::new(42))?;
    /// assert!(y.to_vec::<f64>()?.chunks(3).all(|channel| channel == [channel[0]; 3]));
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    feature_alpha_dropout: FeatureAlpha;

    /// [`GaussianDropout`](crate::GaussianDropout) as a function.
    ///
    /// ```
    /// use sorix_core::{DType, Tensor};
    /// use sorix_nn::{Generator, Mode, functional};
    ///
    /// let x = Tensor::ones([10_000], DType::F64)?;
    /// let y = functional::gaussian_dropout(&x, 0.2, Mode::Train, &Generator::new(42))?;
    /// assert!((y.mean()?.item::<f64>()? - 1.0).abs() < 0.02);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    gaussian_dropout: Gaussian;

    /// [`ReLUDropout`](crate::ReLUDropout) as a function.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Generator, Mode, functional};
    ///
    /// let (x, generator) = (tensor([[-1.0, 1.0]; 50]), Generator::new(42));
    /// let y = functional::relu_dropout(&x, 0.5, Mode::Train, &generator)?.to_vec::<f64>()?;
    /// assert!(y.chunks(2).all(|y| y == [0.0, 0.0] || y == [0.0, 2.0]));
    /// let y = functional::relu_dropout(&x, 0.5, Mode::Eval, &generator)?.to_vec::<f64>()?;
    /// assert!(y.chunks(2).all(|y| y == [0.0, 1.0]));
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    relu_dropout: Rectified;

    /// [`GELUDropout`](crate::GELUDropout), of the exact GELU, as a function.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Generator, Mode, functional};
    ///
    /// let (x, generator) = (tensor([[-1.0, 1.0]; 50]), Generator::new(42));
    /// let y = functional::gelu_dropout(&x, 0.5, Mode::Eval, &generator)?;
    /// assert_eq!(y.to_vec::<f64>()?, x.gelu()?.to_vec::<f64>()?);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    gelu_dropout: GeluElements::default();

    /// [`SiLUDropout`](crate::SiLUDropout) as a function.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Generator, Mode, functional};
    ///
    /// let (x, generator) = (tensor([[-1.0, 1.0]; 50]), Generator::new(42));
    /// let y = functional::silu_dropout(&x, 0.5, Mode::Eval, &generator)?;
    /// assert_eq!(y.to_vec::<f64>()?, x.silu()?.to_vec::<f64>()?);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    silu_dropout: SiluElements;

    /// [`SwiGLUDropout`](crate::SwiGLUDropout) as a function: of an input of twice the length of the output.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Generator, Mode, Module, SwiGLU, functional};
    ///
    /// let (x, generator) = (tensor([[-1.0, 1.0]; 50]), Generator::new(42));
    /// let y = functional::swiglu_dropout(&x, 0.5, Mode::Eval, &generator)?;
    /// assert_eq!(y.to_vec::<f64>()?, SwiGLU.forward(&x)?.to_vec::<f64>()?);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    swiglu_dropout: SwigluElements;
}
