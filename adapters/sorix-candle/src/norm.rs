//! A residual plus dropout, normalised, in candle's graph.
//!
//! The kernel makes the sum and the normalised rows in one pass, and two operations are recorded: the sum, whose
//! gradient is that of dropout and a residual, and its normalisation. So a gradient that comes to the sum from
//! elsewhere, as in the prenorm form, arrives by the graph.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, D, DType, Device, Error, Layout, Result, Shape,
    Tensor, WithDType,
};
use sorix::adapter::{NormRows, SavedNorm, SliceAddNorm, SliceDropout, bias_gradient};
use sorix::kernels::{Element, Norm, NormKind};
use sorix::{SaveMask, Scalar};

use crate::elements::{laid_out, with_elements};
use crate::op;

const NAME: &str = "sorix-dropout-add-norm";

/// How [`DropoutExt::dropout_add_norm`](crate::DropoutExt::dropout_add_norm) normalises the last axis, and the rows that
/// go into every one.
///
/// Weight, shift and bias are as long as the last axis, and have the dtype of the tensor or the one that it is computed
/// in: f32 for f16 and bf16.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use sorix_candle::{DropRate, DropoutExt, MaskKey, NormOptions};
///
/// let new = |row: [f64; 2]| Tensor::new(&row, &Device::Cpu);
/// let (weight, shift, bias) = (new([2.0, 4.0])?, new([0.5, 0.5])?, new([3.0, 3.0])?);
/// let norm = NormOptions::layer(0.0).weight(&weight).shift(&shift).bias(&bias);
/// let xs = Tensor::new(&[[1f64, 3.], [30., 10.]], &Device::Cpu)?;
/// let (ys, sum) = xs.dropout_add_norm(&xs, norm, DropRate::new(0.0).unwrap(), MaskKey::new(1, 0))?;
/// assert_eq!(ys.to_vec2::<f64>()?, [[-1.5, 4.5], [2.5, -3.5]]);
/// assert_eq!(sum.to_vec2::<f64>()?, [[5.0, 9.0], [63.0, 23.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct NormOptions<'t> {
    kind: NormKind,
    epsilon: f64,
    weight: Option<&'t Tensor>,
    shift: Option<&'t Tensor>,
    bias: Option<&'t Tensor>,
}

impl<'t> NormOptions<'t> {
    /// Layer normalisation: `(x - mean) / sqrt(variance + epsilon)`.
    #[must_use]
    pub fn layer(epsilon: f64) -> Self {
        Self::new(NormKind::Layer, epsilon)
    }

    /// RMS normalisation: `x / sqrt(mean of squares + epsilon)`.
    #[must_use]
    pub fn rms(epsilon: f64) -> Self {
        Self::new(NormKind::Rms, epsilon)
    }

    fn new(kind: NormKind, epsilon: f64) -> Self {
        Self {
            kind,
            epsilon,
            weight: None,
            shift: None,
            bias: None,
        }
    }

    /// What a layer of candle does.
    pub(crate) fn of_layer(norm: &'t candle_nn::LayerNorm) -> Self {
        let kind = match norm.remove_mean() {
            true => NormKind::Layer,
            false => NormKind::Rms,
        };
        Self {
            weight: Some(norm.weight()),
            shift: norm.bias(),
            ..Self::new(kind, norm.eps())
        }
    }

    /// Multiplies each normalised row with this one.
    #[must_use]
    pub fn weight(self, weight: &'t Tensor) -> Self {
        let weight = Some(weight);
        Self { weight, ..self }
    }

