//! A residual plus dropout, normalised.
//!
//! The kernel makes the sum and the normalised rows in one pass, and two functions are recorded: the sum,
//! whose gradient is that of dropout and a residual, and the normalisation of it. So a gradient that
//! comes to the sum from elsewhere, as in the prenorm form, arrives by the graph.

use std::sync::Arc;

use sorix_kernels::{
    AddNorm, BitMask, Broadcast, Buffers, DropRate, Element, Engine, MaskRegion, Norm,
    NormGradient, NormKind, RowMoments,
};

use super::{KernelResult, Map, Mask, Masked, SaveMask};
use crate::autograd::{Function, Gradients, SavedTensor, is_recorded, record, tape_mask};
use crate::dtype::{DType, Scalar, dispatch};
use crate::error::{Call, ErrorKind, Operands, Result};
use crate::ops::{elementwise, sums};
use crate::shape::checked_numel;
use crate::storage::Buffer;
use crate::tensor::{Tensor, operands};

/// How [`Tensor::dropout_add_norm`] normalises, and the rows that go into every one.
///
/// Weight, shift and bias have the shape of the last axes that are normalised, and the dtype of the tensor
/// or the one that it is computed in.
///
/// ```
/// use sorix_core::{DropRate, MaskKey, NormOptions, SaveMask, tensor};
///
/// let (weight, shift) = (tensor([2.0, 4.0]), tensor([0.5, 0.5]));
/// let norm = NormOptions::layer(0.0).weight(&weight).shift(&shift);
/// let x = tensor([[1.0, 3.0], [30.0, 10.0]]);
/// let none = DropRate::new(0.0)?;
/// let (z, _) = x.dropout_add_norm(&x, norm, none, MaskKey::new(1, 0), SaveMask::Bits)?;
/// assert_eq!(z.to_vec::<f64>()?, [-1.5, 4.5, 2.5, -3.5]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct NormOptions<'t> {
    kind: NormKind,
    epsilon: f64,
    axes: usize,
    weight: Option<&'t Tensor>,
    shift: Option<&'t Tensor>,
    bias: Option<&'t Tensor>,
}

impl<'t> NormOptions<'t> {
    /// Layer normalisation over the last axis: `(x - mean) / sqrt(variance + epsilon)`.
    #[must_use]
    pub fn layer(epsilon: f64) -> Self {
        Self::new(NormKind::Layer, epsilon)
    }

    /// RMS normalisation over the last axis: `x / sqrt(mean of squares + epsilon)`.
    #[must_use]
    pub fn rms(epsilon: f64) -> Self {
        Self::new(NormKind::Rms, epsilon)
    }

    /// Normalisation of this kind over the last axis.
    #[must_use]
    pub fn new(kind: NormKind, epsilon: f64) -> Self {
        Self {
            kind,
            epsilon,
            axes: 1,
            weight: None,
            shift: None,
            bias: None,
        }
    }

    /// Over this many of the last axes, which make a row.
    #[must_use]
    pub fn axes(self, axes: usize) -> Self {
        Self { axes, ..self }
    }

    /// Multiplies each normalised row with this one.
    #[must_use]
    pub fn weight(self, weight: &'t Tensor) -> Self {
        let weight = Some(weight);
        Self { weight, ..self }
    }

    /// Adds this row to each normalised one, after the weight.
    #[must_use]
    pub fn shift(self, shift: &'t Tensor) -> Self {
        let shift = Some(shift);
        Self { shift, ..self }
    }

    /// Adds this row to each of the tensor's, before dropout.
    #[must_use]
    pub fn bias(self, bias: &'t Tensor) -> Self {
        let bias = Some(bias);
        Self { bias, ..self }
    }
}

