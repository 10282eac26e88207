//! The jobs over rows, in their most obvious form.

use crate::element::Element;
use crate::job::{DropoutAddNorm, NormBackward, RowMask};
use crate::norm::{NORMAL_IN_F32, NORMAL_IN_F64, Norm, NormKind, RowMoments, is_odd};

/// Adds dropout of x to a residual, and normalises the rows of the sum.
pub fn dropout_add_norm<T: Element>(job: DropoutAddNorm<'_, T>) {
    let scale = job.scale();
    let (mask, rows) = job.into_parts();
    let (norm, x, bias) = (rows.norm(), rows.x(), rows.bias());
    let keep: Vec<bool> = match mask {
        RowMask::Kept => vec![true; x.len()],
        RowMask::Dropped => vec![false; x.len()],
        RowMask::Bits(bits) => bits.iter().collect(),
        RowMask::Made { window, rule, out } => {
            let keep: Vec<bool> = super::keep_bits(window, rule).take(x.len()).collect();
            if let Some(mut out) = out {
                let words = out.words_mut();
                words.fill(0);
                for (i, &keep) in keep.iter().enumerate() {
                    words[i / 64] |= u64::from(keep) << (i % 64);
                }
            }
            keep
        }
    };
    let (mut sum, z, moments) = rows.into_outputs();
    sum.reborrow().update(|i, residual| {
        if !keep[i] {
            return residual;
        }
        let x = x[i].widened();
        let x = bias.map_or(x, |bias| plus(x, bias[i % norm.len()]));
        plus(x.times(scale), residual)
    });
    let sum = sum.output();
    for (row, moments) in moments.iter_mut().enumerate() {
        let begin = row * norm.len();
        *moments = moments_of(&norm, &sum[begin..][..norm.len()]);
        for i in 0..norm.len() {
            let mut y = normalized(*moments, sum[begin + i]);
            if let Some(weight) = norm.weight() {
                y = y.times(weight[i]);
            }
            if let Some(shift) = norm.shift() {
                y = plus(y, shift[i]);
            }
            z[begin + i] = T::narrow(y);
        }
    }
}

/// The gradient of a normalisation.
pub fn norm_backward<T: Element>(job: NormBackward<'_, T>) {
    let (norm, len) = (job.norm(), job.norm().len());
    let (dz, sum, moments, more) = (job.dz(), job.sum(), job.moments(), job.more());
    let (d_sum, mut columns) = job.into_outputs();
    for (row, &moments) in moments.iter().enumerate() {
        let begin = row * len;
        let y = |i: usize| as_double(moments, sum[begin + i]);
        let weight = |i: usize| norm.weight().map_or(1.0, |weight| weight[i].to_double());
        let h = |i: usize| dz[begin + i].to_double() * weight(i);
        let mean = |of: &dyn Fn(usize) -> f64| sum_in_32_parts(len, of) / len as f64;
        let mean_of_h = if norm.kind() == NormKind::Rms {
            0.0
        } else {
            mean(&h)
        };
        let mean_of_products = mean(&|i| h(i) * y(i));
        for i in 0..len {
            if let Some(columns) = &mut columns {
                let columns = &mut columns[row / 64 * 2 * len..];
                columns[i] += dz[begin + i].to_double() * y(i);
                columns[len + i] += dz[begin + i].to_double();
            }
            let gradient = if is_normal::<T::Scale>(moments) {
                let mut h = dz[begin + i].widened();
                if let Some(weight) = norm.weight() {
                    h = h.times(weight[i]);
                }
                let h = plus(h, T::Scale::factor(-mean_of_h));
                let y = normalized(moments, sum[begin + i]);
                let y = y.times(T::Scale::factor(-mean_of_products));
                plus(y, h).times(T::Scale::factor(moments.inverse_deviation))
            } else {
                let distance = h(i) - mean_of_h - y(i) * mean_of_products;
                T::Scale::factor(distance * moments.inverse_deviation)
            };
            d_sum[begin + i] = more.map_or(gradient, |more| plus(gradient, more[begin + i]));
        }
    }
}

fn plus<S: Element<Scale = S>>(a: S, b: S) -> S {
    a.times_plus(S::factor(1.0), b)
}

