//! The jobs over rows: a residual plus dropout, normalised, and the gradient of the normalisation.
//!
//! The sum is made a tile of the mask at a time. A row is normalised as soon as it is all there, while it
//! is in the level 1 cache: once for the mean, once for the variance, once for the result.

use core::ops::Range;

use crate::element::Element;
use crate::job::{DropoutAddNorm, NormBackward, ROWS_OF_BLOCK, RowMask};
use crate::kernel::elements::{Elements, Group, InPlace, OutOfPlace};
use crate::kernel::tile::{Nothing, Rule, TileWords, make, spans};
use crate::mask::BitSlice;
use crate::norm::{NORMAL_IN_F32, NORMAL_IN_F64, Norm, NormKind, RowMoments, is_odd};
use crate::simd::{Doubles, GROUP, Kernel, Lanes, RowLanes, Simd};

impl<T: Element, S: Simd + RowLanes<T>> Kernel<S> for DropoutAddNorm<'_, T> {
    #[inline(always)]
    fn run(self, simd: S) {
        let scale = self.scale();
        let (mask, rows) = self.into_parts();
        let (norm, x, bias) = (rows.norm(), rows.x(), rows.bias());
        let (sum, z, moments) = rows.into_outputs();
        let (residual, sum) = sum.into_slices();
        let mut rows = Rows {
            simd,
            scale,
            norm,
            x,
            bias,
            residual,
            sum,
            z,
            moments,
            done: 0,
        };
        match mask {
            RowMask::Kept => rows.advance(x.len(), Words::All(u64::MAX)),
            RowMask::Dropped => rows.advance(x.len(), Words::All(0)),
            RowMask::Bits(bits) => rows.advance(x.len(), Words::Bits(bits)),
            RowMask::Made {
                window,
                rule,
                mut out,
            } => {
                let rule = Rule::new(simd, rule);
                let mut scratch = TileWords::new();
                for span in spans(window.first, x.len()) {
                    let (blocks, copy) = match &mut out {
                        Some(out) if span.has_own_words() => (span.own_words(out), false),
                        out => (&mut scratch.0[..], out.is_some()),
                    };
                    make(simd, window.key, &rule, &span, blocks, &mut Nothing);
                    rows.advance(span.len(), Words::Bits(span.bits(blocks)));
                    if let Some(out) = &mut out
                        && copy
                    {
                        out.write(span.at, span.bits(&scratch.0));
                    }
                }
            }
        }
    }
}

/// The bits of elements, 64 at a time.
#[derive(Clone, Copy)]
enum Words<'a> {
    /// The same for all.
    All(u64),
    Bits(BitSlice<'a>),
}

impl Words<'_> {
    #[inline(always)]
    fn slice(self, range: Range<usize>) -> Self {
        match self {
            Self::All(_) => self,
            Self::Bits(bits) => Self::Bits(bits.split_at(range.end).0.split_at(range.start).1),
        }
    }

    #[inline(always)]
    fn word(self, i: usize) -> u64 {
        match self {
            Self::All(word) => word,
            Self::Bits(bits) => bits.word(i),
        }
    }
}

/// Rows on their way.
struct Rows<'a, T: Element, S> {
    simd: S,
    scale: T::Scale,
    norm: Norm<'a, T::Scale>,
    x: &'a [T],
    bias: Option<&'a [T::Scale]>,
    /// Absent if it lies in `sum`.
    residual: Option<&'a [T::Scale]>,
    sum: &'a mut [T::Scale],
    z: &'a mut [T],
    moments: &'a mut [RowMoments],
    /// How many elements of the sum are made.
    done: usize,
}

