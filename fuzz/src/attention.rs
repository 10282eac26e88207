//! Attention that never holds its matrix, against the matrix by the operations apart, computed in f64: output,
//! gradients, and which probabilities are dropped.

use arbitrary::{Arbitrary, Result, Unstructured};
use sorix::{AttentionOptions, DType, MaskRegion, SaveMask, Tensor, TensorResult};

use crate::inputs::{Rate, Window};
use crate::softmax::{
    Additive, AnyDType, Numbers, Scale, bits, computed_in, cuts, eighths, has_bits, leaf,
};

#[derive(Arbitrary, Debug)]
struct Case {
    sizes: Sizes,
    dtype: AnyDType,
    rate: Rate,
    window: Window,
    /// Without it, that of the layer.
    dropout: bool,
    scale: Option<Scale>,
    attn_mask: Option<Additive>,
    is_causal: bool,
    first_query: First,
    numbers: Numbers,
    /// Axes of heads and of queries are those of a transposed tensor.
    transposed: [bool; 3],
    gradients: bool,
    /// The axis that is cut, and where.
    axis: u8,
    cuts: [u8; 2],
    wrong: Wrong,
}

/// How many of what.
#[derive(Debug)]
struct Sizes {
    samples: usize,
    /// Of the key, and how many heads of the query share one.
    heads: usize,
    group: usize,
    queries: usize,
    keys: usize,
    e: usize,
    ev: usize,
    /// Without the axes of samples and heads.
    flat: bool,
}

impl<'a> Arbitrary<'a> for Sizes {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        // Tiles are of 64 queries and 512 keys, and a part has some 65,536 scores.
        let (heads, queries, keys) = match u.int_in_range(0..=7)? {
            0..=4 => (3, 9, 20),
            5 => (1, 140, 30),
            6 => (1, 9, 1100),
            _ => (2, 70, 530),
        };
        let mut at_most = |most: usize| u.int_in_range(0..=most);
        Ok(Self {
            queries: queries - at_most(queries)?,
            keys: keys - at_most(keys)?,
            heads: heads - at_most(heads)?,
            group: 1 + at_most(heads - 1)?,
            samples: 2 - at_most(2)?,
            e: at_most(9)?,
            ev: at_most(6)?,
            flat: u.ratio(1, 8)?,
        })
    }
}

impl Sizes {
    /// Those of query, key, value and scores.
    fn shapes(&self) -> [Vec<usize>; 4] {
        let of = |heads, lengths: [usize; 2]| match self.flat {
            true => lengths.to_vec(),
            false => [&[self.samples, heads], &lengths[..]].concat(),
        };
        let all = self.heads * self.group;
        [
            of(all, [self.queries, self.e]),
            of(self.heads, [self.keys, self.e]),
            of(self.heads, [self.keys, self.ev]),
            of(all, [self.queries, self.keys]),
        ]
    }
}

#[derive(Arbitrary, Debug)]
enum First {
    Zero,
    Small(u8),
    Any(u64),
}

impl First {
    fn value(&self) -> usize {
        match *self {
            Self::Zero => 0,
            Self::Small(first) => first.into(),
            Self::Any(first) => usize::try_from(first).unwrap_or(usize::MAX),
        }
    }
}

/// What does not fit, once in a while.
#[derive(Debug, PartialEq)]
enum Wrong {
    Nothing,
    /// Of key or value.
    DType(bool),
    /// Of key or value, which axis.
    Axis(bool, u8),
    /// The region is a shard of another length.
    Region,
    /// The query is a vector.
    Vector,
}

impl<'a> Arbitrary<'a> for Wrong {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match u.int_in_range(0..=63)? {
            60 => Self::DType(u.arbitrary()?),
            61 => Self::Axis(u.arbitrary()?, u.arbitrary()?),
            62 => Self::Region,
            63 => Self::Vector,
            _ => Self::Nothing,
        })
    }
}

/// The target.
pub fn run(data: &[u8]) {
    crate::with_arbitrary(data, |case: Case| check(&case));
}