    /// Adds this row to each normalised one, after the weight; what candle calls the bias of a norm.
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

/// An error unless all that goes in fits `xs`.
fn check(xs: &Tensor, residual: &Tensor, norm: &NormOptions<'_>) -> Result<()> {
    op::check_dtype(xs)?;
    let Some(&last) = xs.dims().last() else {
        let error = Error::UnexpectedNumberOfDims {
            expected: 1,
            got: 0,
            shape: xs.shape().clone(),
        };
        return Err(error.bt());
    };
    let fits = |what: &str, tensor: &Tensor, dims: &[usize]| {
        if tensor.dims() != dims {
            let error = Error::UnexpectedShape {
                msg: format!("{NAME}: {what}"),
                expected: dims.into(),
                got: tensor.shape().clone(),
            };
            return Err(error.bt());
        }
        if tensor.dtype() == op::wide(xs) {
            return op::check_device(NAME, xs, tensor);
        }
        op::check_dtype_and_device(NAME, xs, tensor)
    };
    fits("a residual of the shape of the input", residual, xs.dims())?;
    for (what, row) in [
        ("a bias as long as the last axis", norm.bias),
        ("a weight as long as the last axis", norm.weight),
        ("a shift as long as the last axis", norm.shift),
    ] {
        if let Some(row) = row {
            fits(what, row, &[last])?;
        }
    }
    let norm = Norm::<f32>::new(norm.kind, last, norm.epsilon);
    norm.map_err(Error::wrap).map(drop)
}

/// The normalised rows of `residual + dropout(xs + bias)` by one draw, of inverted dropout with a bit for each element;
/// and that sum. The draw is asked for once all else is seen to fit.
pub(crate) fn dropout_add_norm(
    xs: &Tensor,
    residual: &Tensor,
    norm: NormOptions<'_>,
    draw: impl FnOnce() -> Result<SliceDropout>,
    save: SaveMask,
) -> Result<(Tensor, Tensor)> {
    check(xs, residual, &norm)?;
    let draw = draw()?;
    if !xs.device().is_cpu() {
        return by_uploaded_mask(xs, residual, norm, &draw);
    }
    match xs.dtype() {
        DType::F64 => run::<f64>(xs, residual, norm, &draw, save),
        DType::F16 => run::<half::f16>(xs, residual, norm, &draw, save),
        DType::BF16 => run::<half::bf16>(xs, residual, norm, &draw, save),
        _ => run::<f32>(xs, residual, norm, &draw, save),
    }
}

fn run<T>(
    xs: &Tensor,
    residual: &Tensor,
    norm: NormOptions<'_>,
    draw: &SliceDropout,
    save: SaveMask,
) -> Result<(Tensor, Tensor)>
where
    T: Scalar + WithDType + Element<Scale: Scalar + WithDType>,
{
    let slices = SliceAddNorm::new(norm.kind, norm.epsilon, draw.rate(), draw.at(), xs.dims())
        .map_err(Error::wrap)?;
    let wanted = xs.track_op() || norm.bias.is_some_and(Tensor::track_op);
    let save = draw.saving(wanted, save);

    let x = laid_out::<T>(xs)?;
    let wide = laid_out::<T::Scale>(residual)?;
    let row = |row: Option<&Tensor>| row.map(laid_out::<T::Scale>).transpose();
    let rows = [row(norm.bias)?, row(norm.weight)?, row(norm.shift)?];
    let [bias, weight, shift] = rows.each_ref().map(Option::as_ref);
    let (z, sum, saved) = with_elements::<T, _, 1>(NAME, [Some(&x)], |[x]| {
        with_elements(NAME, [Some(&wide), bias, weight, shift], |all| {
            let [residual, bias, weight, shift] = all;
            let (x, residual) = (x.unwrap_or_default(), residual.unwrap_or_default());
            let rows = NormRows {
                bias,
                weight,
                shift,
            };
            let made = slices.forward(x, residual, rows, save);
            made.map_err(Error::wrap)
        })
    })?;
    let call = Arc::new(Call { slices, saved });

    let made = Made::new(T::Scale::to_cpu_storage_owned(sum), xs.shape());
    let add = AddBackward {
        call: call.clone(),
        made,
    };
    let sum = match norm.bias {
        Some(bias) => xs.apply_op3(bias, residual, add),
        None => xs.apply_op2(residual, add),
    }?;
    let normalise = NormBackward {
        call,
        made: Made::new(T::to_cpu_storage_owned(z), xs.shape()),
        has_weight: norm.weight.is_some(),
    };
    let z = match (norm.weight, norm.shift) {
        (Some(weight), Some(shift)) => sum.apply_op3(weight, shift, normalise),
        (Some(row), None) | (None, Some(row)) => sum.apply_op2(row, normalise),
        (None, None) => sum.apply_op1(normalise),
    }?;
    Ok((z, sum))
}

/// What both operations keep for backward.
#[derive(Debug)]
struct Call {
    slices: SliceAddNorm,
    saved: SavedNorm,
}

/// An output that was made before the operation is recorded, which hands it out.
#[derive(Debug)]
struct Made {
    out: Mutex<Option<CpuStorage>>,
    shape: Shape,
}

impl Made {
    fn new(out: CpuStorage, shape: &Shape) -> Self {
        Self {
            out: Mutex::new(Some(out)),
            shape: shape.clone(),
        }
    }

    fn take(&self) -> Result<(CpuStorage, Shape)> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        match out.take() {
            Some(out) => Ok((out, self.shape.clone())),
            None => Err(Error::Msg(format!("{NAME}: its output was taken before")).bt()),
        }
    }
}

/// `xs`, perhaps a bias, and a residual to their sum after dropout.
#[derive(Debug)]
struct AddBackward {
    call: Arc<Call>,
    made: Made,
}

/// The sum, perhaps a weight, and perhaps a shift, to the normalised rows. The gradients have none themselves.
#[derive(Debug)]
struct NormBackward {
    call: Arc<Call>,
    made: Made,
    /// If there is one row, whether it is the weight.
    has_weight: bool,
}