impl Tensor {
    /// The rows of `residual + dropout(x + bias)`, normalised, and that sum: `(z, sum)`, in one pass.
    ///
    /// In the prenorm form of a transformer the sum is the next residual; in the postnorm form z is, and
    /// the sum is let go. At p = 0, which is what to give in eval, it is the same computation without
    /// dropout.
    ///
    /// The residual has the dtype of x, or the one that x is computed in, which the sum has: f32 for f16
    /// and bf16. z has the dtype of x. Mean and variance are computed in f64, whatever the dtype, the rest
    /// in the type computed in, and z is rounded once. Saved for backward: the sum, two doubles for each
    /// row, and the mask, as bits or as the key.
    ///
    /// The gradient of the residual is that of the sum, and that of x the same dropout of it. The gradients
    /// of weight, shift and bias are sums over rows, added as doubles in an order that does not depend on
    /// the number of threads. Of 16-bit tensors, gradients are of f32.
    ///
    /// Source: `dropout_add_layer_norm` and `dropout_add_rms_norm` of flash-attention, with `prenorm` and
    /// `residual_in_fp32`; `fused_bias_dropout_residual_layer_norm` of Paddle.
    ///
    /// # Errors
    ///
    /// If the residual has another shape, or if weight, shift or bias has not that of the normalised axes,
    /// or one of them a dtype that is neither that of x nor the one that it is computed in; if there are no
    /// such axes; if epsilon is negative or not finite; and as [`dropout`](Tensor::dropout).
    ///
    /// ```
    /// use sorix_core::{DropRate, MaskKey, NormOptions, SaveMask, tensor};
    ///
    /// let x = tensor([[1.0, 2.0, 3.0]]).requires_grad(true);
    /// let residual = tensor([[10.0, 20.0, 30.0]]);
    /// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(7, 0));
    /// let norm = NormOptions::layer(1e-5);
    /// let (z, sum) = x.dropout_add_norm(&residual, norm, rate, key, SaveMask::Replay)?;
    /// let apart = x.dropout_add(&residual, rate, key, SaveMask::Replay)?;
    /// assert_eq!(sum.to_vec::<f64>()?, apart.to_vec::<f64>()?);
    /// let apart = apart.standardize(&[-1], 1e-5)?.to_vec::<f64>()?;
    /// assert!(z.to_vec::<f64>()?.iter().zip(apart).all(|(a, b)| (a - b).abs() < 1e-12));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn dropout_add_norm(
        &self,
        residual: &Self,
        norm: NormOptions<'_>,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        save: SaveMask,
    ) -> Result<(Self, Self)> {
        let at = at.into();
        let optional = [norm.weight, norm.shift, norm.bias];
        let tensors: Vec<&Self> = [self, residual]
            .into_iter()
            .chain(optional.into_iter().flatten())
            .collect();
        let specs = operands(&tensors);
        let call = Call::new("dropout_add_norm", Operands::Several(&specs));
        let rows = RowsOf::new(call, self, &norm)?;
        rows.expect(call, residual, self.shape())?;
        for row in optional.into_iter().flatten() {
            rows.expect(call, row, &rows.row)?;
        }
        let checked = at.check_len(self.numel());
        checked.map_err(|error| call.kernel_error(error))?;
        tape_mask(rate, at, self.numel());

        let (x, residual) = (self.contiguous()?, residual.contiguous()?);
        let row = |row: Option<&Self>| row.map(Self::contiguous).transpose();
        let (weight, shift, bias) = (row(norm.weight)?, row(norm.shift)?, row(norm.bias)?);
        let saved_weight = weight.as_ref().map(SavedTensor::new);
        let of_sum: Vec<&Self> = [&x, &residual].into_iter().chain(&bias).collect();
        let drops = 0.0 < rate.p() && rate.p() < 1.0;
        let keeps_bits = drops
            && matches!(save, SaveMask::Bits)
            && is_recorded(&[&of_sum[..1], &of_sum[2..]].concat());
        let mut bits = keeps_bits
            .then(|| BitMask::try_new(x.numel()))
            .transpose()
            .map_err(|error| call.kernel_error(error))?;
        let inputs = Inputs {
            x: &x,
            residual: rows.widened(call, &residual)?,
            weight: rows.widened_row(call, weight.as_ref())?,
            shift: rows.widened_row(call, shift.as_ref())?,
            bias: rows.widened_row(call, bias.as_ref())?,
        };
        let (z, sum, moments) = dispatch!(x.dtype(), T => {
            rows.forward::<T>(call, &inputs, rate, at, bits.as_mut())
        })?;

        let mask = bits.map_or(Mask::Key(rate, at), |bits| Mask::Bits(Arc::new(bits)));
        let sum = record(sum, &of_sum, || SumBackward {
            of_x: Masked {
                mask,
                shape: Broadcast::full(x.numel()),
                map: Map::Inverted(rate),
            },
            to_x: x.needs_grad(),
            to_residual: residual.needs_grad(),
            to_bias: bias.as_ref().map(|bias| bias.needs_grad()),
            row: rows.row.clone(),
        });
        let of_z: Vec<&Self> = core::iter::once(&sum)
            .chain(&weight)
            .chain(&shift)
            .collect();
        let z = record(z, &of_z, || NormBackward {
            saved: SavedTensor::new(&sum),
            moments,
            to_weight: weight.as_ref().map(|weight| weight.needs_grad()),
            to_shift: shift.as_ref().map(|shift| shift.needs_grad()),
            weight: saved_weight,
            rows,
        });
        Ok((z, sum))
    }
}

