//! Normalised rows, forward and backward, by any backend, against the oracle.
//!
//! A call that must be refused must leave everything alone.

use arbitrary::{Arbitrary, Result, Unstructured};
use half::{bf16, f16};
use sorix::kernels::backend::job::{DropoutAddNorm, RowMask};
use sorix::kernels::backend::reference::{self, Reference};
use sorix::kernels::{
    AddNorm, BitMask, Buffers, Element, Engine, Error, MaskKey, MaskRegion, Norm, NormGradient,
    RowMoments,
};

use crate::inputs::{AnyBackend, Rate, Window};
use crate::kernels::{Canaries, DType, Wrong, keep_bits};

#[derive(Arbitrary, Debug)]
struct Case {
    dtype: DType,
    backend: AnyBackend,
    rms: bool,
    rate: Rate,
    rows: Rows,
    epsilon: Epsilon,
    at: At,
    bits: Bits,
    /// Bias, weight and shift; then, of backward, the second gradient of the sum, and the gradients of
    /// weight and shift.
    has: [bool; 6],
    in_place: bool,
    streaming: bool,
    parallel: bool,
    misaligned: [u8; 3],
    numbers: Numbers,
    elements: u64,
    /// Which length is too long or too short; mostly by nothing.
    which: u8,
    wrong: Wrong,
    /// Moments of any bits, for backward, and not those that forward makes.
    any_moments: bool,
}

/// How many, and how long.
#[derive(Debug)]
struct Rows {
    count: usize,
    len: usize,
}

impl<'a> Arbitrary<'a> for Rows {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        // Sums over rows are by blocks of 64 of them.
        let (count, len) = match u.int_in_range(0..=7)? {
            0..=3 => (6, 100),
            4 | 5 => (140, 12),
            6 => (70, 300),
            _ => (2, 9000),
        };
        Ok(Self {
            count: u.int_in_range(0..=count)?,
            len: u.int_in_range(0..=len)?,
        })
    }
}

#[derive(Arbitrary, Debug)]
enum Epsilon {
    Usual,
    Zero,
    Any(f64),
}

/// Which elements of a mask.
#[derive(Arbitrary, Debug)]
enum At {
    Window(Window),
    /// The part of a tensor that is longer along an axis by so much before and after.
    Shard {
        columns: bool,
        before: u8,
        after: u8,
        seed: u8,
    },
}

#[derive(Arbitrary, Debug)]
enum Bits {
    Made,
    Written,
    /// These over and over, and so many before the first that counts.
    Given(u64, u8),
}

#[derive(Arbitrary, Debug)]
enum Numbers {
    /// Of a size, beside a number that they have in common.
    Moderate(i8, i16),
    AnyBits,
}

impl Numbers {
    fn fill<T: Element>(&self, len: usize, misaligned: u8, seed: u64) -> Canaries<T> {
        match *self {
            Self::AnyBits => Canaries::new(len, misaligned, seed),
            Self::Moderate(size, common) => {
                let (size, mut state) = (f64::from(size / 4).exp2(), seed);
                Canaries::from_fn(len, misaligned, || {
                    state = state.wrapping_add(0x9E37_79B9_7F4A_7C15).rotate_left(7);
                    let number = f64::from(common) + (state >> 40) as f64 / 8192.0 - 1024.0;
                    T::narrow(T::factor(size * number))
                })
            }
        }
    }
}

/// The target.
pub fn run(data: &[u8]) {
    crate::with_arbitrary(data, |case: Case| match case.dtype {
        DType::F32 => check::<f32>(&case),
        DType::F64 => check::<f64>(&case),
        DType::Bf16 => check::<bf16>(&case),
        DType::F16 => check::<f16>(&case),
    });
}

/// What goes in, and the lengths of what comes out.
struct Inputs<T: Element> {
    x: Canaries<T>,
    residual: Canaries<T::Scale>,
    rows: [Option<Canaries<T::Scale>>; 3],
    epsilon: f64,
}

fn check<T: Element>(case: &Case) {
    let Rows { count, len } = case.rows;
    let all = count * len;
    let epsilon = match case.epsilon {
        Epsilon::Usual => 1e-5,
        Epsilon::Zero => 0.0,
        Epsilon::Any(epsilon) => epsilon,
    };
    let row = |i: usize| {
        let row_len = length(case, 5 + i as u8, len);
        let seed = case.elements / (i as u64 + 2);
        case.has[i].then(|| case.numbers.fill::<T::Scale>(row_len, 0, seed))
    };
    let inputs = Inputs::<T> {
        x: (case.numbers).fill(length(case, 0, all), case.misaligned[0], case.elements),
        residual: (case.numbers).fill(length(case, 1, all), case.misaligned[1], !case.elements),
        rows: [row(0), row(1), row(2)],
        epsilon,
    };
    forward(case, &inputs);
    backward(case, &inputs);
}

