//! [`DropoutAddNorm`]: a residual plus dropout, normalised, in burn's graph.
//!
//! The kernel makes the sum and the normalised rows in one pass, and two operations are recorded: the sum, whose
//! gradient is that of dropout and a residual, and its normalisation. So a gradient that comes to the sum from
//! elsewhere, as in the prenorm form, arrives by the graph.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, DispatchKindConversion, DispatchTensor, Flex};
use burn::module::{Module, Param};
use burn::nn::{LayerNormConfig, RmsNormConfig};
use burn::tensor::{Bytes, DType, Device, Element as BurnElement, FloatDType, Tensor, bf16, f16};
use sorix::adapter::{NormRows, SavedNorm, SliceAddNorm, SliceDropout, bias_gradient};
use sorix::kernels::{Buffers, Element, MaskRegion, Norm, NormKind};
use sorix::{SaveMask, Scalar};

use crate::error::{Error, Result};
use crate::layer::Dropout;
use crate::op::{
    KernelResult, by_dtype, by_strategy, by_uploaded_mask, describe, elements, has_kernels,
    in_backward, like, place, primitive, row_major,
};

const NAME: &str = "dropout_add_norm";

/// Layer or RMS normalisation of a residual plus dropout, in one pass: `norm(residual + dropout(input))`, and that sum.
///
/// Parameters, epsilon and names in records are those of burn's `LayerNorm` and `RmsNorm`, so that what was saved with
/// one loads into the other; p, the generator, whether it trains and how the mask is kept are those of the
/// [`Dropout`]. In the prenorm form of a transformer the sum is the next residual; in the postnorm form the normalised
/// one is.
///
/// For an input of f16 and bf16 the sum is f32; residual and parameters are of the dtype of the input or of the sum's. On
/// `flex` mean and variance are computed in f64, 16 bits are rounded once, and a residual that nobody else holds
/// becomes the sum. Until backward the sum, two doubles for each row and the mask are kept.
///
/// Source: `DropoutAddLayerNorm` and `DropoutAddRMSNorm` of flash-attention.
///
/// ```
/// use burn::nn::{LayerNormConfig, RmsNormConfig};
/// use burn::tensor::{Device, Tensor};
/// use sorix_burn::{Dropout, DropoutAddNorm, Generator};
///
/// let device = Device::flex().autodiff();
/// let dropout = Dropout::new(0.5)?.generator(Generator::new(42));
/// let layer = DropoutAddNorm::layer(&LayerNormConfig::new(2), dropout.clone(), &device)?;
/// let x = Tensor::<2>::from_data([[1.0, 2.0]], &device);
/// let (y, sum) = layer.forward(x.clone(), x.clone() * 10.0);
/// let numbers = |x: Tensor<2>| x.into_data().try_to_vec::<f32>().unwrap();
/// assert!(numbers(y).iter().zip([-1.0, 1.0]).all(|(y, norm)| (y - norm).abs() < 1e-4));
/// let sum = numbers(sum); // what is kept is doubled
/// assert!([10.0, 12.0].contains(&sum[0]) && [20.0, 24.0].contains(&sum[1]));
///
/// let rms = DropoutAddNorm::rms(&RmsNormConfig::new(2).with_epsilon(1e-12), dropout, &device)?;
/// let (y, sum) = rms.forward_if(false, x.clone() * 3.0, x - 7.0)?; // nothing is dropped
/// assert_eq!(numbers(sum), [-3.0, 1.0]);
/// assert!((numbers(y)[1] - 0.2_f32.sqrt()).abs() < 1e-6);
/// # Ok::<(), sorix_burn::Error>(())
/// ```
#[derive(Module, Debug)]
pub struct DropoutAddNorm {
    /// What a normalised row is multiplied with.
    pub gamma: Param<Tensor<1>>,
    /// What is added after that.
    pub beta: Option<Param<Tensor<1>>>,
    /// The dropout.
    pub dropout: Dropout,
    epsilon: f64,
    rms: bool,
}