impl<T: Element, S: RowLanes<T>> Rows<'_, T, S> {
    /// Makes the next `n` elements of the sum, by the bits `words`, and normalises the rows that end there.
    #[inline(always)]
    fn advance(&mut self, n: usize, words: Words<'_>) {
        let (simd, len) = (self.simd, self.norm.len());
        let (begin, end) = (self.done, self.done + n);
        while self.done < end {
            let row = self.done / len;
            let row_end = (row + 1) * len;
            let part = self.done..row_end.min(end);
            self.done = part.end;
            let words = words.slice(part.start - begin..part.end - begin);
            let (x, first) = (&self.x[part.clone()], part.start - row * len);
            let bias = self.bias.map(|bias| &bias[first..][..x.len()]);
            let y = &mut self.sum[part.clone()];
            match self.residual {
                Some(residual) => {
                    let x_and_y = OutOfPlace {
                        x: &residual[part],
                        y,
                    };
                    add(simd, self.scale, x, bias, x_and_y, words);
                }
                None => add(simd, self.scale, x, bias, InPlace { y }, words),
            }
            if self.done == row_end {
                let range = row * len..row_end;
                let (sum, z) = (&self.sum[range.clone()], &mut self.z[range]);
                self.moments[row] = moments(simd, &self.norm, sum);
                normalize(simd, &self.norm, self.moments[row], sum, z);
            }
        }
    }
}

/// The residual that `sum` has, plus dropout of x.
#[inline(always)]
fn add<T: Element, S: RowLanes<T>>(
    simd: S,
    scale: T::Scale,
    x: &[T],
    bias: Option<&[T::Scale]>,
    mut sum: impl Elements<T::Scale>,
    words: Words<'_>,
) {
    let wide_scale = Lanes::<T::Scale>::splat_wide(simd, scale);
    let (groups, rest) = x.as_chunks::<GROUP>();
    let bias = Row::new(bias, -0.0);
    let whole = sum.take(groups.len() * GROUP);
    add_groups(simd, wide_scale, groups, &bias, whole, words);
    if !rest.is_empty() {
        let (one, bits) = (T::Scale::factor(1.0), words.word(groups.len()));
        sum.update(|i, residual| {
            if bits >> i & 1 == 1 {
                let x = rest[i].widened().times_plus(one, bias.rest(i));
                x.times_plus(scale, residual)
            } else {
                residual
            }
        });
    }
}

#[inline(always)]
fn add_groups<T: Element, S: RowLanes<T>>(
    simd: S,
    scale: <S as Lanes<T::Scale>>::Wide,
    x: &[[T; GROUP]],
    bias: &Row<'_, T::Scale>,
    mut sum: impl Elements<T::Scale>,
    words: Words<'_>,
) {
    let mut scratch = [T::Scale::ZERO; GROUP];
    for (i, (x, mut sum)) in x.iter().zip(sum.groups(0..x.len())).enumerate() {
        simd.prefetch_write(sum.y());
        let (bits, bias) = (words.word(i), bias.group(i));
        let x = simd.widen_group(x, &mut scratch);
        for at in (0..GROUP).step_by(<S as Lanes<T::Scale>>::LANES) {
            let residual = Lanes::<T::Scale>::load(simd, sum.x(), at);
            let x =
                Lanes::<T::Scale>::plus(simd, load_wide(simd, x, at), load_wide(simd, bias, at));
            let y = Lanes::<T::Scale>::plus(
                simd,
                Lanes::<T::Scale>::times(simd, x, scale),
                Lanes::<T::Scale>::widen(simd, residual),
            );
            let y = Lanes::<T::Scale>::narrow(simd, y, true);
            let y = Lanes::<T::Scale>::select(simd, bits, at, y, residual);
            Lanes::<T::Scale>::store(simd, y, sum.y(), at);
        }
    }
}

/// A vector of numbers of the type computed in.
#[inline(always)]
fn load_wide<N: Element<Scale = N>, S: Lanes<N>>(simd: S, x: &[N; GROUP], at: usize) -> S::Wide {
    simd.widen(simd.load(x, at))
}

/// Stores a vector of numbers of the type computed in.
#[inline(always)]
fn store_wide<N: Element<Scale = N>, S: Lanes<N>>(
    simd: S,
    x: S::Wide,
    y: &mut [N; GROUP],
    at: usize,
) {
    simd.store(simd.narrow(x, true), y, at);
}

/// A row that goes into every one, such as a weight, or as many times the same number.
struct Row<'a, N> {
    groups: Option<&'a [[N; GROUP]]>,
    rest: &'a [N],
    /// What there is in place of a row.
    same: [N; GROUP],
}