/// A length that is right, or the one that is not.
fn length(case: &Case, which: u8, right: usize) -> usize {
    if case.which % 12 == which {
        case.wrong.len(right)
    } else {
        right
    }
}

fn norm<'a, T: Element>(
    case: &Case,
    inputs: &'a Inputs<T>,
) -> core::result::Result<Norm<'a, T::Scale>, Error> {
    let len = case.rows.len;
    let mut norm = if case.rms {
        Norm::rms(len, inputs.epsilon)?
    } else {
        Norm::layer(len, inputs.epsilon)?
    };
    if let Some(weight) = &inputs.rows[1] {
        norm = norm.with_weight(weight.inside())?;
    }
    if let Some(shift) = &inputs.rows[2] {
        norm = norm.with_shift(shift.inside())?;
    }
    Ok(norm)
}

/// Whether the elements of `x` are rows, and there are moments for them.
fn are_rows(case: &Case, x: usize, moments: usize) -> bool {
    let len = case.rows.len;
    x == 0 || (len > 0 && x.is_multiple_of(len) && x / len == moments)
}

fn engine(case: &Case) -> Engine<'static> {
    let mut engine = Engine::new(case.backend.0);
    if case.streaming {
        engine = engine.streaming_above(0);
    }
    if case.parallel {
        engine
    } else {
        engine.sequential()
    }
}

/// The part of a mask, its bits, and whether it has so many elements.
fn region(case: &Case, len: usize) -> (MaskRegion, BitMask, bool) {
    let Rate(rate) = case.rate;
    match case.at {
        At::Window(Window(window)) => {
            let fits = len == 0 || window.first.checked_add(len as u64 - 1).is_some();
            let bits = if fits { len } else { 0 };
            (window.into(), keep_bits(rate, window, bits), fits)
        }
        At::Shard {
            columns,
            before,
            after,
            seed,
        } => {
            let (axis, key) = (usize::from(columns), MaskKey::new(seed.into(), 3));
            let part = [case.rows.count, case.rows.len];
            let [before, after] = [before % 8, after % 8].map(usize::from);
            let mut shape = part;
            shape[axis] += before + after;
            let whole = keep_bits(rate, key.into(), shape[0] * shape[1]);
            let inside = before..before + part[axis];
            let bits = (0..whole.len())
                .filter(|&i| inside.contains(&[i / shape[1], i % shape[1]][axis]))
                .map(|i| whole.get(i) == Some(true))
                .collect();
            let region = key.shard(&shape, axis, inside);
            let region = region.expect("the axis is longer");
            (region, bits, len == part[0] * part[1])
        }
    }
}