impl AddBackward {
    /// The gradients of `xs`, of the bias and of the residual.
    fn gradients(
        &self,
        xs: &Tensor,
        bias: Option<&Tensor>,
        residual: &Tensor,
        gradient: &Tensor,
    ) -> Result<[Option<Tensor>; 3]> {
        let bias = bias.filter(|bias| bias.track_op());
        let of_residual = residual
            .track_op()
            .then(|| gradient.to_dtype(residual.dtype()))
            .transpose()?;
        if !xs.track_op() && bias.is_none() {
            return Ok([None, None, of_residual]);
        }
        let [of_xs, of_bias] = match gradient.dtype() {
            DType::F64 => self.of_sum::<f64>(gradient, bias),
            _ => self.of_sum::<f32>(gradient, bias),
        }?;
        let of_xs = of_xs.filter(|_| xs.track_op());
        let of_xs = of_xs.map(|of_xs| of_xs.to_dtype(xs.dtype())).transpose()?;
        Ok([of_xs, of_bias, of_residual])
    }

    fn of_sum<S: Scalar + WithDType>(
        &self,
        gradient: &Tensor,
        bias: Option<&Tensor>,
    ) -> Result<[Option<Tensor>; 2]> {
        let Call { slices, saved } = &*self.call;
        let dx =
            with_elements::<S, _, 1>(NAME, [Some(&laid_out::<S>(gradient)?)], |[gradient]| {
                let dx = slices.backward_of_x(saved, gradient.unwrap_or_default());
                dx.map_err(Error::wrap)
            })?;
        let of_bias = bias
            .map(|bias| {
                let sum = bias_gradient(&dx, bias.elem_count()).map_err(Error::wrap)?;
                Tensor::from_vec(sum, bias.shape(), &Device::Cpu)?.to_dtype(bias.dtype())
            })
            .transpose()?;
        let of_xs = Tensor::from_vec(dx, gradient.shape(), &Device::Cpu)?;
        Ok([Some(of_xs), of_bias])
    }
}

impl CustomOp2 for AddBackward {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.made.take()
    }

    fn bwd(
        &self,
        xs: &Tensor,
        residual: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [of_xs, _, of_residual] = self.gradients(xs, None, residual, gradient)?;
        Ok((of_xs, of_residual))
    }
}

impl CustomOp3 for AddBackward {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.made.take()
    }

    fn bwd(
        &self,
        xs: &Tensor,
        bias: &Tensor,
        residual: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradients = self.gradients(xs, Some(bias), residual, gradient)?;
        Ok(gradients.into())
    }
}

impl NormBackward {
    /// The gradients of the sum, of the weight and of the shift.
    fn gradients(
        &self,
        sum: &Tensor,
        weight: Option<&Tensor>,
        shift: Option<&Tensor>,
        gradient: &Tensor,
    ) -> Result<[Option<Tensor>; 3]> {
        match gradient.dtype() {
            DType::F64 => self.typed::<f64>(sum, weight, shift, gradient),
            DType::F16 => self.typed::<half::f16>(sum, weight, shift, gradient),
            DType::BF16 => self.typed::<half::bf16>(sum, weight, shift, gradient),
            _ => self.typed::<f32>(sum, weight, shift, gradient),
        }
    }

    fn typed<T>(
        &self,
        sum: &Tensor,
        weight: Option<&Tensor>,
        shift: Option<&Tensor>,
        gradient: &Tensor,
    ) -> Result<[Option<Tensor>; 3]>
    where
        T: Scalar + WithDType + Element<Scale: Scalar + WithDType>,
    {
        let Call { slices, saved } = &*self.call;
        let (dz, read_sum) = (laid_out::<T>(gradient)?, laid_out::<T::Scale>(sum)?);
        let read_weight = weight.map(laid_out::<T::Scale>).transpose()?;
        let wanted = [weight, shift].map(|row| row.is_some_and(Tensor::track_op));
        let (d_sum, d_rows) = with_elements::<T, _, 1>(NAME, [Some(&dz)], |[dz]| {
            with_elements(
                NAME,
                [Some(&read_sum), read_weight.as_ref()],
                |[sum, weight]| {
                    let (dz, sum) = (dz.unwrap_or_default(), sum.unwrap_or_default());
                    let made = slices.backward(saved, dz, sum, weight, wanted);
                    made.map_err(Error::wrap)
                },
            )
        })?;
        let d_sum = Tensor::from_vec(d_sum, sum.shape(), &Device::Cpu)?;
        let [d_weight, d_shift] = d_rows;
        let of_row = |row: Option<&Tensor>, made: Option<Vec<T::Scale>>| match (row, made) {
            (Some(row), Some(made)) => Tensor::from_vec(made, row.shape(), &Device::Cpu)?
                .to_dtype(row.dtype())
                .map(Some),
            _ => Ok(None),
        };
        Ok([
            Some(d_sum),
            of_row(weight, d_weight)?,
            of_row(shift, d_shift)?,
        ])
    }
}