impl DropoutAddNorm {
    /// Normalises as burn's `LayerNorm` of this configuration does, after this dropout.
    ///
    /// # Errors
    ///
    /// [`Error::Kernel`] if epsilon is negative or not finite.
    pub fn layer(config: &LayerNormConfig, dropout: Dropout, device: &Device) -> Result<Self> {
        check_epsilon(config.epsilon)?;
        let norm = config.init(device);
        Ok(Self {
            gamma: norm.gamma,
            beta: norm.beta,
            dropout,
            epsilon: config.epsilon,
            rms: false,
        })
    }

    /// Normalises as burn's `RmsNorm` of this configuration does, after this dropout.
    ///
    /// # Errors
    ///
    /// [`Error::Kernel`] if epsilon is negative or not finite.
    ///
    /// # Panics
    ///
    /// If epsilon is 0, as burn's.
    pub fn rms(config: &RmsNormConfig, dropout: Dropout, device: &Device) -> Result<Self> {
        check_epsilon(config.epsilon)?;
        Ok(Self {
            gamma: config.init(device).gamma,
            beta: None,
            dropout,
            epsilon: config.epsilon,
            rms: true,
        })
    }

    /// The normalised `residual + dropout(input)`, and that sum: dropped in training as burn means it.
    ///
    /// # Panics
    ///
    /// Where [`try_forward`](Self::try_forward) returns an error, with its message.
    #[must_use]
    pub fn forward<const D: usize>(
        &self,
        input: Tensor<D>,
        residual: Tensor<D>,
    ) -> (Tensor<D>, Tensor<D>) {
        self.try_forward(input, residual)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// [`forward`](Self::forward) without a panic.
    ///
    /// # Errors
    ///
    /// Those of [`Dropout::try_forward`], and [`Error::Operand`] for a residual that does not fit the input, or an input
    /// whose last axis does not fit the parameters. No key is taken then.
    pub fn try_forward<const D: usize>(
        &self,
        input: Tensor<D>,
        residual: Tensor<D>,
    ) -> Result<(Tensor<D>, Tensor<D>)> {
        self.forward_if(self.dropout.trains(&input), input, residual)
    }

    /// [`forward`](Self::forward) that drops where `train` says so, on any device and whatever the flag.
    ///
    /// # Errors
    ///
    /// Those of [`try_forward`](Self::try_forward).
    pub fn forward_if<const D: usize>(
        &self,
        train: bool,
        input: Tensor<D>,
        residual: Tensor<D>,
    ) -> Result<(Tensor<D>, Tensor<D>)> {
        let draw = |input: &Tensor<D>| self.dropout.draw_or_nothing(train, input);
        self.normalise(input, None, residual, draw)
    }

    /// [`forward`](Self::forward) by a key that the caller names, or by a part of its mask, on any device.
    ///
    /// # Errors
    ///
    /// Those of [`try_forward`](Self::try_forward).
    pub fn forward_with_key<const D: usize>(
        &self,
        input: Tensor<D>,
        residual: Tensor<D>,
        at: impl Into<MaskRegion>,
    ) -> Result<(Tensor<D>, Tensor<D>)> {
        let draw = |input: &Tensor<D>| self.dropout.draw_at(input, at);
        self.normalise(input, None, residual, draw)
    }

    /// The normalised `residual + dropout(input + bias)`, and that sum, for a bias as long as the last axis.
    ///
    /// # Panics
    ///
    /// Where [`try_forward_bias`](Self::try_forward_bias) returns an error, with its message.
    ///
    /// ```
    /// use burn::nn::LayerNormConfig;
    /// use burn::tensor::{Device, Tensor};
    /// use sorix_burn::{Dropout, DropoutAddNorm};
    ///
    /// let device = Device::flex();
    /// let layer = DropoutAddNorm::layer(&LayerNormConfig::new(2), Dropout::new(0.5)?, &device)?;
    /// let x = Tensor::<2>::from_data([[1.0, 2.0]], &device);
    /// let bias = Tensor::<1>::from_data([3.0, 4.0], &device);
    /// let (_, sum) = layer.forward_bias(x.clone(), bias, x);
    /// assert_eq!(sum.into_data().try_to_vec::<f32>().unwrap(), [5.0, 8.0]);
    /// # Ok::<(), sorix_burn::Error>(())
    /// ```
    #[must_use]
    pub fn forward_bias<const D: usize>(
        &self,
        input: Tensor<D>,
        bias: Tensor<1>,
        residual: Tensor<D>,
    ) -> (Tensor<D>, Tensor<D>) {
        self.try_forward_bias(input, bias, residual)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// [`forward_bias`](Self::forward_bias) without a panic.
    ///
    /// # Errors
    ///
    /// Those of [`try_forward`](Self::try_forward), and [`Error::Operand`] for a bias that does not fit.
    pub fn try_forward_bias<const D: usize>(
        &self,
        input: Tensor<D>,
        bias: Tensor<1>,
        residual: Tensor<D>,
    ) -> Result<(Tensor<D>, Tensor<D>)> {
        self.forward_bias_if(self.dropout.trains(&input), input, bias, residual)
    }

    /// [`forward_bias`](Self::forward_bias) that drops where `train` says so, on any device and whatever the flag.
    ///
    /// # Errors
    ///
    /// Those of [`try_forward_bias`](Self::try_forward_bias).
    pub fn forward_bias_if<const D: usize>(
        &self,
        train: bool,
        input: Tensor<D>,
        bias: Tensor<1>,
        residual: Tensor<D>,
    ) -> Result<(Tensor<D>, Tensor<D>)> {
        let draw = |input: &Tensor<D>| self.dropout.draw_or_nothing(train, input);
        self.normalise(input, Some(bias), residual, draw)
    }

    /// [`forward_bias`](Self::forward_bias) by a key that the caller names, or by a part of its mask, on any device.
    ///
    /// # Errors
    ///
    /// Those of [`try_forward_bias`](Self::try_forward_bias).
    pub fn forward_bias_with_key<const D: usize>(
        &self,
        input: Tensor<D>,
        bias: Tensor<1>,
        residual: Tensor<D>,
        at: impl Into<MaskRegion>,
    ) -> Result<(Tensor<D>, Tensor<D>)> {
        let draw = |input: &Tensor<D>| self.dropout.draw_at(input, at);
        self.normalise(input, Some(bias), residual, draw)
    }

    /// By a draw that is asked for once all else is seen to fit.
    fn normalise<const D: usize>(
        &self,
        x: Tensor<D>,
        bias: Option<Tensor<1>>,
        residual: Tensor<D>,
        draw: impl FnOnce(&Tensor<D>) -> Result<SliceDropout>,
    ) -> Result<(Tensor<D>, Tensor<D>)> {
        check(&x, "a residual", x.dims(), &residual)?;
        let last = x.dims().last().copied().unwrap_or(1);
        if let Some(bias) = &bias {
            check(&x, "a bias", [last], bias)?;
        }
        let (gamma, beta) = (self.gamma.val(), self.beta.as_ref().map(|beta| beta.val()));
        check(&x, "gamma", [last], &gamma)?;
        if let Some(beta) = &beta {
            check(&x, "beta", [last], beta)?;
        }
        let kind = if self.rms {
            NormKind::Rms
        } else {
            NormKind::Layer
        };
        let draw = draw(&x)?;
        let rows = Rows {
            kind,
            epsilon: self.epsilon,
            bias,
            gamma,
            beta,
        };
        if !has_kernels(&x) {
            return rows.by_uploaded_mask(x, residual, &draw);
        }
        let save = self.dropout.saves();
        by_strategy!(x, C => rows.tracked::<C, D>(x, residual, &draw, save), plain => {
            rows.plain(x, residual, &draw)
        })
    }
}

fn check_epsilon(epsilon: f64) -> Result<()> {
    let norm = Norm::<f32>::layer(1, epsilon);
    norm.map_err(sorix::kernels::Error::from)?;
    Ok(())
}

/// Whether the tensor is on the device of `x`, of these lengths, and of a dtype that goes with it.
fn check<const D: usize, const E: usize>(
    x: &Tensor<D>,
    what: &'static str,
    dims: [usize; E],
    tensor: &Tensor<E>,
) -> Result<()> {
    let ((dtype, a, b, device), (other, c, d, other_device)) = (place(x), place(tensor));
    let same = (a, b, device) == (c, d, other_device);
    if same && tensor.dims() == dims && (other == dtype || other == wide(dtype)) {
        return Ok(());
    }
    Err(Error::Operand {
        operation: NAME,
        what,
        expected: format!("of shape {dims:?} for the input, {}", describe(x)),
        got: describe(tensor),
    })
}

/// The dtype that is computed in.
fn wide(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        other => other,
    }
}

/// A normalisation and the rows that go into each.
struct Rows {
    kind: NormKind,
    epsilon: f64,
    bias: Option<Tensor<1>>,
    gamma: Tensor<1>,
    beta: Option<Tensor<1>>,
}

/// The tensors of a call as the backend has them.
struct Inputs {
    x: FlexTensor,
    residual: FlexTensor,
    bias: Option<FlexTensor>,
    gamma: FlexTensor,
    beta: Option<FlexTensor>,
}

/// What both operations keep for backward.
#[derive(Debug)]
struct Call {
    slices: SliceAddNorm,
    saved: SavedNorm,
}

impl Rows {
    fn slices<const D: usize>(&self, x: &Tensor<D>, draw: &SliceDropout) -> Result<SliceAddNorm> {
        let (rate, at) = (draw.rate(), draw.at());
        Ok(SliceAddNorm::new(
            self.kind,
            self.epsilon,
            rate,
            at,
            &x.dims(),
        )?)
    }

