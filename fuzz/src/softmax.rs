//! Dropout of a softmax, on tensors, against the operations apart, bit for bit: output and gradients.

use arbitrary::{Arbitrary, Result, Unstructured};
use sorix::kernels::{BitMask, Engine};
use sorix::{DType, DropRate, MaskRegion, SaveMask, Tensor};

use crate::inputs::{Rarely, Rate, Shape, Window};

#[derive(Arbitrary, Debug)]
struct Case {
    shape: Rows,
    dtype: AnyDType,
    rate: Rate,
    window: Window,
    /// Sixteenths, or any number.
    scale: Scale,
    attn_mask: Option<Additive>,
    numbers: Numbers,
    transposed: bool,
    save_bits: bool,
    /// Whether x and the mask require a gradient.
    wanted: [bool; 2],
    /// The axis that is cut, and where.
    axis: u8,
    cuts: [u8; 2],
    /// The region is a shard of another length.
    wrong_region: Rarely,
}

/// Of a shape; at times some tens of thousands of elements, which are done in several parts.
#[derive(Debug)]
struct Rows(Vec<usize>);

impl<'a> Arbitrary<'a> for Rows {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self(match u.int_in_range(0..=7)? {
            0..=6 => Shape::arbitrary(u)?.0,
            _ => vec![u.int_in_range(0..=300)?, u.int_in_range(0..=300)?],
        }))
    }
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum AnyDType {
    F32,
    F64,
    Bf16,
    F16,
}

impl AnyDType {
    pub(crate) fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F64 => DType::F64,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }
}

/// What the scores are multiplied with.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Scale {
    Sixteenths(i8),
    Any(f64),
}

impl Scale {
    pub(crate) fn value(self) -> f64 {
        match self {
            Self::Sixteenths(sixteenths) => f64::from(sixteenths) / 16.0,
            Self::Any(scale) => scale,
        }
    }
}

/// A mask that is added to something of a shape.
#[derive(Arbitrary, Debug)]
pub(crate) struct Additive {
    /// Leading axes that it does not have.
    missing: u8,
    /// Which of its axes are 1.
    ones: u8,
    /// How many of 16 elements are minus infinity.
    hidden: u8,
    /// It has the type that is computed in.
    wide: bool,
    wrong: Wrong,
}

/// What does not fit, once in a while.
#[derive(Debug, PartialEq)]
enum Wrong {
    Nothing,
    DType,
    Axis(u8),
    OneMore,
}

impl<'a> Arbitrary<'a> for Wrong {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match u.int_in_range(0..=31)? {
            29 => Self::DType,
            30 => Self::Axis(u.arbitrary()?),
            31 => Self::OneMore,
            _ => Self::Nothing,
        })
    }
}

impl Additive {
    /// The mask for something of this shape and dtype, and whether it fits.
    pub(crate) fn tensor(
        &self,
        shape: &[usize],
        dtype: DType,
        numbers: &Numbers,
    ) -> (Tensor, bool) {
        let missing = usize::from(self.missing) % (shape.len() + 1);
        let mut own: Vec<usize> = shape[missing..].to_vec();
        for (i, length) in own.iter_mut().enumerate() {
            if self.ones >> (i % 8) & 1 == 1 {
                *length = 1;
            }
        }
        let mut given = if self.wide { computed_in(dtype) } else { dtype };
        match self.wrong {
            Wrong::Nothing => {}
            Wrong::DType if dtype == DType::F64 => given = DType::F32,
            Wrong::DType => given = DType::F64,
            Wrong::Axis(axis) => {
                let axis = usize::from(axis) % own.len().max(1);
                if let Some(length) = own.get_mut(axis) {
                    *length += 2;
                }
            }
            Wrong::OneMore => own.insert(0, 2),
        }
        let fits = given == dtype || given == computed_in(dtype);
        // A longer axis than 1 and than that of the shape.
        let trailing = own.iter().rev().zip(shape.iter().rev());
        let fits = fits && own.len() <= shape.len() && { trailing }
            .all(|(&own, &length)| own == length || own == 1);
        let hidden = u64::from(self.hidden % 20);
        let number = |bits: u64| match bits >> 8 & 15 {
            part if part < hidden => f64::NEG_INFINITY,
            _ => eighths(bits),
        };
        (numbers.tensor(&own, given, 2, number), fits)
    }
}