/// The rows of a tensor, and how they are normalised.
#[derive(Debug)]
struct RowsOf {
    kind: NormKind,
    epsilon: f64,
    shape: Vec<usize>,
    /// The shape of a row, the number of its elements, and the number of rows.
    row: Vec<usize>,
    len: usize,
    count: usize,
    dtype: DType,
}

/// What is read, all of it contiguous, and all but x of the dtype computed in.
struct Inputs<'t> {
    x: &'t Tensor,
    residual: Tensor,
    weight: Option<Tensor>,
    shift: Option<Tensor>,
    bias: Option<Tensor>,
}

impl RowsOf {
    fn new(call: Call<'_>, x: &Tensor, norm: &NormOptions<'_>) -> Result<Self> {
        let NormOptions {
            kind,
            epsilon,
            axes,
            ..
        } = *norm;
        if !(epsilon >= 0.0 && epsilon.is_finite()) {
            return Err(call.error(ErrorKind::Epsilon { epsilon }));
        }
        let Some(first) = x.ndim().checked_sub(axes).filter(|_| axes > 0) else {
            let axis = -isize::try_from(axes).unwrap_or(isize::MAX);
            return Err(call.error(ErrorKind::Axis { axis }));
        };
        let (others, row) = x.shape().split_at(first);
        Ok(Self {
            kind,
            epsilon,
            shape: x.shape().to_vec(),
            row: row.to_vec(),
            len: row.iter().product(),
            count: others.iter().product(),
            dtype: x.dtype(),
        })
    }

    /// An error unless `tensor` has this shape, and the dtype of the rows or the one they are computed in.
    fn expect(&self, call: Call<'_>, tensor: &Tensor, shape: &[usize]) -> Result<()> {
        let dtype = if tensor.dtype() == self.dtype.arithmetic() {
            tensor.dtype()
        } else {
            self.dtype
        };
        call.expect(tensor, shape, dtype)
    }

    /// The tensor in the dtype computed in, apart from the graph.
    fn widened(&self, call: Call<'_>, tensor: &Tensor) -> Result<Tensor> {
        dispatch!(tensor.dtype(), T => elementwise::widen::<T>(call, tensor))
    }

    fn widened_row(&self, call: Call<'_>, row: Option<&Tensor>) -> Result<Option<Tensor>> {
        row.map(|row| self.widened(call, row)).transpose()
    }

    fn norm<'a, S: Element<Scale = S>>(
        &self,
        weight: Option<&'a [S]>,
        shift: Option<&'a [S]>,
    ) -> KernelResult<Norm<'a, S>> {
        let mut norm = Norm::new(self.kind, self.len, self.epsilon)?;
        if let Some(weight) = weight {
            norm = norm.with_weight(weight)?;
        }
        if let Some(shift) = shift {
            norm = norm.with_shift(shift)?;
        }
        Ok(norm)
    }

    /// The normalised rows, the sum, and its moments.
    fn forward<T>(
        &self,
        call: Call<'_>,
        inputs: &Inputs<'_>,
        rate: DropRate,
        at: MaskRegion,
        bits: Option<&mut BitMask>,
    ) -> Result<(Tensor, Tensor, Vec<RowMoments>)>
    where
        T: Scalar + Element<Scale: Scalar>,
    {
        let wide = self.dtype.arithmetic();
        let numel = checked_numel(call, &self.shape, wide)?;
        let mut sum = Buffer::for_overwrite(call, numel * wide.size())?;
        let mut z = Buffer::for_overwrite(call, numel * self.dtype.size())?;
        let mut moments = self.moments(call)?;
        let rows = [&inputs.weight, &inputs.shift, &inputs.bias];
        let rows = rows.map(|row| row.as_ref().map(Tensor::read));
        let [weight, shift, bias] = rows.each_ref().map(|row| {
            let row = row.as_ref();
            row.map(|row| row.contiguous::<T::Scale>())
        });
        let [x, residual] = Tensor::read_both(inputs.x, &inputs.residual);
        let run = || -> KernelResult {
            let sum = &mut sum.as_mut_slice::<T::Scale>()[..numel];
            let z = &mut z.as_mut_slice::<T>()[..numel];
            let buffers = Buffers::new(residual.contiguous(), sum)?;
            let norm = self.norm(weight, shift)?;
            let mut rows = AddNorm::new(norm, x.contiguous::<T>(), buffers, z, &mut moments)?;
            if let Some(bias) = bias {
                rows = rows.with_bias(bias)?;
            }
            Engine::active()?.dropout_add_norm(rate, at, rows, bits)
        };
        run().map_err(|error| call.kernel_error(error))?;
        Ok((
            Tensor::from_buffer(z, &self.shape, self.dtype),
            Tensor::from_buffer(sum, &self.shape, wide),
            moments,
        ))
    }

    fn moments(&self, call: Call<'_>) -> Result<Vec<RowMoments>> {
        let mut moments = Vec::new();
        let bytes = self.count.saturating_mul(size_of::<RowMoments>());
        let reserved = moments.try_reserve_exact(self.count);
        reserved.map_err(|_| call.error(ErrorKind::Allocation { bytes }))?;
        moments.resize(self.count, RowMoments::default());
        Ok(moments)
    }
}

