//! Attention of PyTorch's tensors, as arrays of numpy: forward and its gradients, without a graph.

use numpy::{PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use sorix::{AttentionOptions, Tensor};

use crate::array::{Input, Item, Lent, Output, with_item};
use crate::error::{Raised, Result};
use crate::fused::Draw;
use crate::threads;

/// What stands beside query, key and value.
#[derive(FromPyObject)]
pub(crate) struct Options {
    is_causal: bool,
    scale: Option<f64>,
    enable_gqa: bool,
    /// The probability, seed and offset, and the shard; 0 if nothing is dropped.
    p: f64,
    seed: i64,
    offset: i64,
    shard: Option<Vec<usize>>,
    threads: usize,
}

impl Options {
    fn draw(&self) -> Result<Draw> {
        let shard = self.shard.as_deref();
        Draw::of_torch(self.p, self.seed, self.offset, shard, self.threads)
    }

    fn attention<'t>(
        &self,
        draw: Draw,
        attn_mask: Option<&'t Tensor>,
    ) -> AttentionOptions<&'t Tensor> {
        let mut options = AttentionOptions::new()
            .is_causal(self.is_causal)
            .enable_gqa(self.enable_gqa);
        if let Some(scale) = self.scale {
            options = options.scale(scale);
        }
        if let Some(attn_mask) = attn_mask {
            options = options.attn_mask(attn_mask);
        }
        if draw.rate.p() > 0.0 {
            options = options.dropout(draw.rate, draw.at);
        }
        options
    }
}

/// A tensor of the elements of an array.
fn tensor(x: &Bound<'_, PyAny>) -> Result<Tensor> {
    let x = Input::of_torch(x.cast::<PyUntypedArray>()?)?;
    let shape = x.given.shape().to_vec();
    with_item!(x.dtype, T => {
        let lent: Lent<'_, T> = x.lend()?;
        Ok(Tensor::from_slice(lent.slice()?, shape)?)
    })
}

/// Writes a tensor of as many elements to an array.
fn write(x: &Tensor, out: &Bound<'_, PyAny>) -> Result<()> {
    let dtype = Input::of_torch(out.cast()?)?.dtype;
    let (x, out) = (x.to_dtype(dtype)?, Output::alone(out)?);
    with_item!(dtype, T => copy::<T>(&x, &out))
}

fn copy<T: Item>(x: &Tensor, out: &Output<'_>) -> Result<()> {
    let mut out = out.lend::<T>()?;
    let out = out.slice()?;
    let x = x.to_vec::<T>()?;
    if x.len() != out.len() {
        let (expected, got) = (x.len(), out.len());
        return Err(Raised::value(format!(
            "out: expected {expected} elements, got {got}"
        )));
    }
    out.copy_from_slice(&x);
    Ok(())
}

/// What a copy would move in the time that this takes, about.
fn bytes([query, key, value]: &[Tensor; 3]) -> usize {
    let keys = key.shape().iter().rev().nth(1).copied().unwrap_or(0);
    let widths = [query, value].map(|x| x.shape().last().copied().unwrap_or(0));
    let products = query.numel().saturating_mul(keys);
    products / widths[0].max(1) * (widths[0] + widths[1])
}

/// The result to `out`, and to `logsumexp` for each query the logarithm of the sum of the exponentials of its scores.
#[pyfunction]
pub(crate) fn _attention(
    inputs: [Bound<'_, PyAny>; 3],
    attn_mask: Option<&Bound<'_, PyAny>>,
    options: Options,
    out: &Bound<'_, PyAny>,
    logsumexp: &Bound<'_, PyAny>,
) -> Result<()> {
    let py = out.py();
    let draw = options.draw()?;
    let [query, key, value] = inputs.each_ref().map(tensor);
    let inputs = [query?, key?, value?];
    let attn_mask = attn_mask.map(tensor).transpose()?;
    let attention = options.attention(draw, attn_mask.as_ref());
    let work = || attention.forward(&inputs[0], &inputs[1], &inputs[2]);
    let (y, sums) = threads::kernel(py, bytes(&inputs), draw.threads, work)?;
    write(&y, out)?;
    write(&sums, logsumexp)
}

/// The gradients of query, key, value and mask, to the arrays for which there are some. The output is that of
/// [`_attention`] in the dtype that is computed in.
#[pyfunction]
pub(crate) fn _attention_gradients(
    inputs: [Bound<'_, PyAny>; 3],
    attn_mask: Option<&Bound<'_, PyAny>>,
    options: Options,
    result: [Bound<'_, PyAny>; 3],
    gradients: [Option<Bound<'_, PyAny>>; 4],
) -> Result<()> {
    let py = result[0].py();
    let draw = options.draw()?;
    let [query, key, value] = inputs.each_ref().map(tensor);
    let inputs = [query?, key?, value?];
    let [output, logsumexp, grad] = result.each_ref().map(tensor);
    let (output, logsumexp, grad) = (output?, logsumexp?, grad?);
    let attn_mask = attn_mask.map(tensor).transpose()?;
    let attention = options.attention(draw, attn_mask.as_ref());
    let wanted = gradients.each_ref().map(Option::is_some);
    let work = || attention.backward(inputs.each_ref(), &output, &logsumexp, &grad, wanted);
    let made = threads::kernel(py, bytes(&inputs), draw.threads, work)?;
    for (made, out) in made.iter().zip(&gradients) {
        if let (Some(made), Some(out)) = (made, out) {
            write(made, out)?;
        }
    }
    Ok(())
}
