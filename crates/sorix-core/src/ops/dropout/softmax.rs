//! Dropout of a softmax over the last axis: rows are normalised and dropped while they are in cache.

use std::sync::Arc;

use sorix_kernels::internal::fill_part;
use sorix_kernels::{BitMask, Buffers, DropRate, Element, Engine, MaskRegion};

use super::{KernelResult, Mask, SaveMask, filled};
use crate::autograd::{Function, Gradients, SavedTensor, is_recorded, record, tape_mask};
use crate::dtype::{DType, Scalar};
use crate::error::{Call, ErrorKind, Operands, Result};
use crate::ops::elementwise::try_each_part;
use crate::ops::rows::exponentials::Exponentials;
use crate::ops::rows::softmax::{gradient, softmax};
use crate::ops::stacks::{Stack, Wide, change};
use crate::storage::Buffer;
use crate::tensor::{Tensor, operands};

/// Elements of the rows that are done together, about: two tiles of the mask, so that little of one is made
/// in vain, and few enough to stay in a level 2 cache.
const TOGETHER: usize = 32 << 10;

/// What a row costs, compared with moving it to and from memory.
const COST: usize = 8;

impl Tensor {
    /// `dropout(softmax(scale * x + attn_mask))` over the last axis. The mask, if there is one, broadcasts to
    /// the shape of x, and has its dtype or the one that it is computed in; minus infinity masks an element
    /// out. At p = 0 it is the softmax.
    ///
    /// A row all of which is masked out becomes zeros, and has zeros as its gradient, as in
    /// [`softmax`](Tensor::softmax).
    ///
    /// In f32 and f64 the output is, bit for bit, that of [`mul_scalar`](Tensor::mul_scalar),
    /// [`add`](Tensor::add), `softmax` and [`dropout`](Tensor::dropout) one after another, and so is its
    /// gradient. f16 and bf16 are computed in f32 and rounded once, at the end; their gradients are f32.
    /// Saved for backward: the probabilities, or of 16-bit tensors x and `attn_mask`, which nothing has
    /// rounded; and the dropout's mask, as bits or as the key. `attn_mask` gets a gradient, too, if it
    /// requires one: the sum over what it was repeated along.
    ///
    /// Source: `BiasSoftmaxDropout` of ONNX Runtime, with the scale of `ScaledMaskedSoftmax` of Megatron-LM.
    ///
    /// # Errors
    ///
    /// If x has no axis; if `attn_mask` does not broadcast to its shape, or has another dtype; and as
    /// [`dropout`](Tensor::dropout).
    ///
    /// ```
    /// use sorix_core::{DropRate, MaskKey, SaveMask, tensor};
    ///
    /// let x = tensor([[0.0, 3.0_f64.ln()], [5.0, 7.0]]).requires_grad(true);
    /// let attn_mask = tensor([[0.0, 0.0], [f64::NEG_INFINITY; 2]]);
    /// let (none, key) = (DropRate::new(0.0)?, MaskKey::new(7, 0));
    /// let y = x.softmax_dropout(Some(&attn_mask), 1.0, none, key, SaveMask::Bits)?;
    /// let expected = [0.25, 0.75, 0.0, 0.0];
    /// assert!(y.to_vec::<f64>()?.iter().zip(expected).all(|(y, e)| (y - e).abs() < 1e-15));
    ///
    /// let half = DropRate::new(0.5)?;
    /// let y = x.softmax_dropout(None, 0.5, half, key, SaveMask::Replay)?;
    /// let apart = x.mul_scalar(0.5)?.softmax(-1)?.dropout(half, key, SaveMask::Replay)?;
    /// assert_eq!(y.to_vec::<f64>()?, apart.to_vec::<f64>()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn softmax_dropout(
        &self,
        attn_mask: Option<&Self>,
        scale: f64,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        save: SaveMask,
    ) -> Result<Self> {
        let at = at.into();
        let inputs: Vec<&Self> = [Some(self), attn_mask].into_iter().flatten().collect();
        let specs = operands(&inputs);
        let call = Call::new("softmax_dropout", Operands::Several(&specs));
        if self.ndim() == 0 {
            return Err(call.error(ErrorKind::Axis { axis: -1 }));
        }
        let dtype = self.dtype();
        let wide = dtype.arithmetic();
        if let Some(mask) = attn_mask {
            expect_additive(call, mask, self.shape(), dtype)?;
        }
        let checked = at.check_len(self.numel());
        checked.map_err(|error| call.kernel_error(error))?;
        tape_mask(rate, at, self.numel());

        let scores = Scores {
            shape: self.shape().to_vec(),
            dtype,
            scale,
            x: SavedTensor::new(self),
            attn_mask: attn_mask.map(SavedTensor::new),
            exp: Exponentials::new(call)?,
        };
        let recorded = is_recorded(&inputs);
        let drops = 0.0 < rate.p() && rate.p() < 1.0;
        let mask = if recorded && drops && save == SaveMask::Bits {
            let bits = filled(rate, at, self.numel()).map_err(|error| call.kernel_error(error))?;
            Mask::Bits(Arc::new(bits))
        } else {
            Mask::Key(rate, at)
        };
        let mut y = Buffer::for_overwrite(call, self.numel() * dtype.size())?;
        let mut kept = (recorded && wide == dtype)
            .then(|| Buffer::for_overwrite(call, self.numel() * wide.size()))
            .transpose()?;
        let masking = Masking { rate, mask };
        match wide {
            DType::F64 => {
                scores.forward::<f64>(call, self, attn_mask, &masking, &mut y, kept.as_mut())
            }
            _ => scores.forward::<f32>(call, self, attn_mask, &masking, &mut y, kept.as_mut()),
        }?;
        let y = Self::from_buffer(y, self.shape(), dtype);
        let probabilities = kept.map(|kept| Self::from_buffer(kept, self.shape(), wide));
        Ok(record(y, &inputs, || SoftmaxDropoutBackward {
            probabilities,
            masking,
            to_x: self.needs_grad(),
            to_attn_mask: attn_mask.map(|mask| (mask.needs_grad(), mask.shape().to_vec())),
            scores,
        }))
    }
}