/// Element `i` goes to sum `i % 32`; the sums are then added in pairs.
fn sum_in_32_parts(len: usize, of: &dyn Fn(usize) -> f64) -> f64 {
    let mut sums = vec![0.0; 32];
    for i in 0..len {
        sums[i % 32] += of(i);
    }
    while sums.len() > 1 {
        let upper = sums.split_off(sums.len() / 2);
        sums = sums.iter().zip(upper).map(|(a, b)| a + b).collect();
    }
    sums[0]
}

fn moments_of<S: Element<Scale = S>>(norm: &Norm<'_, S>, row: &[S]) -> RowMoments {
    let (moments, variance) = moments_by(norm, row, 1.0);
    let largest = row.iter().map(|x| x.to_double().abs());
    let largest = largest.fold(norm.epsilon().sqrt(), f64::max);
    if !is_f64::<S>() || !is_odd(moments.mean, variance) || largest.is_infinite() {
        return moments;
    }
    let equal = row.windows(2).all(|pair| pair[0] == pair[1]);
    if equal && norm.kind() == NormKind::Layer && !row[0].to_double().is_nan() {
        return RowMoments {
            mean: row[0].to_double(),
            inverse_deviation: inverse_root(1.0, norm.epsilon()),
        };
    }
    moments_by(norm, row, 1.0 / power_of_two_in(largest)).0
}

/// Moments of a row that is multiplied by a power of two before, and the variance of the multiplied one.
fn moments_by<S: Element<Scale = S>>(
    norm: &Norm<'_, S>,
    row: &[S],
    scale: f64,
) -> (RowMoments, f64) {
    let count = row.len() as f64;
    let x = |i: usize| row[i].to_double() * scale;
    let mean = match norm.kind() {
        NormKind::Layer => sum_in_32_parts(row.len(), &x) / count / scale,
        NormKind::Rms => 0.0,
    };
    let mean = if scale == 1.0 {
        mean
    } else {
        mean.clamp(f64::MIN, f64::MAX)
    };
    let square = |i: usize| (x(i) - mean * scale) * (x(i) - mean * scale);
    let epsilon = norm.epsilon() * scale * scale;
    let variance = sum_in_32_parts(row.len(), &square) / count + epsilon;
    let moments = RowMoments {
        mean,
        inverse_deviation: inverse_root(scale, variance),
    };
    (moments, variance)
}

fn inverse_root(scale: f64, variance: f64) -> f64 {
    match scale / variance.sqrt() {
        _ if variance == 0.0 => 0.0,
        f64::INFINITY => f64::MAX,
        inverse => inverse,
    }
}

fn is_f64<S: Element>() -> bool {
    S::NAME == "float64"
}

/// The largest power of two that is not above `|x|`, of those from 2^-1022 to 2^1022.
fn power_of_two_in(x: f64) -> f64 {
    let mut power = f64::MIN_POSITIVE;
    while power < 2.0_f64.powi(1022) && 2.0 * power <= x.abs() {
        power *= 2.0;
    }
    power
}

/// Whether a row is normalised in the type computed in.
fn is_normal<S: Element>(moments: RowMoments) -> bool {
    let normal = if is_f64::<S>() {
        NORMAL_IN_F64
    } else {
        NORMAL_IN_F32
    };
    normal.contains(&moments.inverse_deviation)
}

/// One element as a double, before weight and shift.
fn as_double<S: Element<Scale = S>>(moments: RowMoments, x: S) -> f64 {
    let inverse = moments.inverse_deviation;
    let scale = if is_f64::<S>() && !is_normal::<S>(moments) && inverse != 0.0 {
        power_of_two_in(inverse)
    } else {
        1.0
    };
    (x.to_double() * scale - moments.mean * scale) * (inverse / scale)
}

/// One element before weight and shift.
fn normalized<S: Element<Scale = S>>(moments: RowMoments, x: S) -> S {
    if !is_normal::<S>(moments) {
        return S::factor(as_double(moments, x));
    }
    let high = S::factor(moments.mean);
    let low = S::factor(moments.mean - high.to_double());
    let distance = plus(
        plus(x, high.times(S::factor(-1.0))),
        low.times(S::factor(-1.0)),
    );
    distance.times(S::factor(moments.inverse_deviation))
}