impl CustomOp1 for NormBackward {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.made.take()
    }

    fn bwd(&self, sum: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let [of_sum, ..] = self.gradients(sum, None, None, gradient)?;
        Ok(of_sum)
    }
}

impl CustomOp2 for NormBackward {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.made.take()
    }

    fn bwd(
        &self,
        sum: &Tensor,
        row: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (weight, shift) = match self.has_weight {
            true => (Some(row), None),
            false => (None, Some(row)),
        };
        let [of_sum, of_weight, of_shift] = self.gradients(sum, weight, shift, gradient)?;
        Ok((of_sum, of_weight.or(of_shift)))
    }
}

impl CustomOp3 for NormBackward {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.made.take()
    }

    fn bwd(
        &self,
        sum: &Tensor,
        weight: &Tensor,
        shift: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradients = self.gradients(sum, Some(weight), Some(shift), gradient)?;
        Ok(gradients.into())
    }
}

/// By candle's own operations, on any device: the mask comes from the CPU.
fn by_uploaded_mask(
    xs: &Tensor,
    residual: &Tensor,
    norm: NormOptions<'_>,
    draw: &SliceDropout,
) -> Result<(Tensor, Tensor)> {
    let wide = |tensor: &Tensor| tensor.to_dtype(op::wide(xs));
    let biased = match norm.bias {
        Some(bias) => wide(xs)?.broadcast_add(&wide(bias)?)?,
        None => wide(xs)?,
    };
    let sum = (wide(residual)? + op::by_uploaded_mask(&biased, draw)?)?;
    let centred = match norm.kind {
        NormKind::Rms => sum.clone(),
        _ => sum.broadcast_sub(&sum.mean_keepdim(D::Minus1)?)?,
    };
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let mut z = centred.broadcast_div(&(variance + norm.epsilon)?.sqrt()?)?;
    if let Some(weight) = norm.weight {
        z = z.broadcast_mul(&wide(weight)?)?;
    }
    if let Some(shift) = norm.shift {
        z = z.broadcast_add(&wide(shift)?)?;
    }
    Ok((z.to_dtype(xs.dtype())?, sum))
}

#[cfg(test)]
mod tests {
    use candle_core::Var;
    use sorix::kernels::{DropRate, MaskKey};

    use super::*;

    #[test]
    fn an_uploaded_mask_gives_the_same_sum_and_close_rows() -> Result<()> {
        let (shape, key) = ([6, 35], MaskKey::new(42, 7));
        let leaf = |len: usize, salt: usize| {
            let numbers: Vec<f64> = (0..len)
                .map(|i| ((i + salt) * 37 % 61) as f64 * 0.25 - 6.0)
                .collect();
            Var::from_vec(numbers, len, &Device::Cpu)
        };
        let (xs, residual) = (leaf(210, 1)?, leaf(210, 5)?);
        let rows = [leaf(35, 2)?, leaf(35, 3)?, leaf(35, 4)?];
        for options in [NormOptions::layer(1e-3), NormOptions::rms(1e-3)] {
            let norm = options.weight(&rows[0]).shift(&rows[1]).bias(&rows[2]);
            for p in [0.0, 0.4, 1.0] {
                let rate = DropRate::new(p).unwrap();
                let draw = SliceDropout::broadcast(rate, key, &shape, &shape);
                let draw = draw.map_err(Error::wrap)?;
                let (x, r) = (xs.reshape(&shape)?, residual.reshape(&shape)?);
                let uploaded = by_uploaded_mask(&x, &r, norm, &draw)?;
                let ours = dropout_add_norm(&x, &r, norm, || Ok(draw), SaveMask::Bits)?;
                let bits = |sum: &Tensor| sum.flatten_all()?.to_vec1::<f64>();
                assert_eq!(bits(&uploaded.1)?, bits(&ours.1)?, "p = {p}");
                let all = [uploaded, ours].map(|(z, sum)| -> Result<Vec<Tensor>> {
                    let gradients = ((&z * &z)? + sum)?.backward()?;
                    let leaves = [&xs, &residual, &rows[0], &rows[1], &rows[2]];
                    let gradient = |leaf: &Var| gradients.get(leaf).unwrap().clone();
                    Ok(leaves.into_iter().map(gradient).chain([z]).collect())
                });
                let [uploaded, ours] = all;
                for (a, b) in uploaded?.into_iter().zip(ours?) {
                    let error = (a - b)?.abs()?.max_all()?.to_scalar::<f64>()?;
                    assert!(error < 1e-9, "p = {p}: {error}");
                }
            }
        }
        Ok(())
    }
}