/// An error unless a mask that is added broadcasts to this shape, and has this dtype or the one it is
/// computed in.
pub(in crate::ops) fn expect_additive(
    call: Call<'_>,
    mask: &Tensor,
    shape: &[usize],
    dtype: DType,
) -> Result<()> {
    if mask.dtype() != dtype && mask.dtype() != dtype.arithmetic() {
        let (expected, got) = (dtype, mask.dtype());
        return Err(call.error(ErrorKind::DType { expected, got }));
    }
    mask.broadcast_to(call, shape).map(drop)
}

/// A matrix at least, of this shape without copying.
pub(in crate::ops) fn as_matrices(x: &Tensor) -> Result<Tensor> {
    match x.ndim() {
        1 => x.detach().unsqueeze(0),
        _ => Ok(x.detach()),
    }
}

/// What the softmax is of.
#[derive(Debug)]
struct Scores {
    shape: Vec<usize>,
    dtype: DType,
    scale: f64,
    x: SavedTensor,
    attn_mask: Option<SavedTensor>,
    exp: Exponentials,
}

/// A rate and its mask.
#[derive(Debug)]
struct Masking {
    rate: DropRate,
    mask: Mask,
}

impl Masking {
    /// Drops elements of which the first is element `first` of the mask.
    fn drop<A: Element>(&self, first: usize, mut buffers: Buffers<'_, A>) -> KernelResult {
        let end = first + buffers.len();
        if self.rate.p() == 0.0 {
            buffers.copy();
            return Ok(());
        }
        if self.rate.p() == 1.0 {
            buffers.output().fill(A::ZERO);
            return Ok(());
        }
        let engine = Engine::active()?.sequential();
        match &self.mask {
            Mask::Bits(bits) => engine.apply(self.rate, bits.slice(first..end)?, buffers),
            &Mask::Key(rate, at) => {
                let mut bits = BitMask::try_new(buffers.len())?;
                fill_part(engine, rate, at, first, &mut bits)?;
                engine.apply(rate, &bits, buffers)
            }
        }
    }
}

/// Rows that are done together.
struct Together<'a, A> {
    /// The number of the first.
    first: usize,
    /// Forward: the output, in its dtype. Backward: nothing.
    y: &'a mut [u8],
    /// Forward: the probabilities, if they are kept. Backward: the gradient of the scores.
    rows: Option<&'a mut [A]>,
}

/// Scores as matrices.
struct Blocks<'t, A> {
    x: Box<dyn Stack<A> + 't>,
    attn_mask: Option<Box<dyn Stack<A> + 't>>,
    scale: A,
    /// Rows of a matrix, and the length of one.
    height: usize,
    length: usize,
    exp: Exponentials,
}