/// Elements that follow from a seed.
#[derive(Arbitrary, Debug)]
pub(crate) struct Numbers {
    seed: u64,
}

impl Numbers {
    /// Each element is `number` of bits of its own, rounded to the dtype. Tensors of another salt have others.
    pub(crate) fn tensor(
        &self,
        shape: &[usize],
        dtype: DType,
        salt: u64,
        number: impl Fn(u64) -> f64,
    ) -> Tensor {
        let mut state = self.seed ^ salt.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let elements = (0..shape.iter().product()).map(|_| {
            // SplitMix64.
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let bits = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            number(bits ^ bits >> 31)
        });
        let tensor = Tensor::from_vec(elements.collect::<Vec<f64>>(), shape);
        let tensor = tensor.and_then(|x| x.to_dtype(dtype));
        tensor.expect("a small tensor")
    }
}

/// A number in [-2, 2] that every dtype has.
pub(crate) fn eighths(bits: u64) -> f64 {
    (bits % 33) as f64 / 8.0 - 2.0
}

/// As [`eighths`], and one in 32 that is large, infinite or not a number.
fn any(bits: u64) -> f64 {
    match bits >> 32 & 127 {
        0 => f64::INFINITY,
        1 => f64::NEG_INFINITY,
        2 => f64::NAN,
        3 => 3e4 * eighths(bits),
        4 => -0.0,
        _ => eighths(bits),
    }
}

pub(crate) fn computed_in(dtype: DType) -> DType {
    match dtype {
        DType::F64 => dtype,
        _ => DType::F32,
    }
}

/// Whether a region has a bit for each of so many elements.
pub(crate) fn has_bits(at: MaskRegion, elements: usize) -> bool {
    let engine = Engine::active().expect("a backend of this machine");
    let half = DropRate::new(0.5).expect("a rate");
    let mut mask = BitMask::new(elements);
    engine.fill_mask(half, at, &mut mask).is_ok()
}

/// The bits of the elements; one NaN is as good as another.
pub(crate) fn bits(x: &Tensor) -> Vec<u64> {
    let wide = x.to_dtype(DType::F64).and_then(|x| x.to_vec::<f64>());
    let elements = wide.expect("a small tensor").into_iter();
    let of = |x: f64| if x.is_nan() { f64::NAN } else { x };
    elements.map(|x| of(x).to_bits()).collect()
}

/// A leaf, whose gradient has the type that is computed in.
pub(crate) fn leaf(x: &Tensor, wanted: bool) -> Tensor {
    let leaf = x.detach().requires_grad(wanted);
    if wanted {
        let set = leaf.set_grad_dtype(computed_in(x.dtype()));
        set.expect("a leaf of its own");
    }
    leaf
}

/// The target.
pub fn run(data: &[u8]) {
    crate::with_arbitrary(data, |case: Case| check(&case));
}