fn check(case: &Case) {
    let dtype = case.dtype.dtype();
    let [query, key, value, scores] = case.sizes.shapes();
    let mut inputs = [query, key, value];
    if let Wrong::Axis(of_value, axis) = case.wrong {
        let shape = &mut inputs[1 + usize::from(of_value)];
        // The last axis of the value is its own.
        let axes = shape.len() - usize::from(of_value);
        shape[usize::from(axis) % axes] += 7;
    }
    let mut inputs = [0, 1, 2].map(|i| {
        let (shape, salt) = (&inputs[i], 10 + i as u64);
        input(case, shape, dtype, salt, case.transposed[i])
    });
    match case.wrong {
        Wrong::DType(of_value) => {
            let x = &mut inputs[1 + usize::from(of_value)];
            let other = if dtype == DType::F64 {
                DType::F32
            } else {
                DType::F64
            };
            *x = x.to_dtype(other).expect("a small tensor");
        }
        Wrong::Vector => {
            let vector = case.numbers.tensor(&[case.sizes.e], dtype, 10, eighths);
            inputs[0] = vector;
        }
        _ => {}
    }
    let attn_mask = case.attn_mask.as_ref();
    let attn_mask = attn_mask.map(|mask| mask.tensor(&scores, dtype, &case.numbers));
    let mask_fits = attn_mask.as_ref().is_none_or(|(_, fits)| *fits);
    let attn_mask = attn_mask.map(|(mask, _)| leaf(&mask, case.gradients));
    let elements = scores.iter().product::<usize>();
    let at: MaskRegion = match case.wrong {
        Wrong::Region => {
            let key = case.window.0.key;
            let shard = key.shard(&[elements + 3], 0, 1..elements + 2);
            shard.expect("the axis has the range")
        }
        _ => case.window.0.into(),
    };
    let options = options(case, attn_mask.as_ref(), at, case.first_query.value());

    let leaves = inputs.each_ref().map(|x| leaf(x, case.gradients));
    let [query, key, value] = &leaves;
    let result = query.scaled_dot_product_attention(key, value, options);
    let right = mask_fits
        && match case.wrong {
            Wrong::Nothing => true,
            Wrong::Region => !case.dropout,
            _ => false,
        }
        && (!case.dropout || has_bits(at, elements));
    assert_eq!(result.is_ok(), right, "{case:?}: {result:?}");
    let Ok(y) = result else { return };
    let shape = [&scores[..scores.len() - 1], &[case.sizes.ev]].concat();
    assert_eq!((y.shape(), y.dtype()), (&shape[..], dtype), "{case:?}");

    if is_moderate(case) {
        let wide = inputs.each_ref().map(widened);
        let wide = wide.each_ref().map(|x| leaf(x, case.gradients));
        let mask = attn_mask.as_ref();
        let mask = mask.map(|mask| leaf(&widened(mask), case.gradients));
        let apart = by_matrix(case, &wide, mask.as_ref(), at).expect("all fits");
        let off = match computed_in(dtype) {
            DType::F64 => 1e-11,
            _ => 2e-4,
        };
        let rounding = match dtype {
            DType::F16 => 1e-3,
            DType::BF16 => 8e-3,
            _ => 0.0,
        };
        near(case, "output", &y, &apart, off + rounding);
        if case.gradients {
            let weights = case.numbers.tensor(&shape, dtype, 20, eighths);
            y.backward_with(&weights).expect("once");
            apart.backward_with(&widened(&weights)).expect("once");
            let names = ["query", "key", "value", "mask"];
            let leaves = leaves.iter().chain(&attn_mask);
            for ((name, leaf), wide) in names.iter().zip(leaves).zip(wide.iter().chain(&mask)) {
                let [found, expected] = [leaf, wide].map(|x| x.grad().expect("it needs one"));
                let off = 8.0 * off * (1.0 + scale(case).abs()) * kept_scale(case);
                near(case, name, &found, &expected, off);
            }
        }
        dropped(case, &inputs, attn_mask.as_ref(), at);
    }
    part(case, &inputs, attn_mask.as_ref());
}