#[derive(Debug)]
struct SumBackward {
    of_x: Masked,
    to_x: bool,
    to_residual: bool,
    /// `None` without a bias.
    to_bias: Option<bool>,
    row: Vec<usize>,
}

impl Function for SumBackward {
    fn name(&self) -> &'static str {
        "DropoutAddNormSumBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let of_residual = self.to_residual.then(|| grad.clone());
        let of_x = (self.to_x || self.to_bias == Some(true))
            .then(|| self.of_x.gradient(self.name(), grad))
            .transpose()?;
        let of_bias = match &of_x {
            Some(of_x) if self.to_bias == Some(true) => {
                let axes: Vec<usize> = (0..of_x.ndim() - self.row.len()).collect();
                let call = Call::on(self.name(), of_x);
                Some(sums::reduce(call, of_x, &axes, &self.row, 1.0)?)
            }
            _ => None,
        };
        let of_x = of_x.filter(|_| self.to_x);
        let mut gradients = vec![of_x, of_residual];
        gradients.extend(self.to_bias.map(|_| of_bias));
        Ok(gradients)
    }
}

#[derive(Debug)]
struct NormBackward {
    rows: RowsOf,
    saved: SavedTensor,
    moments: Vec<RowMoments>,
    weight: Option<SavedTensor>,
    /// `None` without a weight, and without a shift.
    to_weight: Option<bool>,
    to_shift: Option<bool>,
}

impl NormBackward {
    fn gradients<T>(&self, call: Call<'_>, dz: &Tensor) -> Result<Gradients>
    where
        T: Scalar + Element<Scale: Scalar>,
    {
        let rows = &self.rows;
        let wide = rows.dtype.arithmetic();
        let (sum, dz) = (self.saved.get(self)?, dz.contiguous()?);
        let weight = self.weight.as_ref().map(|weight| weight.get(self));
        let weight = rows.widened_row(call, weight.transpose()?.as_ref())?;
        let numel = checked_numel(call, &rows.shape, wide)?;
        let mut d_sum = Buffer::for_overwrite(call, numel * wide.size())?;
        let row = |wanted: Option<bool>| {
            let wanted = (wanted == Some(true)).then(|| rows.len * wide.size());
            wanted.map(|bytes| Buffer::for_overwrite(call, bytes))
        };
        let mut d_weight = row(self.to_weight).transpose()?;
        let mut d_shift = row(self.to_shift).transpose()?;
        let (sum, dz) = (sum.read(), dz.read());
        let weight = weight.as_ref().map(Tensor::read);
        let mut run = || -> KernelResult {
            let weight = weight
                .as_ref()
                .map(|weight| weight.contiguous::<T::Scale>());
            let norm = rows.norm(weight, None)?;
            let d_sum = &mut d_sum.as_mut_slice::<T::Scale>()[..numel];
            let (dz, sum) = (dz.contiguous::<T>(), sum.contiguous::<T::Scale>());
            let mut gradient = NormGradient::new(norm, dz, sum, &self.moments, d_sum)?;
            if let Some(d_weight) = &mut d_weight {
                gradient = gradient.with_d_weight(&mut d_weight.as_mut_slice()[..rows.len])?;
            }
            if let Some(d_shift) = &mut d_shift {
                gradient = gradient.with_d_shift(&mut d_shift.as_mut_slice()[..rows.len])?;
            }
            Engine::active()?.norm_backward(gradient)
        };
        run().map_err(|error| call.kernel_error(error))?;
        let of_row = |row: Option<Buffer>| row.map(|row| Tensor::from_buffer(row, &rows.row, wide));
        let mut gradients = vec![Some(Tensor::from_buffer(d_sum, &rows.shape, wide))];
        gradients.extend(self.to_weight.map(|_| of_row(d_weight)));
        gradients.extend(self.to_shift.map(|_| of_row(d_shift)));
        Ok(gradients)
    }
}

impl Function for NormBackward {
    fn name(&self) -> &'static str {
        "DropoutAddNormBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let call = Call::on(self.name(), &grad);
        dispatch!(grad.dtype(), T => self.gradients::<T>(call, &grad))
    }
}