impl<'a, N: Element<Scale = N>> Row<'a, N> {
    #[inline(always)]
    fn new(row: Option<&'a [N]>, otherwise: f64) -> Self {
        let (groups, rest) = row.map(|row| row.as_chunks()).unzip();
        Self {
            groups,
            rest: rest.unwrap_or_default(),
            same: [N::factor(otherwise); GROUP],
        }
    }

    #[inline(always)]
    fn group(&self, i: usize) -> &[N; GROUP] {
        match self.groups {
            Some(groups) => &groups[i],
            None => &self.same,
        }
    }

    /// Element `i` after the whole groups.
    #[inline(always)]
    fn rest(&self, i: usize) -> N {
        if self.groups.is_some() {
            self.rest[i]
        } else {
            self.same[0]
        }
    }
}

/// How many partial sums a row has.
const SUMS: usize = 32;

/// The partial sums of a row: element `i` goes to sum `i % 32`.
struct Sums<S: Lanes<f64>> {
    simd: S,
    // As many of them as hold 32; a vector of f64 has at least two lanes.
    vectors: [<S as Lanes<f64>>::Wide; SUMS / 2],
}

impl<S: Lanes<f64>> Sums<S> {
    #[inline(always)]
    fn new(simd: S) -> Self {
        let vectors = [Lanes::<f64>::splat_wide(simd, 0.0); SUMS / 2];
        Self { simd, vectors }
    }

    /// Adds the vector that begins at element `at` of a group.
    #[inline(always)]
    fn add(&mut self, x: <S as Lanes<f64>>::Wide, at: usize) {
        let sum = &mut self.vectors[at % SUMS / <S as Lanes<f64>>::LANES];
        *sum = Lanes::<f64>::plus(self.simd, *sum, x);
    }

    /// The sum of all, and of the `rest`, which are the elements after whole groups.
    #[inline(always)]
    fn total(&self, rest: impl Iterator<Item = f64>) -> f64 {
        let mut sums = [0.0; GROUP];
        for k in 0..SUMS / <S as Lanes<f64>>::LANES {
            let at = k * <S as Lanes<f64>>::LANES;
            store_wide(self.simd, self.vectors[k], &mut sums, at);
        }
        total_of(&mut sums, rest)
    }
}

/// The sum of numbers in the order of [`Sums`].
fn total(numbers: impl Iterator<Item = f64>) -> f64 {
    total_of(&mut [0.0; GROUP], numbers)
}

/// Adds numbers to partial sums, and these in pairs.
#[inline(always)]
fn total_of(sums: &mut [f64; GROUP], numbers: impl Iterator<Item = f64>) -> f64 {
    for (i, x) in numbers.enumerate() {
        sums[i % SUMS] += x;
    }
    let mut left = SUMS / 2;
    while left > 0 {
        for k in 0..left {
            sums[k] += sums[k + left];
        }
        left /= 2;
    }
    sums[0]
}

/// Mean and inverse deviation of a row.
#[inline(always)]
fn moments<N: Element<Scale = N>, S: Doubles<N>>(
    simd: S,
    norm: &Norm<'_, N>,
    row: &[N],
) -> RowMoments {
    let (groups, rest) = row.as_chunks::<GROUP>();
    let count = row.len() as f64;
    let mean = if norm.kind() == NormKind::Rms {
        0.0
    } else {
        let mut sums = Sums::new(simd);
        for group in groups {
            for at in (0..GROUP).step_by(<S as Lanes<f64>>::LANES) {
                sums.add(simd.doubles(group, at), at);
            }
        }
        sums.total(rest.iter().map(|x| x.to_double())) / count
    };
    let minus_mean = Lanes::<f64>::splat_wide(simd, -mean);
    let mut squares = Sums::new(simd);
    for group in groups {
        for at in (0..GROUP).step_by(<S as Lanes<f64>>::LANES) {
            let x = Lanes::<f64>::plus(simd, simd.doubles(group, at), minus_mean);
            squares.add(Lanes::<f64>::times(simd, x, x), at);
        }
    }
    let rest = rest.iter().map(|x| {
        let x = x.to_double() - mean;
        x * x
    });
    let variance = squares.total(rest) / count + norm.epsilon();
    let moments = RowMoments {
        mean,
        inverse_deviation: inverse_root(1.0, variance),
    };
    if is_f64::<N>() && is_odd(mean, variance) {
        odd_moments(norm, row, moments)
    } else {
        moments
    }
}

