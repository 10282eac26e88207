//! Attention of candle's tensors with dropout, forward and backward: of the tensors of [`sorix_benches::attention`].

use anyhow::Result;
use candle_core::{D, Device, Tensor, Var};
use candle_nn::Dropout;
use candle_nn::ops::softmax;
use sorix_benches::attention::{MATRIX, P, SHAPE};
use sorix_benches::step::Step;
use sorix_candle::{AttentionOptions, DropRate, DropoutExt, MaskKey};

/// By candle's operations one after the other, with its dropout.
pub(crate) fn by_matrix() -> Result<Step> {
    let dropout = Dropout::new(P as f32);
    let scale = (SHAPE[2] as f64).sqrt().recip();
    step(move |query, key, value| {
        let scores = (query.matmul(&key.t()?)? * scale)?;
        let probabilities = dropout.forward(&softmax(&scores, D::Minus1)?, true)?;
        probabilities.matmul(value)
    })
}

/// By sorix, without the matrix.
pub(crate) fn by_sorix() -> Result<Step> {
    let options = AttentionOptions::new().dropout(DropRate::new(P)?, MaskKey::new(42, 0));
    step(move |query, key, value| query.scaled_dot_product_attention(key, value, options))
}

fn step(
    attend: impl Fn(&Tensor, &Tensor, &Tensor) -> candle_core::Result<Tensor> + Send + Sync + 'static,
) -> Result<Step> {
    let [samples, heads, width] = SHAPE;
    let of = || Var::randn(0.0_f32, 1.0, (samples, heads, MATRIX, width), &Device::Cpu);
    let (query, key, value) = (of()?, of()?, of()?);
    Ok(Box::new(move || {
        attend(&query, &key, &value)?.backward()?;
        Ok(())
    }))
}
