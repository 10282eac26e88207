//! [`DropoutAddNorm`]: what stands between the blocks of a transformer, in one pass.

use sorix_core::{DType, DropRate, ErrorKind, MaskKey, NormKind, NormOptions, SaveMask, Tensor};

use crate::dropout::{Dropout, Fused, check_whole};
use crate::error::{Error, Result};
use crate::hyperparameter::positive_in_f32;
use crate::layers::LayerNorm;
use crate::module::Module;
use crate::visit::Visit;

/// Layer or RMS normalisation of a residual plus dropout of `x`, in one pass: `norm(residual +
/// dropout(x))`.
///
/// [`add`](Self::add) takes x and the residual, and returns the normalised sum and the sum itself. In the
/// prenorm form of a transformer the sum is the next residual; in the postnorm form the normalised one is.
/// As a [`Module`] of one input it has a residual of zeros.
///
/// For x of f16 and bf16 the sum is f32, and the residual may be. Against the layers apart, [`Dropout`], an
/// addition and a [`LayerNorm`], the result is the same but for rounding.
///
/// p, the generator and how the mask is kept are those of a [`Dropout`], the child `"dropout"`. The
/// parameters are `weight` and `bias`, as those of the layer norm are, so that a file of one fits the
/// other.
///
/// Source: `DropoutAddLayerNorm` and `DropoutAddRMSNorm` of flash-attention.
///
/// ```
/// use sorix_core::{DType, Tensor, tensor};
/// use sorix_nn::{Dropout, DropoutAddNorm, Generator, LayerNorm, Module};
///
/// let dropout = Dropout::new(0.5)?.generator(Generator::new(42));
/// let mut layer = DropoutAddNorm::new(LayerNorm::with_dtype([2], DType::F64)?.eps(1e-30)?, dropout);
/// let (x, residual) = (tensor([[1.0, 2.0]]), tensor([[10.0, 20.0]]));
/// let (z, sum) = layer.add(&x, &residual)?;
/// assert_eq!(z.to_vec::<f64>()?, [-1.0, 1.0]);
/// // What is kept is doubled.
/// let sum = sum.to_vec::<f64>()?;
/// assert!([10.0, 12.0].contains(&sum[0]) && [20.0, 24.0].contains(&sum[1]));
///
/// layer.eval();
/// assert_eq!(layer.add(&x, &residual)?.1.to_vec::<f64>()?, [11.0, 22.0]);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DropoutAddNorm {
    kind: NormKind,
    shape: Vec<usize>,
    eps: f64,
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    dropout: Dropout,
}

const NAME: &str = "DropoutAddNorm";

impl DropoutAddNorm {
    /// With the axes, the `eps` and the parameters of this layer norm.
    #[must_use]
    pub fn new(norm: LayerNorm, dropout: Dropout) -> Self {
        Self {
            kind: NormKind::Layer,
            shape: norm.shape().to_vec(),
            eps: norm.epsilon(),
            weight: norm.weight().cloned(),
            bias: norm.bias().cloned(),
            dropout,
        }
    }