/// Numbers in [-2, 2], as they lie in a transposed tensor or not.
fn input(case: &Case, shape: &[usize], dtype: DType, salt: u64, transposed: bool) -> Tensor {
    let &[samples, heads, length, width] = shape else {
        return case.numbers.tensor(shape, dtype, salt, eighths);
    };
    if !transposed {
        return case.numbers.tensor(shape, dtype, salt, eighths);
    }
    let shape = [samples, length, heads, width];
    let x = case.numbers.tensor(&shape, dtype, salt, eighths);
    x.transpose(1, 2).expect("there are four axes")
}

fn options<'t>(
    case: &Case,
    attn_mask: Option<&'t Tensor>,
    at: MaskRegion,
    first_query: usize,
) -> AttentionOptions<&'t Tensor> {
    let Rate(rate) = case.rate;
    let mut options = AttentionOptions::new()
        .is_causal(case.is_causal)
        .first_query(first_query)
        .enable_gqa(case.sizes.group > 1);
    if case.dropout {
        options = options.dropout(rate, at);
    }
    if let Some(scale) = case.scale {
        options = options.scale(scale.value());
    }
    match attn_mask {
        Some(mask) => options.attn_mask(mask),
        None => options,
    }
}

/// The factor of the scores.
fn scale(case: &Case) -> f64 {
    let scale = (case.sizes.e.max(1) as f64).sqrt().recip();
    case.scale.map_or(scale, Scale::value)
}

/// What probabilities that are kept are multiplied by.
fn kept_scale(case: &Case) -> f64 {
    let Rate(rate) = case.rate;
    if case.dropout { rate.scale() } else { 1.0 }
}

/// Whether rounding stays small, so that there is something to compare.
fn is_moderate(case: &Case) -> bool {
    let Rate(rate) = case.rate;
    // f16 ends at 65,504.
    let fits = !(0.99..1.0).contains(&rate.p()) || case.dtype.dtype() != DType::F16;
    scale(case).abs() <= 8.0 && (fits || !case.dropout)
}

fn widened(x: &Tensor) -> Tensor {
    let wide = x.detach().to_dtype(DType::F64);
    wide.expect("a small tensor")
}

/// The probabilities, not dropped.
fn probabilities(
    case: &Case,
    query: &Tensor,
    key: &Tensor,
    mask: Option<&Tensor>,
) -> TensorResult<Tensor> {
    let key = repeated(case, key)?.transpose(-1, -2)?;
    let mut scores = query.matmul(&key)?.mul_scalar(scale(case))?;
    if let Some(mask) = mask {
        scores = scores.add(mask)?;
    }
    if case.is_causal {
        let (queries, keys) = (case.sizes.queries, case.sizes.keys);
        let first = case.first_query.value();
        let row = |i: usize| (0..keys).map(move |j| (i, j));
        let elements =
            (0..queries)
                .flat_map(row)
                .map(|(i, j)| match j <= first.saturating_add(i) {
                    true => 0.0,
                    false => f64::NEG_INFINITY,
                });
        scores = scores.add(&Tensor::from_vec(
            elements.collect::<Vec<f64>>(),
            [queries, keys],
        )?)?;
    }
    scores.softmax(-1)
}

fn by_matrix(
    case: &Case,
    [query, key, value]: &[Tensor; 3],
    mask: Option<&Tensor>,
    at: MaskRegion,
) -> TensorResult<Tensor> {
    let mut probabilities = probabilities(case, query, key, mask)?;
    if case.dropout {
        probabilities = probabilities.dropout(case.rate.0, at, SaveMask::Replay)?;
    }
    probabilities.matmul(&repeated(case, value)?)
}

/// Each head as often as the query has it.
fn repeated(case: &Case, x: &Tensor) -> TensorResult<Tensor> {
    let &[samples, heads, length, width] = x.shape() else {
        return Ok(x.clone());
    };
    let group = case.sizes.group;
    let x = x
        .unsqueeze(2)?
        .expand([samples, heads, group, length, width])?;
    x.reshape([samples, heads * group, length, width])
}

fn values(x: &Tensor) -> Vec<f64> {
    let wide = x.to_dtype(DType::F64).and_then(|x| x.to_vec::<f64>());
    wide.expect("a small tensor")
}