impl<A: Wide> Blocks<'_, A> {
    /// The softmax of row `row` of all.
    fn probabilities(&self, row: usize, out: &mut [A], room: &mut [A]) {
        let (k, row) = (row / self.height, row % self.height);
        let x = self.x.block(k, row..row + 1, 0..self.length, room);
        x.zip_row(0, out, |_, x| x * self.scale);
        if let Some(mask) = &self.attn_mask {
            let mask = mask.block(k, row..row + 1, 0..self.length, room);
            mask.zip_row(0, out, |out, x| out + x);
        }
        softmax(out, self.exp);
    }
}

impl Scores {
    fn blocks<'t, A: Wide>(&self, x: &'t Tensor, attn_mask: Option<&'t Tensor>) -> Blocks<'t, A> {
        let (height, length) = self.matrix();
        Blocks {
            x: A::stack(x.read(), x.dtype()),
            attn_mask: attn_mask.map(|mask| A::stack(mask.read(), mask.dtype())),
            scale: A::nearest(self.scale),
            height,
            length,
            exp: self.exp,
        }
    }

    /// Rows of a matrix, and the length of one.
    fn matrix(&self) -> (usize, usize) {
        match *self.shape {
            [.., height, length] => (height, length),
            [length] => (1, length),
            [] => (1, 1),
        }
    }

    fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Rows that are done together.
    fn together(&self) -> usize {
        (TOGETHER / self.matrix().1.max(1)).max(1)
    }