fn check(case: &Case) {
    let (Rows(shape), dtype, Rate(rate)) = (&case.shape, case.dtype.dtype(), case.rate);
    let x = case.numbers.tensor(shape, dtype, 1, any);
    let x = match (case.transposed, shape.len()) {
        (true, 2..) => x.transpose(0, -1).expect("there are two axes"),
        _ => x,
    };
    let shape = x.shape();
    let attn_mask = case.attn_mask.as_ref();
    let attn_mask = attn_mask.map(|mask| mask.tensor(shape, dtype, &case.numbers));
    let fits = attn_mask.as_ref().is_none_or(|(_, fits)| *fits);
    let attn_mask = attn_mask.map(|(mask, _)| mask);
    let key = case.window.0.key;
    let at: MaskRegion = match case.wrong_region {
        Rarely(true) => {
            let shard = key.shard(&[x.numel() + 3], 0, 1..x.numel() + 2);
            shard.expect("the axis has the range")
        }
        Rarely(false) => case.window.0.into(),
    };
    let save = match case.save_bits {
        true => SaveMask::Bits,
        false => SaveMask::Replay,
    };

    let [of_x, of_mask] = case.wanted;
    let own = leaf(&x, of_x);
    let own_mask = attn_mask.as_ref().map(|mask| leaf(mask, of_mask));
    let scale = case.scale.value();
    let result = own.softmax_dropout(own_mask.as_ref(), scale, rate, at, save);
    let right = fits && !shape.is_empty() && has_bits(at, x.numel());
    assert_eq!(result.is_ok(), right, "{case:?}: {result:?}");
    let Ok(y) = result else { return };
    assert_eq!((y.shape(), y.dtype()), (shape, dtype), "{case:?}");

    let other = leaf(&x, of_x);
    let other_mask = attn_mask.as_ref().map(|mask| leaf(mask, of_mask));
    let apart = apart(case, &other, other_mask.as_ref(), rate, at, save).expect("all fits");
    assert_eq!(bits(&y), bits(&apart), "{case:?}");

    if of_x || of_mask && attn_mask.is_some() {
        let weights = case.numbers.tensor(shape, dtype, 3, eighths);
        y.backward_with(&weights).expect("once");
        apart.backward_with(&weights).expect("once");
        let gradient = |leaf: &Tensor| leaf.grad().map(|gradient| bits(&gradient));
        assert_eq!(gradient(&own), gradient(&other), "{case:?}: x");
        let of_masks = [&own_mask, &other_mask].map(|mask| mask.as_ref().and_then(gradient));
        assert_eq!(of_masks[0], of_masks[1], "{case:?}: the mask");
    }
    part(case, &x, attn_mask.as_ref(), save);
}

/// The operations one after another, in the type that is computed in, and rounded once.
fn apart(
    case: &Case,
    x: &Tensor,
    attn_mask: Option<&Tensor>,
    rate: DropRate,
    at: MaskRegion,
    save: SaveMask,
) -> sorix::TensorResult<Tensor> {
    let wide = computed_in(x.dtype());
    let mut scores = x.to_dtype(wide)?.mul_scalar(case.scale.value())?;
    if let Some(mask) = attn_mask {
        scores = scores.add(&mask.to_dtype(wide)?)?;
    }
    scores
        .softmax(-1)?
        .dropout(rate, at, save)?
        .to_dtype(x.dtype())
}

/// A worker's part along any axis but the last is that part of the whole.
fn part(case: &Case, x: &Tensor, attn_mask: Option<&Tensor>, save: SaveMask) {
    let (shape, key, Rate(rate)) = (x.shape(), case.window.0.key, case.rate);
    let Some(axis) = usize::from(case.axis).checked_rem(shape.len() - 1) else {
        return;
    };
    let [start, end] = cuts(case.cuts, shape[axis]);
    let region = key.shard(shape, axis, start..end);
    let region = region.expect("the axis has the range");
    let cut = |x: &Tensor| x.slice(axis as isize, start..end).expect("as above");
    let scale = case.scale.value();
    let run = |x: &Tensor, mask: Option<&Tensor>, at: MaskRegion| {
        let y = x.softmax_dropout(mask, scale, rate, at, save);
        y.expect("all fits")
    };
    let whole = run(x, attn_mask, key.into());
    let own_mask = attn_mask.map(|mask| cut(&mask.expand(shape).expect("it broadcasts")));
    let part = run(&cut(x), own_mask.as_ref(), region);
    assert_eq!(bits(&part), bits(&cut(&whole)), "{case:?}: {start}..{end}");
}

/// Two places of an axis, in order.
pub(crate) fn cuts(cuts: [u8; 2], length: usize) -> [usize; 2] {
    let mut cuts = cuts.map(|cut| usize::from(cut) % (length + 1));
    cuts.sort_unstable();
    cuts
}
