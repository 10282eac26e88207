//! The jobs over rows, in their most obvious form.

use crate::element::Element;
use crate::job::{DropoutAddNorm, NormBackward, RowMask};
use crate::norm::{NORMAL_IN_F32, Norm, NormKind, RowMoments};

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
        let y = |i: usize| (sum[begin + i].to_double() - moments.mean) * moments.inverse_deviation;
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
    let count = row.len() as f64;
    let mean = match norm.kind() {
        NormKind::Layer => sum_in_32_parts(row.len(), &|i| row[i].to_double()) / count,
        NormKind::Rms => 0.0,
    };
    let square = |i: usize| (row[i].to_double() - mean) * (row[i].to_double() - mean);
    let variance = sum_in_32_parts(row.len(), &square) / count + norm.epsilon();
    RowMoments {
        mean,
        inverse_deviation: if variance == 0.0 {
            0.0
        } else {
            1.0 / variance.sqrt()
        },
    }
}

/// Whether a row is normalised in the type computed in.
fn is_normal<S: Element>(moments: RowMoments) -> bool {
    S::NAME == "float64" || NORMAL_IN_F32.contains(&moments.inverse_deviation)
}

/// One element before weight and shift.
fn normalized<S: Element<Scale = S>>(moments: RowMoments, x: S) -> S {
    if !is_normal::<S>(moments) {
        return S::factor((x.to_double() - moments.mean) * moments.inverse_deviation);
    }
    let high = S::factor(moments.mean);
    let low = S::factor(moments.mean - high.to_double());
    let distance = plus(
        plus(x, high.times(S::factor(-1.0))),
        low.times(S::factor(-1.0)),
    );
    distance.times(S::factor(moments.inverse_deviation))
}
