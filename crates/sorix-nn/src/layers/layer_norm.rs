//! [`LayerNorm`]: mean 0 and variance 1 over the last axes.

use sorix_core::{DType, ErrorKind, Tensor};

use crate::dropout::check_whole;
use crate::error::{Error, Result};
use crate::hyperparameter::positive_in_f32;
use crate::module::Module;
use crate::visit::Visit;

/// `(x - mean) / √(variance + eps) * weight + bias`, with mean and variance over the last axes of
/// `x`, whose lengths are given.
///
/// The variance is that of the elements themselves (divided by their number, not by one less). The
/// parameters are `weight`, ones at first, and `bias`, zeros at first, both of the shape of the
/// axes. f16 and bf16 are computed with in f32 and rounded once.
///
/// Source: Ba, Kiros and Hinton, *Layer normalization*, arXiv:1607.06450.
///
/// ```
/// use sorix_core::{DType, tensor};
/// use sorix_nn::{LayerNorm, Module};
///
/// let norm = LayerNorm::with_dtype([2], DType::F64)?.eps(1e-30)?;
/// let y = norm.forward(&tensor([[1.0, 3.0], [10.0, 2.0]]))?;
/// assert_eq!(y.to_vec::<f64>()?, [-1.0, 1.0, 1.0, -1.0]);
///
/// let error = norm.forward(&tensor([1.0, 2.0, 3.0])).unwrap_err();
/// assert_eq!(error.to_string(), "LayerNorm: expected an input that ends in axes [2], got shape [3]");
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LayerNorm {
    shape: Vec<usize>,
    eps: f64,
    affine: Option<Affine>,
}

#[derive(Clone, Debug)]
struct Affine {
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    /// Over last axes of these lengths, in f32, with weight and bias and `eps` 1e-5.
    ///
    /// # Errors
    ///
    /// If `shape` names no axis, or if allocation fails.
    ///
    /// ```
    /// use sorix_nn::LayerNorm;
    /// let norm = LayerNorm::new([3, 4])?;
    /// assert_eq!(norm.weight().unwrap().to_vec::<f32>()?, [1.0; 12]);
    /// assert!(LayerNorm::new([]).is_err());
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn new(shape: impl AsRef<[usize]>) -> Result<Self> {
        Self::with_dtype(shape, DType::F32)
    }

    /// [`new`](Self::new), of another dtype.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new). For an example see [`LayerNorm`].
    pub fn with_dtype(shape: impl AsRef<[usize]>, dtype: DType) -> Result<Self> {
        let shape = shape.as_ref();
        check_axes(shape)?;
        Ok(Self {
            shape: shape.to_vec(),
            eps: EPS,
            affine: Some(Affine {
                weight: Tensor::ones(shape, dtype)?.requires_grad(true),
                bias: Tensor::zeros(shape, dtype)?.requires_grad(true),
            }),
        })
    }

    /// With these tensors, which become its parameters; `eps` is 1e-5.
    ///
    /// # Errors
    ///
    /// If they have no axis, or not one shape, or not one dtype.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{LayerNorm, Module};
    /// let norm = LayerNorm::from_tensors(tensor([10.0, 10.0]), tensor([5.0, 5.0]))?.eps(3.0)?;
    /// assert_eq!(norm.forward(&tensor([1.0, 3.0]))?.to_vec::<f64>()?, [0.0, 10.0]);
    /// assert!(LayerNorm::from_tensors(tensor([1.0]), tensor([1.0, 1.0])).is_err());
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn from_tensors(weight: Tensor, bias: Tensor) -> Result<Self> {
        check_axes(weight.shape())?;
        if bias.shape() != weight.shape() {
            let expected = format!("a bias of shape {:?}", weight.shape());
            return Err(Error::shape("LayerNorm", expected, bias.shape()));
        }
        if bias.dtype() != weight.dtype() {
            let kind = ErrorKind::MixedDTypes;
            return Err(sorix_core::Error::new("LayerNorm", &[&weight, &bias], kind).into());
        }
        Ok(Self {
            shape: weight.shape().to_vec(),
            eps: EPS,
            affine: Some(Affine {
                weight: weight.requires_grad(true),
                bias: bias.requires_grad(true),
            }),
        })
    }