    /// Does rows together, on several threads if that pays.
    fn each<A: Wide>(
        &self,
        y: &mut [u8],
        rows: Option<&mut [A]>,
        f: impl Fn(&mut Together<'_, A>) -> Result<()> + Sync,
    ) -> Result<()> {
        let elements = self.together() * self.matrix().1;
        let parts = self.numel().div_ceil(elements.max(1));
        let mut rows = rows.map(|rows| rows.chunks_mut(elements.max(1)));
        let mut ys = y.chunks_mut((elements * self.dtype.size()).max(1));
        let part = |k: usize| Together {
            first: k * self.together(),
            y: ys.next().unwrap_or_default(),
            rows: rows.as_mut().and_then(Iterator::next),
        };
        let bytes = self.numel().saturating_mul(COST * size_of::<A>());
        try_each_part((0..parts).map(part), bytes, f)
    }

    fn forward<A: Wide>(
        &self,
        call: Call<'_>,
        x: &Tensor,
        attn_mask: Option<&Tensor>,
        masking: &Masking,
        y: &mut Buffer,
        kept: Option<&mut Buffer>,
    ) -> Result<()> {
        let numel = self.numel();
        let shape = &self.shape;
        let spread = |x: &Tensor| as_matrices(&x.broadcast_to(call, shape)?);
        let (x, attn_mask) = (spread(x)?, attn_mask.map(spread).transpose()?);
        let blocks = self.blocks::<A>(&x, attn_mask.as_ref());
        let length = blocks.length;
        let y = &mut y.as_mut_slice::<u8>()[..numel * self.dtype.size()];
        let kept = kept.map(|kept| &mut kept.as_mut_slice::<A>()[..numel]);
        self.each(y, kept, |part| {
            let count = part.y.len() / self.dtype.size();
            let own = if part.rows.is_some() { 0 } else { count };
            let mut memory = self.memory::<A>(call, own + length)?;
            let (room, own) = memory.as_mut_slice::<A>()[..own + length].split_at_mut(length);
            let rows = match &mut part.rows {
                Some(rows) => &mut **rows,
                None => own,
            };
            for (i, row) in rows.chunks_exact_mut(length).enumerate() {
                blocks.probabilities(part.first + i, row, room);
            }
            let first = part.first * length;
            let dropped = if self.dtype == A::DTYPE {
                let y = bytemuck::cast_slice_mut(part.y);
                Buffers::new(rows, y)
                    .map_err(Into::into)
                    .and_then(|buffers| masking.drop(first, buffers))
            } else {
                let dropped = masking.drop(first, Buffers::in_place(rows));
                A::store(rows, self.dtype, part.y);
                dropped
            };
            dropped.map_err(|error| call.kernel_error(error))
        })
    }

    fn memory<A: Wide>(&self, call: Call<'_>, elements: usize) -> Result<Buffer> {
        Buffer::for_overwrite(call, elements.saturating_mul(size_of::<A>()))
    }
}

#[derive(Debug)]
struct SoftmaxDropoutBackward {
    scores: Scores,
    /// Of 16-bit tensors they are made again.
    probabilities: Option<Tensor>,
    masking: Masking,
    to_x: bool,
    /// Whether it is wanted, and the shape.
    to_attn_mask: Option<(bool, Vec<usize>)>,
}

impl SoftmaxDropoutBackward {
    /// The gradient of the scores, times `factor`.
    fn gradient<A: Wide>(&self, call: Call<'_>, grad: &Tensor, factor: f64) -> Result<Tensor> {
        let scores = &self.scores;
        let (numel, length) = (scores.numel(), scores.matrix().1);
        let spread = |x: &Tensor| as_matrices(&x.broadcast_to(call, &scores.shape)?);
        let again = match &self.probabilities {
            Some(_) => None,
            None => {
                let mask = scores.attn_mask.as_ref();
                let mask = mask.map(|mask| spread(&mask.get(self)?)).transpose()?;
                Some((spread(&scores.x.get(self)?)?, mask))
            }
        };
        let blocks = again
            .as_ref()
            .map(|(x, mask)| scores.blocks::<A>(x, mask.as_ref()));
        let probabilities = self.probabilities.as_ref().map(Tensor::read);
        let probabilities = probabilities.as_ref().map(|p| p.contiguous::<A>());
        let grad = as_matrices(grad)?;
        let grads = A::stack(grad.read(), grad.dtype());
        let mut out = scores.memory::<A>(call, numel)?;
        let elements = &mut out.as_mut_slice::<A>()[..numel];
        scores.each(&mut [], Some(elements), |part| {
            let Some(rows) = &mut part.rows else {
                return Ok(());
            };
            let mut memory = scores.memory::<A>(call, rows.len() + length)?;
            let memory = &mut memory.as_mut_slice::<A>()[..rows.len() + length];
            let (room, dy) = memory.split_at_mut(length);
            for (i, dy) in dy.chunks_exact_mut(length).enumerate() {
                let row = part.first + i;
                let height = scores.matrix().0;
                let (k, at) = (row / height, row % height);
                let block = grads.block(k, at..at + 1, 0..length, room);
                block.zip_row(0, dy, |_, x| x);
            }
            let first = part.first * length;
            let dropped = self.masking.drop(first, Buffers::in_place(dy));
            dropped.map_err(|error| call.kernel_error(error))?;
            let factor = A::nearest(factor);
            let pairs = rows.chunks_exact_mut(length).zip(dy.chunks_exact(length));
            for (i, (row, dy)) in pairs.enumerate() {
                match (&blocks, probabilities) {
                    (Some(blocks), _) => blocks.probabilities(part.first + i, row, room),
                    (None, Some(all)) => {
                        row.copy_from_slice(&all[first + i * length..][..length]);
                    }
                    (None, None) => {}
                }
                gradient(row, dy);
                if Scalar::to_f64(factor) != 1.0 {
                    change(row, |x| x * factor);
                }
            }
            Ok(())
        })?;
        Ok(Tensor::from_buffer(out, &scores.shape, A::DTYPE))
    }
}

impl Function for SoftmaxDropoutBackward {
    fn name(&self) -> &'static str {
        "SoftmaxDropoutBackward"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        let call = Call::on(self.name(), &grad);
        // The mask's gradient is that of the scores before x was scaled.
        let of_mask = self.to_attn_mask.as_ref().filter(|(wanted, _)| *wanted);
        let factor = if of_mask.is_some() {
            1.0
        } else {
            self.scores.scale
        };
        let of_scores = match grad.dtype() {
            DType::F64 => self.gradient::<f64>(call, &grad, factor),
            _ => self.gradient::<f32>(call, &grad, factor),
        }?;
        let of_x = match of_mask {
            _ if !self.to_x => None,
            Some(_) => Some(of_scores.mul_scalar(self.scores.scale)?),
            None => Some(of_scores.clone()),
        };
        let mut gradients = vec![of_x];
        if let Some((wanted, shape)) = &self.to_attn_mask {
            let of_mask = wanted.then(|| of_scores.sum_to(self.name(), shape));
            gradients.push(of_mask.transpose()?);
        }
        Ok(gradients)
    }
}