fn forward<T: Element>(case: &Case, inputs: &Inputs<T>) {
    let Inputs {
        x, residual, rows, ..
    } = inputs;
    let Rate(rate) = case.rate;
    let len = x.inside().len();
    let right_sum = residual.inside().len();
    let mut sum = match case.in_place {
        true => residual.clone(),
        false => Canaries::new(length(case, 2, right_sum), case.misaligned[2], 1),
    };
    let mut z = Canaries::<T>::new(length(case, 3, len), case.misaligned[2], 2);
    let moments_len = length(case, 4, case.rows.count);
    let mut moments = vec![MOMENTS; moments_len];
    let mask_len = length(case, 8, len);
    let (start, pattern) = match case.bits {
        Bits::Given(pattern, start) => (usize::from(start), pattern),
        _ => (0, u64::MAX / 3),
    };
    let longer: BitMask = (0..start + mask_len)
        .map(|i| pattern >> (i % 64) & 1 == 1)
        .collect();
    let given = longer.slice(start..).expect("the mask is as long");
    let mut mask: BitMask = given.iter().collect();
    let before = (sum.clone(), z.clone(), mask.clone());
    let (at, made, fits) = region(case, len);

    let result = norm(case, inputs).and_then(|norm| {
        let sum = if case.in_place {
            Buffers::in_place(sum.inside_mut())
        } else {
            Buffers::new(residual.inside(), sum.inside_mut())?
        };
        let mut job = AddNorm::new(norm, x.inside(), sum, z.inside_mut(), &mut moments)?;
        if let Some(bias) = &rows[0] {
            job = job.with_bias(bias.inside())?;
        }
        match case.bits {
            Bits::Made => engine(case).dropout_add_norm(rate, at, job, None),
            Bits::Written => engine(case).dropout_add_norm(rate, at, job, Some(&mut mask)),
            Bits::Given(..) => engine(case).apply_add_norm(rate, given, job),
        }
    });

    let row_fits = |row: &Option<Canaries<_>>| {
        row.as_ref()
            .is_none_or(|row| row.inside().len() == case.rows.len)
    };
    let right = inputs.epsilon >= 0.0
        && inputs.epsilon.is_finite()
        && rows.iter().all(row_fits)
        && are_rows(case, len, moments_len)
        && [right_sum, sum.inside().len(), z.inside().len()] == [len; 3]
        && (matches!(case.bits, Bits::Made) || mask_len == len)
        && (matches!(case.bits, Bits::Given(..)) || fits);
    assert_eq!(result.is_ok(), right, "{case:?}: {result:?}");
    if !right {
        assert!(sum.same_as(&before.0), "{case:?} wrote its sum");
        assert!(z.same_as(&before.1), "{case:?} wrote z");
        assert_eq!(mask, before.2, "{case:?} wrote its mask");
        let untouched = moments.iter().all(|moments| *moments == MOMENTS);
        assert!(untouched, "{case:?} wrote its moments");
        return;
    }

    let all_dropped = rate.p() == 1.0;
    let keep: BitMask = match case.bits {
        Bits::Given(..) => given.iter().map(|keep| keep && !all_dropped).collect(),
        _ => made,
    };
    if let Bits::Written = case.bits {
        assert_eq!(mask.words(), keep.words(), "{case:?}: mask");
    }
    let (mut want_sum, mut want_z) = (before.0, before.1);
    let mut want_moments = vec![RowMoments::default(); moments_len];
    want_sum.inside_mut().copy_from_slice(residual.inside());
    if len > 0 {
        let norm = norm(case, inputs).expect("as before");
        let sum = Buffers::in_place(want_sum.inside_mut());
        let job = AddNorm::new(
            norm,
            x.inside(),
            sum,
            want_z.inside_mut(),
            &mut want_moments,
        );
        let job = job.and_then(|job| match &rows[0] {
            Some(bias) => job.with_bias(bias.inside()),
            None => Ok(job),
        });
        let mask = RowMask::Bits((&keep).into());
        let job = DropoutAddNorm::new(T::scale(rate), mask, job.expect("as before"));
        reference::dropout_add_norm(job.expect("a bit for each element"));
    }
    assert!(sum.same_but_nan(&want_sum), "{case:?}: sum");
    let pairs = moments.iter().zip(&want_moments);
    for (row, (got, want)) in pairs.enumerate() {
        let same = same(got.mean, want.mean) && same(got.inverse_deviation, want.inverse_deviation);
        assert!(same, "{case:?}: row {row} has {got:?}, not {want:?}");
    }
    assert!(z.same_but_nan(&want_z), "{case:?}: z");
}

/// What is in the moments before.
const MOMENTS: RowMoments = RowMoments {
    mean: -7.0,
    inverse_deviation: 3.0,
};

fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

