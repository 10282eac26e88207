//! Every operation's gradient against finite differences, in f64, on random shapes and layouts.
//!
//! A new operation is one line of a table.

use crate::common::check_gradients;
use proptest::prelude::*;
use sorix_core::{
    Activation, Affine, AttentionOptions, Axes, BitMask, DropRate, MaskKey, NormOptions, Result,
    SaveMask, Tensor, tensor,
};

/// Which numbers an operation is differentiable at.
#[derive(Clone, Copy, Debug)]
enum Domain {
    /// Any, in -2 to 2, none nearer to a whole number than the step of the differences.
    Real,
    /// From 1/4 to 17/4.
    Positive,
    /// From -17/4 to -1/4.
    Negative,
}
use Domain::{Negative, Positive, Real};

/// The name, the least number of axes, the numbers, the operation.
type Unary = (&'static str, usize, Domain, fn(&Tensor) -> Result<Tensor>);

/// The name, the numbers of the second tensor, the operation.
type Binary = (&'static str, Domain, fn(&Tensor, &Tensor) -> Result<Tensor>);

/// Operations of one tensor.
const UNARY: &[Unary] = &[
    ("neg", 0, Real, Tensor::neg),
    ("exp", 0, Real, Tensor::exp),
    ("log", 0, Positive, Tensor::log),
    ("sqrt", 0, Positive, Tensor::sqrt),
    ("powf(3)", 0, Real, |x| x.powf(3.0)),
    ("powf(-1.5)", 0, Positive, |x| x.powf(-1.5)),
    ("powf(0)", 0, Real, |x| x.powf(0.0)),
    ("tanh", 0, Real, Tensor::tanh),
    ("sigmoid", 0, Real, Tensor::sigmoid),
    ("relu", 0, Real, Tensor::relu),
    ("gelu", 0, Real, Tensor::gelu),
    ("gelu_tanh", 0, Real, Tensor::gelu_tanh),
    ("abs", 0, Real, Tensor::abs),
    ("log1p", 0, Positive, Tensor::log1p),
    ("expm1", 0, Real, Tensor::expm1),
    ("softplus", 0, Real, Tensor::softplus),
    ("selu", 0, Real, Tensor::selu),
    ("rsub_scalar", 0, Real, |x| x.rsub_scalar(0.3)),
    ("rdiv_scalar", 0, Positive, |x| x.rdiv_scalar(0.3)),
    ("copy", 0, Real, Tensor::copy),
    ("tril", 2, Real, |x| x.tril(-1)),
    ("masked_fill", 0, Real, |x| {
        x.masked_fill(&x.gt(&tensor(0.7))?, 0.3)
    }),
    ("reshape_infer", 0, Real, |x| {
        never_empty(x)?.reshape_infer([1, -1, 1])
    }),
    ("clamp", 0, Real, |x| x.clamp(-1.0, 1.0)),
    ("add_scalar", 0, Real, |x| x.add_scalar(0.3)),
    ("mul_scalar", 0, Real, |x| x.mul_scalar(0.3)),
    ("div_scalar", 0, Real, |x| x.div_scalar(0.3)),
    ("contiguous", 0, Real, Tensor::contiguous),
    ("reshape", 0, Real, |x| x.reshape([x.numel(), 1])),
    ("transpose", 2, Real, |x| x.transpose(0, -1)),
    ("expand", 0, Real, |x| x.expand([&[2], x.shape()].concat())),
    ("slice", 1, Real, |x| x.slice(0, x.shape()[0] / 3..)),
    ("slice_step", 1, Real, |x| x.slice_step(-1, .., 2)),
    ("slice of a slice", 2, Real, |x| {
        x.slice(1, x.shape()[1] / 2..)?.slice_step(0, .., 2)
    }),
    ("squeeze", 0, Real, |x| x.unsqueeze(0)?.squeeze(0)),
    ("squeeze_all", 0, Real, Tensor::squeeze_all),
    ("unsqueeze", 0, Real, |x| x.unsqueeze(-1)),
    ("flatten", 0, Real, |x| x.flatten(0, -1)),
    ("flatten a view", 2, Real, |x| {
        x.slice_step(1, .., 2)?.flatten(0, 1)
    }),
    ("concat", 1, Real, |x| {
        Tensor::concat(&[x, &x.slice(0, x.shape()[0] / 2..)?, x], 0)
    }),
    ("concat along the last axis", 1, Real, |x| {
        Tensor::concat(&[x, &x.slice(-1, x.shape()[x.ndim() - 1] / 2..)?, x], -1)
    }),
    ("stack", 0, Real, |x| Tensor::stack(&[x, x], -1)),
    ("index_select", 1, Real, |x| {
        let last = x.shape()[0].saturating_sub(1);
        let indices = [last, 0, last];
        x.index_select(0, &indices[..3 * x.shape()[0].min(1)])
    }),
    ("index_select along the last axis", 1, Real, |x| {
        let length = x.shape()[x.ndim() - 1];
        let last = length.saturating_sub(1);
        x.index_select(-1, &[last, 0, last][..3 * length.min(1)])
    }),
    ("sum", 0, Real, Tensor::sum),
    ("sum_over", 1, Real, |x| x.sum_over(-1)),
    ("mean_over keepdim", 1, Real, |x| {
        x.mean_over(Axes::keepdim(0))
    }),
    ("max_over", 1, Real, |x| {
        distinct(x)?.unsqueeze(0)?.max_over(0)
    }),
    ("max", 0, Real, |x| never_empty(&distinct(x)?)?.max()),
    ("min", 0, Real, |x| never_empty(&distinct(x)?)?.min()),
    ("min_over keepdim", 1, Real, |x| {
        distinct(&never_constant(x)?)?.min_over(Axes::keepdim(0))
    }),
    ("var_over", 1, Real, |x| never_constant(x)?.var_over(0, 1)),
    ("std_over", 1, Real, |x| never_constant(x)?.std_over(0, 0)),
    ("standardize", 1, Real, |x| {
        never_constant(x)?.standardize(&[0], 0.1)
    }),
    ("logsumexp_over", 1, Real, |x| {
        never_constant(x)?.logsumexp_over(0)
    }),
    ("norm_over", 1, Real, |x| never_constant(x)?.norm_over(0)),
    ("normalize", 1, Real, |x| {
        never_constant(x)?.normalize(&[0], 1e-3)
    }),
    ("softmax", 1, Real, |x| x.softmax(-1)),
    ("log_softmax", 1, Real, |x| x.log_softmax(0)),
    ("gather_last", 1, Real, |x| {
        let rows = x.unsqueeze(-1)?;
        let rows = Tensor::concat(&[&rows, &rows.mul_scalar(2.0)?], -1)?;
        let indices: Vec<usize> = (0..x.numel()).map(|i| i % 2).collect();
        rows.gather_last(&indices)
    }),
    ("matmul", 2, Real, |x| x.matmul(&x.transpose(-1, -2)?)),
    ("dropout", 0, Real, |x| {
        x.dropout(rate(), KEY, SaveMask::Bits)
    }),
    ("dropout, replayed", 0, Real, |x| {
        x.dropout(rate(), KEY, SaveMask::Replay)
    }),
    ("softmax_dropout", 1, Real, |x| {
        let mask = sum_of_rows(x)?;
        x.softmax_dropout(Some(&mask), 0.3, rate(), KEY, SaveMask::Bits)
    }),
    ("softmax_dropout, replayed", 1, Real, |x| {
        x.softmax_dropout(None, 0.3, rate(), KEY, SaveMask::Replay)
    }),
    ("scaled_dot_product_attention", 2, Real, |x| {
        let options = AttentionOptions::new().dropout(rate(), KEY);
        x.scaled_dot_product_attention(&x.exp()?, x, options.is_causal(true))
    }),
    ("dropout_add", 0, Real, |x| {
        x.dropout_add(&x.exp()?, rate(), KEY, SaveMask::Bits)
    }),
    ("dropout_add, replayed", 0, Real, |x| {
        x.exp()?.dropout_add(x, rate(), KEY, SaveMask::Replay)
    }),
    ("bias_dropout_add", 1, Real, |x| {
        let (bias, residual) = (sum_of_rows(x)?, x.exp()?);
        x.bias_dropout_add(&bias, &residual, rate(), KEY, SaveMask::Bits)
    }),
    ("bias_dropout_add, replayed", 1, Real, |x| {
        let bias = sum_of_rows(x)?;
        x.bias_dropout_add(&bias, x, rate(), KEY, SaveMask::Replay)
    }),
    ("dropout_add_broadcast", 1, Real, |x| {
        let residual = x.exp()?;
        x.dropout_add_broadcast(&residual, rate(), KEY, &one_last(x), SaveMask::Bits)
    }),
    ("dropout_add_broadcast, replayed", 1, Real, |x| {
        x.exp()?
            .dropout_add_broadcast(x, rate(), KEY, &one_last(x), SaveMask::Replay)
    }),
    ("act_dropout relu", 0, Real, |x| {
        x.act_dropout(Activation::Relu, None, rate(), KEY, SaveMask::Bits)
    }),
    ("act_dropout relu with a bias", 1, Real, |x| {
        // No sum is nearer to 0 than the step of the differences.
        let bias = sum_of_rows(&x.mul_scalar(1e-3)?)?;
        x.act_dropout(Activation::Relu, Some(&bias), rate(), KEY, SaveMask::Bits)
    }),
    ("act_dropout gelu with a bias", 1, Real, |x| {
        let (gelu, bias) = (Activation::Gelu, sum_of_rows(x)?);
        x.act_dropout(gelu, Some(&bias), rate(), KEY, SaveMask::Bits)
    }),
    ("act_dropout gelu_tanh, replayed", 0, Real, |x| {
        x.act_dropout(Activation::GeluTanh, None, rate(), KEY, SaveMask::Replay)
    }),
    ("act_dropout silu", 0, Real, |x| {
        x.act_dropout(Activation::Silu, None, rate(), KEY, SaveMask::Bits)
    }),
    ("silu", 0, Real, Tensor::silu),
    ("swiglu_dropout", 0, Real, |x| {
        x.swiglu_dropout(&x.exp()?, rate(), KEY, SaveMask::Bits)
    }),
    ("swiglu_dropout, replayed", 0, Real, |x| {
        x.exp()?.swiglu_dropout(x, rate(), KEY, SaveMask::Replay)
    }),
    ("dropout_add_norm", 1, Real, |x| {
        let norm = NormOptions::layer(0.1);
        let (z, sum) = x.dropout_add_norm(&x.exp()?, norm, rate(), KEY, SaveMask::Bits)?;
        z.add(&sum)
    }),
    ("dropout_add_norm, RMS, replayed", 1, Real, |x| {
        let norm = NormOptions::rms(0.1);
        let norm = norm.weight(x).shift(x).bias(x).axes(x.ndim());
        let exp = x.exp()?;
        Ok(exp
            .dropout_add_norm(x, norm, rate(), KEY, SaveMask::Replay)?
            .0)
    }),
    ("dropout_broadcast", 1, Real, |x| {
        x.dropout_broadcast(rate(), KEY, &one_last(x), SaveMask::Bits)
    }),
    ("dropout_affine", 1, Real, |x| {
        let affine = Affine {
            scale: 1.5,
            shift: -0.5,
            dropped: 2.0,
        };
        x.dropout_affine(rate(), KEY, &one_last(x), affine, SaveMask::Replay)
    }),
    ("apply_mask", 0, Real, |x| {
        let mask: BitMask = (0..x.numel()).map(|i| i % 3 != 0).collect();
        x.apply_mask(mask, x.shape(), 0.7)
    }),
];

const KEY: MaskKey = MaskKey { seed: 5, offset: 6 };

fn rate() -> DropRate {
    DropRate::new(0.4).unwrap()
}

/// The shape with a last axis of length 1.
fn one_last(x: &Tensor) -> Vec<usize> {
    let mut shape = x.shape().to_vec();
    shape[x.ndim() - 1] = 1;
    shape
}

/// As long as the last axis: the sums over the others.
fn sum_of_rows(x: &Tensor) -> Result<Tensor> {
    let others: Vec<isize> = (0..x.ndim() as isize - 1).collect();
    x.sum_over(&others[..])
}

/// The same with no two elements equal: elements differ by multiples of 1/64.
fn distinct(x: &Tensor) -> Result<Tensor> {
    let ramp: Vec<f64> = (0..x.numel()).map(|i| i as f64 / 1e4).collect();
    x.add(&Tensor::from_slice(&ramp, x.shape())?)
}

/// All elements in one axis, and one more.
fn never_empty(x: &Tensor) -> Result<Tensor> {
    let more = Tensor::from_slice(&[0.3], [1])?;
    Tensor::concat(&[&x.flatten(0, -1)?, &more], 0)
}

/// Twice as long in the first axis, and at least two, with different numbers along it: no element is
/// -1, where the two would be equal.
fn never_constant(x: &Tensor) -> Result<Tensor> {
    let x = if x.shape()[0] == 0 {
        let mut shape = x.shape().to_vec();
        shape[0] = 1;
        Tensor::concat(&[x, &Tensor::full(shape, 0.5, x.dtype())?], 0)?
    } else {
        x.clone()
    };
    Tensor::concat(&[&x, &x.mul_scalar(2.0)?.add_scalar(1.0)?], 0)
}

/// Operations of two tensors that broadcast.
const BINARY: &[Binary] = &[
    ("add", Real, Tensor::add),
    ("sub", Real, Tensor::sub),
    ("mul", Real, Tensor::mul),
    ("div", Positive, Tensor::div),
    ("div by negative numbers", Negative, Tensor::div),
    ("maximum", Real, |x, y| x.maximum(&y.add_scalar(1e-3)?)),
    ("minimum", Real, |x, y| x.minimum(&y.add_scalar(1e-3)?)),
    ("where_cond", Real, |x, y| {
        x.lt(&y.add_scalar(1e-3)?)?.where_cond(x, &y.exp()?)
    }),
];

/// A tensor with elements of the domain. They are odd multiples of 1/128, so that none is at a
/// corner of an operation.
fn elements(shape: &[usize], domain: Domain, salt: u64) -> Tensor {
    let numbers: Vec<f64> = crate::common::numbers(shape.iter().product(), salt)
        .into_iter()
        .map(|number| ((number * 64.0).floor() + 0.5) / 64.0)
        .map(|number| match domain {
            Real => number,
            Positive => number + 2.25,
            Negative => number - 2.25,
        })
        .collect();
    Tensor::from_slice(&numbers, shape).unwrap()
}

/// The tensor of this shape that is `x` with its axes in reverse, for every other salt.
fn maybe_reversed(x: &Tensor, salt: u64) -> Result<Tensor> {
    if salt.is_multiple_of(2) {
        return Ok(x.clone());
    }
    let axes: Vec<isize> = (0..x.ndim() as isize).rev().collect();
    x.permute(&axes)
}

/// Two shapes that broadcast: each leaves out leading axes of a common one and has some at length 1.
fn broadcasting_shapes() -> impl Strategy<Value = (Vec<usize>, Vec<usize>)> {
    let axes = prop::collection::vec((0_usize..4, any::<[bool; 2]>()), 0..4);
    (axes, 0_usize..3, 0_usize..3).prop_map(|(axes, left, right)| {
        let shape = |which: usize, leading: usize| {
            axes.iter()
                .map(|&(length, ones)| if ones[which] { 1 } else { length })
                .skip(leading)
                .collect()
        };
        (shape(0, left), shape(1, right))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gradients_of_operations_of_one_tensor(
        shape in prop::collection::vec(0_usize..4, 0..4),
        salt in any::<u64>(),
    ) {
        for &(name, axes, domain, op) in UNARY {
            if shape.len() >= axes {
                println!("{name} of {shape:?}, salt {salt}");
                let x = elements(&shape, domain, salt);
                check_gradients(&[x], |x| op(&maybe_reversed(&x[0], salt)?));
            }
        }
    }

    #[test]
    fn broadcasting_is_that_of_ndarray((left, right) in broadcasting_shapes(), salt in any::<u64>()) {
        let (x, y) = (elements(&left, Real, salt), elements(&right, Positive, !salt));
        let (a, b) = (x.to_ndarray::<f64>().unwrap(), y.to_ndarray::<f64>().unwrap());
        prop_assert_eq!(x.add(&y).unwrap().to_ndarray::<f64>().unwrap(), &a + &b);
        prop_assert_eq!(x.sub(&y).unwrap().to_ndarray::<f64>().unwrap(), &a - &b);
        prop_assert_eq!(x.mul(&y).unwrap().to_ndarray::<f64>().unwrap(), &a * &b);
        prop_assert_eq!(x.div(&y).unwrap().to_ndarray::<f64>().unwrap(), &a / &b);
    }

    /// Where ndarray finds no common shape there is an error, and an error only there.
    #[test]
    fn shapes_that_do_not_broadcast_are_errors(
        left in prop::collection::vec(0_usize..4, 0..4),
        right in prop::collection::vec(0_usize..4, 0..4),
    ) {
        let (x, y) = (elements(&left, Real, 1), elements(&right, Real, 2));
        let fits = left.iter().rev().zip(right.iter().rev()).all(|(&l, &r)| l == r || l == 1 || r == 1);
        prop_assert_eq!(x.add(&y).is_ok(), fits);
    }

    /// An operation does not see how its input lies in memory, but for the order of sums.
    #[test]
    fn permuted_views_agree_with_contiguous_copies(
        shape in prop::collection::vec(1_usize..5, 2..4),
        salt in any::<u64>(),
    ) {
        for &(name, _, domain, op) in UNARY {
            let view = maybe_reversed(&elements(&shape, domain, salt), 1).unwrap();
            let copy = Tensor::from_slice(&view.to_vec::<f64>().unwrap(), view.shape()).unwrap();
            prop_assert!(copy.is_contiguous());
            let (of_view, of_copy) = (op(&view).unwrap(), op(&copy).unwrap());
            prop_assert_eq!(of_view.shape(), of_copy.shape());
            let (of_view, of_copy) = (of_view.to_vec::<f64>().unwrap(), of_copy.to_vec::<f64>().unwrap());
            for (a, b) in of_view.iter().zip(&of_copy) {
                prop_assert!((a - b).abs() <= 1e-12 * b.abs().max(1.0), "{name}: {a} and {b}");
            }
        }
    }

    /// Stacks of matrices, whose leading axes broadcast.
    #[test]
    fn gradients_of_products(
        (left, right) in broadcasting_shapes(),
        [m, k, n] in [0_usize..4, 0..4, 0..4],
        salt in any::<u64>(),
    ) {
        println!("{left:?} of {m}x{k} and {right:?} of {k}x{n}, salt {salt}");
        let x = elements(&[&left[..], &[m, k]].concat(), Real, salt);
        let y = elements(&[&right[..], &[k, n]].concat(), Real, !salt);
        check_gradients(&[x, y], |x| x[0].matmul(&x[1]));
    }

    #[test]
    fn gradients_of_operations_of_two_tensors(
        (left, right) in broadcasting_shapes(),
        salt in any::<u64>(),
    ) {
        for &(name, domain, op) in BINARY {
            println!("{name} of {left:?} and {right:?}, salt {salt}");
            let (x, y) = (elements(&left, Real, salt), elements(&right, domain, !salt));
            check_gradients(&[x, y], |x| op(&x[0], &x[1]));
        }
    }
}