    /// On the CPU, without a graph.
    fn plain<const D: usize>(
        self,
        x: Tensor<D>,
        residual: Tensor<D>,
        draw: &SliceDropout,
    ) -> Result<(Tensor<D>, Tensor<D>)> {
        let slices = self.slices(&x, draw)?;
        let row = |row: Tensor<1>| primitive::<Flex, 1>(row, draw);
        let inputs = Inputs {
            x: primitive::<Flex, D>(x, draw)?,
            residual: primitive::<Flex, D>(residual, draw)?,
            bias: self.bias.map(row).transpose()?,
            gamma: row(self.gamma)?,
            beta: self.beta.map(row).transpose()?,
        };
        let (z, sum, _) = forward(inputs, &slices, SaveMask::Replay)?;
        Ok((
            Tensor::from_primitive::<Flex>(z),
            Tensor::from_primitive::<Flex>(sum),
        ))
    }

    /// On the CPU, in the graph.
    fn tracked<C: CheckpointStrategy, const D: usize>(
        self,
        x: Tensor<D>,
        residual: Tensor<D>,
        draw: &SliceDropout,
        save: SaveMask,
    ) -> Result<(Tensor<D>, Tensor<D>)>
    where
        DispatchTensor: DispatchKindConversion<Autodiff<Flex, C>>,
    {
        let slices = self.slices(&x, draw)?;
        let row = |row: Tensor<1>| primitive::<Autodiff<Flex, C>, 1>(row, draw);
        let x = primitive::<Autodiff<Flex, C>, D>(x, draw)?;
        let residual = primitive::<Autodiff<Flex, C>, D>(residual, draw)?;
        let bias = self.bias.map(row).transpose()?;
        let (gamma, beta) = (row(self.gamma)?, self.beta.map(row).transpose()?);
        let plain = |tensor: &Tracked<C>| tensor.clone().into_parts().0;
        let (of_gamma, of_beta) = (plain(&gamma), beta.as_ref().map(plain));

        let beta_dtype = of_beta.as_ref().map(FlexTensor::dtype);
        let making = Making {
            slices,
            save,
            gamma: of_gamma.clone(),
            beta: of_beta,
        };
        let (sum, z, call) = match bias {
            Some(bias) => {
                let of = |[x, residual, bias]: [_; 3]| (x, residual, Some(bias));
                making.record::<C, 3>([x, residual, bias], of)?
            }
            None => {
                let of = |[x, residual]: [_; 2]| (x, residual, None);
                making.record::<C, 2>([x, residual], of)?
            }
        };
        let state = NormState {
            call,
            sum: plain(&sum),
            gamma: of_gamma,
            beta_dtype,
        };
        let z = match &beta {
            Some(beta) => record_norm::<C, 3>([&sum, &gamma, beta], state, z),
            None => record_norm::<C, 2>([&sum, &gamma], state, z),
        };
        Ok((
            Tensor::from_primitive::<Autodiff<Flex, C>>(z),
            Tensor::from_primitive::<Autodiff<Flex, C>>(sum),
        ))
    }

