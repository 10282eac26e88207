//! Losses: how far a network's output is from what it should be, as one number or one for each
//! example.
//!
//! A loss has the dtype of the network's output. f16 and bf16 are computed with in f32, and the loss and
//! its gradient are rounded once.

use sorix_core::{DType, ErrorKind, Tensor};

use crate::error::{Error, Result};
use crate::hyperparameter::at_most_one;

/// How the losses of the examples become one number, or that they do not.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::Reduction;
/// use sorix_nn::loss::mse_loss;
///
/// let (prediction, target) = (tensor([1.0, 2.0, 3.0]), tensor([1.0, 4.0, 4.0]));
/// // With your own weights.
/// let each = mse_loss(&prediction, &target, Reduction::None)?;
/// assert_eq!(each.to_vec::<f64>()?, [0.0, 4.0, 1.0]);
/// assert_eq!(each.mul(&tensor([1.0, 0.5, 0.0]))?.sum()?.item::<f64>()?, 2.0);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reduction {
    /// Their mean; NaN without examples.
    #[default]
    Mean,
    /// Their sum.
    Sum,
    /// Not at all: a tensor of them.
    None,
}

impl Reduction {
    /// The result of losses in `dtype`, from those in the dtype that it is computed in.
    fn apply(self, losses: Tensor, dtype: DType) -> Result<Tensor> {
        let reduced = match self {
            Self::Mean => losses.mean()?,
            Self::Sum => losses.sum()?,
            Self::None => losses,
        };
        Ok(reduced.to_dtype(dtype)?)
    }
}

/// The tensor in the dtype that its own is computed in: a loss of f16 or bf16 and its gradient are
/// rounded once, and not between the operations that they are made of.
fn widen(x: &Tensor) -> Result<Tensor> {
    Ok(x.to_dtype(x.dtype().arithmetic())?)
}

/// The squares of the differences, over all elements; without a [reduction](Reduction::None), of the
/// shape of the two.
///
/// # Errors
///
/// If shapes or dtypes differ. The two do not broadcast, because a column against a row would give a
/// number too.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::Reduction;
/// use sorix_nn::loss::mse_loss;
///
/// let (prediction, target) = (tensor([1.0, 2.0]), tensor([1.0, 4.0]));
/// assert_eq!(mse_loss(&prediction, &target, Reduction::Mean)?.item::<f64>()?, 2.0);
/// assert_eq!(mse_loss(&prediction, &target, Reduction::Sum)?.item::<f64>()?, 4.0);
///
/// let column = tensor([[1.0], [2.0]]);
/// let error = mse_loss(&column, &target, Reduction::Mean).unwrap_err();
/// assert_eq!(error.to_string(), "mse_loss: expected a target of shape [2, 1], got shape [2]");
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn mse_loss(prediction: &Tensor, target: &Tensor, reduction: Reduction) -> Result<Tensor> {
    let dtype = same_kind("mse_loss", prediction, target)?;
    let difference = widen(prediction)?.sub(&widen(target)?)?;
    reduction.apply(difference.mul(&difference)?, dtype)
}

/// `-log softmax(logits)` at the class of each example: the cross entropy between the classes given
/// and those predicted. [`CrossEntropy`] is the same with weights, classes to ignore, or smoothed labels.
///
/// `logits` is of shape `[examples, classes]`, or `[examples, classes, ..]` with more axes of what is
/// classified, such as the places of a sequence or an image: the output of the last layer as it is.
/// `classes` has a class for each example, in row-major order of the axes without that of the classes.
/// Without a [reduction](Reduction::None) the losses are of the shape of these axes.
///
/// Source: Goodfellow, Bengio and Courville, *Deep Learning*, MIT Press 2016, sections 5.5 and 6.2.2.3.
///
/// # Errors
///
/// If `logits` has fewer than two axes, if the number of classes given is not that of the examples, or if
/// one is out of range.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::Reduction;
/// use sorix_nn::loss::cross_entropy;
///
/// let logits = tensor([[0.0, 0.0], [1000.0, 0.0]]);
/// let loss = cross_entropy(&logits, &[1, 0], Reduction::Sum)?.item::<f64>()?;
/// assert!((loss - 2f64.ln()).abs() < 1e-15);
///
/// let error = cross_entropy(&logits, &[0, 2], Reduction::Mean).unwrap_err();
/// assert_eq!(error.to_string(), "cross_entropy: expected whole numbers in 0..2, got 2");
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn cross_entropy(logits: &Tensor, classes: &[usize], reduction: Reduction) -> Result<Tensor> {
    CrossEntropy::new()
        .reduction(reduction)
        .loss(logits, classes)
}

