//! [`ParameterAverage`]: a running average of parameters.

use num_traits::Float;
use sorix_core::autograd::no_grad;
use sorix_core::{DType, Scalar, Tensor, UpdateRule};

use crate::error::{Error, Result};
use crate::hyperparameter::at_most_one;

/// A running average of the parameters of a model, for evaluation and use.
///
/// [`exponential`](Self::exponential) forgets: `a ← d a + (1 - d) w` with decay `d`, and `a = w` the first
/// time. [`equal`](Self::equal) weighs all the same. Both are kept in f32 if parameters are f16 or bf16, in
/// which an average would stand still. PyTorch's `AveragedModel`, with `get_ema_multi_avg_fn(d)` and without.
///
/// A checkpoint keeps it by its [tensors](Self::named_tensors).
///
/// Source: Polyak and Juditsky, *Acceleration of stochastic approximation by averaging*, SIAM Journal on
/// Control and Optimization 30 (1992); Izmailov et al., *Averaging weights leads to wider optima and better
/// generalization*, UAI 2018.
///
/// ```
/// use sorix_core::autograd::no_grad;
/// use sorix_core::tensor;
/// use sorix_nn::{Linear, Module, ParameterAverage, deep_copy};
///
/// let net = Linear::from_tensors(tensor([[1.0]]), None)?;
/// let mut average = ParameterAverage::exponential(net.named_parameters(), 0.75)?;
/// for value in [1.0, 5.0, 5.0] {
///     no_grad(|| net.weight().assign(&tensor([[value]])))?; // as an optimiser does
///     average.update()?;
/// }
/// // 1, then 0.75 + 1.25, then 1.5 + 1.25.
/// let evaluated = deep_copy(&net)?;
/// average.copy_to(&evaluated.named_parameters())?;
/// assert_eq!(evaluated.forward(&tensor([1.0]))?.item::<f64>()?, 2.75);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Debug)]
pub struct ParameterAverage {
    decay: Option<f64>,
    parameters: Vec<(String, Tensor)>,
    averages: Vec<Tensor>,
    /// Of f64, one element: so often it was updated.
    updates: Tensor,
}

/// For errors.
const NAME: &str = "ParameterAverage";

impl ParameterAverage {
    /// An exponential average with this decay; 0.999 is usual.
    ///
    /// # Errors
    ///
    /// If the decay is not in [0, 1]; if there is no parameter or a name comes twice; if allocation fails.
    pub fn exponential(
        parameters: impl IntoIterator<Item = (String, Tensor)>,
        decay: f64,
    ) -> Result<Self> {
        at_most_one(NAME, "decay", decay)?;
        Self::new(parameters, Some(decay))
    }