/// `scale / sqrt(variance)`, in range.
#[inline(always)]
fn inverse_root(scale: f64, variance: f64) -> f64 {
    if variance == 0.0 {
        0.0
    } else {
        let inverse = scale / variance.sqrt();
        if inverse == f64::INFINITY {
            f64::MAX
        } else {
            inverse
        }
    }
}

/// [`moments`] of a row of f64 that [is odd](is_odd); `moments` are those that were computed without care.
#[cold]
fn odd_moments<N: Element<Scale = N>>(
    norm: &Norm<'_, N>,
    row: &[N],
    moments: RowMoments,
) -> RowMoments {
    let (count, layer) = (row.len() as f64, norm.kind() == NormKind::Layer);
    let largest = |largest: f64, x: &N| largest.max(x.to_double().abs());
    let largest = row.iter().fold(norm.epsilon().sqrt(), largest);
    if !largest.is_finite() {
        return moments;
    }
    let first = row[0].to_double();
    if layer && row.iter().all(|x| x.to_double() == first) {
        return RowMoments {
            mean: first,
            inverse_deviation: inverse_root(1.0, norm.epsilon()),
        };
    }
    let scale = inverse_power_of_two(largest);
    let mean = if layer {
        let mean = total(row.iter().map(|x| x.to_double() * scale)) / count;
        // Of the largest numbers it may have been rounded up.
        (mean / scale).clamp(f64::MIN, f64::MAX)
    } else {
        0.0
    };
    let squares = row.iter().map(|x| {
        let x = x.to_double() * scale - mean * scale;
        x * x
    });
    let variance = total(squares) / count + norm.epsilon() * scale * scale;
    RowMoments {
        mean,
        inverse_deviation: inverse_root(scale, variance),
    }
}

/// The power of two that takes a number into [1, 2), as far as it and its inverse are normal.
#[inline(always)]
fn inverse_power_of_two(x: f64) -> f64 {
    const MANTISSA: u32 = f64::MANTISSA_DIGITS - 1;
    // Biased by 1023, without the sign.
    let exponent = x.to_bits() << 1 >> 1 >> MANTISSA;
    f64::from_bits((2046 - exponent.clamp(1, 2045)) << MANTISSA)
}

#[inline(always)]
fn is_f64<N>() -> bool {
    size_of::<N>() == size_of::<f64>()
}

/// A row's moments in the type computed in: the mean is subtracted in two steps.
#[derive(Clone, Copy)]
struct Narrow<N> {
    minus_high: N,
    minus_low: N,
    inverse_deviation: N,
}

impl<N: Element<Scale = N>> Narrow<N> {
    /// `None` if the row is normalised as doubles.
    #[inline(always)]
    fn of(moments: RowMoments) -> Option<Self> {
        let normal = if is_f64::<N>() {
            NORMAL_IN_F64
        } else {
            NORMAL_IN_F32
        };
        normal.contains(&moments.inverse_deviation).then(|| {
            let minus_high = N::factor(-moments.mean);
            Self {
                minus_high,
                minus_low: N::factor(-moments.mean - minus_high.to_double()),
                inverse_deviation: N::factor(moments.inverse_deviation),
            }
        })
    }

    #[inline(always)]
    fn element(self, x: N) -> N {
        let one = N::factor(1.0);
        let x = x.times_plus(one, self.minus_high);
        x.times_plus(one, self.minus_low)
            .times(self.inverse_deviation)
    }
}

/// [`Narrow`] in vectors.
#[derive(Clone, Copy)]
struct Wide<N: Element<Scale = N>, S: Lanes<N>> {
    minus_high: S::Wide,
    minus_low: S::Wide,
    inverse_deviation: S::Wide,
    number: core::marker::PhantomData<N>,
}

