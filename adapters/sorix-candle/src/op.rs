//! Dropout as an operation of candle's graph.

use std::sync::{Arc, OnceLock};

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, DType, Device, Error, Layout, Result, Shape, Tensor};
use sorix::adapter::{Saved, SliceDropout};
use sorix::{SaveMask, Scalar};

/// The name in candle's errors.
const NAME: &str = "sorix-dropout";

/// Drops from `xs` by one draw.
pub(crate) fn dropout(xs: &Tensor, draw: SliceDropout, save: SaveMask) -> Result<Tensor> {
    check_dtype(xs)?;
    if draw.is_identity() {
        return Ok(xs.clone());
    }
    if !xs.device().is_cpu() {
        return by_uploaded_mask(xs, &draw);
    }
    // If nobody asks for a gradient there is nothing to save a mask for.
    let save = if xs.track_op() {
        save
    } else {
        SaveMask::Replay
    };
    let call = Arc::new(Call {
        draw,
        save,
        saved: OnceLock::new(),
    });
    xs.contiguous()?.apply_op1(Forward(call))
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

/// `xs` to `ys`.
#[derive(Debug)]
struct Forward(Arc<Call>);

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
        if let Some(saved) = saved {
            // Another call of this very operation would have written the same.
            let _ = self.0.saved.set(saved);
        }
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
    let Some((begin, end)) = layout.contiguous_offsets() else {
        return Err(Error::RequiresContiguous { op: op.name() }.bt());
    };
    let out = match storage {
        CpuStorage::F32(x) => CpuStorage::F32(op.run(&x[begin..end])?),
        CpuStorage::F64(x) => CpuStorage::F64(op.run(&x[begin..end])?),
        CpuStorage::F16(x) => CpuStorage::F16(op.run(&x[begin..end])?),
        CpuStorage::BF16(x) => CpuStorage::BF16(op.run(&x[begin..end])?),
        other => return Err(Error::UnsupportedDTypeForOp(other.dtype(), op.name()).bt()),
    };
    Ok((out, layout.shape().clone()))
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