/// [`cross_entropy`] with options, which mean what those of PyTorch's `CrossEntropyLoss` mean.
///
/// With y the class of an example, C their number, w their weights (1 unless given) and ε the label
/// smoothing, the loss of an example is
/// `-(1 - ε) w[y] log p[y] - ε / C Σ w[c] log p[c]`. An ignored example has the loss 0. The
/// [mean](Reduction::Mean) is the sum divided by that of `w[y]` over the examples that are not ignored:
/// NaN if all are.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::loss::CrossEntropy;
///
/// // Two places of a text and one of padding, whose token is 0.
/// let loss = CrossEntropy::new().ignore_index(0).class_weights(&tensor([1.0, 1.0, 3.0]));
/// let logits = tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [9.0, 0.0, 0.0]]).requires_grad(true);
/// let mean = loss.loss(&logits, &[1, 2, 0])?;
/// assert!((mean.item::<f64>()? - 3f64.ln()).abs() < 1e-15);
/// mean.backward()?;
/// assert_eq!(logits.grad().unwrap().to_vec::<f64>()?[6..], [0.0; 3]);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct CrossEntropy {
    ignored: Option<usize>,
    weights: Option<Tensor>,
    smoothing: f64,
    reduction: Reduction,
}

impl CrossEntropy {
    /// The mean over all examples, all classes weighing the same.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Examples of this class have no loss and no gradient. It need not be in the range of the classes:
    /// `usize::MAX` stands for none of them. For an example see [`CrossEntropy`].
    #[must_use]
    pub fn ignore_index(self, class: usize) -> Self {
        Self {
            ignored: Some(class),
            ..self
        }
    }

    /// A weight for each class, of shape `[classes]` and the dtype of the logits. They are constants: they
    /// get no gradient. For an example see [`CrossEntropy`].
    #[must_use]
    pub fn class_weights(self, weights: &Tensor) -> Self {
        Self {
            weights: Some(weights.detach()),
            ..self
        }
    }

    /// Takes the part `smoothing` of every label, and shares it out to all classes.
    ///
    /// Source: Szegedy et al., *Rethinking the inception architecture for computer vision*, CVPR 2016,
    /// section 7.
    ///
    /// # Errors
    ///
    /// If it is not in 0 to 1.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::loss::CrossEntropy;
    /// let loss = CrossEntropy::new().label_smoothing(0.5)?.loss(&tensor([[0.0, 0.0]]), &[0])?;
    /// assert!((loss.item::<f64>()? - 2f64.ln()).abs() < 1e-15);
    /// let error = CrossEntropy::new().label_smoothing(1.5).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "cross_entropy: label_smoothing: expected a number in [0, 1], got 1.5"
    /// );
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn label_smoothing(self, smoothing: f64) -> Result<Self> {
        at_most_one(Self::NAME, "label_smoothing", smoothing)?;
        Ok(Self { smoothing, ..self })
    }

    /// How the losses become one number, if not as their mean.
    #[must_use]
    pub fn reduction(self, reduction: Reduction) -> Self {
        Self { reduction, ..self }
    }

    const NAME: &'static str = "cross_entropy";

    /// The loss of these logits, of which shape [`cross_entropy`] says, given the class of each example.
    ///
    /// # Errors
    ///
    /// As [`cross_entropy`]; and if the weights are not one for each class, or of another dtype than the
    /// logits. For an example see [`CrossEntropy`].
    pub fn loss(&self, logits: &Tensor, classes: &[usize]) -> Result<Tensor> {
        let layer = Self::NAME;
        let &[first, count, ref others @ ..] = logits.shape() else {
            return Err(Error::shape(
                layer,
                "logits of shape [examples, classes, ..]",
                logits.shape(),
            ));
        };
        let examples = first * others.iter().product::<usize>();
        if classes.len() != examples {
            return Err(Error::shape(
                layer,
                format!("a class for each of {examples} examples"),
                &[classes.len()],
            ));
        }
        let is_ignored = |class: usize| Some(class) == self.ignored;
        let wrong = |&&class: &&usize| class >= count && !is_ignored(class);
        if let Some(class) = classes.iter().find(wrong) {
            return Err(Error::Index {
                layer,
                count,
                got: class.to_string(),
            });
        }
        let weights = self.checked_weights(logits, count)?;

        // The classes last, in place of second.
        let mut order: Vec<isize> = (0..logits.ndim() as isize).collect();
        order[1..].rotate_left(1);
        let logs = widen(logits)?.log_softmax(1)?.permute(&order)?;
        let chosen: Vec<usize> = classes
            .iter()
            .map(|&class| if is_ignored(class) { 0 } else { class })
            .collect();
        if count == 0 && examples > 0 {
            return Err(Error::shape(layer, "at least one class", logits.shape()));
        }
        // Of a mean only their ratios matter, and in another unit neither they nor what they multiply overflow.
        let weights = match weights {
            Some(weights) if self.reduction == Reduction::Mean => {
                Some(in_units_of_the_largest(weights)?)
            }
            other => other.map(widen).transpose()?,
        };
        let each: Vec<f64> = match &weights {
            Some(weights) => {
                let weights = weights.to_dtype(DType::F64)?.to_vec::<f64>()?;
                chosen.iter().map(|&class| weights[class]).collect()
            }
            None => vec![1.0; examples],
        };
        let mut losses = logs.gather_last(&chosen)?;
        let (shape, dtype) = (losses.shape().to_vec(), losses.dtype());
        if weights.is_some() {
            losses = losses.mul(&Tensor::from_slice(&each, &shape)?.to_dtype(dtype)?)?;
        }
        if self.smoothing > 0.0 {
            let all = match &weights {
                Some(weights) => logs.mul(weights)?,
                None => logs,
            };
            let all = all
                .sum_over(-1)?
                .mul_scalar(self.smoothing / count as f64)?;
            losses = losses.mul_scalar(1.0 - self.smoothing)?.add(&all)?;
        }
        losses = losses.neg()?;
        let ignored: Vec<f64> = classes
            .iter()
            .map(|&class| f64::from(u8::from(is_ignored(class))))
            .collect();
        if ignored.contains(&1.0) {
            let ignored = Tensor::from_slice(&ignored, &shape)?.to_dtype(dtype)?;
            losses = losses.masked_fill(&ignored, 0.0)?;
        }
        if self.reduction != Reduction::Mean {
            return self.reduction.apply(losses, logits.dtype());
        }
        let counted = each.iter().zip(classes);
        let total: f64 = counted
            .filter(|&(_, &class)| !is_ignored(class))
            .map(|(weight, _)| weight)
            .sum();
        Ok(losses.sum()?.div_scalar(total)?.to_dtype(logits.dtype())?)
    }