    /// With another `eps`. It cannot be 0: elements that are all equal have the variance 0, and would
    /// become NaN.
    ///
    /// # Errors
    ///
    /// If it is negative, 0 or not finite, or if it is so small that rounding to f32 gives 0.
    ///
    /// ```
    /// use sorix_core::{DType, tensor};
    /// use sorix_nn::{LayerNorm, Module};
    /// let norm = LayerNorm::with_dtype([2], DType::F64)?.eps(3.0)?;
    /// // The variance is 1: the divisor is √(1 + 3).
    /// assert_eq!(norm.forward(&tensor([-1.0, 1.0]))?.to_vec::<f64>()?, [-0.5, 0.5]);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn eps(self, eps: f64) -> Result<Self> {
        positive_in_f32("LayerNorm", "eps", eps)?;
        Ok(Self { eps, ..self })
    }

    /// Without weight and bias.
    ///
    /// ```
    /// use sorix_nn::{LayerNorm, Module};
    /// assert!(LayerNorm::new([2])?.without_affine().parameters().is_empty());
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn without_affine(self) -> Self {
        Self {
            affine: None,
            ..self
        }
    }

    /// The lengths of the last axes.
    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(crate) fn epsilon(&self) -> f64 {
        self.eps
    }

    /// The weight, of the shape of the axes; `None` [without](Self::without_affine).
    ///
    /// ```
    /// use sorix_core::autograd::no_grad;
    /// use sorix_core::tensor;
    /// use sorix_nn::{LayerNorm, Module};
    ///
    /// let norm = LayerNorm::new([2])?.eps(1e-30)?;
    /// no_grad(|| norm.weight().unwrap().assign(&tensor([2.0_f32, 3.0])))?;
    /// assert_eq!(norm.forward(&tensor([-1.0_f32, 1.0]))?.to_vec::<f32>()?, [-2.0, 3.0]);
    /// assert!(norm.without_affine().weight().is_none());
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn weight(&self) -> Option<&Tensor> {
        self.affine.as_ref().map(|affine| &affine.weight)
    }

    /// The bias, of the shape of the axes; `None` [without](Self::without_affine).
    ///
    /// ```
    /// use sorix_nn::LayerNorm;
    /// let norm = LayerNorm::new([2])?;
    /// assert_eq!(norm.bias().unwrap().to_vec::<f32>()?, [0.0, 0.0]);
    /// assert!(norm.without_affine().bias().is_none());
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn bias(&self) -> Option<&Tensor> {
        self.affine.as_ref().map(|affine| &affine.bias)
    }
}

const EPS: f64 = 1e-5;

fn check_axes(shape: &[usize]) -> Result<()> {
    if shape.is_empty() {
        let expected = "at least one axis to normalise";
        return Err(Error::shape("LayerNorm", expected, &[]));
    }
    Ok(())
}

impl Visit for LayerNorm {
    fn visit_own_parameters(&self, visit: &mut dyn FnMut(&str, &Tensor)) {
        if let Some(Affine { weight, bias }) = &self.affine {
            visit("weight", weight);
            visit("bias", bias);
        }
    }

    fn visit_own_parameters_mut(&mut self, visit: &mut dyn FnMut(&str, &mut Tensor)) {
        if let Some(Affine { weight, bias }) = &mut self.affine {
            visit("weight", weight);
            visit("bias", bias);
        }
    }

    fn boxed_clone(&self) -> Option<Box<dyn Module>> {
        Some(Box::new(self.clone()))
    }
}

impl Module for LayerNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if !x.shape().ends_with(&self.shape) {
            return Err(Error::shape(
                "LayerNorm",
                format!("an input that ends in axes {:?}", self.shape),
                x.shape(),
            ));
        }
        let first = x.ndim() - self.shape.len();
        check_whole("LayerNorm", x.shape(), |axis| axis >= first)?;
        let dtype = x.dtype();
        if let Some(Affine { weight, .. }) = &self.affine
            && weight.dtype() != dtype
        {
            let kind = ErrorKind::MixedDTypes;
            return Err(sorix_core::Error::new("LayerNorm", &[x, weight], kind).into());
        }
        let axes: Vec<isize> = (1..=self.shape.len() as isize).map(|k| -k).collect();
        let Some(Affine { weight, bias }) = &self.affine else {
            return Ok(x.standardize(&axes, self.eps)?);
        };
        // Scale and shift before the result is rounded.
        let wide = dtype.arithmetic();
        let y = x.to_dtype(wide)?.standardize(&axes, self.eps)?;
        let y = y.mul(&weight.to_dtype(wide)?)?.add(&bias.to_dtype(wide)?)?;
        Ok(y.to_dtype(dtype)?)
    }
}