    /// RMS normalisation, `x / √(mean of squares + eps) * weight`, over last axes of these lengths, in
    /// this dtype. The weight, ones at first, is the only parameter; `eps` is 1e-5.
    ///
    /// Source: Zhang and Sennrich, *Root mean square layer normalization*, arXiv:1910.07467.
    ///
    /// # Errors
    ///
    /// If `shape` names no axis, or if allocation fails.
    ///
    /// ```
    /// use sorix_core::{DType, tensor};
    /// use sorix_nn::{Dropout, DropoutAddNorm, Module};
    ///
    /// let layer = DropoutAddNorm::rms([4], DType::F64, Dropout::new(0.0)?)?.eps(1e-30)?;
    /// let (z, _) = layer.add(&tensor([3.0, 1.0, 0.0, 5.0]), &tensor([1.0, -1.0, 0.0, -5.0]))?;
    /// assert_eq!(z.to_vec::<f64>()?, [2.0, 0.0, 0.0, 0.0]);
    /// assert_eq!(layer.parameters().len(), 1);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn rms(shape: impl AsRef<[usize]>, dtype: DType, dropout: Dropout) -> Result<Self> {
        let shape = shape.as_ref();
        if shape.is_empty() {
            let expected = "at least one axis to normalise";
            return Err(Error::shape(NAME, expected, shape));
        }
        Ok(Self {
            kind: NormKind::Rms,
            shape: shape.to_vec(),
            eps: 1e-5,
            weight: Some(Tensor::ones(shape, dtype)?.requires_grad(true)),
            bias: None,
            dropout,
        })
    }

    /// With another `eps`.
    ///
    /// # Errors
    ///
    /// If it is negative, 0 or not finite, or if it is so small that rounding to f32 gives 0. For an example
    /// see [`rms`](Self::rms).
    pub fn eps(self, eps: f64) -> Result<Self> {
        positive_in_f32(NAME, "eps", eps)?;
        Ok(Self { eps, ..self })
    }

    /// The weight, of the shape of the axes, if there is one.
    #[must_use]
    pub fn weight(&self) -> Option<&Tensor> {
        self.weight.as_ref()
    }

    /// The bias, of the shape of the axes, if there is one.
    #[must_use]
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// The normalised `residual + dropout(x)`, and that sum.
    ///
    /// The residual has the shape of x, and the dtype of x or f32 for x of 16 bits; the parameters have
    /// that of x or f32. Nothing is dropped in eval, but within [`monte_carlo`](crate::monte_carlo).
    ///
    /// # Errors
    ///
    /// If x does not end in the axes of the parameters, or if shapes or dtypes do not fit; and as a
    /// [`Dropout`]. For an example see [`DropoutAddNorm`].
    pub fn add(&self, x: &Tensor, residual: &Tensor) -> Result<(Tensor, Tensor)> {
        if !x.shape().ends_with(&self.shape) {
            let expected = format!("an input that ends in axes {:?}", self.shape);
            return Err(Error::shape(NAME, expected, x.shape()));
        }
        let first = x.ndim() - self.shape.len();
        check_whole(NAME, x.shape(), |axis| axis >= first)?;
        // Before the mask takes a key.
        let wide = x.dtype().arithmetic();
        let fits = |dtype: DType| dtype == x.dtype() || dtype == wide;
        if residual.shape() != x.shape() {
            let expected = format!("a residual of shape {:?}", x.shape());
            return Err(Error::shape(NAME, expected, residual.shape()));
        }
        for tensor in [Some(residual), self.weight.as_ref(), self.bias.as_ref()] {
            if let Some(tensor) = tensor
                && !fits(tensor.dtype())
            {
                let kind = ErrorKind::MixedDTypes;
                return Err(sorix_core::Error::new(NAME, &[x, tensor], kind).into());
            }
        }
        let mut norm = NormOptions::new(self.kind, self.eps).axes(self.shape.len());
        if let Some(weight) = &self.weight {
            norm = norm.weight(weight);
        }
        if let Some(bias) = &self.bias {
            norm = norm.shift(bias);
        }
        let kept = DropRate::new(0.0)?;
        let without = |x: &Tensor| {
            x.dropout_add_norm(residual, norm, kept, MaskKey::default(), SaveMask::Replay)
        };
        Ok(match self.dropout.fused(x.shape())? {
            Fused::Nothing => without(x)?,
            Fused::By { rate, at, save } => x.dropout_add_norm(residual, norm, rate, at, save)?,
            Fused::Apart => without(&self.dropout.forward(x)?)?,
        })
    }
}

impl Visit for DropoutAddNorm {
    fn visit_own_parameters(&self, visit: &mut dyn FnMut(&str, &Tensor)) {
        if let Some(weight) = &self.weight {
            visit("weight", weight);
        }
        if let Some(bias) = &self.bias {
            visit("bias", bias);
        }
    }

    fn visit_own_parameters_mut(&mut self, visit: &mut dyn FnMut(&str, &mut Tensor)) {
        if let Some(weight) = &mut self.weight {
            visit("weight", weight);
        }
        if let Some(bias) = &mut self.bias {
            visit("bias", bias);
        }
    }

    fn boxed_clone(&self) -> Option<Box<dyn Module>> {
        Some(Box::new(self.clone()))
    }

    fn visit_children(&self, visit: &mut dyn FnMut(&str, &dyn Module)) {
        visit("dropout", &self.dropout);
    }

    fn visit_children_mut(&mut self, visit: &mut dyn FnMut(&str, &mut dyn Module)) {
        visit("dropout", &mut self.dropout);
    }
}

impl Module for DropoutAddNorm {
    /// The normalised dropout of x.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let zeros = Tensor::zeros(x.shape(), x.dtype().arithmetic())?;
        Ok(self.add(x, &zeros)?.0)
    }
}
