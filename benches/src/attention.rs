//! Softmax and attention with dropout, against the same code without it, and attention against the operations
//! apart, which hold the matrix, and against that of other libraries. On tensors, in f32; with the backward pass:
//! forward and backward. And a training step of the layer that attention stands in, with dropout and without.

use std::cell::RefCell;

use anyhow::Result;
use rayon::ThreadPoolBuilder;
use sorix::nn::{AttentionMasks, Module, Optimizer, Sgd, TransformerEncoderLayer};
use sorix::{
    AttentionOptions, DType, DropRate, Generator, MaskKey, SaveMask, Tensor, TensorResult,
};

use crate::case::size_label;
use crate::peers::MakeStep;
use crate::sample::{Measured, Sampling};
use crate::step::{LEARNING_RATE, StepRow, compare};

/// Samples, heads, and the width of a head.
pub const SHAPE: [usize; 3] = [2, 8, 64];

/// Lengths of queries and keys.
const LENGTHS: [usize; 3] = [256, 1024, 4096];

/// The length up to which the matrix is made, and that of other libraries' attention.
pub const MATRIX: usize = 1024;

/// Samples, tokens and their width, heads, and the width of the network in the layer.
const LAYER: [usize; 5] = [8, 256, 512, 8, 2048];

/// Numbers of elements of which a softmax is taken, in rows of [`ROW`].
const SIZES: [usize; 3] = [1 << 16, 1 << 20, 1 << 24];
const ROW: usize = 1024;

/// The drop probability.
pub const P: f64 = 0.1;
const KEY: MaskKey = MaskKey {
    seed: 42,
    offset: 0,
};

/// A row.
#[derive(Clone, Copy, Debug)]
enum Case {
    /// Of so many elements, against the softmax alone.
    Softmax(usize),
    /// Of so many queries and keys.
    Attention {
        length: usize,
        backward: bool,
        /// Against the operations apart, and not against itself without dropout.
        apart: bool,
    },
    /// A training step of a layer.
    Layer,
}

impl Case {
    fn all(filter: Option<&str>) -> impl Iterator<Item = Self> {
        let softmax = SIZES.into_iter().map(Self::Softmax);
        let attention = [false, true].into_iter().flat_map(|backward| {
            LENGTHS.into_iter().flat_map(move |length| {
                let both = [false, true].into_iter();
                both.filter(move |apart| !apart || length <= MATRIX)
                    .map(move |apart| Self::Attention {
                        length,
                        backward,
                        apart,
                    })
            })
        });
        let all = softmax.chain(attention).chain([Self::Layer]);
        all.filter(move |case| filter.is_none_or(|filter| case.id().contains(filter)))
    }

    /// What a filter is held against.
    fn id(self) -> String {
        match self {
            Self::Softmax(elements) => format!("softmax_dropout/f32/{}", size_label(elements)),
            Self::Attention {
                length,
                backward,
                apart,
            } => format!(
                "attention{}/f32/{length}{}",
                if backward { "_backward" } else { "" },
                if apart { "/apart" } else { "" }
            ),
            Self::Layer => {
                let [samples, tokens, width, ..] = LAYER;
                format!("transformer_step/f32/{samples}x{tokens}x{width}")
            }
        }
    }

    fn against(self) -> &'static str {
        match self {
            Self::Attention { apart: true, .. } => "the operations apart",
            _ => "without dropout",
        }
    }
}

/// Whether `filter` selects any of these rows.
#[must_use]
pub fn selected(filter: Option<&str>) -> bool {
    Case::all(filter).next().is_some()
}

/// Measures the rows that `filter` selects on each number of threads, by the active backend; with those of `peers`, each
/// of which has a name, as in [`step`](crate::step), and is compared with sorix's own.
///
/// # Errors
///
/// Those of the libraries.
pub fn run(
    sampling: Sampling,
    threads: &[usize],
    filter: Option<&str>,
    peers: &[(&str, MakeStep)],
) -> Result<Vec<StepRow>> {
    let mut rows = Vec::new();
    for &threads in threads {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build()?;
        pool.install(|| -> Result<()> {
            let mut add = |what: String, against: &str, measured: Measured| {
                rows.push(StepRow {
                    what,
                    threads,
                    milliseconds: measured.subject * 1e3,
                    against: against.into(),
                    against_milliseconds: measured.copy * 1e3,
                    ratio: measured.ratio,
                });
            };
            for case in Case::all(filter) {
                let [subject, other] = calls(case)?;
                let measured = compare(sampling, subject, other)?;
                add(case.id(), case.against(), measured);
            }
            let own = Case::Attention {
                length: MATRIX,
                backward: true,
                apart: false,
            };
            for (name, make) in peers {
                let id = format!("{}/{name}", own.id());
                if filter.is_none_or(|filter| id.contains(filter)) {
                    let [ours, _] = calls(own)?;
                    let measured = compare(sampling, make()?, ours)?;
                    add(id, "sorix's own", measured);
                }
            }
            Ok(())
        })?;
    }
    Ok(rows)
}