    /// The mean of all states that it is [updated](Self::update) with.
    ///
    /// # Errors
    ///
    /// If there is no parameter or a name comes twice; if allocation fails.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::ParameterAverage;
    ///
    /// let w = tensor([0.0]);
    /// let mut average = ParameterAverage::equal([("w".to_owned(), w.clone())])?;
    /// for value in [1.0, 2.0, 6.0] {
    ///     w.assign(&tensor([value]))?;
    ///     average.update()?;
    /// }
    /// average.copy_to(&[("w".to_owned(), w.clone())])?;
    /// assert_eq!(w.item::<f64>()?, 3.0);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn equal(parameters: impl IntoIterator<Item = (String, Tensor)>) -> Result<Self> {
        Self::new(parameters, None)
    }

    fn new(
        parameters: impl IntoIterator<Item = (String, Tensor)>,
        decay: Option<f64>,
    ) -> Result<Self> {
        let mut kept: Vec<(String, Tensor)> = Vec::new();
        for (name, parameter) in parameters {
            if kept.iter().any(|(other, _)| *other == name) {
                let optimizer = NAME;
                return Err(Error::RepeatedName { optimizer, name });
            }
            // Tied parameters have one average.
            if kept.iter().all(|(_, other)| !other.is_same(&parameter)) {
                kept.push((name, parameter));
            }
        }
        if kept.is_empty() {
            return Err(Error::NoParameters { optimizer: NAME });
        }
        let zeros = kept
            .iter()
            .map(|(_, parameter)| Tensor::zeros(parameter.shape(), parameter.dtype().arithmetic()));
        Ok(Self {
            decay,
            averages: zeros.collect::<sorix_core::Result<_>>()?,
            parameters: kept,
            updates: Tensor::zeros([], DType::F64)?,
        })
    }

    /// Takes the parameters as they are now into the average, as after a step of the optimiser.
    ///
    /// # Errors
    ///
    /// If allocation fails; nothing has changed then.
    pub fn update(&mut self) -> Result<()> {
        let updates = self.updates()?;
        let share = match self.decay {
            _ if updates == 0.0 => 1.0,
            Some(decay) => 1.0 - decay,
            None => 1.0 / (updates + 1.0),
        };
        no_grad(|| {
            let now = self.parameters.iter().zip(&self.averages);
            let now = now.map(|((_, parameter), average)| parameter.to_dtype(average.dtype()));
            let now: Vec<Tensor> = now.collect::<sorix_core::Result<_>>()?;
            for (average, now) in self.averages.iter().zip(&now) {
                average.update(now, &mut [], &Average { share })?;
            }
            self.updates.assign(&sorix_core::tensor(updates + 1.0))
        })?;
        Ok(())
    }

    /// How often it was updated.
    fn updates(&self) -> Result<f64> {
        Ok(self.updates.item::<f64>()?)
    }

    /// Writes the averages, rounded to their dtype, to parameters of the same names: of the model itself, or
    /// of [a copy](crate::deep_copy).
    ///
    /// # Errors
    ///
    /// If it was never updated; if the names, shapes or dtypes are not those that it was made with;
    /// nothing has changed then. If memory is allocated for a parameter that another thread holds as it was,
    /// and that fails: those before it are written.
    pub fn copy_to(&self, parameters: &[(String, Tensor)]) -> Result<()> {
        let different = |name: &str, expected: String| Error::OtherParameters {
            op: NAME,
            name: name.to_owned(),
            expected,
        };
        if self.updates()? == 0.0 {
            let name = &self.parameters[0].0;
            return Err(different(name, "to have been averaged".to_owned()));
        }
        let mut pairs = Vec::new();
        for ((name, own), average) in self.parameters.iter().zip(&self.averages) {
            let target = parameters.iter().find(|(other, _)| other == name);
            let Some((_, target)) = target else {
                return Err(different(name, "to be in both".to_owned()));
            };
            if (target.shape(), target.dtype()) != (own.shape(), own.dtype()) {
                let (dtype, shape) = (own.dtype(), own.shape());
                return Err(different(name, format!("to be {dtype} of shape {shape:?}")));
            }
            crate::init::check_writable(NAME, target)?;
            pairs.push((target, average.to_dtype(own.dtype())?));
        }
        no_grad(|| {
            pairs
                .iter()
                .try_for_each(|(target, average)| target.assign(average))
        })?;
        Ok(())
    }

    /// The averages, and as `n_averaged` how often they were updated: handles, through which a checkpoint
    /// reads and sets them. The names are those of the parameters below `module`, as in PyTorch's file of an
    /// `AveragedModel`.
    ///
    /// ```
    /// # #[cfg(feature = "safetensors")] {
    /// use sorix_core::tensor;
    /// use sorix_nn::{Checkpoint, ParameterAverage};
    ///
    /// let w = tensor([4.0]);
    /// let average = || ParameterAverage::exponential([("w".to_owned(), w.clone())], 0.9);
    /// let mut saved = average()?;
    /// saved.update()?;
    /// let bytes = Checkpoint::new().tensors("ema", saved.named_tensors()).to_bytes()?;
    ///
    /// let again = average()?;
    /// Checkpoint::new().tensors("ema", again.named_tensors()).load_bytes(&bytes)?;
    /// w.assign(&tensor([0.0]))?;
    /// again.copy_to(&[("w".to_owned(), w.clone())])?;
    /// assert_eq!(w.item::<f64>()?, 4.0);
    /// # }
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn named_tensors(&self) -> Vec<(String, Tensor)> {
        let averages = self.parameters.iter().zip(&self.averages);
        let averages = averages.map(|((name, _), it)| (format!("module.{name}"), it.clone()));
        let updates = ("n_averaged".to_owned(), self.updates.clone());
        averages.chain([updates]).collect()
    }
}

/// A step from the average towards the number that comes as the gradient.
struct Average {
    share: f64,
}

impl UpdateRule<0> for Average {
    fn apply<A: Scalar + Float>(&self, average: A, now: A, _: [A; 0]) -> (A, [A; 0]) {
        if self.share == 1.0 {
            return (now, []);
        }
        (average + (now - average) * A::nearest(self.share), [])
    }
}