    /// The weights, if there are any and they fit.
    fn checked_weights(&self, logits: &Tensor, count: usize) -> Result<Option<&Tensor>> {
        let Some(weights) = &self.weights else {
            return Ok(None);
        };
        if *weights.shape() != [count] {
            return Err(Error::shape(
                Self::NAME,
                format!("a weight for each of {count} classes"),
                weights.shape(),
            ));
        }
        if weights.dtype() != logits.dtype() {
            let kind = ErrorKind::MixedDTypes;
            return Err(sorix_core::Error::new(Self::NAME, &[logits, weights], kind).into());
        }
        Ok(Some(weights))
    }
}

/// Weights, widened, times the power of two that brings the largest to between 1 and 2, if it is a positive number.
fn in_units_of_the_largest(weights: &Tensor) -> Result<Tensor> {
    let weights = widen(weights)?;
    if weights.numel() == 0 {
        return Ok(weights);
    }
    let largest: f64 = weights.max()?.to_dtype(DType::F64)?.item()?;
    let exponent = largest.log2().floor();
    if !exponent.is_finite() {
        return Ok(weights);
    }
    // In two steps, as the factor itself may be out of range.
    let factor = (-exponent / 2.0).floor();
    let rest = -exponent - factor;
    Ok(weights.mul_scalar(factor.exp2())?.mul_scalar(rest.exp2())?)
}

/// The cross entropy between probabilities given and `sigmoid(logits)`, for each element:
/// `-t log sigmoid(x) - (1 - t) log sigmoid(-x)`. PyTorch's `binary_cross_entropy_with_logits`.
///
/// `targets` are probabilities, most often 0 and 1, of the shape and dtype of `logits`. Without a
/// [reduction](Reduction::None) the losses are of that shape. Nothing overflows, and near 0 no digits are
/// lost.
///
/// # Errors
///
/// If shapes or dtypes differ.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::Reduction;
/// use sorix_nn::loss::binary_cross_entropy_with_logits;
///
/// let (logits, targets) = (tensor([0.0, 1000.0, 1000.0]), tensor([1.0, 1.0, 0.0]));
/// let each = binary_cross_entropy_with_logits(&logits, &targets, Reduction::None)?;
/// assert_eq!(each.to_vec::<f64>()?, [2f64.ln(), 0.0, 1000.0]);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn binary_cross_entropy_with_logits(
    logits: &Tensor,
    targets: &Tensor,
    reduction: Reduction,
) -> Result<Tensor> {
    let dtype = same_kind("binary_cross_entropy_with_logits", logits, targets)?;
    let (x, t) = (widen(logits)?, widen(targets)?);
    // The softplus of x and of -x are the two logarithms with the other sign.
    let of_true = t.mul(&x.neg()?.softplus()?)?;
    let of_false = t.rsub_scalar(1.0)?.mul(&x.softplus()?)?;
    reduction.apply(of_true.add(&of_false)?, dtype)
}

/// The dtype of two tensors of one shape and dtype, a network's output and what it should be.
fn same_kind(op: &'static str, output: &Tensor, target: &Tensor) -> Result<DType> {
    if output.shape() != target.shape() {
        let expected = format!("a target of shape {:?}", output.shape());
        return Err(Error::shape(op, expected, target.shape()));
    }
    if output.dtype() != target.dtype() {
        let kind = ErrorKind::MixedDTypes;
        return Err(sorix_core::Error::new(op, &[output, target], kind).into());
    }
    Ok(output.dtype())
}