type Call = Box<dyn Fn() -> Result<()>>;

/// What is measured, and what it is compared with.
fn calls(case: Case) -> Result<[Call; 2]> {
    let randn = |shape: &[usize], seed| Tensor::randn(shape, DType::F32, MaskKey::new(seed, 0));
    match case {
        Case::Softmax(elements) => {
            let x = randn(&[elements / ROW, ROW], 1)?;
            let at = |p: f64| -> Result<Call> {
                let (x, rate) = (x.clone(), DropRate::new(p)?);
                Ok(Box::new(move || {
                    x.softmax_dropout(None, 1.0, rate, KEY, SaveMask::Replay)?;
                    Ok(())
                }))
            };
            Ok([at(P)?, at(0.0)?])
        }
        Case::Layer => Ok([layer_step(P)?, layer_step(0.0)?]),
        Case::Attention {
            length,
            backward,
            apart,
        } => {
            let [samples, heads, width] = SHAPE;
            let of = |seed| randn(&[samples, heads, length, width], seed);
            let inputs = [of(1)?, of(2)?, of(3)?];
            let call = |attend: Attend, p: f64| -> Result<Call> {
                let inputs = inputs.each_ref().map(|x| x.requires_grad(backward));
                let rate = DropRate::new(p)?;
                let gradient = Tensor::ones(inputs[0].shape(), DType::F32)?;
                Ok(Box::new(move || {
                    let y = attend(&inputs, rate)?;
                    if backward {
                        inputs.iter().for_each(Tensor::zero_grad);
                        y.backward_with(&gradient)?;
                    }
                    Ok(())
                }))
            };
            let other = if apart {
                call(by_matrix, P)?
            } else {
                call(fused, 0.0)?
            };
            Ok([call(fused, P)?, other])
        }
    }
}

/// A training step of the layer with this drop probability.
fn layer_step(p: f64) -> Result<Call> {
    let [samples, tokens, width, heads, within] = LAYER;
    let layer = TransformerEncoderLayer::new(width, heads, within, p, &Generator::new(42))?;
    let optimizer = RefCell::new(Sgd::new(layer.named_parameters(), LEARNING_RATE)?);
    let x = Tensor::randn([samples, tokens, width], DType::F32, MaskKey::new(1, 0))?;
    Ok(Box::new(move || {
        let mut optimizer = optimizer.borrow_mut();
        optimizer.zero_grad();
        layer
            .encode(&x, AttentionMasks::new())?
            .mean()?
            .backward()?;
        Ok(optimizer.step()?)
    }))
}

type Attend = fn(&[Tensor; 3], DropRate) -> TensorResult<Tensor>;

fn fused([query, key, value]: &[Tensor; 3], rate: DropRate) -> TensorResult<Tensor> {
    let options = AttentionOptions::new().dropout(rate, KEY);
    query.scaled_dot_product_attention(key, value, options)
}

fn by_matrix([query, key, value]: &[Tensor; 3], rate: DropRate) -> TensorResult<Tensor> {
    let scale = (SHAPE[2] as f64).sqrt().recip();
    let scores = query.matmul(&key.transpose(-1, -2)?)?.mul_scalar(scale)?;
    let dropped = scores.softmax(-1)?.dropout(rate, KEY, SaveMask::Bits)?;
    dropped.matmul(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_gives_what_the_operations_apart_give() {
        let of = |seed| Tensor::randn([1, 2, 40, SHAPE[2]], DType::F32, MaskKey::new(seed, 0));
        let inputs = [1, 2, 3].map(|seed| of(seed).unwrap());
        let rate = DropRate::new(P).unwrap();
        let values = |attend: Attend| attend(&inputs, rate).unwrap().to_vec::<f32>().unwrap();
        for (a, b) in values(fused).into_iter().zip(values(by_matrix)) {
            assert!((a - b).abs() < 1e-5, "{a}, {b}");
        }
    }

    #[test]
    fn a_filter_selects() {
        assert!(selected(None) && selected(Some("softmax_dropout/f32/1Mi")));
        assert_eq!(Case::all(Some("attention/f32")).count(), 5);
        assert_eq!(
            Case::all(Some("attention_backward/f32/1024/apart")).count(),
            1
        );
        assert_eq!(Case::all(Some("step")).count(), 1);
        assert!(!selected(Some("forward")));
    }

    #[test]
    fn a_step_of_the_layer_can_be_taken() {
        let step = layer_step(P).unwrap();
        step().unwrap();
    }
}
