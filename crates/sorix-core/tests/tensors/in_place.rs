//! A write between forward and backward, for every operation: backward is refused, or what it needs was
//! not written and the gradients are those without.

use crate::common::{random, values};
use sorix_core::autograd::no_grad;
use sorix_core::{
    Affine, BitMask, DType, DropRate, ErrorKind, MaskKey, Result, SaveMask, Tensor, tensor,
};

type Op = fn(&Tensor, &Tensor) -> Result<Tensor>;

fn rate() -> DropRate {
    DropRate::new(0.5).unwrap()
}

const KEY: MaskKey = MaskKey { seed: 1, offset: 2 };

/// Each operation, on matrices of positive elements.
const OPS: [(&str, Op); 49] = [
    ("add", |x, w| x.add(w)),
    ("sub", |x, w| x.sub(w)),
    ("mul", |x, w| x.mul(w)),
    ("div", |x, w| x.div(w)),
    ("matmul", |x, w| x.matmul(w)),
    ("add_scalar", |x, _| x.add_scalar(2.0)),
    ("mul_scalar", |x, _| x.mul_scalar(2.0)),
    ("div_scalar", |x, _| x.div_scalar(2.0)),
    ("neg", |x, _| x.neg()),
    ("exp", |x, _| x.exp()),
    ("log", |x, _| x.log()),
    ("sqrt", |x, _| x.sqrt()),
    ("powf", |x, _| x.powf(3.0)),
    ("tanh", |x, _| x.tanh()),
    ("sigmoid", |x, _| x.sigmoid()),
    ("relu", |x, _| x.relu()),
    ("gelu", |x, _| x.gelu()),
    ("gelu_tanh", |x, _| x.gelu_tanh()),
    ("abs", |x, _| x.abs()),
    ("clamp", |x, _| x.clamp(0.5, 1.2)),
    ("softmax", |x, _| x.softmax(-1)),
    ("log_softmax", |x, _| x.log_softmax(-1)),
    ("standardize", |x, _| x.standardize(&[-1], 1e-5)),
    ("max", |x, _| x.max()),
    ("min", |x, _| x.min()),
    ("max_over", |x, _| x.max_over(0)),
    ("var", |x, _| x.var(1)),
    ("std", |x, _| x.std(1)),
    ("logsumexp", |x, _| x.logsumexp()),
    ("sum", |x, _| x.sum()),
    ("mean", |x, _| x.mean()),
    ("sum_over", |x, _| x.sum_over(0)),
    ("mean_over", |x, _| x.mean_over(1)),
    ("slice", |x, _| x.slice(0, 1..)),
    ("transpose", |x, _| x.transpose(0, 1)),
    ("reshape", |x, _| x.reshape([4])),
    ("unsqueeze", |x, _| x.unsqueeze(1)),
    ("expand", |x, _| x.expand([3, 2, 2])),
    ("contiguous", |x, _| x.transpose(0, 1)?.contiguous()),
    ("index_select", |x, _| x.index_select(0, &[1, 1, 0])),
    ("gather_last", |x, _| x.gather_last(&[1, 0])),
    ("concat", |x, w| Tensor::concat(&[x, w], 0)),
    ("stack", |x, w| Tensor::stack(&[x, w], 0)),
    ("to_dtype", |x, _| x.to_dtype(DType::F32)),
    ("dropout, bits", |x, _| {
        x.dropout(rate(), KEY, SaveMask::Bits)
    }),
    ("dropout, replay", |x, _| {
        x.dropout(rate(), KEY, SaveMask::Replay)
    }),
    ("dropout_broadcast", |x, _| {
        x.dropout_broadcast(rate(), KEY, &[2, 1], SaveMask::Bits)
    }),
    ("dropout_affine", |x, _| {
        let affine = Affine {
            scale: 2.0,
            shift: 1.0,
            dropped: 3.0,
        };
        x.dropout_affine(rate(), KEY, &[2, 1], affine, SaveMask::Replay)
    }),
    ("apply_mask", |x, _| {
        x.apply_mask(
            BitMask::from_bools(&[true, false, true, true]),
            &[2, 2],
            3.0,
        )
    }),
];

/// What backward said, and the gradients, with a write to `written` before it.
fn step(op: Op, written: &str) -> (Result<()>, [Option<Vec<f64>>; 2]) {
    let x = tensor([[0.7, 1.1], [1.9, 0.3]]).requires_grad(true);
    let w = tensor([[1.3, 0.6], [0.9, 1.7]]).requires_grad(true);
    let y = op(&x, &w).unwrap();
    let grad = random(y.shape(), 1).to_dtype(y.dtype()).unwrap();
    let target = match written {
        "x" => Some(x.clone()),
        "a view of x" => Some(x.transpose(0, 1).unwrap().slice(0, ..1).unwrap()),
        "w" => Some(w.clone()),
        "y" => Some(y.clone()),
        "a view of y" => Some(y.reshape([y.numel()]).unwrap()),
        _ => None,
    };
    if let Some(target) = target.filter(|target| !target.is_expanded()) {
        // Of another sign, so that it shows in every gradient for which the elements matter.
        let nines = Tensor::full(target.shape(), -9.0, target.dtype()).unwrap();
        no_grad(|| target.assign(&nines)).unwrap();
    }
    let result = y.backward_with(&grad);
    (result, [&x, &w].map(|leaf| Some(values(&leaf.grad()?))))
}

#[test]
fn a_write_is_refused_where_backward_needs_what_was_written() {
    for (name, op) in OPS {
        let (result, expected) = step(op, "");
        result.unwrap();
        for written in ["x", "a view of x", "w", "y", "a view of y"] {
            match step(op, written) {
                (Ok(()), gradients) => assert_eq!(gradients, expected, "{name}, {written}"),
                (Err(error), gradients) => {
                    let noticed = matches!(error.kind(), ErrorKind::SavedTensorWritten { .. });
                    assert!(noticed, "{name}, {written}: {error}");
                    assert_eq!(gradients, [None, None], "{name}, {written}");
                }
            }
        }
    }
}