fn backward<T: Element>(case: &Case, inputs: &Inputs<T>) {
    let row_len = case.rows.len;
    let (dz, sum) = (&inputs.x, &inputs.residual);
    let len = dz.inside().len();
    let moments_len = length(case, 4, case.rows.count);
    let moments: Vec<RowMoments> = if case.any_moments {
        let numbers = Canaries::<f64>::new(2 * moments_len, 0, case.elements);
        let pairs = numbers.inside().chunks(2);
        pairs
            .map(|pair| RowMoments {
                mean: if case.rms { 0.0 } else { pair[0] },
                inverse_deviation: pair[1],
            })
            .collect()
    } else {
        let row = |row: usize| {
            let begin = row * row_len;
            sum.inside().get(begin..begin + row_len)
        };
        let moments = |i| row(i).map_or(MOMENTS, |row| moments_of(case, row));
        (0..moments_len).map(moments).collect()
    };
    let more = case.has[3].then(|| {
        let numbers = &case.numbers;
        numbers.fill::<T::Scale>(length(case, 9, len), 0, case.elements / 5)
    });
    let row = |i: u8| Canaries::<T::Scale>::new(length(case, 6 + i, row_len), 0, 3);
    let out = length(case, 2, len);
    let d_sum = Canaries::<T::Scale>::new(out, case.misaligned[2], 1);
    let mut got = [d_sum, row(4), row(5)];
    let mut want = got.clone();
    let run = |engine: Engine<'_>, out: &mut [Canaries<_>; 3]| {
        let norm = norm(case, inputs)?;
        let [d_sum, d_weight, d_shift] = out;
        let mut job = NormGradient::new(
            norm,
            dz.inside(),
            sum.inside(),
            &moments,
            d_sum.inside_mut(),
        )?;
        if let Some(more) = &more {
            job = job.with_more(more.inside())?;
        }
        if case.has[4] {
            job = job.with_d_weight(d_weight.inside_mut())?;
        }
        if case.has[5] {
            job = job.with_d_shift(d_shift.inside_mut())?;
        }
        engine.norm_backward(job)
    };
    let result = run(engine(case), &mut got);

    let row_fits =
        |row: &Option<Canaries<_>>| row.as_ref().is_none_or(|row| row.inside().len() == row_len);
    let right = inputs.epsilon >= 0.0
        && inputs.epsilon.is_finite()
        && inputs.rows[1..].iter().all(row_fits)
        && are_rows(case, len, moments_len)
        && [sum.inside().len(), out] == [len; 2]
        && more.as_ref().is_none_or(|more| more.inside().len() == len)
        && (!case.has[4] || got[1].inside().len() == row_len)
        && (!case.has[5] || got[2].inside().len() == row_len);
    assert_eq!(result.is_ok(), right, "{case:?}: {result:?}");
    if right {
        let oracle = Engine::new(&Reference).sequential();
        run(oracle, &mut want).expect("as before");
        sums_over_rows(case, dz.inside(), sum.inside(), &moments, &mut want);
    }
    assert!(got[0].same_but_nan(&want[0]), "{case:?}: d_sum");
    assert!(got[1].same_but_nan(&want[1]), "{case:?}: d_weight");
    assert!(got[2].same_but_nan(&want[2]), "{case:?}: d_shift");
}

/// As `Norm` says, but the order of the sums: for backward any moments are as good.
fn moments_of<S: Element>(case: &Case, row: &[S]) -> RowMoments {
    let mean = |of: &dyn Fn(f64) -> f64| {
        let sum: f64 = row.iter().map(|x| of(x.to_double())).sum();
        sum / row.len() as f64
    };
    let centre = if case.rms { 0.0 } else { mean(&|x| x) };
    let variance = mean(&|x| (x - centre) * (x - centre));
    RowMoments {
        mean: centre,
        inverse_deviation: 1.0 / (variance + 1e-5).sqrt(),
    }
}

/// One element before weight and shift. Of f64, where a distance from the mean may be out of range, the row is multiplied
/// by a power of two and the inverse deviation divided by it.
fn normalized(case: &Case, moments: RowMoments, x: f64) -> f64 {
    let RowMoments {
        mean,
        inverse_deviation: inverse,
    } = moments;
    let odd = !(1e-140..=1e140).contains(&inverse) && inverse != 0.0;
    let power = if odd && matches!(case.dtype, DType::F64) {
        let exponent = inverse.abs().log2().floor();
        exponent.clamp(-1022.0, 1022.0).exp2()
    } else {
        1.0
    };
    (x * power - mean * power) * (inverse / power)
}

/// The gradients of weight and shift the long way: by blocks of 64 rows, as doubles.
fn sums_over_rows<T: Element>(
    case: &Case,
    dz: &[T],
    sum: &[T::Scale],
    moments: &[RowMoments],
    [_, d_weight, d_shift]: &mut [Canaries<T::Scale>; 3],
) {
    let len = case.rows.len;
    let rows = dz.len().checked_div(len).unwrap_or(0);
    for i in 0..len {
        let (mut of_weight, mut of_shift) = (0.0, 0.0);
        for block in (0..rows).step_by(64) {
            let (mut products, mut gradients) = (0.0, 0.0);
            for row in block..rows.min(block + 64) {
                let (at, moments) = (row * len + i, moments[row]);
                let y = normalized(case, moments, sum[at].to_double());
                products += dz[at].to_double() * y;
                gradients += dz[at].to_double();
            }
            of_weight += products;
            of_shift += gradients;
        }
        if case.has[4] {
            d_weight.inside_mut()[i] = T::Scale::narrow(T::factor(of_weight));
        }
        if case.has[5] {
            d_shift.inside_mut()[i] = T::Scale::narrow(T::factor(of_shift));
        }
    }
}
