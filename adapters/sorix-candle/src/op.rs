//! Dropout as an operation of candle's graph.

use core::ops::Range;
use std::sync::{Arc, OnceLock};

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, DType, Device, Error, Layout, Result, Shape, Tensor,
};
use sorix::adapter::{Saved, SliceDropout};
use sorix::{SaveMask, Scalar};

/// The name in candle's errors.
const NAME: &str = "sorix-dropout";
const NAME_OF_ADD: &str = "sorix-dropout-add";

/// Drops from `xs` by one draw.
pub(crate) fn dropout(xs: &Tensor, draw: SliceDropout, save: SaveMask) -> Result<Tensor> {
    check_dtype(xs)?;
    if draw.is_identity() {
        return Ok(xs.clone());
    }
    if !xs.device().is_cpu() {
        return by_uploaded_mask(xs, &draw);
    }
    let call = Call::new(xs, draw, save);
    xs.contiguous()?.apply_op1(Forward(call))
}

/// Drops from `xs` by one draw and adds a residual.
pub(crate) fn dropout_add(
    xs: &Tensor,
    residual: &Tensor,
    draw: SliceDropout,
    save: SaveMask,
) -> Result<Tensor> {
    check_residual(xs, residual)?;
    if !xs.device().is_cpu() {
        return residual + dropout(xs, draw, save)?;
    }
    let call = Call::new(xs, draw, save);
    xs.contiguous()?
        .apply_op2(&residual.contiguous()?, ForwardAdd(call))
}

/// Whether the kernels have the dtype, and the residual is as `xs` in all that counts.
pub(crate) fn check_residual(xs: &Tensor, residual: &Tensor) -> Result<()> {
    check_dtype(xs)?;
    let op = NAME_OF_ADD;
    if xs.dims() != residual.dims() {
        let (lhs, rhs) = (xs.shape().clone(), residual.shape().clone());
        return Err(Error::ShapeMismatchBinaryOp { lhs, rhs, op }.bt());
    }
    if xs.dtype() != residual.dtype() {
        let (lhs, rhs) = (xs.dtype(), residual.dtype());
        return Err(Error::DTypeMismatchBinaryOp { lhs, rhs, op }.bt());
    }
    if !xs.device().same_device(residual.device()) {
        let (lhs, rhs) = (xs.device().location(), residual.device().location());
        return Err(Error::DeviceMismatchBinaryOp { lhs, rhs, op }.bt());
    }
    Ok(())
}

/// Whether the kernels have the dtype; on other devices no more is taken.
pub(crate) fn check_dtype(xs: &Tensor) -> Result<()> {
    dtype_of(xs).map(drop)
}

/// sorix' name of the dtype.
fn dtype_of(xs: &Tensor) -> Result<sorix::DType> {
    match xs.dtype() {
        DType::F16 => Ok(sorix::DType::F16),
        DType::BF16 => Ok(sorix::DType::BF16),
        DType::F32 => Ok(sorix::DType::F32),
        DType::F64 => Ok(sorix::DType::F64),
        other => Err(Error::UnsupportedDTypeForOp(other, NAME).bt()),
    }
}

/// By candle's own operations, on any device: the mask comes from the CPU.
fn by_uploaded_mask(xs: &Tensor, draw: &SliceDropout) -> Result<Tensor> {
    let device = xs.device();
    // The product is rounded once, so a half is widened before.
    let wide = match xs.dtype() {
        DType::F64 => DType::F64,
        _ => DType::F32,
    };
    let number = |value: f64| {
        Tensor::new(value, &Device::Cpu)?
            .to_dtype(wide)?
            .to_device(device)
    };
    let Some(affine) = draw.affine() else {
        let noise = draw.noise(dtype_of(xs)?).map_err(Error::wrap)?;
        let noise = noise
            .to_dtype(sorix::DType::F64)
            .and_then(sorix::Tensor::into_vec::<f64>);
        let noise = Tensor::from_vec(noise.map_err(Error::wrap)?, xs.shape(), &Device::Cpu)?;
        let noise = noise.to_dtype(wide)?.to_device(device)?;
        return (xs.to_dtype(wide)? * noise)?.to_dtype(xs.dtype());
    };
    let keep: Vec<u8> = draw
        .mask()
        .map_err(Error::wrap)?
        .iter()
        .map(u8::from)
        .collect();
    let keep = Tensor::from_vec(keep, draw.mask_shape(), device)?.broadcast_as(xs.shape())?;
    let mut kept = xs.to_dtype(wide)?.broadcast_mul(&number(affine.scale)?)?;
    if affine.shift != 0.0 {
        kept = kept.broadcast_add(&number(affine.shift)?)?;
    }
    let dropped = number(affine.dropped)?.broadcast_as(xs.shape())?;
    keep.where_cond(&kept, &dropped)?.to_dtype(xs.dtype())
}