impl<N: Element<Scale = N>, S: Lanes<N>> Wide<N, S> {
    #[inline(always)]
    fn new(simd: S, narrow: Narrow<N>) -> Self {
        Self {
            minus_high: simd.splat_wide(narrow.minus_high),
            minus_low: simd.splat_wide(narrow.minus_low),
            inverse_deviation: simd.splat_wide(narrow.inverse_deviation),
            number: core::marker::PhantomData,
        }
    }

    #[inline(always)]
    fn vector(self, simd: S, x: S::Wide) -> S::Wide {
        let x = simd.plus(x, self.minus_high);
        simd.times(simd.plus(x, self.minus_low), self.inverse_deviation)
    }
}

/// A row's moments to normalise as doubles.
#[derive(Clone, Copy)]
struct InDoubles {
    /// A power of two: 1 of f32, and of f64 where distances from the mean are in range without.
    scale: f64,
    /// Of the scaled row.
    minus_mean: f64,
    inverse_deviation: f64,
}

impl InDoubles {
    #[inline(always)]
    fn new<N>(moments: RowMoments) -> Self {
        let inverse = moments.inverse_deviation;
        let scale = if !is_f64::<N>() || NORMAL_IN_F64.contains(&inverse) || inverse == 0.0 {
            1.0
        } else {
            1.0 / inverse_power_of_two(inverse)
        };
        Self {
            scale,
            minus_mean: -moments.mean * scale,
            inverse_deviation: inverse / scale,
        }
    }

    /// One element before weight and shift.
    #[inline(always)]
    fn element<N: Element>(self, x: N) -> f64 {
        (x.to_double() * self.scale + self.minus_mean) * self.inverse_deviation
    }
}

#[inline(always)]
fn normalize<T: Element, S: RowLanes<T>>(
    simd: S,
    norm: &Norm<'_, T::Scale>,
    moments: RowMoments,
    row: &[T::Scale],
    z: &mut [T],
) {
    let weight = Row::new(norm.weight(), 1.0);
    let shift = Row::new(norm.shift(), -0.0);
    let (groups, rest) = row.as_chunks::<GROUP>();
    let (z_groups, z_rest) = z.as_chunks_mut::<GROUP>();
    let Some(narrow) = Narrow::<T::Scale>::of(moments) else {
        let doubles = InDoubles::new::<T::Scale>(moments);
        let one = |x: T::Scale, weight: T::Scale, shift| {
            let y = T::Scale::factor(doubles.element(x));
            T::narrow(y.times_plus(weight, shift))
        };
        for (g, (z, x)) in z_groups.iter_mut().zip(groups).enumerate() {
            let (weight, shift) = (weight.group(g), shift.group(g));
            for (i, z) in z.iter_mut().enumerate() {
                *z = one(x[i], weight[i], shift[i]);
            }
        }
        for (i, z) in z_rest.iter_mut().enumerate() {
            *z = one(rest[i], weight.rest(i), shift.rest(i));
        }
        return;
    };
    let wide = Wide::<T::Scale, S>::new(simd, narrow);
    let mut scratch = [T::Scale::ZERO; GROUP];
    for (g, (z, x)) in z_groups.iter_mut().zip(groups).enumerate() {
        simd.prefetch_write(z);
        let (weight, shift) = (weight.group(g), shift.group(g));
        let place = simd.place(z, &mut scratch);
        for at in (0..GROUP).step_by(<S as Lanes<T::Scale>>::LANES) {
            let y = wide.vector(simd, load_wide(simd, x, at));
            let y = Lanes::<T::Scale>::times(simd, y, load_wide(simd, weight, at));
            let y = Lanes::<T::Scale>::plus(simd, y, load_wide(simd, shift, at));
            store_wide(simd, y, place, at);
        }
        simd.finish(z, &scratch);
    }
    for (i, z) in z_rest.iter_mut().enumerate() {
        let y = narrow.element(rest[i]);
        *z = T::narrow(y.times_plus(weight.rest(i), shift.rest(i)));
    }
}

