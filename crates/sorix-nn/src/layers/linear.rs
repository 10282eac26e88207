//! [`Linear`]: the fully connected layer.

use sorix_core::{DType, ErrorKind, Tensor};

use crate::dropout::check_whole;
use crate::error::{Error, Result};
use crate::generator::Generator;
use crate::init;
use crate::module::Module;

/// `x Wᵀ + b`: from `[…, inputs]` to `[…, outputs]`.
///
/// The parameters are `weight`, of shape `[outputs, inputs]`, and `bias`, of shape `[outputs]`.
///
/// ```
/// use sorix_core::{DType, Tensor, tensor};
/// use sorix_nn::{Generator, Linear, Module};
///
/// let linear = Linear::new(3, 2, &Generator::new(42))?;
/// let x = Tensor::ones([5, 3], DType::F32)?;
/// assert_eq!(linear.forward(&x)?.shape(), [5, 2]);
///
/// let linear = Linear::from_tensors(tensor([[1.0, 2.0], [3.0, 4.0]]), Some(tensor([0.5, 0.0])))?;
/// assert_eq!(linear.forward(&tensor([10.0, 1.0]))?.to_vec::<f64>()?, [12.5, 34.0]);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct Linear {
    #[module(parameter)]
    weight: Tensor,
    #[module(parameter)]
    bias: Option<Tensor>,
}

impl Linear {
    /// Of f32, with a bias. Weight and bias are uniform within `±1/√inputs`, as in PyTorch; the
    /// generator gives a key for each.
    ///
    /// Source: LeCun, Bottou, Orr and Müller, *Efficient backprop*, 1998, for the scale;
    /// `torch.nn.Linear` for the distribution.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_nn::{Generator, Linear};
    /// let linear = Linear::new(100, 2, &Generator::new(42))?;
    /// assert!(linear.weight().to_vec::<f32>()?.iter().all(|w| w.abs() <= 0.1));
    /// assert_eq!(linear.bias().unwrap().shape(), [2]);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn new(inputs: usize, outputs: usize, generator: &Generator) -> Result<Self> {
        Self::with_dtype(inputs, outputs, DType::F32, generator)
    }

    /// [`new`](Self::new), of another dtype.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::DType;
    /// use sorix_nn::{Generator, Linear};
    /// let linear = Linear::with_dtype(3, 2, DType::F64, &Generator::new(42))?;
    /// assert_eq!(linear.weight().dtype(), DType::F64);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn with_dtype(
        inputs: usize,
        outputs: usize,
        dtype: DType,
        generator: &Generator,
    ) -> Result<Self> {
        let weight = Tensor::zeros([outputs, inputs], dtype)?;
        let bias = Tensor::zeros([outputs], dtype)?;
        let bound = 1.0 / (inputs.max(1) as f64).sqrt();
        init::uniform(&weight, -bound, bound, generator)?;
        init::uniform(&bias, -bound, bound, generator)?;
        Self::from_tensors(weight, Some(bias))
    }

    /// With this weight, of shape `[outputs, inputs]`, and this bias, of shape `[outputs]`. Both
    /// become leaves that require a gradient, if they are not already.
    ///
    /// # Errors
    ///
    /// If shapes or dtypes do not fit each other.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::Linear;
    /// let error = Linear::from_tensors(tensor([[1.0], [2.0]]), Some(tensor([0.0]))).unwrap_err();
    /// assert_eq!(error.to_string(), "Linear: expected a bias of shape [2], got shape [1]");
    /// ```
    pub fn from_tensors(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        check(&weight, bias.as_ref())?;
        Ok(Self {
            weight: weight.requires_grad(true),
            bias: bias.map(|bias| bias.requires_grad(true)),
        })
    }

    /// Without a bias.
    ///
    /// ```
    /// use sorix_nn::{Generator, Linear, Module};
    /// let linear = Linear::new(3, 2, &Generator::new(42))?.without_bias();
    /// assert_eq!(linear.parameters().len(), 1);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn without_bias(self) -> Self {
        Self { bias: None, ..self }
    }

    /// The weight, of shape `[outputs, inputs]`.
    #[must_use]
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The bias, of shape `[outputs]`.
    #[must_use]
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }
}

impl Module for Linear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        linear(x, &self.weight, self.bias.as_ref())
    }
}

/// [`Linear`] as a function: `x weightᵀ + bias`, from `[…, inputs]` to `[…, outputs]`.
///
/// # Errors
///
/// If `weight` is not of shape `[outputs, inputs]`, `bias` not of shape `[outputs]` or the last
/// axis of `x` not of length `inputs`, and if dtypes differ.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::functional;
/// let (weight, bias) = (tensor([[1.0, 2.0], [3.0, 4.0]]), tensor([0.5, 0.0]));
/// let y = functional::linear(&tensor([[10.0, 1.0]]), &weight, Some(&bias))?;
/// assert_eq!(y.to_vec::<f64>()?, [12.5, 34.0]);
///
/// let error = functional::linear(&tensor([[1.0; 3]; 5]), &weight, None).unwrap_err();
/// assert_eq!(error.to_string(), "Linear: expected an input of shape [.., 2], got shape [5, 3]");
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let [outputs, inputs] = check(weight, bias)?;
    let leading = check_input(x, weight)?;
    check_whole("Linear", x.shape(), |axis| axis >= leading.len())?;
    // One product whatever the number of axes. An input without elements still has rows.
    let rows = leading.iter().product();
    let mut y = x
        .reshape([rows, inputs])?
        .matmul(&weight.transpose(0, 1)?)?;
    if let Some(bias) = bias {
        y = y.add(bias)?;
    }
    Ok(y.reshape([leading, &[outputs]].concat())?)
}

/// The leading axes of `x`, if it fits a weight of shape `[outputs, inputs]`.
pub(crate) fn check_input<'x>(x: &'x Tensor, weight: &Tensor) -> Result<&'x [usize]> {
    let inputs = weight.shape()[1];
    match x.shape().split_last() {
        Some((&last, _)) if last == inputs && x.dtype() != weight.dtype() => {
            let kind = ErrorKind::MixedDTypes;
            Err(sorix_core::Error::new("Linear", &[x, weight], kind).into())
        }
        Some((&last, leading)) if last == inputs => Ok(leading),
        _ => Err(Error::shape(
            "Linear",
            format!("an input of shape [.., {inputs}]"),
            x.shape(),
        )),
    }
}

/// The shape of `weight`, if the two fit.
fn check(weight: &Tensor, bias: Option<&Tensor>) -> Result<[usize; 2]> {
    let &[outputs, inputs] = weight.shape() else {
        let expected = "a weight of shape [outputs, inputs]";
        return Err(Error::shape("Linear", expected, weight.shape()));
    };
    match bias {
        Some(bias) if bias.shape() != [outputs] => {
            let expected = format!("a bias of shape [{outputs}]");
            Err(Error::shape("Linear", expected, bias.shape()))
        }
        Some(bias) if bias.dtype() != weight.dtype() => {
            let kind = ErrorKind::MixedDTypes;
            Err(sorix_core::Error::new("Linear", &[weight, bias], kind).into())
        }
        _ => Ok([outputs, inputs]),
    }
}