fn near(case: &Case, what: &str, found: &Tensor, expected: &Tensor, off: f64) {
    assert_eq!(found.shape(), expected.shape(), "{case:?}: {what}");
    let (found, expected) = (values(found), values(expected));
    let most = expected.iter().fold(1.0, |most: f64, x| most.max(x.abs()));
    for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
        assert!(
            (a - b).abs() <= off * most,
            "{case:?}: {what}, {i}: {a}, {b}"
        );
    }
}

/// With the unit matrix as value the output is the matrix of probabilities, and what is dropped is +0.
fn dropped(case: &Case, [query, key, _]: &[Tensor; 3], mask: Option<&Tensor>, at: MaskRegion) {
    let keys = case.sizes.keys;
    if keys > 40 || !case.dropout {
        return;
    }
    let unit = (0..keys * keys).map(|i| f64::from(u8::from(i % keys == i / keys)));
    let unit = Tensor::from_vec(unit.collect::<Vec<f64>>(), [keys, keys]);
    let lead = &key.shape()[..key.ndim() - 2];
    let unit = unit.and_then(|unit| unit.expand([lead, &[keys, keys]].concat()));
    let unit = unit.and_then(|unit| unit.to_dtype(query.dtype()));
    let options = options(case, mask, at, case.first_query.value());
    let found = query.scaled_dot_product_attention(key, &unit.expect("a small tensor"), options);
    let found = found.expect("all fits");
    let wide = mask.map(widened);
    let whole = probabilities(case, &widened(query), &widened(key), wide.as_ref());
    let whole = whole.expect("all fits");
    let ones = Tensor::ones(whole.shape(), DType::F64);
    let kept = ones.and_then(|ones| ones.dropout(case.rate.0, at, SaveMask::Replay));
    let kept = values(&kept.expect("all fits"));
    let each = values(&found).into_iter().zip(values(&whole)).zip(kept);
    for (i, ((found, probability), kept)) in each.enumerate() {
        // What is smaller may be rounded to 0.
        let expected = kept != 0.0 && probability > 1e-3;
        assert!(
            (found != 0.0) == expected || kept != 0.0 && probability <= 1e-3,
            "{case:?}: {i} is {found}, of {probability}, {kept}"
        );
    }
}

/// A worker's part of the samples, the heads or the queries is that part of the whole.
fn part(case: &Case, [query, key, value]: &[Tensor; 3], mask: Option<&Tensor>) {
    let [.., scores] = case.sizes.shapes();
    let axis = usize::from(case.axis) % (scores.len() - 1);
    let of_queries = axis + 2 == scores.len();
    let group = if axis == 1 && !of_queries {
        case.sizes.group
    } else {
        1
    };
    let range = cuts(case.cuts, scores[axis] / group).map(|cut| cut * group);
    let at = (case.window.0.key).shard(&scores, axis, range[0]..range[1]);
    let at = at.expect("the axis has the range");
    let cut = |x: &Tensor, group: usize| {
        let part = x.slice(axis as isize, range[0] / group..range[1] / group);
        part.expect("as above")
    };
    let of_key = |x: &Tensor| match of_queries {
        true => x.clone(),
        false => cut(x, group),
    };
    let attend = |[query, key, value]: [&Tensor; 3], mask: Option<&Tensor>, at, first: usize| {
        let options = options(case, mask, at, first);
        let y = query.scaled_dot_product_attention(key, value, options);
        y.expect("all fits")
    };
    let first = case.first_query.value();
    let whole = attend([query, key, value], mask, case.window.0.key.into(), first);
    let own_mask = mask.map(|mask| cut(&mask.expand(&scores).expect("it broadcasts"), 1));
    let own_first = match of_queries {
        true => first.saturating_add(range[0]),
        false => first,
    };
    let own = [&cut(query, 1), &of_key(key), &of_key(value)];
    let part = attend(own, own_mask.as_ref(), at, own_first);
    if !of_queries {
        assert_eq!(bits(&part), bits(&cut(&whole, 1)), "{case:?}: {range:?}");
    } else if is_moderate(case) {
        // Products of fewer rows may add up in another order.
        let off = match query.dtype() {
            DType::F64 => 1e-11,
            DType::F32 => 2e-4,
            DType::F16 => 2e-3,
            _ => 1.6e-2,
        };
        near(case, "a part", &part, &cut(&whole, 1), off);
    }
}