impl<T: Element, S: Simd + RowLanes<T>> Kernel<S> for NormBackward<'_, T> {
    #[inline(always)]
    fn run(self, simd: S) {
        let (norm, len) = (self.norm(), self.norm().len());
        let (dz, sum, moments, more) = (self.dz(), self.sum(), self.moments(), self.more());
        let (d_sum, mut columns) = self.into_outputs();
        for (row, &moments) in moments.iter().enumerate() {
            let range = row * len..(row + 1) * len;
            let (dz, x) = (&dz[range.clone()], &sum[range.clone()]);
            let block = row / ROWS_OF_BLOCK;
            let columns = match &mut columns {
                Some(columns) => &mut columns[block * 2 * len..][..2 * len],
                None => &mut [][..],
            };
            let (of_weight, of_shift) = columns.split_at_mut(columns.len() / 2);
            let means = means(simd, &norm, moments, dz, x, of_weight, of_shift);
            let more = more.map(|more| &more[range.clone()]);
            gradient(simd, &norm, moments, means, dz, x, more, &mut d_sum[range]);
        }
    }
}

/// The means of a row of `h = weight * dz` and of `h * y`, where `y` is the normalised row; and the sums over
/// rows, of `dz * y` and of `dz`, if there is room for them.
#[inline(always)]
fn means<T: Element, S: RowLanes<T>>(
    simd: S,
    norm: &Norm<'_, T::Scale>,
    moments: RowMoments,
    dz: &[T],
    x: &[T::Scale],
    of_weight: &mut [f64],
    of_shift: &mut [f64],
) -> [f64; 2] {
    let lanes = <S as Lanes<f64>>::LANES;
    let weight = Row::new(norm.weight(), 1.0);
    let (dz_groups, dz_rest) = dz.as_chunks::<GROUP>();
    let (groups, rest) = x.as_chunks::<GROUP>();
    let (of_weight, of_weight_rest) = of_weight.as_chunks_mut::<GROUP>();
    let (of_shift, of_shift_rest) = of_shift.as_chunks_mut::<GROUP>();
    let doubles = InDoubles::new::<T::Scale>(moments);
    let scale = Lanes::<f64>::splat_wide(simd, doubles.scale);
    let minus_mean = Lanes::<f64>::splat_wide(simd, doubles.minus_mean);
    let inverse = Lanes::<f64>::splat_wide(simd, doubles.inverse_deviation);
    let (mut of_h, mut of_products) = (Sums::new(simd), Sums::new(simd));
    let mut scratch = [T::Scale::ZERO; GROUP];
    let mut columns = of_weight.iter_mut().zip(of_shift);
    for (g, (dz, x)) in dz_groups.iter().zip(groups).enumerate() {
        let (dz, weight) = (simd.widen_group(dz, &mut scratch), weight.group(g));
        let mut columns = columns.next();
        for at in (0..GROUP).step_by(lanes) {
            let (dz, x) = (simd.doubles(dz, at), simd.doubles(x, at));
            let x = if is_f64::<T::Scale>() {
                Lanes::<f64>::times(simd, x, scale)
            } else {
                x
            };
            let y = Lanes::<f64>::plus(simd, x, minus_mean);
            let y = Lanes::<f64>::times(simd, y, inverse);
            let h = Lanes::<f64>::times(simd, dz, simd.doubles(weight, at));
            of_h.add(h, at);
            of_products.add(Lanes::<f64>::times(simd, h, y), at);
            if let Some((of_weight, of_shift)) = &mut columns {
                let product = Lanes::<f64>::times(simd, dz, y);
                let sum = Lanes::<f64>::plus(simd, load_wide(simd, of_weight, at), product);
                store_wide(simd, sum, of_weight, at);
                let sum = Lanes::<f64>::plus(simd, load_wide(simd, of_shift, at), dz);
                store_wide(simd, sum, of_shift, at);
            }
        }
    }
    for (i, (sum, (dz, &x))) in of_weight_rest
        .iter_mut()
        .zip(dz_rest.iter().zip(rest))
        .enumerate()
    {
        let dz = dz.to_double();
        *sum += dz * doubles.element(x);
        of_shift_rest[i] += dz;
    }
    let h = |i: usize| dz_rest[i].to_double() * weight.rest(i).to_double();
    let count = x.len() as f64;
    let of_rest = (0..rest.len()).map(|i| h(i) * doubles.element(rest[i]));
    let of_products = of_products.total(of_rest) / count;
    let of_h = match norm.kind() {
        NormKind::Layer => of_h.total((0..rest.len()).map(h)) / count,
        NormKind::Rms => 0.0,
    };
    [of_h, of_products]
}

