//! One job over rows: run by a backend, and compared with the reference.

use super::guarded::{Guarded, GuardedBits, Sample};
use super::run::{Expected, LENGTHS, guard_panic, view};
use super::{Case, Difference, MaskOfRows};
use crate::backend::{Backend, reference};
use crate::buffers::Buffers;
use crate::element::Element;
use crate::job::{DropoutAddNorm, NormBackward, ROWS_OF_BLOCK, RowMask};
use crate::mask::BitMask;
use crate::norm::{AddNorm, Norm, NormKind, RowMoments};

/// What the numbers of a case are like: of any size or special, now and then.
fn numbers<T: Sample>(case: Case, salt: usize) -> Vec<T> {
    // Without a remainder there would be NaN in every row of every case.
    let wild = case.len % 7 == 3 && salt == 1;
    // Rows of tiny and of huge numbers of the type computed in are normalised otherwise.
    let [tiny, huge] = if size_of::<T>() == size_of::<f64>() {
        [1e-200, 1e200]
    } else {
        [1e-38, 1e37]
    };
    let size = match case.len % 11 {
        5 => tiny,
        6 if salt <= 2 => huge,
        _ => 1.0,
    };
    let offset = if case.len % 5 == 4 { 1000.0 } else { 0.0 };
    let number = |i: usize| {
        let hash = ((i + salt) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        T::from_f64(size * (offset + hash as f64 / f64::from(1 << 22) - 2.0))
    };
    let sample = |i| if wild { T::sample(i) } else { number(i) };
    (0..case.len).map(sample).collect()
}

/// The length of the rows of a case: of many short ones or of few long ones.
fn row_len(case: Case) -> usize {
    let most = if case.in_place { 70 } else { 4 };
    let rows = (1..=most.min(case.len)).rev();
    let rows = rows.into_iter().find(|rows| case.len.is_multiple_of(*rows));
    case.len / rows.unwrap_or(1)
}

/// Which optional parts a case has.
fn has(case: Case, part: usize) -> bool {
    (case.len + usize::from(case.in_place)) >> part & 1 == 1
}

fn kind(case: Case) -> NormKind {
    if has(case, 0) {
        NormKind::Rms
    } else {
        NormKind::Layer
    }
}

/// The normalisation of a case, with rows that are as long as it needs.
fn norm<'a, T: Element>(case: Case, rows: &'a [T::Scale]) -> Norm<'a, T::Scale> {
    let len = row_len(case);
    let epsilon = if case.len.is_multiple_of(3) {
        0.0
    } else {
        1e-5
    };
    let mut norm = Norm::new(kind(case), len, epsilon).expect("a good epsilon");
    if has(case, 1) {
        norm = norm.with_weight(&rows[..len]).expect(LENGTHS);
    }
    if has(case, 2) {
        norm = norm.with_shift(&rows[rows.len() - len..]).expect(LENGTHS);
    }
    norm
}

fn compare_moments(got: &[RowMoments], want: &[RowMoments]) -> Result<(), Difference> {
    let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        for (got, want) in [
            (got.mean, want.mean),
            (got.inverse_deviation, want.inverse_deviation),
        ] {
            if !same(got, want) {
                return Err(Difference::Element {
                    index,
                    expected: want.to_bits(),
                    got: got.to_bits(),
                });
            }
        }
    }
    Ok(())
}