/// What forward and backward share.
#[derive(Debug)]
struct Call {
    draw: SliceDropout,
    save: SaveMask,
    /// Written by forward, if it saves anything.
    saved: OnceLock<Saved>,
}

impl Call {
    fn new(xs: &Tensor, draw: SliceDropout, save: SaveMask) -> Arc<Self> {
        // If nobody asks for a gradient there is nothing to save a mask for.
        let save = if xs.track_op() {
            save
        } else {
            SaveMask::Replay
        };
        Arc::new(Self {
            draw,
            save,
            saved: OnceLock::new(),
        })
    }

    fn keep(&self, saved: Option<Saved>) {
        if let Some(saved) = saved {
            // Another call of this very operation would have written the same.
            let _ = self.saved.set(saved);
        }
    }
}

/// `xs` to `ys`.
#[derive(Debug)]
struct Forward(Arc<Call>);

/// `xs` and a residual to the residual plus `ys`.
#[derive(Debug)]
struct ForwardAdd(Arc<Call>);

/// The gradient of `ys` to that of `xs`.
#[derive(Debug)]
struct Backward(Arc<Call>);

impl CustomOp1 for Forward {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        on_elements(storage, layout, self)
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        backward(&self.0, gradient)
    }
}

impl CustomOp1 for Backward {
    fn name(&self) -> &'static str {
        "sorix-dropout-backward"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        on_elements(storage, layout, self)
    }

    // It is linear, so its gradient is itself; for those who keep the graph of gradients.
    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        backward(&self.0, gradient)
    }
}

impl CustomOp2 for ForwardAdd {
    fn name(&self) -> &'static str {
        NAME_OF_ADD
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        xs_layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        use CpuStorage::{BF16, F16, F32, F64};
        let (of_xs, of_residual) = (
            range(xs_layout, NAME_OF_ADD)?,
            range(residual_layout, NAME_OF_ADD)?,
        );
        let sum = match (xs, residual) {
            (F32(x), F32(r)) => F32(self.run(&x[of_xs], &r[of_residual])?),
            (F64(x), F64(r)) => F64(self.run(&x[of_xs], &r[of_residual])?),
            (F16(x), F16(r)) => F16(self.run(&x[of_xs], &r[of_residual])?),
            (BF16(x), BF16(r)) => BF16(self.run(&x[of_xs], &r[of_residual])?),
            _ => return Err(Error::UnsupportedDTypeForOp(xs.dtype(), NAME_OF_ADD).bt()),
        };
        Ok((sum, xs_layout.shape().clone()))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        residual: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let of_xs = if xs.track_op() {
            backward(&self.0, gradient)?
        } else {
            None
        };
        Ok((of_xs, residual.track_op().then(|| gradient.clone())))
    }
}

impl ForwardAdd {
    fn run<T: Scalar>(&self, xs: &[T], residual: &[T]) -> Result<Vec<T>> {
        let added = self.0.draw.forward_add(xs, residual, self.0.save);
        let (sum, saved) = added.map_err(Error::wrap)?;
        self.0.keep(saved);
        Ok(sum)
    }
}

