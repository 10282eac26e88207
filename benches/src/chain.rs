//! What fusing saves: an operation on tensors in which dropout is fused, against the operations apart, which give
//! the same. Forward, in f32, with the outputs between allocated as they are for a user.

use anyhow::Result;
use rayon::ThreadPoolBuilder;
use sorix::nn::{LayerNorm, Module};
use sorix::{Activation, DType, DropRate, MaskKey, NormOptions, SaveMask, Tensor};

use crate::case::size_label;
use crate::sample::Sampling;
use crate::step::{StepRow, compare};

/// The length of a row: of the bias, and of what is normalised.
const ROW: usize = 1024;

/// The numbers of elements.
const SIZES: [usize; 2] = [1 << 20, 1 << 24];

const KEY: MaskKey = MaskKey {
    seed: 42,
    offset: 0,
};
const SAVE: SaveMask = SaveMask::Bits;

/// What the operations read.
#[derive(Debug)]
struct Inputs {
    x: Tensor,
    other: Tensor,
    bias: Tensor,
    norm: LayerNorm,
    rate: DropRate,
}

type Operation = fn(&Inputs) -> sorix::Result<Tensor>;

/// A fused operation, and the operations apart.
struct Chain {
    name: &'static str,
    fused: Operation,
    apart: Operation,
}

const CHAINS: [Chain; 7] = [
    Chain {
        name: "dropout_add",
        fused: |i| Ok(i.x.dropout_add(&i.other, i.rate, KEY, SAVE)?),
        apart: |i| Ok(i.other.add(&i.x.dropout(i.rate, KEY, SAVE)?)?),
    },
    Chain {
        name: "bias_dropout_add",
        fused: |i| Ok(i.x.bias_dropout_add(&i.bias, &i.other, i.rate, KEY, SAVE)?),
        apart: |i| {
            let dropped = i.x.add(&i.bias)?.dropout(i.rate, KEY, SAVE)?;
            Ok(i.other.add(&dropped)?)
        },
    },
    Chain {
        name: "drop_path_add",
        fused: |i| {
            let rows = [i.x.shape()[0], 1];
            Ok(i.x.dropout_add_broadcast(&i.other, i.rate, KEY, &rows, SAVE)?)
        },
        apart: |i| {
            let rows = [i.x.shape()[0], 1];
            let dropped = i.x.dropout_broadcast(i.rate, KEY, &rows, SAVE)?;
            Ok(i.other.add(&dropped)?)
        },
    },
    Chain {
        name: "relu_dropout",
        fused: |i| Ok(i.x.act_dropout(Activation::Relu, None, i.rate, KEY, SAVE)?),
        apart: |i| Ok(i.x.relu()?.dropout(i.rate, KEY, SAVE)?),
    },
    Chain {
        name: "gelu_dropout",
        fused: |i| Ok(i.x.act_dropout(Activation::Gelu, None, i.rate, KEY, SAVE)?),
        apart: |i| Ok(i.x.gelu()?.dropout(i.rate, KEY, SAVE)?),
    },
    Chain {
        name: "swiglu_dropout",
        fused: |i| Ok(i.x.swiglu_dropout(&i.other, i.rate, KEY, SAVE)?),
        apart: |i| Ok(i.x.silu()?.mul(&i.other)?.dropout(i.rate, KEY, SAVE)?),
    },
    Chain {
        name: "dropout_add_norm",
        fused: |i| {
            let norm = NormOptions::layer(1e-5);
            Ok(i.x.dropout_add_norm(&i.other, norm, i.rate, KEY, SAVE)?.0)
        },
        apart: |i| {
            let sum = i.other.add(&i.x.dropout(i.rate, KEY, SAVE)?)?;
            i.norm.forward(&sum)
        },
    },
];

impl Chain {
    /// What a filter is held against.
    fn id(&self, elements: usize) -> String {
        format!("chain/{}/f32/{}", self.name, size_label(elements))
    }
}

fn all(filter: Option<&str>) -> impl Iterator<Item = (&'static Chain, usize)> {
    let all = SIZES
        .into_iter()
        .flat_map(|elements| CHAINS.iter().map(move |chain| (chain, elements)));
    all.filter(move |(chain, elements)| {
        filter.is_none_or(|filter| chain.id(*elements).contains(filter))
    })
}

/// Whether `filter` selects any of these rows.
#[must_use]
pub fn selected(filter: Option<&str>) -> bool {
    all(filter).next().is_some()
}

/// Measures the rows that `filter` selects on each number of threads, by the active backend.
///
/// # Errors
///
/// Those of the library.
pub fn run(sampling: Sampling, threads: &[usize], filter: Option<&str>) -> Result<Vec<StepRow>> {
    let mut rows = Vec::new();
    for &threads in threads {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build()?;
        pool.install(|| -> Result<()> {
            for (chain, elements) in all(filter) {
                let inputs = Inputs::new(elements)?;
                let run = |operation: Operation| {
                    operation(&inputs)?;
                    Ok(())
                };
                let measured = compare(sampling, || run(chain.fused), || run(chain.apart))?;
                rows.push(StepRow {
                    what: chain.id(elements),
                    threads,
                    milliseconds: measured.subject * 1e3,
                    against: "the operations apart".into(),
                    against_milliseconds: measured.copy * 1e3,
                    ratio: measured.ratio,
                });
            }
            Ok(())
        })?;
    }
    Ok(rows)
}

impl Inputs {
    fn new(elements: usize) -> sorix::Result<Self> {
        let randn = |shape: &[usize], seed| Tensor::randn(shape, DType::F32, MaskKey::new(seed, 0));
        let shape = [elements / ROW, ROW];
        Ok(Self {
            x: randn(&shape, 1)?,
            other: randn(&shape, 2)?,
            bias: randn(&[ROW], 3)?,
            norm: LayerNorm::new([ROW])?,
            rate: DropRate::new(0.1)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fused_operation_gives_what_the_operations_apart_give() {
        let inputs = Inputs::new(4 * ROW).unwrap();
        for chain in CHAINS {
            let [fused, apart] = [chain.fused, chain.apart].map(|operation| {
                let y = operation(&inputs).unwrap();
                y.to_vec::<f32>().unwrap()
            });
            for (fused, apart) in fused.into_iter().zip(apart) {
                assert!(
                    (fused - apart).abs() < 1e-5,
                    "{}: {fused}, {apart}",
                    chain.name
                );
            }
        }
    }

    #[test]
    fn a_filter_selects() {
        assert!(
            selected(None) && selected(Some("chain")) && selected(Some("gelu_dropout/f32/1Mi"))
        );
        assert_eq!(all(Some("chain/swiglu_dropout/f32/16Mi")).count(), 1);
        assert!(!selected(Some("forward")));
    }
}