    /// By burn's own operations, on any device: the mask comes from the CPU.
    fn by_uploaded_mask<const D: usize>(
        self,
        x: Tensor<D>,
        residual: Tensor<D>,
        draw: &SliceDropout,
    ) -> Result<(Tensor<D>, Tensor<D>)> {
        let dtype = x.dtype();
        let computed_in: FloatDType = wide(dtype).into();
        let row = |row: Tensor<1>| row.cast(computed_in).unsqueeze::<D>();
        let x = x.cast(computed_in);
        let x = match self.bias {
            Some(bias) => x + row(bias),
            None => x,
        };
        let sum = residual.cast(computed_in) + by_uploaded_mask(x, draw)?;
        let centred = match self.kind {
            NormKind::Rms => sum.clone(),
            _ => sum.clone() - sum.clone().mean_dim(D - 1),
        };
        let variance = (centred.clone() * centred.clone()).mean_dim(D - 1);
        let z = centred / (variance + self.epsilon).sqrt() * row(self.gamma);
        let z = match self.beta {
            Some(beta) => z + row(beta),
            None => z,
        };
        Ok((z.cast(FloatDType::from(dtype)), sum))
    }
}

/// The normalised rows, the sum, and what is saved.
fn forward(
    inputs: Inputs,
    slices: &SliceAddNorm,
    save: SaveMask,
) -> KernelResult<(FlexTensor, FlexTensor, SavedNorm)> {
    by_dtype!(inputs.x, T => {
        type S = <T as Element>::Scale;
        let x = row_major(inputs.x);
        let mut residual = of_type::<S>(inputs.residual);
        let rows = [inputs.bias, Some(inputs.gamma), inputs.beta];
        let rows = rows.map(|row| row.map(of_type::<S>));
        let [bias, weight, shift] = rows.each_ref().map(|row| row.as_ref().map(elements::<S>));
        let (of_x, rows) = (elements::<T>(&x), NormRows { bias, weight, shift });
        // A residual that nobody else holds becomes the sum.
        if let Some(sum) = residual.try_storage_mut::<S>()
            && sum.len() == of_x.len()
        {
            let (z, saved) = slices.forward_buffers(of_x, Buffers::in_place(sum), rows, save)?;
            return Ok((like(&x, z), residual, saved));
        }
        let (z, sum, saved) = slices.forward(of_x, elements::<S>(&residual), rows, save)?;
        Ok((like(&x, z), like(&residual, sum), saved))
    })
}

/// The tensor with elements of this type, in row-major order.
fn of_type<S: Scalar + BurnElement>(x: FlexTensor) -> FlexTensor {
    let x = row_major(x);
    if x.dtype() == S::dtype() {
        return x;
    }
    by_dtype!(x, T => {
        let wide = elements::<T>(&x).iter().map(|x| S::nearest(Scalar::to_f64(*x)));
        flex(wide.collect(), x.layout().shape().to_vec())
    })
}

fn flex<T: BurnElement>(elements: Vec<T>, shape: Vec<usize>) -> FlexTensor {
    let layout = Layout::contiguous(shape.into());
    FlexTensor::new(Bytes::from_elems(elements), layout, T::dtype())
}

/// The numbers as a tensor of this dtype, each rounded once.
fn as_dtype<S: Scalar + BurnElement>(x: Vec<S>, shape: Vec<usize>, dtype: DType) -> FlexTensor {
    cast(flex(x, shape), dtype)
}

/// The tensor in this dtype, each number rounded once; itself if it has it.
fn cast(x: FlexTensor, dtype: DType) -> FlexTensor {
    match dtype {
        DType::F64 => of_type::<f64>(x),
        DType::F16 => of_type::<f16>(x),
        DType::BF16 => of_type::<bf16>(x),
        _ => of_type::<f32>(x),
    }
}

type Tracked<C> = FloatTensor<Autodiff<Flex, C>>;

/// What is made of x, a residual, and a bias if there is a third.
struct Making {
    slices: SliceAddNorm,
    save: SaveMask,
    gamma: FlexTensor,
    beta: Option<FlexTensor>,
}

impl Making {
    /// The sum in the graph, the normalised rows, and what is kept. `of` tells x, residual and bias apart.
    fn record<C: CheckpointStrategy, const N: usize>(
        self,
        parents: [Tracked<C>; N],
        of: impl FnOnce([FlexTensor; N]) -> (FlexTensor, FlexTensor, Option<FlexTensor>),
    ) -> Result<(Tracked<C>, FlexTensor, Arc<Call>)> {
        let nodes = parents.each_ref().map(|parent| parent.node());
        let parents = parents.map(|parent| parent.into_parts().0);
        let dtypes = parents.each_ref().map(FlexTensor::dtype);
        let (x, residual, bias) = of(parents);
        let Self {
            slices,
            save,
            gamma,
            beta,
        } = self;
        let inputs = Inputs {
            x,
            residual,
            bias,
            gamma,
            beta,
        };
        let prepared = Backward::<Flex, N>::prepare::<C>(SumBackward, nodes)
            .compute_bound()
            .stateful();
        match prepared {
            OpsKind::Tracked(prep) => {
                let (z, sum, saved) = forward(inputs, &slices, save)?;
                let call = Arc::new(Call { slices, saved });
                Ok((prep.finish((call.clone(), dtypes), sum), z, call))
            }
            // If nobody asks for a gradient there is nothing to save a mask for.
            OpsKind::UnTracked(prep) => {
                let (z, sum, saved) = forward(inputs, &slices, SaveMask::Replay)?;
                Ok((prep.finish(sum), z, Arc::new(Call { slices, saved })))
            }
        }
    }
}

/// The normalised rows in the graph: of the sum, gamma, and beta if there is a third.
fn record_norm<C: CheckpointStrategy, const N: usize>(
    parents: [&Tracked<C>; N],
    state: NormState,
    z: FlexTensor,
) -> Tracked<C> {
    let nodes = parents.map(|parent| parent.node());
    let prepared = Backward::<Flex, N>::prepare::<C>(NormBackward, nodes)
        .compute_bound()
        .stateful();
    match prepared {
        OpsKind::Tracked(prep) => prep.finish(state, z),
        OpsKind::UnTracked(prep) => prep.finish(z),
    }
}

/// Of x, the residual, and the bias if there is a third.
#[derive(Debug)]
struct SumBackward;

impl<const N: usize> Backward<Flex, N> for SumBackward {
    type State = (Arc<Call>, [DType; N]);

    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let (call, dtypes) = ops.state;
        let mut parents = ops.parents.into_iter();
        let mut parent = || parents.next().flatten();
        let [of_x, of_residual, of_bias] = [parent(), parent(), parent()];
        let shape = gradient.layout().shape().to_vec();
        let last = shape.last().copied().unwrap_or(1);
        let gradient = row_major(gradient);
        if let Some(node) = of_residual {
            gradients.register::<Flex>(node.id, cast(gradient.clone(), dtypes[1]));
        }
        if of_x.is_none() && of_bias.is_none() {
            return;
        }
        by_dtype!(gradient, S => {
            let gradient = elements::<S>(&gradient);
            let dx = in_backward(call.slices.backward_of_x(&call.saved, gradient));
            if let Some(node) = of_bias {
                let sum = in_backward(bias_gradient(&dx, last));
                gradients.register::<Flex>(node.id, as_dtype(sum, vec![last], dtypes[N - 1]));
            }
            if let Some(node) = of_x {
                gradients.register::<Flex>(node.id, as_dtype(dx, shape, dtypes[0]));
            }
        });
    }
}