/// The gradient of a row, given the means.
#[inline(always)]
#[allow(
    clippy::too_many_arguments,
    reason = "what a row of the job is, taken apart so that the loop asks nothing"
)]
fn gradient<T: Element, S: RowLanes<T>>(
    simd: S,
    norm: &Norm<'_, T::Scale>,
    moments: RowMoments,
    [of_h, of_products]: [f64; 2],
    dz: &[T],
    x: &[T::Scale],
    more: Option<&[T::Scale]>,
    d_sum: &mut [T::Scale],
) {
    let weight = Row::new(norm.weight(), 1.0);
    let more = Row::new(more, -0.0);
    let (dz_groups, dz_rest) = dz.as_chunks::<GROUP>();
    let (groups, rest) = x.as_chunks::<GROUP>();
    let (d_groups, d_rest) = d_sum.as_chunks_mut::<GROUP>();
    let one = T::Scale::factor(1.0);
    let Some(narrow) = Narrow::<T::Scale>::of(moments) else {
        let doubles = InDoubles::new::<T::Scale>(moments);
        let element = |dz: T, x: T::Scale, weight: T::Scale, more| {
            let h = dz.to_double() * weight.to_double();
            let d = h - of_h - doubles.element(x) * of_products;
            T::Scale::factor(d * moments.inverse_deviation).times_plus(one, more)
        };
        for (g, (d, x)) in d_groups.iter_mut().zip(groups).enumerate() {
            let (dz, weight, more) = (&dz_groups[g], weight.group(g), more.group(g));
            for (i, d) in d.iter_mut().enumerate() {
                *d = element(dz[i], x[i], weight[i], more[i]);
            }
        }
        for (i, d) in d_rest.iter_mut().enumerate() {
            *d = element(dz_rest[i], rest[i], weight.rest(i), more.rest(i));
        }
        return;
    };
    let wide = Wide::<T::Scale, S>::new(simd, narrow);
    let (minus_h, minus_products) = (T::Scale::factor(-of_h), T::Scale::factor(-of_products));
    let wide_h = Lanes::<T::Scale>::splat_wide(simd, minus_h);
    let wide_products = Lanes::<T::Scale>::splat_wide(simd, minus_products);
    let mut scratch = [T::Scale::ZERO; GROUP];
    for (g, (d, x)) in d_groups.iter_mut().zip(groups).enumerate() {
        simd.prefetch_write(d);
        let dz = simd.widen_group(&dz_groups[g], &mut scratch);
        let (weight, more) = (weight.group(g), more.group(g));
        for at in (0..GROUP).step_by(<S as Lanes<T::Scale>>::LANES) {
            let y = wide.vector(simd, load_wide(simd, x, at));
            let h = Lanes::<T::Scale>::times(
                simd,
                load_wide(simd, dz, at),
                load_wide(simd, weight, at),
            );
            let h = Lanes::<T::Scale>::plus(simd, h, wide_h);
            let y = Lanes::<T::Scale>::times(simd, y, wide_products);
            let y = Lanes::<T::Scale>::plus(simd, y, h);
            let y = Lanes::<T::Scale>::times(simd, y, wide.inverse_deviation);
            let y = Lanes::<T::Scale>::plus(simd, y, load_wide(simd, more, at));
            store_wide(simd, y, d, at);
        }
    }
    for (i, d) in d_rest.iter_mut().enumerate() {
        let h = dz_rest[i].widened().times_plus(weight.rest(i), minus_h);
        let y = narrow.element(rest[i]).times_plus(minus_products, h);
        *d = y.times_plus(narrow.inverse_deviation, more.rest(i));
    }
}