fn backward(call: &Arc<Call>, gradient: &Tensor) -> Result<Option<Tensor>> {
    let gradient = gradient.contiguous()?;
    gradient.apply_op1(Backward(call.clone())).map(Some)
}

/// What an operation makes of the elements, whatever their type.
trait OnElements: CustomOp1 {
    fn run<T: Scalar>(&self, elements: &[T]) -> Result<Vec<T>>;
}

impl OnElements for Forward {
    fn run<T: Scalar>(&self, xs: &[T]) -> Result<Vec<T>> {
        let (ys, saved) = self.0.draw.forward(xs, self.0.save).map_err(Error::wrap)?;
        self.0.keep(saved);
        Ok(ys)
    }
}

impl OnElements for Backward {
    fn run<T: Scalar>(&self, gradient: &[T]) -> Result<Vec<T>> {
        let saved = self.0.saved.get();
        self.0.draw.backward(saved, gradient).map_err(Error::wrap)
    }
}

fn on_elements(
    storage: &CpuStorage,
    layout: &Layout,
    op: &impl OnElements,
) -> Result<(CpuStorage, Shape)> {
    let elements = range(layout, op.name())?;
    let out = match storage {
        CpuStorage::F32(x) => CpuStorage::F32(op.run(&x[elements])?),
        CpuStorage::F64(x) => CpuStorage::F64(op.run(&x[elements])?),
        CpuStorage::F16(x) => CpuStorage::F16(op.run(&x[elements])?),
        CpuStorage::BF16(x) => CpuStorage::BF16(op.run(&x[elements])?),
        other => return Err(Error::UnsupportedDTypeForOp(other.dtype(), op.name()).bt()),
    };
    Ok((out, layout.shape().clone()))
}

/// Where in its storage a tensor's elements lie one after another.
fn range(layout: &Layout, op: &'static str) -> Result<Range<usize>> {
    match layout.contiguous_offsets() {
        Some((begin, end)) => Ok(begin..end),
        None => Err(Error::RequiresContiguous { op }.bt()),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;
    use sorix::kernels::{DropRate, MaskKey};
    use sorix::nn::dropout::{Alpha, Channels, Elements, Gaussian};

    use super::*;

    /// What is uploaded to another device gives what the operation of the CPU gives, bit for bit.
    #[test]
    fn an_uploaded_mask_drops_the_same_elements() -> Result<()> {
        let shape = [3, 5, 70];
        for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
            let xs = Tensor::arange(0f32, 1050f32, &Device::Cpu)?.reshape(&shape)?;
            let xs = Var::from_tensor(&((xs * 0.25)? - 100.0)?.to_dtype(dtype)?)?;
            for p in [0.1, 0.5, 1.0] {
                let (rate, key) = (DropRate::new(p).unwrap(), MaskKey::new(42, 7));
                let draws = [
                    SliceDropout::new(&Elements, rate, key, &shape),
                    SliceDropout::new(&Channels::<1>::default(), rate, key, &shape),
                    SliceDropout::new(&Alpha, rate, key, &shape),
                    SliceDropout::new(&Gaussian, rate, key, &shape),
                ];
                for draw in draws {
                    let draw = draw.map_err(Error::wrap)?;
                    let uploaded = by_uploaded_mask(&xs, &draw)?;
                    let ours = dropout(&xs, draw, SaveMask::Bits)?;
                    let both = [&uploaded, &ours].map(|ys| -> Result<_> {
                        let gradient = ys.backward()?.remove(&xs).unwrap();
                        assert_eq!((ys.dtype(), gradient.dtype()), (dtype, dtype));
                        Ok([ys, &gradient].map(bits))
                    });
                    let [uploaded, ours] = both;
                    assert_eq!(uploaded?, ours?, "{dtype:?} p = {p}");
                }
            }
        }
        Ok(())
    }

    fn bits(tensor: &Tensor) -> Vec<u64> {
        let numbers = tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
        let numbers = numbers.to_vec1::<f64>().unwrap();
        numbers.into_iter().map(f64::to_bits).collect()
    }
}