#[derive(Clone, Debug)]
struct NormState {
    call: Arc<Call>,
    sum: FlexTensor,
    gamma: FlexTensor,
    beta_dtype: Option<DType>,
}

/// Of the sum, gamma, and beta if there is a third.
#[derive(Debug)]
struct NormBackward;

impl<const N: usize> Backward<Flex, N> for NormBackward {
    type State = NormState;

    fn backward(self, ops: Ops<NormState, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let NormState {
            call,
            sum,
            gamma,
            beta_dtype,
        } = ops.state;
        let mut parents = ops.parents.into_iter();
        let mut parent = || parents.next().flatten();
        let [of_sum, of_gamma, of_beta] = [parent(), parent(), parent()];
        let wanted = [of_gamma.is_some(), of_beta.is_some()];
        let shape = sum.layout().shape().to_vec();
        let gamma_dtype = gamma.dtype();
        by_dtype!(gradient, T => {
            type S = <T as Element>::Scale;
            let (dz, sum, gamma) = (row_major(gradient), row_major(sum), of_type::<S>(gamma));
            let (dz, sum) = (elements::<T>(&dz), elements::<S>(&sum));
            let Call { slices, saved } = &*call;
            let made = slices.backward(saved, dz, sum, Some(elements::<S>(&gamma)), wanted);
            let (d_sum, [d_gamma, d_beta]) = in_backward(made);
            for (node, made, dtype) in [
                (of_gamma, d_gamma, gamma_dtype),
                (of_beta, d_beta, beta_dtype.unwrap_or(gamma_dtype)),
            ] {
                if let (Some(node), Some(made)) = (node, made) {
                    let len = made.len();
                    gradients.register::<Flex>(node.id, as_dtype(made, vec![len], dtype));
                }
            }
            if let Some(node) = of_sum {
                gradients.register::<Flex>(node.id, flex(d_sum, shape));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
    use sorix::kernels::{DropRate, MaskKey};

    use super::*;

    #[test]
    fn an_uploaded_mask_gives_the_same_sum_and_close_rows() {
        const SHAPE: [usize; 2] = [6, 35];
        let device = Device::flex().autodiff();
        let leaf = |rows: usize, salt: usize| {
            let numbers: Vec<f64> = (0..rows * 35)
                .map(|i| ((i + salt) * 37 % 61) as f64 * 0.25 - 6.0)
                .collect();
            let numbers = burn::tensor::TensorData::new(numbers, [rows * 35]);
            Tensor::<1>::from_data(numbers, (&device, DType::F64)).require_grad()
        };
        let leaves = [(6, 1), (6, 5), (1, 2), (1, 3), (1, 4)].map(|(rows, salt)| leaf(rows, salt));
        for kind in [NormKind::Layer, NormKind::Rms] {
            for p in [0.0, 0.4, 1.0] {
                let (rate, key) = (DropRate::new(p).unwrap(), MaskKey::new(42, 7));
                let draw = SliceDropout::broadcast(rate, key, &SHAPE, &SHAPE).unwrap();
                let all = [true, false].map(|uploaded| {
                    let [x, residual, bias, gamma, beta] = leaves.clone();
                    let (x, residual) = (x.reshape(SHAPE), residual.reshape(SHAPE));
                    let rows = Rows {
                        kind,
                        epsilon: 1e-3,
                        bias: Some(bias),
                        gamma,
                        beta: Some(beta),
                    };
                    let made = if uploaded {
                        rows.by_uploaded_mask(x, residual, &draw)
                    } else {
                        let save = SaveMask::Bits;
                        rows.tracked::<NoCheckpointing, 2>(x, residual, &draw, save)
                    };
                    let (z, sum): (Tensor<2>, Tensor<2>) = made.unwrap();
                    let gradients = (z.clone() * z.clone() + sum.clone()).backward();
                    let gradient = |leaf: &Tensor<1>| leaf.grad(&gradients).unwrap();
                    let gradients = leaves.each_ref().map(gradient);
                    (sum.into_data(), gradients, z.inner())
                });
                let [(sum, gradients, z), (own_sum, own_gradients, own_z)] = all;
                assert_eq!(sum, own_sum, "p = {p}");
                let z_error = (z - own_z).abs().max().into_scalar::<f64>();
                assert!(z_error < 1e-9, "p = {p}: {z_error}");
                for (a, b) in gradients.into_iter().zip(own_gradients) {
                    let error = (a - b).abs().max().into_scalar::<f64>();
                    assert!(error < 1e-9, "p = {p}: {error}");
                }
            }
        }
    }
}