pub(super) fn add_norm<T: Sample<Scale: Sample>>(
    backend: &dyn Backend,
    case: Case,
    mask: MaskOfRows,
    expected: &Expected,
) -> Result<(), Difference> {
    if case.len == 0 {
        return Ok(());
    }
    let rows = case.len / row_len(case);
    let samples = numbers::<T>(case, 1);
    let residual = numbers::<T::Scale>(case, 2);
    let affine = numbers::<T::Scale>(case, 3);
    let norm = norm::<T>(case, &affine);
    let scale = T::scale(expected.rate);
    let bias = has(case, 3).then(|| &affine[..norm.len()]);

    let mut want_sum = residual.clone();
    let mut want_z = vec![T::ZERO; case.len];
    let mut want_moments = vec![RowMoments::default(); rows];
    let job = AddNorm::new(
        norm,
        &samples,
        Buffers::in_place(&mut want_sum),
        &mut want_z,
        &mut want_moments,
    );
    let want_mask = match mask {
        MaskOfRows::Kept => RowMask::Kept,
        MaskOfRows::Dropped => RowMask::Dropped,
        _ => RowMask::Bits(expected.keep.as_slice()),
    };
    reference::dropout_add_norm(finish(job.expect(LENGTHS), bias, scale, want_mask));

    let mut sum = Guarded::<T::Scale>::new(case.len, case.misaligned / 8 * 8);
    let mut residuals = Guarded::<T::Scale>::new(case.len, case.misaligned / 16 * 8);
    let mut z = Guarded::<T>::new(case.len, case.misaligned);
    let mut moments = vec![RowMoments::default(); rows];
    let mut bits = GuardedBits::new(case.len);
    residuals.slice().copy_from_slice(&residual);
    let buffers = if case.in_place {
        sum.slice().copy_from_slice(&residual);
        Buffers::in_place(sum.slice())
    } else {
        Buffers::new(residuals.slice(), sum.slice()).expect(LENGTHS)
    };
    let job = AddNorm::new(norm, &samples, buffers, z.slice(), &mut moments);
    let longer: BitMask = expected.longer(case);
    let made = |out| RowMask::Made {
        window: case.window,
        rule: &expected.rule,
        out,
    };
    let by = match mask {
        MaskOfRows::Kept => RowMask::Kept,
        MaskOfRows::Dropped => RowMask::Dropped,
        MaskOfRows::Read => RowMask::Bits(view(&longer, case)),
        MaskOfRows::Written => made(Some(bits.slice())),
        MaskOfRows::Made => made(None),
    };
    let job = finish(job.expect(LENGTHS), bias, scale, by);
    guard_panic(|| T::kernels(backend).dropout_add_norm(job))?;
    if mask == MaskOfRows::Written {
        bits.compare(&expected.keep)?;
    }
    sum.compare(&want_sum, true)?;
    compare_moments(&moments, &want_moments)?;
    z.compare(&want_z, true)
}

/// The job, with its optional parts.
fn finish<'a, T: Element>(
    rows: AddNorm<'a, T>,
    bias: Option<&'a [T::Scale]>,
    scale: T::Scale,
    mask: RowMask<'a>,
) -> DropoutAddNorm<'a, T> {
    let rows = match bias {
        Some(bias) => rows.with_bias(bias).expect(LENGTHS),
        None => rows,
    };
    DropoutAddNorm::new(scale, mask, rows).expect(LENGTHS)
}

pub(super) fn norm_backward<T: Sample<Scale: Sample>>(
    backend: &dyn Backend,
    case: Case,
) -> Result<(), Difference> {
    if case.len == 0 {
        return Ok(());
    }
    let len = row_len(case);
    let rows = case.len / len;
    let dz = numbers::<T>(case, 1);
    let sum = numbers::<T::Scale>(case, 2);
    let affine = numbers::<T::Scale>(case, 3);
    let more = numbers::<T::Scale>(case, 4);
    let norm = norm::<T>(case, &affine);
    let moments: Vec<RowMoments> = (0..rows)
        .map(|row| RowMoments {
            mean: if kind(case) == NormKind::Rms {
                0.0
            } else {
                sum[row * len].to_double() + 0.123_456_789
            },
            // Beyond what rows of f32 are normalised in f32 with, now and then.
            inverse_deviation: if row % 4 == 3 { 1e33 } else { 1.7 },
        })
        .collect();
    let numbers = rows.div_ceil(ROWS_OF_BLOCK) * 2 * len;
    let columns = || has(case, 2).then(|| vec![0.0; numbers]);
    let job = |d_sum, columns| NormBackward {
        norm,
        dz: &dz,
        sum: &sum,
        moments: &moments,
        more: has(case, 3).then_some(&more[..]),
        d_sum,
        columns,
    };

    let (mut want, mut want_columns) = (vec![T::Scale::ZERO; case.len], columns());
    reference::norm_backward(job(&mut want, want_columns.as_deref_mut()));

    let mut d_sum = Guarded::<T::Scale>::new(case.len, case.misaligned / 8 * 8);
    let mut got_columns = columns();
    let job = job(d_sum.slice(), got_columns.as_deref_mut());
    guard_panic(|| T::kernels(backend).norm_backward(job))?;
    if let (Some(got), Some(want)) = (&got_columns, &want_columns) {
        let mut guarded = Guarded::<f64>::new(got.len(), 0);
        guarded.slice().copy_from_slice(got);
        guarded.compare(want, true)?;
    }
    d_sum.compare(&want, true)
}
